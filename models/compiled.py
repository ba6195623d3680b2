"""The compiled parts: shared libraries that stand beside the modules which open them, built by ``native/backend.py``.

Each is optional: what opens one has a way without it that gives the same. ``HEADRACE_COMPILED=false`` leaves them all
unopened, should one be suspected.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any, Final

SWITCH: Final = "HEADRACE_COMPILED"
#: Which version of each this code goes with: raised by whoever changes what a library is given, there and here.
VERSIONS: Final = {"models._steps": 1, "stream._readings": 3, "stream._text": 1, "stream._thin": 1}
_ROOT: Final = Path(__file__).parents[1]
_OFF: Final = frozenset({"0", "false", "no", "off"})


class NotBuilt(Exception):
    """A compiled part cannot be used; the text says why."""


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """Open ``package/_part.so`` by its name in ``VERSIONS``. Raises ``NotBuilt``."""
    if os.environ.get(SWITCH, "").lower() in _OFF:
        raise NotBuilt(f"{SWITCH} is {os.environ[SWITCH]}")
    package, part = name.split(".")
    file = _ROOT / package / f"{part}.so"
    if not file.exists():
        raise NotBuilt(f"{file.name} was not built: install Headrace again where there is a C compiler")
    try:
        opened = ctypes.CDLL(str(file))
        asked = getattr(opened, f"headrace{part}_version")
        asked.restype = ctypes.c_int64
        found = asked()
    except (OSError, AttributeError) as error:
        raise NotBuilt(f"{file.name} cannot be opened: {error}") from None
    if found != VERSIONS[name]:
        raise NotBuilt(f"{file.name} is of another release ({found}, not {VERSIONS[name]}): install Headrace again")
    return opened


def missing() -> dict[str, str]:
    """Those that cannot be used, by name, and why."""
    reasons = {}
    for name in VERSIONS:
        try:
            library(name)
        except NotBuilt as error:
            reasons[name] = str(error)
    return reasons


def address(array: Any) -> int:
    """Where a numpy array's numbers lie. Whoever passes it on must keep the array, and know that it is contiguous."""
    return int(array.ctypes.data)
