"""Whom the sinks trust over TLS: the system's authorities, or one of the plant's own."""

from __future__ import annotations

import ssl
from pathlib import Path


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """A context that trusts what ``ca_file`` (PEM) holds, or what the system does; names are always verified.

    Raises ``ValueError`` where there is no certificate in the file.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"ca_file: {ca_file}: {getattr(error, 'strerror', None) or error}") from None
