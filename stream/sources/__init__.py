"""Where readings come from, one file each, of two kinds.

Payload formats turn a record of the readings topic into readings (``Source``): a plan chooses one by the file's name.
Bridges bring readings from a plant to that topic (``Bridge``, ``headrace bridge NAME``): those are named here.
"""

from __future__ import annotations

from typing import Final

#: The files beside this one that are bridges; every other is a payload format.
BRIDGES: Final = ("mqtt", "opcua")
