"""The metrics: names, units, labels that stay few, and gauges that survive replays."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client import generate_latest

from stream.records import Alert, Output, Scores
from stream.sinks.prometheus import Metrics, PrometheusSink


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"headrace_{name}", labels)


async def test_counts_what_is_published(output: Output) -> None:
    metrics = Metrics(version="0.1", clock=lambda: output.produced_ms / 1000 + 0.3)
    await PrometheusSink(metrics).write(output)
    assert value(metrics, "records_total") == 4
    assert value(metrics, "readings_total") == 3
    assert value(metrics, "late_total") == 1
    assert value(metrics, "events_total", event="failed") == 2
    assert value(metrics, "dead_letters_total", stage="decode", reason="not_json") == 1
    assert value(metrics, "scores_total", detector="pumps") == 3
    assert value(metrics, "invalid_scores_total", detector="pumps") == 1
    assert value(metrics, "alert_transitions_total", detector="pumps", state="open", severity="major") == 1
    assert value(metrics, "stage_seconds_sum", stage="score") == pytest.approx(0.03)
    assert value(metrics, "produce_to_publish_seconds_sum") == pytest.approx(0.3, abs=1e-3)
    assert value(metrics, "score_threshold_ratio_count", detector="pumps") == 2
    assert value(metrics, "score_threshold_ratio_bucket", detector="pumps", le="0.25") == 1
    assert value(metrics, "score_threshold_ratio_sum", detector="pumps") == pytest.approx(4.5 / 3)


def test_open_alerts_are_the_same_after_a_replay(make_alert: Callable[..., Alert]) -> None:
    metrics = Metrics()

    def counted() -> tuple[float | None, ...]:
        return tuple(
            value(metrics, "open_alerts", detector="pumps", severity=s) for s in ("warning", "major", "critical")
        )

    story = [make_alert(), make_alert(state="updated", sequence=1), make_alert(id="a2", severity="warning")]
    for _ in range(2):
        metrics.observe(Output(alerts=tuple(story)))
        assert counted() == (1, 1, 0)
    metrics.observe(Output(alerts=(make_alert(state="updated", sequence=2, severity="critical"),)))
    assert counted() == (1, 0, 1)
    metrics.observe(
        Output(alerts=(make_alert(state="resolved", sequence=3), make_alert(id="unknown", state="resolved")))
    )
    assert counted() == (1, 0, 0)
    metrics.restore_open([make_alert(id=name) for name in "xyz"])
    assert counted() == (0, 3, 0)
    metrics.restore_open([])
    assert counted() == (0, 0, 0)


def test_the_number_of_series_does_not_grow_with_the_assets(
    make_scores: Callable[..., Scores], make_alert: Callable[..., Alert]
) -> None:
    def series(assets: int) -> int:
        metrics = Metrics()
        alerts = tuple(make_alert(id=str(i), asset=f"pump-{i}") for i in range(min(assets, 1000)))
        metrics.observe(Output(scores=(make_scores(rows=assets, assets=assets),), alerts=alerts))
        return len(generate_latest(metrics.registry).splitlines())

    assert series(10) == series(100_000)


def test_the_app_tells_models_lag_and_commits() -> None:
    metrics = Metrics(version="1.2", site="north", clock=lambda: 1000.0)
    metrics.loaded([("pumps", "lstm", "v1"), ("fans", "gan", "v1")])
    metrics.loaded([("pumps", "lstm", "v2")])
    metrics.lag(42, partitions=3)
    metrics.committed()
    metrics.rebalanced()
    metrics.dead_lettered("publish", "refused", 2)
    assert value(metrics, "model_info", detector="pumps", kind="lstm", version="v2") == 1
    assert value(metrics, "model_info", detector="fans", kind="gan", version="v1") is None
    assert value(metrics, "open_alerts", detector="pumps", severity="critical") == 0
    assert value(metrics, "consumer_lag_records") == 42
    assert value(metrics, "assigned_partitions") == 3
    assert value(metrics, "last_commit_timestamp_seconds") == 1000.0
    assert value(metrics, "dead_letters_total", stage="publish", reason="refused") == 2
    assert value(metrics, "rebalances_total") == 1
    assert value(metrics, "site_info", site="north") == 1
    assert b"process_resident_memory_bytes" in generate_latest(metrics.registry) or sys.platform != "linux"
    assert b'headrace_build_info{python="' in generate_latest(metrics.registry)


def test_an_empty_output_and_odd_numbers_do_no_harm(make_scores: Callable[..., Scores]) -> None:
    metrics = Metrics()
    metrics.observe(Output())
    odd = make_scores(rows=4, score=np.array([np.inf, np.nan, 0.0, 1.0]), threshold=np.array([1.0, 1.0, np.nan, 0.0]))
    metrics.observe(Output(scores=(odd, make_scores(rows=0))))
    assert value(metrics, "invalid_scores_total", detector="pumps") == 4
    assert value(metrics, "score_threshold_ratio_sum", detector="pumps") == 0
    assert value(metrics, "produce_to_publish_seconds_count") == 0
