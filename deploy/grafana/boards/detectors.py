"""Detectors: how they score, whether that drifts, which models serve, and how a candidate compares."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from boards import panels
from boards.queries import PROMETHEUS, choice, promql, sources

_RATIO = "headrace_score_threshold_ratio"
_CHOSEN = '{detector=~"$detector"}'


def _quantile(share: float, which: str) -> str:
    return f"histogram_quantile({share}, sum by (detector, le) (rate({_RATIO}_bucket{which}[$__rate_interval])))"


def _panels() -> list[Builder[model.Panel]]:
    return [
        panels.ratios(
            "Score distribution",
            "Scores over threshold of the chosen detectors: how many lay where.",
            promql(
                f"sum by (le) (increase({_RATIO}_bucket{_CHOSEN}[$__rate_interval]))", legend="{{le}}", form="heatmap"
            ),
        ),
        panels.lines(
            "Score over threshold, by quantile",
            "Half, nine tenths and 99 of 100 scores lie below.",
            [
                promql(_quantile(share, _CHOSEN), ref, legend=f"{{{{detector}}}} p{share * 100:.0f}")
                for ref, share in (("A", 0.5), ("B", 0.9), ("C", 0.99))
            ],
        ),
        panels.lines(
            "Drift",
            "The usual score (median over an hour) over what was usual in the last week: 1 is no change. An alert "
            "fires above 1.5 for six hours; the model may need training on newer history.",
            [promql(f"headrace:score_threshold_ratio:drift{_CHOSEN}", legend="{{detector}}")],
        ),
        panels.lines(
            "Share of scores at or over the threshold",
            "Before on-delays; a detector that is calibrated stays near its budget while the plant is well.",
            [
                promql(
                    f'1 - sum by (detector) (rate({_RATIO}_bucket{{detector=~"$detector", le="1.0"}}'
                    f"[$__rate_interval])) / sum by (detector) (rate({_RATIO}_count{_CHOSEN}[$__rate_interval]))",
                    legend="{{detector}}",
                )
            ],
            unit="percentunit",
        ),
        panels.bars(
            "Alerts opened, by detector",
            "In each step.",
            [
                promql(
                    'sum by (detector) (increase(headrace_alert_transitions_total{state="open", detector=~"$detector"}'
                    "[$__rate_interval]))",
                    legend="{{detector}}",
                )
            ],
        ),
        panels.lines(
            "Readings without a usable score",
            "Of all that the detector was shown; missing or bad values.",
            [
                promql(
                    f"sum by (detector) (rate(headrace_invalid_scores_total{_CHOSEN}[$__rate_interval])) / "
                    f"sum by (detector) (rate(headrace_scores_total{_CHOSEN}[$__rate_interval]))",
                    legend="{{detector}}",
                )
            ],
            unit="percentunit",
        ),
        panels.listing(
            "Models that serve",
            "By detector of the plan, with the number of workers that have them: two versions of one detector for long "
            "mean that a worker was not restarted.",
            promql(
                f"count by (detector, kind, version) (headrace_model_info{_CHOSEN})",
                form="table",
            ),
            width=24,
        ).with_transformation(
            panels.organised(("detector", "kind", "version", "Value"), hidden=("Time",), names={"Value": "workers"})
        ),
        panels.lines(
            "Shadow against serving: share of readings at or over the threshold",
            "Of the readings that the candidate and what serves have both judged: how many each held to be strange, "
            "and how many both did. Empty while there is no candidate.",
            [
                promql(
                    f"sum by (detector, model) (headrace_shadow_over_threshold_readings{_CHOSEN}) / on (detector) "
                    f"group_left () (sum by (detector) (headrace_shadow_readings{_CHOSEN}) > 0)",
                    legend="{{detector}} {{model}}",
                )
            ],
            unit="percentunit",
        ),
        panels.lines(
            "Shadow against serving: times over the threshold",
            "How often an asset went over the threshold of each, since the candidate began on these workers.",
            [
                promql(
                    f"sum by (detector, model) (headrace_shadow_episodes{_CHOSEN})",
                    legend="{{detector}} {{model}}",
                )
            ],
        ),
        panels.lines(
            "Shadow against serving: how alike the scores are",
            "Correlation of the logarithms of score over threshold, mean of the workers: 1 is alike.",
            [promql(f"avg by (detector) (headrace_shadow_score_correlation{_CHOSEN})", legend="{{detector}}")],
        ),
        panels.lines(
            "Shadow against serving: cost",
            "What scoring the candidate takes, by what scoring what serves takes, mean of the workers.",
            [promql(f"avg by (detector) (headrace_shadow_cost_ratio{_CHOSEN})", legend="{{detector}}")],
        ),
    ]


def build() -> sdk.Dashboard:
    """The dashboard."""
    dashboard = panels.board(
        "Headrace / Detectors",
        "headrace-detectors",
        "How the detectors score, whether that drifts, which models serve, and how a candidate compares.",
        hours=24,
    )
    for variable in sources("prometheus"):
        dashboard = dashboard.with_variable(variable)
    names = "label_values(headrace_scores_total, detector)"
    dashboard = dashboard.with_variable(choice("detector", "Detectors", names, PROMETHEUS, multi=True))
    for panel in _panels():
        dashboard = dashboard.with_panel(panel)
    return dashboard
