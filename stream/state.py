"""What must survive a crash, as the values of records: blocks of assets, and one record a partition that says how far.

A block holds ``size`` assets of one partition: their names and newest times, and for each lane (a detector with one
version of its model) the arrays it remembers them by and their open episodes. Each block says up to which offset of the
readings' partition its assets have applied what was read; ``Meta`` says up to which offset all of them have. Where a
crash came between the blocks of a snapshot, some are ahead of ``Meta``: ``Assembly`` puts them together.

A value is magic, format, flags, the length and CRC-32 of its body; the body is a msgpack header (names, types and
shapes) and the arrays behind each other, little-endian. Nothing in it can run. Whatever is wrong with one, ``decode``
raises ``StateRefused`` before it allocates more than the value's own size allows.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from stream.decide import Episode
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


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Up to ``applied`` all blocks of the partition have applied what was read.

    blocks  what each block's own ``applied`` is at least, by number; -1 where there is no such block
    """

    epoch: Count
    applied: Offset
    size: Annotated[int, msgspec.Meta(ge=1, le=MOST_ASSETS)]
    blocks: Annotated[list[Offset], msgspec.Meta(max_length=1 << 20)]


@dataclass(slots=True)
class Image:
    """A partition's state as its records have it.

    passed    by block's number: what its assets have applied, where that is ahead of ``applied``
    keys      of all records that were found, for those that are no longer wanted
    sizes     of each block's value, in bytes
    problems  what could not be used, in words, by a short reason
    """

    epoch: int = 0
    applied: int = -1
    size: int = MOST_ASSETS
    blocks: dict[int, Block] = field(default_factory=dict)
    passed: dict[int, int] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)
    problems: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)


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
    )


def _events(held: _Events, places: int, reader: _Arrays) -> Events:
    """Raises ``StateRefused``."""
    arrays = {}
    for name, dtype, axis in _EVENT_ARRAYS:
        shape = [held.rows if axis == "rows" else places]
        arrays[name] = reader.take(dtype, [*shape, len(held.signals)] if name in ("values", "bad") else shape)
    known = range(places)
    if not (set(held.claimed) <= set(known) and set(held.episodes) <= set(known)):
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


def prefix(group: str, topic: str) -> bytes:
    """What the keys of one consumer group's state of one topic begin with: several may share a topic of states."""
    return f"{group}\0{topic}\0".encode()


def block_key(before: bytes, size: int, number: int) -> bytes:
    """The key of a block's record."""
    return before + b"b%d.%d" % (size, number)


def meta_key(before: bytes) -> bytes:
    """The key of the record of a partition's ``Meta``."""
    return before + b"meta"


class Assembly:
    """Puts a partition's image together from its records (key, value), given in their order. Never raises: see
    ``Image.problems``.

    Of several records of a key that counts which is furthest, not the last: a worker that was frozen while others went
    on may have written late. Only what counts is held.
    """

    def __init__(self, before: bytes) -> None:
        self._before = before
        self.clear()

    def clear(self) -> None:
        """Begin again."""
        self._image = Image()
        self._meta: Meta | None = None
        self._found: dict[tuple[int, int], tuple[Block, int]] = {}

    def add(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Take the next records; those of other groups and topics are passed over."""
        image = self._image
        for key, value in records:
            if key is None or not key.startswith(self._before):
                continue
            if value is None:
                image.keys.discard(key)
                deleted = [place for place in self._found if block_key(self._before, *place) == key]
                for place in deleted:
                    del self._found[place]
                continue
            image.keys.add(key)
            try:
                held = decode(value)
            except StateRefused as error:
                image.problems.append((error.reason, f"{key[len(self._before) :]!r}: {error}"))
                continue
            if isinstance(held, Meta):
                if self._meta is None or _age(self._meta) <= _age(held):
                    self._meta = held
                continue
            place = held.size, held.number
            if block_key(self._before, *place) != key:
                image.problems.append(("broken", f"{key[len(self._before) :]!r} holds block {held.size}.{held.number}"))
            elif place not in self._found or _age(self._found[place][0]) <= _age(held):
                self._found[place] = held, len(value)

    def image(self) -> Image:
        """What the records given so far come to."""
        _join(self._image, self._meta, {place: block for place, (block, _) in self._found.items()})
        self._image.sizes = {
            number: self._found[block.size, block.number][1] for number, block in self._image.blocks.items()
        }
        return self._image


def _age(held: Block | Meta) -> tuple[int, int]:
    return held.epoch, held.applied


def _join(image: Image, meta: Meta | None, found: dict[tuple[int, int], Block]) -> None:
    """Put blocks and ``Meta`` together; blocks of an older epoch, or that a later snapshot has lost, are left out."""
    image.epoch = max([block.epoch for block in found.values()] + [meta.epoch if meta else 0])
    blocks = [block for block in found.values() if block.epoch == image.epoch]
    if meta is not None and meta.epoch == image.epoch:
        image.applied = meta.applied
        image.size = meta.size
        listed = {(meta.size, number): applied for number, applied in enumerate(meta.blocks) if applied >= 0}
        lost = sorted(
            number
            for (size, number), applied in listed.items()
            if (size, number) not in found or found[size, number].applied < applied
        )
        if lost:
            image.problems.append(("lost", f"blocks {lost[:20]} are missing, or older than the snapshot says"))
        # One that the snapshot does not list is either ahead of it, written by the next one, or a leftover from before.
        blocks = [
            block for block in blocks if block.applied >= listed.get((block.size, block.number), meta.applied + 1)
        ]
    elif blocks:
        image.size = max(blocks, key=_age).size
    far = 2 * len(blocks) + 64  # their numbers leave no holes: a block far beyond them would only cost memory
    image.problems += [("broken", f"block {block.number} of {len(blocks)}") for block in blocks if block.number >= far]
    blocks = [block for block in blocks if block.number < far]
    _settle(image, sorted(blocks, key=lambda block: (block.applied, block.size != image.size)))


def _settle(image: Image, blocks: list[Block]) -> None:
    """Take blocks, the furthest last: an asset that two of them name is where it was put last."""
    owner: dict[str, Block] = {}
    for block in blocks:
        owner.update((name, block) for name in block.names if name)
    number = 1 << 19  # blocks of another size get numbers that nobody else has: they will be laid out anew
    for block in blocks:
        block.names = [name if name and owner[name] is block else "" for name in block.names]
        place = block.number
        if block.size != image.size:
            place, number = number, number + 1
        image.blocks[place] = block
        if block.applied > image.applied:
            image.passed[place] = block.applied
