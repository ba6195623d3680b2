"""How long it takes from a reading's being produced until its alert can be read from the topic, at half load."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from figures.board import LOST, RECORDS
from figures.broker import BATCH_BYTES, PARTITIONS, Payloads, Sender
from figures.figure import Budget, Figure, Lost, Measured
from figures.plant import Fleet
from figures.process import Topic, Variant

FIGURES: Final = (
    Figure("latency_p50", "produce to alert on the topic at half load, p50", "ms", 50.0, 20.0, lower=True),
    Figure("latency_p99", "produce to alert on the topic at half load, p99", "ms", 250.0, 100.0, lower=True),
)

_ASSETS: Final = 1000
_ALERTS: Final = 400  # of as many assets, one each
_TICK_S: Final = 0.005  # the producer sends what is due so often
_FETCH_WAIT_MS: Final = 10  # the embedded broker looks for new records only every half of it
_LEAD_S: Final = 0.5  # before the first outlier


def measure(folder: Path, artifact: Path, bootstrap: str, budget: Budget) -> dict[str, Measured]:
    """The full rate first (records that wait, wall time), then half of it, steady; every so many readings an outlier.

    An outlier is 1,000 off in every signal and surely alarms; each is of another asset. The time runs from just before
    the outlier's batch is given to the producer until this process has the alert from the topic: producer, broker,
    worker, broker, consumer. The note has the time up to the alert record's own timestamp as well, which the worker's
    producer sets. All readings must arrive, and all outliers must alarm.
    """
    fleet = Fleet(_ASSETS)
    topic = Topic(bootstrap, folder, artifact)
    with Variant("worker", topic) as worker:
        worker.ready()
        worker.round(fleet.payloads(32), readings=32 * _ASSETS, scores=None)
        full = []
        for _ in range(3):
            cost = worker.round(fleet.payloads(20), readings=20 * _ASSETS, scores=20 * _ASSETS)
            full.append(20 * _ASSETS / cost.wall_s)
        rate = float(np.median(full)) / 2
        seconds = 8.0 if budget.seconds < 60 else 20.0
        rows = max(int(rate * seconds / _ASSETS), 2)
        payloads = fleet.payloads(rows)
        marked = _mark(payloads, int(rate * _LEAD_S))
        before = worker.total(RECORDS)
        got, stamped = asyncio.run(_steady(topic, payloads, marked, rate))
        worker.wait(lambda: worker.total(RECORDS) >= before + len(payloads), 30.0, "through")
        if worker.total(LOST) or len(got) != len(marked):
            raise Lost(f"{len(got)} alerts of {len(marked)} outliers, {worker.total(LOST):,.0f} readings dead or late")
    p50, p99 = (float(np.percentile(got, q)) * 1000 for q in (50, 99))
    own = "to the alert's own timestamp {:.0f} / {:.0f} ms".format(
        *(np.percentile(stamped, q) * 1000 for q in (50, 99))
    )
    note = f"{len(got)} alerts at {rate:,.0f} readings/s, half of the full rate; {own}"
    return {"latency_p50": Measured(p50, note), "latency_p99": Measured(p99, note)}


def _mark(payloads: list[tuple[bytes, bytes]], first: int) -> dict[int, str]:
    """Put outliers into ``payloads`` from index ``first`` on; index to asset."""
    marked: dict[int, str] = {}
    used: set[bytes] = set()
    for target in np.linspace(first, len(payloads) - 1, _ALERTS, dtype=int).tolist():
        # In the order of time assets follow each other: go on to the next one that has not had an outlier yet.
        index = next((at for at in range(target, len(payloads)) if payloads[at][0] not in used), None)
        if index is None:
            break
        key, value = payloads[index]
        reading = msgspec.json.decode(value)
        reading["values"] = {signal: number + 1000.0 for signal, number in reading["values"].items()}
        payloads[index] = key, msgspec.json.encode(reading)
        used.add(key)
        marked[index] = key.decode()
    return marked


async def _steady(
    topic: Topic, payloads: Payloads, marked: dict[int, str], rate: float
) -> tuple[list[float], list[float]]:
    """Send at ``rate`` and read the alerts meanwhile; seconds until each was here, and until its own timestamp."""
    alerts = f"{topic.name}.alerts"
    consumer = AIOKafkaConsumer(
        bootstrap_servers=topic.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=_FETCH_WAIT_MS
    )
    producer = AIOKafkaProducer(bootstrap_servers=topic.bootstrap, max_batch_size=BATCH_BYTES)
    await consumer.start()
    await producer.start()
    partitions = [TopicPartition(alerts, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    sent: dict[str, float] = {}
    here: dict[str, float] = {}
    stamps: dict[str, float] = {}
    reader = asyncio.create_task(_read(consumer, here, stamps, len(marked)))
    try:
        await _send(Sender(producer, topic.name), payloads, marked, rate, sent)
        with contextlib.suppress(TimeoutError):  # the caller counts
            await asyncio.wait_for(reader, 15.0)
    finally:
        reader.cancel()
        await producer.stop()
        await consumer.stop()
    unknown = here.keys() - sent.keys()
    if unknown:
        raise Lost(f"alerts of {len(unknown)} assets that had no outlier: {min(unknown)}")
    return [here[key] - sent[key] for key in here], [max(stamps[key] - sent[key], 0.0) for key in here]


async def _send(
    sender: Sender, payloads: Payloads, marked: dict[int, str], rate: float, sent: dict[str, float]
) -> None:
    start, done = time.time(), 0
    at: Sequence[int] = sorted(marked)
    following = 0
    futures: list[Any] = []
    while done < len(payloads):
        await asyncio.sleep(_TICK_S)
        now = time.time()
        due = min(int((now - start) * rate), len(payloads))
        while following < len(at) and at[following] < due:
            sent[marked[at[following]]] = now
            following += 1
        if due > done:
            futures += await sender.send(payloads[done:due])
            done = due
    await asyncio.gather(*futures)


async def _read(consumer: Any, here: dict[str, float], stamps: dict[str, float], count: int) -> None:
    while len(here) < count:
        found = await consumer.getmany(timeout_ms=100)
        now = time.time()
        for records in found.values():
            for record in records:
                alert = json.loads(record.value)
                if alert["state"] == "open" and alert["asset"] not in here:
                    here[alert["asset"]] = now
                    stamps[alert["asset"]] = record.timestamp / 1000.0
