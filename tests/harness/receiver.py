"""A receiver of webhooks, over HTTP or TLS, that can be away."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from servers import free_port


class Receiver:
    """Keeps what it is told, with the ids of the posts.

    keys   of ``server.pem`` and ``server.key``: then it speaks TLS, as localhost
    """

    def __init__(self, keys: Path | None = None) -> None:
        self.taken: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self._keys = keys
        self._port = free_port()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self._port}" if self._keys else f"http://127.0.0.1:{self._port}"

    def start(self) -> Receiver:
        taken, ids = self.taken, self.ids

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                ids.append(self.headers["webhook-id"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        if self._keys:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._keys / "server.pem", self._keys / "server.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._server = server
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
