"""Who is there: a partition's clock made of its readings' times, and the assets that it has gone on without.

The clock is the newest time that any of the partition's assets has shown, with one difference: a step of it counts for
at most ``step_ms``. So an hour in which nobody sent anything (a stopped broker, a night without work) silences nobody,
nor does a clock that jumps ahead. An asset is silent when this clock has moved by so much since it was last heard,
whatever its own clock says: one that is an hour behind and sends every second is not. All of it follows from the
readings and their order alone, so a replay finds the same silences at the same readings.

An asset that is silent for longer than the plan allows has an alert of its own (kind ``stale``), which resolves with
its next reading, or when it is so old that the asset is forgotten. Operators act on it as on any other. Its time is the
asset's own as the clock continues it: when it would be now if the asset had gone on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stream.episode import Episode, Identity, Rules, answer, standing
from stream.records import Alert, Int32, Int64, State
from stream.sources.json import timestamp
from stream.window import NEVER, firsts, room_for

#: The detector that a stale alert names: the plan's detectors cannot be called so.
STALE: Final = "stale"
_NOT_WATCHED: Final = np.iinfo(np.int64).max // 4
#: In place of an onset: the alert was resolved because the asset is too long silent to be remembered.
_GIVEN_UP: Final = NEVER + 1
#: What its alerts are held against: a score of 1 is silence, 0 none.
RULES: Final = Rules(threshold=1.0)
_MAJOR: Final = 1


@dataclass(slots=True)
class Presence:
    """What is remembered of a partition's assets.

    step_ms     what a step of the clock counts for at most
    clock_ms    the clock: how far it has moved since the partition's first reading
    newest_ms   the newest time that any asset has shown
    heard_ms    (asset,) int64, the clock when the asset was last heard; ``NEVER``: not yet
    allowed_ms  (asset,) int64, how long it may be silent; immensely long where nobody asks
    since_ms    (asset,) int64, the onset of its stale alert, in its own event time; ``NEVER`` where none is open
    episodes    by asset, of the stale alerts that are open, and of those that an operator has resolved since
    """

    step_ms: int
    forget_after_ms: int
    site: str = ""
    clock_ms: int = 0
    newest_ms: int = NEVER
    heard_ms: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    allowed_ms: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    since_ms: Int64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    episodes: dict[int, Episode] = field(default_factory=dict)
    _due_ms: int = 0  # no asset falls silent, or is to be forgotten, before the clock shows this

    @property
    def identity(self) -> Identity:
        """Who raises the alerts."""
        return Identity(self.site, STALE, STALE, "")

    def grow(self, assets: int) -> None:
        """Make room for so many assets."""
        held = len(self.heard_ms)
        if assets > held:
            more = room_for(assets, held) - held
            self.heard_ms = np.concatenate([self.heard_ms, np.full(more, NEVER, dtype=np.int64)])
            self.allowed_ms = np.concatenate([self.allowed_ms, np.full(more, _NOT_WATCHED, dtype=np.int64)])
            self.since_ms = np.concatenate([self.since_ms, np.full(more, NEVER, dtype=np.int64)])

    def allow(self, index: int, silent_ms: int) -> None:
        """Say how long an asset may be silent."""
        self.allowed_ms[index] = silent_ms
        self._due_ms = min(self._due_ms, self.clock_ms + silent_ms)

    def forget(self, index: int) -> None:
        """End with an asset: its index goes to another."""
        self.heard_ms[index] = self.since_ms[index] = NEVER
        self.episodes.pop(index, None)
        self.allowed_ms[index] = _NOT_WATCHED

    def hear(
        self, assets: Int32, at_ms: Int64, order: Int64, *, every_ms: Int64 | None = None, place: Int64 | None = None
    ) -> Int64:
        """Move the clock on by a batch; how long each reading's asset had been silent, (row,) int64, in ``order``.

        assets, at_ms  (row,) as they came
        order          (row,) sorts them by asset, in the order of arrival within it
        every_ms       (time,) all times that move the clock, as they came, where others do as well: those of readings
                       that are passed over because their assets have applied them
        place          (row,) where each row is among them

        A silence is what the clock had moved before the reading came; 0 or less where the asset was never heard.
        """
        count = len(at_ms)
        if every_ms is None or place is None:
            every_ms, place = at_ms, np.arange(count)
        if not len(every_ms):
            return np.zeros(0, dtype=np.int64)
        start = self.newest_ms if self.newest_ms != NEVER else int(every_ms[0])
        newest = np.maximum.accumulate(np.maximum(every_ms, start))
        clock = np.empty(len(every_ms) + 1, dtype=np.int64)
        clock[0] = self.clock_ms
        clock[1:] = self.clock_ms + np.cumsum(np.minimum(np.diff(newest, prepend=start), self.step_ms))
        self.newest_ms, self.clock_ms = int(newest[-1]), int(clock[-1])
        if not count:
            return np.zeros(0, dtype=np.int64)
        slots, place = assets[order], place[order]
        first = firsts(slots)
        heard = np.empty(count, dtype=np.int64)
        heard[1:] = clock[place[:-1] + 1]
        begun = self.heard_ms[slots[first]]
        heard[first] = np.where(begun == NEVER, _NOT_WATCHED, begun)
        last = np.append(np.flatnonzero(first)[1:] - 1, count - 1)
        self.heard_ms[slots[last]] = clock[place[last] + 1]
        return clock[place] - heard

    def back(
        self, names: Sequence[str], slots: Int32, newest_ms: Int64, at_ms: Int64, silence_ms: Int64
    ) -> list[tuple[int, Alert]]:
        """The alerts of assets that were silent and are back, with their indices.

        slots, at_ms  (row,) a batch, sorted by asset
        newest_ms     (row,) the newest time that the asset had shown before
        silence_ms    (row,) as ``hear`` gave it
        """
        alerts = []
        for row in np.flatnonzero(silence_ms > self.allowed_ms[slots]).tolist():
            index = int(slots[row])
            if self.since_ms[index] == NEVER:  # silent and back within a batch
                alerts.append(self._open(names, index, int(newest_ms[row])))
            if silence_ms[row] > self.forget_after_ms:
                alerts += self._give_up(names, index)
            elif self.since_ms[index] > _GIVEN_UP:
                past_ms = int(silence_ms[row]) - int(self.allowed_ms[index])
                alerts += self._off_the_shelf(names, index, int(self.since_ms[index]) + past_ms)
                alerts += self._resolve(names, index, int(at_ms[row]))
            self.since_ms[index] = NEVER
        return alerts

    def silent(self, names: Sequence[str], newest_ms: Int64) -> list[tuple[int, Alert]]:
        """The alerts of assets that have fallen silent by now, and of those too long silent to be remembered.

        newest_ms  (asset,) the newest time that each has shown
        """
        if self.clock_ms <= self._due_ms:
            return []
        alerts = []
        silent_ms = np.where(self.heard_ms == NEVER, 0, self.clock_ms - self.heard_ms)
        for index in np.flatnonzero((silent_ms > self.allowed_ms) & (self.since_ms == NEVER)).tolist():
            alerts.append(self._open(names, index, int(newest_ms[index])))  # noqa: PERF401 (it changes state)
        for index in np.flatnonzero(silent_ms > self.forget_after_ms).tolist():
            alerts += self._give_up(names, index)
        for index in sorted(self.episodes):
            alerts += self._off_the_shelf(names, index, self._now_ms(index))
        left_ms = np.where(self.since_ms == NEVER, self.allowed_ms, self.forget_after_ms) - silent_ms
        left_ms[(self.heard_ms == NEVER) | (self.since_ms == _GIVEN_UP)] = _NOT_WATCHED
        # an asset that is heard for the first time falls silent after the shortest that is allowed, at the soonest
        soonest = min(int(left_ms.min(initial=_NOT_WATCHED)), int(self.allowed_ms.min(initial=_NOT_WATCHED)))
        shelved = [(index, held) for index, held in self.episodes.items() if held.shelved is not None]
        soonest = min([soonest, *(held.shelved_until_ms - self._now_ms(index) - 1 for index, held in shelved)])
        self._due_ms = self.clock_ms + soonest
        return alerts

    def open_alerts(self, names: Sequence[str]) -> list[Alert]:
        """The stale alerts that are open, as they were last published."""
        still = [(index, self._episode(index)) for index in np.flatnonzero(self.since_ms > _GIVEN_UP).tolist()]
        return [standing(held, RULES, self.identity, names[index]) for index, held in still if held.is_open]

    def is_stale(self, index: int) -> bool:
        """Whether an asset is silent for longer than it may be, and remembered."""
        return bool(self.since_ms[index] > _GIVEN_UP)

    def acted_on(self, index: int) -> Episode | None:
        """The episode of an asset's open stale alert, as of now, for an operator's action; None if there is none."""
        if not self.is_stale(index):
            return None
        episode = self._episode(index)
        episode.seen_ms = max(episode.seen_ms, self._now_ms(index))
        self._due_ms = 0  # a shelf may end before anything else is due
        return episode if episode.is_open else None

    def _now_ms(self, index: int) -> int:
        """What an asset that is stale would show now."""
        past_ms = self.clock_ms - int(self.heard_ms[index]) - int(self.allowed_ms[index])
        return int(self.since_ms[index]) + max(past_ms, 0)

    def _episode(self, index: int) -> Episode:
        """That of an asset that is stale; releases before this one kept none."""
        held = self.episodes.get(index)
        if held is None:
            held = self.episodes[index] = _begun(int(self.since_ms[index]))
            held.sequence = 1
        return held

    def _open(self, names: Sequence[str], index: int, newest_ms: int) -> tuple[int, Alert]:
        self.since_ms[index] = since_ms = newest_ms + int(self.allowed_ms[index])
        self.episodes[index] = _begun(since_ms)
        return index, self._alert(names, index, "open", since_ms)

    def _give_up(self, names: Sequence[str], index: int) -> list[tuple[int, Alert]]:
        if self.since_ms[index] <= _GIVEN_UP:
            return []
        alerts = self._resolve(names, index, int(self.since_ms[index]) + self.forget_after_ms)
        self.since_ms[index] = _GIVEN_UP
        return alerts

    def _resolve(self, names: Sequence[str], index: int, at_ms: int) -> list[tuple[int, Alert]]:
        """The end of a silence; nothing is left to tell where an operator has resolved its alert."""
        episode = self._episode(index)
        alerts = []
        if episode.is_open:
            episode.score = 0.0
            episode.lived("resolved", timestamp(at_ms))
            alerts.append((index, self._alert(names, index, "resolved", at_ms)))
        del self.episodes[index]
        return alerts

    def _off_the_shelf(self, names: Sequence[str], index: int, now_ms: int) -> list[tuple[int, Alert]]:
        """An alert whose shelf is over by ``now_ms``."""
        episode = self._episode(index)
        until_ms = episode.shelved_until_ms
        if not episode.is_open or episode.shelved is None or now_ms < until_ms:
            return []
        episode.shelved, episode.alarmed_ms = None, until_ms
        episode.lived("shelf_over", timestamp(until_ms))
        return [(index, self._alert(names, index, "updated", until_ms))]

    def _alert(self, names: Sequence[str], index: int, state: State, at_ms: int) -> Alert:
        episode = self.episodes[index]
        episode.seen_ms = episode.published_ms = at_ms
        return answer(episode, state, RULES, self.identity, names[index])


def _begun(since_ms: int) -> Episode:
    """The episode of a silence that has just become an alert."""
    episode = Episode(since_ms, 1.0, since_ms, verdict=STALE, opened_ms=since_ms, level=_MAJOR, score=1.0)
    episode.seen_ms = episode.published_ms = episode.alarmed_ms = since_ms
    episode.lived("open", timestamp(since_ms))
    return episode
