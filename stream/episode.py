"""An asset's stay above the threshold: what is known of it, row by row, and the alert that tells of it.

The alert's id is a hash of detector, asset and onset, so a replay of the same readings gives the same alerts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, Protocol

import numpy as np
from msgspec import Meta

from models.base import KINDS
from models.drift import Drift
from stream.records import (
    Acknowledged,
    Alert,
    Cause,
    Diagnosis,
    Event,
    Float32,
    Float64,
    HeatMap,
    Int64,
    Severity,
    Shelved,
    State,
    UInt8,
)
from stream.sources.json import timestamp

SEVERITIES: Final[tuple[Severity, ...]] = ("warning", "major", "critical")
#: Milliseconds since 1970, up to the year 9999.
Time = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
#: A fault less likely than this is not named in a diagnosis.
_LEAST_PROBABILITY: Final = 0.01
#: Events of an alert's life that are kept.
MOST_EVENTS: Final = 200
#: The band around an expected value, in standard deviations of its error.
BAND_SIGMAS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Rules:
    """When a score becomes an alert. Times in milliseconds; see ``settings.DetectorSettings`` for their meaning.

    factor  what labels, an operating mode and drift have multiplied the threshold by
    drift   how the threshold follows what calm scores do; None: it does not
    """

    threshold: float
    on_delay_ms: int = 0
    off_delay_ms: int = 0
    deadband: float = 0.1
    update_every_ms: int = 60_000
    major_at: float = 1.5
    critical_at: float = 3.0
    escalate_after_ms: int = 3_600_000
    re_alarm_after_ms: int = 0  # never
    factor: float = 1.0
    drift: Drift | None = None

    @property
    def lower_bound(self) -> float:
        """An alert resolves only below this score."""
        return self.threshold * (1.0 - self.deadband)

    def moved(self, factor: float) -> Rules:
        """The rules with a threshold that labels, an operating mode or drift have moved."""
        return self if factor == 1.0 else replace(self, threshold=self.threshold * factor, factor=factor)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who raises the alerts: goes into each of them. ``classes``: the faults it can tell apart, the first is normal."""

    site: str
    detector: str
    kind: str
    model_version: str
    classes: tuple[str, ...] = ()


class Evidence(Protocol):
    """The rows that were judged, as ``records.Scores`` without the decision.

    Rows are sorted by asset and, within an asset, by time.
    """

    @property
    def score(self) -> Float64: ...
    @property
    def at_ms(self) -> Int64: ...
    @property
    def signals(self) -> tuple[str, ...]: ...
    @property
    def values(self) -> Float64: ...
    @property
    def contributions(self) -> Float64: ...
    @property
    def expected(self) -> Float64 | None: ...
    @property
    def spread(self) -> Float64 | None: ...
    @property
    def verdict(self) -> UInt8: ...


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a classifier or a picture detector says beside the score, row by row.

    classes  (row, class) float32, how likely each of ``Identity.classes`` is; None: it tells no faults apart
    heat     (row,) where in the picture something is strange; empty: there are no pictures
    """

    classes: Float32 | None = None
    heat: Sequence[HeatMap | None] = ()


NO_OPINION: Final = Opinion()


@dataclass(slots=True)
class Episode:
    """An asset's stay above the threshold, from its first row there to its resolution.

    Snapshots hold it field by field: a new field needs a default.
    """

    onset_ms: Time
    peak: float = 0.0
    peak_ms: Time = 0
    causes: tuple[Cause, ...] = ()
    verdict: Annotated[str, Meta(max_length=64)] = KINDS[0]
    confidence: Annotated[float, Meta(ge=0, le=1)] = 1.0
    opened_ms: Time | None = None
    below_since_ms: Time | None = None
    level: Annotated[int, Meta(ge=0, lt=len(SEVERITIES))] = 0
    published_ms: Time = 0
    sequence: Annotated[int, Meta(ge=0)] = 0
    likelihoods: tuple[float, ...] = ()  # summed over the rows above the threshold
    likelihood_rows: Annotated[int, Meta(ge=0)] = 0
    heat: HeatMap | None = None
    seen_ms: Time = 0  # the newest row that was taken in, and its score
    score: float = 0.0
    factor: float = 1.0  # of the threshold at that row
    acknowledged: Acknowledged | None = None
    shelved: Shelved | None = None
    shelved_until_ms: Time = 0
    alarmed_ms: Time = 0  # when people were last called: opened, or alarmed again
    re_alarmed: bool = False
    closed: bool = False  # an operator resolved it; no new one begins before the score has been below the lower bound
    life: tuple[Event, ...] = ()
    raised: Annotated[float, Meta(ge=1)] = 1.0  # what drift made of the threshold at the onset: so it stays to the end

    @property
    def is_open(self) -> bool:
        """Whether its alert is open."""
        return self.opened_ms is not None and not self.closed

    def lived(self, what: str, at: str, *, by: str = "", comment: str = "", action: str = "") -> None:
        """Remember what happened. Of a very long life the middle is forgotten."""
        self.life = (*self.life, Event(what=what, at=at, by=by, comment=comment, id=action))
        if len(self.life) > MOST_EVENTS:
            self.life = (self.life[0], *self.life[2:])


def take_in(episode: Episode, rules: Rules, rows: Evidence, row: int, opinion: Opinion) -> None:
    """What a row adds to what is known of its episode."""
    value = float(rows.score[row])
    episode.seen_ms, episode.score, episode.factor = int(rows.at_ms[row]), value, rules.factor
    if value > episode.peak:
        episode.peak, episode.peak_ms = value, int(rows.at_ms[row])
        episode.causes = _causes(rows, row)
        episode.verdict = KINDS[int(rows.verdict[row])]
        episode.confidence = float(np.isfinite(rows.values[row]).mean())
        if opinion.heat:
            episode.heat = opinion.heat[row]
    if opinion.classes is not None and value >= rules.threshold:
        _weigh(episode, opinion.classes[row])


def level_of(episode: Episode, rules: Rules, at_ms: int) -> int:
    """Severity by how far over the threshold and for how long; index into ``SEVERITIES``."""
    far = episode.peak / rules.threshold
    level = 2 if far >= rules.critical_at else 1 if far >= rules.major_at else 0
    long = at_ms - episode.onset_ms >= rules.escalate_after_ms
    return min(level + long, 2)


def _causes(rows: Evidence, row: int) -> tuple[Cause, ...]:
    """The signals with a part in a row's score, the largest first."""
    shares = rows.contributions[row]
    causes = []
    for column in np.argsort(-shares, kind="stable").tolist():
        if shares[column] <= 0:
            break
        value = _finite(rows.values[row, column])
        expected = None if rows.expected is None else _finite(rows.expected[row, column])
        spread = None if rows.spread is None else _finite(rows.spread[row, column])
        banded = expected is not None and spread is not None
        causes.append(
            Cause(
                signal=rows.signals[column],
                share=min(float(shares[column]), 1.0),
                value=value,
                expected=expected,
                low=expected - BAND_SIGMAS * spread if banded else None,  # type: ignore[operator]
                high=expected + BAND_SIGMAS * spread if banded else None,  # type: ignore[operator]
            )
        )
    return tuple(causes)


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def alert_id(detector: str, asset: str, onset_ms: int) -> str:
    """The id of the alert that ``detector`` raises for ``asset`` from ``onset_ms`` on: the same in every replay."""
    return hashlib.sha256(f"{detector}\0{asset}\0{onset_ms}".encode()).hexdigest()[:20]


def standing(episode: Episode, rules: Rules, identity: Identity, asset: str) -> Alert:
    """The open alert of an episode as it was last published, except that its score is the highest so far."""
    moved = rules.moved(episode.factor)
    return _describe(episode, "updated", moved, identity, asset, episode.peak, episode.published_ms)


def answer(episode: Episode, state: State, rules: Rules, identity: Identity, asset: str, action: str = "") -> Alert:
    """The next transition of an episode's alert that no reading caused, as of the newest reading taken in.

    rules   with the threshold as it holds now
    action  id of the operator's action that it answers
    """
    at_ms = episode.seen_ms or episode.published_ms
    alert = _describe(episode, state, rules, identity, asset, episode.score, at_ms, action)
    episode.sequence += 1
    return alert


def _weigh(episode: Episode, likelihoods: Float32) -> None:
    """Add a row's word on which fault it is to what was said since the onset."""
    if len(episode.likelihoods) != len(likelihoods):  # the first, or a new model with other classes
        episode.likelihoods, episode.likelihood_rows = (0.0,) * len(likelihoods), 0
    episode.likelihoods = tuple(a + b for a, b in zip(episode.likelihoods, likelihoods.tolist(), strict=True))
    episode.likelihood_rows += 1


def _diagnosis(episode: Episode, names: tuple[str, ...]) -> tuple[Diagnosis, ...]:
    """The faults that an episode may be, the likeliest first."""
    if not episode.likelihood_rows or len(names) != len(episode.likelihoods):
        return ()
    means = [min(total / episode.likelihood_rows, 1.0) for total in episode.likelihoods]
    order = sorted(range(len(names)), key=lambda place: -means[place])
    return tuple(Diagnosis(names[place], means[place]) for place in order if means[place] >= _LEAST_PROBABILITY)


def transition(
    episode: Episode, state: State, rules: Rules, identity: Identity, asset: str, score: float, at_ms: int
) -> Alert:
    """The next transition of an episode's alert, by a row of ``score`` at ``at_ms``."""
    alert = _describe(episode, state, rules, identity, asset, score, at_ms)
    episode.sequence += 1
    episode.published_ms = at_ms
    return alert


def _describe(
    episode: Episode,
    state: State,
    rules: Rules,
    identity: Identity,
    asset: str,
    score: float,
    at_ms: int,
    action: str = "",
) -> Alert:
    opened_ms = episode.opened_ms if episode.opened_ms is not None else at_ms
    return Alert(
        id=alert_id(identity.detector, asset, episode.onset_ms),
        sequence=episode.sequence,
        state=state,
        severity=SEVERITIES[episode.level],
        asset=asset,
        detector=identity.detector,
        kind=identity.kind,
        verdict=episode.verdict,
        model_version=identity.model_version,
        onset=timestamp(episode.onset_ms),
        opened=timestamp(opened_ms),
        last_seen=timestamp(at_ms),
        resolved=timestamp(at_ms) if state == "resolved" else None,
        score=score,
        threshold=rules.threshold,
        peak=episode.peak,
        peak_at=timestamp(episode.peak_ms),
        confidence=episode.confidence,
        causes=episode.causes,
        diagnosis=_diagnosis(episode, identity.classes),
        heat=episode.heat,
        site=identity.site,
        factor=rules.factor,
        acknowledged=episode.acknowledged,
        shelved=episode.shelved,
        re_alarm=episode.re_alarmed and episode.acknowledged is None,
        life=episode.life,
        action=action,
    )
