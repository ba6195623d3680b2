"""Ends a worker that does not get on, from a thread that needs nothing of what may hang.

An orchestrator starts it again; what it had not committed is read again, and what it knew is in its snapshots. A broker
that is away is no reason: the worker waits for it, is not ready meanwhile, and goes on by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from stream.web import Health

_log = logging.getLogger(__name__)


class Watchdog:
    """Looks at ``health`` every ``every_s`` and calls ``end`` once when the worker should be restarted."""

    def __init__(self, health: Health, end: Callable[[], object], *, every_s: float = 1.0) -> None:
        self._health = health
        self._end = end
        self._every_s = every_s
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look; it ends with the process."""
        self._thread.start()

    def _run(self) -> None:
        while not (reasons := self._health.stalled()):
            time.sleep(self._every_s)
        _log.critical("the worker does not get on and ends, to be started again: %s", "; ".join(reasons))
        self._end()
