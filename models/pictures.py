"""Inspection pictures from bytes and from folders: grey values, decoded with a limit.

Pillow reads JPEG and PNG and nothing else. The size is known from the header and checked before a pixel is decoded, so
that a picture of a few kilobytes cannot ask for gigabytes (a decompression bomb).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from models.base import NORMAL, Bool, UInt8
from models.errors import DataError, TrainingError

#: Pixels of a picture that is still decoded.
MOST_PIXELS: Final = 16_000_000
#: Pixels of its shorter side, at least: less shows no surface.
LEAST_SIDE: Final = 32
_FORMATS: Final = ("JPEG", "PNG")
_SUFFIXES: Final = (".jpg", ".jpeg", ".png")


class PictureRefused(DataError):
    """Bytes that are no picture we take; ``reason`` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def decode(data: bytes, *, most_pixels: int = MOST_PIXELS) -> UInt8:
    """JPEG or PNG -> (row, column) uint8 grey. Raises ``PictureRefused``: not_a_picture, too_many_pixels, too_small."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is asked for below
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                width, height = picture.size
                if width * height > most_pixels:
                    raise PictureRefused("too_many_pixels", f"{width} x {height} pixels, {most_pixels} are allowed")
                if min(width, height) < LEAST_SIDE:
                    raise PictureRefused("too_small", f"{width} x {height} pixels, a side has at least {LEAST_SIDE}")
                if picture.mode.startswith("I"):  # 16 bits a pixel, which "L" would clip
                    return (np.asarray(picture.convert("I"), np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.asarray(picture.convert("L"), np.uint8)
    except PictureRefused:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, many times ours
        raise PictureRefused("too_many_pixels", str(error)) from None
    except Exception as error:  # a damaged file makes Pillow raise nearly anything: OSError, SyntaxError, struct.error
        raise PictureRefused("not_a_picture", f"{type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture of a set: (row, column) uint8 grey; ``kind``: ``normal`` or the name of its defect; where it is.

    mask (row, column) bool, True on the defect; None if nobody drew it.
    """

    name: str
    pixels: UInt8
    kind: str = NORMAL
    mask: Bool | None = None


def good_ones(pictures: Sequence[Picture], validation: Sequence[Picture]) -> tuple[list[Picture], list[Picture]]:
    """(to learn from, to measure by): the good ones of each. Raises ``TrainingError`` if there are too few."""
    good, usual = ([picture for picture in each if picture.kind == NORMAL] for each in (pictures, validation))
    if len(usual) < 2 or not good:
        raise TrainingError(f"{len(usual)} good pictures to measure by, at least 2 are needed, and some to learn from")
    return good, usual


def read_folder(folder: Path, *, normal: str = "MT_Free") -> list[Picture]:
    """All pictures of a folder that has a folder for each kind; a ``.png`` of the same name is a ``.jpg``'s mask.

    The folder ``normal``, or ``good``, or ``normal``, holds those in order. Raises ``DataError`` naming file and fault.
    """
    found = []
    for file in sorted(folder.glob("*/*")):
        if file.suffix.lower() not in _SUFFIXES or (file.suffix == ".png" and file.with_suffix(".jpg").is_file()):
            continue
        kind = NORMAL if file.parent.name in (normal, "good", NORMAL) else file.parent.name.removeprefix("MT_").lower()
        drawn = file.with_suffix(".png")
        mask = _decoded(drawn) > 127 if file.suffix == ".jpg" and drawn.is_file() else None
        found.append(Picture(f"{file.parent.name}/{file.stem}", _decoded(file), kind, mask))
    if not found:
        raise DataError(f"{folder}: no picture in its folders; read are {', '.join(_SUFFIXES)}, as one folder a kind")
    return found


def _decoded(file: Path) -> UInt8:
    try:
        return decode(file.read_bytes())
    except (PictureRefused, OSError) as error:
        raise DataError(f"{file}: {error}") from None
