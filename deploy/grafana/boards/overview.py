"""Plant overview: what is wrong now, where, and since when."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from boards import panels
from boards.queries import ALERTS, AT_SITE, OF_SITES, PROMETHEUS, SCORES, Influx, choice, promql, sources

_NEWEST_ALERTS = f"""SELECT last("active") AS "active", "severity", "score", "threshold", "peak", "causes", "onset"
    FROM {ALERTS} WHERE {AT_SITE} GROUP BY "asset", "detector" """
#: Down to one number an asset, however many of its alerts are open.
_OPEN_BY_ASSET = f"""SELECT count("active") AS "open" FROM (SELECT last("active") AS "active" FROM {ALERTS}
    WHERE {AT_SITE} GROUP BY "asset", "detector") WHERE "active" = true GROUP BY "asset" """
_RATIOS = f"""SELECT "score" / "threshold" AS "ratio" FROM {SCORES}
    WHERE "asset" =~ /^(${{pattern:raw}})$/ AND {AT_SITE}"""


def _panels() -> list[Builder[model.Panel]]:
    """The panels in their order."""
    alerts = panels.figure(
        "Open alerts",
        "Alerts that are open now, by severity, as the workers know them.",
        [promql(f"sum by (severity) (headrace_open_alerts{OF_SITES})", legend="{{severity}}")],
        width=8,
        sparkline=False,
    )
    opened = panels.bars(
        "Alerts opened",
        "By severity when they opened. Those opened again after a replay count again.",
        [
            promql(
                f'sum by (severity) (increase(headrace_alert_transitions_total{{state="open"}}[$__rate_interval])'
                f"{OF_SITES})",
                legend="{{severity}}",
            )
        ],
    )
    for severity, colour in panels.SEVERITY_COLOURS.items():
        alerts = alerts.override_by_name(severity, panels.colour(colour))
        opened = opened.override_by_name(severity, panels.colour(colour))
    return [
        alerts,
        panels.figure(
            "Assets by state",
            "Assets heard from in the chosen time, those with an open alert, and those whose newest reading gave no "
            "usable score. A threshold kept for each reading is what tells that an asset was heard from.",
            [
                Influx(
                    f"""SELECT count("threshold") AS "heard from" FROM (SELECT last("threshold") AS "threshold"
                    FROM {SCORES} WHERE {AT_SITE} GROUP BY "asset")""",
                    alias="heard from",
                ),
                Influx(
                    f"""SELECT count("open") AS "with an open alert" FROM ({_OPEN_BY_ASSET})""",
                    "B",
                    alias="with an open alert",
                ),
                Influx(
                    f"""SELECT count("valid") AS "without a score" FROM (SELECT last("valid") AS "valid" FROM {SCORES}
                    WHERE {AT_SITE} GROUP BY "asset") WHERE "valid" = false""",
                    "C",
                    alias="without a score",
                ),
            ],
            width=8,
            sparkline=False,
        ),
        panels.figure(
            "Readings a second",
            "Readings decoded by all workers of the chosen sites.",
            [promql(f"sum by (site) (rate(headrace_readings_total[$__rate_interval]){OF_SITES})", legend="{{site}}")],
            unit="cps",
        ),
        panels.figure(
            "Readings that wait",
            "Consumer lag, records, all workers of the chosen sites.",
            [promql(f"sum by (site) (headrace_consumer_lag_records{OF_SITES})", legend="{{site}}")],
            steps=((None, "green"), (10_000, "orange"), (1_000_000, "red")),
        ),
        panels.ratios(
            "Scores over time",
            "How many scores lay how near to their threshold, all assets and detectors: above 1 is an anomaly. A whole "
            "plant that drifts shows here before any alert opens.",
            promql(
                f"sum by (le) (increase(headrace_score_threshold_ratio_bucket[$__rate_interval]){OF_SITES})",
                legend="{{le}}",
                form="heatmap",
            ),
        ),
        opened,
        panels.listing(
            "Open alerts, newest state",
            "Alerts that changed within the chosen time and are open. The asset's name leads to its page.",
            Influx(f'SELECT * FROM ({_NEWEST_ALERTS}) WHERE "active" = true', form="table"),
            width=24,
        )
        .with_transformation(
            panels.organised(
                ("Time", "asset", "detector", "severity", "causes", "score", "threshold", "peak", "onset"),
                hidden=("active",),
                names={"Time": "last change"},
            )
        )
        .override_by_name(
            "asset",
            [
                model.DynamicConfigValue(
                    "links",
                    [
                        {
                            "title": "Show this asset",
                            "url": "/d/headrace-asset?${__url_time_range}&var-asset=${__data.fields.asset}"
                            "&var-detector=${__data.fields.detector}",
                        }
                    ],
                )
            ],
        ),
        panels.rows_of_assets(
            "Assets over time",
            "The highest score over its threshold of each asset in each step. For a large plant narrow it down with "
            "the variable at the top: a row for each of 100,000 assets helps nobody.",
            Influx(
                f'SELECT max("ratio") AS "ratio" FROM ({_RATIOS}) WHERE $timeFilter '
                'GROUP BY time($__interval), "asset" fill(none)',
                alias="$tag_asset",
            ),
        ),
    ]


def build() -> sdk.Dashboard:
    """The dashboard."""
    dashboard = panels.board(
        "Headrace / Plant overview", "headrace-overview", "What is wrong in the plant now, where, and since when."
    )
    for variable in sources("prometheus", "influxdb"):
        dashboard = dashboard.with_variable(variable)
    dashboard = dashboard.with_variable(
        choice("site", "Site", "label_values(headrace_site_info, site)", PROMETHEUS, multi=True)
    ).with_variable(sdk.TextBoxVariable("pattern").label("Assets (regular expression)").default_value(".*"))
    for panel in _panels():
        dashboard = dashboard.with_panel(panel)
    return dashboard
