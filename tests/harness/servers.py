"""Real servers as processes of ours: on free loopback ports, in a folder of the test's, killed at the end."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_INFLUXDB = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
"""

_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_max_body_size 64m;
  map $arg_precision $v1_precision {{ default $arg_precision; ns n; us u; }}
  server {{
    listen 127.0.0.1:{port}{tls};
    location = /api/v2/write {{
      set $args "db=$arg_bucket&precision=$v1_precision";
      rewrite ^ /write break;
      proxy_pass http://127.0.0.1:{influxdb};
    }}
    location / {{ proxy_pass http://127.0.0.1:{influxdb}; }}
  }}
}}
"""


def free_port() -> int:
    """A port of the loopback interface that nobody has at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fetch(url: str, timeout_s: float = 5.0, **query: str) -> bytes:
    """The body of a GET; raises ``OSError`` for anything but success."""
    with urllib.request.urlopen(
        f"{url}?{urllib.parse.urlencode(query)}" if query else url, timeout=timeout_s
    ) as answer:
        return bytes(answer.read())


class Server:
    """A process of ours; ``start`` again after ``stop`` gives the same server with the same data."""

    def __init__(self, command: list[str], folder: Path, ready: Callable[[], object], within_s: float = 30.0) -> None:
        dies_with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._command = [*dies_with_us, *command]
        self._log = folder / f"{Path(command[0]).name}.log"
        self._ready = ready
        self._within_s = within_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it, and do not wait."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self._log.parent
            )

    def wait_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._within_s
        while True:
            try:
                self._ready()
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    said = self._log.read_text(errors="replace")[-2000:]
                    self.stop()
                    pytest.fail(f"{self._command} did not start ({error}):\n{said}")
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Kill it: what it had not written is gone, as after a power cut."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)


def need(*programs: str, package: str) -> None:
    """Skip the test unless all programs are installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: apt-get install {package}")


def connects(port: int) -> Callable[[], object]:
    """What raises ``OSError`` until the port accepts."""
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=1.0).close()


class InfluxDB:
    """``url`` takes what InfluxDB 2 takes; ``query`` asks in InfluxQL.

    certificate   for localhost, with its key beside (``.pem``, ``.key``): then ``url`` is https
    """

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        self.port, proxy = free_port(), free_port()
        tls = ""
        if certificate is not None:
            key = certificate.with_suffix(".key")
            tls = f" ssl; ssl_certificate {certificate}; ssl_certificate_key {key}"
        (folder / "influxdb.conf").write_text(_INFLUXDB.format(port=self.port, rpc=free_port(), folder=folder))
        (folder / "nginx.conf").write_text(_NGINX.format(port=proxy, influxdb=self.port, folder=folder, tls=tls))
        self.url = f"https://localhost:{proxy}" if certificate else f"http://127.0.0.1:{proxy}"
        command = ["influxd", "run", "-config", str(folder / "influxdb.conf")]
        self.server = Server(command, folder, lambda: fetch(f"http://127.0.0.1:{self.port}/ping"))
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        self.proxy = Server(command, folder, connects(proxy))

    def create(self, database: str) -> None:
        query = urllib.parse.urlencode({"q": f'CREATE DATABASE "{database}"'}).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/query", data=query, timeout=10).close()

    def query(self, database: str, influxql: str) -> list[dict[str, Any]]:
        answer = fetch(f"http://127.0.0.1:{self.port}/query", 30.0, db=database, q=influxql, epoch="ns")
        (result,) = json.loads(answer)["results"]
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], row, strict=True))}
            for series in result.get("series", [])
            for row in series["values"]
        ]


def prometheus_server(folder: Path, target: str, rules: Path | None = None) -> tuple[Server, str]:
    """A Prometheus that scrapes ``target`` and evaluates ``rules`` every half second, and its URL; not started yet."""
    need("prometheus", package="prometheus")
    port = free_port()
    scrape = {"job_name": "headrace", "scrape_interval": "500ms", "scrape_timeout": "500ms"}
    config = {
        "global": {"evaluation_interval": "500ms"},
        "rule_files": [str(rules)] if rules else [],
        "scrape_configs": [{**scrape, "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}"
    return Server(command, folder, lambda: fetch(f"{url}/-/ready")), url


def alertmanager_server(folder: Path, configuration: Path, web: Path | None = None) -> tuple[Server, str]:
    """An Alertmanager without a cluster, and its URL; not started yet.

    web   a configuration with TLS for localhost
    """
    need("prometheus-alertmanager", package="prometheus-alertmanager")
    port = free_port()
    command = ["prometheus-alertmanager", f"--config.file={configuration}", f"--storage.path={folder}/alertmanager"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    if web is not None:
        return Server([*command, f"--web.config.file={web}"], folder, connects(port)), f"https://localhost:{port}"
    url = f"http://127.0.0.1:{port}"
    return Server(command, folder, lambda: fetch(f"{url}/-/ready")), url
