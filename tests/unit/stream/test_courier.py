"""What waits for an address: in memory or on disk, in order, and over the end of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stream.errors import SinkRefused, SinkUnavailable
from stream.sinks.courier import Courier, Couriers, Held, OnDisk, Parcel, Waiting


def pack(parcel: Parcel[str]) -> str:
    return f"{parcel.key}={parcel.what}"


def unpack(text: str) -> Parcel[str]:
    key, sign, what = text.partition("=")
    if not sign:
        raise ValueError("no text of ours")
    return Parcel(key, what)


def on_disk(folder: Path, max_bytes: int = 1 << 20) -> OnDisk[str]:
    return OnDisk(folder, max_bytes, pack, unpack, most=100)


class Address:
    """Takes what is brought, unless ``says`` has an error for it, in turn."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.says: list[Exception] = []
        self.away = False
        self.refuses = ""
        self.most_at_once = 0

    async def take(self, batch: Sequence[str]) -> None:
        self.most_at_once = max(self.most_at_once, len(batch))
        if self.away:
            raise SinkUnavailable("away")
        if self.says:
            raise self.says.pop(0)
        if self.refuses in batch:
            raise SinkRefused("not that")
        self.taken += batch


@pytest.fixture(params=["memory", "disk"])
def waiting(request: pytest.FixtureRequest, tmp_path: Path) -> Waiting[str]:
    return Held(100) if request.param == "memory" else on_disk(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (the address tells nobody)
            await asyncio.sleep(0.005)


async def test_all_is_brought_in_order_though_the_address_is_away_at_first(waiting: Waiting[str]) -> None:
    address = Address()
    address.says = [SinkUnavailable("busy"), SinkUnavailable("busy")]
    courier = Courier("post", "there", waiting, address.take)
    couriers = Couriers("post", [courier], stop_s=30)
    await couriers.start()
    for number in range(20):
        await courier.put(Parcel(f"k{number}", f"w{number}"))
    await until(lambda: len(address.taken) == 20)
    assert address.taken == [f"w{number}" for number in range(20)]
    figures = couriers.figures()
    assert (figures.written, figures.failed, figures.refused, figures.dropped) == (20, 2, 0, 0)
    await until(lambda: couriers.held_lines == 0)
    await couriers.stop()


async def test_what_is_refused_alone_is_passed_over_and_so_is_what_is_a_fault_of_ours(waiting: Waiting[str]) -> None:
    address = Address()
    address.refuses, address.says = "w3", [ZeroDivisionError()]
    courier = Courier("post", "there", waiting, address.take)
    couriers = Couriers("post", [courier], stop_s=30)
    await couriers.start()
    for number in range(6):
        await courier.put(Parcel(f"k{number}", f"w{number}"))
    await couriers.stop()  # brings what waits first
    assert address.taken == ["w1", "w2", "w4", "w5"]
    assert (couriers.figures().refused, couriers.figures().written) == (2, 4)


async def test_of_many_at_once_only_those_to_blame_are_passed_over() -> None:
    address, waiting = Address(), Held[str](100)
    address.refuses = "w3"
    for number in range(6):
        waiting.add(Parcel(number, f"w{number}"))
    courier = Courier("post", "there", waiting, address.take, batch=4)
    couriers = Couriers("post", [courier], stop_s=30)
    await couriers.start()
    await couriers.stop()
    assert address.taken == ["w0", "w1", "w2", "w4", "w5"]
    assert (couriers.figures().refused, address.most_at_once) == (1, 4)


async def test_the_newest_of_a_key_is_brought_last_and_once_also_while_its_elder_is_on_the_way() -> None:
    waiting = Held[str](3)
    assert [waiting.add(Parcel(key, what)) for key, what in (("a", "1"), ("b", "1"), ("a", "2"))] == [0, 0, 0]
    waiting.remind(Parcel("a", "3"))
    on_the_way = await waiting.next(1)
    assert [parcel.what for parcel in await waiting.next(9)] == ["1", "2"]
    waiting.add(Parcel("b", "4"))
    await waiting.done(on_the_way)
    assert [parcel.what for parcel in await waiting.next(9)] == ["2", "4"]
    waiting.add(Parcel("c", "5"))
    assert waiting.add(Parcel("d", "6")) == 1
    waiting.drop(lambda what: what == "4")
    assert [parcel.what for parcel in await waiting.next(9)] == ["5", "6"]


async def test_what_is_to_be_brought_again_is() -> None:
    address, waiting = Address(), Held[str](9)
    courier = Courier(
        "post", "there", waiting, address.take, refill=lambda: waiting.remind(Parcel("a", "again")), every_s=0.02
    )
    couriers = Couriers("post", [courier], stop_s=30)
    await couriers.start()
    await until(lambda: len(address.taken) >= 3)
    await couriers.stop()
    assert set(address.taken) == {"again"}


async def test_on_disk_it_outlives_the_process_and_goes_first_in_the_next(tmp_path: Path) -> None:
    address = Address()
    address.away = True
    first = Courier("post", "there", on_disk(tmp_path), address.take)
    couriers = Couriers("post", [first], stop_s=0.0)
    await couriers.start()
    for number in range(5):
        await first.put(Parcel(f"k{number}", f"w{number}\nß"))
    assert couriers.held_lines == 5
    assert couriers.spooled_bytes > 0
    await couriers.stop()
    address.away = False
    second = Courier("post", "there", on_disk(tmp_path), address.take)
    again = Couriers("post", [second], stop_s=30)
    await again.start()
    await second.put(Parcel("new", "new"))
    await again.stop()
    assert address.taken == [*(f"w{number}\nß" for number in range(5)), "new"]
    third = on_disk(tmp_path)
    await third.open()
    assert len(third) == 0
    await third.close()


async def test_where_the_disk_has_no_room_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    waiting = OnDisk(tmp_path, 4096, pack, unpack, most=100)
    await waiting.open()
    letters = [
        f"{number:04}" + "".join(chr(33 + (7 * number + at * at) % 90) for at in range(200)) for number in range(60)
    ]
    dropped = sum([await waiting.put(Parcel(f"k{letter[:4]}", letter)) for letter in letters])
    assert 0 < dropped < 60
    assert len(waiting) == 60 - dropped
    assert waiting.size_bytes <= 4096
    left = []
    while parcels := await waiting.next(1):
        left += [parcel.what for parcel in parcels]
        await waiting.done(parcels)
    assert left == letters[dropped:]
    await waiting.close()


async def test_what_the_disk_does_not_take_is_held_in_memory_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = on_disk(tmp_path)
    await waiting.open()
    await waiting.put(Parcel("a", "1"))

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(waiting._spool, "append", full)
    for key in "bc":
        await waiting.put(Parcel(key, key))
    assert (len(waiting), caplog.text.count("No space left")) == (3, 1)
    brought = []
    while parcels := await waiting.next(1):
        brought += [parcel.what for parcel in parcels]
        await waiting.done(parcels)
    assert brought == ["1", "b", "c"]
    await waiting.close()


async def test_what_is_no_text_of_ours_is_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = on_disk(tmp_path)
    await waiting.open()
    waiting._spool.append(b"what is this?", 1)
    await waiting.put(Parcel("a", "1"))
    assert [parcel.what for parcel in await waiting.next(1)] == ["1"]
    assert "passed over" in caplog.text
    await waiting.close()


async def test_a_spool_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    couriers = Couriers("post", [Courier("post", "there", on_disk(tmp_path / "file"), Address().take)], stop_s=0)
    with pytest.raises(SinkUnavailable, match="spool"):
        await couriers.start()
