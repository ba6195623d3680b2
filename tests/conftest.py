"""What many tests need: records for those that are about where they go, and a small plant with a trained plan."""

from __future__ import annotations

import models  # noqa: F401  # caps the threads of BLAS, which reads that when numpy is first imported

# isort: split
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings

from models.datasets import Recording
from models.train import train
from stream.plan import Plan, load_plan
from stream.records import Alert, Cause, DeadLetter, Late, Output, Record, Scores

# a machine under load is no finding
hypothesis_settings.register_profile("headrace", deadline=None)
hypothesis_settings.load_profile("headrace")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin what takes minutes first, so that the rest runs beside it; a file's tests stay together."""
    first = {item.path for item in items if item.get_closest_marker("begin_first")}
    items.sort(key=lambda item: item.path not in first)


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


SIGNALS = ("flow", "heat", "pressure")
PLAN = """
site = "north"
[topics]
scores = "plant.scores.v1"
[detectors.quick]
kind = "ewma"
assets = ["pump-*"]
artifact = "artifacts/quick"
false_alarms_per_day = 0.1
update_every_s = 20
[detectors.slow]
kind = "ewma"
assets = ["pump-*"]
signals = ["heat", "pressure"]
artifact = "artifacts/slow"
hop = 3
on_delay_s = 3
off_delay_s = 5
false_alarms_per_day = 0.1
config = { window = 16 }
"""


@pytest.fixture(scope="session")
def make_recording() -> Callable[..., Recording]:
    """``make_recording("pump-1", rows=600, fault=(300, 330))``: one reading a second of three signals that swing."""

    def make(asset: str, rows: int = 600, seed: int = 0, fault: tuple[int, int] | None = None) -> Recording:
        random = np.random.default_rng(seed)
        at = np.arange(rows)
        load = np.sin(at / 25.0)
        values = np.stack([40 + 5 * load, 70 + 2 * load, 3 - 0.4 * load], axis=1)
        values += random.normal(0, [0.4, 0.2, 0.05], values.shape)
        if fault:
            values[slice(*fault), 1] += 12.0
        return Recording(asset, AT_MS + at * 1000, SIGNALS, values, None)

    return make


@pytest.fixture(scope="session")
def plan(make_recording: Callable[..., Recording], tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan with two trained detectors that need no TensorFlow; its file lies at ``plan.folder / "headrace.toml"``."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "headrace.toml").write_text(PLAN)
    made = load_plan(folder / "headrace.toml")
    history = [make_recording(f"pump-{number}", rows=2000, seed=100 + number) for number in range(2)]
    for name, settings in made.detectors.items():
        artifact = train(
            history, detector=settings.kind, signals=settings.signals or None, config=settings.config, seed=1
        )
        artifact.save(made.artifact_path(name))
    return made


@pytest.fixture(scope="session")
def write_csv() -> Callable[[Recording, Path], Path]:
    """Write a recording as the CSV that ``headrace`` reads; returns the file."""

    def write(recording: Recording, folder: Path) -> Path:
        path = folder / f"{recording.asset}.csv"
        lines = [",".join(("ts", *recording.signals))]
        for at_ms, row in zip(recording.at_ms.tolist(), recording.values.tolist(), strict=True):
            lines.append(",".join((str(at_ms), *("" if value != value else repr(value) for value in row))))
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
