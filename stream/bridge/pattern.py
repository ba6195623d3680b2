"""Patterns of paths with names in them: ``plant/{asset}/{signal}``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_PLACE: Final = re.compile(r"\{([a-z]+)(\+?)\}")
_BRACE: Final = re.compile(r"[{}]")


class Pattern:
    """A path in which ``{name}`` stands for text within a level, and ``{name+}`` for one or more levels.

    mqtt  the path is an MQTT topic, and becomes a filter of the broker's too

    Raises ``ValueError`` that says what is wrong with it.

    >>> Pattern("plant/{asset}/{signal}").match("plant/pump-1/flow")
    {'asset': 'pump-1', 'signal': 'flow'}
    """

    def __init__(self, text: str, *, mqtt: bool = False) -> None:
        self.text = text
        self.names = tuple(name for name, _ in _PLACE.findall(text))
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"{text!r} has a name twice")
        if _BRACE.search(_PLACE.sub("", text)):
            raise ValueError(f"{text!r}: a name in braces is small letters, as in {{asset}} or {{signal+}}")
        if mqtt and ("+" in (rest := _PLACE.sub("", text)) or "#" in rest):
            raise ValueError(f"{text!r}: name what varies, as in plant/{{asset}}/{{signal}}, instead of + or #")
        self._regex = re.compile("".join(self._parts()), re.DOTALL)
        self.filter = "/".join(self._level(level) for level in text.split("/"))
        if mqtt and "#" in self.filter[:-1]:
            raise ValueError(f"{text!r}: a name of many levels must be the last level, by itself")

    def match(self, path: str) -> dict[str, str] | None:
        """What each name stands for in ``path``, or None if it does not fit."""
        found = self._regex.fullmatch(path)
        return None if found is None else found.groupdict()

    def _parts(self) -> list[str]:
        parts, end = [], 0
        for place in _PLACE.finditer(self.text):
            parts += [re.escape(self.text[end : place.start()]), f"(?P<{place[1]}>{'.+' if place[2] else '[^/]+'})"]
            end = place.end()
        return [*parts, re.escape(self.text[end:])]

    @staticmethod
    def _level(level: str) -> str:
        found = _PLACE.findall(level)
        if not found:
            return level
        return "#" if any(many for _, many in found) else "+"


def names_in(template: str) -> set[str]:
    """The names that a template asks for. Raises ``ValueError``."""
    if _BRACE.search(_PLACE.sub("", template)):
        raise ValueError(f"{template!r}: a name in braces is small letters, as in {{asset}}")
    return {name for name, _ in _PLACE.findall(template)}


def fill(template: str, found: Mapping[str, str]) -> str:
    """The template with each name replaced by what it stands for."""
    return _PLACE.sub(lambda place: found[place[1]], template)
