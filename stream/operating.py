"""What a plan says of how the plant is run: maintenance windows, what is known and is not told, operating modes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Self

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from stream.records import Alert, Bool, Float64

Patterns = Annotated[tuple[str, ...], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MaintenanceSettings(_Strict):
    """A maintenance window: alerts open in it all the same, are marked, and nobody is told of them.

    Nothing is learnt from it: thresholds that follow drift stand still, and ``headrace retrain`` leaves it out.

    assets         patterns
    since, until   RFC 3339, of the readings' time
    reason         what the mark says; default: the window's name
    """

    assets: Patterns
    since: AwareDatetime
    until: AwareDatetime
    reason: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.since >= self.until:
            raise ValueError("since must be before until")
        return self


class SuppressSettings(_Strict):
    """A rule for what is known: alerts that fit all it names are marked, and nobody is told of them.

    assets, detectors   patterns
    signals        patterns: the alert's first cause must fit one; empty: any cause
    until          the rule is over for readings of this time and later, so that it is thought of again; RFC 3339
    reason         what the mark says; default: the rule's name
    """

    assets: Patterns = ("*",)
    detectors: Patterns = ("*",)
    signals: tuple[str, ...] = ()
    until: AwareDatetime
    reason: Annotated[str, Field(max_length=200)] = ""

    def fits(self, alert: Alert, at_ms: int) -> bool:
        """Whether the rule is about this alert, whose newest reading is of ``at_ms``."""
        return (
            at_ms < epoch_ms(self.until)
            and _any(alert.asset, self.assets)
            and _any(alert.detector, self.detectors)
            and (not self.signals or (bool(alert.causes) and _any(alert.causes[0].signal, self.signals)))
        )


class ModeSettings(_Strict):
    """An operating mode, such as a start-up: what it does to the thresholds while an asset is in it.

    An asset is in it while its ``signal`` is from ``low`` to ``high``, for detectors that see this signal, or by an
    operator's word (``headrace mode``, or a record on the actions topic). A detector may judge in some modes alone
    (``detectors.NAME.only_in``): with ``judge = false`` for the one that judges otherwise, a mode has another detector.

    assets, detectors   patterns: where it makes a difference
    factor         what the threshold is multiplied by
    judge          false: readings are no evidence of anything; what is open stays open, nothing new begins
    signal, low, high   the signal that shows the mode, and its values in it, in the signal's own units
    """

    assets: Patterns = ("*",)
    detectors: Patterns = ("*",)
    factor: Annotated[float, Field(ge=0.1, le=100)] = 1.0
    judge: bool = True
    signal: str = ""
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.signal) != (self.low is not None or self.high is not None):
            raise ValueError("signal goes with low, high or both")
        return self

    def concerns(self, detector: str, asset: str) -> bool:
        """Whether the mode makes a difference for an asset and a detector."""
        return _any(asset, self.assets) and _any(detector, self.detectors)

    def may_be_of(self, asset: str) -> bool:
        """Whether an asset can be in it."""
        return _any(asset, self.assets)

    def shown_by(self, values: Float64) -> Bool:
        """Where the signal shows the mode, (row,) as ``values``; not where it has no value."""
        low, high = (-np.inf if self.low is None else self.low), (np.inf if self.high is None else self.high)
        shown: Bool = (values >= low) & (values <= high)
        return shown

    @property
    def weight(self) -> float:
        """What the threshold is multiplied by; NaN where nothing is judged."""
        return self.factor if self.judge else float("nan")


class LineSettings(_Strict):
    """A line of the plant: alerts of its assets that come together are one incident.

    assets     names or patterns, in the order of the process
    within_s   an alert that begins so soon after all others have ended still belongs to their incident
    tie_s      of alerts that began within so short a time, the first in the process counts as the first cause
    """

    assets: Patterns
    within_s: Annotated[float, Field(ge=0, le=86400)] = 300.0
    tie_s: Annotated[float, Field(ge=0, le=3600)] = 10.0


def epoch_ms(at: datetime) -> int:
    """Milliseconds since 1970."""
    return round(at.timestamp() * 1000)


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
