"""What operators do about an asset that sends nothing: as about any other alert, over a restart too."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from through import records_of

from models.datasets import Recording
from stream.actions import Action
from stream.assembly import Image
from stream.pipeline import Pipeline
from stream.plan import Plan, QualitySettings
from stream.records import Alert, Output, Record
from stream.shelf import Shelf
from stream.sinks.news import TEMPLATE, News
from stream.sinks.webhook import WebhookSettings
from stream.sources.json import timestamp
from stream.state import Block, decode, encode

AT_MS = 1_764_000_000_000
NOW = "2026-11-25T08:00:00.000Z"


@pytest.fixture
def watching(plan: Plan) -> Plan:
    return plan.model_copy(update={"quality": QualitySettings(stale_after_periods=20)})


@pytest.fixture
def records(make_recording: Callable[..., Recording]) -> list[Record]:
    """Three pumps; pump-2 says nothing from its 70th second to its 170th. Three records a second."""
    pumps = [make_recording(f"pump-{number}", rows=200, seed=number) for number in (1, 2, 3)]
    rows = np.r_[0:70, 170:200]
    pumps[1] = replace(pumps[1], at_ms=pumps[1].at_ms[rows], values=pumps[1].values[rows])
    return records_of(pumps)


def upto(records: Sequence[Record], second: int) -> int:
    return next((at for at, held in enumerate(records) if held.timestamp >= AT_MS + second * 1000), len(records))


class Watch:
    """A pipeline that is given the records in turn."""

    def __init__(self, plan: Plan, records: Sequence[Record]) -> None:
        self.plan, self.records, self.at = plan, records, 0
        self.pipeline = Pipeline(plan, Shelf(plan))

    def play(self, second: int, step: int = 25) -> list[Alert]:
        """Until this second of the plant's time; the stale alerts that come."""
        stop, outputs = upto(self.records, second), []
        while self.at < stop:
            upon = min(self.at + step, stop)
            outputs.append(self.pipeline.process(0, self.records[self.at : upon]))
            self.at = upon
        return stale(outputs)

    def act(self, action: str, alert: Alert, **more: Any) -> list[Alert]:
        word = {"action": action, "asset": alert.asset, "alert": alert.id, "by": "anna", "at": NOW}
        return stale([self.pipeline.act(msgspec.convert({**word, "id": f"{action}-0001", **more}, Action))])

    def restart(self) -> None:
        """A new process, from a snapshot that went through its bytes."""
        (block,) = self.pipeline.take(0, [0])
        held = decode(encode(block))
        assert isinstance(held, Block)
        image = Image(applied=self.at - 1, size=held.size, blocks={0: held}, clock=self.pipeline._of(0)._clock())
        self.pipeline = Pipeline(self.plan, Shelf(self.plan))
        assert not self.pipeline.restore(0, image).anew


def stale(outputs: Sequence[Output]) -> list[Alert]:
    return [alert for output in outputs for alert in output.alerts if alert.detector == "stale"]


def lived(alert: Alert) -> list[str]:
    return [event.what for event in alert.life]


@pytest.mark.parametrize("restarts", [False, True])
def test_it_is_acknowledged_and_resolves_by_itself_all_the_same(
    watching: Plan, records: list[Record], restarts: bool
) -> None:
    watch = Watch(watching, records)
    (opened,) = watch.play(100)
    assert (opened.state, opened.severity, lived(opened)) == ("open", "major", ["open"])
    (seen,) = watch.act("ack", opened, comment="gateway is replaced")
    assert (seen.id, seen.sequence, seen.state, seen.action) == (opened.id, 1, "updated", "ack-0001")
    assert seen.acknowledged is not None
    assert seen.acknowledged.by == "anna"
    assert opened.onset < seen.last_seen <= timestamp(AT_MS + 100_000)
    if restarts:
        watch.restart()
    assert [held.acknowledged for held in watch.pipeline.open_alerts() if held.detector == "stale"] == [
        seen.acknowledged
    ]
    assert watch.act("ack", opened) == []  # the topic is read again at each start: nothing is done twice
    (over,) = watch.play(200)
    assert (over.id, over.sequence, over.state, over.resolved) == (opened.id, 2, "resolved", timestamp(AT_MS + 170_000))
    assert lived(over) == ["open", "ack", "resolved"]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("step", [1, 25, 500])
def test_a_shelf_ends_in_the_time_that_the_asset_would_have_though_it_says_nothing(
    watching: Plan, records: list[Record], restarts: bool, step: int
) -> None:
    watch = Watch(watching, records)
    (opened,) = watch.play(100, step)
    (shelved,) = watch.act("shelve", opened, for_s=30)
    assert shelved.shelved is not None
    assert not shelved.told
    if restarts:
        watch.restart()
    again, over = watch.play(200, step)
    assert (again.state, again.shelved, lived(again)) == ("updated", None, ["open", "shelve", "shelf_over"])
    assert again.last_seen == shelved.shelved.until
    assert timestamp(AT_MS + 125_000) <= again.last_seen <= timestamp(AT_MS + 130_000)
    assert over.state == "resolved"


@pytest.mark.parametrize("restarts", [False, True])
def test_resolved_by_a_person_it_says_nothing_more_until_the_asset_has_spoken(
    watching: Plan, records: list[Record], restarts: bool
) -> None:
    watch = Watch(watching, records)
    (opened,) = watch.play(100)
    (over,) = watch.act("resolve", opened)
    assert (over.state, lived(over)) == ("resolved", ["open", "resolve"])
    if restarts:
        watch.restart()
    assert watch.play(200) == []
    assert not [held for held in watch.pipeline.open_alerts() if held.detector == "stale"]
    assert not watch.pipeline._of(0).presence.episodes  # type: ignore[union-attr]


def test_an_action_that_came_before_its_alert_is_done_when_it_opens(watching: Plan, records: list[Record]) -> None:
    first = Watch(watching, records)
    (opened,) = first.play(100)
    again = Watch(watching, records)  # a crash: the topic is read first, then the readings come once more
    assert again.act("ack", opened) == []
    told = again.play(100)
    assert [held.action for held in told] == ["", "ack-0001"]


def test_maintenance_keeps_it_from_people_and_tells_of_it_at_its_end(watching: Plan, records: list[Record]) -> None:
    watch = Watch(watching, records)
    (opened,) = watch.play(100)
    word = {"asset": "pump-*", "by": "anna", "at": NOW}
    (muted,) = stale(
        [watch.pipeline.act(msgspec.convert({**word, "action": "maintenance_start", "id": "m-000001"}, Action))]
    )
    assert (muted.id, muted.told) == (opened.id, False)
    (told,) = stale(
        [watch.pipeline.act(msgspec.convert({**word, "action": "maintenance_stop", "id": "m-000002"}, Action))]
    )
    assert told.told


def test_a_snapshot_of_a_release_before_has_no_episodes_and_its_alerts_go_on(
    watching: Plan, records: list[Record]
) -> None:
    watch = Watch(watching, records)
    (opened,) = watch.play(100)
    watch.pipeline._of(0).presence.episodes.clear()  # type: ignore[union-attr]
    watch.restart()
    (seen,) = watch.act("ack", opened)
    assert (seen.id, seen.sequence) == (opened.id, 1)
    (over,) = watch.play(200)
    assert (over.sequence, over.state) == (2, "resolved")


def test_people_are_told_that_it_is_there_that_somebody_sees_to_it_and_that_it_is_over(
    watching: Plan, records: list[Record]
) -> None:
    watch, news = Watch(watching, records), News(TEMPLATE, WebhookSettings().link)
    alerts = watch.play(100)
    alerts += watch.act("ack", alerts[0])
    alerts += watch.play(200)
    posts = [news.post(alert) for alert in alerts]
    assert [post and json.loads(post.body)["type"] for post in posts] == [
        "alert.open", "alert.acknowledged", "alert.resolved",
    ]  # fmt: skip
