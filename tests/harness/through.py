"""Readings through the pipeline, and what came of them in a form that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from models.datasets import Recording
from stream.pipeline import Pipeline
from stream.plan import Plan
from stream.records import Alert, Output, Record
from stream.shelf import Shelf
from stream.sources.json import encode

Rows = dict[tuple[str, str, int], tuple[float, bool]]


def records_of(recordings: Sequence[Recording]) -> list[Record]:
    """All readings in the order of time, as JSON records of one partition."""
    rows = sorted(
        (int(at_ms), index, row)
        for index, recording in enumerate(recordings)
        for row, at_ms in enumerate(recording.at_ms)
    )
    return [
        Record(
            "readings",
            0,
            offset,
            encode(
                recordings[index].asset,
                at_ms,
                dict(zip(recordings[index].signals, recordings[index].values[row].tolist(), strict=True)),
            ),
            timestamp=at_ms,
        )
        for offset, (at_ms, index, row) in enumerate(rows)
    ]


def flat(outputs: Sequence[Output], *, copies: bool = False) -> tuple[Rows, list[Alert]]:
    """Scores by what identifies them, and alerts; ``copies``: after a crash there may be some, equal to the first."""
    rows: Rows = {}
    for output in outputs:
        for scores in output.scores:
            for row in range(len(scores)):
                key = (scores.detector, scores.names[scores.asset[row]], int(scores.at_ms[row]))
                found = (float(scores.score[row]), bool(scores.anomalous[row]))
                assert key not in rows or (copies and rows[key] == found), "a reading was scored twice"
                rows[key] = found
    alerts = [alert for output in outputs for alert in output.alerts]
    if copies:
        alerts = list(dict.fromkeys(alerts))
    return rows, sorted(alerts, key=lambda a: (a.id, a.sequence))


def run(plan: Plan, records: Sequence[Record], batches: Sequence[int]) -> list[Output]:
    pipeline = Pipeline(plan, Shelf(plan))
    bounds = [0, *batches, len(records)]
    return [pipeline.process(0, records[a:b]) for a, b in pairwise(bounds)]
