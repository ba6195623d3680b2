"""Limits of a config's values, checked where the config is made so that a wrong plan stops before any data is read."""

from __future__ import annotations

from typing import Any


def within(config: Any, **limits: tuple[float, float]) -> None:
    """Raise ``ValueError`` naming the key unless each named field lies in its (least, most)."""
    for key, (least, most) in limits.items():
        value = getattr(config, key)
        if not least <= value <= most:
            raise ValueError(f"{key}: expected {least} to {most}, got {value}")
