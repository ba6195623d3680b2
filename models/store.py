"""Versions of artifacts: what serves, what is a candidate for it, and who decided that, when and why.

    STORE/
      pump-forecast/                                 a model's name: that of the detector, unless the plan says another
        versions/3f2a9c0d1e44/                       an artifact, under the digest of its content; never changed
          manifest.json  weights.safetensors  origin.json  [manifest.sig]
        history/20261125T013411.123456Z-promote-3f2a9c0d1e44.json    one file a decision, never changed

Each decision says what serves and what is the candidate from then on, so the newest file is the present, nothing is
ever overwritten, and two people who decide at once lose neither decision. A version is there when its manifest is: that
is written last.
"""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from models import artifact as artifacts
from models.artifact import MANIFEST, WEIGHTS, Artifact
from models.errors import InvalidArtifact, StoreError
from models.places import Place, place_of
from models.signing import SIGNATURE, Signer, Verifier

Action = Literal["train", "promote", "rollback", "shadow", "drop"]

ORIGIN: Final = "origin.json"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[0-9a-f]{12}")
_FILES: Final = (WEIGHTS, SIGNATURE, ORIGIN, MANIFEST)  # in the order of writing: the manifest makes it a version


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry of a model's history.

    serving, candidate  versions from then on; "" where there is none
    before              what served until then
    at, by, why         RFC 3339 in UTC; who; in whose words
    """

    action: Action
    serving: str
    candidate: str
    before: str
    at: str
    by: str
    why: str = ""


NOTHING: Final = Decision("drop", "", "", "", "", "")


class Store:
    """The versions of models at ``url``: a folder, relative to ``base``, or any URL that fsspec knows.

    verifier  with one, nothing is loaded that is not signed
    clock     the time of day, UTC
    """

    def __init__(
        self,
        url: str,
        base: Path = Path(),
        *,
        verifier: Verifier | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.url = url
        self._place: Place = place_of(url, base)
        self._verifier = verifier
        self._clock = clock

    def names(self) -> list[str]:
        """The models that have a version."""
        return [name for name in self._place.names("") if _NAME.fullmatch(name) and self.versions(name)]

    def versions(self, name: str) -> list[str]:
        """A model's versions, the oldest first."""
        folder = f"{_checked(name)}/versions"
        found = [version for version in self._place.names(folder) if _VERSION.fullmatch(version)]
        dated = [
            (self.origin(name, version).get("at", ""), version) for version in found if self._is_there(name, version)
        ]
        return [version for _, version in sorted(dated)]

    def origin(self, name: str, version: str) -> dict[str, Any]:
        """Who put a version there, when and why, as they said; empty where nothing was said."""
        content = self._place.read(f"{_checked(name)}/versions/{_checked_version(version)}/{ORIGIN}")
        return _table(content, f"{name} {version}: {ORIGIN}") if content else {}

    def add(
        self, name: str, artifact: Artifact, *, why: str = "", by: str = "", signer: Signer | None = None, **said: Any
    ) -> str:
        """Put an artifact into the store; its version. What is there under that version stays as it is.

        ``said``: anything else worth keeping with it, as JSON can hold it.
        """
        version = _checked_version(artifact.version)
        if self._is_there(_checked(name), version):
            if signer is not None and self._place.read(f"{name}/versions/{version}/{SIGNATURE}") is None:
                self.sign(name, version, signer)
            return version
        origin = {"at": self._now(), "by": by or whoever(), "why": why, **said}
        with tempfile.TemporaryDirectory(prefix="headrace-") as scratch:
            folder = artifact.save(Path(scratch) / version)
            manifest = (folder / MANIFEST).read_bytes()
            files = {
                WEIGHTS: (folder / WEIGHTS).read_bytes(),
                ORIGIN: _json(origin),
                MANIFEST: manifest,
            }
            if signer is not None:
                files[SIGNATURE] = signer.sign(manifest)
        for file in _FILES:
            if file in files:
                self._place.write(f"{name}/versions/{version}/{file}", files[file])
        return version

    def sign(self, name: str, version: str, signer: Signer) -> None:
        """Sign a version that is there; it is checked first. Raises ``InvalidArtifact``, ``StoreError``."""
        folder = f"{_checked(name)}/versions/{_checked_version(version)}"
        manifest = self._place.read(f"{folder}/{MANIFEST}")
        if manifest is None:
            raise StoreError(f"{name}: no version {version} in {self.url}")
        self._load(name, version, None)
        self._place.write(f"{folder}/{SIGNATURE}", signer.sign(manifest))

    def load(self, name: str, version: str) -> Artifact:
        """A version, checked. Raises ``InvalidArtifact`` that says what is wrong, ``StoreError``."""
        return self._load(name, version, self._verifier)

    def _load(self, name: str, version: str, verifier: Verifier | None) -> Artifact:
        folder = f"{_checked(name)}/versions/{_checked_version(version)}"
        if not self._is_there(name, version):
            there = ", ".join(self.versions(name)[-5:]) or "none"
            raise StoreError(f"{name}: no version {version} in {self.url}; there are {there}")
        path = self._place.local(folder)
        scratch: Path | None = None
        if path is None:
            scratch = path = Path(tempfile.mkdtemp(prefix="headrace-"))
            for file in (MANIFEST, WEIGHTS, SIGNATURE):
                if (content := self._place.read(f"{folder}/{file}")) is not None:
                    (path / file).write_bytes(content)
        try:
            held = artifacts.load(path, verifier=verifier)
        except InvalidArtifact as error:
            raise InvalidArtifact(f"{name} {version}: {str(error).removeprefix(f'{path}: ')}") from None
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
        if held.version != version:
            raise InvalidArtifact(f"{name} {version}: what lies there is version {held.version}")
        return held

    def history(self, name: str) -> list[Decision]:
        """All decisions on a model, the oldest first."""
        folder = f"{_checked(name)}/history"
        return [self._decision(name, file) for file in self._place.names(folder) if file.endswith(".json")]

    def now(self, name: str) -> Decision:
        """What serves and what is a candidate now; ``NOTHING`` where none was decided."""
        files = [file for file in self._place.names(f"{_checked(name)}/history") if file.endswith(".json")]
        return self._decision(name, files[-1]) if files else NOTHING

    def decide(
        self, name: str, action: Action, *, serving: str | None = None, candidate: str | None = None,
        why: str = "", by: str = "",
    ) -> Decision:  # fmt: skip
        """Record what serves and what is a candidate from now on; what is not named stays. The new decision.

        Raises ``StoreError`` for a version that is not there.
        """
        held = self.now(name)
        for version in (serving, candidate):
            if version and not self._is_there(_checked(name), _checked_version(version)):
                raise StoreError(f"{name}: no version {version} in {self.url}")
        decision = Decision(
            action=action,
            serving=held.serving if serving is None else serving,
            candidate=held.candidate if candidate is None else candidate,
            before=held.serving,
            at=max(self._now(), _after(held.at)),
            by=by or whoever(),
            why=why,
        )
        stamp = decision.at.replace("-", "").replace(":", "")
        file = f"{stamp}-{action}-{decision.candidate if action == 'shadow' else decision.serving or 'nothing'}.json"
        self._place.write(f"{name}/history/{file}", _json(asdict(decision)))
        return decision

    def before(self, name: str) -> str:
        """The version that served before the one that does, for a roll-back: twice goes back two.

        Raises ``StoreError`` where there was none.
        """
        served: list[str] = []
        for decision in self.history(name):
            if decision.action == "rollback" and decision.serving in served:
                del served[served.index(decision.serving) + 1 :]
            elif decision.serving and (not served or served[-1] != decision.serving):
                served.append(decision.serving)
        if len(served) < 2:
            raise StoreError(f"{name}: nothing served before {served[-1] if served else 'anything did'}")
        return served[-2]

    def find(self, name: str, prefix: str) -> str:
        """The one version that begins so. Raises ``StoreError`` where none does, or several."""
        found = [version for version in self.versions(name) if version.startswith(prefix)] if prefix else []
        if len(found) != 1:
            there = ", ".join(self.versions(name)) or "none"
            raise StoreError(f"{name}: {len(found)} versions begin with {prefix!r}; there are {there}")
        return found[0]

    def _is_there(self, name: str, version: str) -> bool:
        return MANIFEST in self._place.names(f"{name}/versions/{version}")

    def _decision(self, name: str, file: str) -> Decision:
        table = _table(self._place.read(f"{name}/history/{file}") or b"", f"{name}: history/{file}")
        try:
            decision = Decision(**table)
        except TypeError as error:
            raise StoreError(f"{name}: history/{file}: {error}") from None
        if not all(isinstance(value, str) for value in table.values()):
            raise StoreError(f"{name}: history/{file}: not all of it is text")
        for version in (decision.serving, decision.candidate):
            if version:
                _checked_version(version)
        return decision

    def _now(self) -> str:
        return self._clock().astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def whoever() -> str:
    """Who runs this, for the history: ``HEADRACE_MODELS_BY``, else the system's name for them."""
    try:
        return os.environ.get("HEADRACE_MODELS_BY") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _after(at: str) -> str:
    """A microsecond later than a decision: the newest file is the present, whatever a machine's clock says."""
    if not at:
        return ""
    later = dt.datetime.fromisoformat(at) + dt.timedelta(microseconds=1)
    return later.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name!r} is no name of a model: letters, digits, dot, dash and underscore, up to 64")
    return name


def _checked_version(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise StoreError(f"{version!r} is no version: 12 hexadecimal digits")
    return version


def _json(table: Any) -> bytes:
    return (json.dumps(table, indent=1, allow_nan=False) + "\n").encode()


def _table(content: bytes, what: str) -> dict[str, Any]:
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{what}: not JSON: {error}") from None
    if not isinstance(table, dict):
        raise StoreError(f"{what}: not an object")
    return table
