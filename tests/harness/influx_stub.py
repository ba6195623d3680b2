"""A server that takes InfluxDB's ``/api/v2/write``, in a thread, and fails as it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class InfluxStub:
    """``lines`` are those it has taken, in order; ``asked`` when it was asked (monotonic seconds).

    status, headers   what it answers; 204 takes the lines. The text of an error is the token, which must not be told
    delay_s           before it answers
    bad               lines with this in them are refused with 400, and all that come with them
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.asked: list[float] = []
        self.status = 204
        self.headers: Mapping[str, str] = {}
        self.delay_s = 0.0
        self.bad = "\0"
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> InfluxStub:
        """Listen, on the same port as before."""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status = stub._take(body)
                text = b"" if status == 204 else f"not now, {self.headers['Authorization']}".encode()
                self.send_response(status)
                for name, value in {**stub.headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _take(self, body: str) -> int:
        self.asked.append(time.monotonic())
        time.sleep(self.delay_s)
        if self.status != 204:
            return self.status
        if self.bad in body:
            return 400
        self.lines += body.splitlines()
        return 204
