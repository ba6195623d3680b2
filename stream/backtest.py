"""Recordings through the pipeline without a broker: what would have been raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from stream.pipeline import Pipeline
from stream.records import Float64, Output, Readings

if TYPE_CHECKING:
    from models.datasets import Recording

#: Readings a step; how they are cut changes nothing (a test holds that).
BATCH: Final = 4096


def backtest(
    pipeline: Pipeline,
    recordings: Sequence[Recording],
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Output]:
    """Run recordings through a fresh pipeline, one after the other (assets know nothing of each other).

    Each asset has a partition of its own, so that none counts as silent, or its clock as wrong, for what another's
    recording says. ``progress`` is told how many readings each step took.
    """
    partitions: dict[str, int] = {}
    for recording in recordings:
        partition = partitions.setdefault(recording.asset, len(partitions))
        values = columns(recording.signals, recording.values, pipeline.signals)
        for start in range(0, len(recording.at_ms), batch):
            at_ms = np.asarray(recording.at_ms[start : start + batch], dtype=np.int64)
            rows = values[start : start + batch]
            yield pipeline.run(
                partition,
                Readings(
                    names=(recording.asset,),
                    asset=np.zeros(len(at_ms), dtype=np.int32),
                    at_ms=at_ms,
                    signals=pipeline.signals,
                    values=rows,
                    record=np.zeros(len(at_ms), dtype=np.int32),
                ),
            )
            progress(len(at_ms))
    for partition in partitions.values():
        yield pipeline.finish(partition)


def side_by_side(pipeline: Pipeline, recordings: Sequence[Recording], *, batch: int = BATCH) -> Iterator[Output]:
    """The same for recordings with the same times: those go through together, as assets of one partition."""
    groups: dict[bytes, list[Recording]] = {}
    for recording in recordings:
        groups.setdefault(recording.at_ms.tobytes(), []).append(recording)
    for partition, held in enumerate(groups.values()):
        at_ms = np.asarray(held[0].at_ms, dtype=np.int64)
        values = np.stack([columns(one.signals, one.values, pipeline.signals) for one in held], axis=1)
        step = max(batch // len(held), 1)
        for start in range(0, len(at_ms), step):
            times = at_ms[start : start + step]
            count = len(times) * len(held)
            yield pipeline.run(
                partition,
                Readings(
                    names=tuple(one.asset for one in held),
                    asset=np.tile(np.arange(len(held), dtype=np.int32), len(times)),
                    at_ms=np.repeat(times, len(held)),
                    signals=pipeline.signals,
                    values=values[start : start + step].reshape(count, -1),
                    record=np.zeros(count, dtype=np.int32),
                ),
            )
        yield pipeline.finish(partition)


def columns(signals: Sequence[str], values: Float64, wanted: Sequence[str]) -> Float64:
    """Columns ``wanted`` of ``values`` (row, signal); NaN where there is no such signal or no finite value."""
    index = {signal: column for column, signal in enumerate(signals)}
    chosen = np.full((len(values), len(wanted)), np.nan)
    for column, signal in enumerate(wanted):
        if signal in index:
            chosen[:, column] = values[:, index[signal]]
    chosen[~np.isfinite(chosen)] = np.nan
    return chosen
