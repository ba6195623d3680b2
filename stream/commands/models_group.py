"""``headrace models ...`` as the command line sees it; what each does is in ``stream.commands.models``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stream.commands.options import asset_column, examples, explained, plan, time_column


def models_group(main: click.Group) -> None:
    """Add the group ``models``, ``retrain`` and ``grow`` to ``main``, with their options and explanations."""
    _retrain(main)
    _grow(main)
    detector = click.argument("detector")
    why = click.option("--why", default="", help="In your words, for the history.")
    notify = click.option(
        "--notify/--no-notify", default=True, help="Tell the workers; else only the store is changed."
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")

    @main.group()
    def models() -> None:
        """Versions of models: what serves, what is a candidate, and what speaks for it.

        For detectors of the plan whose artifact is `store:`; the store is a folder, or a URL such as s3://bucket/models.
        """

    @models.command("list")
    @plan
    @as_json
    @explained
    @examples("headrace models list")
    def _list(plan_path: Path, as_json: bool) -> None:
        """List the versions in the store."""
        from stream.commands.models import run_list  # noqa: PLC0415

        run_list(plan_path, as_json=as_json)

    @models.command("show")
    @detector
    @click.argument("version", required=False)
    @plan
    @as_json
    @explained
    @examples("headrace models show pump-forecast\nheadrace models show pump-forecast 3f2a --json")
    def _show(detector: str, version: str | None, plan_path: Path, as_json: bool) -> None:
        """Show a version (by default what serves) and the history: who decided what, when and why."""
        from stream.commands.models import run_show  # noqa: PLC0415

        run_show(plan_path, detector, version, as_json=as_json)

    @models.command("compare")
    @detector
    @click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path))
    @click.option("--version", "versions", multiple=True, help="Two of them; by default what serves and the candidate.")
    @click.option("--live", is_flag=True, help="What the workers found on the readings that come (`models shadow`).")
    @time_column
    @asset_column
    @plan
    @as_json
    @explained
    @examples("""
headrace models compare pump-forecast last-week/*.csv
headrace models compare pump-forecast last-week/*.csv --version 3f2a --version 91bc
headrace models compare pump-forecast --live
""")
    def _compare(
        detector: str,
        data: tuple[Path, ...],
        versions: tuple[str, ...],
        live: bool,
        time_column: str | None,
        asset_column: str | None,
        plan_path: Path,
        as_json: bool,
    ) -> None:
        """Run two versions over the same recordings: false alarms, labelled faults found, how alike the scores are."""
        from stream.commands.models import run_compare  # noqa: PLC0415

        if live == bool(data):
            raise click.UsageError("name recordings that neither was trained on, or --live (one of the two)")
        run_compare(
            plan_path, detector, versions, data, live=live, as_json=as_json, time_column=time_column,
            asset_column=asset_column,
        )  # fmt: skip

    @models.command("shadow")
    @detector
    @click.argument("version", required=False)
    @click.option("--drop", is_flag=True, help="End it: no candidate any more.")
    @why
    @notify
    @plan
    @explained
    @examples("headrace models shadow pump-forecast 91bc\nheadrace models shadow pump-forecast --drop")
    def _shadow(detector: str, version: str | None, drop: bool, why: str, notify: bool, plan_path: Path) -> None:
        """Let a version score beside what serves, on the readings that come; its scores are no alerts."""
        from stream.commands.models import run_shadow  # noqa: PLC0415

        run_shadow(plan_path, detector, version, why=why, drop=drop, notify=notify)

    @models.command("promote")
    @detector
    @click.argument("version", required=False)
    @click.option("--force", is_flag=True, help="Though it was not compared with what serves.")
    @why
    @notify
    @plan
    @explained
    @examples("headrace models promote pump-forecast 91bc --why 'fewer false alarms at start-up'")
    def _promote(detector: str, version: str | None, force: bool, why: str, notify: bool, plan_path: Path) -> None:
        """Let a version serve (by default the candidate), on all workers, without a restart."""
        from stream.commands.models import run_promote  # noqa: PLC0415

        run_promote(plan_path, detector, version, why=why, force=force, notify=notify)

    @models.command("rollback")
    @detector
    @why
    @notify
    @plan
    @explained
    @examples("headrace models rollback pump-forecast --why 'misses the seal leak'")
    def _rollback(detector: str, why: str, notify: bool, plan_path: Path) -> None:
        """Let serve again what served before; twice goes back two."""
        from stream.commands.models import run_rollback  # noqa: PLC0415

        run_rollback(plan_path, detector, why=why, notify=notify)

    @models.command("reload")
    @detector
    @plan
    @explained
    @examples("headrace models reload pump-forecast")
    def _reload(detector: str, plan_path: Path) -> None:
        """Tell the workers to look at the store again."""
        from stream.commands.models import run_reload  # noqa: PLC0415

        run_reload(plan_path, detector)

    @models.command("sign")
    @detector
    @click.argument("version")
    @click.option("--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The private key's file.")
    @plan
    @explained
    @examples("headrace models sign pump-forecast 91bc --key ~/headrace.pem")
    def _sign(detector: str, version: str, key: Path | None, plan_path: Path) -> None:
        """Sign a version, for workers that serve only what is signed."""
        from stream.commands.models import run_sign  # noqa: PLC0415

        run_sign(plan_path, detector, version, key)

    @models.command("keygen")
    @click.argument("private", type=click.Path(dir_okay=False, path_type=Path))
    @explained
    @examples("headrace models keygen ~/headrace.pem")
    def _keygen(private: Path) -> None:
        """Write a new private key (Ed25519) and print the public one, for the workers' environment."""
        from stream.commands.models import run_keygen  # noqa: PLC0415

        run_keygen(private)


def _retrain(main: click.Group) -> None:
    @main.command("retrain")
    @click.argument("detector")
    @click.argument("data", nargs=-1, type=click.Path(exists=True, path_type=Path))
    @plan
    @click.option(
        "--from",
        "source",
        type=click.Choice(["topic", "influxdb"]),
        default="topic",
        show_default=True,
        help="Without files: the readings topic, or what workers wrote to InfluxDB (HEADRACE_INFLUX_*).",
    )
    @click.option("--since", help="Of the topic or InfluxDB, from this time on, e.g. 2026-11-01T00:00:00Z.")
    @click.option("--until", help="Of the topic or InfluxDB, up to this time.")
    @click.option("--last", "last_s", type=click.FloatRange(min=0, min_open=True), help="The newest so many seconds.")
    @click.option(
        "--held-back",
        type=click.FloatRange(0.05, 0.5),
        default=0.25,
        show_default=True,
        help="Share of the time, the newest, to judge on and not to train on.",
    )
    @click.option("--if-drifted", is_flag=True, help="Only if scores or signals have drifted in the held-back part.")
    @click.option("--promote", is_flag=True, help="Let it serve if it is better; else it becomes a candidate.")
    @click.option(
        "--every",
        "every_s",
        type=click.FloatRange(min=0, min_open=True),
        help="Again and again, every so many seconds.",
    )
    @click.option("--notify/--no-notify", default=True, help="Tell the workers; else only the store is changed.")
    @click.option("--seed", default=0, show_default=True)
    @time_column
    @asset_column
    @click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
    @explained
    @examples("""
headrace retrain pump-forecast --since 2026-11-01T00:00:00Z
headrace retrain pump-forecast last-month/*.csv --promote
headrace retrain pump-forecast --from influxdb --since 2026-06-01T00:00:00Z
headrace retrain pump-forecast --last 2592000 --if-drifted --promote --every 86400
""")
    def _run(
        detector: str, data: tuple[Path, ...], plan_path: Path, every_s: float | None, as_json: bool, **wish: Any
    ) -> None:
        """Train a detector anew on what has come since, and judge it against what serves.

        Left out is what labels call a fault and everything while an alert was open; what they call a false alarm is
        learnt as normal. It is better if it finds no fewer labelled faults, raises no more labelled false alarms and no
        more false alarms on the held-back readings, and does better in one of these.

        A fault_classifier learns the faults that labels name, once five incidents of each of two faults are labelled,
        and is better if its alerts name more of the newest incidents, which are kept back. --if-drifted: only if there
        is a labelled fault that was not there the last time.
        """
        from stream.commands.retrain import Wish, run_retrain  # noqa: PLC0415

        if data and wish["source"] == "influxdb":
            raise click.UsageError("name files, or --from influxdb (one of the two)")
        run_retrain(plan_path, detector, Wish(data=data, **wish), every_s=every_s, as_json=as_json)


def _grow(main: click.Group) -> None:
    @main.command("grow")
    @click.argument("detector")
    @plan
    @click.option("--seed", default=0, show_default=True)
    @click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
    @click.option("--background", is_flag=True, hidden=True)
    @explained
    @examples("headrace grow pumps")
    def _run(detector: str, plan_path: Path, seed: int, as_json: bool, background: bool) -> None:
        """Train a model for a detector that began without history (`begins_as`), and let it serve if it is better.

        It learns from the readings topic, without what was alarmed, and is examined beside what serves: false alarms on
        held-back readings, and faults that are made up. Workers do so by themselves (HEADRACE_WORKER_GROW_AFTER_S).
        """
        from stream.commands.grow import run_grow  # noqa: PLC0415

        run_grow(plan_path, detector, as_json=as_json, seed=seed, background=background)
