"""Whether a Kafka cluster lets us in, asked before any client is made: what is wrong is said in a line, within seconds.

The clients try for half a minute and then say that they could not bootstrap, whatever it was: nobody listens, a wrong
certificate, a wrong password.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiokafka import errors
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from stream.errors import BrokerError
from stream.settings import KafkaSettings

_RETRY_S: Final = 0.25
_ONE_TRY_S: Final = 5.0
_CLOSED_S: Final = 3.0
_DEFAULT_PORT: Final = 9092
#: X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_WRONG_NAMES: Final = (62, 64)


class _Refused(Exception):
    """The cluster is there and does not let us in: to try again would not help."""


def knock(kafka: KafkaSettings, *, timeout_s: float = 10.0) -> None:
    """Return when one of the bootstrap servers lets us in, user and all.

    A server that does not answer is tried again until ``timeout_s``; one that refuses ends it at once. Raises
    ``BrokerError``, one line that names the address, what is wrong, and the variables to look at.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="door") as thread:  # a loop of its own, whatever loop runs here
        thread.submit(asyncio.run, _knock(kafka, timeout_s)).result()


async def _knock(kafka: KafkaSettings, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    options = {key: value for key, value in kafka.client_options().items() if key != "bootstrap_servers"}
    while True:
        refusals, absences = [], []
        for server in kafka.servers:
            left_s = max(min(deadline - time.monotonic(), _ONE_TRY_S), 0.1)
            try:
                await _enter(server, left_s, options)
            except _Refused as refusal:
                refusals.append(str(refusal))
            except (OSError, TimeoutError) as error:
                absences.append(_say(error))
                if isinstance(error, ConnectionAbortedError):  # one that starts may do so, one of another protocol will
                    deadline = min(deadline, time.monotonic() + _CLOSED_S)
            else:
                return
        if refusals:
            raise BrokerError(f"Kafka at {kafka.bootstrap} does not let us in: {refusals[0]}")
        if time.monotonic() + _RETRY_S > deadline:
            raise BrokerError(
                f"no Kafka broker answers as it should at {kafka.bootstrap} ({'; '.join(absences)}): "
                "is it running, and are HEADRACE_KAFKA_BOOTSTRAP and HEADRACE_KAFKA_SECURITY_PROTOCOL right?"
            )
        await asyncio.sleep(_RETRY_S)


async def _enter(server: str, timeout_s: float, options: dict[str, Any]) -> None:
    """Connect, shake hands, give the password, ask. Raises ``_Refused``, and ``OSError`` where nobody answers."""
    host, port = _address(server)
    connection: Any = None
    try:
        async with asyncio.timeout(timeout_s):
            wait_ms = int(timeout_s * 1000)
            connection = await create_conn(host, port, client_id="headrace-door", request_timeout_ms=wait_ms, **options)
            await connection.send(MetadataRequest([]))  # who is asked for no password above is refused here
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in _WRONG_NAMES:
            why = f"its certificate is not for this host name ({error.verify_message}): see HEADRACE_KAFKA_BOOTSTRAP"
        else:
            why = f"its certificate is not trusted ({error.verify_message}): see HEADRACE_KAFKA_CA_FILE"
        raise _Refused(why) from None
    except ssl.SSLError as error:
        raise _Refused(f"no TLS ({error.reason}): see HEADRACE_KAFKA_SECURITY_PROTOCOL") from None
    except errors.KafkaError as error:
        if why := _why(error):
            raise _Refused(why) from None
        raise ConnectionAbortedError("it closes the connection") from None
    finally:
        if connection is not None:
            connection.close()


def _address(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    if not colon:
        return server, _DEFAULT_PORT
    if not port.isdecimal():
        raise _Refused(f"{server} is no host:port: see HEADRACE_KAFKA_BOOTSTRAP")
    return host.strip("[]"), int(port)


def _why(error: errors.KafkaError) -> str:
    """Why the cluster does not want us, and the variables to look at; empty if it does not say."""
    if isinstance(error, (errors.AuthenticationFailedError, errors.SaslAuthenticationFailed)):
        return "it refuses user or password: see HEADRACE_KAFKA_USERNAME, _PASSWORD and _SASL_MECHANISM"
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return "it does not know the mechanism: see HEADRACE_KAFKA_SASL_MECHANISM"
    if isinstance(error, errors.IllegalSaslStateError):
        return "it wants no user and password: see HEADRACE_KAFKA_SECURITY_PROTOCOL"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLError):
        return f"it refuses our certificate, or wants one ({cause.reason}): see HEADRACE_KAFKA_CERT_FILE"
    return ""


def _say(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
