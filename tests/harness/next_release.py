"""A worker of the release after this one: it writes its state in formats that ours does not know, and reads ours.

python next_release.py worker --plan headrace.toml
"""

from __future__ import annotations

import sys

from stream import snapshots, state
from stream.cli import main

_AHEAD = 100


def _encode(held: state.Block | state.Meta) -> bytes:
    value = bytearray(_ours(held))
    value[4] += _AHEAD  # the format's number; see ``state._HEAD``
    return bytes(value)


_ours = state.encode
snapshots.encode = _encode  # type: ignore[attr-defined]  # as that release's own would
state._READERS = {**state._READERS, **{number + _AHEAD: read for number, read in state._READERS.items()}}  # type: ignore[misc]

if __name__ == "__main__":
    sys.exit(main())
