"""Blocks of lines on disk, in order, within a bound: what a sink holds while its server is away.

``folder`` has a place ``0``, ``1``, ... for each worker that uses it, which a worker keeps locked for as long as it
runs; what workers that have ended left in theirs is taken over at the next start. In a place are segments, named for
when they were begun. A segment is entries behind each other; an entry is a mark, lengths, the number of its lines, a
CRC-32, and the block, compressed.

- The oldest is read first. A segment goes when its last entry is done; after a crash its entries are read once more
  from the first, so a block may be written to the server twice, which leaves the same points.
- A new run never appends to a segment of an old one. Where an entry is torn or damaged, reading goes on at the next
  mark behind it; what was passed over is counted in ``damaged_bytes``.
- A crash of the process loses nothing; a power cut what was appended since the last ``sync``.

Blocking: for a thread, and one at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_MARK: Final = b"HRsp"
_HEAD: Final = struct.Struct(
    "<4sIIII"
)  # mark, stored bytes, bytes of the lines, lines, CRC-32 of all these and the rest
_SUFFIX: Final = ".lines"
_LOCK: Final = "lock"
_MOST_PLACES: Final = 256
_SEGMENT_BYTES: Final = 8 << 20
#: A larger block is no block of ours, whatever an entry says.
_MOST_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Entry:
    """A block as it was appended; ``segment`` and ``end`` are its place."""

    text: bytes
    lines: int
    segment: Path
    end: int


@dataclass(slots=True)
class _Segment:
    """read_at: where the next entry begins; lines: those of the entries from there on."""

    path: Path
    size: int
    lines: int
    read_at: int = 0


class Spool:
    """A queue of blocks of lines in files; ``open`` first.

    max_bytes      of all segments together; at least one block is taken whatever it is
    segment_bytes  a segment that has so many is closed

    ``lines`` and ``size_bytes`` say what is there, ``damaged_bytes`` what could not be read since it was opened.
    """

    def __init__(self, folder: Path, max_bytes: int, *, segment_bytes: int = _SEGMENT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max(max_bytes // 4, 1))
        self._place = folder
        self._lock: int | None = None
        self._segments: deque[_Segment] = deque()
        self._writing: int | None = None  # the handle of the newest segment, while it is appended to
        self.lines = 0
        self.size_bytes = 0
        self.damaged_bytes = 0

    def open(self) -> None:
        """Take a place, and over what is left in it and in those of workers that are no more. Raises ``OSError``."""
        if self._lock is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(_MOST_PLACES):
            place = self._folder / str(number)
            place.mkdir(exist_ok=True)
            lock = _lock(place)
            if lock is not None:
                self._place, self._lock = place, lock
                break
        else:
            raise OSError(f"{self._folder}: {_MOST_PLACES} workers have their places there")
        self._take_over()
        for path in sorted(self._place.glob(f"*{_SUFFIX}")):
            size = path.stat().st_size
            self._segments.append(_Segment(path, size, _count(path, size)))
            self.size_bytes += size
            self.lines += self._segments[-1].lines

    def close(self) -> None:
        """Bring all to the disk and give the place back. Safe to call twice, or without ``open``."""
        lock, self._lock = self._lock, None
        try:
            self._end_segment()
        finally:
            self._segments.clear()
            self.lines = self.size_bytes = 0
            if lock is not None:
                os.close(lock)

    def append(self, text: bytes, lines: int) -> bool:
        """Hold a block behind all others; whether there was room within the bound.

        Raises ``OSError`` (a full disk), having taken nothing.
        """
        stored = zlib.compress(text, 1)
        head = _HEAD.pack(_MARK, len(stored), len(text), lines, _crc(stored, len(text), lines))
        size = len(head) + len(stored)
        if self.size_bytes and self.size_bytes + size > self._max_bytes:
            return False
        if self._writing is None or self._segments[-1].size >= self._segment_bytes:
            self._begin_segment()
        segment = self._segments[-1]
        assert self._writing is not None  # noqa: S101  # it was begun
        try:
            _write_all(self._writing, head + stored)
        except OSError:
            with contextlib.suppress(OSError):  # else the torn entry is passed over when it is read
                os.ftruncate(self._writing, segment.size)
                os.lseek(self._writing, segment.size, os.SEEK_SET)
            if not segment.size:
                self._remove(segment)
            raise
        segment.size += size
        segment.lines += lines
        self.size_bytes += size
        self.lines += lines
        return True

    def sync(self) -> None:
        """Bring what was appended to the disk itself. Raises ``OSError``."""
        if self._writing is not None:
            os.fsync(self._writing)

    def first(self) -> Entry | None:
        """The oldest block that is not done; None if there is none. It stays until it is ``done``."""
        while self._segments:
            segment = self._segments[0]
            entry = self._read(segment)
            if entry is not None:
                return entry
            self._remove(segment)
        return None

    def holds(self, entry: Entry) -> bool:
        """Whether the segment of an entry is still there."""
        return any(segment.path == entry.segment for segment in self._segments)

    def done(self, entry: Entry) -> None:
        """Forget the block; nothing happens if it has been dropped meanwhile."""
        if not self._segments or self._segments[0].path != entry.segment:
            return
        segment = self._segments[0]
        segment.read_at = entry.end
        segment.lines -= entry.lines
        self.lines -= entry.lines
        if segment.read_at >= segment.size:
            self._remove(segment)

    def drop_oldest(self) -> int:
        """Remove the oldest segment; how many lines it held."""
        if not self._segments:
            return 0
        lines = self._segments[0].lines
        self._remove(self._segments[0])
        return lines

    def _take_over(self) -> None:
        """Move what other places hold into ours, unless a worker has them."""
        for place in self._folder.iterdir():
            if place == self._place or not place.name.isdigit() or not any(place.glob(f"*{_SUFFIX}")):
                continue
            lock = _lock(place)
            if lock is None:
                continue
            try:
                for path in place.glob(f"*{_SUFFIX}"):
                    path.rename(self._free(int(path.stem)))
            finally:
                os.close(lock)

    def _free(self, begun_ns: int) -> Path:
        """The path of a segment begun then, or as soon after as there is none yet."""
        while (path := self._place / f"{begun_ns:020d}{_SUFFIX}").exists():
            begun_ns += 1
        return path

    def _begin_segment(self) -> None:
        self._end_segment()
        newest_ns = int(self._segments[-1].path.stem) if self._segments else 0
        path = self._free(max(time.time_ns(), newest_ns + 1))  # behind all others although the clock went back
        self._writing = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._segments.append(_Segment(path, 0, 0))
        folder = os.open(self._place, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _end_segment(self) -> None:
        handle = self._writing
        if handle is not None:
            try:
                self.sync()
            finally:
                self._writing = None
                os.close(handle)

    def _remove(self, segment: _Segment) -> None:
        if self._writing is not None and segment is self._segments[-1]:
            handle, self._writing = self._writing, None
            os.close(handle)
        self._segments.remove(segment)
        self.lines -= segment.lines
        self.size_bytes -= segment.size
        segment.path.unlink(missing_ok=True)

    def _read(self, segment: _Segment) -> Entry | None:
        """The next entry of a segment that is whole; None at its end."""
        with segment.path.open("rb") as file:
            while segment.read_at < segment.size:
                file.seek(segment.read_at)
                found = _entry(file.read(_HEAD.size), file.read, segment.size - segment.read_at)
                if found is not None:
                    text, lines, size = found
                    return Entry(text, lines, segment.path, segment.read_at + size)
                before = segment.read_at
                segment.read_at = _next_mark(segment.path, before + 1, segment.size)
                self.damaged_bytes += segment.read_at - before
                self.lines -= segment.lines
                segment.lines = _count(segment.path, segment.size, segment.read_at)
                self.lines += segment.lines
        return None


def _entry(head: bytes, read: Callable[[int], bytes], left: int) -> tuple[bytes, int, int] | None:
    """(text, lines, size) of an entry, of which ``left`` bytes may be there; None if it is not whole."""
    if len(head) < _HEAD.size:
        return None
    mark, stored_size, raw_size, lines, crc = _HEAD.unpack(head)
    if mark != _MARK or _HEAD.size + stored_size > left or raw_size > _MOST_BYTES:
        return None
    stored = read(stored_size)
    if _crc(stored, raw_size, lines) != crc:
        return None
    try:
        text = zlib.decompressobj().decompress(stored, raw_size + 1)
    except zlib.error:  # with the right sum: not of our making
        return None
    return (text, lines, _HEAD.size + stored_size) if len(text) == raw_size else None


def _count(path: Path, size: int, start: int = 0) -> int:
    """Lines of the entries from ``start`` on, by their heads, as far as they follow each other."""
    total = 0
    with path.open("rb") as file:
        at = start
        while at + _HEAD.size <= size:
            file.seek(at)
            mark, stored_size, _, lines, _ = _HEAD.unpack(file.read(_HEAD.size))
            at += _HEAD.size + stored_size
            if mark != _MARK or at > size:
                break
            total += lines
    return total


def _next_mark(path: Path, start: int, size: int) -> int:
    """Where the next mark is; ``size`` if there is none."""
    with path.open("rb") as file:
        at, kept = start, b""
        file.seek(start)
        while chunk := file.read(1 << 20):
            found = (kept + chunk).find(_MARK)
            if found >= 0:
                return at - len(kept) + found
            at += len(chunk)
            kept = (kept + chunk)[1 - len(_MARK) :]
    return size


def _crc(stored: bytes, raw_size: int, lines: int) -> int:
    return zlib.crc32(stored, zlib.crc32(struct.pack("<II", raw_size, lines)))


def _lock(place: Path) -> int | None:
    """The handle that holds a place for as long as it is open; None if another worker has it."""
    handle = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
