"""What is kept of a backtest as it goes: of a month of many assets, little more than what is drawn or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.evaluate import Event
from stream.records import Alert, Bool, Output, Scores
from stream.report.outcome import Recorded, around, incidents_of, step_of
from stream.sinks.rows import take

#: The end of each recording is kept too: an alert on it may come after the last reading was judged.
_LAST_ROWS = 200


@dataclass(slots=True)
class Gathered:
    """Takes outputs in the order of ``stream.backtest.backtest``: one asset after the other.

    faults     what is drawn besides the alerts
    every_row  keep the score of every row in ``rows``, for a table of them
    drawn      keep in ``around`` what the report draws: the rows around faults and alerts
    """

    recordings: Sequence[Recorded]
    faults: Sequence[Event] = ()
    every_row: bool = False
    drawn: bool = False
    readings: int = 0
    scored: Counter[str] = field(default_factory=Counter)
    alerts: list[Alert] = field(default_factory=list)
    rows: list[Scores] = field(default_factory=list)
    around: list[Scores] = field(default_factory=list)
    _asset: str = ""
    _pieces: list[Scores] = field(default_factory=list)
    _since: int = 0

    def take(self, output: Output) -> None:
        """Take in what a step led to."""
        self.readings += output.counts.get("readings", 0)
        for scores in output.scores:
            self.scored[scores.detector] += len(scores)
            if self.every_row:
                self.rows.append(_slim(scores))
            if self.drawn:
                if scores.names[:1] != (self._asset,):
                    self._settle()
                    self._asset = scores.names[0] if scores.names else ""
                self._pieces.append(scores)
        self.alerts += output.alerts

    def finish(self) -> None:
        """Say that nothing more comes."""
        self._settle()
        self.alerts.sort(key=lambda alert: (alert.last_seen, alert.id, alert.sequence))

    def _settle(self) -> None:
        """Of the asset's rows keep those around its faults and its alerts."""
        pieces, self._pieces = self._pieces, []
        alerts, self._since = self.alerts[self._since :], len(self.alerts)
        held = [recording for recording in self.recordings if recording.asset == self._asset]
        if not pieces or not held:
            return
        events: Iterable[Event] = [*self.faults, *incidents_of(alerts)]
        spans = around([event for event in events if event.asset == self._asset], max(map(step_of, held)))
        last_ms = max(int(recording.at_ms[-_LAST_ROWS:][0]) for recording in held if len(recording.at_ms))
        for scores in pieces:
            shown = scores.at_ms >= last_ms
            for first_ms, until_ms in spans:
                shown |= (scores.at_ms >= first_ms) & (scores.at_ms <= until_ms)
            if shown.any():
                self.around.append(_shown(scores, shown))


def _shown(scores: Scores, shown: Bool) -> Scores:
    """Those rows, without what is not drawn."""
    kept = take(scores, np.flatnonzero(shown))
    nothing = np.zeros((len(kept), 0))
    return replace(kept, values=nothing, contributions=nothing)


def _slim(scores: Scores) -> Scores:
    nothing = np.zeros((len(scores), 0))
    return replace(scores, values=nothing, contributions=nothing, expected=None, spread=None)
