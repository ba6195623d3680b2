"""The record of a fault, and of what came of it: one row of the table in docs/reliability.md."""

from __future__ import annotations

from dataclasses import dataclass

from oracle import Judgement


@dataclass
class Fault:
    """What came of a fault, over all tries of a test.

    lost, repeated   pieces of output, as ``oracle.Judgement`` counts them
    recovery_s       from the fault until all is as if it had not been, the longest of the tries; None where that has no
                     meaning
    note             what else there is to say, in a few words
    """

    fault: int
    what: str
    broker: str
    tries: int = 0
    lost: int = 0
    repeated: int = 0
    recovery_s: float | None = None
    passed: bool = False
    note: str = ""

    def tried(
        self, judgement: Judgement | None = None, *, tries: int = 1, recovery_s: float | None = None, lost: int = 0
    ) -> None:
        """Add ``tries`` of the fault, and what one judgement over them all says."""
        self.tries += tries
        self.lost += lost
        if judgement is not None:
            self.lost += judgement.lost
            self.repeated += judgement.repeated
        if recovery_s is not None:
            self.recovery_s = round(max(recovery_s, self.recovery_s or 0.0), 2)
