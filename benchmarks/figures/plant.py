"""What the figures are measured on: assets with eight signals, as readings, as records, and the artifact and plan."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from models.datasets import Recording
from models.detectors.lstm_forecaster import Config
from models.train import train
from stream.plan import Plan, load_plan
from stream.records import Float64, Int32, Int64, Readings, Record
from stream.sources.packed import encode_packed

SIGNALS: Final = tuple(f"signal_{number}" for number in range(8))
PERIOD_MS: Final = 1000
START_MS: Final = 1_795_413_600_000
TOPIC: Final = "plant.readings.v1"

_PLAN = """
[topics]
readings = "{topic}"
alerts = "{topic}.alerts"
scores = "{scores}"
dead_letters = "{topic}.dlq"
late = "{topic}.late"
[detectors.lstm]
kind = "lstm_forecaster"
artifact = "{artifact}"
threshold = 30.0
gaps = {{ policy = "keep" }}
"""


class Fleet:
    """``assets`` machines that swing and shiver, readable on in time without end; the same whenever it is made."""

    def __init__(self, assets: int, *, prefix: str = "asset") -> None:
        self.names = tuple(f"{prefix}-{number:06d}" for number in range(assets))
        self.row = 0
        self._random = np.random.default_rng(assets)
        self._noise = self._random.normal(0.0, 1.0, (4096, len(SIGNALS)))

    def values(self, asset: Int64, row: Int64) -> Float64:
        """(reading, signal): a swing that differs by signal and asset, with noise."""
        phase = row[:, None] / (6.0 + np.arange(len(SIGNALS))) + asset[:, None] * 0.37
        noise = self._noise[(row * 7919 + asset * 104_729) % len(self._noise)]
        values: Float64 = np.round(50.0 + 5.0 * np.sin(phase) + 0.5 * noise, 4)
        return values

    def columns(self, rows: int, chosen: Int64 | None = None) -> tuple[Int64, Int64, Float64]:
        """(asset, row, values) of the next ``rows`` readings of each (chosen) asset, in the order of time."""
        which = np.arange(len(self.names)) if chosen is None else chosen
        asset = np.tile(which, rows)
        row = np.repeat(np.arange(self.row, self.row + rows), len(which))
        self.row += rows
        return asset, row, self.values(asset, row)

    def readings(self, rows: int) -> Readings:
        """The next readings as the decoder would give them."""
        asset, row, values = self.columns(rows)
        code: Int32 = asset.astype(np.int32)
        return Readings(
            self.names, code, START_MS + row * PERIOD_MS, SIGNALS, values, np.arange(len(asset), dtype="i4")
        )

    def payloads(self, rows: int, chosen: Int64 | None = None) -> list[tuple[bytes, bytes]]:
        """The next readings as (key, JSON), one reading a record."""
        asset, row, values = self.columns(rows, chosen)
        encode = msgspec.json.encode
        names = self.names
        return [
            (
                names[number].encode(),
                encode({"asset": names[number], "ts": at_ms, "values": dict(zip(SIGNALS, line, strict=True))}),
            )
            for number, at_ms, line in zip(
                asset.tolist(), (START_MS + row * PERIOD_MS).tolist(), values.tolist(), strict=True
            )
        ]

    def frames(self, rows: int, size: int = 100, *, packed: bool = False) -> list[tuple[bytes, bytes]]:
        """The next readings as (key, frame): ``size`` readings of an asset as columns in one record."""
        if rows % size:
            raise ValueError(f"{rows} rows are not whole frames of {size}")
        made: list[tuple[bytes, bytes]] = []
        for _ in range(rows // size):
            _, row, values = self.columns(size)
            cube = values.reshape(size, len(self.names), len(SIGNALS))
            at_ms = START_MS + np.unique(row) * PERIOD_MS
            ts = at_ms.tolist()
            for number, name in enumerate(self.names):
                if packed:
                    made.append((name.encode(), encode_packed(name, at_ms, SIGNALS, cube[:, number])))
                    continue
                lines = {signal: cube[:, number, column].tolist() for column, signal in enumerate(SIGNALS)}
                made.append((name.encode(), msgspec.json.encode({"asset": name, "ts": ts, "values": lines})))
        return made


def as_records(payloads: list[tuple[bytes, bytes]], offset: int, partition: int = 0) -> list[Record]:
    """Payloads as records of one partition, offsets from ``offset``."""
    return [
        Record(TOPIC, partition, offset + count, value, key, START_MS) for count, (key, value) in enumerate(payloads)
    ]


@dataclass(slots=True)
class Form:
    """Which form of the LSTM a run is about: with its state carried from reading to reading, or windowed."""

    carried: bool = True

    def __str__(self) -> str:
        return "its state carried" if self.carried and can_carry() else "windows"


FORM: Final = Form()


def frames_are_built() -> bool:
    """Whether the worker takes frames."""
    return importlib.util.find_spec("stream.sources.frame") is not None


def can_carry() -> bool:
    """Whether the LSTM can carry its state from reading to reading."""
    return any(field.name == "carried" for field in fields(Config))


def write_artifact(folder: Path, *, units: int, layers: int = 1, window: int = 32, carried: bool | None = None) -> Path:
    """Train an LSTM on a little of the fleet (two epochs: what it costs to score does not depend on what it learnt).

    ``carried``: with its state carried, or windowed; None is whichever the run is about.
    """
    fleet = Fleet(2)
    _, row, values = fleet.columns(1500)
    held = [
        Recording(name, START_MS + row[number::2] * PERIOD_MS, SIGNALS, values[number::2], None)
        for number, name in enumerate(fleet.names)
    ]
    config: dict[str, int | bool] = {"units": units, "layers": layers, "window": window, "epochs": 2}
    if can_carry():
        config["carried"] = FORM.carried if carried is None else carried
    train(held, detector="lstm_forecaster", signals=SIGNALS, config=config, seed=1).save(folder)
    return folder


def write_plan(folder: Path, artifact: Path, *, topic: str = TOPIC, scores: bool = False) -> Path:
    """The plan of one LSTM over all assets. Its threshold is far above what the fleet does by itself."""
    path = folder / f"{topic}.toml"
    path.write_text(
        _PLAN.format(topic=topic, artifact=artifact.resolve(), scores=f"{topic}.scores" if scores else ""),
        encoding="utf-8",
    )
    return path


def plan_for(folder: Path, artifact: Path) -> Plan:
    """The same, loaded."""
    return load_plan(write_plan(folder, artifact))
