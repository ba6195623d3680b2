"""What the sinks cost: a worker as production runs it against the same with none, on a real broker and a real InfluxDB.

Production: alerts to Kafka, metrics for Prometheus, and InfluxDB with one row in ten seconds of each asset. The note
has what each costs beyond that, unthinned and on the scores topic. CPU time of the worker's process, all threads, from
the first fetch until the last line is in the database; InfluxDB's own is not counted. Every variant is given the same
second after its last reading, in which lines that linger are written, so what it spends at rest is in all of them.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from figures.board import cpu_s
from figures.figure import Budget, Cost, Figure, Lost, Measured, interleave, middle, ratio
from figures.plant import Fleet, write_artifact
from figures.process import Topic, Variant
from stream.guard import start_guarded, stop_guarded, tail

FIGURES: Final = (
    Figure("sinks_share", "sinks (alerts, metrics, InfluxDB thinned) of all", "of 1", 0.10, 0.05, lower=True),
)

_ASSETS: Final = 1000
_ROWS: Final = 100  # of each asset in a round
_WARM: Final = 40
_BESIDE: Final = 3  # rounds of what is told beside the figure
_EVERY_S: Final = 10
_SETTLE_S: Final = 1.0
_STEADY: Final = 4  # as many counts in turn that are the same: on a busy machine lines are long in coming

_INFLUXDB: Final = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
"""
#: Makes InfluxDB 1's /write answer to InfluxDB 2's /api/v2/write.
_NGINX: Final = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn;
events {{}}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 16m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $arg_precision $v1_precision {{ default $arg_precision; ns n; us u; }}
  server {{
    listen 127.0.0.1:{proxy};
    location = /api/v2/write {{
      set $args "db=$arg_bucket&precision=$v1_precision";
      rewrite ^ /write break;
      proxy_pass http://127.0.0.1:{port};
    }}
  }}
}}
"""


class Database:
    """An InfluxDB of the figure's own."""

    def __init__(self, port: int, proxy: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{proxy}"

    def ask(self, influxql: str, database: str = "") -> list[list[float]]:
        """The rows of the first series that a statement gives. Raises ``OSError`` where it cannot be reached."""
        query = urllib.parse.urlencode({"q": influxql, "db": database}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/query", data=query, timeout=30) as answer:
            series = json.loads(answer.read())["results"][0].get("series")
        return list(series[0].get("values", [])) if series else []

    def points(self, database: str) -> int:
        """How many scores a database has."""
        rows = self.ask("SELECT count(threshold) FROM headrace_score", database)
        return int(rows[0][1]) if rows else 0


class Place(Topic):
    """A topic whose worker writes to ``database`` (None: no InfluxDB), thinned or not."""

    def __init__(
        self,
        bootstrap: str,
        folder: Path,
        artifact: Path,
        *,
        scores: bool = False,
        database: Database | None = None,
        thinned: bool = False,
    ) -> None:
        super().__init__(bootstrap, folder, artifact, scores=scores)
        self._database = database
        if thinned:
            with self.plan.open("a", encoding="utf-8") as file:
                file.write(f"[thinning]\nevery_s = {_EVERY_S}\n")
        if database:
            database.ask(f'CREATE DATABASE "{self.name}"')
        self.points = 0  # that the database must have
        self._each = 0 if not database else _ROWS * _ASSETS // (_EVERY_S if thinned else 1)

    def environment(self) -> dict[str, str]:
        """What a worker on this topic is given."""
        held = super().environment()
        if self._database:
            held |= {"HEADRACE_INFLUX_URL": self._database.url, "HEADRACE_INFLUX_BUCKET": self.name}
        return held

    def warmed(self) -> None:
        """Note how many points there are before the first round. Raises ``Lost`` if they do not come to an end."""
        seen = [0]
        deadline = time.monotonic() + 60.0
        while self._database and (not seen[-1] or len(set(seen[-_STEADY:])) > 1):
            if time.monotonic() > deadline:
                raise Lost(f"no end of the first points in InfluxDB: {seen}")
            time.sleep(_SETTLE_S)
            seen.append(self._database.points(self.name))
        self.points = seen[-1]

    def expect_written(self) -> None:
        """Wait until a round's points are in the database. Raises ``Lost`` if they do not come."""
        if not self._database:
            return
        self.points += self._each
        deadline = time.monotonic() + 60.0
        while (found := self._database.points(self.name)) < self.points and time.monotonic() < deadline:
            time.sleep(0.1)
        if found != self.points:
            raise Lost(f"{found:,} points in InfluxDB where {self.points:,} should be")


def measure(wanted: Collection[str], budget: Budget, folder: Path, bootstrap: str) -> dict[str, Measured]:
    """Measure what ``wanted`` asks for."""
    missing = [program for program in ("influxd", "nginx") if shutil.which(program) is None]
    if missing:
        return dict.fromkeys(wanted, Measured(None, f"needs {' and '.join(missing)}"))
    artifact = write_artifact(folder / "lstm32", units=32)
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(_database(folder))
        places = {
            "none": Place(bootstrap, folder, artifact),
            "alerts": Place(bootstrap, folder, artifact),
            "thinned": Place(bootstrap, folder, artifact, database=database, thinned=True),
            "all": Place(bootstrap, folder, artifact, database=database),
            "scores": Place(bootstrap, folder, artifact, scores=True),
            "scores thinned": Place(bootstrap, folder, artifact, scores=True, thinned=True),
        }
        jobs: dict[str, Callable[[], Cost]] = {}
        for name, place in places.items():
            variant = stack.enter_context(Variant("sinkless" if name == "none" else "worker", place))
            fleet = Fleet(_ASSETS)
            variant.ready()
            variant.round(fleet.payloads(_WARM), readings=_WARM * _ASSETS, scores=None)
            place.warmed()
            jobs[name] = _turn(variant, place, fleet)
        for job in jobs.values():  # once more for what the first full load compiles and allocates
            job()
        compared = {name: jobs[name] for name in ("none", "thinned")}
        costs, rounds = interleave(compared, budget)
        # the others only stand in the note, and take most of the time
        costs |= interleave({name: job for name, job in jobs.items() if name not in compared}, Budget(_BESIDE))[0]
    share = 1.0 - ratio(costs, "none", "thinned").cpu_s
    us = {name: 1e6 * middle(held).cpu_s for name, held in costs.items()}
    note = (
        f"CPU a reading: {us['thinned']:.2f} us, without sinks {us['none']:.2f}, with alerts and metrics alone "
        f"{us['alerts']:.2f}; unthinned {us['all']:.2f}; with the scores topic in place of InfluxDB "
        f"{us['scores']:.2f}, thinned {us['scores thinned']:.2f}; {rounds} rounds, of the others {_BESIDE}"
    )
    return {"sinks_share": Measured(share, note)}


def _turn(variant: Variant, place: Place, fleet: Fleet) -> Callable[[], Cost]:
    """A round: the cost of one reading until all that came of it is written."""

    def turn() -> Cost:
        payloads = fleet.payloads(_ROWS)
        cpu = cpu_s(variant.pid)
        readings = _ROWS * _ASSETS
        cost = variant.round(payloads, readings=readings, scores=readings)
        time.sleep(_SETTLE_S)
        place.expect_written()
        return Cost(cpu_s(variant.pid) - cpu, cost.wall_s).per(readings)

    return turn


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[Database]:
    """InfluxDB, and nginx before it; both end with us."""
    home = folder / "influxdb"
    home.mkdir()
    port, rpc, proxy = (_free_port() for _ in range(3))
    (home / "influxdb.conf").write_text(_INFLUXDB.format(folder=home, port=port, rpc=rpc), encoding="utf-8")
    (home / "nginx.conf").write_text(_NGINX.format(folder=home, port=port, proxy=proxy), encoding="utf-8")
    commands = {
        "influxd": ["run", "-config", str(home / "influxdb.conf")],
        "nginx": ["-p", str(home), "-c", str(home / "nginx.conf"), "-e", "stderr"],
    }
    processes = []
    database = Database(port, proxy)
    try:
        for name, options in commands.items():
            log = home / f"{name}.log"
            processes.append(start_guarded([str(shutil.which(name)), *options], log=log, folder=home))
        deadline = time.monotonic() + 30.0
        while True:
            try:
                database.ask("SHOW DATABASES")
                socket.create_connection(("127.0.0.1", proxy), timeout=1.0).close()
                break
            except (OSError, urllib.error.URLError):
                if time.monotonic() > deadline:
                    raise Lost(f"InfluxDB does not answer:\n{tail(home / 'influxd.log')}") from None
                time.sleep(0.1)
        yield database
    finally:
        for process in processes:
            stop_guarded(process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
