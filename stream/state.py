"""What must survive a crash, as the values of records: blocks of assets, and one record a partition that says how far.

A block holds ``size`` assets of one partition: their names and newest times, and for each lane (a detector with one
version of its model) the arrays it remembers them by and their open episodes. Each block says up to which offset of the
readings' partition its assets have applied what was read; ``Meta`` says up to which offset all of them have. Where a
crash came between the blocks of a snapshot, some are ahead of ``Meta``: ``stream.assembly`` puts them together.

A value is magic, format, flags, the length and CRC-32 of its body; the body is a msgpack header (names, types and
shapes) and the arrays behind each other, little-endian. Nothing in it can run. Whatever is wrong with one, ``decode``
raises ``StateRefused`` before it allocates more than the value's own size allows.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from stream.episode import Episode
from stream.errors import StateRefused
from stream.records import Bool, Float64, Int32, Int64
from stream.window import NEVER

#: Raise it when the layout changes, and add what reads the one before to ``_READERS``. 1: without ``Block.events``,
#: and still written where there are none.
FORMAT: Final = 2
#: Arrays of a lane whose names begin so are not its own: they are stored with it because they are of the same assets.
BESIDE: Final = "beside."
#: Assets in a block, at most.
MOST_ASSETS: Final = 256
#: Bytes that a block should have at most, uncompressed: brokers' default limit for a record is twice that.
BLOCK_BYTES: Final = 512 << 10
#: A larger body is refused, whatever it says.
MOST_BYTES: Final = 64 << 20

_MAGIC: Final = b"HRst"
_HEAD: Final = struct.Struct("<4sBBIII")  # magic, format, flags, body's length, its CRC-32, header's length
_COMPRESSED: Final = 1
_SAMPLE: Final = 16 << 10
_WORTH_IT: Final = 0.5  # zlib takes 25 ms a megabyte: twenty times as long as all the rest
_LATEST_MS: Final = 253_402_300_799_999  # the end of the year 9999
_DTYPES: Final = frozenset({"<f4", "<f8", "<i4", "<i8", "|u1", "|b1", "<i2", "<u2", "<u4", "<f2", "|i1", "<u8"})

Array = npt.NDArray[Any]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
Offset = Annotated[int, msgspec.Meta(ge=-1)]
Name = Annotated[str, msgspec.Meta(max_length=1024)]


@dataclass(slots=True)
class LaneRows:
    """What one lane remembers of a block's assets.

    places    (row,) int32, the place in the block of each row of the arrays; ascending
    arrays    by name, first axis = row
    episodes  by place
    """

    detector: str
    version: str
    places: Int32
    arrays: dict[str, Array]
    episodes: dict[int, Episode] = field(default_factory=dict)


@dataclass(slots=True)
class Events:
    """What event time needs to know of a block's assets, where the plan asks for it.

    clock_ms, newest_ms, taken  of the whole partition, at the block's ``applied``: see ``presence`` and ``skew``
    places, at_ms, values, bad  (row,), (row,), (row, signal): readings that are held back, by place in the block
    signals                     names of the columns of ``values``
    heard_ms, since_ms          (place,) int64, see ``presence``
    claimed                     by place, see ``skew``
    episodes                    by place, of the alerts on impossible and bad values
    silent                      by place, of the stale alerts; releases before wrote none
    """

    clock_ms: int
    newest_ms: int
    taken: int
    signals: tuple[str, ...]
    places: Int32
    at_ms: Int64
    values: Float64
    bad: Bool
    heard_ms: Int64
    since_ms: Int64
    claimed: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    episodes: dict[int, Episode] = field(default_factory=dict)
    silent: dict[int, Episode] = field(default_factory=dict)


@dataclass(slots=True)
class Block:
    """``names`` by place, empty where the place is free; ``last_ms`` (place,) int64.

    epoch counts how often the partition was begun anew, ``applied`` is an offset of the readings' partition.
    """

    epoch: int
    applied: int
    size: int
    number: int
    names: list[str]
    last_ms: Int64
    lanes: list[LaneRows] = field(default_factory=list)
    events: Events | None = None


class Clock(msgspec.Struct, frozen=True, array_like=True):
    """What a partition as a whole knows of event time: see ``Events``."""

    clock_ms: int
    newest_ms: int
    taken: int


class Served(msgspec.Struct, frozen=True, array_like=True):
    """Which versions of a detector's model are at work in a partition, from ``Meta.applied`` on.

    version      what serves
    heir         another that looks at the same readings; empty: none
    succeeding   whether the heir takes over, asset by asset, as soon as its windows are full
    """

    version: Name
    heir: Name = ""
    succeeding: bool = False

    @property
    def wanted(self) -> tuple[str, str]:
        """(what serves or is about to, what is a candidate)."""
        return (self.heir, "") if self.succeeding else (self.version, self.heir)


class Meta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Up to ``applied`` all blocks of the partition have applied what was read.

    blocks  what each block's own ``applied`` is at least, by number; -1 where there is no such block
    served  by detector, for those whose models are in a store; releases before wrote none
    clock   at ``applied``, where the plan asks for it: the blocks' own are of when they were last touched, or, after a
            crash between blocks, of a time that has yet to come
    """

    epoch: Count
    applied: Offset
    size: Annotated[int, msgspec.Meta(ge=1, le=MOST_ASSETS)]
    blocks: Annotated[list[Offset], msgspec.Meta(max_length=1 << 20)]
    clock: Clock | None = None
    served: Annotated[dict[Name, Served], msgspec.Meta(max_length=4096)] = {}


class _Field(msgspec.Struct, array_like=True):
    name: Name
    dtype: str
    shape: Annotated[list[Count], msgspec.Meta(min_length=1, max_length=5)]


class _Lane(msgspec.Struct, array_like=True):
    detector: Name
    version: Name
    fields: Annotated[list[_Field], msgspec.Meta(max_length=64)]
    episodes: dict[int, Episode]


class _Header(msgspec.Struct, array_like=True):
    epoch: Count
    applied: Offset
    size: Annotated[int, msgspec.Meta(ge=1, le=MOST_ASSETS)]
    number: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
    names: Annotated[list[Name], msgspec.Meta(max_length=MOST_ASSETS)]
    lanes: Annotated[list[_Lane], msgspec.Meta(max_length=4096)]


class _Events(msgspec.Struct, array_like=True):
    clock_ms: int
    newest_ms: int
    taken: int
    signals: Annotated[list[Name], msgspec.Meta(max_length=65536)]
    rows: Count
    claimed: dict[int, tuple[int, int, int]]
    episodes: dict[int, Episode]
    silent: dict[int, Episode] = {}


class _HeaderWithEvents(_Header, array_like=True):
    events: _Events


_PACK: Final = msgspec.msgpack.Encoder()
_UNPACK_HEADER: Final = msgspec.msgpack.Decoder(_Header)
_UNPACK_HEADER_WITH_EVENTS: Final = msgspec.msgpack.Decoder(_HeaderWithEvents)
_UNPACK_META: Final = msgspec.msgpack.Decoder(Meta)


def encode(held: Block | Meta) -> bytes:
    """A record's value. Floats keep their bits."""
    arrays: list[Array] = []
    version = 1
    if isinstance(held, Meta):
        header = _PACK.encode(held)
    else:
        arrays.append(held.last_ms)
        lanes = []
        for lane in held.lanes:
            fields = []
            for name, array in (("places", lane.places), *lane.arrays.items()):
                plain = _little(array)
                fields.append(_Field(name, plain.dtype.str, list(plain.shape)))
                arrays.append(plain)
            lanes.append(_Lane(lane.detector, lane.version, fields, lane.episodes))
        head = held.epoch, held.applied, held.size, held.number, held.names, lanes
        if held.events is None:
            header = _PACK.encode(_Header(*head))
        else:
            version = FORMAT
            header = _PACK.encode(_HeaderWithEvents(*head, _described(held.events)))
            arrays += [getattr(held.events, name) for name, _, _ in _EVENT_ARRAYS]
    body = b"".join([header, *(_little(array).tobytes() for array in arrays)])
    flags, stored = 0, body
    if _shrinks(body):
        flags, stored = _COMPRESSED, zlib.compress(body, 1)
    return _HEAD.pack(_MAGIC, version, flags, len(body), zlib.crc32(body), len(header)) + stored


def decode(value: bytes) -> Block | Meta:
    """What ``encode`` made a value of. Raises ``StateRefused`` for anything else."""
    if len(value) < _HEAD.size or value[:4] != _MAGIC:
        raise StateRefused("broken", f"{len(value)} bytes without our mark")
    _, version, flags, length, crc, header_length = _HEAD.unpack_from(value)
    read = _READERS.get(version)
    if read is None:
        raise StateRefused("unknown_format", f"format {version}, this release knows {', '.join(map(str, _READERS))}")
    if length > MOST_BYTES or header_length > length or flags & ~_COMPRESSED:
        raise StateRefused("broken", f"a body of {length} bytes, a header of {header_length}, flags {flags}")
    body = value[_HEAD.size :]
    if flags & _COMPRESSED:
        inflate = zlib.decompressobj()
        try:
            body = inflate.decompress(body, length + 1)
        except zlib.error as error:
            raise StateRefused("broken", str(error)) from None
    if len(body) != length or zlib.crc32(body) != crc:
        raise StateRefused("broken", f"{len(body)} bytes or their sum, not what its head says")
    return read(body[:header_length], memoryview(body)[header_length:])


#: The arrays of ``Events``, in their order: name, type, and what its first axis is.
_EVENT_ARRAYS: Final = (
    ("places", "<i4", "rows"),
    ("at_ms", "<i8", "rows"),
    ("values", "<f8", "rows"),
    ("bad", "|b1", "rows"),
    ("heard_ms", "<i8", "places"),
    ("since_ms", "<i8", "places"),
)


def _described(events: Events) -> _Events:
    return _Events(
        events.clock_ms,
        events.newest_ms,
        events.taken,
        list(events.signals),
        len(events.places),
        events.claimed,
        events.episodes,
        events.silent,
    )


def _events(held: _Events, places: int, reader: _Arrays) -> Events:
    """Raises ``StateRefused``."""
    arrays = {}
    for name, dtype, axis in _EVENT_ARRAYS:
        shape = [held.rows if axis == "rows" else places]
        arrays[name] = reader.take(dtype, [*shape, len(held.signals)] if name in ("values", "bad") else shape)
    known = range(places)
    if not (set(held.claimed) | set(held.episodes) | set(held.silent)) <= set(known):
        raise StateRefused("broken", "claims or episodes of assets that are not there")
    where, at_ms = arrays["places"], arrays["at_ms"]
    if held.rows and (where.min() < 0 or where.max() >= places or at_ms.min() < 0 or at_ms.max() > _LATEST_MS):
        raise StateRefused("broken", "held readings that no asset can have")
    return Events(
        clock_ms=held.clock_ms,
        newest_ms=held.newest_ms,
        taken=held.taken,
        signals=tuple(held.signals),
        claimed=held.claimed,
        episodes=held.episodes,
        silent=held.silent,
        **arrays,
    )


def _read_1(header: bytes, rest: memoryview) -> Block | Meta:
    return _read(header, rest, _UNPACK_HEADER)


def _read_2(header: bytes, rest: memoryview) -> Block | Meta:
    return _read(header, rest, _UNPACK_HEADER_WITH_EVENTS)


def _read(header: bytes, rest: memoryview, unpack: msgspec.msgpack.Decoder[Any]) -> Block | Meta:
    try:
        if not len(rest):
            return _UNPACK_META.decode(header)
        head = unpack.decode(header)
    except (msgspec.DecodeError, RecursionError) as error:
        raise StateRefused("broken", str(error)) from None
    reader = _Arrays(rest)
    places = len(head.names)
    if not 0 < places <= head.size:
        raise StateRefused("broken", f"{places} names in a block of {head.size}")
    last_ms = reader.take("<i8", [places])
    if ((last_ms < 0) & (last_ms != NEVER) | (last_ms > _LATEST_MS)).any():
        raise StateRefused("broken", "times that no reading can have")
    block = Block(head.epoch, head.applied, head.size, head.number, head.names, last_ms)
    for lane in head.lanes:
        arrays = {field.name: reader.take(field.dtype, field.shape) for field in lane.fields}
        where = arrays.pop("places", None)
        if where is None or where.dtype.str != "<i4" or where.ndim != 1 or len(arrays) + 1 != len(lane.fields):
            raise StateRefused("broken", f"{lane.detector}: no places, or a name twice")
        rows = len(where)
        ascending = rows == 0 or bool((np.diff(where) > 0).all() and where[0] >= 0 and where[-1] < places)
        if not ascending or any(len(array) != rows for array in arrays.values()):
            raise StateRefused("broken", f"{lane.detector}: rows that are not those of its assets")
        if not set(lane.episodes) <= set(where.tolist()):
            raise StateRefused("broken", f"{lane.detector}: episodes of assets that it does not watch")
        block.lanes.append(LaneRows(lane.detector, lane.version, where, arrays, lane.episodes))
    if isinstance(head, _HeaderWithEvents):
        block.events = _events(head.events, places, reader)
    reader.done()
    return block


#: What reads each format that is still known. What none of them reads is begun anew, on purpose and told.
_READERS: Final[Mapping[int, Callable[[bytes, memoryview], Block | Meta]]] = {1: _read_1, 2: _read_2}


class _Arrays:
    """Arrays one after the other, each checked against what is left before anything is made of it."""

    def __init__(self, rest: memoryview) -> None:
        self._rest = rest

    def take(self, dtype: str, shape: list[int]) -> Array:
        if dtype not in _DTYPES:
            raise StateRefused("broken", f"an array of {dtype!r}")
        size = int(dtype[2:]) * math.prod(shape)  # whole numbers of Python: no overflow
        if size > len(self._rest):
            raise StateRefused("broken", f"an array of {size} bytes where {len(self._rest)} are left")
        part, self._rest = self._rest[:size], self._rest[size:]
        try:
            return np.frombuffer(part, np.dtype(dtype)).reshape(shape)
        except ValueError as error:  # no number of rows follows from nothing
            raise StateRefused("broken", str(error)) from None

    def done(self) -> None:
        if len(self._rest):
            raise StateRefused("broken", f"{len(self._rest)} bytes behind the last array")


def _little(array: Array) -> Array:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _shrinks(body: bytes) -> bool:
    """Whether compressing pays, by a sample of three places."""
    if len(body) <= _SAMPLE:
        return len(body) > 512
    step = (len(body) - _SAMPLE // 3) // 2
    sample = b"".join(body[start : start + _SAMPLE // 3] for start in (0, step, 2 * step))
    return len(zlib.compress(sample, 1)) < _WORTH_IT * len(sample)
