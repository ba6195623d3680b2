"""The Grafana dashboards: as generated, complete, and each expression one that parses and whose metrics exist."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import yaml

from dashboards import ROOT, Query, boards, filled, panels, queries
from stream.records import Output, Scores
from stream.sinks.influxdb import InfluxSettings, InfluxSink
from stream.sinks.prometheus import Metrics

promql = pytest.importorskip("promql_parser")
pytest.importorskip("grafana_foundation_sdk")

#: What Grafana and the plant would fill in.
VALUES = {
    "__rate_interval": "1m",
    "__interval": "10s",
    "timeFilter": "time > now() - 1h",
    "site": "north",
    "pattern": ".*",
    "asset": "pump-1",
    "detector": "quick",
    "signal": "heat",
    "job": "headrace",
    "instance": "127.0.0.1:6066",
}


def test_the_committed_json_is_what_the_code_makes() -> None:
    import generate

    committed = {path.name: path.read_text() for path in generate.FOLDER.glob("*.json")}
    assert committed == generate.rendered(), "run: .venv/bin/python deploy/grafana/generate.py"


def test_the_four_dashboards_are_there_and_lead_to_each_other() -> None:
    found = boards()
    assert {board["title"] for board in found.values()} == {
        f"Headrace / {name}" for name in ("Plant overview", "Asset", "Detectors", "Pipeline")
    }
    uids = {board["uid"] for board in found.values()}
    assert len(uids) == 4
    for name, board in found.items():
        assert board["links"][0]["tags"] == board["tags"] == ["headrace"], name
        for uid in re.findall(r"/d/([\w-]+)", str(board)):
            assert uid in uids, f"{name} leads to {uid}, which does not exist"


@pytest.mark.parametrize("name", boards())
def test_every_panel_says_what_it_shows_and_has_its_place(name: str) -> None:
    board = boards()[name]
    ids = Counter(panel["id"] for panel in board["panels"])
    assert set(ids.values()) == {1}
    cells: set[tuple[int, int]] = set()
    for panel in panels(board):
        assert panel["title"], panel
        assert len(panel["description"]) > 10, panel["title"]
        assert panel["targets"], panel["title"]
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & cells, f"{panel['title']} lies on another panel"
        assert max(x for x, _ in mine) < 24
        cells |= mine


@pytest.mark.parametrize("name", boards())
def test_every_variable_is_used_and_none_is_missing(name: str) -> None:
    board = boards()[name]
    mine = {variable["name"] for variable in board["templating"]["list"]}
    text = str([panels(board), board["annotations"], [v.get("query") for v in board["templating"]["list"]]])
    text += str([v.get("datasource") for v in board["templating"]["list"]])
    used = {a or b for a, b in re.findall(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})", text)}
    grafanas = {"__rate_interval", "__interval", "timeFilter", "__url_time_range", "col", "tag_asset"}
    assert used - grafanas - {"__data", "1"} == mine, name


@pytest.fixture(scope="module")
def labels_of(make_published: Metrics) -> dict[str, set[str]]:
    """Metric -> its labels: of a worker, of the recording rules, and of Prometheus itself."""
    target = {"job", "instance"}
    found: dict[str, set[str]] = {"up": set(target), "ALERTS": {"alertname", "alertstate", *target}}
    for family in make_published.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set(target)).update(sample.labels)
    for group in yaml.safe_load((ROOT / "deploy/prometheus/headrace.rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                by = re.findall(r"by \(([\w, ]+)\)", rule["expr"])
                found[rule["record"]] = {label.strip() for labels in by for label in labels.split(",")} - {"le"}
                if not by:  # made of other recordings
                    found[rule["record"]] = found[next(name for name in found if name in rule["expr"] and ":" in name)]
    return found


@pytest.fixture(scope="module")
def make_published() -> Metrics:
    """The metrics of a worker that has seen one of everything."""
    metrics = Metrics(version="1", site="north")
    metrics.loaded([("d", "k", "v")])
    metrics.known("kafka")
    metrics.watch(InfluxSink(InfluxSettings(url="")))
    metrics.state.begun_anew("broken")
    one = np.ones(1)
    none = np.zeros((1, 0))
    scores = Scores(
        "d", "k", "v", ("a",), np.zeros(1, np.int32), np.ones(1, np.int64), one, one, np.ones(1, bool), (),
        none, none, None, None, np.zeros(1, np.uint8),
    )  # fmt: skip
    metrics.observe(Output(scores=(scores,), counts={"records": 1}, stage_s={"decode": 0.1}, produced_ms=1))
    return metrics


def _selectors(expression: Any) -> Iterator[tuple[str, list[Any]]]:
    """(metric, matchers) of every selector in a parsed expression."""
    if isinstance(expression, promql.VectorSelector):
        yield expression.name or "", list(expression.matchers.matchers)
        return
    for name in ("vector_selector", "vs", "expr", "lhs", "rhs", "param"):
        child = getattr(expression, name, None)
        if child is not None:
            yield from _selectors(child)
    for child in getattr(expression, "args", None) or ():
        yield from _selectors(child)


def _expressions() -> list[tuple[str, str]]:
    """(where, PromQL) of dashboards and rules, variables filled in."""
    panel = (query for query in queries() if query.kind == "panel" and query.source == "prometheus")
    found = [(str(query), filled(query.text, VALUES)) for query in panel]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/headrace.rules.yaml").read_text())["groups"]:
        found += [(rule.get("record") or rule["alert"], rule["expr"]) for rule in group["rules"]]
    return found


@pytest.mark.parametrize(("where", "expression"), _expressions())
def test_every_expression_parses_and_asks_for_what_there_is(
    where: str, expression: str, labels_of: dict[str, set[str]]
) -> None:
    selectors = list(_selectors(promql.parse(expression)))
    assert selectors, where
    for metric, matchers in selectors:
        assert metric in labels_of, f"{where}: there is no metric {metric}"
        assert {matcher.name for matcher in matchers} <= labels_of[metric], f"{where}: {metric} has no such label"


@pytest.mark.parametrize("query", [query for query in queries() if query.source == "influxdb"], ids=str)
def test_every_influxql_says_how_its_variables_are_written(query: Query) -> None:
    text = query.text
    own = set(re.findall(r"\$(\w+)", text)) - {"timeFilter", "__interval"}
    assert not own, f"{query}: write ${{{own}:regex}} or ${{{own}:raw}}: Grafana's releases differ without"
    assert filled(text, VALUES).startswith(("SELECT ", "SHOW "))
    for name in re.findall(r"\$\{(\w+):regex\}", text):
        assert f"/^${{{name}:regex}}$/" in text, f"{query}: anchors"
    if text.startswith("SELECT"):
        assert "$timeFilter" in text, query
        assert query.text.count("GROUP BY time(") <= 1
