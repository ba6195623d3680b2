"""What goes wrong in the simulated plant: labelled faults, laid over clean signals.

Sizes are in spans, the standard deviation of the signal over its clean recording, so that a fault of one span lies
within what the signal does anyway and only its course, or the company it keeps, gives it away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from models.datasets import Recording
from models.evaluate import Event

Float64 = npt.NDArray[np.float64]
Sort = Literal["spike", "level shift", "drift", "stuck", "correlation", "dynamics", "dropout"]


@dataclass(frozen=True, slots=True)
class Case:
    """A fault before it has a place: ``size`` in spans (of oscillations: the amplitude), ``minutes`` how long."""

    kind: str
    sort: Sort
    signals: tuple[str, ...]
    size: float
    minutes: float
    sentence: str


CASES: Final = (
    Case("pump", "drift", ("bearing_temperature", "vibration"), 2.2, 75, "a bearing wears: it heats and shakes more"),
    Case("pump", "stuck", ("flow",), 0, 45, "the flow meter repeats its last value"),
    Case(
        "pump", "dynamics", ("discharge_pressure", "flow"), 0.7, 40, "the control valve hunts: pressure and flow swing"
    ),
    Case("pump", "correlation", ("power",), 0, 60, "power no longer follows speed: the coupling slips"),
    Case("pump", "dropout", ("motor_temperature",), 0, 25, "the motor's temperature sensor is not heard any more"),
    Case("pump", "spike", ("suction_pressure",), 4.5, 3, "pressure shocks on the suction side"),
    Case("compressor", "level shift", ("oil_pressure",), -1.8, 50, "oil pressure falls at once: a relief valve leaks"),
    Case("compressor", "drift", ("discharge_temperature",), 2.0, 80, "the cooler clogs: outlet air gets hotter"),
    Case(
        "compressor", "dynamics", ("vibration", "motor_current"), 0.8, 35, "the compressor surges: it shakes in cycles"
    ),
    Case("compressor", "spike", ("motor_current",), 3.0, 3, "current peaks: the motor is blocked for moments"),
    Case("compressor", "dropout", ("vibration",), 0, 20, "the vibration sensor's cable is broken"),
    Case("exchanger", "correlation", ("cold_flow",), 0, 70, "cold flow no longer follows the load: the bypass is open"),
    Case("exchanger", "level shift", ("hot_outlet_temperature",), 1.5, 60, "hot outlet too warm: a valve stays open"),
    Case("exchanger", "stuck", ("pressure_drop",), 0, 45, "the pressure drop is frozen: its pipe is blocked"),
)


def inject(
    recording: Recording, case: Case, where: tuple[float, float], taken: list[Event], rng: np.random.Generator
) -> tuple[Recording, Event]:
    """Lay a fault over a recording, somewhere in the part ``where`` and clear of the faults that it already has."""
    rows = len(recording.at_ms)
    period_ms = int(recording.at_ms[1] - recording.at_ms[0])
    length = int(np.clip(case.minutes * 60_000 / period_ms, 8, rows * 0.14))
    columns = [recording.signals.index(name) for name in case.signals]
    gap = max(60, rows // 40)
    busy = [
        (int(f.start_ms - recording.at_ms[0]) // period_ms, int(f.end_ms - recording.at_ms[0]) // period_ms)
        for f in taken
    ]
    # Of many places the one where the machine is at work throughout: a fault of a machine that rests shows nothing.
    driver = recording.values[:, recording.signals.index("hot_flow" if case.kind == "exchanger" else "speed")]
    at_work = driver > np.quantile(driver, 0.02) + 0.3 * (np.quantile(driver, 0.98) - np.quantile(driver, 0.02))
    best, start = -1.0, 0
    for candidate in rng.integers(int(where[0] * rows), int(where[1] * rows), size=48):
        end = int(candidate) + length
        if any(end + gap > first and candidate < last + gap for first, last in busy):
            continue
        merit = float(at_work[candidate:end].mean())
        if case.sort == "correlation":  # what does not follow is seen only where there is something to follow
            merit += float(driver[candidate:end].std() / driver.std())
        if merit > best + 1e-9:
            best, start = merit, int(candidate)
    stop = start + length
    values = recording.values.copy()
    for column in columns:
        values[start:stop, column] = _changed(case, values[:, column], start, stop, rng)
    labels = np.zeros(rows, dtype=np.bool_) if recording.labels is None else recording.labels.copy()
    labels[start:stop] = True
    fault = Event(
        asset=recording.asset,
        start_ms=int(recording.at_ms[start]),
        end_ms=int(recording.at_ms[start]) + length * period_ms,
        sort=case.sort,
        signals=case.signals,
        sentence=case.sentence,
    )
    return replace(recording, values=values, labels=labels), fault


def _changed(case: Case, clean: Float64, start: int, stop: int, rng: np.random.Generator) -> Float64:
    """Give what a signal (row,) shows in its rows [start, stop) under a fault."""
    part, rows = clean[start:stop], stop - start
    span = float(np.nanstd(clean))
    time = np.arange(rows)
    ramp = np.minimum(1.0, (time + 1) / 6)
    # correlation: its own course, but of another time, so that only the company it keeps is unusual
    away = len(clean) // 3 if start < len(clean) // 3 else -(len(clean) // 3)
    elsewhere = clean[start + away : stop + away]
    shown: dict[Sort, Float64] = {
        "spike": part + span * case.size * rng.uniform(0.7, 1.0, rows) * (time % 4 == 0),
        "level shift": part + span * case.size * ramp,
        "drift": part + span * case.size * (time + 1) / rows,
        "stuck": np.full(rows, clean[start - 1]),
        "correlation": (1 - ramp) * part + ramp * elsewhere,
        "dynamics": part + span * case.size * ramp * np.sin(2 * np.pi * time / 7.3),
        "dropout": np.full(rows, np.nan),
    }
    return shown[case.sort]
