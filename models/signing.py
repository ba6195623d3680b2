"""Signatures of artifacts: Ed25519 over the manifest's bytes, which hold the digests of all else.

Whoever trains holds the private key; a worker that is given the public key serves nothing that is not signed by it, so
that write access to the store, or to the control topic, is not enough to put a model to work. Ed25519: Bernstein, Duif,
Lange, Schwabe and Yang, "High-speed high-security signatures", 2012; RFC 8032.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Final

from models.errors import InvalidArtifact, StoreError

#: Beside manifest.json: the signature in base64.
SIGNATURE: Final = "manifest.sig"
_RAW: Final = 32


def keygen(private: Path) -> str:
    """Write a new private key (PEM, readable by its owner alone); the public key as base64.

    Raises ``StoreError`` where a file of that name is there: a key that is overwritten cannot sign again.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 (only for those who sign)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise StoreError(f"{private}: is there already, and is not overwritten: name another file") from None
    except OSError as error:
        raise StoreError(f"{private}: {error.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


class Signer:
    """Signs with the private key in a file. Raises ``StoreError`` where it is none."""

    def __init__(self, private: Path) -> None:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        try:
            key = serialization.load_pem_private_key(private.read_bytes(), password=None)
        except OSError as error:
            raise StoreError(f"{private}: {error.strerror}") from None
        except (ValueError, TypeError):
            raise StoreError(
                f"{private}: not a private key without a password, as `headrace models keygen` writes"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise StoreError(f"{private}: not an Ed25519 key; `headrace models keygen` writes one")
        self._key = key

    def sign(self, manifest: bytes) -> bytes:
        """The content of ``manifest.sig``."""
        return base64.b64encode(self._key.sign(manifest)) + b"\n"


class Verifier:
    """Accepts what the owner of ``public`` (base64 of the raw key) signed. Raises ``ValueError`` where it is no key."""

    def __init__(self, public: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        try:
            raw = base64.b64decode(public.strip(), validate=True)
        except binascii.Error:
            raise ValueError("not base64: give what `headrace models keygen` printed") from None
        if len(raw) != _RAW:
            raise ValueError(f"{len(raw)} bytes, an Ed25519 public key has {_RAW}")
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    def check(self, manifest: bytes, signature: bytes | None) -> None:
        """Raise ``InvalidArtifact`` unless ``signature`` is of these bytes and by the owner of our key."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        if signature is None:
            raise InvalidArtifact(
                "not signed, and this worker serves only what is (HEADRACE_MODELS_PUBLIC_KEY): headrace models sign"
            )
        try:
            self._key.verify(base64.b64decode(signature.strip(), validate=True), manifest)
        except (InvalidSignature, binascii.Error):
            raise InvalidArtifact(f"{SIGNATURE}: not a signature of this manifest by the key that is trusted") from None
