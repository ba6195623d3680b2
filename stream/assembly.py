"""A partition's state put together again from its records: what a worker that begins, or takes over, starts from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from stream.errors import StateRefused
from stream.state import MOST_ASSETS, Block, Clock, Meta, Served, decode


@dataclass(slots=True)
class Image:
    """A partition's state as its records have it.

    passed    by block's number: what its assets have applied, where that is ahead of ``applied``
    keys      of all records that were found, for those that are no longer wanted
    sizes     of each block's value, in bytes
    problems  what could not be used, in words, by a short reason
    served    see ``Meta``
    clock     of the partition at ``applied``, if that is known
    """

    epoch: int = 0
    applied: int = -1
    size: int = MOST_ASSETS
    blocks: dict[int, Block] = field(default_factory=dict)
    passed: dict[int, int] = field(default_factory=dict)
    keys: set[bytes] = field(default_factory=set)
    problems: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    clock: Clock | None = None
    served: dict[str, Served] = field(default_factory=dict)


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
        image.clock = meta.clock
        image.size = meta.size
        image.served = dict(meta.served)
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
