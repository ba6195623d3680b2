"""A Dockerfile as stages of instructions: as much of its grammar as ours uses. Anything else is an error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Instructions that need an image, or that are about one, and are not carried out.
_NOTED = {"WORKDIR", "USER", "EXPOSE", "ENTRYPOINT", "CMD", "HEALTHCHECK", "COPY", "RUN", "ENV"}


@dataclass
class Stage:
    """One ``FROM`` and what follows it; ``base`` is the stage or image it begins with."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def each(self, name: str) -> list[str]:
        """The arguments of every instruction of a kind."""
        return [text for kind, text in self.instructions if kind == name]

    def one(self, name: str) -> str:
        """The arguments of the last instruction of a kind."""
        return self.each(name)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What ``ENV`` sets."""
        return dict(re.findall(r"(\w+)=(\S+)", " ".join(self.each("ENV"))))


def stages(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name. Raises ``ValueError`` for what this does not know."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#")))
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    stage: Stage | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        kind, _, rest = line.partition(" ")
        if kind == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif kind == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()  # type: ignore[union-attr]
            for key, value in arguments.items():
                base = base.replace(f"${{{key}}}", value)
            stage = found[name] = Stage(name, base)
        elif kind in _NOTED and stage is not None:
            stage.instructions.append((kind, " ".join(rest.split())))
        else:
            raise ValueError(f"{path}: {kind}")
    return found


def exec_form(text: str) -> list[str]:
    """The command of ENTRYPOINT, CMD or HEALTHCHECK, written as a JSON array."""
    command: Any = json.loads(text[text.index("[") :])
    return [str(word) for word in command]
