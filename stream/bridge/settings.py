"""Where the plant's broker and server are, and how to be let in: the environment of the bridges."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stream.errors import ConfigError
from stream.settings import with_secret_file


class BridgeSettings(BaseSettings):
    """How a bridge's process runs; read from ``HEADRACE_BRIDGE_*``.

    plan             the plan's file
    web_host         of /metrics and /health; binds narrowly by default
    web_port         their port; 0 takes a free one
    status_every_s   how often a line in the log says how it goes; 0: never
    grace_s          how long a stop waits for what is on its way to Kafka
    log_level        of the log, on standard error
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_BRIDGE_", frozen=True)

    plan: Path = Path("headrace.toml")
    web_host: str = "127.0.0.1"
    web_port: Annotated[int, Field(ge=0, le=65535)] = 6067
    status_every_s: Annotated[float, Field(ge=0, le=86400)] = 60.0
    grace_s: Annotated[float, Field(gt=0, le=600)] = 20.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class MqttSettings(BaseSettings):
    """Where the MQTT broker is and how to be let in; read from ``HEADRACE_MQTT_*``.

    host, port                    of the broker; with TLS the port is usually 8883
    protocol                      ``5``, or ``3.1.1`` for brokers that have no other
    tls                           whether to use TLS; certificates and host names are always verified
    ca_file, cert_file, key_file  TLS: who is trusted, and a certificate of the bridge's own
    username                      how to be let in
    password                      or ``password_file``
    password_file                 the password's file: what Docker and Kubernetes mount a secret as
    keepalive_s                   how soon a dead connection is noticed
    session_s                     how long the broker keeps what comes while the bridge is away (protocol 5; with 3.1.1
                                  the broker's own settings hold)
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_MQTT_", frozen=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: Path | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    session_s: Annotated[int, Field(ge=60, le=366 * 86400)] = 7 * 86400

    @model_validator(mode="before")
    @classmethod
    def _secrets(cls, given: Any) -> Any:
        return with_secret_file(given, "password", "HEADRACE_MQTT_PASSWORD")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.password.get_secret_value() and not self.username:
            raise ValueError("HEADRACE_MQTT_PASSWORD needs HEADRACE_MQTT_USERNAME")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("set both of HEADRACE_MQTT_CERT_FILE and HEADRACE_MQTT_KEY_FILE, or neither")
        _files(self, ("ca_file", "cert_file", "key_file"))
        if not self.tls and (self.ca_file or self.cert_file):
            raise ValueError("HEADRACE_MQTT_CA_FILE and _CERT_FILE are for TLS: set HEADRACE_MQTT_TLS=true")
        return self

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, or None. Raises ``ConfigError``."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            if self.cert_file and self.key_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"HEADRACE_MQTT_CA_FILE, _CERT_FILE, _KEY_FILE: {error}") from None
        return context


class OpcuaSettings(BaseSettings):
    """Where the OPC UA server is and how to be let in; read from ``HEADRACE_OPCUA_*``.

    url                    such as ``opc.tcp://plc-1:4840``
    security               policy of the secure channel; ``None`` is for networks that nobody else reaches
    mode                   whether messages are signed only
    cert_file, key_file    the bridge's own certificate (DER or PEM), which the server must trust
    server_cert_file       the server's: it must have this one
    application_uri        the bridge's, as in its certificate
    username               how to be let in
    password               or ``password_file``
    password_file          the password's file: what Docker and Kubernetes mount a secret as
    timeout_s              how long an answer may take
    """

    model_config = SettingsConfigDict(env_prefix="HEADRACE_OPCUA_", frozen=True)

    url: str = "opc.tcp://127.0.0.1:4840"
    security: Literal["None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "None"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    cert_file: Path | None = None
    key_file: Path | None = None
    server_cert_file: Path | None = None
    application_uri: str = "urn:headrace:bridge"
    username: str = ""
    password: SecretStr = SecretStr("")
    password_file: Path | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0

    @model_validator(mode="before")
    @classmethod
    def _secrets(cls, given: Any) -> Any:
        return with_secret_file(given, "password", "HEADRACE_OPCUA_PASSWORD")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.url.startswith("opc.tcp://") or "@" in self.url:
            raise ValueError("HEADRACE_OPCUA_URL: opc.tcp://host:port, without a user")
        files = (self.cert_file, self.key_file, self.server_cert_file)
        if self.security != "None" and not all(files):
            raise ValueError(
                f"HEADRACE_OPCUA_SECURITY={self.security} needs "
                "HEADRACE_OPCUA_CERT_FILE, _KEY_FILE and _SERVER_CERT_FILE"
            )
        if self.security == "None" and any(files):
            raise ValueError("certificates without HEADRACE_OPCUA_SECURITY: choose a policy, such as Basic256Sha256")
        if self.password.get_secret_value() and not self.username:
            raise ValueError("HEADRACE_OPCUA_PASSWORD needs HEADRACE_OPCUA_USERNAME")
        _files(self, ("cert_file", "key_file", "server_cert_file"))
        return self


def _files(settings: BaseSettings, names: tuple[str, ...]) -> None:
    for name in names:
        file = getattr(settings, name)
        if file is not None and not file.is_file():
            raise ValueError(f"{name}: there is no file {file}")
