"""From a false alarm to a model that knows better: seen and labelled on the page, left to learn, compared, promoted."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Page, chromium
from feeder import Feeder, wait_committed
from learnt import draw
from worker_process import Worker, read_all, run, write_plan

from models.datasets import Recording
from models.train import train
from stream.plan import TopicSettings, load_plan
from stream.settings import KafkaSettings

pytestmark = [pytest.mark.broker, pytest.mark.browser, pytest.mark.timeout(400)]

TOKEN = "0123456789abcdef"
PLAN = """
[topics]
scores = "plant.scores.v1"
[models]
store = "versions"
[detectors.states]
kind = "mset"
assets = ["pump-*"]
artifact = "store:"
false_alarms_per_day = 1
on_delay_s = 5
off_delay_s = 20
"""
PUMP = "pump-1"
#: Rows of the pump's life, a second each.
CLEANING, AGAIN, FAULT, ROWS = slice(300, 360), slice(1600, 1660), slice(1900, 1960), 2000
FIRST, CALM = slice(0, 800), slice(800, 1500)


def life(make_recording: Callable[..., Recording]) -> Recording:
    """A pump that is cleaned twice, which is no fault, and runs hot once, which is one."""
    held = make_recording(PUMP, rows=ROWS, seed=1)
    for cleaning in (CLEANING, AGAIN):
        held.values[cleaning] += [12.0, -8.0, 0.0]
    held.values[FAULT, 1] += 8.0
    return held


def part(held: Recording, rows: slice) -> Recording:
    return Recording(held.asset, held.at_ms[rows], held.signals, held.values[rows], None)


async def label_on_the_page(page: Page, url: str) -> None:
    """What an operator does: looks, says that they have seen it, and that it was nothing."""
    await page.open(f"{url}/#/asset/{PUMP}")
    await page.wait_for("!!document.querySelector('#alerts')?.innerText.includes('pump-1')")
    for field, text in (("#by", "anna"), ("#token", TOKEN)):
        await page.wait_for(f"!!document.querySelector('{field}')?.offsetParent")
        await page.evaluate(f"document.querySelector('{field}').focus()")
        for key in text:
            await page.press(key)
    await page.press("Enter")
    await page.wait_for("document.querySelectorAll('.buttons:not([hidden])').length")
    await page.click("[data-deed=ack]")
    await page.wait_for("document.querySelector('.standing').innerText === 'Acknowledged by anna.'")
    await page.click("[data-deed=false_alarm]")
    await page.wait_for("document.querySelector('.standing').innerText.includes('threshold moved to')")


async def test_a_false_alarm_is_learnt_and_a_fault_is_not(
    kafka: KafkaSettings,
    topics: TopicSettings,
    start_worker: Callable[..., Worker],
    make_recording: Callable[..., Recording],
    tmp_path: Path,
) -> None:
    (tmp_path / "source.toml").write_text(PLAN)
    path = write_plan(tmp_path / "source.toml", topics, tmp_path, tmp_path)
    plan, pump = load_plan(path), life(make_recording)
    store = plan.open_store()
    history = [make_recording(PUMP, rows=2000, seed=seed) for seed in (11, 12)]
    first = store.add("states", train(history, detector="mset", seed=1))
    store.decide("states", "promote", serving=first)
    worker = start_worker(path, HEADRACE_PAGE_TOKEN=TOKEN)

    async def ours(*arguments: str) -> str:
        return await asyncio.to_thread(run, worker, *arguments, "--plan", str(path))

    async def play(rows: slice) -> None:
        feeder = Feeder(kafka, topics.readings, [part(pump, rows)]).start()
        await asyncio.to_thread(feeder.finish)
        await asyncio.to_thread(wait_committed, kafka, feeder, topics.readings, worker)

    async def alerts() -> list[dict[str, Any]]:
        lines = (await ours("alerts", "--until-end", "--json")).splitlines()
        return [json.loads(line) for line in lines]

    # the cleaning raises an alert, which is open while the operator looks
    await play(slice(FIRST.start, CLEANING.stop))
    (opened,) = [alert for alert in await alerts() if alert["state"] == "open"]
    assert onset(opened) in range(CLEANING.start, CLEANING.stop)
    async with chromium(tmp_path / "profile") as open_tab:
        await label_on_the_page(await open_tab(), worker.url)
    await play(slice(CLEANING.stop, FIRST.stop))
    told = [alert for alert in await alerts() if alert["id"] == opened["id"]]
    assert told[-1]["acknowledged"]["by"] == "anna"
    assert told[-1]["state"] == "resolved"
    assert max(alert["threshold"] for alert in told) > opened["threshold"]  # moved at once

    # a model that has seen the cleaning as normal is better, and scores beside what serves
    said = json.loads(await ours("retrain", "states", "--json"))
    assert (said["serving"]["repeated"], said["candidate"]["repeated"], said["candidate"]["excused"]) == (1, 0, 1)
    assert not said["promoted"]
    second = said["version"]
    assert store.now("states").candidate == second

    def compared() -> bool:
        return worker.metric("headrace_shadow_readings", detector="states") > 0

    # promoted while readings come
    feeder = Feeder(kafka, topics.readings, [part(pump, CALM)], rate=40).start()
    await asyncio.to_thread(worker.wait, compared, 60, "comparing")
    for _ in range(60):
        try:
            live = await ours("models", "compare", "states", "--live", "--json")
            break
        except AssertionError:  # no report yet
            await asyncio.sleep(0.5)
    assert json.loads(live.splitlines()[0])["candidate"] == second
    await ours("models", "promote", "states", second, "--why", "knows the cleaning")

    def serves() -> bool:
        return worker.metric("headrace_model_info", detector="states", version=second) == 1

    await asyncio.to_thread(worker.wait, serves, 60, "serving the new version")
    await asyncio.to_thread(feeder.finish)
    await asyncio.to_thread(wait_committed, kafka, feeder, topics.readings, worker)

    # the same again alarms no more, a fault does
    await play(slice(CALM.stop, ROWS))
    later = [alert for alert in await alerts() if onset(alert) >= CALM.start]
    assert {alert["model_version"] for alert in later} == {second}
    assert len({alert["id"] for alert in later}) == 1
    assert onset(later[0]) in range(FAULT.start, FAULT.stop)
    assert worker.stop() == 0
    rows = [json.loads(record.value) for record in read_all(kafka, plan.topics.scores)]
    every_reading_was_judged_once(rows, pump, {first, second})
    if folder := os.environ.get("HEADRACE_PICTURES"):
        draw(Path(folder) / "learnt.png", pump, rows, {"cleaned": CLEANING, "cleaned again": AGAIN, "runs hot": FAULT})


def onset(alert: dict[str, Any]) -> int:
    """The row at which an alert began."""
    at = np.datetime64(alert["onset"].removesuffix("Z"), "ms").astype(np.int64)
    return int(at - 1_764_000_000_000) // 1000


def every_reading_was_judged_once(rows: list[dict[str, Any]], pump: Recording, versions: set[str]) -> None:
    judged = {(row["ts"], row["detector"]) for row in rows}
    assert len(judged) == len(rows)
    window = 32
    assert len(judged) == len(pump.at_ms) - (window - 1)
    assert {row["model_version"] for row in rows} == versions
