"""Powers of five for the compiled parts that read or write decimal numbers (``native/decimal.h``)."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

_FIRST_POWER: Final = -342
_LAST_POWER: Final = 342


@functools.cache
def powers() -> npt.NDArray[np.uint64]:
    """Five to the power of -342 and up to 342, (power, 2) uint64: the 128 highest bits, the high half first.

    Those below one are rounded up, as Lemire (2021) has them. The smallest float64 has 17 digits times ten to the -340.
    """
    table = []
    for power in range(_FIRST_POWER, _LAST_POWER + 1):
        if power < 0:
            size = 5**-power
            bits = (size - 1).bit_length()
            scaled = (1 << (bits + 127 if power >= -27 else 2 * bits + 128)) // size + 1
        else:
            scaled = 5**power << 128
        scaled >>= max(scaled.bit_length() - 128, 0)
        table.append((scaled >> 64, scaled & (1 << 64) - 1))
    return np.array(table, dtype=np.uint64)
