"""Child processes that never outlive us, however we end: return, Ctrl-C, or kill -9."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

#: Runs the command it is given and kills it when its own standard input closes: the pipe to us, which the system closes
#: however we die. Being a shell it needs no code between fork and exec, and works on macOS, unlike PR_SET_PDEATHSIG.
#: Signals go to the whole group; the shell waits for what the command makes of them and ends with its status.
_GUARD: Final = """
trap : TERM INT
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
(cat <&3 >/dev/null && kill -9 $child) 2>/dev/null &
watch=$!
exec 3<&-
wait $child; status=$?
while kill -0 $child 2>/dev/null; do wait $child; status=$?; done
kill -9 $watch 2>/dev/null
exit $status
"""


def start_guarded(
    command: Sequence[str], *, log: Path, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own, its output in the file ``log``; stop it with ``stop_guarded``."""
    with log.open("wb") as file:
        return subprocess.Popen(  # noqa: S603  # our own commands, never a user's text
            ["/bin/sh", "-c", _GUARD, "headrace-guard", *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us, who stop children in order
        )


def stop_guarded(process: subprocess.Popen[bytes], *, grace_s: float = 3.0) -> int:
    """Ask the command to end (SIGTERM), kill it after ``grace_s``; returns its exit status."""
    for signal_number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever of the group is left
    if process.stdin:
        process.stdin.close()
    return -signal.SIGKILL if process.returncode is None else process.returncode


def tail(log: Path, lines: int = 12) -> str:
    """Give the last lines of a log; nothing if there is none."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
