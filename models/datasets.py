"""Recordings from files: plain CSV and Parquet, and the layouts of the public sets, told apart by what is in them.

    a table with a header     CSV (``,`` ``;`` or tab) or Parquet: a time column if there is one, signals, maybe labels
    NAB                       such tables; ``labels/combined_windows.json`` in a folder above has the windows
    SKAB, ASD                 such tables; columns ``anomaly``, ``changepoint`` or ``label`` are never signals
    labelled faults           such tables with a column ``fault``: what was going on in each row, empty where all was
    well TEP                       numbers apart by blanks, 52 columns (``d00.dat`` lies on its side), no header
    C-MAPSS                   numbers apart by blanks, 26 columns: unit, cycle, settings, sensors; one recording a unit
    SMAP, MSL                 ``.npy`` arrays (row, signal); ``labeled_anomalies.csv`` in the folder above

Polars, which reads the tables, is imported when a table is read.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from models.base import NORMAL, Float64
from models.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_TABLES: Final = (".csv", ".tsv", ".parquet")
_SUFFIXES: Final = (*_TABLES, ".txt", ".dat", ".npy")
_TIMES: Final = ("ts", "time", "timestamp", "datetime", "date", "at_ms", "at", "t")
_ASSETS: Final = ("asset", "asset_id", "machine", "machine_id", "device", "device_id", "unit")
#: Columns that say what was wrong; the first that is there is what a row's label is.
_LABELS: Final = ("anomaly", "label", "is_anomaly", "labels", "changepoint")
#: Columns that name what was wrong, one name a row; empty, 0 and "normal" are in order.
_FAULTS: Final = ("fault", "fault_type", "fault_class")
_START_MS: Final = 1_577_836_800_000  # 2020-01-01: rows without a time are a period apart from here
_TEP_COLUMNS: Final = 52
_CMAPSS_COLUMNS: Final = 26


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What one asset's signals were.

    at_ms (row,) int64, epoch milliseconds, ascending; values (row, signal) float64, in the signals' own units, NaN
    where missing; labels (row,) bool, True where something was wrong, or None if nobody said; label_windows: the same
    as (from, to) in epoch milliseconds, both included; faults (row,) text, what was going on in each row ("normal" or
    the name of a fault), or None if nobody said.
    """

    asset: str
    at_ms: npt.NDArray[np.int64]
    signals: tuple[str, ...]
    values: Float64
    labels: npt.NDArray[np.bool_] | None = None
    label_windows: tuple[tuple[int, int], ...] = ()
    faults: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        rows = len(self.at_ms)
        if self.values.shape != (rows, len(self.signals)):
            raise DataError(f"{self.asset}: values {self.values.shape} for {rows} rows, {len(self.signals)} signals")
        if self.labels is not None and len(self.labels) != rows:
            raise DataError(f"{self.asset}: {len(self.labels)} labels for {rows} rows")
        if self.faults is not None and len(self.faults) != rows:
            raise DataError(f"{self.asset}: {len(self.faults)} faults for {rows} rows")


def read(
    path: Path | str,
    *,
    time_column: str | None = None,
    asset_column: str | None = None,
    period_s: float = 1.0,
) -> list[Recording]:
    """All recordings in a file, or in all files below a folder; an asset is named by its column or its file.

    ``period_s`` is for rows that bear no time. Raises ``DataError`` naming file, column and remedy.
    """
    path = Path(path)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in _SUFFIXES and not _is_about(file)]
        if not files:
            raise DataError(f"{path}: no recording in it; read are {', '.join(_SUFFIXES)}")
    elif path.is_file():
        files = [path]
    else:
        raise DataError(f"{path}: no such file or folder")
    reader = _Reader(time_column, asset_column, period_s)
    recordings = [recording for file in files for recording in reader.read(file)]
    return _distinctly_named(recordings, files, path) if path.is_dir() else recordings


@dataclass(frozen=True, slots=True)
class _Reader:
    time_column: str | None
    asset_column: str | None
    period_s: float

    def read(self, file: Path) -> list[Recording]:
        if file.suffix.lower() == ".npy":
            return [self._array(file)]
        if file.suffix.lower() == ".parquet":
            return list(self._table(file, _parquet(file)))
        separator = _separator(file)
        if separator is None:
            return list(self._numbers(file))
        return list(self._table(file, _csv(file, separator)))

    def _table(self, file: Path, table: pl.DataFrame) -> Iterator[Recording]:
        time = self._column(file, table, self.time_column, _TIMES, "--time-column")
        asset = self._column(file, table, self.asset_column, _ASSETS, "--asset-column")
        if asset is None:
            yield self._asset(file, file.stem, table, time)
            return
        for (name,), rows in table.group_by([asset], maintain_order=True):
            yield self._asset(file, str(name), rows.drop(asset), time)

    def _asset(self, file: Path, name: str, table: pl.DataFrame, time: str | None) -> Recording:
        if time is None:
            at_ms = self._made_up_times(table.height)
        else:
            at_ms = _times_ms(file, table[time])
            order = np.argsort(at_ms, kind="stable")
            at_ms, table = at_ms[order], table[order].drop(time)
        labels = {column.lower(): column for column in table.columns if column.lower() in _LABELS}
        told = next((column for column in table.columns if column.lower() in _FAULTS), None)
        signals = [column for column in table.columns if column not in labels.values() and column != told]
        if not signals:
            raise DataError(f"{file}: no column left for signals beside time and labels")
        values = np.column_stack([_numeric(file, table[column]) for column in signals])
        chosen = next((labels[key] for key in _LABELS if key in labels), None)
        wrong = None if chosen is None else _numeric(file, table[chosen]) > 0
        faults = None if told is None else _fault_names(table[told])
        if wrong is None and faults is not None:
            wrong = faults != NORMAL
        windows = _nab_windows(file)
        if windows is None:
            windows = () if wrong is None else _windows_of(at_ms, wrong)
        elif wrong is None:
            wrong = np.zeros(len(at_ms), bool)
            for start, end in windows:
                wrong |= (at_ms >= start) & (at_ms <= end)
        return Recording(name, at_ms, tuple(signals), values, wrong, windows, faults)

    def _numbers(self, file: Path) -> Iterator[Recording]:
        """A table without a header, apart by blanks: TEP, C-MAPSS or anything of that kind."""
        try:
            values = np.loadtxt(file, dtype=np.float64, ndmin=2)
        except ValueError as error:
            raise DataError(f"{file}: neither a table with a header nor numbers apart by blanks: {error}") from None
        units = values[:, 0] if values.shape[1] == _CMAPSS_COLUMNS else np.empty(0)
        if len(units) and (units == units.round()).all() and (np.diff(units) >= 0).all():
            names = ("setting1", "setting2", "setting3", *(f"sensor{n}" for n in range(1, 22)))
            for unit in np.unique(units):
                rows = values[units == unit]
                yield Recording(f"{file.stem}-{unit:.0f}", self._made_up_times(len(rows)), names, rows[:, 2:])
            return
        if values.shape[0] == _TEP_COLUMNS and values.shape[1] > _TEP_COLUMNS:
            values = values.T  # d00.dat lies on its side
        names = tuple(f"x{column:02d}" for column in range(1, values.shape[1] + 1))
        if values.shape[1] == _TEP_COLUMNS:
            names = (*(f"xmeas{n:02d}" for n in range(1, 42)), *(f"xmv{n:02d}" for n in range(1, 12)))
        yield Recording(file.stem, self._made_up_times(len(values)), names, values)

    def _array(self, file: Path) -> Recording:
        try:
            values = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{file}: not an array that can be read without running code: {error}") from None
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2 or values.dtype.kind not in "fiub":
            raise DataError(f"{file}: expected numbers (row, signal), got {values.dtype} {values.shape}")
        names = tuple(f"x{column:02d}" for column in range(values.shape[1]))
        at_ms = self._made_up_times(len(values))
        ranges = _telemetry_ranges(file)
        labels = None if ranges is None else np.zeros(len(values), bool)
        for first, last in ranges or ():
            if labels is not None:
                labels[first : last + 1] = True
        windows = () if labels is None else _windows_of(at_ms, labels)
        return Recording(file.stem, at_ms, names, values.astype(np.float64), labels, windows)

    def _made_up_times(self, rows: int) -> npt.NDArray[np.int64]:
        return _START_MS + (np.arange(rows) * self.period_s * 1000.0).astype(np.int64)

    @staticmethod
    def _column(file: Path, table: pl.DataFrame, asked: str | None, usual: Sequence[str], option: str) -> str | None:
        if asked is not None:
            if asked not in table.columns:
                raise DataError(f"{file}: no column {asked!r} ({option}); there are {', '.join(table.columns)}")
            return asked
        found = {column.lower().strip(): column for column in table.columns}
        return next((found[name] for name in usual if name in found), None)


def _separator(file: Path) -> str | None:
    """What separates the columns of a table with a header; None if the file is bare numbers apart by blanks."""
    with file.open(encoding="utf-8-sig", errors="replace") as text:
        header = text.readline()
    if not header.strip():
        raise DataError(f"{file}: empty, or its first line is")
    counts = {separator: header.count(separator) for separator in (";", "\t", ",")}
    best = max(counts, key=lambda separator: counts[separator])
    if counts[best]:
        return best
    try:
        [float(word) for word in header.split()]
    except ValueError:
        return ","  # a header of one name: a table with one column
    return None


def _csv(file: Path, separator: str) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415  # see the top of this file

    try:
        return pl.read_csv(
            file, separator=separator, infer_schema_length=10_000, null_values=["", "NA", "NaN", "nan", "null", "None"]
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file}: {str(error).splitlines()[0]}") from None


def _parquet(file: Path) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415  # see the top of this file

    try:
        return pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{file}: {str(error).splitlines()[0]}") from None


def _numeric(file: Path, column: pl.Series) -> Float64:
    if not (column.dtype.is_numeric() or str(column.dtype) in ("Boolean", "Null")):
        first = next((value for value in column.to_list() if value is not None and not _is_number(value)), None)
        raise DataError(
            f"{file}: column {column.name!r} holds {first!r}, which is no number; remove the column, "
            f"or name it with --time-column or --asset-column if it is one of these"
        )
    return np.asarray(column.cast(_float64()).fill_null(float("nan")).to_numpy(), np.float64)


def _fault_names(column: pl.Series) -> npt.NDArray[np.str_]:
    """(row,) the name of the fault in each row; a number is its number."""
    plain = {None: NORMAL, "": NORMAL, 0: NORMAL, "0": NORMAL}
    return np.array(
        [
            plain[value] if value in plain else f"fault {value:g}" if isinstance(value, int | float) else str(value)
            for value in column.to_list()
        ]
    )


def _times_ms(file: Path, column: pl.Series) -> npt.NDArray[np.int64]:
    """Epoch seconds, milli-, micro- or nanoseconds by their size, dates, or ISO 8601 (UTC if it says nothing)."""
    if column.null_count():
        row = column.is_null().arg_max()
        raise DataError(f"{file}: column {column.name!r} has no time in row {row}; remove the row")
    if column.dtype.is_numeric():
        values = np.asarray(column.cast(_float64()).to_numpy(), np.float64)
        size = float(np.median(np.abs(values))) if len(values) else 0.0
        per_second = next(unit for unit in (1.0, 1e3, 1e6, 1e9) if size < 1e11 * unit or unit == 1e9)
        return np.asarray(np.round(values * (1e3 / per_second)), np.int64)
    if column.dtype.is_temporal() and str(column.dtype) != "Time":
        import polars as pl  # noqa: PLC0415  # see the top of this file

        return np.asarray(column.cast(pl.Datetime("ms")).cast(pl.Int64).to_numpy(), np.int64)
    try:
        return np.array([_iso_ms(str(value)) for value in column.to_list()], np.int64)
    except ValueError as error:
        raise DataError(
            f"{file}: column {column.name!r}: {error}; expected ISO 8601 or epoch seconds or milliseconds"
        ) from None


def _iso_ms(text: str) -> int:
    moment = datetime.fromisoformat(text.strip())
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _float64() -> Any:
    import polars as pl  # noqa: PLC0415  # see the top of this file

    return pl.Float64


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _windows_of(at_ms: npt.NDArray[np.int64], wrong: npt.NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    edges = np.diff(np.concatenate([[False], wrong, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    return tuple((int(at_ms[a]), int(at_ms[b])) for a, b in zip(starts, ends, strict=True))


def _nab_windows(file: Path) -> tuple[tuple[int, int], ...] | None:
    """What NAB's label file says of this recording; None without such a file, or where it does not know it."""
    for folder in list(file.resolve().parents)[:3]:
        labels = folder / "labels" / "combined_windows.json"
        if labels.is_file():
            known: Mapping[str, Any] = json.loads(labels.read_text(encoding="utf-8"))
            windows = known.get(f"{file.resolve().parent.name}/{file.name}")
            return None if windows is None else tuple((_iso_ms(start), _iso_ms(end)) for start, end in windows)
    return None


def _telemetry_ranges(file: Path) -> list[tuple[int, int]] | None:
    """The anomalous row ranges of a SMAP or MSL channel's test part; none for its training part."""
    labels = file.resolve().parent.parent / "labeled_anomalies.csv"
    if not labels.is_file():
        return None
    if file.resolve().parent.name == "train":
        return []
    with labels.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            if row.get("chan_id") == file.stem:
                return [(int(first), int(last)) for first, last in ast.literal_eval(row["anomaly_sequences"])]
    return None


def _is_about(file: Path) -> bool:
    """Whether a file tells of recordings rather than being one."""
    return file.name.lower() in ("labeled_anomalies.csv", "license.txt", "readme.txt") or file.name.startswith("RUL_")


def _distinctly_named(recordings: list[Recording], files: Sequence[Path], folder: Path) -> list[Recording]:
    """Where two files of a folder would give assets of one name, all are named with their folders as well."""
    names = [recording.asset for recording in recordings]
    if len(set(names)) == len(names) or len(files) != len(recordings):
        return recordings
    return [
        Recording(
            "-".join(file.relative_to(folder).with_suffix("").parts),
            r.at_ms,
            r.signals,
            r.values,
            r.labels,
            r.label_windows,
        )
        for r, file in zip(recordings, files, strict=True)
    ]
