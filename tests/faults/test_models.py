"""Other versions of a model under load: promoted, rolled back, and bad ones refused.

What is published is held against a pipeline that nothing disturbs and that exchanges the versions at the offsets that
the worker has reported: every score must be there, byte for byte, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from fault_record import Fault
from feeder import Feeder, wait_committed
from oracle import published
from worker_process import Worker, read_all, run

from models.artifact import MANIFEST, WEIGHTS, Manifest
from models.datasets import Recording
from models.store import Store
from models.train import train
from stream.orders import Message, order_of, send
from stream.pipeline import Pipeline
from stream.plan import Plan, load_plan
from stream.reader import read_records
from stream.records import Record, to_json
from stream.settings import KafkaSettings
from stream.shelf import Shelf
from stream.sinks.messages import score_rows

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

OFTEN = {"HEADRACE_WORKER_SNAPSHOT_EVERY_S": "2", "HEADRACE_KAFKA_INSTANCE_ID": "w1"}


def stored_plan(own_plan: Path, folder: Path) -> Path:
    """The plan with its detector `quick` in a store."""
    lines = [
        'artifact = "store:"' if line.startswith("artifact") and line.endswith('/quick"') else line
        for line in own_plan.read_text().splitlines()
    ]
    path = folder / "headrace.toml"
    path.write_text("\n".join([*lines, "[models]", 'store = "versions"', ""]))
    return path


def versions_in(store: Store, make_recording: Callable[..., Recording]) -> list[str]:
    """Three versions, of other windows too; the first serves."""
    found = []
    for seed, config in ((1, {}), (2, {}), (3, {"window": 96})):
        history = [make_recording(f"pump-{number}", rows=2000, seed=100 * seed + number) for number in range(2)]
        found.append(store.add("quick", train(history, detector="ewma", config=config, seed=seed)))
    store.decide("quick", "promote", serving=found[0])
    return found


def messages(kafka: KafkaSettings, plan: Plan, action: str) -> list[Message]:
    found = [msgspec.json.decode(raw.value, type=Message) for raw in read_all(kafka, plan.topics.models)]
    return [message for message in found if message.action == action]


def undisturbed(kafka: KafkaSettings, plan: Plan) -> tuple[set[bytes], set[bytes]]:
    """Scores and alerts of the readings' topic, with versions exchanged where the worker said."""
    shelf = Shelf(plan)
    points: dict[int, dict[int, Message]] = {}
    for message in messages(kafka, plan, "switched"):
        assert message.partition is not None
        assert message.offset is not None
        points.setdefault(message.partition, {})[message.offset] = message
        for version in (message.serving, message.candidate):
            if version:
                shelf.fetch("quick", version)
    pipeline = Pipeline(plan, shelf)
    scores, alerts = set(), set()
    for batch in read_records(kafka, plan.topics.readings):
        partition, exchanges = batch[0].partition, points.get(batch[0].partition, {})
        cuts = {0, *(place for place, raw in enumerate(batch) if raw.offset in exchanges), len(batch)}
        for first, last in pairwise(sorted(cuts)):
            if point := exchanges.get(batch[first].offset):
                pipeline.switch(partition, "quick", point.serving, point.candidate)
            records = [
                Record(raw.topic, partition, raw.offset, raw.value, raw.key, raw.timestamp, ())
                for raw in batch[first:last]
            ]
            output = pipeline.process(partition, records)
            scores |= {value for held in output.scores for _, value in score_rows(held, plan.site)}
            alerts |= {to_json(alert) for alert in output.alerts}
    return scores, alerts


def must_be_as_undisturbed(kafka: KafkaSettings, plan: Plan) -> None:
    scores, alerts = undisturbed(kafka, plan)
    said = published(kafka, plan.topics.scores)
    assert set(said) == scores
    assert set(published(kafka, plan.topics.alerts)) == alerts
    judged: dict[tuple[str, str, str], set[str]] = {}
    for value in said:
        row = json.loads(value)  # type: ignore[arg-type]  # bytes
        judged.setdefault((row["asset"], row["detector"], row["ts"]), set()).add(row["model_version"])
    assert {len(versions) for versions in judged.values()} == {1}, "a reading was judged by two versions"


@pytest.mark.both_brokers
@pytest.mark.fault(15, "hot swap of a model under load, roll-back, kill -9")
def test_versions_are_exchanged_under_load_and_every_reading_is_judged_once(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
    make_recording: Callable[..., Recording],
    tmp_path: Path,
) -> None:
    path = stored_plan(own_plan, tmp_path)
    plan = load_plan(path)
    store = plan.open_store()
    one, other, longer = versions_in(store, make_recording)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=400).start()
    worker = start_worker(path, **OFTEN)

    def serves(version: str) -> bool:
        return worker.metric("headrace_model_info", detector="quick", version=version) == 1

    def promote(*arguments: str, version: str) -> None:
        before = len(messages(kafka, plan, "switched"))
        started = time.monotonic()
        run(worker, "models", *arguments, "--plan", str(path))
        worker.wait(
            lambda: serves(version) and len(messages(kafka, plan, "switched")) > before, 60, f"serving {version}"
        )
        fault.tried(recovery_s=time.monotonic() - started)

    worker.wait(lambda: worker.metric("headrace_scores_total", detector="quick") > 500, 60, "at work")
    promote("promote", "quick", other, "--force", version=other)
    time.sleep(1)  # some readings in between
    promote("rollback", "quick", version=one)
    promote("promote", "quick", longer, "--force", version=longer)
    worker.kill()
    worker.start_again()
    worker.wait(lambda: serves(longer), 60, "serving what it served before")
    promote("rollback", "quick", version=one)
    feeder.stop()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    assert worker.metric("headrace_state_begun_anew_total") == 0
    must_be_as_undisturbed(kafka, plan)


@pytest.mark.fault(15, "a bad promotion: broken, not a number, other signals, absent")
def test_a_bad_version_is_refused_with_a_reason_and_what_serves_goes_on(
    fault: Fault,
    kafka: KafkaSettings,
    own_plan: Path,
    start_worker: Callable[..., Worker],
    plant: Callable[..., list[Recording]],
    make_recording: Callable[..., Recording],
    tmp_path: Path,
) -> None:
    path = stored_plan(own_plan, tmp_path)
    plan = load_plan(path)
    store = plan.open_store()
    one, other, longer = versions_in(store, make_recording)
    history = make_recording("pump-1", rows=2000, seed=5)
    fewer = store.add("quick", train([history], detector="ewma", signals=("flow", "heat")))
    where = tmp_path / "versions" / "quick" / "versions"
    broken = bytearray((where / other / WEIGHTS).read_bytes())
    broken[-1] ^= 1
    (where / other / WEIGHTS).write_bytes(broken)
    nan = not_a_number(where, longer)
    feeder = Feeder(kafka, plan.topics.readings, plant(rows=100_000), rate=300).start()
    worker = start_worker(path, **OFTEN)
    bad = {other: "digest", nan: "", fewer: "signals", "0" * 12: "no version"}
    for count, (version, why) in enumerate(bad.items(), 1):
        decision = store.decide("quick", "promote", serving=one, why="by hand")
        at = store._now()
        order = msgspec.structs.replace(order_of("quick", decision), serving=version, at=at)
        send(kafka, plan, order)
        worker.wait(partial(_refused, worker, count), 60, f"refusing {version}")
        worker.wait(partial(_has_told, kafka, plan, version), 60, f"telling why {version} is refused")
        assert why in _told(kafka, plan, version)
        assert worker.metric("headrace_model_info", detector="quick", version=one) == 1
        fault.tried()
    feeder.stop()
    wait_committed(kafka, feeder, plan.topics.readings, worker)
    must_be_as_undisturbed(kafka, plan)


def _refused(worker: Worker, count: int) -> bool:
    return worker.metric("headrace_models_refused_total") >= count


def _told(kafka: KafkaSettings, plan: Plan, version: str) -> str:
    return next((held.why for held in messages(kafka, plan, "refused") if held.serving == version), "")


def _has_told(kafka: KafkaSettings, plan: Plan, version: str) -> bool:
    return bool(_told(kafka, plan, version))


def not_a_number(where: Path, version: str) -> str:
    """A version whose weights are NaN, with digests that fit; its name."""
    shutil.copytree(where / version, where / "made")
    raw = json.loads((where / "made" / MANIFEST).read_text())
    arrays = safetensors.numpy.load_file(where / "made" / WEIGHTS)
    weights = safetensors.numpy.save({name: np.full_like(array, np.nan) for name, array in arrays.items()})
    raw["weights"] = hashlib.sha256(weights).hexdigest()
    raw["version"] = Manifest(**raw).content_version()
    (where / "made" / WEIGHTS).write_bytes(weights)
    (where / "made" / MANIFEST).write_text(json.dumps(raw))
    (where / "made").rename(where / raw["version"])
    return str(raw["version"])
