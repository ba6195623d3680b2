"""Secrets out of the log, whoever writes it: clients log what a server says, and a server may say a token."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, SecretStr

_HIDDEN: Final = "***"
_SHORTEST: Final = 4  # what is shorter hides nothing and would spoil every line


def secrets_of(settings: Iterable[BaseModel]) -> list[str]:
    """All secrets that are set in ``settings``, the longest first."""
    values = (value for held in settings for _, value in held if isinstance(value, SecretStr))
    return sorted({value.get_secret_value() for value in values}, key=len, reverse=True)


def redact(secrets: Iterable[str]) -> None:
    """From now on, put ``***`` for each of ``secrets`` in the message of every log record of this process."""
    hidden = [secret for secret in secrets if len(secret) >= _SHORTEST]
    make = logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        text = made.getMessage()
        if any(secret in text for secret in hidden):
            for secret in hidden:
                text = text.replace(secret, _HIDDEN)
            made.msg, made.args = text, ()
        return made

    if hidden:
        logging.setLogRecordFactory(record)
