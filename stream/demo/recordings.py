"""The simulated plant as files: clean history to train on, and a later time with labelled faults to try it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from models.datasets import Recording
from models.errors import DataError
from models.simulate import Plant
from stream.demo.scenario import HISTORY_ROWS, LIVE_ROWS
from stream.sources.json import timestamp

#: What the columns of time and of labels are called.
_TIME, _LABEL = "time", "anomaly"
FOLDERS: Final = ("history", "live")


def record(folder: Path, *, kinds: Sequence[str] = (), seed: int = 7) -> int:
    """Write ``history/`` and ``live/`` with a CSV file an asset into ``folder``; how many assets there are.

    ``kinds``: pump, compressor, exchanger; all if empty. The files of ``live`` have a column of labels. Raises
    ``DataError`` for a kind that the plant has not.
    """
    plant = Plant(seed)
    if unknown := set(kinds) - set(plant.kinds.values()):
        raise DataError(f"the plant has no {min(unknown)}: it has {', '.join(sorted(set(plant.kinds.values())))}")
    wanted = [asset for asset in plant.assets if not kinds or plant.kinds[asset] in kinds]
    for name, recordings in zip(FOLDERS, (plant.history(HISTORY_ROWS), plant.live(LIVE_ROWS)[0]), strict=True):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for held in recordings:
            if held.asset in wanted:
                _write(folder / name / f"{held.asset}.csv", held, labelled=name == "live")
    return len(wanted)


def _write(path: Path, recording: Recording, *, labelled: bool) -> None:
    head = [_TIME, *recording.signals, *([_LABEL] if labelled else [])]
    lines = [",".join(head)]
    labels = recording.labels.tolist() if labelled and recording.labels is not None else None
    for row, (at_ms, values) in enumerate(zip(recording.at_ms.tolist(), recording.values.tolist(), strict=True)):
        cells = ["" if value != value else f"{value:.6g}" for value in values]
        lines.append(",".join([timestamp(at_ms), *cells, *([str(int(labels[row]))] if labels else [])]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
