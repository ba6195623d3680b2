"""What the environment decides (prefix ``HEADRACE_``): where things are, how to be let in, how a worker runs.

Nothing secret stands in the plan (``stream.plan``). Impossible values stop the start with the variable named.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.signing import Signer, Verifier
from stream.errors import ConfigError

S = TypeVar("S", bound=BaseSettings)


class KafkaSettings(BaseSettings):
    """Where the Kafka cluster is and how to be let in; read from ``HEADRACE_KAFKA_*``.

    The same settings reach every client: Faust's consumer, the producer of alerts, and the command line's.

    bootstrap                     addresses, host:port, with commas
    group                         consumer group: workers of one share the assets
    instance_id                   a stable name of this worker keeps its partitions over a quick restart (static
                                  membership)
    security_protocol, sasl_mechanism, username   how to be let in
    password                      or ``password_file``
    password_file                 the password's file: what Docker and Kubernetes mount a secret as
    ca_file, cert_file, key_file  TLS; certificates and host names are always verified
    replication_factor, partitions   of topics that the worker has to create
    session_timeout_s             a worker that is silent for so long loses its partitions to others
    max_record_bytes              largest record that is fetched or produced
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_KAFKA_", frozen=True)

    bootstrap: str = "127.0.0.1:9092"
    group: str = "headrace"
    instance_id: str = ""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    replication_factor: Annotated[int, Field(ge=1, le=32)] = 1
    partitions: Annotated[int, Field(ge=1, le=4096)] = 4
    session_timeout_s: Annotated[float, Field(ge=1, le=600)] = 30.0
    max_record_bytes: Annotated[int, Field(ge=1 << 20)] = 16 << 20

    @model_validator(mode="before")
    @classmethod
    def _secrets(cls, given: Any) -> Any:
        return with_secret_file(given, "password", "HEADRACE_KAFKA_PASSWORD")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (self.username and self.password.get_secret_value()):
            raise ValueError(
                "security_protocol is SASL: set HEADRACE_KAFKA_USERNAME and HEADRACE_KAFKA_PASSWORD or _PASSWORD_FILE"
            )
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("set both of HEADRACE_KAFKA_CERT_FILE and HEADRACE_KAFKA_KEY_FILE, or neither")
        for key in ("ca_file", "cert_file", "key_file"):
            file = getattr(self, key)
            if file is not None and not file.is_file():
                raise ValueError(f"{key}: there is no file {file}")
        return self

    @property
    def servers(self) -> list[str]:
        """The bootstrap addresses, each host:port."""
        return [server.strip() for server in self.bootstrap.split(",") if server.strip()]

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, or None where the protocol has none. Certificates and host names are always verified."""
        if "SSL" not in self.security_protocol.replace("SASL", ""):
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            if self.cert_file and self.key_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"HEADRACE_KAFKA_CA_FILE, _CERT_FILE, _KEY_FILE: {error}") from None
        return context

    def client_options(self) -> dict[str, Any]:
        """Options that aiokafka's and kafka-python's clients both understand."""
        options: dict[str, Any] = {"bootstrap_servers": self.servers, "security_protocol": self.security_protocol}
        if context := self.ssl_context():
            options["ssl_context"] = context
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password.get_secret_value(),
            }
        return options


class WorkerSettings(BaseSettings):
    """How a worker runs; read from ``HEADRACE_WORKER_*``.

    plan               the plan's file
    web_host           binds narrowly by default: page, metrics and health are for the machine itself unless told
                       otherwise
    web_port           their port; 0 takes a free one
    grace_s            how long a stop waits for the batch in hand
    commit_every_s     how often offsets are committed
    max_poll_records   records in one batch at most
    log_level          of the worker's log, on standard error
    snapshot_every_s   how often the state of what was touched is written; offsets are committed only when it is. 0: the
                       state is in memory only, and offsets are committed when the sinks have the output
    recovery_s         how long reading the state back may take before work begins without it
    control_s          how long reading the control topics (actions, labels, models) may take before work begins without
                       what is left of them, which is read beside it
    stall_after_s      the worker ends itself, to be started again, when records wait, the broker answers, and the
                       committed offset has stood still for so long; longer than three snapshots
    grow_after_s       a model is grown for detectors with ``begins_as`` when the topic holds readings of so many
                       seconds of event time, and again when there is twice as much; 0: never
    grow_memory_mb     what the process that grows it may take; 0: no bound (Linux knows one, macOS does not)
    events             what Faust hands to the agent: ``batches`` of a partition's records, or with Faust's own consumer
                       ``messages``, one each, ten times as dear (should a new release of Faust not go with ours)
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_WORKER_", frozen=True)

    plan: Path = Path("headrace.toml")
    web_host: str = "127.0.0.1"
    web_port: Annotated[int, Field(ge=0, le=65535)] = 6066
    grace_s: Annotated[float, Field(gt=0, le=600)] = 20.0
    commit_every_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    snapshot_every_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    recovery_s: Annotated[float, Field(gt=0, le=86400)] = 60.0
    control_s: Annotated[float, Field(gt=0, le=86400)] = 15.0
    stall_after_s: Annotated[float, Field(gt=0, le=86400)] = 300.0
    max_poll_records: Annotated[int, Field(ge=1, le=100_000)] = 4096
    grow_after_s: Annotated[float, Field(ge=0, le=366 * 86400)] = 86400.0
    grow_memory_mb: Annotated[int, Field(ge=0, le=1 << 20)] = 3072
    events: Literal["batches", "messages"] = "batches"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stall_after_s < 3 * max(self.snapshot_every_s, self.commit_every_s):
            raise ValueError("stall_after_s: at least three times snapshot_every_s and commit_every_s")
        return self


class ModelsSettings(BaseSettings):
    """Whose models are trusted, and who signs and decides; read from ``HEADRACE_MODELS_*``.

    public_key         base64, as ``headrace models keygen`` prints: with it nothing is loaded that its owner has not
                       signed, neither at the start nor later
    public_key_file    the file it is in, instead
    private_key_file   signs what is trained into the store
    by                 who decides, for the store's history; the system's user if it is empty
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_MODELS_", frozen=True)

    public_key: str = ""
    public_key_file: Path | None = None
    private_key_file: Path | None = None
    by: str = ""

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, given: Any) -> Any:
        return with_secret_file(given, "public_key", "HEADRACE_MODELS_PUBLIC_KEY")

    @model_validator(mode="after")
    def _is_a_key(self) -> Self:
        try:
            self.verifier()
        except ValueError as error:
            raise ValueError(f"public_key: {error}") from None
        return self

    def verifier(self) -> Verifier | None:
        """What accepts only what is signed; None where nobody asks."""
        return Verifier(self.public_key) if self.public_key else None

    def signer(self) -> Signer | None:
        """What signs; None where there is no private key."""
        return Signer(self.private_key_file) if self.private_key_file else None


def from_environment(kind: type[S], **overrides: Any) -> S:
    """Settings from the environment, overrides first (those that are None don't count). Raises ``ConfigError``."""
    try:
        return kind(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(explain(error, "environment", kind)) from None


def with_secret_file(given: Any, name: str, variable: str) -> Any:
    """Settings' values as given, with the secret ``name`` read from the file that ``<name>_file`` names.

    Raises ``ValueError``, which never has the secret in it.
    """
    if not isinstance(given, dict) or not given.get(f"{name}_file"):
        return given
    if given.get(name):
        raise ValueError(f"set {variable} or {variable}_FILE, not both")
    try:
        secret = Path(given[f"{name}_file"]).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{variable}_FILE: {getattr(error, 'strerror', None) or 'not text in UTF-8'}") from None
    if not secret:
        raise ValueError(f"{variable}_FILE: the file is empty")
    return {**given, name: secret}


def unknown_variables(*kinds: type[BaseSettings]) -> list[str]:
    """Variables of our prefix in the environment that nothing reads: most likely misspelt."""
    known = {f"{kind.model_config['env_prefix']}{field}".upper() for kind in kinds for field in kind.model_fields}
    return sorted(name for name in os.environ if name.startswith("HEADRACE_") and name not in known)


def explain(error: ValidationError, source: str, kind: type[BaseModel]) -> str:
    """Pydantic's findings, each with its key and without the value (which may be a secret)."""
    prefix = kind.model_config.get("env_prefix", "")
    lines = []
    for finding in error.errors(include_input=False, include_url=False):
        key = ".".join(str(part) for part in finding["loc"] if part != "[key]")
        if prefix and key:
            key = f"{prefix}{key}".upper()
        message = finding["msg"].removeprefix("Value error, ")
        if finding["type"] == "extra_forbidden":
            message = "unknown key"
        lines.append(f"{source}: {key or kind.__name__}: {message}")
    return "\n".join(lines)
