"""The compiled parts under AddressSanitizer and UndefinedBehaviorSanitizer: their own tests again, in a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
#: Each library with the tests that drive it.
PARTS: Final = {
    "models/_steps.so": ("native/steps.c", "tests/unit/models/test_compiled_steps.py"),
    "stream/_readings.so": ("native/readings.c", "tests/unit/stream/test_columnar.py"),
    "stream/_text.so": ("native/text.c", "tests/unit/stream/test_text.py"),
    "stream/_thin.so": ("native/thin.c", "tests/unit/stream/test_thin.py"),
}
FLAGS: Final = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-ffp-contract=off"]


def sanitizer() -> str:
    """Where gcc has AddressSanitizer, which must be loaded before Python; skips where it has none."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here: the compiled parts are tested without sanitizers only")
    found = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    library = Path(found.stdout.strip())
    if not library.is_absolute():
        pytest.skip("gcc has no AddressSanitizer here: the compiled parts are tested without sanitizers only")
    return str(library)


@pytest.mark.parametrize("library", PARTS)
def test_no_byte_is_read_or_written_that_is_not_its_own(library: str, tmp_path: Path) -> None:
    source, tests = PARTS[library]
    preload = sanitizer()
    for package in ("stream", "models"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    built = tmp_path / library
    built.unlink()
    command = ["gcc", "-std=c11", "-fPIC", "-shared", *FLAGS, str(ROOT / source), "-o", str(built), "-lm"]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(ROOT / tests)],
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "LD_PRELOAD": preload,
            "ASAN_OPTIONS": "detect_leaks=0",  # Python's own, at its end
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
