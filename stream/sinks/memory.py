"""Keeps everything in lists: for tests, notebooks and replays that only look."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from stream.records import Alert, DeadLetter, Late, Output, Scores


class MemorySink:
    """Takes every output and remembers it, in order.

    failures   errors that ``write`` raises first, one a call and before anything is remembered: how a test makes a sink
               that is away (``SinkUnavailable``), that refuses (``SinkRefused``) or that is broken (anything else)
    """

    def __init__(self, name: str = "memory", *, essential: bool = True, failures: Iterable[Exception] = ()) -> None:
        self.name = name
        self.essential = essential
        self.failures = deque(failures)
        self.outputs: list[Output] = []
        self.started = False

    @property
    def alerts(self) -> list[Alert]:
        """Every transition that was written."""
        return [alert for output in self.outputs for alert in output.alerts]

    @property
    def scores(self) -> list[Scores]:
        """The scores of every batch."""
        return [scores for output in self.outputs for scores in output.scores]

    @property
    def dead(self) -> list[DeadLetter]:
        """Every dead letter."""
        return [letter for output in self.outputs for letter in output.dead]

    @property
    def late(self) -> list[Late]:
        """Every late record."""
        return [late for output in self.outputs for late in output.late]

    async def start(self) -> None:
        """Nothing to connect to."""
        self.started = True

    async def write(self, output: Output) -> None:
        """Remember the output, or raise the next of ``failures``."""
        if self.failures:
            raise self.failures.popleft()
        self.outputs.append(output)

    async def stop(self) -> None:
        """What was written stays readable."""
        self.started = False
