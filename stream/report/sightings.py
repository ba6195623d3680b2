"""Pictures in a report: what a camera saw, where an inspector found it strange, and what it called that."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from models.base import NORMAL, UInt8
from stream.records import Alert, HeatMap
from stream.report.html import cards
from stream.report.wording import clock

_RED: Final = (226, 32, 64)
_LEAST_SIDE: Final = 320  # pixels of the longer side: small pictures are enlarged


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """A picture with a defect, an alert, or both.

    kind    what it shows, ``normal`` if nothing is wrong
    pixels  (row, column) uint8
    alert   what was raised for this picture; None if nothing was
    """

    asset: str
    at_ms: int
    kind: str
    pixels: UInt8
    alert: Alert | None

    @property
    def found(self) -> bool:
        """Whether there was a defect and an alert for it."""
        return self.alert is not None and self.kind != NORMAL


def called(alert: Alert) -> str:
    """What an inspector or a classifier calls it: ``crack 97 %``; empty where it names no kinds."""
    if not alert.diagnosis:
        return ""
    first = alert.diagnosis[0]
    return f"{first.fault} {100 * first.probability:.0f} %"


def where(heat: HeatMap) -> str:
    """The box around the strangest place: ``columns 20-60, rows 4-90``."""
    left, top, right, bottom = heat.box
    return f"columns {left}-{right}, rows {top}-{bottom}"


def overlaid(pixels: UInt8, heat: HeatMap | None) -> bytes:
    """(row, column) grey as PNG, the heat map laid over it in red, a box around the strangest place."""
    picture = Image.fromarray(pixels).convert("RGB")
    if heat is not None:
        cells = np.frombuffer(heat.cells, np.uint8).reshape(heat.rows, heat.columns)
        warm = Image.fromarray(cells).resize(picture.size, Image.Resampling.BILINEAR)
        warm = warm.point([round(0.6 * level) for level in range(256)])
        picture = Image.composite(Image.new("RGB", picture.size, _RED), picture, warm)
    factor = max(1, round(_LEAST_SIDE / max(picture.size)))
    picture = picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)
    if heat is not None:
        left, top, right, bottom = (factor * edge for edge in heat.box)
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=_RED, width=2)
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()


def sightings_section(sightings: Sequence[Sighting]) -> str:
    """A card a sighting; nothing where there is none."""
    return cards("What the cameras saw", [_card(one) for one in sightings]) if sightings else ""


def _card(one: Sighting) -> str:
    alert = one.alert
    if alert is None:
        tag, told = '<span class="tag bad">missed</span>', ""
    else:
        tag = (
            '<span class="tag good">found</span>' if one.found else '<span class="tag bad">false alarm</span>'
        ) + f' <span class="tag {alert.severity}">{alert.severity}</span>'
        parts = [called(alert), f"score {alert.peak:.1f} of {alert.threshold:.1f}"]
        parts += [] if alert.heat is None else [where(alert.heat)]
        told = ", ".join(part for part in parts if part)
    what = "a good tile" if one.kind == NORMAL else one.kind
    data = b64encode(overlaid(one.pixels, alert.heat if alert else None)).decode()
    label = f"{one.asset}: {what}" + (f", strange at {where(alert.heat)}" if alert and alert.heat else "")
    return (
        f"<article><h3>{escape(one.asset)}: {escape(what)}</h3>"
        f'<p class="muted">{escape(clock(one.at_ms))}</p><p>{tag} {escape(told)}</p>'
        f'<img alt="{escape(label)}" src="data:image/png;base64,{data}"></article>'
    )
