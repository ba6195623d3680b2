"""The contract of a sink: somewhere the results of a batch go.

A new sink is one file beside this one: a class that follows ``Sink``, and its settings next to it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from stream.records import Output


@runtime_checkable
class Sink(Protocol):
    """Takes the output of batches, in order.

    ``essential`` says whether a batch may be acknowledged before this sink has it. An essential sink's ``write``
    returns once the output is safe; any other's returns at once and holds the output itself, within a bound, until it
    is written.

    A sink that is not essential may have an attribute ``bury``: the publisher sets it to a coroutine function that
    takes dead letters, for what the sink's server will never take. One that remembers which alerts are open has a
    method ``reopen(alerts)``: after a rebalance these are what this worker has, and all others are another worker's.
    """

    name: str
    essential: bool

    async def start(self) -> None:
        """Connect. Raises ``SinkUnavailable`` if an essential sink cannot be reached."""
        ...

    async def write(self, output: Output) -> None:
        """Take one batch's output. Writing the same output twice must do no harm.

        Raises ``SinkUnavailable(retry_after_s)`` for "try again with the same", ``SinkRefused`` for "never".
        """
        ...

    async def stop(self) -> None:
        """Write what is held, within a few seconds, and disconnect. Safe to call twice, or without ``start``."""
        ...
