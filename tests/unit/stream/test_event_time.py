"""Event time and dirty data, through the whole pipeline: in whatever order it comes, the plant's story is the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from through import flat, records_of, run

from models.datasets import Recording
from stream.assembly import Assembly, Image, block_key, meta_key
from stream.backtest import backtest
from stream.pipeline import Pipeline
from stream.plan import Plan, parse_plan
from stream.records import Alert, Output, Record
from stream.shelf import Shelf
from stream.sources.json import encode, timestamp
from stream.state import encode as encode_state

AT_MS = 1_764_000_000_000
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def plant(make_recording: Callable[..., Recording]) -> list[Recording]:
    return [
        make_recording("pump-1", rows=200, seed=1, fault=(120, 150)),
        make_recording("pump-2", rows=200, seed=2),
        make_recording("pump-3", rows=200, seed=3, fault=(60, 80)),
        make_recording("pump-4", rows=200, seed=4),
    ]


@pytest.fixture(scope="module")
def one_more(make_recording: Callable[..., Recording]) -> Recording:
    return make_recording("pump-5", rows=200, seed=5)


def asking(plan: Plan, **sections: Any) -> Plan:
    """The plan with more in it."""
    table = plan.model_dump(exclude={"folder"}, exclude_none=True)
    for section, values in sections.items():
        table[section] = {**table.get(section, {}), **values}
    return parse_plan(table, folder=plan.folder)


def numbered(records: Sequence[Record]) -> list[Record]:
    return [replace(record, offset=offset) for offset, record in enumerate(records)]


def shuffled(records: Sequence[Record], within_ms: int, seed: int) -> list[Record]:
    """Each record is delayed by up to ``within_ms``."""
    random = np.random.default_rng(seed)
    due = [record.timestamp + random.integers(0, within_ms + 1) for record in records]
    return numbered([records[place] for place in np.argsort(due, kind="stable").tolist()])


def finished(plan: Plan, records: Sequence[Record], cuts: Sequence[int] = ()) -> list[Output]:
    pipeline = Pipeline(plan, Shelf(plan))
    bounds = [0, *sorted(cuts), len(records)]
    return [*(pipeline.process(0, records[a:b]) for a, b in pairwise(bounds)), pipeline.finish(0)]


def count(outputs: Sequence[Output], name: str) -> int:
    return sum(output.counts.get(name, 0) for output in outputs)


def of_data(outputs: Sequence[Output], detector: str) -> list[Alert]:
    return [alert for output in outputs for alert in output.alerts if alert.detector == detector]


# -- lateness


@settings(PATIENT, max_examples=15)
@given(st.integers(0, 1000), st.lists(st.integers(0, 800), max_size=6), st.booleans())
def test_readings_shuffled_within_the_lateness_give_what_they_give_in_order(
    plan: Plan, plant: list[Recording], seed: int, cuts: list[int], twice: bool
) -> None:
    in_order = flat(run(plan, records_of(plant), []))
    plan = asking(plan, input={"lateness_s": 8})
    records = records_of(plant)
    records = shuffled([*records, *records] if twice else records, 8000, seed)
    outputs = finished(plan, records, cuts)
    assert flat(outputs) == in_order
    assert (count(outputs, "late"), count(outputs, "duplicates")) == (0, 800 if twice else 0)


def test_what_is_later_than_the_lateness_is_counted_and_handed_on(plan: Plan, plant: list[Recording]) -> None:
    records = records_of(plant)
    newest = records[400].timestamp
    late = [record for record in records if newest - 20_000 <= record.timestamp < newest - 8000]
    in_time = [record for record in records if record not in late]
    at = next(place for place, record in enumerate(in_time) if record.timestamp > newest)
    outputs = finished(asking(plan, input={"lateness_s": 8}), numbered([*in_time[:at], *late, *in_time[at:]]))
    assert count(outputs, "late") == len(late) == 48
    handed_on = [held.record.value for output in outputs for held in output.late]
    assert sorted(map(str, handed_on)) == sorted(str(record.value) for record in late)
    assert "more than 8 s older" in next(held.detail for output in outputs for held in output.late)
    assert flat(outputs)[0].keys() == flat(finished(plan, numbered(in_time)))[0].keys()


def test_nothing_is_lost_at_the_end_of_a_backtest(plan: Plan, plant: list[Recording]) -> None:
    whole = flat(run(plan, records_of(plant), []))
    held = asking(plan, input={"lateness_s": 30})
    assert flat(list(backtest(Pipeline(held, Shelf(held)), plant, batch=37))) == whole
    assert count(list(backtest(Pipeline(held, Shelf(held)), plant)), "late") == 0


def test_a_score_depends_only_on_what_came_before_though_readings_are_held_back(
    plan: Plan, plant: list[Recording]
) -> None:
    plan = asking(plan, input={"lateness_s": 8, "ahead_s": 60}, quality={"stale_after_periods": 20})
    records = shuffled(records_of(plant), 8000, 3)
    rows, alerts = flat(finished(plan, records))
    early_rows, early_alerts = flat(run(plan, records[:333], []))
    assert len(early_rows) > 100
    assert early_rows == {key: rows[key] for key in early_rows}
    assert all(alert in alerts for alert in early_alerts)


# -- state


def snapshot(pipeline: Pipeline, applied: int) -> list[tuple[bytes, bytes]]:
    found = pipeline.touched(0)
    assert found is not None
    blocks = pipeline.take(0, found[1])
    meta = pipeline.meta(0, applied)
    assert meta is not None
    records = [(block_key(b"", block.size, block.number), encode_state(block)) for block in blocks]
    return [*records, (meta_key(b""), encode_state(meta))]


def image_of(records: Sequence[tuple[bytes, bytes]]) -> Image:
    """What a worker that starts makes of them."""
    assembly = Assembly(b"")
    assembly.add(records)
    return assembly.image()


@pytest.mark.parametrize("cut", [30, 333, 790])
def test_a_restart_with_a_snapshot_changes_nothing(plan: Plan, plant: list[Recording], cut: int) -> None:
    plan = asking(
        plan,
        input={"lateness_s": 8, "ahead_s": 60},
        quality={"stale_after_periods": 20, "bad_values": True},
        signals={"pressure": {"high": 3.45}},
    )
    silent = replace(plant[1], at_ms=np.where(np.arange(200) < 70, plant[1].at_ms, plant[1].at_ms + 60_000))
    records = shuffled(records_of([plant[0], silent, *plant[2:]]), 8000, 5)
    records = numbered(
        [*records[:300], Record("readings", 0, 0, encode("pump-1", AT_MS + 7_200_000, {"flow": 1.0})), *records[300:]]
    )
    whole = finished(plan, records)
    assert {alert.detector for output in whole for alert in output.alerts} == {"quick", "slow", "stale", "signals"}
    assert count(whole, "future") == 1
    first = Pipeline(plan, Shelf(plan))
    before = first.process(0, records[:cut])
    image = image_of(snapshot(first, cut - 1))
    assert not image.problems
    second = Pipeline(plan, Shelf(plan))
    second.restore(0, image)
    assert sorted(second.open_alerts(), key=str) == sorted(first.open_alerts(), key=str)
    outputs = [before, second.process(0, records[cut:]), second.finish(0)]
    assert flat(outputs) == flat(whole)
    assert count(outputs, "late") == count(whole, "late")


def test_a_state_of_the_format_before_is_taken_over_and_goes_on_in_todays(plan: Plan, plant: list[Recording]) -> None:
    records = records_of(plant)
    first = Pipeline(plan, Shelf(plan))
    outputs = [first.process(0, records[:500])]
    values = snapshot(first, 499)
    assert {value[4] for _, value in values} == {1}
    later = asking(plan, input={"lateness_s": 8, "ahead_s": 60}, quality={"stale_after_periods": 20})
    second = Pipeline(later, Shelf(later))
    report = second.restore(0, image_of(values))
    assert report.assets == 4
    assert not report.anew
    assert first.open_alerts()
    assert sorted(second.open_alerts(), key=str) == sorted(first.open_alerts(), key=str)
    outputs += [second.process(0, records[500:]), second.finish(0)]
    assert flat(outputs) == flat(run(plan, records, [])), "no window begins anew, and alerts go on"
    assert 2 in {value[4] for _, value in snapshot(second, len(records) - 1)}


@pytest.mark.parametrize("more", [True, False])
def test_what_was_held_back_is_judged_though_the_plan_holds_nothing_back_any_more(
    plan: Plan, plant: list[Recording], more: bool
) -> None:
    records = records_of(plant)
    end = len(records) if more else 400
    held = asking(plan, input={"lateness_s": 8})
    first = Pipeline(held, Shelf(held))
    outputs = [first.process(0, records[:400])]
    values = snapshot(first, 399)
    assert {value[4] for _, value in values} == {1, 2}, "a format of its own, which older releases refuse by its number"
    second = Pipeline(plan, Shelf(plan))
    second.restore(0, image_of(values))
    second.touch(0, [0])
    waiting, again = (image_of(held).blocks[0].events for held in (values, snapshot(second, 399)))
    assert waiting is not None
    assert again is not None
    assert len(waiting.at_ms) == 4 * 8
    assert again.at_ms.tolist() == waiting.at_ms.tolist(), "still there, if a snapshot comes before a reading"
    outputs += [second.process(0, records[400:end]), second.finish(0)]
    assert flat(outputs) == flat(run(plan, records[:end], []))
    plain = Pipeline(plan, Shelf(plan))
    plain.process(0, records)
    assert {value[4] for _, value in snapshot(plain, len(records) - 1)} == {1}, "and none where nobody asks"


@settings(PATIENT, max_examples=25)
@given(st.sampled_from([1, 2]), st.sets(st.integers(0, 4)), st.integers(150, 420), st.integers(1, 300))
@example(1, {0, 2, 3, 4}, 300, 153)  # all but the silent one are ahead: what is read again must move the clock
@example(2, {0, 1}, 300, 153)
def test_a_crash_between_the_blocks_of_a_snapshot_changes_nothing_though_readings_are_held_back(
    plan: Plan, plant: list[Recording], one_more: Recording, size: int, ahead: set[int], cut: int, more: int
) -> None:
    plan = asking(
        plan,
        input={"lateness_s": 8, "ahead_s": 60},
        quality={"stale_after_periods": 20, "bad_values": True},
        signals={"pressure": {"high": 3.45}},
    )
    silent = replace(one_more, at_ms=np.where(np.arange(200) < 60, one_more.at_ms, one_more.at_ms + 40_000))
    records = shuffled(records_of([*plant, silent]), 8000, 5)

    def begun() -> Pipeline:
        pipeline = Pipeline(plan, Shelf(plan))
        pipeline._block = size
        return pipeline

    undisturbed = begun()
    whole = [undisturbed.process(0, records), undisturbed.finish(0)]
    assert {alert.detector for output in whole for alert in output.alerts} == {"quick", "slow", "stale", "signals"}
    first = begun()
    outputs = [first.process(0, records[:cut])]
    values = snapshot(first, cut - 1)
    outputs.append(first.process(0, records[cut : cut + more]))
    blocks = first.take(0, [number for number in sorted(ahead) if number * size < 5])
    values += [(block_key(b"", block.size, block.number), encode_state(block)) for block in blocks]

    second = begun()
    second.restore(0, image_of(values))
    bounds = [cut - 40, cut + more // 2, cut + more - 1, cut + more + 7, len(records)]
    outputs += [second.process(0, records[a:b]) for a, b in pairwise(bounds)]
    outputs.append(second.finish(0))
    assert flat(outputs, copies=True) == flat(whole)


# -- clocks


def moved(recording: Recording, by_s: float, start: int = 0) -> Recording:
    at_ms = recording.at_ms.copy()
    at_ms[start:] += round(by_s * 1000)
    return replace(recording, at_ms=at_ms)


def as_sent(recordings: Sequence[Recording], moved_by: dict[str, tuple[float, int]]) -> list[Record]:
    """Records in the order of true time, with the clocks of some assets wrong from a row on."""
    true = records_of(recordings)
    place = {(r.asset, int(at)): row for r in recordings for row, at in enumerate(r.at_ms)}
    wrong = []
    for record in true:
        said = msgspec.json.decode(record.value or b"")
        by_s, start = moved_by.get(said["asset"], (0.0, 0))
        if by_s and place[said["asset"], record.timestamp] >= start:
            said["ts"] = timestamp(record.timestamp + round(by_s * 1000))
            wrong.append(replace(record, value=msgspec.json.encode(said)))
        else:
            wrong.append(record)
    return wrong


@pytest.mark.parametrize("cuts", [[], [1, 50, 333, 334, 335, 600]])
def test_clocks_an_hour_ahead_and_behind_disturb_nobody_else(
    plan: Plan, plant: list[Recording], cuts: list[int]
) -> None:
    plan = asking(plan, input={"ahead_s": 60})
    sound, _ = flat(run(plan, records_of(plant), []))
    records = as_sent(plant, {"pump-2": (3600, 100), "pump-4": (-3600, 100)})
    outputs = run(plan, records, cuts)
    rows, alerts = flat(outputs)
    others = {"pump-1", "pump-3"}
    assert {key: row for key, row in rows.items() if key[1] in others} == {
        key: row for key, row in sound.items() if key[1] in others
    }
    assert {alert.asset for alert in alerts} == others
    assert count(outputs, "future") == 100
    assert count(outputs, "late") == 100
    dead = [letter for output in outputs for letter in output.dead]
    assert {(letter.stage, letter.reason) for letter in dead} == {("window", "future")}
    assert len(dead) == 100


def test_a_single_reading_from_the_future_does_not_make_its_asset_late(plan: Plan, plant: list[Recording]) -> None:
    records = records_of(plant)
    glitch = Record("readings", 0, 0, encode("pump-1", AT_MS + 3_600_000, {"flow": 40.0, "heat": 70.0}))
    records = numbered([*records[:300], glitch, *records[300:]])
    trusting, careful = (run(held, records, []) for held in (plan, asking(plan, input={"ahead_s": 60})))
    assert count(trusting, "late") == len([r for r in records[301:] if b"pump-1" in (r.value or b"")])
    assert (count(careful, "late"), count(careful, "future")) == (0, 1)


@pytest.mark.parametrize("cuts", [[], list(range(1, 800, 3))])
def test_a_night_without_readings_is_not_the_future(plan: Plan, plant: list[Recording], cuts: list[int]) -> None:
    plan = asking(plan, input={"ahead_s": 60})
    records = records_of([moved(recording, 36_000, start=100) for recording in plant])
    outputs = run(plan, records, cuts)
    assert count(outputs, "future") == 1, "the first of them has no witness yet"


def test_an_asset_that_goes_on_alone_after_a_night_is_believed_in_time(plan: Plan, plant: list[Recording]) -> None:
    plan = asking(plan, input={"ahead_s": 60})
    alone = [replace(held, at_ms=held.at_ms[:100], values=held.values[:100]) for held in plant[1:]]
    records = records_of([moved(plant[0], 36_000, start=100), *alone])
    outputs = run(plan, records, [])
    assert count(outputs, "future") == 61, "a minute by its own clock, and nobody said otherwise"


def test_assets_of_which_nothing_was_ever_taken_are_forgotten(
    plan: Plan, plant: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.skew._LONG", 300)
    plan = asking(plan, input={"ahead_s": 60})
    records = records_of(plant)
    made_up = [
        Record("readings", 0, 0, encode(f"pump-x{number}", AT_MS + 10**7 * (number + 1), {"flow": 1.0}))
        for number in range(20)
    ]
    pipeline = Pipeline(plan, Shelf(plan))
    outputs = [pipeline.process(0, numbered([*records[:100], *made_up, *records[100:]])[:400])]
    assert (count(outputs, "future"), pipeline.assets(), pipeline.evict()) == (20, 24, 0)
    outputs.append(pipeline.process(0, numbered([*records[:100], *made_up, *records[100:]])[400:]))
    assert (pipeline.evict(), pipeline.assets()) == (20, 4)
    assert count(outputs, "late") == 0


@settings(PATIENT, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 400)), max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(1, 2),
)
@example([*[(0, 0)] * 10, (2, 0), (1, 61), (1, 0), (0, 61)], [13], 1)  # it went back, and bore witness for what it left
def test_who_is_from_the_future_does_not_depend_on_the_cuts(
    plan: Plan, events: list[tuple[int, int]], cuts: list[int], witnesses: int
) -> None:
    plan = asking(plan, input={"ahead_s": 60, "ahead_witnesses": witnesses, "lateness_s": 30})
    records = [
        Record("readings", 0, offset, encode(f"pump-{asset}", AT_MS + at_s * 1000, {"flow": float(offset)}))
        for offset, (asset, at_s) in enumerate(events)
    ]
    whole, parts = finished(plan, records), finished(plan, records, [min(cut, len(records)) for cut in cuts])
    for name in ("future", "late", "duplicates"):
        assert count(whole, name) == count(parts, name)
    assert [letter.record.offset for output in whole for letter in output.dead] == [
        letter.record.offset for output in parts for letter in output.dead
    ]


# -- silence


@pytest.mark.parametrize("lateness_s", [0, 8])
@pytest.mark.parametrize("cuts", [[], list(range(1, 800, 7))])
def test_an_asset_that_falls_silent_is_stale_until_it_is_back(
    plan: Plan, plant: list[Recording], cuts: list[int], lateness_s: int
) -> None:
    plan = asking(plan, quality={"stale_after_periods": 20}, input={"lateness_s": lateness_s})
    rows = np.r_[0:70, 130:200]
    quiet = replace(plant[1], at_ms=plant[1].at_ms[rows], values=plant[1].values[rows])
    records = records_of([plant[0], quiet, *plant[2:]])
    opened, resolved = of_data(run(plan, records, cuts), "stale")
    assert (opened.asset, opened.state, opened.verdict, opened.severity) == ("pump-2", "open", "stale", "major")
    assert opened.onset == timestamp(AT_MS + 89_000), "20 periods of a second after its last reading"
    assert (resolved.id, resolved.state, resolved.resolved) == (opened.id, "resolved", timestamp(AT_MS + 130_000))


def test_nobody_is_silent_where_everybody_is(plan: Plan, plant: list[Recording]) -> None:
    plan = asking(plan, quality={"stale_after_periods": 20})
    records = records_of([moved(recording, 7200, start=100) for recording in plant])
    assert not of_data(run(plan, records, []), "stale")
    records = as_sent(plant, {"pump-2": (3600, 50), "pump-4": (-3600, 50)})
    assert not of_data(run(plan, records, []), "stale"), "an asset with a wrong clock is heard all the same"


def test_a_stale_asset_is_forgotten_in_the_end_and_can_come_back(plan: Plan, plant: list[Recording]) -> None:
    plan = asking(plan, quality={"stale_after_periods": 20}, state={"evict_after_s": 60})
    silent = replace(plant[1], at_ms=plant[1].at_ms[:70], values=plant[1].values[:70])
    records = records_of([plant[0], silent, *plant[2:]])
    pipeline = Pipeline(plan, Shelf(plan))
    outputs = [pipeline.process(0, records[:400])]
    assert (pipeline.evict(), [alert.state for alert in of_data(outputs, "stale")]) == (0, ["open"])
    outputs.append(pipeline.process(0, records[400:]))
    assert [alert.state for alert in of_data(outputs, "stale")] == ["open", "resolved"]
    assert (pipeline.evict(), pipeline.assets()) == (1, 3)
    back = [replace(record, offset=len(records) + nth) for nth, record in enumerate(records_of([moved(plant[1], 300)]))]
    outputs.append(pipeline.process(0, back))
    assert count(outputs[-1:], "late") == 0
    scores = outputs[-1].scores[0]
    assert scores.at_ms[0] == back[31].timestamp, "its window fills anew"


# -- impossible and bad values


def test_a_value_out_of_its_physical_range_is_masked_and_an_alert_of_its_own(
    plan: Plan, plant: list[Recording]
) -> None:
    plan = asking(plan, signals={"heat": {"low": 0, "high": 100}, "p*": {"high": 50, "assets": ["pump-9"]}})
    values = plant[1].values.copy()
    values[50:60, 1] = 250.0
    masked = values.copy()
    masked[50:60, 1] = np.nan
    outputs = run(plan, records_of([replace(plant[1], values=values)]), [55, 57])
    opened, resolved = of_data(outputs, "signals")
    assert (opened.verdict, opened.onset, opened.state) == ("out_of_range", timestamp(AT_MS + 50_000), "open")
    assert [(cause.signal, cause.share, cause.value) for cause in opened.causes] == [("heat", 1.0, 250.0)]
    assert opened.score == pytest.approx(2.5), "1, and one and a half widths of the range"
    assert (resolved.resolved, resolved.id) == (timestamp(AT_MS + 60_000), opened.id)
    assert flat(outputs)[0] == flat(run(plan, records_of([replace(plant[1], values=masked)]), []))[0]


@pytest.mark.parametrize("frames", [False, True])
def test_a_bad_value_is_an_alert_where_the_plan_asks(plan: Plan, plant: list[Recording], frames: bool) -> None:
    said = []
    for row in range(40):
        at_ms, values = (
            int(plant[0].at_ms[row]),
            dict(zip(plant[0].signals, plant[0].values[row].tolist(), strict=True)),
        )
        quality = {"flow": "bad" if 20 <= row < 30 else "good", "heat": "uncertain"}
        said.append((at_ms, values, quality))
    if frames:
        frame = {
            "asset": "pump-1",
            "ts": [at_ms for at_ms, _, _ in said],
            "values": {signal: [values[signal] for _, values, _ in said] for signal in plant[0].signals},
            "quality": {signal: [quality[signal] for _, _, quality in said] for signal in ("flow", "heat")},
        }
        records = [Record("readings", 0, 0, msgspec.json.encode(frame))]
    else:
        records = [
            Record("readings", 0, n, msgspec.json.encode({"asset": "pump-1", "ts": a, "values": v, "quality": q}))
            for n, (a, v, q) in enumerate(said)
        ]
    pipeline = Pipeline(asking(plan, quality={"bad_values": True}, input={"lateness_s": 3}), Shelf(plan))
    outputs = [pipeline.process(0, records[:10]), pipeline.process(0, records[10:]), pipeline.finish(0)]
    opened, resolved = of_data(outputs, "signals")
    assert (opened.verdict, opened.onset, opened.causes[0].signal) == ("bad_quality", timestamp(AT_MS + 20_000), "flow")
    assert opened.confidence == pytest.approx(2 / 3)
    assert resolved.resolved == timestamp(AT_MS + 30_000)
    assert not of_data(run(plan, records, []), "signals")


@pytest.mark.parametrize("dead", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
@pytest.mark.parametrize("how", [np.nan, np.inf, -np.inf])
def test_dead_signals_never_silence_an_asset(plan: Plan, plant: list[Recording], dead: list[int], how: float) -> None:
    values = plant[0].values.copy()
    values[80:, dead] = how
    rows, alerts = flat(list(backtest(Pipeline(plan, Shelf(plan)), [replace(plant[0], values=values)])))
    late = AT_MS + 100_000
    seen_by = {"quick": {0, 1, 2}, "slow": {1, 2}}
    for detector, columns in seen_by.items():
        scores = [score for (name, _, at), (score, _) in rows.items() if name == detector and at >= late]
        assert scores
        assert np.isfinite(scores).all() == bool(columns - set(dead))
    if 1 not in dead:  # the fault is on heat
        assert {alert.detector for alert in alerts} == {"quick", "slow"}
        opened = next(alert for alert in alerts if alert.detector == "quick" and alert.onset > timestamp(late))
        assert opened.confidence == pytest.approx(1 - len(dead) / 3)
        assert not {plant[0].signals[column] for column in dead} & {cause.signal for cause in opened.causes}
