"""Records for tests that are about where they go, not about how they come to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stream.records import Alert, Cause, DeadLetter, Late, Output, Record, Scores

AT_MS = 1_764_000_000_000


@pytest.fixture
def make_scores() -> Callable[..., Scores]:
    """``make_scores(rows=3, assets=2, ...)``: reproducible scores; any field can be replaced by name."""

    def make(rows: int = 3, assets: int = 2, signals: tuple[str, ...] = ("flow", "heat"), **fields: Any) -> Scores:
        random = np.random.default_rng(rows)
        values = random.normal(70.0, 3.0, (rows, len(signals)))
        made: dict[str, Any] = {
            "detector": "pumps",
            "kind": "lstm_forecaster",
            "model_version": "v1",
            "names": tuple(f"pump-{i}" for i in range(assets)),
            "asset": (np.arange(rows) % assets).astype(np.int32),
            "at_ms": AT_MS + np.arange(rows, dtype=np.int64) * 10,
            "score": random.exponential(1.0, rows),
            "threshold": np.full(rows, 3.0),
            "anomalous": np.zeros(rows, bool),
            "signals": signals,
            "values": values,
            "contributions": np.full((rows, len(signals)), 1.0 / len(signals)),
            "expected": values + 1.0,
            "spread": np.full((rows, len(signals)), 0.5),
            "verdict": np.zeros(rows, np.uint8),
        }
        return Scores(**{**made, **fields})

    return make


@pytest.fixture
def make_alert() -> Callable[..., Alert]:
    """``make_alert(id="a", state="updated", ...)``: an open alert unless told otherwise."""

    def make(**fields: Any) -> Alert:
        made: dict[str, Any] = {
            "id": "a1",
            "sequence": 0,
            "state": "open",
            "severity": "major",
            "asset": "pump-1",
            "detector": "pumps",
            "kind": "lstm_forecaster",
            "verdict": "model",
            "model_version": "v1",
            "onset": "2026-11-23T08:00:00.250Z",
            "opened": "2026-11-23T08:00:00.500Z",
            "last_seen": "2026-11-23T08:00:01.250Z",
            "score": 4.5,
            "threshold": 3.0,
            "peak": 5.0,
            "peak_at": "2026-11-23T08:00:01.000Z",
            "causes": (Cause(signal="heat", share=0.75, value=91.0, expected=70.0), Cause(signal="flow", share=0.25)),
        }
        return Alert(**{**made, **fields})

    return make


@pytest.fixture
def make_dead() -> Callable[..., DeadLetter]:
    """``make_dead(b"not json")``: a dead letter of that value; the record's other fields by name."""

    def make(value: bytes | None = b"not json", *, offset: int = 7, **fields: Any) -> DeadLetter:
        record = Record("plant.readings.v1", 1, offset, value, **{"key": b"pump-1", "timestamp": AT_MS, **fields})
        return DeadLetter(record, "decode", "not_json", "it starts with 'not'")

    return make


@pytest.fixture
def output(
    make_scores: Callable[..., Scores], make_alert: Callable[..., Alert], make_dead: Callable[..., DeadLetter]
) -> Output:
    """One of everything, with a score that is not a number."""
    scores = make_scores(score=np.array([0.5, np.nan, 4.0]), anomalous=np.array([False, False, True]))
    dead = make_dead()
    return Output(
        scores=(scores,),
        alerts=(make_alert(),),
        dead=(dead,),
        late=(Late(dead.record, "older than the newest reading of pump-1"),),
        counts={"records": 4, "readings": 3, "late": 1, "failed": 2},
        stage_s={"decode": 0.002, "score": 0.03},
        produced_ms=AT_MS,
    )
