"""Keys and certificates for tests of TLS, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from servers import need


def authority(folder: Path, name: str) -> None:
    """``name.pem`` and ``name.key`` in ``folder``: an authority whose certificate nobody has signed but itself."""
    need("openssl", package="openssl")
    _openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=headrace {name}",
             "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip


def certificate(folder: Path, name: str, host: str) -> None:
    """``name.pem`` and ``name.key``, for ``host``, signed by ``ca``."""
    _openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host}", "-keyout", f"{name}.key",
             "-out", f"{name}.csr")  # fmt: skip
    (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\n")
    _openssl(folder, "x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
             "-CAcreateserial", "-extfile", f"{name}.ext", "-out", f"{name}.pem")  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
