from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.drift import Drift, followed
from stream.decide import DecisionState, decide
from stream.episode import Identity, Opinion, Rules, alert_id
from stream.records import Alert, Diagnosis, HeatMap, Scores, to_json

SIGNALS = ("pressure", "temperature")
WHO = Identity(site="north", detector="pumps", kind="ewma", model_version="v1")


@dataclass
class Run:
    """Scores of one asset, one a second, through ``decide`` in batches."""

    rules: Rules

    def __post_init__(self) -> None:
        self.state = DecisionState()

    def feed(self, scores: list[float], start_s: int = 0, cut: int = 1000) -> tuple[list[bool], list[Alert]]:
        flags: list[bool] = []
        alerts: list[Alert] = []
        for begin in range(0, len(scores), cut):
            part = scores[begin : begin + cut]
            rows = evidence(part, start_s + begin)
            anomalous, _, raised, _ = decide(self.state, self.rules, WHO, rows.asset, ["pump-1"], rows)
            flags += anomalous.tolist()
            alerts += raised
        return flags, alerts


def evidence(scores: list[float], start_s: int) -> Scores:
    count = len(scores)
    return Scores(
        detector="pumps",
        kind="ewma",
        model_version="v1",
        names=("pump-1",),
        asset=np.zeros(count, dtype=np.int32),
        at_ms=(np.arange(count, dtype=np.int64) + start_s) * 1000,
        score=np.array(scores),
        threshold=np.full(count, 1.0),
        anomalous=np.zeros(count, dtype=bool),
        signals=SIGNALS,
        values=np.tile([2.0, np.nan], (count, 1)),
        contributions=np.tile([0.25, 0.75], (count, 1)),
        expected=np.tile([1.0, 5.0], (count, 1)),
        spread=np.tile([0.5, 1.0], (count, 1)),
        verdict=np.zeros(count, dtype=np.uint8),
    )


def states(alerts: list[Alert]) -> list[str]:
    return [alert.state for alert in alerts]


def test_an_alert_opens_and_resolves_once() -> None:
    flags, alerts = Run(Rules(threshold=1.0)).feed([0.1, 2.0, 1.0, 0.95, 0.5, 0.1])
    assert flags == [False, True, True, True, False, False]
    assert states(alerts) == ["open", "resolved"]
    assert alerts[0].id == alerts[1].id == alert_id("pumps", "pump-1", 1000)
    assert [alert.sequence for alert in alerts] == [0, 1]
    assert alerts[1].resolved == "1970-01-01T00:00:04.000Z"


def test_the_alert_says_what_where_and_how_much() -> None:
    _, (alert,) = Run(Rules(threshold=1.0)).feed([1.25])
    assert (alert.asset, alert.detector, alert.kind, alert.verdict, alert.site) == (
        "pump-1",
        "pumps",
        "ewma",
        "model",
        "north",
    )
    assert [(cause.signal, cause.share) for cause in alert.causes] == [("temperature", 0.75), ("pressure", 0.25)]
    assert sum(cause.share for cause in alert.causes) == pytest.approx(1)
    missing, pressure = alert.causes
    assert missing.value is None
    assert (pressure.value, pressure.expected, pressure.low, pressure.high) == (2.0, 1.0, -0.5, 2.5)
    assert alert.confidence == 0.5


def test_on_delay_wants_the_score_to_stay() -> None:
    run = Run(Rules(threshold=1.0, on_delay_ms=3000))
    assert run.feed([2, 2, 0, 2, 2]) == ([False] * 5, [])
    flags, alerts = run.feed([2, 2, 0], start_s=5)
    assert flags == [False, True, False]
    assert alerts[0].onset == "1970-01-01T00:00:03.000Z"
    assert alerts[0].opened == "1970-01-01T00:00:06.000Z"


def test_off_delay_bridges_short_dips() -> None:
    flags, alerts = Run(Rules(threshold=1.0, off_delay_ms=2000)).feed([2, 0, 2, 0, 0, 0, 0])
    assert flags == [True, True, True, True, True, False, False]
    assert states(alerts) == ["open", "resolved"]


def test_deadband_keeps_a_wavering_score_from_chattering() -> None:
    _, alerts = Run(Rules(threshold=1.0, deadband=0.2)).feed([1.1, 0.9, 1.1, 0.85, 1.1, 0.79])
    assert states(alerts) == ["open", "resolved"]


def test_severity_rises_with_distance_and_time_and_never_falls() -> None:
    rules = Rules(threshold=1.0, major_at=1.5, critical_at=3.0, update_every_ms=10_000_000, escalate_after_ms=5000)
    _, alerts = Run(rules).feed([1.2, 1.6, 1.2, 1.2, 1.2, 1.2, 0.0])
    assert [(alert.state, alert.severity) for alert in alerts] == [
        ("open", "warning"),
        ("updated", "major"),
        ("updated", "critical"),
        ("resolved", "critical"),
    ]
    _, alerts = Run(rules).feed([4.0])
    assert alerts[0].severity == "critical"


def test_updates_come_at_most_every_so_often() -> None:
    _, alerts = Run(Rules(threshold=1.0, update_every_ms=4000)).feed([1.2] * 10)
    assert states(alerts) == ["open", "updated", "updated"]


def test_a_row_without_evidence_changes_nothing() -> None:
    nan = float("nan")
    flags, alerts = Run(Rules(threshold=1.0)).feed([nan, 2.0, nan, nan, 0.0, nan])
    assert flags == [False, True, True, True, False, False]
    assert states(alerts) == ["open", "resolved"]


@given(
    st.lists(st.floats(0, 4), max_size=60),
    st.integers(1, 7),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_cutting_into_batches_changes_nothing(scores: list[float], cut: int, on_s: int, off_s: int) -> None:
    rules = Rules(threshold=1.0, on_delay_ms=on_s * 1000, off_delay_ms=off_s * 1000, update_every_ms=3000)
    assert Run(rules).feed(scores, cut=cut) == Run(rules).feed(scores)


@given(st.lists(st.floats(0, 4), max_size=40), st.integers(0, 40))
def test_what_was_decided_does_not_depend_on_what_follows(scores: list[float], cut: int) -> None:
    rules = Rules(threshold=1.0, on_delay_ms=2000, off_delay_ms=2000)
    flags, alerts = Run(rules).feed(scores)
    early_flags, early_alerts = Run(rules).feed(scores[:cut])
    assert early_flags == flags[:cut]
    assert early_alerts == alerts[: len(early_alerts)]


def diagnosed(scores: list[float], classes: list[list[float]], cut: int = 1000) -> list[Alert]:
    """One asset's scores with a classifier's opinion of each, in batches."""
    who = Identity("north", "faults", "fault_classifier", "v1", ("normal", "leak", "unknown"))
    state, alerts = DecisionState(), []
    for begin in range(0, len(scores), cut):
        rows = evidence(scores[begin : begin + cut], begin)
        said = Opinion(np.array(classes[begin : begin + cut], dtype=np.float32))
        alerts += decide(state, Rules(1.0, update_every_ms=0), who, rows.asset, ["pump-1"], rows, said).alerts
    return alerts


def test_a_diagnosis_is_the_mean_over_the_rows_above_the_threshold() -> None:
    scores = [0.1, 2.0, 3.0, 0.95, 0.2]
    classes = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    alerts = diagnosed(scores, classes)
    assert states(alerts) == ["open", "updated", "updated", "resolved"]
    assert alerts[0].diagnosis == (Diagnosis("normal", 0.5), Diagnosis("leak", 0.5))
    assert alerts[1].diagnosis == alerts[3].diagnosis == (Diagnosis("leak", 0.75), Diagnosis("normal", 0.25))
    assert [to_json(alert) for alert in diagnosed(scores, classes, cut=1)] == [to_json(alert) for alert in alerts]


def test_without_a_classifier_an_alert_has_no_key_for_its_diagnosis() -> None:
    _, (alert,) = Run(Rules(threshold=1.0)).feed([1.25])
    assert alert.diagnosis == ()
    assert b"diagnosis" not in to_json(alert)
    assert b"heat" not in to_json(alert)


def test_the_heat_map_is_of_the_strangest_row() -> None:
    rows = evidence([2.0, 5.0, 3.0, 0.1], 0)
    maps = [
        HeatMap(at=str(row), width=8, height=4, box=(0, 0, 1, 1), columns=2, rows=1, cells=bytes([row, 255]))
        for row in range(4)
    ]
    rules = Rules(1.0, update_every_ms=0)
    alerts = decide(DecisionState(), rules, WHO, rows.asset, ["pump-1"], rows, Opinion(heat=maps)).alerts
    assert [alert.heat.at for alert in alerts if alert.heat] == ["0", "1", "1", "1"]
    assert b'"cells":"Af8="' in to_json(alerts[-1])


FOLLOWING = Rules(threshold=2.0, update_every_ms=0, drift=Drift(rows=20, usual=0.6, most=1.5))
a_score = st.one_of(st.floats(0, 5), st.just(float("nan")))


@given(st.lists(a_score, min_size=1, max_size=80), st.integers(1, 80))
def test_the_threshold_follows_drift_however_rows_are_cut(scores: list[float], cut: int) -> None:
    whole, pieces = Run(FOLLOWING), Run(FOLLOWING)
    assert whole.feed(scores) == pieces.feed(scores, cut=cut)
    assert level_of(whole.state, 0) == level_of(pieces.state, 0)
    thresholds = decide(DecisionState(), FOLLOWING, WHO, *_one_asset(scores)).threshold
    assert np.array_equal(thresholds, 2.0 * followed(np.array(scores) / 2.0, FOLLOWING.drift))  # type: ignore[arg-type]


@given(st.lists(st.lists(st.floats(0, 5), min_size=1, max_size=6), min_size=2, max_size=12))
def test_what_one_asset_does_moves_nobody_elses_threshold(scores: list[list[float]]) -> None:
    slot = np.repeat(np.arange(len(scores), dtype=np.int32), list(map(len, scores)))
    names = [f"pump-{number}" for number in range(len(scores))]
    rows = evidence([score for own in scores for score in own], 0)
    together = DecisionState()
    thresholds = decide(together, FOLLOWING, WHO, slot, names, rows).threshold
    for number, own in enumerate(scores):
        alone = DecisionState()
        assert np.array_equal(decide(alone, FOLLOWING, WHO, *_one_asset(own)).threshold, thresholds[slot == number])
        assert level_of(alone, 0) == level_of(together, number)


def test_nothing_is_followed_while_an_alert_is_open_though_its_score_is_low() -> None:
    run = Run(Rules(threshold=1.0, off_delay_ms=600_000, drift=Drift(rows=10, usual=0.6, most=1.5)))
    _, opened = run.feed([0.5, 3.0])
    run.feed([0.85] * 500, start_s=2)  # under the lower bound, but not for long enough to be over
    assert opened[0].threshold == 1.0
    _, later = run.feed([1.05], start_s=502)
    assert states(later) == ["updated"]
    assert later[0].threshold == 1.0


def _one_asset(scores: list[float]) -> tuple[np.ndarray, list[str], Scores]:
    rows = evidence(scores, 0)
    return rows.asset, ["pump-1"], rows


def level_of(state: DecisionState, slot: int) -> float:
    level = float(state.levels[slot])
    return 0.6 if np.isnan(level) else level
