"""The panels' common looks: sizes, legends, colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import common
from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.builders import heatmap as heatmaps
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statushistory as histories
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries as series
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as styles
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_styles

Queries = Sequence[Builder[Dataquery]]

SEVERITY_COLOURS: Final = {"warning": "yellow", "major": "orange", "critical": "red"}
#: Of a score over its threshold.
RATIO_STEPS: Final = ((None, "green"), (0.75, "yellow"), (1.0, "orange"), (1.5, "red"))
TAGS: Final = ["headrace"]


def board(title: str, uid: str, description: str, *, refresh: str = "30s", hours: int = 6) -> sdk.Dashboard:
    """An empty dashboard with a link to the others, which keeps time and variables."""
    others = (
        sdk.DashboardLink("Headrace")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags(TAGS)
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(True)
    )
    return (
        sdk.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(TAGS)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time(f"now-{hours}h", "now")
        .refresh(refresh)
        .link(others)
    )


def lines(
    title: str, description: str, queries: Queries, *, unit: str = "short", width: int = 12, height: int = 8
) -> series.Panel:
    """Lines over time."""
    panel = (
        series.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .span(width)
        .height(height)
        .line_width(1)
        .fill_opacity(0)
        .show_points(styles.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(
            common.VizLegendOptions()
            .display_mode(styles.LegendDisplayMode.LIST)
            .placement(styles.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(styles.TooltipDisplayMode.MULTI).sort(styles.SortOrder.DESCENDING))
    )
    for query in queries:
        panel = panel.with_target(query)
    return panel


def bars(title: str, description: str, queries: Queries, *, unit: str = "short", width: int = 12) -> series.Panel:
    """Stacked bars over time."""
    return (
        lines(title, description, queries, unit=unit, width=width)
        .draw_style(styles.GraphDrawStyle.BARS)
        .fill_opacity(80)
        .stacking(common.StackingConfig().mode(styles.StackingMode.NORMAL))
    )


def figure(
    title: str,
    description: str,
    queries: Queries,
    *,
    unit: str = "short",
    width: int = 4,
    steps: Sequence[tuple[float | None, str]] = ((None, "text"),),
    sparkline: bool = True,
) -> stats.Panel:
    """One large number for each series."""
    panel = (
        stats.Panel()
        .title(title)
        .description(description)
        .unit(unit)
        .span(width)
        .height(4)
        .graph_mode(styles.BigValueGraphMode.AREA if sparkline else styles.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(thresholds(steps))
    )
    for query in queries:
        panel = panel.with_target(query)
    return panel


def ratios(title: str, description: str, query: Builder[Dataquery], *, width: int = 12) -> heatmaps.Panel:
    """How many scores lay where, over time: from the buckets of a Prometheus histogram."""
    return (
        heatmaps.Panel()
        .title(title)
        .description(description)
        .span(width)
        .height(8)
        .calculate(False)
        .color(
            heatmaps.HeatmapColorOptions()
            .mode(heatmap_styles.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmap_styles.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(heatmaps.YAxisConfig().unit("short"))
        .with_target(query)
    )


def rows_of_assets(title: str, description: str, query: Builder[Dataquery]) -> histories.Panel:
    """A row for each series and a coloured cell for each step of time."""
    return (
        histories.Panel()
        .title(title)
        .description(description)
        .span(24)
        .height(10)
        .show_value(styles.VisibilityMode.NEVER)
        .row_height(0.9)
        .col_width(1.0)
        .per_page(30)
        .thresholds(thresholds(RATIO_STEPS))
        .color_scheme(sdk.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .with_target(query)
    )


def listing(title: str, description: str, query: Builder[Dataquery], *, width: int = 12) -> tables.Panel:
    """A table."""
    return tables.Panel().title(title).description(description).span(width).height(8).with_target(query)


def thresholds(steps: Sequence[tuple[float | None, str]]) -> sdk.ThresholdsConfig:
    """Colours from these values on; the first step's value is None."""
    found = [model.Threshold(value, colour) for value, colour in steps]
    return sdk.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def colour(name: str) -> list[model.DynamicConfigValue]:
    """A fixed colour, for an override."""
    return [model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": name})]


def organised(
    order: Sequence[str], *, hidden: Sequence[str] = (), names: Mapping[str, str] | None = None
) -> model.DataTransformerConfig:
    """Columns of a table in this order, some left out, some with another name."""
    options: dict[str, Any] = {
        "indexByName": {name: place for place, name in enumerate(order)},
        "excludeByName": dict.fromkeys(hidden, True),
        "renameByName": dict(names or {}),
    }
    return model.DataTransformerConfig("organize", options=options)


def renamed(pattern: str, by: str) -> model.DataTransformerConfig:
    """Series renamed by a regular expression."""
    return model.DataTransformerConfig("renameByRegex", options={"regex": pattern, "renamePattern": by})
