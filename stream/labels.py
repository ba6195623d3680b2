"""What operators say an alert was, and how that moves thresholds: records on ``plant.labels.v1``.

A label belongs to an alert (key = its id) or to a stretch of an asset (key = ``asset|since|until``); a later one with
the same key replaces it, a record without a value takes it back. Labels of stretches are for retraining; those of
alerts move the threshold of their detector for their asset as well, at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from stream.actions import Comment, Stamp, Who
from stream.sources.base import Asset

#: No label raises a threshold further than this, nor lowers it further: what stands out by more always alarms.
HIGHEST: Final = 4.0
LOWEST: Final = 0.5
#: How far beyond a false alarm's peak the threshold goes, and how far below a true one's it stays.
MARGIN: Final = 1.05


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an alert, or a stretch of an asset, was: version 1 of the record on ``plant.labels.v1``.

    verdict        ``true``: a fault; ``false_alarm``: it was not
    fault          which fault, in a word of the plant's; for ``true``
    alert          the alert's id; with it ``detector``, ``model_version`` and ``ratio``, its peak over the threshold
                   before labels and modes moved that
    since, until   the stretch, RFC 3339 in UTC: of the readings that this is about
    by, at, comment   who, when and why
    """

    verdict: Literal["true", "false_alarm"]
    asset: Asset
    since: Stamp
    until: Stamp
    by: Who
    at: Stamp
    alert: Annotated[str, Meta(max_length=64)] = ""
    detector: Annotated[str, Meta(max_length=64)] = ""
    model_version: Annotated[str, Meta(max_length=200)] = ""
    ratio: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    fault: Annotated[str, Meta(max_length=64)] = ""
    comment: Comment = ""

    def __post_init__(self) -> None:
        """Raises ``ValueError``, which msgspec makes an error of the record."""
        if self.fault and self.verdict != "true":
            raise ValueError("`fault` names a fault: a false alarm has none")
        if self.since > self.until:
            raise ValueError("`since` must not be after `until`")
        if self.alert and (not self.detector or self.ratio is None):
            raise ValueError("a label of an alert needs `detector` and `ratio`")

    @property
    def silences(self) -> bool:
        """Whether it moves its version's threshold so far that the same again raises nothing."""
        return self.verdict == "false_alarm" and self.ratio is not None and self.ratio * MARGIN <= HIGHEST

    @property
    def key(self) -> str:
        """The key of its record."""
        return self.alert or f"{self.asset}|{self.since}|{self.until}"


def factor(labels: Iterable[Label]) -> float:
    """What the labels of one detector's alerts for one asset multiply its threshold by. A pure function of the labels.

    They count in the order of ``at``, of equals by ``key``. A false alarm raises the factor so far that its peak would
    not have alarmed; a true one lowers it so far that its own peak still does:

    >>> def label(verdict, ratio, at):
    ...     when = f"2026-11-25T0{at}:00:00Z"
    ...     return Label(verdict=verdict, asset="p", since=when, until=when, by="a", at=when, alert=str(at),
    ...                  detector="d", ratio=ratio)
    >>> factor([label("false_alarm", 2.0, 1)])
    2.1
    >>> round(factor([label("false_alarm", 2.0, 1), label("true", 1.5, 2)]), 3)
    1.429
    >>> factor([label("false_alarm", 40.0, 1)])  # so high a peak still alarms, whatever was said of one
    4.0
    >>> factor([label("true", 3.0, 1)])
    1.0
    """
    moved = 1.0
    for label in sorted(labels, key=lambda held: (held.at, held.key)):
        if label.ratio is None:
            continue
        if label.verdict == "false_alarm":
            moved = min(max(moved, label.ratio * MARGIN), HIGHEST)
        else:
            moved = max(min(moved, label.ratio / MARGIN), LOWEST)
    return moved
