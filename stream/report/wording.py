"""Figures, times and causes in words: the same in the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from stream.records import Cause


def causes(parts: Sequence[Cause], at_most: int = 3) -> str:
    """Say the causes of an alert, the largest first: ``vibration 71 %, flow 12 %``."""
    return ", ".join(f"{cause.signal} {cause.share:.0%}".replace("%", " %") for cause in parts[:at_most])


def clock(at_ms: int) -> str:
    """Write epoch milliseconds as date and time in UTC, to the second."""
    return datetime.fromtimestamp(at_ms // 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """Write seconds for a person: ``40 s``, ``12 min``, ``3.5 h``; a dash if unknown."""
    if math.isnan(seconds):
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def number(value: float, *, percent: bool = False) -> str:
    """Write a figure for a person; a dash if unknown."""
    if math.isnan(value):
        return "-"
    return f"{value:.0%}".replace("%", " %") if percent else f"{value:.2f}"
