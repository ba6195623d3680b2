"""The publisher: essential sinks insist, the others never disturb, refused output becomes dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from stream.errors import SinkRefused, SinkUnavailable
from stream.publish import Publisher
from stream.records import Alert, DeadLetter, Output
from stream.sinks.memory import MemorySink
from stream.sinks.prometheus import Metrics


def away(times: int) -> list[Exception]:
    return [SinkUnavailable("away", retry_after_s=0.0) for _ in range(times)]


def failures(metrics: Metrics, sink: str, reason: str) -> float:
    labels = {"sink": sink, "reason": reason}
    return metrics.registry.get_sample_value("headrace_sink_failures_total", labels) or 0.0


async def test_gives_every_sink_the_output_essential_ones_first(output: Output) -> None:
    order: list[str] = []

    class Noting(MemorySink):
        async def write(self, output: Output) -> None:
            order.append(self.name)
            await super().write(output)

    sinks = [Noting("history", essential=False), Noting("alerts"), Noting("copy")]
    publisher = Publisher(sinks)
    await publisher.start()
    assert all(sink.started for sink in sinks)
    await publisher.publish(output)
    assert order == ["alerts", "copy", "history"]
    assert all(sink.outputs == [output] for sink in sinks)
    await publisher.stop()
    await publisher.stop()
    assert not any(sink.started for sink in sinks)


async def test_insists_on_an_essential_sink_and_writes_once_when_it_is_back(output: Output) -> None:
    sink, history, metrics = MemorySink(failures=away(3)), MemorySink("history", essential=False), Metrics()
    await Publisher([sink, history], metrics=metrics).publish(output)
    assert sink.outputs == history.outputs == [output]
    assert failures(metrics, "memory", "unavailable") == 3


async def test_nothing_reaches_the_others_before_an_essential_sink_has_it(output: Output) -> None:
    sink, history = MemorySink(failures=[SinkUnavailable("away", 60.0)]), MemorySink("history", essential=False)
    publisher = Publisher([sink, history])
    publishing = asyncio.create_task(publisher.publish(output))
    await asyncio.sleep(0.01)
    assert history.outputs == []
    await publisher.stop()
    await publishing  # stopping wakes it for one last try, which succeeds
    assert sink.outputs == [output]


async def test_stopping_while_a_sink_is_away_says_so_to_the_caller(output: Output) -> None:
    publisher = Publisher([MemorySink(failures=[SinkUnavailable("away", 60.0), SinkUnavailable("still away", 60.0)])])
    publishing = asyncio.create_task(publisher.publish(output))
    await asyncio.sleep(0.01)
    await publisher.stop()
    with pytest.raises(SinkUnavailable, match="still away"):
        await publishing


async def test_a_refused_output_becomes_dead_letters_and_the_rest_goes_on(output: Output) -> None:
    sink, history, metrics = (
        MemorySink(failures=[SinkRefused("too odd")]),
        MemorySink("history", essential=False),
        Metrics(),
    )
    await Publisher([sink, history], metrics=metrics).publish(output)
    stages = [(letter.stage, letter.reason) for letter in sink.dead]
    assert stages == [("decode", "not_json"), ("publish", "refused"), ("publish", "refused")]
    assert sink.dead[1].record.key == b"a1"
    assert b'"state":"open"' in (sink.dead[1].record.value or b"")
    assert history.outputs == [output]
    assert failures(metrics, "memory", "refused") == 1


async def test_only_what_was_refused_is_buried(output: Output, make_dead: Callable[..., DeadLetter]) -> None:
    grave, letter = MemorySink("grave"), make_dead(b"the odd one")
    sink = MemorySink(failures=[SinkRefused("one was odd", [letter])])
    await Publisher([sink], dead_letter_sink=grave).publish(output)
    assert grave.dead == [letter]


async def test_what_is_refused_twice_is_logged_in_full(output: Output, caplog: pytest.LogCaptureFixture) -> None:
    sink = MemorySink(failures=[SinkRefused("odd"), SinkRefused("still odd")])
    with caplog.at_level(logging.ERROR):
        await Publisher([sink]).publish(output)
    assert "lost, refused twice" in caplog.text
    assert "not json" in caplog.text


@pytest.mark.parametrize("error", [SinkUnavailable("away"), SinkRefused("odd"), ValueError("a fault of ours")])
async def test_a_failing_sink_that_is_not_essential_disturbs_nobody(output: Output, error: Exception) -> None:
    broken, history = MemorySink("broken", essential=False, failures=[error]), MemorySink("history", essential=False)
    sink, metrics = MemorySink(), Metrics()
    await Publisher([broken, sink, history], metrics=metrics).publish(output)
    assert sink.outputs == history.outputs == [output]
    assert sum(failures(metrics, "broken", reason) for reason in ("unavailable", "refused", "error")) == 1


async def test_a_fault_of_an_essential_sink_reaches_the_caller(output: Output) -> None:
    with pytest.raises(ZeroDivisionError):
        await Publisher([MemorySink(failures=[ZeroDivisionError()])]).publish(output)


async def test_a_slow_sink_does_not_hold_up_its_neighbours(output: Output) -> None:
    class Slow(MemorySink):
        async def write(self, output: Output) -> None:
            await asyncio.sleep(0.2)

    history = MemorySink("history", essential=False)
    publishing = asyncio.create_task(Publisher([Slow("slow", essential=False), history]).publish(output))
    await asyncio.sleep(0.02)
    assert history.outputs == [output]
    await publishing


async def test_start_fails_with_an_essential_sink_and_stops_those_before_it() -> None:
    class Absent(MemorySink):
        async def start(self) -> None:
            raise SinkUnavailable("nobody answers at 127.0.0.1:1")

    first = MemorySink("first")
    with pytest.raises(SinkUnavailable, match="nobody answers"):
        await Publisher([first, Absent()]).start()
    assert not first.started


async def test_a_sink_that_is_not_essential_need_not_start(output: Output, make_alert: Callable[..., Alert]) -> None:
    class Late(MemorySink):
        absent = True

        async def start(self) -> None:
            if self.absent:
                raise OSError("no route")
            await super().start()

    late, sink = Late("late", essential=False), MemorySink()
    publisher = Publisher([late, sink])
    await publisher.start()
    await publisher.publish(output)
    assert (late.outputs, sink.outputs) == ([], [output])
    late.absent, publisher._not_started["late"] = False, 0.0
    await publisher.publish(output)
    assert late.outputs == [output]


async def test_the_metrics_watch_sinks_that_hold_lines() -> None:
    class Holding(MemorySink):
        held_lines, written_lines, refused_lines, dropped_lines, failed_writes, spooled_bytes = 5, 4, 3, 2, 1, 9

    metrics = Metrics()
    await Publisher([Holding("store", essential=False)], metrics=metrics).start()
    assert metrics.registry.get_sample_value("headrace_sink_held_lines", {"sink": "store"}) == 5
    assert metrics.registry.get_sample_value("headrace_sink_spooled_bytes", {"sink": "store"}) == 9
    lines = {"sink": "store", "outcome": "dropped"}
    assert metrics.registry.get_sample_value("headrace_sink_lines_total", lines) == 2
