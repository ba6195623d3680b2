"""A model grown while the worker runs, for detectors that began without history (``begins_as`` in the plan).

When the readings topic holds ``HEADRACE_WORKER_GROW_AFTER_S`` seconds of event time, a process of its own trains the
plan's detector on them and examines it beside what serves (``headrace grow``, ``stream.commands.exam``). If it passes,
the store and the models topic have it, and all workers go on with it as with any promotion (``stream.swap``). If not,
there is a next time when there is twice as much; what was tried is read from the store, so a restart does not try anew.

The process runs at the lowest priority, within bounds, with nothing of it in this one but a pipe: it ends with the
worker, however that ends. What goes wrong there is a line in the log and a count in the metrics; the worker goes on. Of
a group's workers the one that has the readings topic's first partition grows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import msgspec

from models.errors import ModelError
from models.store import Store
from stream.errors import BrokerError, ConfigError
from stream.history import held_from_to
from stream.plan import Plan
from stream.settings import KafkaSettings

_log = logging.getLogger(__name__)

#: What came of it: it serves; it failed the exam; something else serves by now; there is too little clean history; the
#: store did not take it; the process died; it was ended, for another worker has the first partition now.
Outcome = Literal["promoted", "no_better", "not_needed", "too_little", "store", "failed", "stopped"]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

#: Between two looks at what the topic holds.
_SOONEST_S, _LATEST_S = 5.0, 30.0
#: After the store or the process failed: at first, and at most; it doubles.
_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 3600.0
_MOST_S: Final = 6 * 3600.0
_CHECK_S: Final = 1.0
_END_S: Final = 5.0
_TAIL_BYTES: Final = 8 << 10


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it, why, and the version that is kept for it, if one is."""

    outcome: Outcome
    why: str
    version: str = ""


class Observer(Protocol):
    """What is told to the metrics; ``stream.sinks.model_metrics.ModelMetrics`` follows it."""

    def may_grow(self, detector: str) -> None:
        """There is such a detector."""
        ...

    def growing(self, detector: str, on: bool) -> None:
        """Whether a model is being grown for it."""
        ...

    def grew(self, detector: str, outcome: Outcome) -> None:
        """What came of it."""
        ...


def why_not(plan: Plan, detector: str, store: Store) -> str:
    """Why there is nothing to grow for a detector; empty where there is. Raises ``ModelError``."""
    model = plan.stored(detector)
    now = store.now(model)
    if not now.serving:
        return ""
    if not plan.detectors[detector].is_young(store.load(model, now.serving).manifest.detector):
        return f"{now.serving} serves"
    return f"{now.by} went back to {now.serving}: headrace grow would undo that" if now.action == "rollback" else ""


def tried(store: Store, model: str) -> tuple[int, int] | None:
    """From the oldest to the newest reading that any grown version of a model was examined on, epoch milliseconds."""
    exams = [store.origin(model, version).get("exam") for version in store.versions(model)]
    spans = [(exam.get("from_ms"), exam.get("to_ms")) for exam in exams if isinstance(exam, dict)]
    known = [(first, last) for first, last in spans if isinstance(first, int) and isinstance(last, int)]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None


class Growing:
    """Sees to it that models are grown; ``run`` is its task.

    after_s   of event time; above 0
    young     whether a detector is at work as what it begins with
    owns      whether this worker is the one of its group that grows
    promoted  called when a grown model has been promoted
    command   what runs ``headrace``
    """

    def __init__(
        self,
        plan: Plan,
        plan_path: Path,
        kafka: KafkaSettings,
        *,
        after_s: float,
        metrics: Observer,
        young: Callable[[str], bool],
        owns: Callable[[], bool],
        promoted: Callable[[], object],
        command: Sequence[str] = (sys.executable, "-m", "stream.cli"),
    ) -> None:
        self._plan = plan
        self._plan_path = plan_path
        self._kafka = kafka
        self._after_s = after_s
        self._metrics = metrics
        self._young = young
        self._owns = owns
        self._promoted = promoted
        self._command = command
        self._detectors = [name for name, settings in plan.detectors.items() if settings.grows]
        self._store = plan.open_store()
        #: By detector: the oldest reading known, and of how many seconds from there on nothing came of it yet.
        self._tried: dict[str, tuple[int | None, float]] = {}
        self._rest: dict[str, tuple[float, float]] = {}
        for detector in self._detectors:
            metrics.may_grow(detector)

    async def run(self) -> None:
        """Look, and grow what is due, until cancelled."""
        logging.getLogger("kafka").setLevel(logging.WARNING)  # it tells of every connection, and each look makes one
        pause_s = _SOONEST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = await self.look()

    async def look(self) -> float:
        """Grow what is due now; seconds until the next look."""
        young = [detector for detector in self._detectors if self._young(detector)]
        if not young or not self._owns():
            self._tried.clear()  # another worker may try meanwhile
            return _LATEST_S
        pause_s = _LATEST_S
        for detector in young:
            if time.monotonic() < self._rest.get(detector, (0.0, 0.0))[0]:
                continue
            try:
                missing_s = await asyncio.to_thread(self._missing_s, detector)
            except (BrokerError, ConfigError, ModelError) as error:
                _log.warning("growing %s: not known how much there is: %s", detector, error)
                continue
            if missing_s > 0:
                pause_s = min(pause_s, max(missing_s / 4, _SOONEST_S))
                continue
            self._take(detector, await self._grow(detector))
        return pause_s

    def _missing_s(self, detector: str) -> float:
        """Seconds of event time that have to come before it is tried; in a thread."""
        if detector not in self._tried:
            span = tried(self._store, self._plan.stored(detector))
            self._tried[detector] = (None, 0.0) if span is None else (span[0], (span[1] - span[0]) / 1000)
        held = held_from_to(self._kafka, self._plan, self._plan.detectors[detector].signals)
        if held is None:
            return self._after_s
        begun_ms, spent_s = self._tried[detector]
        first_ms = held[0] if begun_ms is None else min(begun_ms, held[0])
        there_s = (held[1] - first_ms) / 1000
        missing_s = max(self._after_s, 2 * spent_s) - there_s
        if missing_s <= 0:
            if why := why_not(self._plan, detector, self._store):
                _log.info("growing %s: nothing to do: %s", detector, why)
                missing_s = there_s
            self._tried[detector] = first_ms, there_s
        return missing_s

    def _take(self, detector: str, told: Told) -> None:
        self._metrics.grew(detector, told.outcome)
        kind = self._plan.detectors[detector].kind
        if told.outcome == "promoted":
            _log.info("growing %s: %s %s has passed its exam: %s", detector, kind, told.version, told.why)
            self._promoted()
        elif told.outcome in {"no_better", "too_little"}:
            _log.info(
                "growing %s: %s %s; it is tried again when there are readings of %.0f s",
                detector, f"{kind} {told.version} has not passed its exam:" if told.version else "too early:",
                told.why, 2 * self._tried[detector][1],
            )  # fmt: skip
        elif told.outcome in {"store", "failed"}:
            _, before_s = self._rest.get(detector, (0.0, _PAUSE_S / 2))
            pause_s = min(2 * before_s, _LONGEST_PAUSE_S)
            self._rest[detector] = time.monotonic() + pause_s, pause_s
            del self._tried[detector]  # there was no exam
            where = "the store did not take it" if told.outcome == "store" else "it failed"
            _log.error("growing %s: %s, and is tried again in %.0f s: %s", detector, where, pause_s, told.why)
        else:
            self._tried.pop(detector, None)
            _log.info("growing %s: %s: %s", detector, told.outcome, told.why)

    async def _grow(self, detector: str) -> Told:
        _log.info("growing a %s for %s from what has arrived", self._plan.detectors[detector].kind, detector)
        self._metrics.growing(detector, True)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, "grow", detector, "--plan", str(self._plan_path), "--json", "--background",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )  # fmt: skip
        except OSError as error:
            self._metrics.growing(detector, False)
            return Told("failed", f"{self._command[0]}: {error.strerror or error}")
        try:
            return await self._attend(process)
        finally:
            self._metrics.growing(detector, False)
            if process.returncode is None:
                process.kill()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), _END_S)

    async def _attend(self, process: asyncio.subprocess.Process) -> Told:
        """Wait for the process; what it says."""
        talk = asyncio.gather(_all(process.stdout), _all(process.stderr), process.wait())
        deadline = time.monotonic() + _MOST_S
        try:
            while not talk.done():
                await asyncio.wait({talk}, timeout=_CHECK_S)
                if talk.done():
                    break
                if not self._owns():
                    return Told("stopped", "another worker has the first partition of the readings")
                if time.monotonic() > deadline:
                    return Told("failed", f"not done within {_MOST_S:.0f} s")
            said, complaint, status = await talk
        finally:
            talk.cancel()
        return read_told(said, complaint, status)


def read_told(said: bytes, complaint: bytes, status: int) -> Told:
    """What the process wrote last, if it ended well, or how it ended."""
    if status == 0:
        with suppress(IndexError, msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.convert(_fields(said.splitlines()[-1]), Told)
    lines = complaint.decode(errors="replace").strip().splitlines()
    ended = f"the process was ended by signal {-status}" if status < 0 else f"the process ended with status {status}"
    return Told("failed", f"{ended}: {lines[-1].strip()[:500] if lines else 'it said nothing'}")


def _fields(line: bytes) -> dict[str, Any]:
    found = msgspec.json.decode(line, type=dict[str, Any])
    return {name: found[name] for name in ("outcome", "why", "version") if name in found}


async def _all(pipe: asyncio.StreamReader | None) -> bytes:
    """What comes through a pipe: the end of it."""
    held = b""
    while pipe is not None and (more := await pipe.read(1 << 16)):
        held = (held + more)[-_TAIL_BYTES:]
    return held
