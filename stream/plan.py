"""The plan: a TOML file, the same on every worker. Which detector watches which assets, and what an alarm is worth.

It is kept with the plant's documents; where things are and the secrets are the environment's (``stream.settings``).
Unknown keys and impossible values stop the start with the key named.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models import drift, registry
from models.signing import Verifier
from models.store import Store
from stream.bridge.plan import BridgePlan
from stream.errors import ConfigError
from stream.operating import LineSettings, MaintenanceSettings, ModeSettings, SuppressSettings
from stream.settings import WorkerSettings, explain

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Seconds = Annotated[float, Field(ge=0, le=366 * 86400)]
#: What the artifact of a detector begins with whose model is in the store.
STORED: Final = "store:"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TopicSettings(_Strict):
    """Names of the topics.

    readings      what the plant sends, keyed by asset
    alerts        every transition of every alert, keyed by its id; compacted
    scores        every score, or those that ``thinning`` keeps; empty: no scores are published to Kafka
    dead_letters  what could not be used, as it came, with the reason in its headers
    late          records with readings that came later than ``input.lateness_s`` allows, as they came
    state         what is remembered of assets, for a worker that takes over; compacted
    actions       what operators do: acknowledge, shelve, resolve, maintenance windows, modes; every worker reads all
    labels        what operators say an alert or a stretch was; compacted, every worker reads all
    models        orders to workers, which version of a model serves or is a candidate, and what they report; compacted,
                  every worker reads all
    """

    readings: str = "plant.readings.v1"
    alerts: str = "plant.alerts.v1"
    scores: str = ""
    dead_letters: str = "plant.readings.dlq.v1"
    late: str = "plant.readings.late.v1"
    state: str = "plant.state.v1"
    actions: str = "plant.actions.v1"
    labels: str = "plant.labels.v1"
    models: str = "plant.models.v1"


class InputSettings(_Strict):
    """How a record becomes readings.

    format             a file name in stream/sources
    time               what a number in ``ts`` means; text is RFC 3339 in any case
    earliest, latest   readings observed outside are dead letters: a wrong unit or a dead clock battery. ``latest`` is
                       fixed in the plan, not "now", so that a replay decides as the live run did
    lateness_s         how late a reading may be, against the newest of its asset: so long readings are held back, and
                       put in order. 0: what is older than the asset's newest is late
    silent_s           where readings are held back: an asset that its partition has gone on without for so long has
                       nothing more to come, and what is held back of it is released
    max_held_readings  of one asset at most so many are held back; the oldest go first
    ahead_s            how far a reading may jump ahead of its asset and of ``ahead_witnesses`` others of its partition;
                       farther is a dead letter, ``future``. None: nobody is judged
    ahead_witnesses    that many others
    max_record_bytes   a larger record is a dead letter
    max_readings_per_record   so is a frame with more readings
    """

    format: Name = "json"
    time: Literal["s", "ms"] = "ms"
    earliest: str = "2000-01-01T00:00:00Z"
    latest: str = "2100-01-01T00:00:00Z"
    lateness_s: Annotated[float, Field(ge=0, le=86400)] = 0.0
    silent_s: Annotated[float, Field(gt=0, le=86400)] = 60.0
    max_held_readings: Annotated[int, Field(ge=1, le=100_000)] = 1000
    ahead_s: Annotated[float, Field(ge=1, le=366 * 86400)] | None = None
    ahead_witnesses: Annotated[int, Field(ge=1, le=100)] = 1
    max_record_bytes: Annotated[int, Field(ge=256, le=64 << 20)] = 1 << 20
    max_readings_per_record: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if 0 < self.lateness_s < 0.001:
            raise ValueError("lateness_s: at least 0.001, or 0")
        if self.lateness_s > self.silent_s:
            raise ValueError("silent_s must not be below lateness_s")
        return self


class GapSettings(_Strict):
    """What happens where an asset's readings are further apart than the detector's period.

    ``keep``: the next reading follows as if nothing was missing, however long the gap. ``reset``: so up to
    ``longer_than_s``; beyond it the window starts anew, and the detector is silent until it is full again. ``hold`` and
    ``interpolate``: up to ``longer_than_s``, and at most for a window's length, the gap is filled with rows at the
    detector's period, with the last value or on a straight line; they fill windows and are not judged themselves.

    policy         which of these
    longer_than_s  how long a gap may be; None: five of the detector's periods
    grid  puts readings that come at any time, or with a part of the signals each, on the detector's period: one row a
          period, with the last that is known of each signal, if it is not older than ``longer_than_s``. A row is judged
          when a reading of a later period shows that it is complete.
    """

    policy: Literal["keep", "reset", "hold", "interpolate"] = "reset"
    longer_than_s: Seconds | None = None
    grid: bool = False

    @property
    def fills(self) -> bool:
        """Whether rows are put in where some are missing."""
        return self.policy in {"hold", "interpolate"}


class DriftSettings(_Strict):
    """How the threshold follows a plant that drifts; only one that was calibrated on history does.

    rows   the level of calm scores that it follows is a mean over about so many
    usual  share of the threshold that this level may take up before the threshold follows
    most   the threshold rises to at most so many times what calibration says; 1: it never moves. Nothing is followed
           while an alert is open or about to be
    """

    rows: Annotated[float, Field(ge=1, le=1e9)] = drift.ROWS
    usual: Annotated[float, Field(gt=0, lt=1)] = drift.USUAL
    most: Annotated[float, Field(ge=1, le=10)] = drift.MOST

    @property
    def rule(self) -> drift.Drift:
        """As ``decide`` takes it."""
        return drift.Drift(self.rows, self.usual, self.most)


class SignalSettings(_Strict):
    """The physical range of the signals that a pattern names; a value outside of it is no measurement.

    low, high  in the signal's own units, both still possible
    assets     patterns: the assets that this holds for
    """

    low: float | None = None
    high: float | None = None
    assets: tuple[str, ...] = ("*",)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("low must be below high")
        return self

    def concerns(self, asset: str) -> bool:
        """Whether an asset matches one of the patterns."""
        return any(fnmatchcase(asset, pattern) for pattern in self.assets)


class QualitySettings(_Strict):
    """Alerts on the data themselves, which need no training: detectors ``stale`` and ``signals``.

    stale_after_periods  an asset is stale when its partition has gone on without it for so many periods of its slowest
                         detector. None: nobody asks
    bad_values           whether values that their source calls bad are an alert; ranges (``signals``) always are
    on_delay_s, off_delay_s, update_every_s   as for detectors, for ``signals``
    """

    stale_after_periods: Annotated[float, Field(ge=3, le=1_000_000)] | None = None
    bad_values: bool = False
    on_delay_s: Seconds = 0.0
    off_delay_s: Seconds = 0.0
    update_every_s: Seconds = 60.0


class DetectorSettings(_Strict):
    """One detector at work: what it is, what it watches, and when its score is an alarm.

    kind                   a file name in models/detectors
    assets                 patterns such as ``pump-*``
    signals                the columns it sees; empty when training: all that the recordings have
    gaps                   what happens where readings are missing
    artifact               folder of the trained artifact; ``{asset}`` in it means a model of its own for every asset.
                           ``store:`` or ``store:NAME`` is what serves under the detector's name, or that one, in the
                           model store (``models.store``)
    begins_as              a kind that needs no history (``novelty``): it is at work while the store has no version of
                           this detector, and a model of ``kind`` is grown from what arrives (``stream.growing``)
    period_s               how far apart readings come, for what begins without history
    hop                    score every how many readings
    false_alarms_per_day   what the operator accepts, for one asset and this detector
    threshold              overrides what calibration says
    drift                  how the threshold follows a plant that drifts
    on_delay_s             how long the score must stay over the threshold before the alert opens
    off_delay_s            how long it must stay under the lower bound before the alert resolves
    deadband               that lower bound is threshold * (1 - deadband)
    update_every_s         an open alert is published again at most so often, unless its severity rises
    major_at, critical_at  multiples of the threshold that make it worse
    escalate_after_s       an alert that lasts so long becomes one step more severe
    re_alarm_after_s       people are called again when nobody has acknowledged it for so long; 0: never
    only_in                modes (``[modes.NAME]``) in which alone it judges: other readings are scored and are evidence
                           of nothing, and where the mode's signal shows them they are left out of training. Empty: all
    config                 settings of the detector itself, used when it is trained
    """

    kind: Name
    assets: tuple[str, ...] = ("*",)
    signals: tuple[str, ...] = ()
    artifact: str
    begins_as: Name | None = None
    period_s: Annotated[float, Field(gt=0, le=86400)] | None = None
    hop: Annotated[int, Field(ge=1, le=100_000)] = 1
    gaps: GapSettings = GapSettings()
    false_alarms_per_day: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    threshold: Annotated[float, Field(gt=0)] | None = None
    on_delay_s: Seconds = 0.0
    off_delay_s: Seconds = 0.0
    deadband: Annotated[float, Field(ge=0, lt=1)] = 0.1
    update_every_s: Seconds = 60.0
    major_at: Annotated[float, Field(gt=1)] = 1.5
    critical_at: Annotated[float, Field(gt=1)] = 3.0
    escalate_after_s: Seconds = 3600.0
    re_alarm_after_s: Seconds = 0.0
    only_in: tuple[Name, ...] = ()
    drift: DriftSettings = DriftSettings()
    config: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind not in (known := (*registry.names(), *registry.inspectors())):
            raise ValueError(f"kind: no detector {self.kind!r}; there are {', '.join(sorted(known))}")
        if self.critical_at <= self.major_at:
            raise ValueError("critical_at must be above major_at")
        if not self.assets:
            raise ValueError("assets: name at least one pattern, such as '*'")
        if self.is_stored and self.one_model_per_asset:
            raise ValueError("artifact: a model of the store serves all assets of its detector, without {asset}")
        self._check_beginning()
        return self

    def _check_beginning(self) -> None:
        if self.begins_as is None:
            if self.period_s is not None:
                raise ValueError("period_s: only with begins_as; what is trained takes its period from its readings")
            return
        if self.begins_as not in registry.names() or not registry.begins_cold(self.begins_as):
            raise ValueError(f"begins_as: {self.begins_as!r} is of no use without history; novelty is")
        if self.kind in registry.inspectors():
            raise ValueError(f"begins_as: {self.kind} reads pictures, {self.begins_as} does not")
        if not self.is_stored:
            raise ValueError('begins_as: what takes over later is a version of the store: write artifact = "store:"')
        if not self.signals:
            raise ValueError("signals: name them; begins_as has no history to take them from")
        if self.period_s is None:
            raise ValueError("period_s: say how far apart readings come; begins_as has no history to take it from")
        if self.threshold is not None and self.begins_as != self.kind:
            raise ValueError(f"threshold: one for {self.kind} means nothing to {self.begins_as}: leave it out")

    @property
    def one_model_per_asset(self) -> bool:
        """Whether every asset has a model of its own."""
        return "{asset}" in self.artifact

    @property
    def is_stored(self) -> bool:
        """Whether its artifact is in the model store."""
        return self.artifact.startswith(STORED)

    @property
    def grows(self) -> bool:
        """Whether a model of ``kind`` can be grown from what arrives: not one that learns from labelled faults."""
        return self.begins_as not in {None, self.kind} and not registry.tells_faults_apart(self.kind)

    def is_young(self, kind: str) -> bool:
        """Whether a model of ``kind`` is what the detector begins as, with another to come."""
        return kind == self.begins_as and kind != self.kind

    def takes(self, kind: str) -> bool:
        """Whether a model of ``kind`` may be at work as this detector."""
        return kind in (self.kind, self.begins_as)

    def watches(self, asset: str) -> bool:
        """Whether an asset matches one of the patterns."""
        return any(fnmatchcase(asset, pattern) for pattern in self.assets)


class ThinningSettings(_Strict):
    """Which scores are kept on the scores topic and in InfluxDB; alerts and metrics see all in any case.

    every_s   0 keeps all; else one row of each asset and detector in so many seconds of event time, and all that is at
              or over the threshold, belongs to an open alert, or has another verdict than the row before
    change    between these, also each row whose score differs from that last written by more than this share of the
              threshold
    """

    every_s: Seconds = 0.0
    change: Annotated[float, Field(gt=0, le=1000)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if 0 < self.every_s < 0.001:
            raise ValueError("every_s: at least 0.001, or 0 to keep all")
        if self.change is not None and not self.every_s:
            raise ValueError("change needs every_s: how long there may be no row at all")
        return self


class StateSettings(_Strict):
    """What is remembered of assets.

    evict_after_s   an asset that has been silent for so long (event time, against its partition's newest) is forgotten,
                    and begins anew should it come back; longer than the gaps of all detectors
    """

    evict_after_s: Annotated[float, Field(ge=60, le=3660 * 86400)] = 7 * 86400.0


class StoreSettings(_Strict):
    """Where versions of models are kept, for detectors whose artifact is ``store:``.

    store   a folder, relative to the plan's, or a URL such as ``s3://bucket/models``
    """

    store: Annotated[str, Field(min_length=1)] = "artifacts/store"


class Plan(_Strict):
    """The plan: ``headrace.toml``.

    site       name of the plant, a tag of all that is written
    units      of signals, by their names: what stands beside numbers and axes. Nothing is converted
    signals    physical ranges, by patterns of names
    maintenance, suppress, modes, lines   how the plant is run, by names of your choice
    bridge     where readings come from, if a bridge of ours brings them
    models     the model store
    detectors  what is at work, by names of your choice
    """

    site: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    units: dict[str, Annotated[str, Field(max_length=16)]] = {}
    topics: TopicSettings = TopicSettings()
    input: InputSettings = InputSettings()
    thinning: ThinningSettings = ThinningSettings()
    state: StateSettings = StateSettings()
    quality: QualitySettings = QualitySettings()
    signals: dict[Annotated[str, Field(min_length=1)], SignalSettings] = {}
    maintenance: dict[Name, MaintenanceSettings] = {}
    suppress: dict[Name, SuppressSettings] = {}
    modes: dict[Name, ModeSettings] = {}
    lines: dict[Name, LineSettings] = {}
    bridge: BridgePlan = BridgePlan()
    models: StoreSettings = StoreSettings()
    detectors: Annotated[dict[Name, DetectorSettings], Field(min_length=1)]
    #: The folder of the plan's file: relative artifacts are found from here.
    folder: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in sorted({"stale", "signals"} & self.detectors.keys()):
            raise ValueError(f"detectors.{name}: alerts on the data themselves have this name; choose another")
        self._check_modes()
        inspecting = {name for name, settings in self.detectors.items() if settings.kind in registry.inspectors()}
        if pictures := self.input.format == "pictures":
            for name in sorted(self.detectors.keys() - inspecting):
                raise ValueError(f"detectors.{name}.kind: {self.detectors[name].kind} reads no pictures (input.format)")
            if self.input.lateness_s:
                raise ValueError("input.lateness_s: pictures are not held back; leave it at 0")
        if inspecting and not pictures:
            raise ValueError(f"input.format: detectors.{min(inspecting)} reads pictures: set it to 'pictures'")
        return self

    def _check_modes(self) -> None:
        named = {mode for settings in self.detectors.values() for mode in settings.only_in}
        for name, settings in self.detectors.items():
            for mode in settings.only_in:
                if mode not in self.modes:
                    raise ValueError(f"detectors.{name}.only_in: there is no modes.{mode}")
        for name, held in self.modes.items():
            if held.factor == 1.0 and held.judge and name not in named:
                raise ValueError(
                    f"modes.{name}: give a factor, or judge = false, or let a detector be only_in it: "
                    "as it is it changes nothing"
                )

    def stored(self, name: str) -> str:
        """The name in the store of detector ``name``'s model; empty if its artifact is a plain folder."""
        settings = self.detectors[name]
        return (settings.artifact.removeprefix(STORED) or name) if settings.is_stored else ""

    def open_store(self, verifier: Verifier | None = None) -> Store:
        """The plan's model store."""
        return Store(self.models.store, self.folder, verifier=verifier)

    def artifact_path(self, name: str, asset: str | None = None) -> Path:
        """Where the artifact of detector ``name`` lies, for ``asset`` where each has its own: a plain folder."""
        settings = self.detectors[name]
        if settings.one_model_per_asset:
            if asset is None or not _is_plain(asset):
                raise ConfigError(f"detectors.{name}.artifact: {asset!r} cannot be a folder's name")
            return self.folder / settings.artifact.replace("{asset}", asset)
        return self.folder / settings.artifact


def _is_plain(asset: str) -> bool:
    """Whether an asset's name is safe as the name of a folder: it comes from outside."""
    return asset not in {"", ".", ".."} and "/" not in asset and "\\" not in asset and "\0" not in asset


def load_plan(path: str | Path) -> Plan:
    """Read and check a plan. Raises ``ConfigError`` that names file, key and remedy."""
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such plan; write one or name it with --plan") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if "folder" in table:
        raise ConfigError(f"{path}: folder: unknown key")
    return parse_plan(table, folder=path.parent, source=str(path))


def parse_plan(table: Mapping[str, Any], *, folder: Path = Path(), source: str = "plan") -> Plan:
    """A plan from a table as TOML gives it. Raises ``ConfigError``."""
    try:
        return Plan.model_validate({**table, "folder": folder})
    except ValidationError as error:
        raise ConfigError(explain(error, source, Plan)) from None


def check_together(plan: Plan, worker: WorkerSettings) -> None:
    """What neither of them can know alone. Raises ``ConfigError``."""
    if plan.input.lateness_s and not worker.snapshot_every_s:
        raise ConfigError(
            "input.lateness_s: what is held back survives a crash in snapshots only: set "
            "HEADRACE_WORKER_SNAPSHOT_EVERY_S above 0, or lateness_s to 0"
        )
