"""The decoders under atheris, which is led by what code its inputs reach: ``make fuzz``, a minute in CI.

Bytes are decoded by every format, alone and between two good records. Whatever they are: nothing is raised, each record
ends as readings or as one dead letter, a dead letter never blames the decoder, and what is read keeps to the contract.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["stream.sources", "stream.columnar", "stream.decode", "stream.state"]):
    from stream import state
    from stream.decode import Decoder
    from stream.sources.frame import encode_frame
    from stream.sources.json import encode
    from stream.sources.packed import encode_packed

import numpy as np

from stream.errors import StateRefused
from stream.plan import InputSettings
from stream.records import Record

SIGNALS: Final = ("flow", "heat")
AT_MS: Final = np.array([1_795_420_800_250, 1_795_420_801_250])
VALUES: Final = np.array([[40.5, np.nan], [41.5, 70.0]])
GOOD: Final = encode("pump-1", int(AT_MS[0]), {"flow": 40.5, "heat": None})
SEEDS: Final = (GOOD, encode_frame("pump-1", AT_MS, SIGNALS, VALUES), encode_packed("pump-1", AT_MS, SIGNALS, VALUES))
DECODER: Final = Decoder(InputSettings(max_record_bytes=64 << 10, max_readings_per_record=100), SIGNALS)


def decode(data: bytes) -> None:
    """One input: as a record alone, between others, and as a snapshot."""
    for values in ((data,), (GOOD, data, GOOD)):
        records = [Record("readings", 0, offset, value) for offset, value in enumerate(values)]
        readings, letters, _ = DECODER.decode(records)
        came_to_something = set(readings.record.tolist()) | {letter.record.offset for letter in letters}
        assert came_to_something == set(range(len(values))), came_to_something
        assert len(letters) <= 1, letters
        assert not {letter.reason for letter in letters} & {"decoder_failed"}, letters
        assert not np.isinf(readings.values).any()
        assert all(name.isprintable() and name for name in readings.names)
    with contextlib.suppress(StateRefused):
        state.decode(data)


def main() -> None:
    """Run as libFuzzer is run: its options are the arguments. It begins with good records."""
    corpus = Path(tempfile.mkdtemp(prefix="headrace-fuzz-"))
    atexit.register(shutil.rmtree, corpus, ignore_errors=True)
    for number, seed in enumerate(SEEDS):
        decode(seed)
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], decode)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
