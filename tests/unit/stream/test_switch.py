"""Versions exchanged in a pipeline: every reading is judged once, by one of them, and the same after a crash."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from models.datasets import Recording
from models.train import train
from stream.assembly import Assembly, block_key, meta_key
from stream.pipeline import Pipeline
from stream.plan import parse_plan
from stream.records import Record
from stream.shelf import Shelf
from stream.state import Meta, Served, decode, encode

AT_MS = 1_764_000_000_000
SIGNALS = ("flow", "heat")


def trained(kind, seed, **config):
    values = np.random.default_rng(seed).normal(50.0, 3.0 + seed, size=(600, 2))
    return train([Recording("pump-1", AT_MS + np.arange(600) * 1000, SIGNALS, values)], detector=kind, config=config)


@pytest.fixture(scope="module")
def versions():
    return {
        "old": trained("ewma", 0),
        "new": trained("ewma", 1),
        "longer": trained("ewma", 2, window=96),
        "carried": trained("innovations", 0),
        "carried too": trained("innovations", 1),
    }


@pytest.fixture
def begin(versions, tmp_path):
    """``begin("old", "new")``: a pipeline that serves the first, and has loaded all."""

    def make(*names):
        kind = versions[names[0]].detector.name
        plan = parse_plan(
            {"detectors": {"it": {"kind": kind, "artifact": "store:", "false_alarms_per_day": 100.0}}}, folder=tmp_path
        )
        store = plan.open_store()
        for name in names:
            store.add("it", versions[name])
        if not store.now("it").serving:
            store.decide("it", "promote", serving=versions[names[0]].version)
        shelf = Shelf(plan)
        for name in names:
            shelf.fetch("it", versions[name].version)
        return Pipeline(plan, shelf)

    return make


def records(start, stop, assets=3, seed=0):
    """JSON records with these offsets, asset after asset; spikes now and then."""
    found = []
    for offset in range(start, stop):
        asset, row = offset % assets, offset // assets
        noise = np.random.default_rng([seed, offset]).normal(50.0, 3.0, 2)
        if row % 97 > 93:
            noise += 30.0
        value = {
            "asset": f"pump-{asset}",
            "ts": AT_MS + row * 1000,
            "values": dict(zip(SIGNALS, noise.tolist(), strict=True)),
        }
        found.append(Record("t", 0, offset, msgspec.json.encode(value), f"pump-{asset}".encode(), AT_MS))
    return found


def run(pipeline, start, stop, batch=50):
    return [pipeline.process(0, records(at, min(at + batch, stop))) for at in range(start, stop, batch)]


def judged(outputs):
    """(asset, time) -> [(version, score, threshold, anomalous), ...]"""
    found: dict[tuple[str, int], list[tuple[str, float, float, bool]]] = {}
    for output in outputs:
        for held in output.scores:
            for row in range(len(held)):
                key = held.names[held.asset[row]], int(held.at_ms[row])
                said = held.model_version, float(held.score[row]), float(held.threshold[row]), bool(held.anomalous[row])
                found.setdefault(key, []).append(said)
    return found


def alerts(outputs):
    return [alert for output in outputs for alert in output.alerts]


def take_snapshot(pipeline):
    """Records of a snapshot as it is now, as snapshots write them."""
    applied, numbers = pipeline.touched(0)
    blocks = pipeline.take(0, numbers)
    return {
        **{block_key(b"", block.size, block.number): encode(block) for block in blocks},
        meta_key(b""): encode(pipeline.meta(0, applied)),
    }


def restore(pipeline, held):
    assembly = Assembly(b"")
    assembly.add(held.items())
    return pipeline.restore(0, assembly.image())


@pytest.mark.parametrize(
    ("old", "new"), [("old", "new"), ("old", "longer"), ("longer", "old"), ("carried", "carried too")]
)
def test_every_reading_is_judged_once_by_one_of_them(versions, begin, old, new):
    pipeline = begin(old, new)
    plain = judged(run(begin(old, new), 0, 3000))
    outputs = run(pipeline, 0, 1500)
    assert pipeline.switch(0, "it", versions[new].version, "")
    outputs += run(pipeline, 1500, 3000)
    found = judged(outputs)
    assert found.keys() == plain.keys()
    assert {len(said) for said in found.values()} == {1}
    by = {key: said[0][0] for key, said in found.items()}
    assert Counter(by.values()).keys() == {versions[old].version, versions[new].version}
    for asset in {asset for asset, _ in by}:
        course = [by[key] for key in sorted(by) if key[0] == asset]
        changes = sum(one != other for one, other in pairwise(course))
        assert changes == 1  # one clean point
    assert pipeline.served(0)["it"] == Served(versions[new].version)


def test_windows_are_kept_so_the_new_one_takes_over_at_once(versions, begin):
    pipeline = begin("old", "new")
    run(pipeline, 0, 1500)
    pipeline.switch(0, "it", versions["new"].version, "")
    after = judged(run(pipeline, 1500, 1800))
    assert {said[0][0] for said in after.values()} == {versions["new"].version}
    alone = begin("old", "new")
    alone.switch(0, "it", versions["new"].version, "")
    expected = judged(run(alone, 0, 1800))
    for key, said in after.items():
        assert said[0][1] == pytest.approx(expected[key][0][1], rel=2e-3)


def test_what_is_open_stays_open_and_names_the_new_version(versions, begin):
    pipeline = begin("old", "new")
    before = run(pipeline, 0, 94 * 3 + 3)  # the spikes have begun
    still_open = {alert.id for alert in pipeline.open_alerts()}
    assert still_open
    pipeline.switch(0, "it", versions["new"].version, "")
    after = alerts(run(pipeline, 94 * 3 + 3, 1500))
    assert {alert.id for alert in pipeline.open_alerts()}.isdisjoint(still_open)
    resolved = {
        alert.id for alert in after if alert.state == "resolved" and alert.model_version == versions["new"].version
    }
    assert still_open <= resolved
    opened = [alert.id for alert in alerts(before) + after if alert.state == "open"]
    assert len(opened) == len(set(opened))


def test_a_candidate_changes_nothing_that_is_published(versions, begin):
    plain = run(begin("old", "new"), 0, 2400)
    pipeline = begin("old", "new")
    outputs = run(pipeline, 0, 1200)
    assert pipeline.switch(0, "it", versions["old"].version, versions["new"].version)
    outputs += run(pipeline, 1200, 2400)
    assert judged(outputs) == judged(plain)
    assert alerts(outputs) == alerts(plain)
    ((partition, detector, serving, candidate, agreement),) = pipeline.compared()
    assert (partition, detector, serving, candidate) == (0, "it", versions["old"].version, versions["new"].version)
    assert agreement.readings == 1200
    assert agreement.over_serving == sum(said[0][1] >= said[0][2] for key, said in judged(outputs[24:]).items())
    assert 0 < agreement.begun_serving <= agreement.over_serving
    assert 0.5 < agreement.correlation <= 1.0
    assert agreement.lasted_ms == 1197 * 1000


def test_a_candidate_that_fails_is_let_go_and_costs_nothing(versions, begin):
    pipeline = begin("old", "new")
    plain = run(begin("old", "new"), 0, 1800)
    outputs = run(pipeline, 0, 1200)
    pipeline.switch(0, "it", versions["old"].version, versions["new"].version)
    (lane,) = pipeline._partitions[0].lanes.values()

    class Broken:
        def score(self, windows):
            raise ArithmeticError

    lane.heir.artifact = replace(lane.heir.artifact, detector=Broken())
    outputs += run(pipeline, 1200, 1800)
    assert judged(outputs) == judged(plain)
    assert not any(output.dead for output in outputs)
    assert pipeline.served(0)["it"] == Served(versions["old"].version)


@pytest.mark.parametrize("new", ["new", "longer", "carried too"])
@pytest.mark.parametrize("crash", [0, 60, 400])
def test_a_crash_after_the_switch_repeats_the_same(versions, begin, new, crash):
    """The state is what was written with the switch, or later; what comes again is judged by the same versions."""
    old = "carried" if new == "carried too" else "old"
    pipeline = begin(old, new)
    run(pipeline, 0, 1500)
    pipeline.switch(0, "it", versions[new].version, "")
    run(pipeline, 1500, 1500 + crash)
    held = take_snapshot(pipeline)
    expected = run(pipeline, 1500 + crash, 3000)
    again = begin(old, new)
    assert not restore(again, held).anew
    repeated = run(again, 1500 + crash, 3000)
    assert judged(repeated) == judged(expected)
    assert alerts(repeated) == alerts(expected)
    assert again.served(0) == pipeline.served(0)


def test_a_switch_marks_all_that_a_snapshot_has_to_hold(versions, begin):
    pipeline = begin("old", "new")
    run(pipeline, 0, 1500)
    take_snapshot(pipeline)
    assert pipeline.touched(0) == (1499, [])
    pipeline.switch(0, "it", versions["old"].version, versions["new"].version)
    assert pipeline.touched(0)[1]
    assert not pipeline.switch(0, "it", versions["old"].version, versions["new"].version)


def test_a_state_of_a_release_before_is_read(versions, begin):
    pipeline = begin("old")
    run(pipeline, 0, 900)
    held = take_snapshot(pipeline)
    meta = decode(held[meta_key(b"")])
    assert isinstance(meta, Meta)
    assert meta.served == {}
    again = begin("old", "new")
    assert not restore(again, held).anew
    assert again.switch(0, "it", versions["old"].version, "")
    assert judged(run(again, 900, 1200)) == judged(run(pipeline, 900, 1200))


def test_a_new_asset_in_the_middle_of_a_succession(versions, begin):
    pipeline = begin("old", "longer")
    outputs = run(pipeline, 0, 1500)
    pipeline.switch(0, "it", versions["longer"].version, "")
    outputs.append(pipeline.process(0, records(1500, 1530)))
    outputs.append(pipeline.process(0, records(1530, 2400, assets=4)))
    assert {len(said) for said in judged(outputs).values()} == {1}


def test_promoting_back_before_the_succession_is_over(versions, begin):
    pipeline = begin("old", "longer")
    outputs = run(pipeline, 0, 1500)
    pipeline.switch(0, "it", versions["longer"].version, "")
    outputs += run(pipeline, 1500, 1530)
    assert pipeline.served(0)["it"].succeeding
    pipeline.switch(0, "it", versions["old"].version, "")
    outputs += run(pipeline, 1530, 3000)
    assert {len(said) for said in judged(outputs).values()} == {1}
    assert pipeline.served(0)["it"] == Served(versions["old"].version)
