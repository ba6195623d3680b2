"""TypeScript's compiler over JSON that is written as literals: it finds fields that a published type does not have."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dashboards import ROOT

MODULES = ROOT / "deploy" / "node_modules"


def need_modules() -> None:
    """Skip the test unless the checkers are installed."""
    if shutil.which("node") is None or not MODULES.is_dir():
        pytest.skip("the checkers from npm are not installed: npm ci --prefix deploy (needs Node)")


def compiled(folder: Path, text: str) -> str:
    """What the compiler says of a text; "" if nothing."""
    (folder / "check.ts").write_text(text)
    done = subprocess.run(
        ["node", str(MODULES / "typescript" / "bin" / "tsc"), "--noEmit", "--strict", "--skipLibCheck",
         "--moduleResolution", "bundler", "--module", "esnext", "--target", "es2022", str(folder / "check.ts")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return (done.stdout + done.stderr).replace(str(folder), "")
