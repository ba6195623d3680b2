"""What a study has worked out, kept on disk, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Kept:
    """Answers by name, in a file; without a file every answer is worked out anew.

    made_with  what the answers depend on: a file made with anything else is begun anew
    """

    def __init__(self, file: Path | None, made_with: Mapping[str, Any]) -> None:
        self._file = file
        self._about = json.loads(json.dumps({**made_with, "code": code_digest()}))
        self._answers: dict[str, Any] = {}
        if file is not None and file.is_file():
            held = json.loads(file.read_text(encoding="utf-8"))
            if held["about"] == self._about:
                self._answers = held["answers"]

    def get(self, name: str, work_out: Callable[[], Any]) -> Any:
        """The answer of that name (plain values, as JSON has them), worked out if it is not there."""
        if name not in self._answers:
            self._answers[name] = json.loads(json.dumps(work_out()))
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                written = self._file.with_suffix(".part")
                written.write_text(json.dumps({"about": self._about, "answers": self._answers}), encoding="utf-8")
                written.replace(self._file)
        return self._answers[name]


def code_digest() -> str:
    """A digest of all that scores: other code, other answers."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
