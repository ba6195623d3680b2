"""Detectors: how they score, whether that drifts, which models serve, and how a candidate compares."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from boards import panels
from boards.queries import PROMETHEUS, choice, promql, sources

_RATIO = "headrace_score_threshold_ratio"
_CHOSEN = '{detector=~"$detector"}'
_PAIR = '{detector=~"$detector|$candidate"}'


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
            "Candidate against serving: median score over threshold",
            "A candidate runs in the plan beside the detector that serves, on the same readings.",
            [promql(_quantile(0.5, _PAIR), legend="{{detector}}")],
        ),
        panels.bars(
            "Candidate against serving: alerts opened",
            "In each step.",
            [
                promql(
                    "sum by (detector) (increase(headrace_alert_transitions_total"
                    '{state="open", detector=~"$detector|$candidate"}[$__rate_interval]))',
                    legend="{{detector}}",
                )
            ],
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
    dashboard = dashboard.with_variable(choice("detector", "Detectors", names, PROMETHEUS, multi=True)).with_variable(
        choice("candidate", "Candidate", names, PROMETHEUS)
    )
    for panel in _panels():
        dashboard = dashboard.with_panel(panel)
    return dashboard
