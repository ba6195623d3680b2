"""An Apache Kafka that lets nobody in without TLS and a password, or a certificate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from certificates import authority, certificate
from kafka_servers import apache_kafka
from servers import Server, free_port

USER = "plant"
PASSWORD = "pl4nt-p4ssw0rd-of-the-tests"

_LISTENERS = """
listeners=PLAINTEXT://127.0.0.1:{{port}},SASL_SSL://127.0.0.1:{sasl},MUTUAL://127.0.0.1:{mutual},CONTROLLER://127.0.0.1:{{controller}}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SASL_SSL://localhost:{sasl},MUTUAL://localhost:{mutual}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mutual.ssl.client.auth=required
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""  # noqa: E501  # a property is one line


@dataclass(frozen=True)
class SecureKafka:
    """``sasl``: address for TLS and a password; ``mutual``: for TLS and a certificate; ``plain``: for the tests alone.

    folder   ca.pem, other-ca.pem (which has signed nothing here), client.pem and client.key
    """

    server: Server
    folder: Path
    plain: str
    sasl: str
    mutual: str

    def environment(self, **others: str) -> dict[str, str]:
        """What a command of ours is let in with; ``others`` in place of these."""
        ours = {
            "BOOTSTRAP": self.sasl,
            "SECURITY_PROTOCOL": "SASL_SSL",
            "SASL_MECHANISM": "SCRAM-SHA-512",
            "USERNAME": USER,
            "PASSWORD": PASSWORD,
            "CA_FILE": str(self.folder / "ca.pem"),
        }
        return {f"HEADRACE_KAFKA_{name}": value for name, value in {**ours, **others}.items() if value}


def secure_kafka(folder: Path) -> SecureKafka:
    """Not started yet. The broker's certificate is for ``localhost``, not for 127.0.0.1."""
    authority(folder, "ca")
    authority(folder, "other-ca")
    certificate(folder, "broker", "localhost")
    certificate(folder, "client", "worker")
    key, signed = (folder / "broker.key").read_text(), (folder / "broker.pem").read_text()
    (folder / "broker.pem").write_text(key + signed)
    sasl, mutual = free_port(), free_port()
    more = _LISTENERS.format(sasl=sasl, mutual=mutual, folder=folder, user=USER, password=PASSWORD)
    users = [f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512)]
    server, plain = apache_kafka(folder, more=more, users=users)
    return SecureKafka(server, folder, plain, f"localhost:{sasl}", f"localhost:{mutual}")
