"""Draws what came of the same plant data by several roads: for ``make pictures``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from models.datasets import Recording


def draw(path: Path, recording: Recording, signal: str, by_road: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """A signal of one asset, and below it each alert of that asset from its onset to its end, a line for each road."""
    from matplotlib.figure import Figure

    start_ms = int(recording.at_ms[0])
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1.3))
    above.plot((recording.at_ms - start_ms) / 1000, recording.values[:, recording.signals.index(signal)], lw=0.9)
    above.set_ylabel(f"{signal} of {recording.asset}")
    colours: dict[str, str] = {}
    for row, alerts in enumerate(by_road.values()):
        ended = [alert for alert in alerts if alert["asset"] == recording.asset and alert["state"] == "resolved"]
        for alert in sorted(ended, key=lambda alert: str(alert["onset"])):
            first = not any(
                other["onset"] < alert["onset"] for other in ended if other["detector"] == alert["detector"]
            )
            begin, end = (_seconds(alert[key], start_ms) for key in ("onset", "resolved"))
            colour = colours.setdefault(alert["detector"], f"C{len(colours) + 1}")
            offset = 0.16 if list(colours).index(alert["detector"]) else -0.16
            below.barh(row + offset, end - begin, left=begin, height=0.3, color=colour)
            at, side = (begin - 2, "right") if first else (end + 2, "left")
            below.text(at, row + offset, f"{alert['detector']} {alert['id'][:8]}", va="center", ha=side, fontsize=7)
    below.set_yticks(range(len(by_road)), list(by_road))
    below.invert_yaxis()
    below.set_xlabel("seconds")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _seconds(text: str, start_ms: int) -> float:
    return datetime.fromisoformat(text).timestamp() - start_ms / 1000
