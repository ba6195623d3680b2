"""Reads a checkpoint of PyTorch (the format before 1.6) without PyTorch, and without running anything that it says.

Such a file is five pickles, and behind them the numbers of each storage. A pickle may call any function it names, so
its bytes are compared with a digest before the first is looked at, and the four names that a table of arrays needs are
all that is ever answered.
"""

from __future__ import annotations

import collections
import hashlib
import io
import pickle  # of known bytes, and with four names: see _Unpickler
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from models.errors import DataError

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_LENGTH: Final = np.dtype("<i8")


class _FloatStorage:
    dtype: Final = np.dtype("<f4")


class _LongStorage:
    dtype: Final = np.dtype("<i8")


def _tensor(storage: tuple[Any, ...], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Any:
    return storage, offset, shape, strides


_NAMES: Final[dict[tuple[str, str], Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch", "FloatStorage"): _FloatStorage,
    ("torch", "LongStorage"): _LongStorage,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table of arrays needs")
        return _NAMES[module, name]

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read(path: Path, sha256: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the file with this digest, by name.

    Raises ``DataError`` for any other file, and for what is no such checkpoint.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path}: its SHA-256 is not {sha256}: it is not the file that this program knows")
    try:
        return _parsed(io.BytesIO(content))
    except (pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError) as error:
        raise DataError(f"{path}: not a checkpoint of PyTorch before 1.6: {error}") from None


def _parsed(file: io.BytesIO) -> dict[str, npt.NDArray[Any]]:
    magic, _, system, tensors, order = (_Unpickler(file).load() for _ in range(5))
    if magic != _MAGIC or not system["little_endian"]:
        raise ValueError("another magic number, or big-endian")
    dtypes = {tensor[0][2]: tensor[0][1].dtype for tensor in tensors.values()}
    storages = {}
    for key in order:
        count = int(np.frombuffer(file.read(_LENGTH.itemsize), _LENGTH)[0])
        numbers = file.read(count * dtypes[key].itemsize)
        storages[key] = np.frombuffer(numbers, dtypes[key], count)
    if file.read(1):
        raise ValueError("more bytes than its storages take")
    return {name: _array(storages[tensor[0][2]], *tensor[1:]) for name, tensor in tensors.items()}


def _array(
    storage: npt.NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> npt.NDArray[Any]:
    """What a tensor shows of its storage, all of which must lie inside."""
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min(offset, *shape, *strides, 0) < 0 or last >= len(storage):
        raise ValueError(f"a tensor of shape {shape}, strides {strides} at {offset} of {len(storage)} numbers")
    steps = [stride * storage.itemsize for stride in strides]
    return as_strided(storage[offset:], shape, steps, writeable=False).copy()
