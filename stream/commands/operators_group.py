"""``headrace alerts``, ``maintenance`` and ``mode`` on the command line; what they do is in ``operators``."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stream.commands.options import examples, explained, plan


def operators_groups(main: click.Group) -> None:
    """Add what operators use to ``main``, with its options and explanations."""
    _follow_and_read(main)
    _maintenance(main)


_BY = click.option("--by", default=getpass.getuser, show_default="your user name", help="Who does it.")
_COMMENT = click.option("--comment", default="", help="Why, in your words, for the alert's history.")
_WAIT = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=15.0,
    show_default=True,
    help="Seconds to wait for a worker's answer.",
)
_ALERT = click.argument("alert")


def _follow_and_read(main: click.Group) -> None:
    def following(function: Any) -> Any:
        for option in (
            click.option("--until-end", is_flag=True, help="Stop at the end of the topic instead of waiting for more."),
            click.option("--from-start", is_flag=True, help="Begin with the oldest alert that the topic still has."),
            click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as on the topic."),
            click.option("--topic", help="The alert topic; default: the plan's, or plant.alerts.v1."),
            plan,
        ):
            function = option(function)
        return function

    def run_follow(plan_path: Path, topic: str | None, as_json: bool, from_start: bool, until_end: bool) -> None:
        from stream.commands.console import alert_line  # noqa: PLC0415 (help must not wait for imports)
        from stream.follow import follow  # noqa: PLC0415
        from stream.plan import TopicSettings, load_plan  # noqa: PLC0415
        from stream.records import to_json  # noqa: PLC0415
        from stream.settings import KafkaSettings, from_environment  # noqa: PLC0415

        topics = load_plan(plan_path).topics if plan_path.exists() else TopicSettings()
        kafka = from_environment(KafkaSettings)
        for alert in follow(kafka, topic or topics.alerts, from_start=from_start or until_end, until_end=until_end):
            if alert is not None:
                click.echo(to_json(alert).decode() if as_json else alert_line(alert))

    @main.group(invoke_without_command=True)
    @following
    @click.pass_context
    @explained
    @examples("""
headrace alerts
headrace alerts --from-start --until-end --json | jq .asset
headrace alerts list
headrace alerts ack 3fa9 --comment "on my way"
headrace alerts shelve 3fa9 --for 2h --comment "spare part is ordered"
headrace alerts label 3fa9 false_alarm --comment "filter was cleaned"
headrace alerts history 3fa9
""")
    def alerts(context: click.Context, /, **options: Any) -> None:
        """Follow the alert topic, or act on an alert; an alert is named by the beginning of its id."""
        if context.invoked_subcommand is None:
            run_follow(**options)

    @alerts.command("follow")
    @following
    @explained
    @examples("headrace alerts follow --from-start")
    def _follow(**options: Any) -> None:
        """Follow the alert topic, as `headrace alerts` does."""
        run_follow(**options)

    @alerts.command("list")
    @plan
    @click.option("--all", "everything", is_flag=True, help="Resolved ones as well.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as on the topic.")
    @explained
    @examples("headrace alerts list --all")
    def _list(plan_path: Path, everything: bool, as_json: bool) -> None:
        """Show the alerts that are open, with their ids and what was done about them."""
        from stream.commands.operators import run_list  # noqa: PLC0415

        run_list(plan_path, everything=everything, as_json=as_json)

    @alerts.command("history")
    @_ALERT
    @plan
    @click.option("--json", "as_json", is_flag=True, help="One JSON object.")
    @explained
    @examples("headrace alerts history 3fa9")
    def _history(alert: str, plan_path: Path, as_json: bool) -> None:
        """Show everything that happened to an alert: what the readings did, what people did, who and when."""
        from stream.commands.operators import run_history  # noqa: PLC0415

        run_history(plan_path, alert, as_json=as_json)

    _actions(alerts)


def _actions(alerts: click.Group) -> None:
    def add(name: Any, text: str, example: str, *options: Callable[[Any], Any]) -> None:
        def run(alert: str, plan_path: Path, by: str, comment: str, wait_s: float, for_: str | None = None) -> None:
            from stream.commands.operators import run_action  # noqa: PLC0415

            sys.exit(run_action(plan_path, alert, name, by=by, comment=comment, wait_s=wait_s, for_=for_))

        run.__doc__ = text
        command = examples(example)(run)
        command = explained(command)
        for option in (*options, _WAIT, _COMMENT, _BY, plan, _ALERT):
            command = option(command)
        alerts.command(name)(command)

    add("ack", "Acknowledge an alert: somebody sees to it. It does not alarm again.", "headrace alerts ack 3fa9")
    add(
        "shelve",
        "Put an alert aside: it goes on being scored, and nobody is told until the time is over.",
        "headrace alerts shelve 3fa9 --for 2h",
        click.option("--for", "for_", required=True, metavar="TIME", help="How long: 90s, 30m, 2h or 1d."),
    )
    add("unshelve", "Take an alert off the shelf: people are told of it again.", "headrace alerts unshelve 3fa9")
    add(
        "resolve",
        "End an alert. The next one begins only when the score has once been below the lower bound.",
        "headrace alerts resolve 3fa9 --comment 'bearing changed'",
    )

    @alerts.command("label")
    @click.argument("alert")
    @click.argument("verdict", type=click.Choice(["true", "false_alarm"]), default="true")
    @plan
    @_BY
    @_COMMENT
    @_WAIT
    @click.option("--fault", default="", help="Which fault, in a word of the plant's; for true.")
    @click.option("--since", help="With --until, ALERT is an asset: label this stretch of it.")
    @click.option("--until", help="The stretch's end, e.g. 2026-11-25T08:00:00Z.")
    @click.option("--take-back", is_flag=True, help="The label of the alert holds no longer.")
    @explained
    @examples("""
headrace alerts label 3fa9 false_alarm --comment "filter was cleaned"
headrace alerts label 3fa9 true --fault bearing
headrace alerts label 3fa9 --take-back
headrace alerts label pump-17 true --fault cavitation --since 2026-11-25T06:00:00Z --until 2026-11-25T07:30:00Z
""")
    def _label(
        alert: str,
        verdict: str,
        plan_path: Path,
        by: str,
        comment: str,
        wait_s: float,
        fault: str,
        since: str | None,
        until: str | None,
        take_back: bool,
    ) -> None:
        """Say what an alert was: a fault, or a false alarm. The detector's threshold for the asset moves at once."""
        from stream.commands.operators import run_label, run_label_stretch  # noqa: PLC0415

        if bool(since) != bool(until):
            raise click.UsageError("--since and --until go together")
        if since and until:
            run_label_stretch(plan_path, alert, verdict, since=since, until=until, by=by, comment=comment, fault=fault)
            return
        sys.exit(
            run_label(
                plan_path, alert, verdict, by=by, comment=comment, fault=fault, wait_s=wait_s, take_back=take_back
            )
        )


def _maintenance(main: click.Group) -> None:
    @main.group()
    def maintenance() -> None:
        """Maintenance windows: alerts open in them all the same, are marked, and nobody is told."""

    @maintenance.command("start")
    @click.argument("assets")
    @plan
    @click.option("--for", "for_", metavar="TIME", help="How long: 90s, 30m, 2h or 1d; default: until it is stopped.")
    @click.option("--since", help="Begin at this time of the readings; default: at once.")
    @click.option("--until", help="End at this time of the readings, e.g. 2026-11-25T08:00:00Z.")
    @_BY
    @_COMMENT
    @explained
    @examples("""
headrace maintenance start pump-17 --for 2h --comment "seal is changed"
headrace maintenance start 'line-3-*' --since 2026-11-28T06:00:00Z --until 2026-11-28T14:00:00Z
""")
    def _start(
        assets: str, plan_path: Path, for_: str | None, since: str | None, until: str | None, by: str, comment: str
    ) -> None:
        """Begin a window for the assets of a pattern."""
        from stream.commands.operators import run_maintenance_start  # noqa: PLC0415

        run_maintenance_start(plan_path, assets, for_=for_, since=since, until=until, by=by, comment=comment)

    @maintenance.command("stop")
    @click.argument("assets")
    @plan
    @_BY
    @_COMMENT
    @explained
    @examples("headrace maintenance stop pump-17")
    def _stop(assets: str, plan_path: Path, by: str, comment: str) -> None:
        """End the window that was begun with this pattern."""
        from stream.commands.operators import run_maintenance_stop  # noqa: PLC0415

        run_maintenance_stop(plan_path, assets, by=by, comment=comment)

    @maintenance.command("list")
    @plan
    @explained
    @examples("headrace maintenance list")
    def _list(plan_path: Path) -> None:
        """Show the windows of the plan, and those that operators have begun."""
        from stream.commands.operators import run_maintenance_list  # noqa: PLC0415

        run_maintenance_list(plan_path)

    @main.command("incidents")
    @plan
    @click.option("--all", "everything", is_flag=True, help="Those that are over as well.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    @explained
    @examples("headrace incidents --all")
    def _incidents(plan_path: Path, everything: bool, as_json: bool) -> None:
        """Show alerts of one line ([lines]) that came together as one incident, with where to look first."""
        from stream.commands.operators import run_incidents  # noqa: PLC0415

        run_incidents(plan_path, everything=everything, as_json=as_json)

    @main.command("mode")
    @click.argument("assets")
    @click.argument("name", required=False)
    @plan
    @click.option("--clear", is_flag=True, help="The assets are in no mode.")
    @_BY
    @_COMMENT
    @explained
    @examples("""
headrace mode 'pump-*' startup
headrace mode 'pump-*' --clear
""")
    def _mode(assets: str, name: str | None, plan_path: Path, clear: bool, by: str, comment: str) -> None:
        """Say which operating mode of the plan ([modes]) assets are in, from now on."""
        from stream.commands.operators import run_mode  # noqa: PLC0415

        if clear == (name is not None):
            raise click.UsageError("name the mode, or --clear")
        run_mode(plan_path, assets, name or "", by=by, comment=comment)
