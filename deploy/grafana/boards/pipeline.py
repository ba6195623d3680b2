"""Pipeline: whether the workers keep up, how long a reading takes, what is refused, and what the sinks do."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from boards import panels
from boards.queries import PROMETHEUS, choice, promql, sources

_JOB = 'job=~"$job", instance=~"$instance"'
_MINE = f"{{{_JOB}}}"
_RATE = "[$__rate_interval]"


def _rate(metric: str, by: str, matchers: str = "") -> str:
    more = f", {matchers}" if matchers else ""
    return f"sum by ({by}) (rate({metric}{{{_JOB}{more}}}{_RATE}))"


def _quantile(share: float, metric: str, by: str) -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', labels)})"


def _keeping_up() -> list[Builder[model.Panel]]:
    return [
        panels.figure(
            "Workers up",
            "Workers that answer when Prometheus asks.",
            [promql('sum(up{job=~"$job"})', legend="up")],
            steps=((None, "red"), (1, "green")),
        ),
        panels.figure(
            "Readings that wait",
            "Consumer lag in records, all partitions.",
            [promql(f"sum(headrace_consumer_lag_records{_MINE})", legend="lag")],
            steps=((None, "green"), (10_000, "orange"), (1_000_000, "red")),
        ),
        panels.figure(
            "Since the last commit",
            "Of the worker that has not committed for longest. Without readings nothing is committed.",
            [promql(f"max(time() - headrace_last_commit_timestamp_seconds{_MINE})", legend="age")],
            unit="s",
        ),
        panels.figure(
            "From reading to output, p99",
            "From the newest record's timestamp to its scores and alerts on Kafka.",
            [promql(_quantile(0.99, "headrace_produce_to_publish_seconds", ""), legend="p99")],
            unit="s",
        ),
        panels.figure(
            "Refused in an hour",
            "Dead letters in the last hour.",
            [promql(f"sum(increase(headrace_dead_letters_total{_MINE}[1h]))", legend="dead letters")],
            steps=((None, "green"), (1, "orange")),
        ),
        panels.figure(
            "Rebalances in an hour",
            "Times that partitions were assigned, all workers. Many mean that workers come and go.",
            [promql(f"sum(increase(headrace_rebalances_total{_MINE}[1h]))", legend="rebalances")],
            steps=((None, "green"), (10, "orange")),
        ),
        panels.lines(
            "Throughput",
            "A record may hold many readings, and a reading is judged by every detector that watches its asset.",
            [
                promql(f"sum(rate(headrace_{name}_total{_MINE}{_RATE}))", ref, legend=name)
                for ref, name in (("A", "records"), ("B", "readings"), ("C", "scores"))
            ],
            unit="cps",
        ),
        panels.lines(
            "Lag by worker",
            "Records that wait on each worker's partitions.",
            [promql(f"sum by (instance) (headrace_consumer_lag_records{_MINE})", legend="{{instance}}")],
        ),
    ]


def _latency() -> list[Builder[model.Panel]]:
    return [
        panels.lines(
            "From reading to output",
            "From a record's own timestamp to its scores and alerts on Kafka; a backlog counts.",
            [
                promql(_quantile(share, "headrace_produce_to_publish_seconds", ""), ref, legend=f"p{share * 100:.0f}")
                for ref, share in (("A", 0.5), ("B", 0.9), ("C", 0.99))
            ],
            unit="s",
        ),
        panels.lines(
            "What a stage takes, p99",
            "For one batch of a partition.",
            [promql(_quantile(0.99, "headrace_stage_seconds", "stage"), legend="{{stage}}")],
            unit="s",
        ),
        panels.bars(
            "Where the time goes",
            "Seconds of each stage in a second, all workers.",
            [promql(_rate("headrace_stage_seconds_sum", "stage"), legend="{{stage}}")],
            unit="s",
        ),
        panels.lines(
            "Dead letters",
            "By stage and reason; docs/payloads.md says what they mean.",
            [promql(f"{_rate('headrace_dead_letters_total', 'stage, reason')} > 0", legend="{{stage}} {{reason}}")],
            unit="cps",
        ),
        panels.lines(
            "Readings left out",
            "Late, twice, or of assets that no detector watches.",
            [
                promql(f"sum(rate(headrace_{name}_total{_MINE}{_RATE}))", ref, legend=name)
                for ref, name in (("A", "late"), ("B", "duplicates"), ("C", "unwatched"))
            ],
            unit="cps",
        ),
    ]


def _state() -> list[Builder[model.Panel]]:
    return [
        panels.lines(
            "Assets remembered",
            "Windows, carried states and open alerts are kept for so many assets on each worker.",
            [promql(f"sum by (instance) (headrace_state_assets{_MINE})", legend="{{instance}}")],
        ),
        panels.lines(
            "Size of the state",
            "Of the newest records of the state topic, all workers; and what snapshots write to it in a second.",
            [
                promql(f"sum(headrace_state_bytes{_MINE})", legend="held"),
                promql(f"sum(rate(headrace_snapshot_bytes_total{_MINE}{_RATE}))", "B", legend="written a second"),
            ],
            unit="bytes",
        ),
        panels.lines(
            "Snapshots and recovery, p99",
            "What a partition's snapshot takes, and reading its state back took. Nothing is committed without one.",
            [
                promql(_quantile(0.99, "headrace_snapshot_seconds", ""), legend="snapshot"),
                promql(
                    f"histogram_quantile(0.99, sum by (le) (headrace_state_recovery_seconds_bucket{_MINE}))",
                    "B",
                    legend="recovery, since the start",
                ),
            ],
            unit="s",
        ),
        panels.lines(
            "Snapshots not written, assets forgotten",
            "Snapshots fail when Kafka does not take them; assets are forgotten when they are silent for long.",
            [
                promql(f"sum(rate(headrace_snapshot_failures_total{_MINE}{_RATE}))", legend="failed snapshots"),
                promql(f"sum(rate(headrace_state_evicted_assets_total{_MINE}{_RATE}))", "B", legend="forgotten assets"),
            ],
            unit="cps",
        ),
    ]


def _sinks_and_process() -> list[Builder[model.Panel]]:
    return [
        panels.lines(
            "Writes that sinks did not take",
            "They are repeated. Without the essential sink (Kafka) nothing is acknowledged and lag grows.",
            [
                promql(_rate("headrace_sink_failures_total", "sink, reason"), legend="{{sink}} {{reason}}"),
                promql(_rate("headrace_sink_failed_writes_total", "sink"), "B", legend="{{sink}} away"),
            ],
            unit="cps",
        ),
        panels.lines(
            "Output held",
            "Lines or alerts that a sink has taken and not yet written.",
            [promql(f"sum by (sink) (headrace_sink_held_lines{_MINE})", legend="{{sink}}")],
        ),
        panels.lines(
            "Output held on disk",
            "Bytes of what is held that a sink has spooled.",
            [promql(f"sum by (sink) (headrace_sink_spooled_bytes{_MINE})", legend="{{sink}}")],
            unit="bytes",
        ),
        panels.lines(
            "Output written",
            "By sink and what became of it; refused and dropped should be none.",
            [promql(_rate("headrace_sink_lines_total", "sink, outcome"), legend="{{sink}} {{outcome}}")],
            unit="cps",
        ),
        panels.lines(
            "Memory",
            "Resident memory of each worker.",
            [promql(f"process_resident_memory_bytes{_MINE}", legend="{{instance}}")],
            unit="bytes",
        ),
        panels.lines(
            "Processor",
            "Cores used by each worker.",
            [promql(f"rate(process_cpu_seconds_total{_MINE}{_RATE})", legend="{{instance}}")],
        ),
        panels.lines(
            "Partitions by worker",
            "Of the readings topic. A worker with none stands by.",
            [promql(f"sum by (instance) (headrace_assigned_partitions{_MINE})", legend="{{instance}}")],
        ),
        panels.listing(
            "Workers",
            "Release and Python of each.",
            promql(f"headrace_build_info{_MINE}", form="table"),
        ).with_transformation(
            panels.organised(("instance", "version", "python"), hidden=("Time", "Value", "__name__", "job"))
        ),
    ]


def build() -> sdk.Dashboard:
    """The dashboard."""
    dashboard = panels.board(
        "Headrace / Pipeline",
        "headrace-pipeline",
        "Whether the workers keep up, how long a reading takes, what is refused, and what the sinks do.",
        hours=3,
    )
    for variable in sources("prometheus"):
        dashboard = dashboard.with_variable(variable)
    dashboard = dashboard.with_variable(
        choice("job", "Job", "label_values(headrace_build_info, job)", PROMETHEUS, multi=True)
    ).with_variable(
        choice("instance", "Worker", 'label_values(headrace_build_info{job=~"$job"}, instance)', PROMETHEUS, multi=True)
    )
    for title, found in (
        ("Keeping up", _keeping_up()),
        ("Latency and what is refused", _latency()),
        ("State", _state()),
        ("Sinks and processes", _sinks_and_process()),
    ):
        dashboard = dashboard.with_row(sdk.Row(title))
        for panel in found:
            dashboard = dashboard.with_panel(panel)
    return dashboard
