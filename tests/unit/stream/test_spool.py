"""The spool keeps its order and its bound whatever happens to its files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from stream.sinks.spool import Spool


def text(number: int, lines: int = 3) -> bytes:
    return "\n".join(
        f"headrace_score,asset=pump-{number} value={number}.{line} {line}" for line in range(lines)
    ).encode()


def opened(folder: Path, **bounds: int) -> Spool:
    spool = Spool(folder, bounds.pop("max_bytes", 1 << 20), **bounds)
    spool.open()
    return spool


def read_all(spool: Spool) -> list[bytes]:
    found = []
    while entry := spool.first():
        found.append(entry.text)
        spool.done(entry)
    return found


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    held = opened(tmp_path)
    yield held
    held.close()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.lines"))


def test_what_goes_in_comes_out_in_order_and_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    assert spool.first() is None
    for number in range(20):
        assert spool.append(text(number), 3)
    assert spool.lines == 60
    assert 0 < spool.size_bytes == sum(path.stat().st_size for path in segments(tmp_path))
    assert read_all(spool) == [text(number) for number in range(20)]
    assert (spool.lines, spool.size_bytes, segments(tmp_path)) == (0, 0, [])
    assert spool.append(b"again", 1)
    assert read_all(spool) == [b"again"]


def test_an_entry_stays_until_it_is_done(spool: Spool) -> None:
    spool.append(b"a", 1)
    spool.append(b"b", 1)
    assert spool.first() == spool.first()
    first = spool.first()
    assert first
    assert first.text == b"a"
    spool.done(first)
    assert [entry.text for entry in [spool.first()] if entry] == [b"b"]


def test_a_new_run_finds_what_the_last_left_and_goes_on_behind_it(tmp_path: Path) -> None:
    first = opened(tmp_path, segment_bytes=200)
    for number in range(10):
        first.append(text(number), 3)
    entry = first.first()
    assert entry
    first.done(entry)
    first.close()

    second = opened(tmp_path, segment_bytes=200)
    assert second.lines in {27, 30}  # a segment that was begun is read from its first entry
    second.append(b"new", 1)
    found = read_all(second)
    assert found[-10:] == [*(text(number) for number in range(1, 10)), b"new"]
    second.close()


def test_a_process_that_is_killed_leaves_all_it_appended(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from stream.sinks.spool import Spool\n"
        "spool = Spool(pathlib.Path(sys.argv[1]), 1 << 20); spool.open()\n"
        "for number in range(50): spool.append(b'line %d' % number, 1)\n"
        "os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    after = opened(tmp_path)
    assert after.lines == 50
    assert read_all(after) == [b"line %d" % number for number in range(50)]
    assert after.damaged_bytes == 0
    after.close()


def test_a_torn_tail_is_left_out_and_counted(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for number in range(3):
        first.append(text(number), 3)
    first.close()
    (path,) = segments(tmp_path)
    size = path.stat().st_size
    os.truncate(path, size - 7)
    second = opened(tmp_path)
    assert second.lines == 6
    second.append(b"new", 1)
    assert read_all(second) == [text(0), text(1), b"new"]
    assert 0 < second.damaged_bytes < size
    second.close()


@example_settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_anywhere_costs_only_the_entries_it_hits(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    first = opened(folder)
    ends = [0]
    for number in range(8):
        first.append(text(number, 20), 20)
        ends.append(first.size_bytes)
    first.close()
    (path,) = segments(folder)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.integers(1, 40))
    noise = data.draw(st.binary(min_size=length, max_size=length))
    was = bytes(content[at : at + length])
    content[at : at + length] = noise[: len(was)]
    path.write_bytes(content)
    hit = {
        entry for entry in range(8)
        for byte in range(max(at, ends[entry]), min(at + len(was), ends[entry + 1]))
        if content[byte] != was[byte - at]
    }  # fmt: skip
    second = opened(folder)
    assert read_all(second) == [text(number, 20) for number in range(8) if number not in hit]
    assert (second.damaged_bytes > 0) == bool(hit)
    assert (second.lines, second.size_bytes) == (0, 0)
    second.close()


@pytest.mark.parametrize("content", [b"", b"HRsp", b"\0" * 5000, b"HRsp" * 2000, bytes(range(256)) * 12], ids=range(5))
def test_a_file_of_garbage_is_passed_over(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "0"
    place.mkdir()
    (place / f"{1:020d}.lines").write_bytes(content)
    spool = opened(tmp_path)
    spool.append(b"good", 1)
    assert read_all(spool) == [b"good"]
    assert (spool.lines, spool.size_bytes) == (0, 0)
    spool.close()


def test_the_bound_holds_and_the_oldest_can_go(tmp_path: Path) -> None:
    noise = [os.urandom(3000).hex().encode() for _ in range(40)]
    spool = opened(tmp_path, max_bytes=40_000, segment_bytes=10_000)
    taken = [block for block in noise if spool.append(block, 1)]
    assert 5 < len(taken) < 40
    assert spool.size_bytes <= 40_000
    entry = spool.first()
    assert entry
    dropped = spool.drop_oldest()
    assert dropped > 0
    spool.done(entry)  # it is gone already
    assert spool.append(b"more", 1)
    assert read_all(spool) == [*taken[dropped:], b"more"]
    assert (spool.drop_oldest(), spool.lines) == (0, 0)
    spool.close()


def test_a_full_disk_is_told_and_nothing_is_half_written(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append(b"before", 1)
    write = os.write

    def full(handle: int, data: memoryview) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(handle, data[: len(data) - 10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        spool.append(b"x" * 1000, 1)
    monkeypatch.undo()
    spool.append(b"after", 1)
    assert read_all(spool) == [b"before", b"after"]
    assert spool.damaged_bytes == 0


def test_workers_have_places_of_their_own_and_take_over_what_is_left(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    first.append(b"of the first", 1)
    second.append(b"of the second", 1)
    assert [path.parent.name for path in segments(tmp_path)] == ["0", "1"]
    second.close()
    third = opened(tmp_path)
    assert read_all(third) == [b"of the second"]
    third.close()
    first.close()
    fourth, fifth = opened(tmp_path), opened(tmp_path)
    assert (read_all(fourth), read_all(fifth)) == ([b"of the first"], [])
    fourth.close()
    fifth.close()


def test_the_places_of_others_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    for number in range(6):
        (first, second)[number % 2].append(b"%d" % number, 1)
        for held in (first, second):
            held._end_segment()
    first.close()
    second.close()
    heir = opened(tmp_path)
    assert read_all(heir) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    heir.close()


def test_opening_and_closing_twice_does_no_harm(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.close()
    spool.open()
    spool.open()
    spool.append(b"a", 1)
    spool.sync()
    spool.close()
    spool.close()
    again = opened(tmp_path)
    assert read_all(again) == [b"a"]
    again.close()
