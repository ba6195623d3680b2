"""The compiled parts: shared libraries that stand beside the modules which open them, built by ``native/backend.py``.

Each is optional. What opens one has a way without it that gives the same, and says at its start which way it goes.
``HEADRACE_COMPILED=false`` leaves them all unopened.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

SWITCH: Final = "HEADRACE_COMPILED"
_ROOT: Final = Path(__file__).parents[1]


class NotBuilt(Exception):
    """A compiled part cannot be used; the text says why."""


def library(name: str, version: int) -> ctypes.CDLL:
    """Open ``package/_part.so`` by the name ``package._part``. Raises ``NotBuilt``.

    version  what its ``headrace_part_version`` must say: which functions it has, and what they are given
    """
    if os.environ.get(SWITCH, "true").lower() in ("false", "0", "no"):
        raise NotBuilt(f"{SWITCH} is {os.environ[SWITCH]}")
    package, part = name.split(".")
    file = _ROOT / package / f"{part}.so"
    if not file.exists():
        raise NotBuilt(f"{file.name} was not built: install again where there is a C compiler")
    try:
        opened = ctypes.CDLL(str(file))
        asked = getattr(opened, f"headrace{part}_version")
        asked.restype = ctypes.c_int64
        found = asked()
    except (OSError, AttributeError) as error:
        raise NotBuilt(f"{file.name} cannot be opened: {error}") from None
    if found != version:
        raise NotBuilt(f"{file.name} is of another release ({found}, not {version}): install again")
    return opened


def address(array: object) -> int:
    """Where an array's numbers lie. Whoever passes it on must keep the array."""
    return int(array.ctypes.data)  # type: ignore[attr-defined]
