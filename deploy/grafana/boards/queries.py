"""What the panels ask: PromQL of Prometheus, InfluxQL of InfluxDB (1.x, 2 with a DBRP mapping, and 3 all answer it).

The SDK has no builder for InfluxDB: ``Influx`` is the query model of Grafana's own editor in its raw mode. Variables
stand in InfluxQL with their format, ``${asset:regex}`` in a tag's pattern and ``${signal:raw}`` in a field's name,
because Grafana's releases differ in what they do without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.builders.prometheus import Dataquery as Prometheus
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS: Final = model.DataSourceRef("prometheus", "${prometheus}")
INFLUXDB: Final = model.DataSourceRef("influxdb", "${influxdb}")

#: Of a worker's metrics, those of the chosen sites; for ``promql(... )`` with a site variable.
OF_SITES: Final = ' * on (job, instance) group_left (site) headrace_site_info{site=~"$site"}'
SCORES: Final = '"headrace_score"'
ALERTS: Final = '"headrace_alert"'
AT_SITE: Final = '"site" =~ /^${site:regex}$/ AND $timeFilter'
AT_ASSET: Final = '"asset" =~ /^${asset:regex}$/ AND "detector" =~ /^${detector:regex}$/ AND $timeFilter'


@dataclass(frozen=True)
class InfluxTarget(Dataquery):
    """One raw InfluxQL query of a panel."""

    query: str
    ref_id: str
    result_format: Literal["time_series", "table"]
    alias: str

    def to_json(self) -> dict[str, Any]:
        """The query as Grafana keeps it."""
        named = {"alias": self.alias} if self.alias else {}
        return {
            "datasource": INFLUXDB,
            "query": self.query,
            "rawQuery": True,
            "refId": self.ref_id,
            "resultFormat": self.result_format,
            **named,
        }


class Influx(Builder[InfluxTarget]):
    """Builds an ``InfluxTarget``; ``$col``, ``$tag_asset`` in ``alias`` name its series."""

    def __init__(
        self, query: str, ref_id: str = "A", *, alias: str = "", form: Literal["time_series", "table"] = "time_series"
    ) -> None:
        self._target = InfluxTarget(" ".join(query.split()), ref_id, form, alias)

    def build(self) -> InfluxTarget:
        """The target."""
        return self._target


def promql(
    expression: str, ref_id: str = "A", *, legend: str = "", form: Literal["series", "table", "heatmap"] = "series"
) -> Prometheus:
    """One PromQL query of a panel; a ``table`` asks for the newest value only."""
    query = Prometheus().expr(" ".join(expression.split())).ref_id(ref_id).datasource(PROMETHEUS)
    if form == "table":
        return query.instant().format(PromQueryFormat.TABLE)
    if form == "heatmap":
        query = query.format(PromQueryFormat.HEATMAP)
    return query.range().legend_format(legend)


def sources(*kinds: Literal["prometheus", "influxdb"]) -> list[sdk.DatasourceVariable]:
    """The variables that say which data sources of these kinds are meant."""
    labels = {"prometheus": "Metrics", "influxdb": "History"}
    return [sdk.DatasourceVariable(kind).label(labels[kind]).type(kind) for kind in kinds]


def choice(
    name: str, label: str, query: str, source: model.DataSourceRef, *, multi: bool = False, regex: str = ""
) -> sdk.QueryVariable:
    """A variable whose values a data source gives; with ``multi`` also several, or all."""
    variable = (
        sdk.QueryVariable(name)
        .label(label)
        .datasource(source)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    if regex:
        variable = variable.regex(regex)
    if not multi:
        return variable
    everything = model.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).current(everything)
