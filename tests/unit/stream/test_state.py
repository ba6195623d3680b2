"""What a snapshot holds, whatever becomes of its records: the same bits, or a refusal that is told."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.datasets import Recording
from stream import state as subject
from stream.assembly import Assembly, Image, block_key, meta_key, prefix
from stream.episode import Episode
from stream.errors import StateRefused
from stream.pipeline import Pipeline
from stream.plan import Plan, ThinningSettings
from stream.records import Output, Record
from stream.shelf import Shelf
from stream.sinks.thin import history
from stream.sources.json import encode as encode_reading
from stream.state import Block, LaneRows, Meta, decode, encode
from stream.worker import pipeline_of

BEFORE = prefix("group", "readings")


def block(applied: int = 7, number: int = 0, epoch: int = 0, names: Sequence[str] = ("pump-1", "")) -> Block:
    history = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    history[0, 0, 0] = np.nan
    rows = LaneRows("quick", "v1", np.array([0], np.int32), {"history": history, "rows": np.array([4], np.int32)})
    rows.episodes[0] = Episode(onset_ms=5, peak=2.5, opened_ms=6, sequence=1)
    return Block(epoch, applied, 2, number, list(names), np.array([9, -(1 << 62)], np.int64), [rows])


def meta(applied: int = 7, blocks: Sequence[int] = (7,), epoch: int = 0) -> Meta:
    return Meta(epoch=epoch, applied=applied, size=2, blocks=list(blocks))


def image_of(*held: Block | Meta | tuple[bytes, bytes | None]) -> Image:
    assembly = Assembly(BEFORE)
    for each in held:
        if isinstance(each, tuple):
            assembly.add([each])
        elif isinstance(each, Meta):
            assembly.add([(meta_key(BEFORE), encode(each))])
        else:
            assembly.add([(block_key(BEFORE, each.size, each.number), encode(each))])
    return assembly.image()


def test_a_block_comes_back_to_the_bit() -> None:
    again = decode(encode(block()))
    assert isinstance(again, Block)
    (lane,), (wanted,) = again.lanes, block().lanes
    assert (again.names, again.applied, again.number, again.size) == (["pump-1", ""], 7, 0, 2)
    for name, array in wanted.arrays.items():
        assert lane.arrays[name].tobytes() == array.tobytes()
        assert lane.arrays[name].dtype == array.dtype
    assert lane.episodes == wanted.episodes
    assert decode(encode(meta())) == meta()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_no_bytes_whatever_break_the_reader(at: int, new: bytes) -> None:
    value = bytearray(encode(block()))
    at %= len(value)
    value[at : at + len(new)] = new
    with suppress(StateRefused):  # and nothing else
        decode(bytes(value))


def test_a_body_that_would_inflate_beyond_what_it_says_is_refused() -> None:
    bomb = zlib.compress(b"\0" * (80 << 20), 9)
    head = subject._HEAD.pack(subject._MAGIC, 1, subject._COMPRESSED, 1000, 0, 10)
    with pytest.raises(StateRefused):
        decode(head + bomb)


def test_the_record_that_is_furthest_counts_not_the_last() -> None:
    image = image_of(block(9), meta(9, [9]), block(7), meta(7, [7]))
    assert (image.applied, image.blocks[0].applied, image.passed) == (9, 9, {})


def test_a_block_ahead_of_the_snapshot_says_what_it_has_passed() -> None:
    image = image_of(block(7), block(7, 1, names=("pump-2", "")), meta(7, [7, 7]), block(12, 1, names=("pump-2", "")))
    assert image.applied == 7
    assert image.passed == {1: 12}
    assert not image.problems


def test_a_block_that_is_missing_or_older_than_the_snapshot_says_is_left_out_and_told() -> None:
    image = image_of(block(5), meta(7, [7, 7]))
    assert not image.blocks
    assert [reason for reason, _ in image.problems] == ["lost"]


def test_a_leftover_that_the_snapshot_does_not_list_is_left_out() -> None:
    image = image_of(block(3, 1, names=("gone", "")), block(7), meta(7, [7]))
    assert list(image.blocks) == [0]
    assert block_key(BEFORE, 2, 1) in image.keys, "so that it can be deleted"


def test_an_older_epoch_is_left_out() -> None:
    image = image_of(block(90), meta(90, [90]), block(3, epoch=1), meta(3, [3], epoch=1))
    assert (image.epoch, image.applied, image.blocks[0].applied) == (1, 3, 3)


def test_what_others_wrote_and_what_was_deleted_is_passed_over() -> None:
    other = (block_key(prefix("other", "readings"), 2, 0), encode(block()))
    image = image_of(other, block(), (block_key(BEFORE, 2, 0), None))
    assert not image.blocks
    assert not image.keys


def test_a_format_of_a_later_release_is_told_and_one_of_an_earlier_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    value = bytearray(encode(block()))
    value[4] = 99
    image = image_of((block_key(BEFORE, 2, 0), bytes(value)))
    assert [reason for reason, _ in image.problems] == ["unknown_format"]
    # the release after this one: it writes format 99, and still reads ours
    monkeypatch.setattr(subject, "_READERS", {**subject._READERS, 99: subject._read_1})
    assert list(image_of((block_key(BEFORE, 2, 0), bytes(value))).blocks) == [0]
    assert list(image_of(block()).blocks) == [0]


# -- with a real pipeline


@pytest.fixture
def records(make_recording: Callable[..., Recording]) -> list[Record]:
    recordings = [make_recording(f"pump-{n}", rows=220, seed=n, fault=(90 + n, 130 + n)) for n in range(5)]
    rows = [(held, row) for row in range(220) for held in recordings]
    return [
        Record(
            "readings",
            0,
            offset,
            encode_reading(
                held.asset,
                int(held.at_ms[row]),
                dict(zip(held.signals, held.values[row].tolist(), strict=True)),
            ),
        )
        for offset, (held, row) in enumerate(rows)
    ]


def pieces(outputs: Sequence[Output]) -> tuple[dict[Any, float], dict[Any, Any]]:
    """Scores and alerts by what identifies them; copies must be equal."""
    scores: dict[Any, float] = {}
    alerts: dict[Any, Any] = {}
    for output in outputs:
        for held in output.scores:
            for row in range(len(held)):
                key = held.detector, held.names[held.asset[row]], int(held.at_ms[row])
                assert scores.setdefault(key, float(held.score[row])) == float(held.score[row])
        for alert in output.alerts:
            assert alerts.setdefault((alert.id, alert.sequence), alert) == alert
    return scores, alerts


def small_blocks(plan: Plan, size: int = 2) -> Pipeline:
    pipeline = Pipeline(plan, Shelf(plan))
    pipeline._block = size
    return pipeline


def written(pipeline: Pipeline, numbers: Sequence[int]) -> list[Block]:
    return [each for held in pipeline.take(0, numbers) if isinstance(each := decode(encode(held)), Block)]


@pytest.mark.parametrize(("snapshot", "crash", "ahead"), [(300, 640, [0]), (500, 777, [1, 2]), (521, 522, [0, 1, 2])])
def test_a_crash_between_the_blocks_of_a_snapshot_changes_nothing(
    plan: Plan, records: list[Record], snapshot: int, crash: int, ahead: list[int]
) -> None:
    whole = pieces([small_blocks(plan).process(0, records)])
    first = small_blocks(plan)
    outputs = [first.process(0, records[:snapshot])]
    state = first.touched(0)
    assert state == (snapshot - 1, [0, 1, 2])
    held: list[Block | Meta] = [*written(first, state[1])]
    closing = first.meta(0, snapshot - 1)
    assert closing is not None
    held.append(closing)
    outputs.append(first.process(0, records[snapshot:crash]))
    held += written(first, ahead)  # and here it dies, before the other blocks and the record that ends the snapshot

    second = small_blocks(plan)
    report = second.restore(0, image_of(*held))
    assert report.assets == 5
    assert not report.anew
    outputs.append(
        second.process(0, records[snapshot - 40 : crash - 1])
    )  # from what was committed, before the snapshot
    assert second.touched(0) is None, "some blocks are ahead: a snapshot now would lose their offsets"
    outputs.append(second.process(0, records[crash - 1 :]))
    assert pieces(outputs) == whole
    assert second.touched(0) == (len(records) - 1, [0, 1, 2])


def test_another_size_of_block_is_laid_out_anew(plan: Plan, records: list[Record]) -> None:
    first = small_blocks(plan)
    outputs = [first.process(0, records[:600])]
    held = written(first, [0, 1, 2])
    closing = first.meta(0, 599)
    assert closing is not None
    second = small_blocks(plan, size=4)
    assert second.restore(0, image_of(*held, closing)).assets == 5
    assert second.touched(0) == (599, [0, 1])
    outputs.append(second.process(0, records[600:]))
    assert pieces(outputs) == pieces([small_blocks(plan).process(0, records)])


def test_a_silent_asset_is_evicted_and_its_room_goes_to_another(plan: Plan, records: list[Record]) -> None:
    short = plan.model_copy(update={"state": plan.state.model_copy(update={"evict_after_s": 60.0})})
    pipeline = small_blocks(short)
    silent = [record for record in records if b"pump-2" not in (record.value or b"") or record.offset < 300]
    pipeline.process(0, silent)
    assert pipeline.evict() == 1
    assert pipeline.assets() == 4
    state = pipeline.touched(0)
    assert state is not None
    assert all("pump-2" not in held.names for held in pipeline.take(0, state[1]))
    back = [record for record in records if b"pump-2" in (record.value or b"")][-40:]
    output = pipeline.process(0, [Record("r", 0, 5000 + n, record.value) for n, record in enumerate(back)])
    assert pipeline.assets() == 5
    quick = [held for held in output.scores if held.detector == "quick"]
    assert sum(map(len, quick)) == 40 - 31, "its window begins anew"


def test_which_scores_are_kept_is_remembered_too_and_thinning_may_be_turned_off(
    plan: Plan, records: list[Record]
) -> None:
    thinned = plan.model_copy(update={"thinning": ThinningSettings(every_s=30.0, change=0.2)})

    def kept(outputs: Sequence[Output]) -> list[tuple[str, str, int]]:
        return sorted(
            (held.detector, held.names[held.asset[row]], int(held.at_ms[row]))
            for output in outputs
            for held in history(output)
            for row in range(len(held))
        )

    first = pipeline_of(thinned, Shelf(thinned))
    outputs = [first.process(0, records[:603])]
    held = written(first, [0])
    closing = first.meta(0, 602)
    assert closing is not None
    second = pipeline_of(thinned, Shelf(thinned))
    second.restore(0, image_of(*held, closing))
    outputs.append(second.process(0, records[603:]))
    whole = kept([pipeline_of(thinned, Shelf(thinned)).process(0, records)])
    assert kept(outputs) == whole
    assert len(whole) < sum(len(scores) for output in outputs for scores in output.scores)
    plain = pipeline_of(plan, Shelf(plan))
    assert not plain.restore(0, image_of(*held, closing)).anew
