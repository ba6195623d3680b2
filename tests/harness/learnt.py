"""Draws how a false alarm was learnt: readings, scores by threshold and whose they are: for ``make pictures``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.datasets import Recording


def draw(path: Path, pump: Recording, rows: Sequence[dict[str, Any]], events: Mapping[str, slice]) -> None:
    """rows: of the scores topic. events: by what they are, rows of the recording."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = sorted(rows, key=lambda row: row["ts"])
    began = np.datetime64(int(pump.at_ms[0]), "ms")
    minutes = np.array([(np.datetime64(row["ts"].removesuffix("Z")) - began) / np.timedelta64(1, "m") for row in rows])
    ratio = np.array([row["score"] / row["threshold"] for row in rows])
    versions = [row["model_version"] for row in rows]
    changed = next(number for number, version in enumerate(versions) if version != versions[0])
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 4.2), sharex=True, layout="constrained")
    for column, signal in enumerate(pump.signals[:2]):
        above.plot(np.arange(len(pump.at_ms)) / 60, pump.values[:, column], linewidth=0.8, label=signal)
    for axes in (above, below):
        for at in events.values():
            axes.axvspan(at.start / 60, at.stop / 60, color="0.85", zorder=0)
    for name, at in events.items():
        above.annotate(name, (at.start / 60, 1.02), xycoords=("data", "axes fraction"), fontsize=9)
    above.legend(loc="upper left", fontsize=8)
    for part, colour, name in (
        (slice(0, changed), "tab:blue", "first version"),
        (slice(changed, None), "tab:green", "retrained"),
    ):
        below.plot(minutes[part], ratio[part], color=colour, linewidth=0.9, label=name)
    below.axhline(1.0, color="tab:red", linewidth=0.9, label="threshold")
    below.set_yscale("log")
    below.set_ylabel("score by threshold")
    below.set_xlabel("minutes")
    below.legend(loc="upper left", fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)
