"""What training leaves and serving loads: a folder with manifest.json and weights.safetensors.

The manifest names the detector and its sizes; the code builds the network from them and only numbers are loaded, so
that nothing in an artifact can run. Everything is checked before it is believed, digests before a byte is parsed, and
what fails is refused as ``InvalidArtifact``. An artifact's version is a digest of its content: the same data and seed
give the same version, and a result that names a version names one set of weights and thresholds.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
import shutil
import stat
import tempfile
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from models import registry
from models.base import Detector, Float64, Scored, Stepper
from models.calibrate import Calibration
from models.errors import InvalidArtifact, UnknownDetector
from models.scaling import RobustScaler
from models.signing import SIGNATURE, Verifier

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "weights.safetensors"

_MOST_BYTES: Final = {MANIFEST: 1 << 20, WEIGHTS: 256 << 20, SIGNATURE: 1 << 10}
_MOST_SIGNALS: Final = 4096
#: Not part of the version: when and by which release the same content was made.
_NOT_CONTENT: Final = ("version", "created", "headrace")


@dataclass(frozen=True, slots=True)
class Manifest:
    """manifest.json, field by field.

    signals: names in the order of the last axis; period_s: seconds between the rows trained on; scaler, calibration:
    as their ``to_dict`` gives them; weights: SHA-256 of the weights' file; assets, rows (by part: fit, validation,
    calibration), from_ms, to_ms (epoch milliseconds) and seed: what it was trained on; figures, curves: how that went;
    version: short digest of all of these; created: ISO 8601; headrace: the release that made it.
    """

    detector: str
    config: Mapping[str, Any]
    signals: tuple[str, ...]
    period_s: float
    scaler: Mapping[str, Any]
    calibration: Mapping[str, Any]
    weights: str
    assets: tuple[str, ...]
    rows: Mapping[str, int]
    from_ms: int
    to_ms: int
    seed: int
    figures: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]
    created: str
    headrace: str
    format: int = FORMAT
    version: str = ""

    def content_version(self) -> str:
        """What ``version`` has to be: the same content, the same version, whenever it was made."""
        content = {key: value for key, value in dataclasses.asdict(self).items() if key not in _NOT_CONTENT}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A trained detector with all that it takes to use it, and where it came from."""

    detector: Detector
    scaler: RobustScaler
    calibration: Calibration
    manifest: Manifest

    @property
    def version(self) -> str:
        """A short digest of the content; every result names it."""
        return self.manifest.version

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals' names in the order of the last axis."""
        return self.manifest.signals

    @property
    def period_s(self) -> float:
        """Seconds between the rows it was trained on."""
        return self.manifest.period_s

    @property
    def window(self) -> int:
        """Rows that a score needs."""
        return self.detector.window

    @property
    def stepper(self) -> Stepper | None:
        """How its state is carried from reading to reading; None if every score needs a window."""
        return getattr(self.detector, "stepper", None)

    @property
    def inspects(self) -> bool:
        """Whether it reads pictures (``models.inspectors``)."""
        return self.manifest.detector in registry.inspectors()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The faults that it tells apart; empty if it does not."""
        names: tuple[str, ...] = getattr(self.detector, "class_names", ())
        return names

    def threshold(self, false_alarms_per_day: float) -> float:
        """The score to alarm at; see ``Calibration.threshold``."""
        return self.calibration.threshold(false_alarms_per_day)

    def require_signals(self, names: Iterable[str]) -> None:
        """Raise ``InvalidArtifact`` naming the difference unless ``names`` are the trained ones, in any order."""
        asked = list(names)
        unknown, absent = sorted(set(asked) - set(self.signals)), sorted(set(self.signals) - set(asked))
        if unknown or absent:
            raise InvalidArtifact(
                f"artifact {self.version} was trained on {', '.join(self.signals)}: "
                f"not on {', '.join(unknown) or 'nothing else'}; not asked for: {', '.join(absent) or 'none'}"
            )

    def score(self, windows: npt.NDArray[np.floating[Any]]) -> Scored:
        """(batch, window, signal) in the signals' own units, NaN where missing -> what the detector says, scaled."""
        return self.detector.score(self.scaler.transform(windows))

    def expectation(self, scored: Scored) -> tuple[Float64, Float64] | None:
        """What the newest row should have been and its standard deviation: (batch, signal), signals' own units."""
        if scored.expected is None or scored.spread is None:
            return None
        return self.scaler.inverse(scored.expected), np.asarray(scored.spread, np.float64) * self.scaler.scale

    def save(self, path: Path) -> Path:
        """Write the artifact to the folder ``path``, whole or not at all; an artifact that is there is replaced."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            _write(made / WEIGHTS, _packed(self.detector))
            _write(
                made / MANIFEST,
                (json.dumps(dataclasses.asdict(self.manifest), indent=1, allow_nan=False) + "\n").encode(),
            )
            made.chmod(0o755)  # mkdtemp's 0o700 would hide it from a worker that runs as another user
            _swap_in(made, path)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return path


def assemble(
    detector: Detector,
    scaler: RobustScaler,
    calibration: Calibration,
    *,
    signals: Sequence[str],
    period_s: float,
    **provenance: Any,
) -> Artifact:
    """An artifact of what was trained. ``provenance``: the fields of ``Manifest`` from ``assets`` to ``curves``."""
    manifest = Manifest(
        detector=detector.name,
        config=dataclasses.asdict(detector.config),
        signals=tuple(signals),
        period_s=period_s,
        scaler=scaler.to_dict(),
        calibration=calibration.to_dict(),
        weights=hashlib.sha256(_packed(detector)).hexdigest(),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        headrace=_release(),
        **provenance,
    )
    return Artifact(detector, scaler, calibration, dataclasses.replace(manifest, version=manifest.content_version()))


def load(path: Path, *, verifier: Verifier | None = None) -> Artifact:
    """Read an artifact. Raises ``InvalidArtifact``, naming file and fault, for anything that is not as it was saved.

    With ``verifier``, also for what is not signed by whom it trusts.
    """
    path = Path(path)
    content = _read(path / MANIFEST)
    if verifier is not None:
        signature = _read(path / SIGNATURE) if (path / SIGNATURE).exists() else None
        try:
            verifier.check(content, signature)
        except InvalidArtifact as error:
            raise InvalidArtifact(f"{path}: {error}") from None
    try:
        raw = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArtifact(f"{path / MANIFEST}: not JSON: {error}") from None
    try:
        return _restore(_parsed(raw), path)
    except InvalidArtifact as error:
        raise InvalidArtifact(f"{path}: {error}") from None


def _parsed(raw: Any) -> Manifest:
    if not isinstance(raw, dict):
        raise InvalidArtifact("manifest: not an object")
    if raw.get("format") != FORMAT:
        raise InvalidArtifact(f"manifest: format {raw.get('format')!r}, this program reads {FORMAT}")
    hints = typing.get_type_hints(Manifest)
    if set(raw) != set(hints):
        raise InvalidArtifact(f"manifest: missing or unknown keys {sorted(set(raw) ^ set(hints))}")
    for key, hint in hints.items():
        wanted: Any = {tuple: list, Mapping: dict, float: (int, float)}.get(typing.get_origin(hint) or hint, hint)
        if not isinstance(raw[key], wanted) or isinstance(raw[key], bool):
            raise InvalidArtifact(f"manifest: {key} is not of its type: {str(raw[key])[:80]!r}")
    for key in ("signals", "assets"):
        if not all(isinstance(name, str) and name for name in raw[key]) or len(set(raw[key])) != len(raw[key]):
            raise InvalidArtifact(f"manifest: {key} must be different names")
    if not 0 < len(raw["signals"]) <= _MOST_SIGNALS:
        raise InvalidArtifact(f"manifest: {len(raw['signals'])} signals, 1 to {_MOST_SIGNALS} are possible")
    if not 0 < raw["period_s"] < float("inf"):
        raise InvalidArtifact(f"manifest: period_s must be above 0, got {raw['period_s']!r}")
    manifest = Manifest(**(raw | {"signals": tuple(raw["signals"]), "assets": tuple(raw["assets"])}))
    if manifest.content_version() != manifest.version:
        raise InvalidArtifact("manifest: its content is not what its version says")
    return manifest


def _restore(manifest: Manifest, path: Path) -> Artifact:
    signals = len(manifest.signals)
    scaler = RobustScaler.from_dict(manifest.scaler)
    if scaler.signals != signals:
        raise InvalidArtifact(f"manifest: {signals} signals but a scaler for {scaler.signals}")
    calibration = Calibration.from_dict(manifest.calibration)
    packed = _read(path / WEIGHTS)
    if hashlib.sha256(packed).hexdigest() != manifest.weights:
        raise InvalidArtifact(f"{WEIGHTS}: its digest is not the manifest's")
    try:
        weights = safetensors.numpy.load(packed)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InvalidArtifact(f"{WEIGHTS}: {error}") from None
    try:
        detector = registry.create(manifest.detector, signals=signals, config=manifest.config)
    except (UnknownDetector, ValueError) as error:
        raise InvalidArtifact(f"manifest: {error}") from None
    detector.load_weights(weights)
    if unknown := sorted(set(weights) - set(detector.weights())):
        raise InvalidArtifact(f"{WEIGHTS}: unknown arrays {unknown}")
    return Artifact(detector, scaler, calibration, manifest)


def _packed(detector: Detector) -> bytes:
    """The weights' file; in order of name, so that the same weights are the same bytes."""
    named = {name: np.ascontiguousarray(array) for name, array in sorted(detector.weights().items())}
    packed: bytes = safetensors.numpy.save(named)
    return packed


def _read(path: Path) -> bytes:
    """A regular file of the artifact: never a link, which could lead out of it, nor a pipe, which could block."""
    most = _MOST_BYTES[path.name]
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidArtifact(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InvalidArtifact(f"{path}: not a regular file")
    with os.fdopen(handle, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InvalidArtifact(f"{path}: larger than {most} bytes")
    return content


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap_in(made: Path, path: Path) -> None:
    """Rename ``made`` to ``path``; a folder that is there steps aside first, since no rename replaces a full one."""
    if not path.exists():
        made.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)) / "old"
    path.rename(aside)
    try:
        made.rename(path)
    except OSError:
        aside.rename(path)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _release() -> str:
    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:
        return "unreleased"
