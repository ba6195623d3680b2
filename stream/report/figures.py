"""Drawings of a run by matplotlib: a fault with its signals and scores, and the overview of assets over time.

As SVG for the report, where every colour is a CSS variable, so that one drawing serves light, dark and print; or as
PNG. Text is never parsed as mathematics: names of assets and signals come from outside.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import numpy as np

from models.evaluate import DAY_MS, Event, Matching
from stream.errors import StreamError
from stream.records import Int64
from stream.report.outcome import SEVERITIES, Course, Incident, Outcome, Recorded, Trial, around, step_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The palette: name of the CSS variable, colour on light paper, colour on dark.
PALETTE: Final = {
    "ink": ("#1b1f25", "#e6e9ee"),
    "muted": ("#68707d", "#98a1ae"),
    "grid": ("#e3e7ec", "#333a45"),
    "context": ("#9aa3b0", "#727c8a"),
    "band": ("#bcd3f2", "#2b4a75"),
    "series1": ("#1d5fd0", "#6ea8ff"),
    "series2": ("#0d7d74", "#3fc9bb"),
    "series3": ("#8437c2", "#c490f5"),
    "series4": ("#6a6f12", "#c7cd52"),
    "fault": ("#f6d58a", "#6d531a"),
    "warning": ("#b97d0a", "#e5b143"),
    "major": ("#d4500f", "#ff8a50"),
    "critical": ("#b8123a", "#ff6384"),
}
_LIGHT: Final = {name: light for name, (light, _) in PALETTE.items()}
_SERIES: Final = ("series1", "series2", "series3", "series4")
_RC: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": _LIGHT["grid"],
    "axes.labelcolor": _LIGHT["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.0,
    "grid.color": _LIGHT["grid"],
    "grid.linewidth": 0.6,
    "text.color": _LIGHT["ink"],
    "xtick.color": _LIGHT["muted"],
    "ytick.color": _LIGHT["muted"],
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "path.simplify_threshold": 0.5,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished figure: ``svg`` for a page that defines the palette's variables."""

    figure: Figure

    def svg(self, label: str) -> str:
        """Give the figure as an inline SVG element with ``label`` for those who can't see it."""
        out = io.StringIO()
        with _style({"svg.hashsalt": label}):
            self.figure.savefig(
                out, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
            )
        text = out.getvalue()
        text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        for name, colour in _LIGHT.items():
            text = text.replace(colour, f"var(--{name})")
        text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
        # The clips' ids hold addresses in memory: name them by their order, so that a run always gives the same page.
        for order, clip in enumerate(dict.fromkeys(re.findall(r'<clipPath id="([^"]+)"', text))):
            text = text.replace(clip, f"clip-{crc32(label.encode()):08x}-{order}")
        text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
        return text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(label)}" ', 1)

    def png(self, path: Path, dpi: int = 160) -> None:
        """Write the figure as a picture on white."""
        with _style({}):
            self.figure.savefig(path, format="png", dpi=dpi, facecolor="#ffffff", metadata={"Software": None})


def draw_event(outcome: Outcome, event: Event, *, width: float = 6.6, title: str = "") -> Drawing:
    """Draw what an asset's signals and scores did around ``event``, a fault or an incident."""
    recording = next(held for held in outcome.recordings if held.asset == event.asset)
    ((first_ms, last_ms),) = around([event], step_of(recording))
    courses = {
        detector: course for (asset, detector), course in sorted(outcome.courses.items()) if asset == event.asset
    }
    told = [i for i in outcome.incidents if i.asset == event.asset and i.end_ms >= first_ms and i.start_ms <= last_ms]
    shown = [name for name in event.signals if name in recording.signals][:2] or list(recording.signals[:1])
    context = _company(recording, shown)
    detectors = sorted({*courses, *(incident.detector for incident in told)})
    heights = [1.25] * len(shown) + [0.7] * len(context) + [1.3, 0.16 * max(1, len(detectors)) + 0.1]
    with _style({}):
        figure, axes = _panels(heights, width)
        for axis, name in zip(axes, (*shown, *context), strict=False):
            _signal(
                axis,
                recording,
                name,
                unit=outcome.units.get(name, ""),
                courses=courses,
                span_ms=(first_ms, last_ms),
                emphasised=name in shown,
            )
        _scores(axes[-2], courses, detectors, first_ms, last_ms)
        _bars(axes[-1], told, detectors)
        for axis in axes:
            for fault in outcome.faults:
                if fault.asset == event.asset:
                    axis.axvspan(
                        _time(fault.start_ms), _time(fault.end_ms), color=_LIGHT["fault"], alpha=0.45, lw=0, zorder=0
                    )
            axis.set_xlim(_time(first_ms), _time(last_ms))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return Drawing(figure)


def draw_overview(outcome: Outcome, matching: Matching, *, width: float = 9.6) -> Drawing:
    """Draw all assets over time: faults as broad pale bars, alerts as narrow ones, false alarms marked by a ring."""
    assets = sorted(held.asset for held in outcome.recordings)
    row = {asset: index for index, asset in enumerate(assets)}
    false = set(matching.false_alarms)
    with _style({}):
        figure, (axis,) = _panels([max(1.2, 0.2 * len(assets))], width)
        for fault in outcome.faults:
            axis.barh(
                row[fault.asset], _span(fault), left=_time(fault.start_ms), height=0.86, color=_LIGHT["fault"], lw=0
            )
        mild_first = sorted(enumerate(outcome.incidents), key=lambda held: SEVERITIES.index(held[1].severity))
        for index, incident in mild_first:
            if incident.asset not in row:
                continue
            place = row[incident.asset]
            colour = _LIGHT[incident.severity]
            axis.barh(place, _span(incident), left=_time(incident.start_ms), height=0.34, color=colour, lw=0, zorder=3)
            if index in false:
                axis.plot(_time(incident.start_ms), place, "o", ms=6, mfc="none", mec=_LIGHT["ink"], mew=1.1, zorder=4)
        axis.set_yticks(range(len(assets)), assets)
        axis.set_ylim(len(assets) - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
        axis.tick_params(axis="y", length=0)
        if outcome.recordings:
            first = min(int(held.at_ms[0]) for held in outcome.recordings)
            last = max(int(held.at_ms[-1]) for held in outcome.recordings)
            axis.set_xlim(_time(first), _time(last))
    return Drawing(figure)


def draw_trials(trials: Sequence[Trial], outcome: Outcome, *, width: float = 6.6) -> Drawing:
    """Draw what a rule raises, and finds, by the budget of false alarms it is given."""
    budgets = [trial.budget for trial in trials]
    planned = next(trial.budget for trial in trials if trial.factor == 1.0)
    assets, watched_ms = outcome.watched_by(trials[0].detector)
    days = watched_ms / DAY_MS or float("nan")
    faults = [fault for fault in outcome.faults if fault.asset in assets]
    matchings = [outcome.matching(trial.incidents) for trial in trials]
    with _style({}):
        figure, axes = _panels([1.2] * (2 if faults else 1), width, times=False)
        raised = [max(len(trial.incidents) / days, 1e-9) for trial in trials]
        axes[0].plot(budgets, raised, "o-", color=_LIGHT["ink"], ms=3.5, lw=1.2, label="all alerts", zorder=3)
        if faults:
            false = [len(matching.false_alarms) / days for matching in matchings]
            axes[0].plot(budgets, false, "s--", color=_LIGHT["major"], ms=3.5, lw=1.2, label="false alarms", zorder=3)
            found = [len(matching.found) for matching in matchings]
            axes[1].plot(budgets, found, "o-", color=_LIGHT["series2"], ms=3.5, lw=1.2, zorder=3)
            axes[1].set_ylim(-0.3, len(faults) + 0.3)
            axes[1].locator_params(axis="y", integer=True)
            axes[1].set_title(f"faults found, of the {len(faults)} on its assets", color=_LIGHT["ink"], pad=3)
        axes[0].plot(budgets, budgets, color=_LIGHT["context"], lw=1.0, ls=(0, (1, 2)), label="as accepted", zorder=2)
        axes[0].set_ylim(bottom=0, top=1.15 * max(*raised, planned))
        axes[0].set_title("raised a day and asset", color=_LIGHT["ink"], pad=3)
        axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, borderpad=0, handlelength=1.6)
        for axis in axes:
            axis.set_xscale("log")
            axis.axvline(planned, color=_LIGHT["series1"], lw=1.0, zorder=1)
        axes[-1].xaxis.set_major_formatter("{x:g}")
        axes[-1].set_xlabel("false alarms accepted a day and asset (the line: the plan)")
    return Drawing(figure)


def draw_days(outcome: Outcome, *, width: float = 9.6) -> Drawing:
    """Draw how many alerts opened on each day, by severity."""
    first = min(int(held.at_ms[0]) for held in outcome.recordings if len(held.at_ms)) // DAY_MS
    days = first + np.arange(-(-outcome.lasted_ms // DAY_MS) + 1)
    with _style({}):
        figure, (axis,) = _panels([1.2], width)
        below = np.zeros(len(days))
        for severity in reversed(SEVERITIES):
            opened = [held.start_ms // DAY_MS - first for held in outcome.incidents if held.severity == severity]
            count = np.bincount(np.clip(opened, 0, len(days) - 1).astype(np.int64), minlength=len(days))
            axis.bar(
                _times(days * DAY_MS + DAY_MS // 2),
                count,
                bottom=below,
                width=np.timedelta64(20 * 3600, "s"),
                color=_LIGHT[severity],
                label=severity,
                lw=0,
                zorder=3,
            )
            below += count
        axis.locator_params(axis="y", integer=True)
        axis.legend(loc="upper right", bbox_to_anchor=(1.0, 1.25), ncols=3, borderpad=0)
    return Drawing(figure)


def _signal(
    axis: Axes,
    recording: Recorded,
    name: str,
    *,
    unit: str,
    courses: dict[str, Course],
    span_ms: tuple[int, int],
    emphasised: bool,
) -> None:
    """Draw one signal's readings, and what the first detector that has an opinion expected of it."""
    words = name.replace("_", " ")
    axis.set_title(f"{words} [{unit}]" if unit else words, color=_LIGHT["ink" if emphasised else "muted"], pad=3)
    chosen = _within(recording.at_ms, *span_ms)
    values = recording.values[chosen, recording.signals.index(name)]
    axis.plot(
        _times(recording.at_ms[chosen]), values, color=_LIGHT["ink" if emphasised else "context"], lw=1.0, zorder=3
    )
    finite = values[np.isfinite(values)]
    for course in courses.values() if emphasised else ():
        if course.low is None or course.high is None or name not in course.signals:
            continue
        rows, column = _within(course.at_ms, *span_ms), course.signals.index(name)
        low, high = course.low[rows, column], course.high[rows, column]
        axis.fill_between(
            _times(course.at_ms[rows]), low, high, color=_LIGHT["band"], lw=0, alpha=0.8, zorder=1, label="expected"
        )
        axis.legend(loc="upper right", bbox_to_anchor=(1.0, 1.22), borderpad=0)
        break
    if len(finite):  # what was measured decides the scale, not a band that is wide after a gap
        room = 0.25 * (finite.max() - finite.min()) or 1.0
        axis.set_ylim(finite.min() - room, finite.max() + room)


def _scores(axis: Axes, courses: dict[str, Course], detectors: Sequence[str], first_ms: int, last_ms: int) -> None:
    """Draw score over threshold of every detector on a logarithmic scale: the alarm is at 1 for all of them."""
    for number, detector in enumerate(detectors):
        course = courses.get(detector)
        if course is None:
            continue
        rows = _within(course.at_ms, first_ms, last_ms)
        ratio = np.clip(course.score[rows] / course.threshold[rows], 0.05, 1000.0)
        axis.plot(_times(course.at_ms[rows]), ratio, color=_series(number), lw=1.0, label=detector, zorder=3)
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.set_ylim(max(0.05, min(low, 0.2)), max(high, 3.0))
    axis.axhline(1.0, color=_LIGHT["critical"], lw=1.0, ls=(0, (4, 2)), zorder=4)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_title("score / threshold", color=_LIGHT["ink"], pad=3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(
            loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=3, borderpad=0, handlelength=1.2, columnspacing=1
        )


def _bars(axis: Axes, told: Sequence[Incident], detectors: Sequence[str]) -> None:
    """Draw when alerts were open, a row for each detector, in the colour of their severity."""
    for incident in told:
        place = detectors.index(incident.detector)
        colour = _LIGHT[incident.severity]
        axis.barh(place, _span(incident), left=_time(incident.start_ms), height=0.6, color=colour, lw=0, zorder=3)
        axis.plot(_time(incident.start_ms), place, "|", color=colour, ms=7, mew=2, zorder=4)
    axis.set_yticks(range(len(detectors)), detectors)
    axis.set_ylim(len(detectors) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0, labelsize=7)
    axis.grid(visible=False, axis="y")


def _company(recording: Recorded, shown: Sequence[str]) -> list[str]:
    """Name the signal that goes along most with the first one shown: what it should be judged by."""
    table = recording.values[np.isfinite(recording.values).all(axis=1)]
    if len(table) < 3 or len(recording.signals) <= len(shown):
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        together = np.atleast_2d(np.corrcoef(table.T))
        alike = np.abs(np.nan_to_num(together[recording.signals.index(shown[0])]))
    others = [
        name for name in np.array(recording.signals)[np.argsort(-alike, kind="stable")].tolist() if name not in shown
    ]
    return others[:1]


def _panels(heights: Sequence[float], width: float, *, times: bool = True) -> tuple[Figure, list[Axes]]:
    """Make panels one below the other with one axis, of time; raises ``StreamError`` naming the extra."""
    try:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415  # of an extra
        from matplotlib.figure import Figure  # noqa: PLC0415  # of an extra
    except ImportError:
        raise StreamError("drawing needs matplotlib: pip install 'headrace[demo]'") from None
    figure = Figure(figsize=(width, sum(heights) + 0.33 * len(heights) + 0.25), layout="constrained")
    grid: Any = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=list(heights))
    axes: list[Axes] = list(grid[:, 0])
    if not times:
        return figure, axes
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_formatter(formatter)
    return figure, axes


def _style(more: dict[str, Any]) -> Any:
    from matplotlib import rc_context  # noqa: PLC0415  # of an extra

    settings: Any = {**_RC, **more}
    return rc_context(settings)


def _series(number: int) -> str:
    return _LIGHT[_SERIES[number % len(_SERIES)]]


def _within(at_ms: Int64, first_ms: int, last_ms: int) -> slice:
    return slice(int(np.searchsorted(at_ms, first_ms)), int(np.searchsorted(at_ms, last_ms, side="right")))


def _times(at_ms: Int64) -> Any:
    return at_ms.astype("datetime64[ms]")


def _time(at_ms: int) -> Any:
    return np.datetime64(at_ms, "ms")


def _span(event: Event) -> Any:
    return np.timedelta64(max(event.end_ms - event.start_ms, 1), "ms")


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
