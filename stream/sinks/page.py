"""The worker's live page: keeps the newest of what is published in memory, for ``stream.page`` to show.

It costs a batch some numpy calls and one look-up for each asset in it, whether or not anyone looks; its memory is
bounded (``HEADRACE_PAGE_ASSETS``, ``HEADRACE_PAGE_MEMORY_MB``) whatever the size of the plant.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.incidentbook import IncidentBook
from stream.page.board import Board
from stream.records import Output
from stream.settings import with_secret_file

#: Shorter tokens are guessed.
SHORTEST_TOKEN: Final = 16


class PageSettings(BaseSettings):
    """The live page; read from ``HEADRACE_PAGE_*``.

    enabled     whether the worker serves it. Who can reach the port sees names and values of the plant
    assets      so many are listed; the others are watched all the same, and their alerts are shown
    memory_mb   megabytes for the rows behind the drawings
    token, token_file   what operators show to act on the page (acknowledge, shelve, resolve, label); the file that it
                is in, in its place. Without one the page only shows. At least 16 characters
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_PAGE_", frozen=True)

    enabled: bool = True
    assets: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    memory_mb: Annotated[int, Field(ge=1, le=4096)] = 64
    token: SecretStr = SecretStr("")
    token_file: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _secrets(cls, given: Any) -> Any:
        return with_secret_file(given, "token", "HEADRACE_PAGE_TOKEN")

    @model_validator(mode="after")
    def _hard_to_guess(self) -> Self:
        if 0 < len(self.token.get_secret_value()) < SHORTEST_TOKEN:
            raise ValueError(f"token: at least {SHORTEST_TOKEN} characters, such as `openssl rand -hex 16` gives")
        return self

    def board(self, *, site: str, units: Mapping[str, str], incidents: IncidentBook | None = None) -> Board:
        """The memory of the page of a plant, of this size."""
        most_bytes = self.memory_mb << 20
        return Board(site=site, units=units, most_assets=self.assets, most_bytes=most_bytes, incidents=incidents)


class PageSink:
    """Feeds ``board`` with what is published."""

    name = "page"
    essential = False

    def __init__(self, board: Board) -> None:
        self.board = board

    async def start(self) -> None:
        """Nothing to connect to: browsers come and ask."""

    async def write(self, output: Output) -> None:
        """Take it in: by reference, nothing is copied for a reading."""
        self.board.take(output)

    async def stop(self) -> None:
        """What was taken in stays readable."""
