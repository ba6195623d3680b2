from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.evaluate import Event
from stream.errors import StreamError
from stream.records import Alert, Cause, Scores
from stream.report.outcome import Course, Outcome, courses_of, courses_of_topic, incidents_of, labelled
from stream.report.page import picture, render, write_outcome, write_report
from stream.report.wording import causes, clock, duration, number
from stream.sources.json import timestamp

pytest.importorskip("matplotlib", reason="drawing comes with headrace[demo]")

START_MS = 1_795_413_600_000


class Recorded:
    def __init__(self, asset: str, rows: int = 300, labels: bool = False) -> None:
        rng = np.random.default_rng(1)
        self.asset = asset
        self.at_ms = START_MS + 1000 * np.arange(rows, dtype=np.int64)
        self.signals = ("flow", "a<b>$x^2$", "power")
        self.values = rng.standard_normal((rows, 3))
        self.values[200:210, 0] = np.nan
        self.labels = np.arange(rows) // 50 == 2 if labels else None


def alert(
    asset: str, state: str, at_s: int, *, sequence: int = 0, severity: str = "warning", onset_s: int = 110
) -> Alert:
    return Alert(
        id=f"{asset}{onset_s}",
        sequence=sequence,
        state=state,  # type: ignore[arg-type]
        severity=severity,  # type: ignore[arg-type]
        asset=asset,
        detector="forecast",
        kind="lstm_forecaster",
        verdict="model",
        model_version="1",
        onset=timestamp(START_MS + onset_s * 1000),
        opened=timestamp(START_MS + (onset_s + 5) * 1000),
        last_seen=timestamp(START_MS + at_s * 1000),
        resolved=timestamp(START_MS + at_s * 1000) if state == "resolved" else None,
        score=2.0,
        threshold=1.0,
        peak=3.0,
        peak_at=timestamp(START_MS + onset_s * 1000),
        causes=(Cause(signal="flow", share=0.8, low=-1.0, high=1.0), Cause(signal="power", share=0.2)),
    )


def scores(asset: str, first: int, rows: int) -> Scores:
    ones = np.ones((rows, 3))
    return Scores(
        detector="forecast",
        kind="lstm_forecaster",
        model_version="1",
        names=("other", asset),
        asset=np.ones(rows, dtype=np.int32),
        at_ms=START_MS + 1000 * (first + np.arange(rows, dtype=np.int64)),
        score=np.where(np.arange(rows) % 7 == 0, np.nan, 0.5),
        threshold=np.ones(rows),
        anomalous=np.zeros(rows, dtype=bool),
        signals=("flow", "a<b>$x^2$", "power"),
        values=ones,
        contributions=ones / 3,
        expected=ones * 0,
        spread=ones * 0.5,
        verdict=np.zeros(rows, dtype=np.uint8),
    )


@pytest.fixture
def outcome() -> Outcome:
    assets = [Recorded("pump<1>"), Recorded("$pump_2$"), Recorded("quiet")]
    transitions = [
        alert("pump<1>", "open", 115),
        alert("pump<1>", "updated", 120, sequence=1, severity="critical"),
        alert("pump<1>", "resolved", 150, sequence=2),
        alert("$pump_2$", "open", 15, onset_s=10),
    ]
    faults = [
        Event("pump<1>", START_MS + 100_000, START_MS + 140_000, "drift", ("flow", "a<b>$x^2$"), "it <drifts> & heats"),
        Event("$pump_2$", START_MS + 200_000, START_MS + 220_000, "stuck", ("power",), "stuck"),
    ]
    return Outcome(
        title="Run <1>",
        recordings=assets,
        faults=faults,
        incidents=incidents_of(transitions),
        courses=courses_of([scores("pump<1>", 0, 200), scores("pump<1>", 200, 100)]),
        units={"flow": "m3/h"},
        facts={"readings a second": "1,000"},
        grace_s=30,
    )


def test_transitions_become_one_incident_with_its_worst_severity() -> None:
    parts = [alert("a", "resolved", 150, sequence=2), alert("a", "open", 115), alert("a", "open", 115)]
    parts.append(alert("a", "updated", 120, sequence=1, severity="major"))
    (incident,) = incidents_of(parts)
    assert incident.severity == "major"
    assert incident.resolved
    assert incident.start_ms == START_MS + 115_000
    assert incident.end_ms == START_MS + 150_000
    assert incident.signals == ("flow", "power")


def test_courses_join_batches_in_order_of_time() -> None:
    course = courses_of([scores("a", 100, 50), scores("a", 0, 100)])["a", "forecast"]
    assert (np.diff(course.at_ms) == 1000).all()
    assert course.low is not None
    assert course.low.shape == (150, 3)
    np.testing.assert_allclose(course.low, -1.5)


def test_courses_of_the_topic_are_those_of_the_pipeline() -> None:
    from stream.sinks.messages import score_rows

    batch = scores("a", 0, 20)
    payloads = [value for _, value in score_rows(batch, "site")]
    topic, direct = courses_of_topic([*payloads, *payloads[:5]])["a", "forecast"], courses_of([batch])["a", "forecast"]
    for name in ("at_ms", "score", "threshold", "expected", "low", "high"):
        np.testing.assert_allclose(getattr(topic, name), getattr(direct, name), equal_nan=True)


def test_labels_become_faults() -> None:
    (fault,) = labelled([Recorded("a", labels=True), Recorded("b")])
    assert fault == Event("a", START_MS + 100_000, START_MS + 150_000, "labelled")


def test_the_page_is_complete_and_escaped(outcome: Outcome) -> None:
    page = render(outcome)
    assert page.startswith("<!doctype html>")
    assert "1 of 2" in page
    assert "missed" in page
    assert "found after 15 s" in page
    assert "pump&lt;1&gt;" in page
    assert "<drifts>" not in page
    assert "pump<1>" not in page
    assert "<script" not in page
    assert page.count("<svg") == page.count("</svg>") == 1 + 2 + 1  # overview, faults, one false alarm


def test_the_page_loads_nothing(outcome: Outcome) -> None:
    page = re.sub(r'xmlns(:\w+)?="[^"]*"', "", render(outcome))
    assert not re.findall(r"https?://|@import|url\((?!#)|src=", page)


def test_every_colour_of_a_drawing_follows_the_theme(outcome: Outcome) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", render(outcome), flags=re.DOTALL))
    assert not re.findall(r"(?:fill|stroke): #(?!000000)[0-9a-f]{6}", drawings)
    assert "var(--fault)" in drawings


def test_ids_of_drawings_do_not_clash(outcome: Outcome) -> None:
    clips = re.findall(r'<clipPath id="([^"]+)"', render(outcome))
    assert len(clips) == len(set(clips)) > 0


def test_the_same_run_gives_the_same_page(outcome: Outcome) -> None:
    assert render(outcome) == render(outcome)


def test_runs_without_faults_alerts_or_readings_have_a_page_too(outcome: Outcome) -> None:
    assert "Alerts" in render(replace(outcome, faults=[]))
    assert "None." in render(replace(outcome, incidents=[], courses={}))
    assert "no readings" in render(replace(outcome, recordings=[], faults=[], incidents=[], courses={}))


def test_scores_that_are_never_known_can_be_drawn(outcome: Outcome) -> None:
    held = outcome.courses["pump<1>", "forecast"]
    blank = Course(held.at_ms, np.full(len(held.at_ms), np.nan), held.threshold, held.signals)
    render(replace(outcome, courses={("pump<1>", "forecast"): blank}))


def test_write_report_of_a_backtest(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    done = write_report(path, [Recorded("a", labels=True)], [scores("a", 0, 300)], [alert("a", "open", 115)])
    assert len(done.matching().found) == 1
    assert "labelled" in path.read_text(encoding="utf-8")


def test_picture_of_a_found_fault(outcome: Outcome, tmp_path: Path) -> None:
    fault = picture(tmp_path / "fault.png", outcome)
    assert fault == outcome.faults[0]
    assert (tmp_path / "fault.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(StreamError, match="no fault was found"):
        picture(tmp_path / "none.png", replace(outcome, incidents=[]))


def test_the_file_is_written_with_its_folder(outcome: Outcome, tmp_path: Path) -> None:
    write_outcome(tmp_path / "a" / "b.html", outcome)
    assert (tmp_path / "a" / "b.html").stat().st_size > 10_000


def test_figures_for_a_person() -> None:
    assert [duration(s) for s in (0, 119.6, 600, 7200, float("nan"))] == ["0 s", "120 s", "10 min", "2.0 h", "-"]
    assert number(float("nan")) == "-"
    assert number(0.5, percent=True) == "50 %"
    assert clock(START_MS) == "2026-11-23 06:00:00"
    assert causes((Cause(signal="flow", share=0.81),)) == "flow 81 %"
