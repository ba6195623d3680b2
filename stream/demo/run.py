"""``headrace demo``: all of it on one machine with an embedded broker, and at its end what was found of the faults."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from kafka import KafkaConsumer, TopicPartition
from rich.console import Console
from rich.panel import Panel

from models.evaluate import Event
from stream.broker import EmbeddedBroker
from stream.commands.console import bar
from stream.commands.train import train_plan
from stream.demo import camera as station
from stream.demo.camera import Camera, train_camera
from stream.demo.feed import Feed
from stream.demo.scenario import Scenario, recorded, simulated
from stream.demo.screen import AlertBoard, summary
from stream.demo.worker_process import WorkerProcess
from stream.errors import StreamError
from stream.guard import tail
from stream.plan import Plan, load_plan
from stream.report.outcome import Outcome, courses_of_topic, incidents_of
from stream.report.page import picture, write_outcome
from stream.report.wording import duration
from stream.settings import KafkaSettings
from stream.topics import ensure_topics

#: The live part is paced to last about so long, so that alerts can be watched as they open and resolve.
LIVE_S: Final = 40.0
_PARTITIONS: Final = 4
#: The camera's plan, beside the plant's.
_PICTURES_PLAN: Final = "pictures.toml"
_QUIET_S: Final = 1.0  # no alert for so long after the last reading was judged: nothing more comes
_STALLED_S: Final = 60.0
_SESSION_S: Final = 6.0  # the embedded broker lets a group begin after half of it


def run_demo(
    data: Path | None = None,
    *,
    seed: int = 7,
    output: Path = Path("demo-output"),
    stay: bool = False,
    live_s: float = LIVE_S,
    console: Console | None = None,
) -> int:
    """Show Headrace at work; returns the exit status: 0 if faults were found and the worker ended well, else 1.

    data     recordings (a file or a folder) in place of the simulated plant
    output   folder for the plan, the artifacts, logs and the report
    stay     keep everything up at the end, until Ctrl-C
    live_s   how long the live part is to last; 0: as fast as it goes

    Ctrl-C and SIGTERM end it at any moment with nothing left behind, with the status 130 or 143. Raises ``StreamError``
    or ``ModelError`` with what to do.
    """
    console = console or Console(highlight=False)
    started = time.monotonic()
    with _stoppable():
        try:
            return _run(data, seed=seed, output=output, stay=stay, live_s=live_s, console=console, started=started)
        except KeyboardInterrupt:
            console.print("\nstopped")
            return 130


def _run(
    data: Path | None, *, seed: int, output: Path, stay: bool, live_s: float, console: Console, started: float
) -> int:
    scenario = simulated(seed) if data is None else recorded(data)
    plan = _prepare(scenario, output)
    camera = None if data is not None else Camera.simulated(seed, *scenario.live_ms)
    pictures = None if camera is None else _prepare_camera(output)
    console.print(_banner(scenario, plan, output))

    console.rule("[bold]1  train", align="left")
    with _native_noise_to(output / "logs" / "training.log"):
        trained = train_plan(plan, scenario.history, seed=seed, console=console)
        if pictures is not None:
            with bar(console) as shown:
                task = shown.add_task("the camera's inspector", total=1, note="")
                train_camera(
                    pictures, seed=seed,
                    progress=lambda done, total, note: shown.update(task, completed=done, total=total, note=note),
                )  # fmt: skip
    console.print(
        f"{len(trained)} models trained on clean history"
        f"{' and 1 on pictures' if pictures is not None else ''}, in {output / 'artifacts'}"
    )

    console.rule("[bold]2  start", align="left")
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(output / "logs"))
        kafka = _settings(broker.bootstrap)
        ensure_topics(kafka, plan.topics)
        console.print(f"broker at {broker.bootstrap}, topic {plan.topics.readings} with {_PARTITIONS} partitions")
        worker = stack.enter_context(
            WorkerProcess(output / "headrace.toml", _environment(broker.bootstrap), output / "logs" / "worker.log")
        )
        inspecting = None
        if pictures is not None:
            ensure_topics(kafka, pictures.topics)
            inspecting = stack.enter_context(
                WorkerProcess(
                    output / _PICTURES_PLAN,
                    {**_environment(broker.bootstrap), "HEADRACE_KAFKA_GROUP": station.GROUP},
                    output / "logs" / "pictures-worker.log",
                )
            )
        with console.status("the workers load their models and join their groups"):
            for process in filter(None, (worker, inspecting)):
                process.wait_until_ready()
        console.print(f"worker ready; its live page: [bold]{worker.url}/[/]  (metrics at {worker.url}/metrics)")
        if camera is not None and pictures is not None:
            console.print(
                f"a worker for the {len(camera.pictures)} pictures of {station.ASSET} on {pictures.topics.readings}"
            )

        console.rule("[bold]3  watch", align="left")
        seen = None if camera is None or pictures is None or inspecting is None else _Seen(camera, pictures, inspecting)
        board, facts = _watch(scenario, plan, kafka, worker, seen, live_s, console)

        console.rule("[bold]4  judge", align="left")
        with console.status("reading the scores back and drawing the report"):
            outcome = Outcome(
                title=scenario.title,
                recordings=scenario.live,
                faults=scenario.faults,
                incidents=incidents_of(alert for alert in board.alerts if alert.asset != station.ASSET),
                courses=courses_of_topic(_payloads(kafka, plan.topics.scores, worker)),
                units=scenario.units,
                facts=facts,
                sightings=[] if camera is None else camera.sightings(board.alerts),
                grace_s=scenario.grace_s,
            )
            matching = outcome.matching()
            write_outcome(output / "report.html", outcome)
            if matching.found:
                picture(output / "fault.png", outcome)
        console.print(summary(outcome, matching))
        console.print(
            f"\nreport   {output / 'report.html'}\nalerts   topic {plan.topics.alerts} of {broker.bootstrap}, "
            f"scores {plan.topics.scores}\nplan     {output / 'headrace.toml'}"
            f"{'' if camera is None else f' and {_PICTURES_PLAN}'}\nlogs     {output / 'logs'}"
        )
        if stay:
            _stay(console, broker.bootstrap, worker, output)
        ended = {process: process.stop() for process in (worker, inspecting) if process is not None}
    statuses = " and ".join(str(status) for status in ended.values())
    console.print(
        f"worker{'s' if len(ended) > 1 else ''} ended with {statuses}; {duration(time.monotonic() - started)} in all"
    )
    status = next((status for status in ended.values() if status), 0)
    for process in (process for process, own in ended.items() if own):
        console.print(f"[red]the worker should have ended with 0; see {process.log}")
    if scenario.faults and not matching.found:
        console.print("[red]no fault was found")
    return int(bool(status) or bool(scenario.faults and not matching.found))


def _prepare(scenario: Scenario, output: Path) -> Plan:
    """Write the plan into ``output``; artifacts and logs of an earlier demo go."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "headrace.toml"
    if not path.exists() and any(output.iterdir()):
        raise StreamError(f"{output} holds something else than a demo's output: name another folder with --output")
    for folder in ("artifacts", "logs"):
        shutil.rmtree(output / folder, ignore_errors=True)
    for name in ("report.html", "fault.png", _PICTURES_PLAN):
        (output / name).unlink(missing_ok=True)
    (output / "logs").mkdir()
    path.write_text(scenario.plan(), encoding="utf-8")
    return load_plan(path)


def _prepare_camera(output: Path) -> Plan:
    """Write the camera's plan."""
    path = output / _PICTURES_PLAN
    path.write_text(station.PLAN, encoding="utf-8")
    return load_plan(path)


def _banner(scenario: Scenario, plan: Plan, output: Path) -> Panel:
    assets = len(scenario.live)
    faults: list[Event] = list(scenario.faults)
    text = (
        f"{scenario.title}: {assets} assets, {scenario.readings:,} readings, {len(faults)} labelled faults on "
        f"{len({fault.asset for fault in faults})} assets.\n"
        f"1  train {len(plan.detectors)} detectors on clean history   2  start broker and worker   "
        "3  stream the live part, show alerts\n4  compare alerts with the faults, write a report to "
        f"{output / 'report.html'}. Ctrl-C ends it at any moment."
    )
    return Panel(text, title="Headrace demo", title_align="left", border_style="cyan")


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A camera, its plan, and the worker that looks at what it sends."""

    camera: Camera
    plan: Plan
    worker: WorkerProcess

    def send(self, kafka: KafkaSettings, speed: float | None) -> None:
        """Send every picture."""
        self.camera.send(kafka, self.plan.topics.readings, speed)

    def done(self) -> bool:
        """Whether every picture is judged. Raises ``StreamError`` if its worker has ended."""
        self.worker.check()
        return self.worker.metrics().get("headrace_records_total", 0.0) >= len(self.camera.pictures)


def _watch(
    scenario: Scenario,
    plan: Plan,
    kafka: KafkaSettings,
    worker: WorkerProcess,
    seen: _Seen | None,
    live_s: float,
    console: Console,
) -> tuple[AlertBoard, dict[str, str]]:
    """Stream the live part and show alerts until all is judged. Raises what goes wrong on the way."""
    speed = scenario.duration_s / live_s if live_s > 0 else None
    feed = Feed(kafka, plan.topics, scenario.live, speed, None if seen is None else lambda: seen.send(kafka, speed))
    pace = f", {speed:,.0f} times as fast as the plant" if speed else ""
    metrics: dict[str, float] = {}
    judged, rate = 0.0, 0.0
    pictures_done = seen is None
    began = moved = time.monotonic()
    with AlertBoard(console, scenario.readings) as board:
        feed.start()
        try:
            while judged < scenario.readings or not pictures_done or time.monotonic() - moved < _QUIET_S:
                time.sleep(0.15)
                worker.check()
                for alert in feed.alerts():
                    board.show(alert)
                    moved = time.monotonic()
                metrics = worker.metrics() or metrics
                before, judged = judged, metrics.get("headrace_records_total", 0.0)
                pictures_done = pictures_done or (seen is not None and seen.done())
                if judged > before:
                    moved = time.monotonic()
                    rate = judged / (moved - began)
                elif time.monotonic() - moved > _STALLED_S:
                    raise StreamError(
                        f"the worker judged {judged:,.0f} of {feed.sent:,} readings sent and no more for "
                        f"{_STALLED_S:.0f} s; {worker.log}:\n{tail(worker.log)}"
                    )
                board.progress(feed.sent, int(judged), f"{rate:,.0f} readings a second{pace}")
        finally:
            feed.stop()
    return board, _facts(metrics, rate)


def _facts(metrics: dict[str, float], rate: float) -> dict[str, str]:
    """What the worker's own counters say of the run."""
    batches = metrics.get("headrace_produce_to_publish_seconds_count", 0.0)
    latency = metrics.get("headrace_produce_to_publish_seconds_sum", 0.0) / batches if batches else float("nan")
    lost = metrics.get("headrace_dead_letters_total", 0.0) + metrics.get("headrace_late_total", 0.0)
    return {
        "readings a second": f"{rate:,.0f}",
        "from reading to alert, mean": f"{latency * 1000:,.0f} ms" if batches else "-",
        "scores published": f"{metrics.get('headrace_scores_total', 0.0):,.0f}",
        "dead letters and late": f"{lost:,.0f}",
    }


def _payloads(kafka: KafkaSettings, topic: str, worker: WorkerProcess) -> Iterator[bytes]:
    """Read the scores topic, as many rows as the worker says it wrote: the embedded broker cannot tell its end."""
    wanted = int(worker.metrics().get("headrace_scores_total", 0.0))
    consumer = KafkaConsumer(**kafka.client_options(), enable_auto_commit=False, fetch_max_bytes=16 << 20)
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(_PARTITIONS)])
        consumer.seek_to_beginning()
        deadline = time.monotonic() + 5.0
        while wanted > 0 and time.monotonic() < deadline:
            for batch in consumer.poll(timeout_ms=500, max_records=20_000).values():
                wanted -= len(batch)
                deadline = time.monotonic() + 5.0
                yield from (record.value for record in batch)
    finally:
        consumer.close()


def _stay(console: Console, bootstrap: str, worker: WorkerProcess, output: Path) -> None:
    console.print(
        f"\n[bold]still up[/] until Ctrl-C:\n  {worker.url}/  the live page\n  {worker.url}/metrics\n"
        f"  HEADRACE_KAFKA_BOOTSTRAP={bootstrap} headrace alerts --plan {output / 'headrace.toml'} --from-start"
    )
    try:
        while True:
            worker.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("stopping")


def _settings(bootstrap: str) -> KafkaSettings:
    """Settings for the embedded broker, whatever the environment says of another one."""
    return KafkaSettings(
        bootstrap=bootstrap, security_protocol="PLAINTEXT", partitions=_PARTITIONS, session_timeout_s=_SESSION_S
    )


def _environment(bootstrap: str) -> dict[str, str]:
    return {
        "HEADRACE_KAFKA_BOOTSTRAP": bootstrap,
        "HEADRACE_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
        "HEADRACE_KAFKA_PARTITIONS": str(_PARTITIONS),
        "HEADRACE_KAFKA_SESSION_TIMEOUT_S": str(_SESSION_S),
        "HEADRACE_WORKER_LOG_LEVEL": "INFO",
    }


@contextmanager
def _native_noise_to(log: Path) -> Iterator[None]:
    """Send what native code writes to standard error to a file: TensorFlow's remarks would tear the progress bars."""
    sys.stderr.flush()
    before = os.dup(2)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C does, and Ctrl-C work where a shell has switched it off for us."""

    def stop(_: int, __: FrameType | None) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)
