"""What travels between the stages: arrays inside, records at the edges.

    RawRecord --decode--> Readings --window--> Windows --score--> Scores --decide--> Alert
                  `-> DeadLetter      `-> Late

Everything in between is a struct of arrays: one row a reading, in the order the broker gave them. Only what leaves the
pipeline for a person (an alert) or for repair (a dead letter) becomes an object of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, Self, overload

import msgspec
import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
UInt8 = npt.NDArray[np.uint8]

Headers = Sequence[tuple[str, bytes | None]]

Severity = Literal["warning", "major", "critical"]
State = Literal["open", "updated", "resolved"]


class RawRecord(Protocol):
    """A record as a Kafka client hands it over (aiokafka's and kafka-python's ``ConsumerRecord`` both fit)."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True, slots=True)
class Record:
    """A ``RawRecord`` of our own making, for files, replays and tests. ``timestamp``: epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0
    headers: Headers = ()


@dataclass(frozen=True, slots=True, eq=False)
class Fetched(Sequence[Record]):
    """One partition's records as the client parsed them; a ``Record`` is made of one only when it is asked for.

    raw   (record,) objects with ``offset``, ``timestamp``, ``key``, ``value`` and ``headers``
    """

    topic: str
    partition: int
    raw: Sequence[Any]

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> Fetched: ...
    def __getitem__(self, place: int | slice) -> Record | Fetched:
        if isinstance(place, slice):
            return Fetched(self.topic, self.partition, self.raw[place])
        raw = self.raw[place]
        return Record(self.topic, self.partition, raw.offset, raw.value, raw.key, raw.timestamp, tuple(raw.headers))


def payloads(records: Sequence[RawRecord]) -> list[bytes | None]:
    """The values of records, without making objects of them."""
    return [record.value for record in (records.raw if isinstance(records, Fetched) else records)]


class Numbered(tuple[str, ...]):
    """Names that whoever read them has numbered: the same name has the same number for as long as ``book`` is the same.

    What makes other names of these makes a plain tuple, so numbers never stand beside names that are not theirs.
    """

    book: object
    numbers: Int32

    @classmethod
    def of(cls, names: Iterable[str], book: object, numbers: Int32) -> Self:
        """``names`` with their ``numbers`` (name,)."""
        held = cls(names)
        held.book, held.numbers = book, numbers
        return held

    def take(self, places: Int64) -> Self:
        """Those at ``places``, in that order."""
        return self.of(map(self.__getitem__, places.tolist()), self.book, self.numbers.take(places))


@dataclass(frozen=True, slots=True)
class Readings:
    """A batch of readings as columns.

    names      the assets that occur, in order of first sight; ``Numbered``, if who read them has numbered them
    asset      (reading,) int32, index into ``names``
    at_ms      (reading,) int64, when it was observed, epoch milliseconds
    signals    names of the columns of ``values``
    values     (reading, signal) float64, in the plant's units; NaN where missing, not finite or of bad quality
    record     (reading,) int32, index of the record of the batch that it came in
    bad        (reading, signal) bool, where the source called a value bad; None: nowhere
    pictures   pixels (row, column) uint8 by the index of the record they came in; empty where readings are numbers
    """

    names: tuple[str, ...]
    asset: Int32
    at_ms: Int64
    signals: tuple[str, ...]
    values: Float64
    record: Int32
    bad: Bool | None = None
    pictures: Mapping[int, UInt8] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.at_ms)

    def take(self, chosen: Bool) -> Readings:
        """Some of the readings, in their order; all names are kept."""
        return Readings(
            self.names,
            self.asset[chosen],
            self.at_ms[chosen],
            self.signals,
            self.values[chosen],
            self.record[chosen],
            None if self.bad is None else self.bad[chosen],
            self.pictures,
        )


@dataclass(frozen=True, slots=True)
class Runs:
    """A batch's rows as runs of one asset each.

    slots, group, nth, since  (row,) int64: the asset's slot, the run's number, the row's place in its run, and the rows
                              of the asset since its last reset, this one included
    starts, ends              (run,) int64: the first row of each run, and the one after its last
    """

    slots: Int64
    group: Int64
    nth: Int64
    since: Int64
    starts: Int64
    ends: Int64

    def due(self, length: int, hop: int) -> Int64:
        """Rows whose turn it is to be judged: every ``hop`` rows from the ``length``-th since the reset on."""
        return np.flatnonzero((self.since >= length) & ((self.since - length) % hop == 0))


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows of a batch lie.

    flat   (row, signal) float32: each asset's history followed by its new rows
    end    (window,) int64, index into ``flat`` of each window's newest row
    row    (window,) int64, index of the reading (of those given) that each window judges
    """

    length: int
    flat: Float32
    end: Int64
    row: Int64

    def __len__(self) -> int:
        return len(self.end)

    def take(self, start: int, stop: int) -> Float32:
        """Windows ``start`` to ``stop`` as (window, time, signal) float32."""
        windows: Float32 = self.flat[self.end[start:stop, None] + np.arange(1 - self.length, 1)]
        return windows


@dataclass(frozen=True, slots=True)
class Scores:
    """What one model says of the readings of a batch, one row a reading that it could judge.

    detector       name of the detector in the plan
    kind           name of the detector's file, e.g. ``lstm_forecaster``
    model_version  version of the artifact that scored
    names, asset   as in ``Readings``
    at_ms          (row,) int64, epoch milliseconds
    score          (row,) float64, higher is stranger; NaN = no usable value in the newest row
    threshold      (row,) float64
    anomalous      (row,) bool: an alert is open at this row
    signals        names of the columns below
    values         (row, signal) float64, plant units, NaN = missing
    contributions  (row, signal) float64, rows sum to 1 or are zero
    expected       (row, signal) float64, plant units, or None
    spread         (row, signal) float64, plant units, one standard deviation, or None
    verdict        (row,) uint8, index into ``models.base.KINDS``
    raised         how many rows were held against a threshold that had followed drift
    """

    detector: str
    kind: str
    model_version: str
    names: tuple[str, ...]
    asset: Int32
    at_ms: Int64
    score: Float64
    threshold: Float64
    anomalous: Bool
    signals: tuple[str, ...]
    values: Float64
    contributions: Float64
    expected: Float64 | None
    spread: Float64 | None
    verdict: UInt8
    raised: int = 0

    def __len__(self) -> int:
        return len(self.at_ms)


class Cause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One signal's part in an alert. Values are in the plant's units; absent where unknown."""

    signal: str
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]
    value: float | None = None
    expected: float | None = None
    low: float | None = None
    high: float | None = None


class Diagnosis(msgspec.Struct, frozen=True):
    """How likely it is that an alert is of this fault; ``unknown`` is the fault that resembles none that was learnt."""

    fault: str
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)]


class HeatMap(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a picture something is wrong, the picture itself is not kept here.

    at             when the picture was taken, RFC 3339 in UTC
    width, height  of the picture, pixels
    box            left, top, right, bottom of what is strange, pixels; right and bottom are the first outside
    columns, rows  of the map
    cells          (row, column) unsigned bytes, row by row (base64 in JSON): 255 is the strangest place of the picture
    """

    at: str
    width: int
    height: int
    box: tuple[int, int, int, int]
    columns: int
    rows: int
    cells: bytes


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened in an alert's life.

    what     ``open``, ``major``, ``critical`` (it became worse), ``re_alarm``, ``resolved``; an operator's ``ack``,
             ``shelve``, ``unshelve``, ``resolve``; ``shelf_over``; a label: ``true``, ``false_alarm``
    at       RFC 3339 in UTC: of the reading where the readings did it, else of the operator's clock
    by       who; empty where nobody did anything
    id       of the operator's action
    """

    what: str
    at: str
    by: str = ""
    comment: str = ""
    id: str = ""


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody has seen the alert, and said so."""

    by: str
    at: str
    comment: str = ""


class Shelved(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Nobody is told of the alert until this time of its readings."""

    until: str
    by: str
    at: str
    comment: str = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One transition of one alert: version 1 of the record on ``plant.alerts.v1``, key = ``id``.

    ``id`` is a hash of (detector, asset, onset), so a replay gives the same one. Times are RFC 3339 in UTC. ``score``
    is that of ``last_seen``, ``peak`` the highest since ``onset``; ``causes`` are sorted by share, which sum to 1.
    ``sequence`` counts the transitions of this alert from 0. ``diagnosis`` is what a classifier made of the readings
    over the threshold, on average since ``onset``, the likeliest fault first; ``heat`` is of the strangest picture.

    ``threshold`` is the detector's times ``factor``, which labels and operating modes move. ``suppressed`` says why
    nobody is told (a maintenance window, a rule of the plan), ``re_alarm`` that it is open and nobody has acknowledged
    it for long; ``life`` is all that happened to it but for plain updates, ``action`` the operator's action that this
    transition answers.
    """

    id: str
    sequence: int
    state: State
    severity: Severity
    asset: str
    detector: str
    kind: str
    verdict: str
    model_version: str
    onset: str
    opened: str
    last_seen: str
    resolved: str | None = None
    score: float
    threshold: float
    peak: float
    peak_at: str
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    causes: tuple[Cause, ...] = ()
    diagnosis: tuple[Diagnosis, ...] = ()
    heat: HeatMap | None = None
    site: str = ""
    factor: float = 1.0
    acknowledged: Acknowledged | None = None
    shelved: Shelved | None = None
    suppressed: str = ""
    re_alarm: bool = False
    life: tuple[Event, ...] = ()
    action: str = ""

    @property
    def told(self) -> bool:
        """Whether people are to be told of it: it is open, and neither shelved nor suppressed."""
        return self.state != "resolved" and self.shelved is None and not self.suppressed


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, or a piece of output no sink would take, with the reason."""

    record: RawRecord
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Late:
    """A record with readings older than what its asset has already shown."""

    record: RawRecord
    detail: str


@dataclass(frozen=True, slots=True)
class Output:
    """All that one batch of records led to: what the sinks are given, together.

    ``counts`` are whole numbers by name (readings, duplicates, ...) and ``stage_s`` the seconds that a stage took:
    both feed the metrics. ``produced_ms`` is the newest record's own timestamp, for the time from produce to alert.
    """

    scores: tuple[Scores, ...] = ()
    alerts: tuple[Alert, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    late: tuple[Late, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    stage_s: Mapping[str, float] = field(default_factory=dict)
    produced_ms: int = 0


def to_json(record: msgspec.Struct | Mapping[str, Any]) -> bytes:
    """A record as compact JSON."""
    return msgspec.json.encode(record)
