"""A drift of the plant is followed, a fault that grows as slowly is not: a simulated week through the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.datasets import Recording
from models.train import train
from stream.actions import Action
from stream.assembly import Image
from stream.operating import MaintenanceSettings
from stream.pipeline import Pipeline
from stream.plan import Plan, load_plan
from stream.records import Alert, Output, Readings
from stream.shelf import Shelf
from stream.sources.json import timestamp

PERIOD_MS = 60_000
DAY = 24 * 60  # rows
START_MS = 1_764_000_000_000
PLAN = """
[detectors.pumps]
kind = "innovations"
artifact = "artifacts/pumps"
false_alarms_per_day = 0.05
on_delay_s = 1800
off_delay_s = 3600
update_every_s = 21600
"""


def recording(asset: str, days: float, seed: int, drift: Callable[[np.ndarray], np.ndarray]) -> Recording:
    """A reading a minute; ``drift`` of the time in days is laid over the first signal, in its standard deviations."""
    rng = np.random.default_rng(seed)
    rows = np.arange(int(days * DAY))
    load = np.sin(rows / 45.0)
    values = np.stack([50 + load, 40 + 5 * load, 70 + 2 * load], axis=1)
    values += rng.normal(0, [0.4, 0.5, 0.3], values.shape)
    values[:, 0] += 0.8 * drift(rows / DAY)
    return Recording(asset, START_MS + rows * PERIOD_MS, ("bearing", "flow", "heat"), values, None)


def still(days: np.ndarray) -> np.ndarray:
    return np.zeros_like(days)


def fault(days: np.ndarray) -> np.ndarray:
    """One standard deviation a day from noon of the first day on: nothing in any hour."""
    return np.maximum(days - 0.5, 0.0)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("drift")
    (folder / "headrace.toml").write_text(PLAN)
    made = load_plan(folder / "headrace.toml")
    history = recording("pump-1", 3, 1, still)
    train([history], detector="innovations", seed=0).save(made.artifact_path("pumps"))
    return made


def readings(held: Sequence[Recording], rows: slice) -> Readings:
    """The same rows of several assets, by time."""
    at_ms = np.stack([one.at_ms[rows] for one in held], axis=1)
    values = np.stack([one.values[rows] for one in held], axis=1)
    count = at_ms.size
    return Readings(
        names=tuple(one.asset for one in held),
        asset=np.tile(np.arange(len(held), dtype=np.int32), len(at_ms)),
        at_ms=at_ms.ravel(),
        signals=held[0].signals,
        values=values.reshape(count, -1),
        record=np.zeros(count, dtype=np.int32),
    )


def feed(pipeline: Pipeline, held: Sequence[Recording], start: int, stop: int, cut: int) -> list[Output]:
    return [pipeline.run(0, readings(held, slice(at, min(at + cut, stop)))) for at in range(start, stop, cut)]


def of(asset: str, outputs: Sequence[Output]) -> list[Alert]:
    return [alert for output in outputs for alert in output.alerts if alert.asset == asset]


def test_a_fault_that_grows_for_a_week_stays_alarmed_and_is_never_learnt(plan: Plan) -> None:
    held = [recording("pump-1", 9, 2, fault), recording("pump-2", 9, 3, still)]
    outputs = feed(Pipeline(plan, Shelf(plan)), held, 0, 9 * DAY, cut=500)
    alerts = of("pump-1", outputs)
    assert [alert.state for alert in alerts if alert.state != "updated"] == ["open"]  # once, and not resolved
    opened = (np.datetime64(alerts[0].opened.rstrip("Z")) - np.datetime64(START_MS, "ms")) / np.timedelta64(1, "D")
    assert 0.5 < opened < 2.5
    assert len({alert.threshold for alert in alerts}) == 1
    assert alerts[-1].causes[0].signal == "bearing"
    scores = [each for output in outputs for each in output.scores]
    last = [each.anomalous[each.asset == each.names.index("pump-1")] for each in scores[-(7 * DAY // 500 - 1) :]]
    assert np.concatenate(last).all()  # a simulated week
    assert not of("pump-2", outputs)


def test_a_worker_that_takes_over_follows_on_from_the_snapshot(plan: Plan) -> None:
    def drifts(days: np.ndarray) -> np.ndarray:
        return np.asarray(np.minimum(days, 0.7))  # up by so many standard deviations, and there it stays

    held = [recording(f"pump-{number}", 2, number, drifts) for number in (1, 2)]
    whole = feed(Pipeline(plan, Shelf(plan)), held, 0, 2 * DAY, cut=200)
    first = Pipeline(plan, Shelf(plan))
    before = feed(first, held, 0, DAY, cut=37)
    image = Image(applied=-1, size=first._block, blocks={block.number: block for block in first.take(0, [0])})
    second = Pipeline(plan, Shelf(plan))
    assert not second.restore(0, image).anew
    after = feed(second, held, DAY, 2 * DAY, cut=37)
    assert thresholds([*before, *after]) == thresholds(whole)
    held_against = list(thresholds(whole).values())
    assert len(set(held_against)) > 100  # it did follow
    raised = sum(each.raised for output in whole for each in output.scores)
    assert raised == sum(threshold > min(held_against) for threshold in held_against)


@pytest.fixture
def eager(plan: Plan, tmp_path: Path) -> Plan:
    """The plan with thresholds that follow every row."""
    return load_plan(_with(plan, tmp_path, "drift = { usual = 0.3, most = 4.0 }"))


@pytest.fixture
def pumps() -> list[Recording]:
    return [recording(f"pump-{number}", 2, number, still) for number in (1, 2)]


def maintained(plan: Plan, start: int, stop: int) -> Plan:
    """The plan with pump-1 being worked on from row ``start`` to before row ``stop``."""
    since, until = (datetime.fromtimestamp((START_MS + at * PERIOD_MS) / 1000, UTC) for at in (start, stop))
    window = MaintenanceSettings(assets=("pump-1",), since=since, until=until)
    return plan.model_copy(update={"maintenance": {"overhaul": window}})


def test_nothing_is_followed_while_an_asset_is_worked_on(eager: Plan, pumps: list[Recording]) -> None:
    start, stop = DAY // 2, 3 * DAY // 2
    free = thresholds(feed(Pipeline(eager, Shelf(eager)), pumps, 0, 2 * DAY, cut=200))
    mended = maintained(eager, start, stop)
    outputs = feed(Pipeline(mended, Shelf(mended)), pumps, 0, 2 * DAY, cut=200)
    held = thresholds(outputs)

    def rows(of: dict[tuple[str, int], float], asset: str, first: int, last: int) -> list[float]:
        return [of[key] for row in range(first, last) if (key := (asset, START_MS + row * PERIOD_MS)) in of]

    assert rows(held, "pump-2", 0, 2 * DAY) == rows(free, "pump-2", 0, 2 * DAY)
    assert rows(held, "pump-1", 0, start) == rows(free, "pump-1", 0, start)
    assert len(set(rows(held, "pump-1", start, stop + 1))) == 1  # the first row after it is judged by what was before
    assert len(set(rows(free, "pump-1", start, stop))) > 100
    assert len(set(rows(held, "pump-1", stop + 1, 2 * DAY))) > 100  # and it goes on from there


def test_in_maintenance_too_the_past_does_not_depend_on_what_comes_nor_on_how_it_is_cut_nor_on_a_restart(
    eager: Plan, pumps: list[Recording]
) -> None:
    mended = maintained(eager, DAY // 2, 3 * DAY // 2)
    whole = feed(Pipeline(mended, Shelf(mended)), pumps, 0, 2 * DAY, cut=2 * DAY)
    wanted = thresholds(whole)
    for end, cut in ((DAY // 2 + 7, 1 * DAY), (DAY, 41), (3 * DAY // 2 + 3, 333)):
        part = thresholds(feed(Pipeline(mended, Shelf(mended)), pumps, 0, end, cut))
        until_ms = START_MS + end * PERIOD_MS
        assert part == {key: value for key, value in wanted.items() if key[1] < until_ms}
    first = Pipeline(mended, Shelf(mended))
    before = feed(first, pumps, 0, DAY, cut=41)
    image = Image(applied=-1, size=first._block, blocks={block.number: block for block in first.take(0, [0])})
    second = Pipeline(mended, Shelf(mended))
    assert not second.restore(0, image).anew
    assert thresholds([*before, *feed(second, pumps, DAY, 2 * DAY, cut=41)]) == wanted


def test_what_operators_work_on_is_not_followed_and_after_they_have_stopped_it_is_not_learnt_later(
    eager: Plan, pumps: list[Recording]
) -> None:
    def deed(action: str, row: int) -> Action:
        at = timestamp(START_MS + row * PERIOD_MS)
        word = {"action": action, "asset": "pump-*", "id": f"deed-{row:04}", "by": "anna", "at": at}
        return msgspec.convert(word, Action)

    begun, ended = deed("maintenance_start", DAY // 2), deed("maintenance_stop", DAY)
    live = Pipeline(eager, Shelf(eager))
    outputs = feed(live, pumps, 0, DAY // 2, cut=60)
    live.act(begun)
    outputs += feed(live, pumps, DAY // 2, DAY, cut=60)
    live.act(ended)
    outputs += feed(live, pumps, DAY, 2 * DAY, cut=60)
    frozen = [value for key, value in thresholds(outputs).items() if _row(key[1]) in range(DAY // 2, DAY)]
    assert len(set(frozen)) == 2  # one of each pump
    again = Pipeline(eager, Shelf(eager))  # after a crash the topic is read first, then all readings come once more
    again.act(begun)
    again.act(ended)
    assert thresholds(feed(again, pumps, 0, 2 * DAY, cut=500)) == thresholds(outputs)


def _row(at_ms: int) -> int:
    return (at_ms - START_MS) // PERIOD_MS


def thresholds(outputs: Sequence[Output]) -> dict[tuple[str, int], float]:
    return {
        (scores.names[asset], at_ms): threshold
        for output in outputs
        for scores in output.scores
        for asset, at_ms, threshold in zip(
            scores.asset.tolist(), scores.at_ms.tolist(), scores.threshold.tolist(), strict=True
        )
    }


def test_a_threshold_that_the_plan_says_is_not_moved(plan: Plan, tmp_path: Path) -> None:
    fixed = load_plan(_with(plan, tmp_path, "threshold = 1e6"))
    outputs = feed(Pipeline(fixed, Shelf(fixed)), [recording("pump-1", 1, 2, still)], 0, DAY, cut=500)
    assert set(thresholds(outputs).values()) == {1e6}


def _with(plan: Plan, folder: Path, line: str) -> Path:
    file = folder / "headrace.toml"
    file.write_text(PLAN.replace('"artifacts/pumps"', f'"{plan.artifact_path("pumps")}"') + line + "\n")
    return file
