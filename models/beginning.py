"""What a detector that learns from the stream itself begins with: an artifact without history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models import registry
from models.artifact import Artifact, assemble
from models.calibrate import calibrate
from models.errors import TrainingError
from models.scaling import RobustScaler


def untrained(
    detector: str, *, signals: Sequence[str], period_s: float, config: Mapping[str, Any] | None = None
) -> Artifact:
    """An artifact of a detector that is of use without any history: it learns from the stream itself.

    Raises ``TrainingError`` for one that is not, or without signals.
    """
    if not registry.begins_cold(detector):
        raise TrainingError(f"{detector} is of no use without history: train it, or begin with `novelty`")
    if not signals:
        raise TrainingError("without history the plan has to name the detector's `signals`")
    serving: Any = registry.create(detector, signals=len(signals), config=config)
    serving.begin_empty()
    natural = getattr(serving, "natural_threshold", None)
    return assemble(
        serving,
        RobustScaler.none(len(signals)),
        calibrate([], period_s=period_s, natural=natural),
        signals=signals,
        period_s=period_s,
        assets=(),
        rows={},
        from_ms=0,
        to_ms=0,
        seed=0,
        figures={},
        curves={},
    )
