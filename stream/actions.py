"""What operators do: records on ``plant.actions.v1``, key = asset (or a pattern of assets).

Each has an id of its own, so that reading it again does nothing twice, and says who did it, when and why.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from stream.sources.base import Asset

#: What is done to one alert.
ON_ALERTS: Final = frozenset({"ack", "shelve", "unshelve", "resolve"})
Deed = Literal["ack", "shelve", "unshelve", "resolve", "maintenance_start", "maintenance_stop", "mode"]
Id = Annotated[str, Meta(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
Who = Annotated[str, Meta(min_length=1, max_length=100)]
Comment = Annotated[str, Meta(max_length=1000)]
Stamp = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$")]
#: The longest that an alert can be put aside: a month. What is known to be so goes into the plan (``suppress``).
LONGEST_SHELF_S: Final = 31 * 86400


class Action(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something an operator did: version 1 of the record on ``plant.actions.v1``, key = ``asset``.

    id       of this action, made by whoever writes it; a UUID's hex
    action   ``ack``, ``shelve``, ``unshelve``, ``resolve`` of an alert; ``maintenance_start``, ``maintenance_stop`` and
             ``mode`` of assets
    asset    whose alert it is, in full; for maintenance and modes a pattern such as ``pump-*``
    alert    id of the alert
    for_s    how long an alert is shelved, in seconds of its readings' time
    since, until   a maintenance window's bounds, in the readings' time: absent, it begins at once, and lasts until
             it is stopped
    mode     name of the mode that the assets are in from now on, of the plan; empty: none
    by, at, comment   who, when (RFC 3339 in UTC) and why
    """

    id: Id
    action: Deed
    asset: Asset
    by: Who
    at: Stamp
    alert: Annotated[str, Meta(max_length=64)] = ""
    for_s: Annotated[float, Meta(gt=0, le=LONGEST_SHELF_S)] | None = None
    since: Stamp | None = None
    until: Stamp | None = None
    mode: Annotated[str, Meta(max_length=64)] = ""
    comment: Comment = ""

    def __post_init__(self) -> None:
        """Raises ``ValueError``, which msgspec makes an error of the record."""
        if self.action in ON_ALERTS and not self.alert:
            raise ValueError(f"{self.action} needs `alert`, the alert's id")
        if (self.action == "shelve") != (self.for_s is not None):
            raise ValueError("`for_s` says how long to shelve: with shelve, and with nothing else")
