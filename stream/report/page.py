"""The report of a run: one HTML file that needs nothing else, for a screen, a phone or paper.

    write_report(Path("report.html"), recordings, scores, alerts)

Everything that came from outside (names of assets, signals, detectors) is escaped; there is no script, and nothing is
loaded from anywhere. ``picture`` draws a single found fault as a PNG.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from models.evaluate import Event, Found, Matching
from stream.errors import StreamError
from stream.records import Alert, Scores
from stream.report.figures import PALETTE, draw_event, draw_overview
from stream.report.html import cards, table
from stream.report.outcome import SEVERITIES, Incident, Outcome, Recorded, Trial, courses_of, incidents_of, labelled
from stream.report.rules import rules_section, whatif_section
from stream.report.sightings import sightings_section
from stream.report.wording import causes, clock, duration, number

#: So many figures of false alarms and of faults, the worst first: a report should open on a phone.
_FALSE_SHOWN: Final = 12
_FAULTS_SHOWN: Final = 40
_ROWS_SHOWN: Final = 300

_CSS: Final = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f8fa;--good:#13734b;--bad:#b8123a;LIGHT}
@media(prefers-color-scheme:dark){:root{--paper:#14171c;--card:#1c2129;--good:#4cc38a;--bad:#ff6384;DARK}}
@media print{:root{--paper:#fff;--card:#fff;LIGHT}section,article,tr{break-inside:avoid}.scroll{overflow:visible}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem clamp(.8rem,3vw,2rem) 4rem;max-width:76rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}h3{font-size:1rem;margin:0}
p{margin:.3rem 0}.muted{color:var(--muted)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--grid);border-radius:.5rem;padding:.55rem .8rem}
.tile b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:.85rem}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--grid);vertical-align:top}
th{color:var(--muted);font-weight:600;font-size:.85rem;white-space:nowrap}td.n,th.n{text-align:right}
.scroll table{min-width:40rem}td.n,td a,td:first-child{white-space:nowrap}
tr.planned td{font-weight:650;background:var(--card)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));gap:1rem}
article{border:1px solid var(--grid);border-radius:.6rem;padding:.8rem .9rem;min-width:0}
svg{display:block;width:100%;height:auto}article img{display:block;max-width:100%;height:auto}.wide svg{min-width:44rem}
.tag{display:inline-block;border-radius:1rem;padding:0 .55rem;font-size:.8rem;border:1px solid currentColor;
white-space:nowrap}
.good{color:var(--good)}.bad{color:var(--bad)}.warning{color:var(--warning)}.major{color:var(--major)}
.critical{color:var(--critical)}a{color:inherit}
.key i{display:inline-block;width:1.1em;height:.7em;margin:0 .35em 0 .9em;border-radius:2px}
"""


def write_report(
    path: Path,
    recordings: Sequence[Recorded],
    scores: Iterable[Scores],
    alerts: Iterable[Alert],
    *,
    faults: Sequence[Event] | None = None,
    trials: Mapping[str, Sequence[Trial]] | None = None,
    units: Mapping[str, str] | None = None,
    title: str = "Backtest",
) -> Outcome:
    """Write the report of a backtest; without ``faults`` the labels of the recordings tell, where they have any.

    Returns what was drawn. Raises ``StreamError`` that names the extra to install if matplotlib is missing.
    """
    known = labelled(recordings) if faults is None else faults
    outcome = Outcome(
        title, recordings, known, incidents_of(alerts), courses_of(scores), units=units or {}, trials=trials or {}
    )
    write_outcome(path, outcome)
    return outcome


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write the report of ``outcome`` to ``path``. Raises ``StreamError``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(outcome), encoding="utf-8")


def picture(path: Path, outcome: Outcome, fault: Event | None = None) -> Event:
    """Write a PNG of a found fault with its signals, expected band, scores and alerts; returns which fault it is.

    Without ``fault`` the most telling one is taken: on several signals, found by a detector that has an expectation.
    Raises ``StreamError`` if no fault was found.
    """
    matching = outcome.matching()
    if fault is None:
        if not matching.found:
            raise StreamError("no fault was found: there is nothing to draw")
        best = max(matching.found, key=lambda found: _telling(outcome, found))
        fault = outcome.faults[best.fault]
    draw_event(outcome, fault, width=8.6, title=f"{fault.asset}: {fault.sentence or fault.sort}").png(path)
    return fault


def render(outcome: Outcome) -> str:
    """Give the whole page."""
    matching = outcome.matching()
    light = ";".join(f"--{name}:{light}" for name, (light, _) in PALETTE.items())
    dark = ";".join(f"--{name}:{dark}" for name, (_, dark) in PALETTE.items())
    body = [
        f"<h1>{escape(outcome.title)}</h1>",
        f'<p class="muted">{escape(_extent(outcome))}</p>',
        _tiles(outcome, matching),
        _overview(outcome, matching),
        rules_section(outcome, matching),
        whatif_section(outcome),
        sightings_section(outcome.sightings),
    ]
    if outcome.faults:
        body += [_fault_table(outcome, matching), _sort_table(outcome, matching)]
        body += [
            cards("Faults", [_fault_card(outcome, matching, k) for k in range(min(len(outcome.faults), _FAULTS_SHOWN))])
        ]
    extra = [outcome.incidents[index] for index in matching.false_alarms]
    worst = sorted(extra, key=lambda incident: -incident.peak / incident.threshold)[:_FALSE_SHOWN]
    heading = "False alarms" if outcome.faults else "Alerts"
    if extra:
        body += [_incident_table(heading, extra), cards("", [_incident_card(outcome, incident) for incident in worst])]
    elif outcome.faults:
        body.append("<h2>False alarms</h2><p>None.</p>")
    body.append(_method(outcome))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(outcome.title)}</title>"
        f"<style>{_CSS.replace('LIGHT', light).replace('DARK', dark)}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _tiles(outcome: Outcome, matching: Matching) -> str:
    tiles: list[tuple[str, str]] = []
    if outcome.faults:
        tiles = [
            (f"{len(matching.found)} of {matching.faults}", "faults found"),
            (duration(matching.median_delay_s), "median delay to the first alert"),
            (str(len(matching.false_alarms)), "false alarms"),
            (number(matching.false_alarms_per_day), "false alarms per asset and day"),
            (number(matching.precision, percent=True), "of the alerts belong to a fault"),
        ]
    else:
        tiles = [(str(matching.alarms), "alerts"), (number(matching.false_alarms_per_day), "alerts per asset and day")]
    tiles += [(value, name) for name, value in outcome.facts.items()]
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _overview(outcome: Outcome, matching: Matching) -> str:
    if not outcome.recordings:
        return ""
    key = '<i style="background:var(--fault)"></i>fault' if outcome.faults else ""
    key += "".join(f'<i style="background:var(--{severity})"></i>{severity} alert' for severity in SEVERITIES)
    ring = " &nbsp;&#9675; false alarm" if outcome.faults and matching.false_alarms else ""
    svg = draw_overview(outcome, matching).svg("Overview of assets over time with faults and alerts")
    return f'<h2>Overview</h2><p class="key muted">{key}{ring}</p><div class="scroll wide">{svg}</div>'


def _fault_table(outcome: Outcome, matching: Matching) -> str:
    found = {item.fault: item for item in matching.found}
    rows = []
    for index, fault in enumerate(outcome.faults[:_ROWS_SHOWN]):
        item = found.get(index)
        by = sorted({outcome.incidents[i].detector for i in item.alarms}) if item else []
        result = (
            f'<span class="tag good">found</span> {escape(", ".join(by))}'
            if item
            else '<span class="tag bad">missed</span>'
        )
        rows.append(
            f'<tr><td>{escape(clock(fault.start_ms))}</td><td><a href="#fault-{index}">{escape(fault.asset)}</a></td>'
            f"<td>{escape(fault.sort)}</td><td>{escape(fault.sentence)}</td><td>{result}</td>"
            f'<td class="n">{escape(duration(item.delay_ms / 1000) if item else "")}</td></tr>'
        )
    head = '<th>begins</th><th>asset</th><th>sort</th><th>what</th><th>result</th><th class="n">delay</th>'
    return table("What was wrong, and what was said", head, rows, len(outcome.faults))


def _sort_table(outcome: Outcome, matching: Matching) -> str:
    sorts = Counter(fault.sort for fault in outcome.faults)
    if len(sorts) < 2:
        return ""
    found = Counter(outcome.faults[item.fault].sort for item in matching.found)
    rows = [
        f'<tr><td>{escape(sort)}</td><td class="n">{count}</td><td class="n">{found[sort]}</td></tr>'
        for sort, count in sorted(sorts.items())
    ]
    return table("By sort of fault", '<th>sort</th><th class="n">faults</th><th class="n">found</th>', rows, len(rows))


def _incident_table(heading: str, incidents: Sequence[Incident]) -> str:
    rows = [
        f"<tr><td>{escape(clock(incident.start_ms))}</td><td>{escape(incident.asset)}</td>"
        f"<td>{escape(incident.detector)}</td>"
        f'<td><span class="tag {incident.severity}">{incident.severity}</span></td>'
        f'<td class="n">{incident.peak / incident.threshold:.2f}</td>'
        f'<td class="n">{escape(duration((incident.end_ms - incident.start_ms) / 1000))}</td>'
        f"<td>{escape(causes(incident.causes))}</td></tr>"
        for incident in incidents[:_ROWS_SHOWN]
    ]
    head = '<th>opened</th><th>asset</th><th>detector</th><th>severity</th><th class="n">peak / threshold</th>'
    head += '<th class="n">lasted</th><th>causes</th>'
    return table(heading, head, rows, len(incidents))


def _fault_card(outcome: Outcome, matching: Matching, index: int) -> str:
    fault = outcome.faults[index]
    item = next((found for found in matching.found if found.fault == index), None)
    if item is None:
        told = '<span class="tag bad">missed</span>'
    else:
        first = outcome.incidents[item.alarms[0]]
        told = (
            f'<span class="tag good">found after {escape(duration(item.delay_ms / 1000))}</span> '
            f'<span class="tag {first.severity}">{first.severity}</span> {escape(first.detector)}: '
            f"{escape(causes(first.causes))}"
        )
    label = f"fault {index}: {fault.asset}, {fault.sort}"
    return (
        f'<article id="fault-{index}"><h3>{escape(fault.asset)}: {escape(fault.sentence or fault.sort)}</h3>'
        f'<p class="muted">{escape(fault.sort)}, {escape(clock(fault.start_ms))}, '
        f"{escape(duration((fault.end_ms - fault.start_ms) / 1000))}</p><p>{told}</p>"
        f"{draw_event(outcome, fault).svg(label)}</article>"
    )


def _incident_card(outcome: Outcome, incident: Incident) -> str:
    if all(held.asset != incident.asset for held in outcome.recordings):
        return ""
    label = f"alert {incident.id} of {incident.asset} by {incident.detector}"
    return (
        f"<article><h3>{escape(incident.asset)}: {escape(incident.detector)}</h3>"
        f'<p><span class="tag {incident.severity}">{incident.severity}</span> {escape(clock(incident.start_ms))}, '
        f"{escape(causes(incident.causes))}</p>{draw_event(outcome, incident).svg(label)}</article>"
    )


def _method(outcome: Outcome) -> str:
    if not outcome.faults:
        return ""
    return (
        '<h2>How this is counted</h2><p class="muted">In events, not in rows, and without point adjustment: a fault is '
        "found if an alert of its asset opens between its start and its end"
        + (f" (or up to {duration(outcome.early_s)} before)" if outcome.early_s else "")
        + (f", or within {duration(outcome.grace_s)} after" if outcome.grace_s else "")
        + ". An alert that opens at any other time is false, however long it lasts. The delay is from the fault's "
        "start to the opening of its first alert, in the plant's time.</p>"
    )


def _extent(outcome: Outcome) -> str:
    assets = len({held.asset for held in outcome.recordings})
    readings = sum(len(held.at_ms) for held in outcome.recordings)
    filled = [held for held in outcome.recordings if len(held.at_ms)]
    if not filled:
        return "no readings"
    first, last = min(int(held.at_ms[0]) for held in filled), max(int(held.at_ms[-1]) for held in filled)
    return f"{assets} assets, {readings:,} readings, {clock(first)} to {clock(last)} UTC"


def _telling(outcome: Outcome, found: Found) -> tuple[int, int, float]:
    fault = outcome.faults[found.fault]
    first = outcome.incidents[found.alarms[0]]
    named = sum(cause.share for cause in first.causes if cause.signal in fault.signals)
    banded = any(cause.low is not None for cause in first.causes)
    return int(banded), len(fault.signals), named
