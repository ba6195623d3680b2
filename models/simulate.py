"""A simulated plant: pumps, compressors and heat exchangers, healthy or with labelled faults.

    plant = Plant(seed=7)
    history = plant.history(2880)            # clean, to learn from
    live, faults = plant.live(2880)          # goes on where the history ends

Simple physics makes the signals of a machine belong together: a load that start-ups, steps and idle times drive sets
speed, speed sets flow and pressure, power heats the motor with a delay, weather and shifts move it all. Machines of one
kind differ by a few per cent. Everything follows from the seed. What goes wrong is laid over it in ``models.faults``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from models.datasets import Recording
from models.evaluate import Event
from models.faults import CASES, Case, inject

Float64 = npt.NDArray[np.float64]

#: The unit of every signal of the plant.
UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "speed": "rpm",
        "flow": "m3/h",
        "suction_pressure": "bar",
        "discharge_pressure": "bar",
        "discharge_temperature": "degC",
        "power": "kW",
        "motor_current": "A",
        "motor_temperature": "degC",
        "bearing_temperature": "degC",
        "oil_pressure": "bar",
        "vibration": "mm/s",
        "hot_inlet_temperature": "degC",
        "hot_outlet_temperature": "degC",
        "cold_inlet_temperature": "degC",
        "cold_outlet_temperature": "degC",
        "hot_flow": "m3/h",
        "cold_flow": "m3/h",
        "pressure_drop": "kPa",
    }
)
#: 2026-11-23T06:00:00Z, where the live part begins.
START_MS: Final = 1_795_413_600_000
#: A shift and a day of this plant are short, so that a demo of some hours sees several.
SHIFT_S: Final = 3_600.0
DAY_S: Final = 10_800.0
#: About so long takes a change of load.
RAMP_S: Final = 300.0
_WARM_UP: Final = 400  # rows thrown away until the slow temperatures have settled


class Plant:
    """The plant: ``assets`` machines of three kinds, a reading of each every ``period_s``.

    Recordings of a kind have the same signals; ``kinds`` maps an asset's name to its kind.
    """

    def __init__(
        self, seed: int = 7, *, pumps: int = 10, compressors: int = 8, exchangers: int = 6, period_s: float = 10.0
    ) -> None:
        self.seed = seed
        self.period_s = period_s
        self.kinds: dict[str, str] = {}
        for kind, count in (("pump", pumps), ("compressor", compressors), ("exchanger", exchangers)):
            self.kinds |= {f"{kind}-{number:02d}": kind for number in range(1, count + 1)}

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the machines."""
        return tuple(self.kinds)

    def history(self, rows: int) -> tuple[Recording, ...]:
        """Give the clean ``rows`` readings of every asset before ``START_MS``."""
        return self._record(rows, START_MS - round(rows * self.period_s * 1000), part=0)

    def live(self, rows: int, *, faulty: bool = True) -> tuple[tuple[Recording, ...], tuple[Event, ...]]:
        """Give ``rows`` readings of every asset from ``START_MS`` on, with labels, and the faults in order of time.

        Without ``faulty`` the same readings as they would have been. Raises ``ValueError`` below 600 rows: a fault
        needs time to show itself, and to end.
        """
        if rows < 600:
            raise ValueError(f"live: {rows} rows are too few to place faults in, at least 600 are needed")
        recordings = self._record(rows, START_MS, part=1)
        if not faulty:
            return recordings, ()
        rng = np.random.default_rng([self.seed, 99])
        faults: list[Event] = []
        for case, asset, where in self._places(rng):
            index = self.assets.index(asset)
            taken = [fault for fault in faults if fault.asset == asset]
            changed, fault = inject(recordings[index], case, where, taken, rng)
            recordings = (*recordings[:index], changed, *recordings[index + 1 :])
            faults.append(fault)
        return recordings, tuple(sorted(faults, key=lambda fault: (fault.start_ms, fault.asset)))

    def _places(self, rng: np.random.Generator) -> list[tuple[Case, str, tuple[float, float]]]:
        """Which case strikes which asset, and in which part of the recording: some assets get two, most none."""
        places = []
        for kind in dict.fromkeys(self.kinds.values()):
            cases = [case for case in CASES if case.kind == kind]
            assets = [asset for asset in self.assets if self.kinds[asset] == kind]
            struck = rng.permutation(assets)[: max(1, round(len(assets) * 0.4))]
            for turn, number in enumerate(rng.permutation(len(cases))):
                half = (0.08, 0.42) if turn < len(struck) else (0.55, 0.85)
                places.append((cases[number], str(struck[turn % len(struck)]), half))
        return places

    def _record(self, rows: int, start_ms: int, part: int) -> tuple[Recording, ...]:
        recordings = []
        for kind in dict.fromkeys(self.kinds.values()):
            assets = [asset for asset in self.assets if self.kinds[asset] == kind]
            build = np.random.default_rng([self.seed, *kind.encode()])
            rng = np.random.default_rng([self.seed, part, *kind.encode()])
            offsets_ms = (np.arange(len(assets)) * self.period_s * 1000 / len(self.assets)).astype(np.int64)
            steps_ms = (np.arange(-_WARM_UP, rows) * self.period_s * 1000).astype(np.int64)
            at_s = (start_ms + steps_ms[None, :] + offsets_ms[:, None]) / 1000
            signals = _KINDS[kind](_Drive.of(at_s, build, rng, self.period_s))
            values = np.stack(list(signals.values()), axis=-1)[:, _WARM_UP:]
            for index, asset in enumerate(assets):
                recordings.append(
                    Recording(
                        asset=asset,
                        at_ms=start_ms + steps_ms[_WARM_UP:] + offsets_ms[index],
                        signals=tuple(signals),
                        values=values[index],
                        labels=np.zeros(rows, dtype=np.bool_),
                    )
                )
        return tuple(recordings)


@dataclass(frozen=True, slots=True)
class _Drive:
    """What drives the machines of a kind, each (asset, row).

    load      0 (idle) to about 1, already as sluggish as a machine follows it
    ambient   degC
    """

    load: Float64
    ambient: Float64
    period_s: float
    build: np.random.Generator
    rng: np.random.Generator

    @classmethod
    def of(cls, at_s: Float64, build: np.random.Generator, rng: np.random.Generator, period_s: float) -> _Drive:
        """Draw load and weather for the times ``at_s`` (asset, row) in seconds."""
        assets, rows = at_s.shape
        shift = 0.06 * np.sin(2 * np.pi * at_s / SHIFT_S)
        wanted = np.stack([_schedule(rows, rng, period_s) for _ in range(assets)])
        running = wanted > 0
        load = np.where(running, wanted + shift, 0.0)
        for _ in range(2):  # load is ramped, as a control room does: a step would be news to any model
            load = _lag(load, RAMP_S / 2 / period_s)
        wobble = 0.012 * _ar(rng, (assets, rows), 0.9)
        weather = 19 + 5 * np.sin(2 * np.pi * at_s / DAY_S - 1.2) + 0.6 * _ar(rng, (1, rows), 0.995)
        return cls(np.clip(load + wobble * running, 0, 1.2), weather, period_s, build, rng)

    def machine(self, value: float, differ: float = 0.03) -> Float64:
        """Give a constant of the kind as each machine has it: (asset, 1), with the relative deviation ``differ``."""
        return value * (1 + differ * self.build.standard_normal((len(self.load), 1)))

    def noise(self, size: float, memory: float = 0.3) -> Float64:
        """Give measurement noise (asset, row) of standard deviation ``size``, correlated from row to row."""
        return size * _ar(self.rng, self.load.shape, memory)

    def sluggish(self, values: Float64, time_constant_s: float) -> Float64:
        """Let ``values`` arrive with a first-order lag."""
        return _lag(values, time_constant_s / self.period_s)


def _pump(drive: _Drive) -> dict[str, Float64]:
    speed = 900 + drive.machine(2050, 0.01) * drive.load
    share = speed / 2950
    flow = drive.machine(118) * share * (1 + drive.noise(0.01, 0.97))
    suction = 1.8 - 0.5 * share**2 + drive.noise(0.03, 0.95)
    discharge = suction + drive.machine(9.5) * share**2 - 1.1e-4 * flow**2
    power = 2.2 + drive.machine(0.046) * flow * (discharge - suction) + drive.machine(4.0) * share**3
    motor = drive.sluggish(drive.ambient + 12 + drive.machine(0.85) * power, 900)
    bearing = drive.sluggish(drive.ambient + 8 + drive.machine(26) * share**1.5, 500)
    vibration = drive.machine(0.5, 0.06) + drive.machine(1.5, 0.05) * share**2
    return {
        "speed": speed + drive.noise(5),
        "flow": flow + drive.noise(0.8),
        "suction_pressure": suction + drive.noise(0.012),
        "discharge_pressure": discharge + drive.noise(0.05),
        "power": power + drive.noise(0.4),
        "motor_temperature": motor + drive.noise(0.15),
        "bearing_temperature": bearing + drive.noise(0.15),
        "vibration": vibration * (1 + drive.noise(0.045)),
    }


def _compressor(drive: _Drive) -> dict[str, Float64]:
    speed = 2400 + drive.machine(5600, 0.01) * drive.load
    share = speed / 8000
    inlet = 1.0 + drive.noise(0.006, 0.98)
    discharge = inlet * (1 + drive.machine(6.3) * share**1.8)
    current = 38 + drive.machine(165) * share * (discharge / 7.3) ** 0.6
    hot = (drive.ambient + 273.15) * (discharge / inlet) ** drive.machine(0.165, 0.01) - 273.15
    oil = drive.machine(1.4) + drive.machine(1.9) * share**0.7 - 0.006 * (drive.ambient - 19)
    vibration = drive.machine(0.8, 0.06) + drive.machine(2.1, 0.05) * share**2
    return {
        "speed": speed + drive.noise(14),
        "suction_pressure": inlet + drive.noise(0.003),
        "discharge_pressure": discharge + drive.noise(0.04),
        "discharge_temperature": drive.sluggish(hot, 240) + drive.noise(0.4),
        "motor_current": current + drive.noise(1.3),
        "oil_pressure": oil + drive.noise(0.02),
        "vibration": vibration * (1 + drive.noise(0.045)),
    }


def _exchanger(drive: _Drive) -> dict[str, Float64]:
    hot_flow = drive.machine(18) + drive.machine(62) * drive.load
    cold_flow = drive.machine(30) + drive.machine(66) * drive.sluggish(drive.load, 120)
    hot_in = 82 + 9 * drive.sluggish(drive.load, 300) + drive.noise(0.5, 0.98)
    cold_in = 0.7 * drive.ambient + 4 + drive.noise(0.2, 0.98)
    units = drive.machine(58) / np.minimum(hot_flow, cold_flow) ** 0.6 / 6.5  # transfer units: fewer, the more flows
    effect = 1 - np.exp(-units)
    heat = effect * np.minimum(hot_flow, cold_flow) * (hot_in - cold_in)
    return {
        "hot_inlet_temperature": hot_in + drive.noise(0.15),
        "hot_outlet_temperature": drive.sluggish(hot_in - heat / hot_flow, 90) + drive.noise(0.2),
        "cold_inlet_temperature": cold_in + drive.noise(0.1),
        "cold_outlet_temperature": drive.sluggish(cold_in + heat / cold_flow, 90) + drive.noise(0.2),
        "hot_flow": hot_flow + drive.noise(0.6),
        "cold_flow": cold_flow + drive.noise(0.7),
        "pressure_drop": drive.machine(4.0) + drive.machine(0.0052) * cold_flow**2 + drive.noise(0.5),
    }


_KINDS: Final = {"pump": _pump, "compressor": _compressor, "exchanger": _exchanger}


def _schedule(rows: int, rng: np.random.Generator, period_s: float) -> Float64:
    """Draw the load that the control room asks of one machine: (row,), 0 while it idles, else 0.45 to 1 in steps."""
    wanted = np.empty(rows)
    row = 0
    while row < rows:
        idle = row > 0 and rng.random() < 0.16
        minutes = rng.uniform(8, 18) if idle else rng.uniform(12, 40)
        end = row + max(1, round(minutes * 60 / period_s))
        wanted[row:end] = 0.0 if idle else rng.choice([0.45, 0.6, 0.7, 0.8, 0.9, 1.0])
        row = end
    return wanted


def _lag(values: Float64, time_constant: float) -> Float64:
    """First-order lag along the rows of (asset, row); the time constant is in rows."""
    out = np.empty_like(values)
    keep = float(np.exp(-1 / max(time_constant, 1e-6)))
    state = values[:, 0]
    for row in range(values.shape[1]):
        state = keep * state + (1 - keep) * values[:, row]
        out[:, row] = state
    return out


def _ar(rng: np.random.Generator, shape: tuple[int, ...], memory: float) -> Float64:
    """Autoregressive noise of order 1 and standard deviation 1: (asset, row)."""
    shocks = rng.standard_normal(shape) * np.sqrt(1 - memory**2)
    out = np.empty(shape)
    state = rng.standard_normal(shape[0])
    for row in range(shape[1]):
        state = memory * state + shocks[:, row]
        out[:, row] = state
    return out
