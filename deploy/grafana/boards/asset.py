"""Asset: one machine's signals in their bands, its scores, what they are made of, and its alerts."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from boards import panels
from boards.queries import ALERTS, AT_ASSET, INFLUXDB, SCORES, Influx, choice, sources

_EVERY = "GROUP BY time($__interval) fill(none)"


class _AlertMarks(model.AnnotationTarget):
    """What InfluxDB's editor keeps of an annotation; the SDK's own target fits Grafana's built-in source only."""

    def to_json(self) -> dict[str, Any]:
        return {
            "refId": "Alerts",
            "fromAnnotations": True,
            "query": f'SELECT "state", "severity", "causes" FROM {ALERTS} WHERE {AT_ASSET}',
            "titleColumn": "state",
            "textColumn": "causes",
            "tagsColumn": "severity",
            "timeEndColumn": "",
        }


def _panels() -> list[Builder[model.Panel]]:
    score = panels.lines(
        "Score against threshold",
        "The highest score in each step; at and above the threshold it is an anomaly, and an alert opens after the "
        "detector's on-delay.",
        [
            Influx(
                f'SELECT max("score") AS "score", max("threshold") AS "threshold" FROM {SCORES} '
                f"WHERE {AT_ASSET} {_EVERY}",
                alias="$col",
            )
        ],
        width=24,
    ).override_by_name(
        "threshold",
        [
            *panels.colour("red"),
            model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
        ],
    )
    signal = (
        panels.lines(
            "$signal",
            "What was measured, what the detector expected, and the band around it (three standard deviations). "
            "Empty where this asset has no such signal; a detector that only looks at shapes expects no value.",
            [
                Influx(
                    'SELECT mean("value_${signal:raw}") AS "measured", mean("expected_${signal:raw}") AS "expected", '
                    'mean("low_${signal:raw}") AS "low", mean("high_${signal:raw}") AS "high" '
                    f"FROM {SCORES} WHERE {AT_ASSET} {_EVERY}",
                    alias="$col",
                )
            ],
        )
        .repeat("signal")
        .max_per_row(2)
        .override_by_name("measured", panels.colour("blue"))
        .override_by_name("expected", panels.colour("green"))
        .override_by_name(
            "high",
            [
                *panels.colour("green"),
                model.DynamicConfigValue("custom.lineWidth", 0),
                model.DynamicConfigValue("custom.fillOpacity", 15),
                model.DynamicConfigValue("custom.fillBelowTo", "low"),
            ],
        )
        .override_by_name("low", [*panels.colour("green"), model.DynamicConfigValue("custom.lineWidth", 0)])
    )
    return [
        score,
        panels.bars(
            "Which signals cause it",
            "Each signal's share of the score while an alert is open; the shares of a reading sum to 1.",
            [Influx(f"SELECT mean(/^share_/) FROM {SCORES} WHERE {AT_ASSET} {_EVERY}", alias="$col")],
            unit="percentunit",
        )
        .max(1)
        .with_transformation(panels.renamed("^mean_share_(.*)$", "$1")),
        panels.bars(
            "Readings without a usable score",
            "Readings whose values are missing or of bad quality, in each step.",
            [Influx(f'SELECT count("reason") AS "unusable" FROM {SCORES} WHERE {AT_ASSET} {_EVERY}', alias="unusable")],
        ),
        panels.listing(
            "Alerts",
            "Every transition of this asset's alerts in the chosen time.",
            Influx(
                f'SELECT "state", "severity", "verdict", "score", "threshold", "peak", "confidence", "causes", '
                f'"onset", "model_version", "id" FROM {ALERTS} WHERE {AT_ASSET} ORDER BY time DESC LIMIT 200',
                form="table",
            ),
            width=24,
        ),
        signal,
    ]


def build() -> sdk.Dashboard:
    """The dashboard."""
    marks = sdk.AnnotationQuery().name("Alerts").datasource(INFLUXDB).enable(True).icon_color("red")
    marks.build().target = _AlertMarks()
    dashboard = panels.board(
        "Headrace / Asset",
        "headrace-asset",
        "One machine: its signals in their expected bands, its scores, what they are made of, and its alerts.",
    ).annotation(marks)
    for variable in sources("influxdb"):
        dashboard = dashboard.with_variable(variable)
    dashboard = (
        dashboard.with_variable(choice("asset", "Asset", f'SHOW TAG VALUES FROM {SCORES} WITH KEY = "asset"', INFLUXDB))
        .with_variable(
            choice(
                "detector",
                "Detector",
                f'SHOW TAG VALUES FROM {SCORES} WITH KEY = "detector" WHERE "asset" =~ /^${{asset:regex}}$/',
                INFLUXDB,
            )
        )
        .with_variable(
            choice("signal", "Signals", f"SHOW FIELD KEYS FROM {SCORES}", INFLUXDB, multi=True, regex="/^value_(.*)$/")
        )
    )
    for panel in _panels():
        dashboard = dashboard.with_panel(panel)
    return dashboard
