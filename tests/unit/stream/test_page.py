"""What the live page remembers: the newest of every asset, alerts, and rows to draw; all of it bounded."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.page.alerts import AlertBook
from stream.page.board import ALERTS_KEPT, ASSETS_SHOWN, Board
from stream.page.listing import STATES
from stream.page.recent import ROWS, Recent
from stream.records import Alert, Numbered, Output, Scores

MakeScores = Callable[..., Scores]
MakeAlert = Callable[..., Alert]
AT_MS = 1_764_000_000_000


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(site="north", units={"heat": "degC"}, clock=clock, wall=clock)


def plain(answer: Any) -> Any:
    """As the browser gets it."""
    return msgspec.json.decode(msgspec.json.encode(answer))


def states(board: Board) -> dict[str, str]:
    return {asset["name"]: asset["state"] for asset in board.overview()["assets"]}


def test_an_asset_is_as_its_worst_detector_says(board: Board, make_scores: MakeScores) -> None:
    board.take(
        Output(
            scores=(
                make_scores(rows=4, score=np.array([9.0, 1.0, 1.5, np.nan])),  # pump-0 came down, pump-1 has no value
                make_scores(rows=2, detector="slow", score=np.array([0.3, 0.6])),
            )
        )
    )
    first, second = board.overview()["assets"]
    assert (first["name"], first["state"], first["ratio"], first["detector"]) == ("pump-0", "normal", 0.5, "pumps")
    assert (second["name"], second["state"], second["ratio"], second["detector"]) == ("pump-1", "normal", 0.2, "slow")
    assert first["newest_ms"] == AT_MS + 20


def test_states_are_told_apart_and_the_worst_come_first(
    board: Board, clock: Clock, make_scores: MakeScores, make_alert: MakeAlert
) -> None:
    score = np.array([1.0, 3.5, 1.0, np.nan, 1.0])
    for _ in range(3):  # pump-2 falls silent later: until then it comes every 10 s
        clock.now_s += 10
        board.take(Output(scores=(make_scores(rows=5, assets=5, score=score),)))
    later = make_scores(rows=4, assets=4, names=("pump-0", "pump-1", "pump-3", "pump-4"), score=score[[0, 1, 3, 4]])
    for _ in range(15):
        clock.now_s += 10
        board.take(Output(scores=(later,), alerts=(make_alert(asset="pump-4", severity="warning"),)))
    assert list(states(board).items()) == [
        ("pump-4", "warning"),
        ("pump-1", "rising"),
        ("pump-2", "silent"),
        ("pump-3", "blind"),
        ("pump-0", "normal"),
    ]
    said = board.overview()
    assert said["counts"] == {
        "critical": 0, "major": 0, "warning": 1, "rising": 1, "silent": 1, "blind": 1, "normal": 1,
    }  # fmt: skip
    assert [asset["name"] for asset in board.overview(state="silent")["assets"]] == ["pump-2"]
    assert board.overview(state="no such")["assets"] == []


def test_names_are_found_in_any_case_and_sorted_by_their_numbers(board: Board, make_scores: MakeScores) -> None:
    names = ("Pump-10", "Pump-9", "Fan-1")
    board.take(Output(scores=(make_scores(rows=3, assets=3, names=names, score=np.zeros(3)),)))
    assert list(states(board)) == ["Fan-1", "Pump-9", "Pump-10"]
    assert [asset["name"] for asset in board.overview(query="pump-1")["assets"]] == ["Pump-10"]


def test_a_hundred_thousand_assets_take_no_more_than_was_said(clock: Clock, make_scores: MakeScores) -> None:
    board = Board(most_assets=5000, most_bytes=4 << 20, clock=clock, wall=clock)
    sizes = []
    for start in range(0, 100_000, 2000):
        names = tuple(f"pump-{number}" for number in range(start, start + 2000))
        clock.now_s += 1
        board.take(Output(scores=(make_scores(rows=2000, assets=2000, names=names),), counts={"readings": 2000}))
        sizes.append(board.recent.nbytes)
    assert len(board.listing) == 5000
    assert board.listing.full
    assert max(sizes) <= 4 << 20
    assert sizes[-1] == sizes[-2]  # as full as it gets
    said = board.overview()
    assert said["full"]
    assert len(said["assets"]) == ASSETS_SHOWN
    assert said["more_assets"] == 5000 - ASSETS_SHOWN
    assert len(msgspec.json.encode(said)) < 100_000
    assert board.asset("pump-99999") is not None  # not listed, but its rows are still there


@pytest.mark.parametrize("numbered", [False, True])
def test_long_silent_assets_make_room_for_new_ones(numbered: bool, clock: Clock, make_scores: MakeScores) -> None:
    board, book = Board(most_assets=4, clock=clock, wall=clock), object()

    def take(*names: str) -> None:
        numbers = np.array([ord(name) for name in names], np.int32)
        held = Numbered.of(names, book, numbers) if numbered else names
        board.take(Output(scores=(make_scores(names=held),)))

    for names in ("ab", "cd"):
        take(*names)
        clock.now_s += 3000
    take("e", "f")
    take("d", "c")  # where they are now
    assert set(states(board)) == {"c", "d", "e", "f"}
    assert not board.listing.full


def test_rows_are_those_of_the_asset_in_order_and_only_the_new_ones(board: Board, make_scores: MakeScores) -> None:
    batches = [make_scores(rows=6, at_ms=AT_MS + 1000 * (6 * turn + np.arange(6))) for turn in range(3)]
    for batch in batches[:2]:
        board.take(Output(scores=(batch,)))
    found = board.asset("pump-1")
    assert found is not None
    answer, (drawn,) = plain(found[0]), [plain(held.plain()) for held in found[1]]
    assert answer["units"] == {"heat": "degC"}
    assert drawn["at_ms"] == [AT_MS + 1000 * row for row in (1, 3, 5, 7, 9, 11)]
    heat = drawn["signals"].index("heat")
    assert drawn["values"][heat] == pytest.approx(np.concatenate([b.values[1::2, heat] for b in batches[:2]]), rel=1e-6)
    assert drawn["high"][heat][0] - drawn["low"][heat][0] == pytest.approx(2 * 3 * 0.5, rel=1e-4)
    board.take(Output(scores=(batches[2],)))
    board.take(Output(scores=(batches[2],)))  # a replay changes nothing
    more = board.asset("pump-1", since_ms=AT_MS + 11_000)
    assert more is not None
    assert plain(more[1][0].plain())["at_ms"] == [AT_MS + 1000 * row for row in (13, 15, 17)]


def test_what_has_no_value_or_no_band_is_null(board: Board, make_scores: MakeScores) -> None:
    nothing = np.full((2, 2), np.nan)
    scores = make_scores(rows=2, assets=1, score=np.array([np.nan, np.inf]), values=nothing, expected=None, spread=None)
    board.take(Output(scores=(scores,)))
    found = board.asset("pump-0")
    assert found is not None
    (drawn,) = [plain(held.plain()) for held in found[1]]
    assert drawn["score"] == [None, None]
    assert drawn["values"] == [[None, None], [None, None]]
    assert drawn["expected"] is drawn["low"] is drawn["high"] is None
    assert found[0]["state"] == "blind"


def test_a_history_outlives_the_batches_and_keeps_its_length(make_scores: MakeScores) -> None:
    recent = Recent(2 << 20)
    alone = {"assets": 1, "names": ("pump-7",)}
    recent.take(make_scores(rows=3, **alone))
    recent.follow("pump-7")
    for turn in range(1, 400):
        at_ms = AT_MS + turn * 10_000 + 10 * np.arange(10)
        recent.take(make_scores(rows=10, at_ms=at_ms, **alone))
        recent.take(make_scores(rows=500, assets=1, names=("fan-1",), at_ms=at_ms[-1] + np.arange(500)))
    (history,) = recent.of("pump-7")
    assert len(history) == ROWS
    at_ms = history.columns(0)["at_ms"]
    assert (np.diff(at_ms) > 0).all()
    assert at_ms[-1] == AT_MS + 399 * 10_000 + 90
    assert recent.nbytes <= 2 << 20


def test_the_asset_looked_at_longest_ago_makes_room(make_scores: MakeScores) -> None:
    recent = Recent(1 << 20)
    names = tuple(f"pump-{number}" for number in range(40))
    for turn in range(60):
        recent.take(make_scores(rows=400, assets=40, names=names, at_ms=AT_MS + turn * 1000 + np.arange(400)))
        for name in names[:30] if turn == 0 else ():
            recent.follow(name)
    assert 1 < len(recent.assets) < 30
    assert list(recent.assets)[-1] == "pump-29"
    assert recent.nbytes <= 1 << 20


@pytest.mark.parametrize("by_asset", [True, False])
def test_each_history_has_its_own_assets_rows_in_whatever_order_a_batch_has_them(
    make_scores: MakeScores, by_asset: bool
) -> None:
    recent = Recent(2 << 20)
    names = tuple(f"pump-{number}" for number in range(7))
    random = np.random.default_rng(1)
    rows: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    for turn in range(30):
        asset = random.integers(0, 7, 40).astype(np.int32)
        asset = np.sort(asset) if by_asset else asset
        at_ms, score = AT_MS + turn * 1000 + np.arange(40), random.random(40)
        recent.take(make_scores(rows=40, assets=7, names=names, asset=asset, at_ms=at_ms, score=score))
        for code, at, value in zip(asset.tolist(), at_ms.tolist(), score.tolist(), strict=True):
            rows[names[code]].append((at, value))
        if turn == 3:
            for name in names[::2]:
                recent.follow(name)
    assert set(recent.assets) == set(names[::2])
    for name in names[::2]:
        (history,) = recent.of(name)
        columns = history.columns(0)
        assert list(zip(columns["at_ms"].tolist(), columns["score"].tolist(), strict=True)) == rows[name]
    before = recent.nbytes
    recent.keep_only(names[:1])
    recent.keep_only(())
    assert before > recent.nbytes > 0
    assert not recent.assets


def test_nothing_is_kept_for_names_that_nobody_has(board: Board) -> None:
    assert board.asset("no such") is None
    assert not board.recent.assets
    assert board.alerts.of("no such") == []


def test_an_alert_begins_the_history_of_its_asset(board: Board, make_scores: MakeScores, make_alert: MakeAlert) -> None:
    board.take(Output(scores=(make_scores(),), alerts=(make_alert(asset="pump-1"),)))
    assert list(board.recent.assets) == ["pump-1"]


def test_alerts_open_and_resolve_and_a_replay_brings_nothing_back(make_alert: MakeAlert) -> None:
    book = AlertBook(10)
    opened = make_alert(id="a", sequence=0)
    worse = make_alert(id="a", sequence=1, state="updated", severity="critical")
    other = make_alert(id="b", asset="pump-2", severity="warning", opened="2026-11-23T09:00:00.500Z")
    for alert in (opened, worse, other):
        book.take(alert)
    assert [alert.id for alert in book.open()] == ["a", "b"]
    assert book.worst() == {"pump-1": 0, "pump-2": 2}
    book.take(make_alert(id="a", sequence=2, state="resolved", resolved="2026-11-23T08:10:00.000Z"))
    book.take(opened)
    assert [alert.id for alert in book.open()] == ["b"]
    assert [alert.state for alert in book.of("pump-1")] == ["resolved"]


def test_alerts_are_bounded_and_resolved_ones_go_first(make_alert: MakeAlert) -> None:
    book = AlertBook(3)
    book.take(make_alert(id="still open"))
    for number in range(5):
        book.take(make_alert(id=f"r{number}", state="resolved", asset=f"pump-{number}"))
    assert len(book) == 3
    assert [alert.id for alert in book.open()] == ["still open"]
    assert book.of("pump-0") == []
    for number in range(ALERTS_KEPT):
        book.take(make_alert(id=f"o{number}"))
    assert len(book) == 3
    assert {alert.id for alert in book.open()} == {f"o{ALERTS_KEPT - back}" for back in (1, 2, 3)}


def test_what_went_to_another_worker_is_forgotten(board: Board, make_scores: MakeScores, make_alert: MakeAlert) -> None:
    board.take(Output(scores=(make_scores(),), alerts=(make_alert(asset="pump-1"), make_alert(id="b", asset="pump-0"))))
    board.settle({"pump-0"}, [make_alert(id="from before", asset="pump-0", severity="critical")])
    assert states(board) == {"pump-0": "critical"}
    assert [alert["id"] for alert in plain(board.overview())["alerts"]] == ["from before", "b"]
    assert board.asset("pump-1") is not None  # from the batches, until they are let go
    board.take(Output(scores=(make_scores(),)))
    assert set(states(board)) == {"pump-0", "pump-1"}


def test_the_pace_of_readings_is_of_the_last_seconds(board: Board, clock: Clock) -> None:
    assert board.overview()["readings_per_s"] == 0.0
    for _ in range(30):
        clock.now_s += 1
        board.take(Output(counts={"readings": 50}))
    assert board.overview()["readings_per_s"] == pytest.approx(50, rel=0.01)
    clock.now_s += 60
    said = board.overview()
    assert said["readings_per_s"] == 0.0
    assert said["quiet_s"] == 60.0


def test_every_text_of_the_page_stands_out_from_what_is_behind_it() -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 for text, in light and in dark."""
    style = resources.files("stream.page").joinpath("static", "page.css").read_text()
    roots = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    palettes = [dict(re.findall(r"--([\w-]+):\s*(#\w+)", root)) for root in roots]
    assert len(palettes) == 2
    for palette in palettes:
        behind = {"paper", "card"}
        pairs = {(text, under) for text in ("ink", "muted", "accent", *STATES) for under in behind}
        pairs |= {("ink", f"{state}-soft") for state in STATES[:3]} | {
            ("muted", f"{state}-soft") for state in STATES[:3]
        }
        pairs |= {("warning", "warning-soft")}
        low = {pair: contrast(palette[pair[0]], palette[pair[1]]) for pair in pairs}
        assert {pair: value for pair, value in low.items() if value < 4.5} == {}


def contrast(first: str, second: str) -> float:
    """Of two CSS colours, as WCAG 2.2 defines it."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
