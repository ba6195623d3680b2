"""A poisoned artifact: refused before anything of it is used, in one line with its key, by a worker that starts."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from fault_record import Fault

from models.artifact import MANIFEST, WEIGHTS, Manifest
from stream.plan import Plan

pytestmark = [pytest.mark.timeout(120)]

#: The command, which leaves behind what its own process took: what a system counts for a child has the memory of
#: whoever started it in it.
_WEIGHED = """
import atexit, pathlib, sys
kept = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: kept.write_text(pathlib.Path("/proc/self/status").read_text()))
from stream.cli import main
main()
"""
_MOST_MB = 800  # what a worker takes to start, and the 256 MiB that a weights' file may have


def rewrite(folder: Path, weights: bytes | None = None, **changes: Any) -> None:
    """Change the artifact as somebody would who knows how: digest and version fit again."""
    raw = json.loads((folder / MANIFEST).read_text()) | changes
    if weights is not None:
        (folder / WEIGHTS).write_bytes(weights)
        raw["weights"] = hashlib.sha256(weights).hexdigest()
    raw["version"] = Manifest(**raw).content_version()
    (folder / MANIFEST).write_text(json.dumps(raw))


def arrays(folder: Path) -> dict[str, Any]:
    return dict(safetensors.numpy.load_file(folder / WEIGHTS))


def wrong_digest(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def wrong_shape(folder: Path) -> None:
    held = arrays(folder)
    rewrite(folder, safetensors.numpy.save({name: np.concatenate([array, array]) for name, array in held.items()}))


def nan_weights(folder: Path) -> None:
    held = arrays(folder)
    rewrite(folder, safetensors.numpy.save({name: np.full_like(array, np.nan) for name, array in held.items()}))


def traversal_in_the_detectors_name(folder: Path) -> None:
    rewrite(folder, detector="../../../../tmp/evil")


def link_to_another_file(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/etc/passwd")


def pipe_that_never_ends(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def pickle_that_runs(folder: Path) -> None:
    ran = folder.parent / "ran"
    rewrite(folder, b"cposix\nsystem\n(S'touch %s'\ntR." % str(ran).encode())


def terabyte_of_nothing(folder: Path) -> None:
    """A sparse file: what a decompressed bomb would be, for nothing here is ever decompressed."""
    os.truncate(folder / WEIGHTS, 1 << 40)


def header_that_promises_a_terabyte(folder: Path) -> None:
    about = {"a": {"dtype": "F32", "shape": [1 << 20, 1 << 18], "data_offsets": [0, 1 << 40]}}
    header = json.dumps(about).encode()
    rewrite(folder, struct.pack("<Q", len(header)) + header)


def manifest_of_a_million_brackets(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 1_000_000)


@pytest.mark.fault(14, "poisoned artifact")
@pytest.mark.parametrize(
    "poison",
    [
        wrong_digest, wrong_shape, nan_weights, traversal_in_the_detectors_name, link_to_another_file,
        pipe_that_never_ends, pickle_that_runs, terabyte_of_nothing, header_that_promises_a_terabyte,
        manifest_of_a_million_brackets,
    ],
    ids=lambda poison: poison.__name__,
)  # fmt: skip
def test_a_poisoned_artifact_stops_the_start_with_its_key(
    fault: Fault, plan: Plan, poison: Callable[[Path], None], tmp_path: Path
) -> None:
    shutil.copytree(plan.folder / "artifacts", tmp_path / "artifacts")
    shutil.copy(plan.folder / "headrace.toml", tmp_path)
    poison(tmp_path / "artifacts" / "quick")
    command = [sys.executable, "-c", _WEIGHED, str(tmp_path / "status"), "worker"]
    command += ["--plan", str(tmp_path / "headrace.toml")]
    environment = {**os.environ, "HEADRACE_KAFKA_BOOTSTRAP": "127.0.0.1:9"}  # it must not come so far
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.run(command, env=environment, stdout=said, stderr=subprocess.STDOUT, check=False)
        said.seek(0)
        (line,) = said.read().splitlines()
    assert process.returncode == 2
    assert line.startswith("headrace: detectors.quick.artifact: ")
    assert line.endswith("train it again: headrace train")
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", (tmp_path / "status").read_text())
    assert int(peak) / 1024 < _MOST_MB
    assert not (tmp_path / "artifacts" / "ran").exists()
    fault.tried()
