"""Builds the compiled parts of Headrace: setuptools' own build backend, and a C compiler where the machine has none.

``pip install`` calls the functions of PEP 517 here. What ``build_ext`` makes are plain shared libraries, which Python
opens with ctypes: they need no headers of Python's, so that a compiler is all it takes. Where there is none, pip
fetches Zig's, which comes as a wheel, for the time of the build. Headrace works without these libraries as well, and
gives the same; it says at its start which way it goes. docs/adr/0023-compiled-parts.md says why they exist.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from setuptools import Extension, build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.command.build_ext import build_ext

__all__ = [
    "BuildLibraries",
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

#: Fetched where no compiler is found: 100 MB, for the time of the build only.
ZIG: Final = "ziglang>=0.13,<0.18"
_FLAGS: Final = ["-std=c11", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-ffp-contract=off", "-Wall", "-Wextra"]


def compiler() -> list[str] | None:
    """The command of a C compiler: ``CC``, the system's, or Zig's where it is installed."""
    if named := os.environ.get("CC"):
        return named.split()
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def get_requires_for_build_wheel(config_settings: dict[str, str | list[str] | None] | None = None) -> list[str]:
    """What building a wheel needs: a compiler, if there is none."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_missing()]


def get_requires_for_build_editable(config_settings: dict[str, str | list[str] | None] | None = None) -> list[str]:
    """The same, of an editable installation."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_missing()]


def _missing() -> list[str]:
    fits = sys.platform in ("linux", "darwin") and platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64")
    return [ZIG] if fits and not compiler() else []


class BuildLibraries(build_ext):
    """``build_ext`` that makes plain shared libraries. What cannot be compiled is left out, and said."""

    def get_ext_filename(self, fullname: str) -> str:
        """A name that is the same for every Python."""
        return os.path.join(*fullname.split(".")) + ".so"  # noqa: PTH118 (setuptools wants text)

    def build_extension(self, ext: Extension) -> None:
        """Compile one library."""
        command = compiler()
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if command is None:
                raise FileNotFoundError("no C compiler: no cc, gcc or clang, and ziglang is not installed")
            subprocess.run(  # noqa: S603 (the compiler that was found)
                [*command, *_FLAGS, *map(str, ext.sources), "-o", str(target), "-lm"], check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            self.warn(f"{ext.name} is not built, Headrace goes its slower way without it: {error}")
