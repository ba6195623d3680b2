"""Thinning leaves out what is dull and nothing else, however the rows are cut into batches."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from models.datasets import Recording
from stream.plan import Plan, ThinningSettings
from stream.records import Numbered, Output, Record, Scores
from stream.sinks import thin
from stream.sinks.messages import all_messages
from stream.sinks.rows import take
from stream.sinks.thin import Thinned, Thinner, history

NAMES = ("pump-0", "pump-1", "pump-2")
AT_MS = 1_764_000_000_000
Row = tuple[int, int, float, int, bool]  # asset, ms since the row before, score, verdict, anomalous

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 3000),
        st.one_of(st.floats(0, 4), st.sampled_from([math.nan, math.inf, 0.5, 0.52, 0.7])),
        st.sampled_from([0, 0, 0, 2]),
        st.sampled_from([False] * 6 + [True]),
    ),
    max_size=60,
)
SETTINGS = st.builds(
    ThinningSettings, every_s=st.sampled_from([0.001, 2.0, 5.0]), change=st.sampled_from([None, 0.05, 0.3])
)


def scores_of(rows: list[Row], threshold: float = 3.0) -> Scores:
    """Rows in the order of time, two columns each; the first value is the row's number."""
    count = len(rows)
    columns: list[Any] = [np.array(column) for column in zip(*rows, strict=True)] or [np.zeros(0)] * 5
    asset, step, score, verdict, anomalous = columns
    values = np.stack([np.arange(count, dtype=float), np.zeros(count)], axis=1)
    return Scores(
        "d", "k", "v1", NAMES, asset.astype(np.int32), AT_MS + np.cumsum(step).astype(np.int64),
        score.astype(float), np.full(count, threshold), anomalous.astype(bool), ("n", "o"), values,
        np.full((count, 2), 0.5), None, values, verdict.astype(np.uint8),
    )  # fmt: skip


def one_by_one(rows: list[Row], settings: ThinningSettings, threshold: float = 3.0) -> list[int]:
    """The rule, as it would be explained to a person."""
    at_ms, kept = AT_MS, []
    every_ms = round(settings.every_s * 1000)
    before: dict[int, tuple[object, ...]] = {}
    written: dict[int, float] = {}
    for number, (asset, step, score, verdict, anomalous) in enumerate(rows):
        at_ms += step
        alarming = anomalous or score >= threshold
        now = (
            (at_ms + zlib.crc32(NAMES[asset].encode()) % every_ms) // every_ms,
            verdict, anomalous, alarming, math.isfinite(score),
        )  # fmt: skip
        changed = (
            settings.change is not None and abs(score - written.get(asset, math.nan)) > settings.change * threshold
        )
        if alarming or changed or before.get(asset) != now:
            kept.append(number)
            written[asset] = score
        before[asset] = now
    return kept


def numbers(scores: Scores) -> list[int]:
    return [int(value) for value in scores.values[:, 0]]


def cut(scores: Scores, at: list[int]) -> Iterator[Scores]:
    bounds = [0, *sorted(min(place, len(scores)) for place in at), len(scores)]
    for start, stop in itertools.pairwise(bounds):
        part = take(scores, slice(start, stop))
        by_asset = np.argsort(part.asset, kind="stable")  # as the pipeline gives them
        yield take(part, by_asset)


@pytest.fixture(params=["compiled", "in numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the library, and without."""
    assert thin._compiled() is not None
    if request.param != "compiled":
        monkeypatch.setattr(thin, "_compiled", lambda: None)


@example_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, settings=SETTINGS, at=st.lists(st.integers(0, 60), max_size=6))
def test_keeps_what_the_rule_says_however_it_is_cut(
    way: None, rows: list[Row], settings: ThinningSettings, at: list[int]
) -> None:
    expected = one_by_one(rows, settings)
    assert numbers(Thinner(settings).thin(scores_of(rows))) == expected
    thinner = Thinner(settings)
    assert sorted(number for part in cut(scores_of(rows), at) for number in numbers(thinner.thin(part))) == expected


@given(ROWS, st.lists(st.integers(0, 60), max_size=6))
def test_numbered_names_are_the_same_names(rows: list[Row], at: list[int]) -> None:
    """Of two partitions with the same assets, which share where those of the other were last found."""
    settings = ThinningSettings(every_s=2.0)
    shared: dict[str, Any] = {}
    numbered, plain = [Thinner(settings, shared) for _ in range(2)], [Thinner(settings) for _ in range(2)]
    names = Numbered.of(NAMES, object(), np.array([7, 2, 40], np.int32))
    for part in cut(scores_of(rows), at):
        for ours, theirs in zip(numbered, plain, strict=True):
            assert numbers(ours.thin(replace(part, names=names))) == numbers(theirs.thin(part))


@example_settings(max_examples=100, deadline=None)
@given(ROWS, SETTINGS)
def test_never_leaves_out_what_is_around_an_alert(rows: list[Row], settings: ThinningSettings) -> None:
    kept = set(numbers(Thinner(settings).thin(scores_of(rows))))
    before: dict[int, bool] = {}
    for number, (asset, _, score, _, anomalous) in enumerate(rows):
        if anomalous or score >= 3.0 or before.get(asset, anomalous) != anomalous:
            assert number in kept
        before[asset] = anomalous


def test_one_in_ten_seconds_and_the_same_after_a_restart() -> None:
    rows: list[Row] = [(number % 3, 1000 if number % 3 == 0 else 0, 0.5, 0, False) for number in range(3 * 600)]
    settings = ThinningSettings(every_s=10.0)
    kept = numbers(Thinner(settings).thin(scores_of(rows)))
    assert 3 * 60 <= len(kept) <= 3 * 61
    # A worker that begins in the middle writes its first rows, and then the very same.
    second = Thinner(settings).thin(take(scores_of(rows), slice(900, None)))
    assert set(numbers(second)[3:]) <= set(kept)


def test_assets_take_turns(make_scores: Callable[..., Scores]) -> None:
    thinner, busiest = Thinner(ThinningSettings(every_s=10.0)), 0
    for second in range(1, 40):
        at_ms = np.full(1000, AT_MS + 1000 * second)
        kept = thinner.thin(make_scores(rows=1000, assets=1000, at_ms=at_ms, score=np.zeros(1000)))
        busiest = max(busiest, len(kept)) if second > 1 else 0
    assert busiest < 150


def test_columns_stay_together(make_scores: Callable[..., Scores]) -> None:
    given_rows = make_scores(rows=50, assets=2, at_ms=AT_MS + np.arange(50) * 1000)
    kept = Thinner(ThinningSettings(every_s=5.0)).thin(given_rows)
    rows = np.flatnonzero(np.isin(given_rows.at_ms, kept.at_ms))
    assert 10 < len(kept) < 30
    for name in ("asset", "score", "values", "expected", "spread", "contributions", "verdict"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(given_rows, name)[rows])


def test_sinks_get_what_is_kept_and_the_rest_of_the_output(output: Output) -> None:
    assert history(output) == output.scores
    thinned = Thinned(alerts=output.alerts, scores=output.scores, kept=())
    assert history(thinned) == ()
    topics = Plan.model_fields["topics"].default.model_copy(update={"scores": "s"})
    assert [message.topic for message in all_messages(thinned, topics, "")] == ["plant.alerts.v1"]


@pytest.mark.parametrize("cuts", [1, 7])
def test_a_partitions_state_goes_with_it(plan: Plan, make_recording: Callable[..., Recording], cuts: int) -> None:
    from stream.shelf import Shelf
    from stream.worker import ThinningPipeline

    settings = ThinningSettings(every_s=10.0)
    pipeline = ThinningPipeline(plan.model_copy(update={"thinning": settings}), Shelf(plan))
    recording = make_recording("pump-1", rows=200)
    encode = msgspec.json.encode
    records = [
        Record(
            "in",
            0,
            row,
            encode({"asset": "pump-1", "ts": at_ms, "values": dict(zip(recording.signals, line, strict=True))}),
        )
        for row, (at_ms, line) in enumerate(zip(recording.at_ms.tolist(), recording.values.tolist(), strict=True))
    ]
    size = -(-len(records) // cuts)
    outputs = [pipeline.process(0, records[start : start + size]) for start in range(0, len(records), size)]
    kept = sum(len(scores) for output in outputs for scores in history(output))
    scored = sum(len(scores) for output in outputs for scores in output.scores)
    assert 0 < kept < scored / 2
    pipeline.keep_only({1})
    assert not pipeline._thinners
