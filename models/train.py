"""Recordings in, artifact out: split by time, scale, fit, calibrate on what neither the weights nor the stopping saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import registry
from models.artifact import Artifact, assemble
from models.base import Detector, Float32, Float64, Progress, Scored, no_progress
from models.calibrate import LEAST_SCORES, calibrate
from models.datasets import Recording
from models.errors import TrainingError
from models.scaling import RobustScaler

#: Shares of each recording, in the order of time: weights; early stopping and usual errors; calibration.
SPLITS: Final = (0.6, 0.15, 0.25)
#: Stretches of time to leave out, such as known incidents: (from, to) in epoch milliseconds, both included.
Intervals = Sequence[tuple[int, int]]

_GAP_PERIODS = 5.0
_CHUNK = 4096  # windows in memory at a time
_ASKED = (0.1, 1.0, 10.0)  # false alarms a day whose thresholds are put among the figures


@dataclass(frozen=True, slots=True)
class _Parts:
    fit: list[Float64]
    validation: list[Float64]
    calibration: list[Float64]


def train(
    recordings: Sequence[Recording],
    *,
    detector: str,
    signals: Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    period_s: float | None = None,
    max_gap_s: float | None = None,
    splits: tuple[float, float, float] = SPLITS,
    exclude: Intervals = (),
    progress: Progress = no_progress,
) -> Artifact:
    """Train one detector on clean history of one or several assets of the same kind.

    ``signals`` default to all of the first recording; ``period_s`` to the median step; a gap longer than ``max_gap_s``
    (by default 5 periods), or an interval in ``exclude``, ends a stretch, and no window crosses it. Rows that a recording
    labels as anomalous are left out too. Same recordings, config and seed: the same artifact version.

    Raises ``TrainingError`` naming the remedy if the data do not suffice, ``UnknownDetector``, ``ValueError`` for a
    config that cannot be.
    """
    if not recordings:
        raise TrainingError("there is no recording to train on")
    names = tuple(signals) if signals is not None else recordings[0].signals
    period = period_s if period_s is not None else infer_period_s(recordings)
    made = registry.create(detector, signals=len(names), config=config)
    gap_s = max_gap_s if max_gap_s is not None else _GAP_PERIODS * period
    parts = _split([_stretches(r, names, gap_s, exclude) for r in recordings], splits, made.window)

    scaler = RobustScaler.fit(parts.fit)
    fit, validation, held_back = (
        [scaler.transform(rows) for rows in part] for part in (parts.fit, parts.validation, parts.calibration)
    )
    report = made.fit(fit, validation, seed=seed, progress=progress)
    scores = [score_rows(made, rows).score for rows in held_back if len(rows) >= made.window]
    natural = getattr(type(made), "natural_threshold", None)  # a detector may know its own threshold
    calibration = calibrate(scores, period_s=period, cluster_rows=made.window // 2, natural=natural)
    rows = {key: sum(map(len, getattr(parts, key))) for key in ("fit", "validation", "calibration")}
    figures = {f"threshold_at_{asked:g}_a_day": calibration.threshold(asked) for asked in _ASKED}
    return assemble(
        made,
        scaler,
        calibration,
        signals=names,
        period_s=period,
        assets=tuple(sorted({recording.asset for recording in recordings})),
        rows=rows,
        from_ms=min(int(recording.at_ms[0]) for recording in recordings if len(recording.at_ms)),
        to_ms=max(int(recording.at_ms[-1]) for recording in recordings if len(recording.at_ms)),
        seed=seed,
        figures={key: float(value) for key, value in report.figures.items()} | figures,
        curves={key: [float(value) for value in curve] for key, curve in report.curves.items()},
    )


def infer_period_s(recordings: Sequence[Recording]) -> float:
    """The median step between rows, in seconds. Raises ``TrainingError`` if no recording has two rows."""
    steps = np.concatenate([np.diff(recording.at_ms) for recording in recordings])
    steps = steps[steps > 0]
    if not len(steps):
        raise TrainingError("a period cannot be told from fewer than two rows: give period_s")
    return float(np.median(steps)) / 1000.0


def score_rows(detector: Detector, rows: Float32) -> Scored:
    """Score every row of a stretch (row, signal), scaled and without gaps, that has a full window before it.

    The result's first axis is ``len(rows) - window + 1`` long; its first entry judges row ``window - 1``.
    """
    return _joined([detector.score(windows) for windows in _windows(rows, detector.window)])


def score_series(artifact: Artifact, values: npt.NDArray[np.floating[Any]]) -> Scored:
    """Score a stretch (row, signal) in the signals' own units; rows before the first full window score NaN."""
    scored = score_rows(artifact.detector, artifact.scaler.transform(values))
    lead = min(len(values), artifact.window - 1)
    return _joined([_nothing(scored, lead), scored])


def _stretches(recording: Recording, names: Sequence[str], max_gap_s: float, exclude: Intervals) -> list[Float64]:
    """The recording cut at gaps, excluded intervals and labelled rows: (row, signal) each."""
    missing = [name for name in names if name not in recording.signals]
    if missing:
        raise TrainingError(f"{recording.asset}: no signal {', '.join(missing)}; it has {', '.join(recording.signals)}")
    values = recording.values[:, [recording.signals.index(name) for name in names]]
    wanted = np.ones(len(values), bool) if recording.labels is None else ~recording.labels
    for start_ms, end_ms in exclude:
        wanted &= (recording.at_ms < start_ms) | (recording.at_ms > end_ms)
    kept = np.flatnonzero(wanted)
    if not len(kept):
        return []
    breaks = (np.diff(recording.at_ms[kept]) > max_gap_s * 1000.0) | (np.diff(kept) > 1)
    return [values[rows] for rows in np.split(kept, np.flatnonzero(breaks) + 1)]


def _split(recordings: Sequence[list[Float64]], splits: tuple[float, float, float], window: int) -> _Parts:
    """Each recording's rows by time into fit, validation and calibration.

    Validation is at least a window and a half long, or nothing could be measured on a short recording. Calibration then
    borrows its first window's past from validation, never from fit: a whole validation part lies between the two.
    """
    if len(splits) != 3 or min(splits) <= 0 or abs(sum(splits) - 1.0) > 1e-6:
        raise ValueError(f"splits: expected three shares above 0 that sum to 1, got {splits}")
    parts = _Parts([], [], [])
    for stretches in recordings:
        total = sum(map(len, stretches))
        short = int(min(window + max(window // 2, 8), 0.25 * total))
        validation = max(int(splits[1] * total), short)
        fit = int(splits[0] / (splits[0] + splits[2]) * (total - validation))
        for rows, first in zip(stretches, np.cumsum([0, *map(len, stretches)]), strict=False):
            cuts = np.clip(np.array([fit, fit + validation]) - first, 0, len(rows))
            borrowed = min(window - 1, int(cuts[1] - cuts[0])) if cuts[1] < len(rows) else 0
            parts.fit.append(rows[: cuts[0]])
            parts.validation.append(rows[cuts[0] : cuts[1]])
            parts.calibration.append(rows[cuts[1] - borrowed :])
    windows = {key: sum(max(len(r) - window + 1, 0) for r in getattr(parts, key)) for key in _Parts.__slots__}
    least = {"fit": 8, "validation": 4, "calibration": LEAST_SCORES}
    for key, count in windows.items():
        if count < least[key]:
            rows_in_all = sum(len(rows) for stretches in recordings for rows in stretches)
            raise TrainingError(
                f"{rows_in_all} clean rows leave {count} windows of {window} rows for {key}, {least[key]} are needed: "
                f"give more history without gaps, or a smaller `window` in the config"
            )
    return parts


def _windows(rows: Float32, length: int) -> Iterator[Float32]:
    count = len(rows) - length + 1
    for start in range(0, max(count, 1), _CHUNK):  # at least one, maybe empty, so that shapes are known
        chosen = np.arange(start, max(min(start + _CHUNK, count), start))
        yield rows[chosen[:, None] + np.arange(length)]


def _joined(parts: Sequence[Scored]) -> Scored:
    def join(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    return Scored(*(join(name) for name in ("score", "contributions", "expected", "spread", "kind")))


def _nothing(like: Scored, rows: int) -> Scored:
    """``rows`` rows that say nothing, with the arrays that ``like`` has."""

    def blank(array: Any, value: float) -> Any:
        return None if array is None else np.full((rows, *array.shape[1:]), value, array.dtype)

    return Scored(
        blank(like.score, np.nan),
        blank(like.contributions, 0),
        blank(like.expected, np.nan),
        blank(like.spread, np.nan),
        blank(like.kind, 0),
    )
