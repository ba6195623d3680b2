"""Options that several commands have, and what every command has: its examples, and errors in a line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

plan = click.option(
    "--plan",
    "plan_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="headrace.toml",
    show_default=True,
    help="The plan: which detector watches what.",
)
recordings = click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
time_column = click.option("--time-column", help="Column that holds the time, where its name does not tell.")
asset_column = click.option("--asset-column", help="Column that tells assets apart; else every file is one asset.")


def examples(text: str) -> Callable[[F], F]:
    """Put examples, kept as they are typed, at the end of a command's help."""

    def add(function: F) -> F:
        lines = "\n".join(f"  {line}" for line in text.strip().splitlines())
        function.__doc__ = f"{cleandoc(function.__doc__ or '')}\n\n\b\nExamples:\n{lines}"
        return function

    return add


def explained(function: F) -> F:
    """Errors raised on purpose end the command with their message and status 2, without a traceback."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        from models.errors import ModelError  # noqa: PLC0415 (help must not wait for imports)
        from stream.errors import StreamError  # noqa: PLC0415

        try:
            return function(*args, **kwargs)
        except (StreamError, ModelError) as error:
            click.secho(f"headrace: {error}", fg="red", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)

    return run  # type: ignore[return-value]
