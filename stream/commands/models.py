"""``headrace models``: versions of models; what serves, what is a candidate, and what speaks for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from models.datasets import read
from models.errors import StoreError
from models.signing import Signer, keygen
from models.store import Action, Decision, Store
from stream.commands.console import exam_table, plain
from stream.comparing import Measured, correlation, measure
from stream.errors import ConfigError
from stream.orders import Message, order_of, send
from stream.plan import Plan, load_plan
from stream.reader import read_records
from stream.settings import KafkaSettings, ModelsSettings, from_environment


def _opened(plan_path: Path, detector: str | None = None) -> tuple[Plan, Store, ModelsSettings]:
    plan, settings = load_plan(plan_path), from_environment(ModelsSettings)
    if detector is not None:
        if detector not in plan.detectors:
            raise ConfigError(f"{detector}: the plan has {', '.join(plan.detectors)}")
        if not plan.detectors[detector].is_stored:
            raise ConfigError(
                f'detectors.{detector}.artifact: a plain folder has no versions; write artifact = "store:" and train'
            )
    return plan, plan.open_store(settings.verifier()), settings


def run_list(plan_path: Path, *, as_json: bool) -> None:
    """One row for each version of each of the plan's detectors."""
    plan, store, _ = _opened(plan_path)
    rows = []
    for name, settings in plan.detectors.items():
        if not settings.is_stored:
            continue
        model = plan.stored(name)
        now = store.now(model)
        for version in store.versions(model):
            origin = store.origin(model, version)
            role = "serves" if version == now.serving else "candidate" if version == now.candidate else ""
            rows.append({"detector": name, "version": version, "role": role, **origin})
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    table = Table("detector", "version", "", "made", "by", "why", box=None)
    for row in rows:
        table.add_row(*(plain(str(row.get(key, ""))) for key in ("detector", "version", "role", "at", "by", "why")))
    Console().print(table if rows else f"nothing in {store.url}: headrace train puts something there")


def run_show(plan_path: Path, detector: str, version: str | None, *, as_json: bool) -> None:
    """A version's origin and figures, and the model's history."""
    plan, store, _ = _opened(plan_path, detector)
    model = plan.stored(detector)
    chosen = store.find(model, version) if version else store.now(model).serving
    if not chosen:
        raise StoreError(
            f"{detector}: nothing serves yet; name a version of {', '.join(store.versions(model)) or 'none'}"
        )
    held = store.load(model, chosen)
    manifest = held.manifest
    rate = plan.detectors[detector].false_alarms_per_day
    told: dict[str, Any] = {
        "version": chosen,
        "kind": manifest.detector,
        "signals": list(manifest.signals),
        "rows": dict(manifest.rows),
        "assets": len(manifest.assets),
        "from_ms": manifest.from_ms,
        "to_ms": manifest.to_ms,
        "threshold": held.threshold(rate),
        "origin": store.origin(model, chosen),
    }
    history = [asdict(decision) for decision in store.history(model)]
    if as_json:
        click.echo(json.dumps({**told, "history": history}))
        return
    console = Console()
    exam = told["origin"].pop("exam", None)
    table = Table(show_header=False, box=None)
    for key, value in told.items():
        table.add_row(key, plain(", ".join(value) if isinstance(value, list) else str(value)))
    console.print(table)
    if isinstance(exam, dict):
        console.print(exam_table(exam))
    past = Table("when", "who", "what", "serves", "candidate", "why", box=None, title="History")
    for held_row in history:
        past.add_row(*(plain(str(held_row[key])) for key in ("at", "by", "action", "serving", "candidate", "why")))
    console.print(past)


def run_compare(
    plan_path: Path,
    detector: str,
    versions: Sequence[str],
    data: Sequence[Path],
    *,
    live: bool,
    as_json: bool,
    time_column: str | None = None,
    asset_column: str | None = None,
) -> None:
    """Two versions on the same recordings, or what the workers say of serving and candidate (``live``)."""
    plan, store, _ = _opened(plan_path, detector)
    if live:
        _show_live(plan, detector, store.now(plan.stored(detector)), as_json=as_json)
        return
    model = plan.stored(detector)
    now = store.now(model)
    chosen = [store.find(model, version) for version in versions] or [now.serving, now.candidate]
    if len(chosen) != 2 or not all(chosen):
        raise ConfigError(f"{detector}: there is no candidate beside what serves: name two versions")
    recordings = [held for path in data for held in read(path, time_column=time_column, asset_column=asset_column)]
    measured = [measure(plan, detector, store.load(model, version), recordings) for version in chosen]
    alike = correlation(*measured)
    if as_json:
        click.echo(json.dumps({"versions": [_told(held) for held in measured], "correlation": _plain(alike)}))
        return
    table = Table(
        "version", "threshold", "alarms", "false alarms a day", "labelled faults found", "precision", box=None
    )
    for held in measured:
        told = _told(held)
        table.add_row(
            held.version,
            f"{held.threshold:.4g}",
            str(told["alarms"]),
            _figure(told["false_alarms_per_day"]),
            f"{told['found']} of {told['faults']}",
            _figure(told["precision"]),
        )
    console = Console()
    console.print(table)
    console.print(f"correlation of the scores, on {len(measured[0].keys)} readings: {_figure(_plain(alike))}")


def _told(held: Measured) -> dict[str, Any]:
    matching = held.matching
    return {
        "version": held.version,
        "threshold": held.threshold,
        "alarms": matching.alarms,
        "false_alarms_per_day": _plain(matching.false_alarms_per_day),
        "faults": matching.faults,
        "found": len(matching.found),
        "precision": _plain(matching.precision),
        "readings": len(held.keys),
    }


def _plain(number: float) -> float | None:
    return None if number != number else number


def _figure(number: float | None) -> str:
    return "-" if number is None else f"{number:.3g}"


def reports(plan: Plan, detector: str, action: str) -> list[Message]:
    """The newest report of each partition, or worker, on a detector. Raises ``BrokerError``."""
    import msgspec  # noqa: PLC0415

    found: dict[str, Message] = {}
    for batch in read_records(from_environment(KafkaSettings), plan.topics.models):
        for record in batch:
            try:
                message = msgspec.json.decode(record.value or b"", type=Message)
            except msgspec.DecodeError:
                continue  # the workers have dead-lettered it
            if message.detector == detector and message.action == action:
                found[message.key()] = message
    return list(found.values())


def _show_live(plan: Plan, detector: str, now: Decision, *, as_json: bool) -> None:
    told = [
        report
        for report in reports(plan, detector, "compared")
        if (report.serving, report.candidate) == (now.serving, now.candidate) and report.comparison is not None
    ]
    if as_json:
        import msgspec  # noqa: PLC0415

        for report in told:
            click.echo(msgspec.json.encode(report).decode())
        return
    if not told:
        raise ConfigError(
            f"{detector}: no worker has compared {now.serving or 'nothing'} with {now.candidate or 'nothing'} yet; "
            f"headrace models shadow begins it"
        )
    table = Table("partition", "readings", "over: serving", "candidate", "both", "begun: serving", "candidate",
                  "correlation", "cost", box=None)  # fmt: skip
    for report in told:
        held = report.comparison
        assert held is not None  # noqa: S101 (chosen above)
        table.add_row(
            str(report.partition),
            *(str(n) for n in (held.readings, held.over_serving, held.over_candidate, held.over_both)),
            str(held.begun_serving),
            str(held.begun_candidate),
            _figure(held.correlation),
            f"{held.cost:.2f}",
        )
    Console().print(table)


def run_shadow(plan_path: Path, detector: str, version: str | None, *, why: str, drop: bool, notify: bool) -> None:
    """Let a version score beside what serves; its scores are no alerts. ``drop`` ends that."""
    plan, store, settings = _opened(plan_path, detector)
    model = plan.stored(detector)
    chosen = "" if drop else store.find(model, version or store.now(model).candidate)
    if chosen:
        store.load(model, chosen)  # a bad one is refused here already
        if chosen == store.now(model).serving:
            raise ConfigError(f"{detector}: {chosen} serves already")
    _decide(
        plan, store, detector, "drop" if drop else "shadow", candidate=chosen, why=why, by=settings.by, notify=notify
    )


def run_promote(plan_path: Path, detector: str, version: str | None, *, why: str, force: bool, notify: bool) -> None:
    """Let a version serve, the candidate by default; asks for a comparison by the workers first, unless ``force``.

    Where nothing serves there is nothing to compare with.
    """
    plan, store, settings = _opened(plan_path, detector)
    model = plan.stored(detector)
    now = store.now(model)
    chosen = store.find(model, version or now.candidate)
    if chosen == now.serving:
        raise ConfigError(f"{detector}: {chosen} serves already")
    store.load(model, chosen)
    if now.serving and not force:
        told = [
            held for held in reports(plan, detector, "compared")
            if (held.serving, held.candidate) == (now.serving, chosen) and held.comparison and held.comparison.readings
        ]  # fmt: skip
        if not told:
            raise ConfigError(
                f"{detector}: {chosen} has not been compared with {now.serving} on the readings that come; "
                f"headrace models shadow {detector} {chosen} begins it, and --force does without"
            )
    _decide(plan, store, detector, "promote", serving=chosen, candidate="", why=why, by=settings.by, notify=notify)


def run_rollback(plan_path: Path, detector: str, *, why: str, notify: bool) -> None:
    """Let serve again what served before."""
    plan, store, settings = _opened(plan_path, detector)
    model = plan.stored(detector)
    chosen = store.before(model)
    store.load(model, chosen)
    _decide(plan, store, detector, "rollback", serving=chosen, candidate="", why=why, by=settings.by, notify=notify)


def run_reload(plan_path: Path, detector: str) -> None:
    """Tell the workers to look at the store again."""
    plan, store, settings = _opened(plan_path, detector)
    now = store.now(plan.stored(detector))
    message = Message(action="reload", detector=detector, serving=now.serving, candidate=now.candidate,
                      by=settings.by or now.by, at=now.at, why="reload")  # fmt: skip
    send(from_environment(KafkaSettings), plan, message)
    click.echo(f"{detector}: {now.serving or 'nothing'} serves, candidate {now.candidate or 'none'}: workers are told")


def run_sign(plan_path: Path, detector: str, version: str, key: Path | None) -> None:
    """Sign a version."""
    plan, _, settings = _opened(plan_path, detector)
    signer = Signer(key) if key is not None else settings.signer()
    if signer is None:
        raise ConfigError("no private key: name it with --key, or set HEADRACE_MODELS_PRIVATE_KEY_FILE")
    store, model = plan.open_store(), plan.stored(detector)
    chosen = store.find(model, version)
    store.sign(model, chosen, signer)
    click.echo(f"{detector} {chosen}: signed")


def run_keygen(private: Path) -> None:
    """Make a pair of keys."""
    public = keygen(private)
    click.echo(f"{private}: the private key, for whoever trains; keep it away from workers", err=True)
    click.echo(f"HEADRACE_MODELS_PUBLIC_KEY={public}")


def _decide(plan: Plan, store: Store, detector: str, action: Action, *, notify: bool, **decision: Any) -> None:
    """Write a decision to the store, and tell the workers."""
    held = store.decide(plan.stored(detector), action, **decision)
    told = "workers are told"
    if notify:
        send(from_environment(KafkaSettings), plan, order_of(detector, held))
    else:
        told = "workers see it when they start, or with: headrace models reload"
    click.echo(f"{detector}: {held.serving or 'nothing'} serves, candidate {held.candidate or 'none'}: {told}")
