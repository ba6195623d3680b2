"""The report's sections on the rules: what each has raised, and what it would have with another budget."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Final

from models.evaluate import DAY_MS, Matching
from stream.report.figures import draw_days, draw_trials
from stream.report.html import cards, table
from stream.report.outcome import Incident, Outcome, Trial
from stream.report.wording import duration, number

#: Alerts a day are drawn for runs of at least so many days.
_DAYS: Final = 3


def rules_section(outcome: Outcome, matching: Matching) -> str:
    """A row a rule: how much it raised, and which faults it alone has found."""
    detectors = sorted({detector for _, detector in outcome.courses} | {held.detector for held in outcome.incidents})
    if not detectors:
        return ""
    found_by = [{outcome.incidents[alarm].detector for alarm in found.alarms} for found in matching.found]
    false = set(matching.false_alarms)
    rows = []
    for detector in detectors:
        mine = [index for index, held in enumerate(outcome.incidents) if held.detector == detector]
        lasted = [(outcome.incidents[index].end_ms - outcome.incidents[index].start_ms) / 1000 for index in mine]
        cells = [
            number(_rate(len(mine), outcome.watched_by(detector)[1])),
            str(len(mine)),
            duration(median(lasted)) if lasted else "-",
        ]
        if outcome.faults:
            cells += [
                str(sum(detector in by for by in found_by)),
                str(sum(by == {detector} for by in found_by)),
                str(len(false.intersection(mine))),
            ]
        trials = outcome.trials.get(detector, ())
        plain = next((trial for trial in trials if trial.factor == 1.0), None)
        budget = f"{plain.budget:g}" if plain and movable(trials) else "-"
        rows.append(
            f'<tr><td>{escape(detector)}</td><td class="n">{escape(budget)}</td>'
            + "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
            + "</tr>"
        )
    names = ["accepted a day and asset", "raised a day and asset", "alerts", "median length"]
    names += ["faults found", "found by it alone", "false alarms"] if outcome.faults else []
    head = "<th>rule</th>" + "".join(f'<th class="n">{name}</th>' for name in names)
    return table("Rules", head, rows, len(rows)) + _days(outcome)


def whatif_section(outcome: Outcome) -> str:
    """All rules with one multiple of their budgets, and a plot a rule."""
    moved = {name: trials for name, trials in outcome.trials.items() if movable(trials)}
    if not moved:
        return ""
    fixed = [held for held in outcome.incidents if held.detector not in moved]
    rows = []
    for place, trial in enumerate(next(iter(moved.values()))):
        incidents = [*fixed, *(held for trials in moved.values() for held in trials[place].incidents)]
        rows.append(_row(trial, incidents, outcome))
    names = ["alerts", "alerts a day", "alerts a day and asset"]
    names += ["faults found", "false alarms", "median delay"] if outcome.faults else []
    head = '<th class="n">budgets</th>' + "".join(f'<th class="n">{name}</th>' for name in names)
    drawn = [
        f"<article><h3>{escape(name)}</h3><p class='muted'>{escape(_span(trials))}</p>"
        f"{draw_trials(trials, outcome).svg(f'other budgets of {name}')}</article>"
        for name, trials in sorted(moved.items())
    ]
    others = sorted(({held.detector for held in outcome.incidents} | outcome.trials.keys()) - moved.keys())
    note = f" No budget moves {escape(', '.join(others))}: counted as they are in each row." if others else ""
    return (
        table("What if other budgets of false alarms were accepted", head, rows, len(rows))
        + '<p class="muted">The same scores, decided anew with each rule\'s threshold for that multiple of the budget '
        f"in the plan (<code>false_alarms_per_day</code>); all else as planned.{note}</p>" + cards("", drawn)
    )


def movable(trials: Sequence[Trial]) -> bool:
    """Whether a budget has any say: a matter of fact, as a missing sensor is, has the same threshold with all."""
    return len({trial.thresholds for trial in trials}) > 1


def _row(trial: Trial, incidents: Sequence[Incident], outcome: Outcome) -> str:
    cells = [
        str(len(incidents)),
        number(_rate(len(incidents), outcome.lasted_ms)),
        number(_rate(len(incidents), outcome.watched_ms)),
    ]
    if outcome.faults:
        matching = outcome.matching(incidents)
        cells += [
            f"{len(matching.found)} of {matching.faults}",
            str(len(matching.false_alarms)),
            duration(matching.median_delay_s),
        ]
    planned = trial.factor == 1.0
    name = "as planned" if planned else f"&times; {trial.factor:g}"
    bold = ' class="planned"' if planned else ""
    return f'<tr{bold}><td class="n">{name}</td>' + "".join(f'<td class="n">{cell}</td>' for cell in cells) + "</tr>"


def _rate(alerts: int, watched_ms: int) -> float:
    """Alerts a day; NaN if nothing was watched."""
    return alerts * DAY_MS / watched_ms if watched_ms else float("nan")


def _span(trials: Sequence[Trial]) -> str:
    """The thresholds of the plan's budget, in words."""
    plain = next(trial for trial in trials if trial.factor == 1.0)
    low, high = plain.thresholds[0], plain.thresholds[-1]
    threshold = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return f"{plain.budget:g} false alarms a day and asset are accepted: threshold {threshold}"


def _days(outcome: Outcome) -> str:
    if not outcome.incidents or outcome.lasted_ms < _DAYS * DAY_MS:
        return ""
    svg = draw_days(outcome).svg("Alerts a day by severity")
    return f'<h2>Alerts a day</h2><div class="scroll wide">{svg}</div>'
