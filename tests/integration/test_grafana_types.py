"""The dashboards' JSON against Grafana's own published types: TypeScript's compiler finds fields that do not exist."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typescript import MODULES, compiled, need_modules

from dashboards import boards, panels

pytestmark = pytest.mark.servers

RAW = MODULES / "@grafana" / "schema" / "dist" / "esm" / "raw"
KINDS = {
    "timeseries": "TimeSeries",
    "stat": "Stat",
    "table": "Table",
    "heatmap": "Heatmap",
    "statushistory": "StatusHistory",
}
#: Enumerations are written as their values in JSON; a panel may leave out what has a default.
PRELUDE = """
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends (infer U)[] ? Plain<U>[] : unknown extends T ? T : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Custom<F> = Omit<dashboard.FieldConfig, "custom"> & { custom?: F };
type Config<F> = { defaults: Plain<Custom<F>>; overrides: Plain<dashboard.FieldConfigSource["overrides"]> };
type Of<O, F> = Plain<Omit<dashboard.Panel, "options" | "fieldConfig">> &
  { options?: Partial<Plain<O>>; fieldConfig?: Config<F> };
type Influx = { refId: string; datasource: { type: "influxdb"; uid: string }; query: string; rawQuery: true;
  resultFormat: "time_series" | "table"; alias?: string };
"""
#: Options that have no type of their own in the schema.
NO_FIELDS = {"stat": "{}", "table": "common.TableFieldOptions"}


@pytest.fixture(scope="module")
def compile_with_types(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compile a text; returns what the compiler says, "" if nothing."""
    need_modules()
    folder = tmp_path_factory.mktemp("types")
    imports = [
        f'import type * as dashboard from "{RAW}/dashboard/x/dashboard_types.gen";',
        f'import type * as common from "{RAW.parent}/index";',
        f'import type {{ PrometheusDataQuery }} from "{folder}/prometheus";',
    ]
    for kind, name in KINDS.items():
        imports.append(f'import type * as {kind} from "{RAW}/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen";')
    (folder / "prometheus.d.ts").write_text(
        "export type PrometheusDataQuery = { refId: string; datasource: { type: 'prometheus'; uid: string };"
        "expr: string; range?: boolean; instant?: boolean; legendFormat?: string;"
        "format?: 'time_series' | 'table' | 'heatmap' };"
    )

    def run(text: str) -> str:
        return compiled(folder, "\n".join([*imports, PRELUDE, text]))

    return run


def _typed(name: str, panel: Any) -> str:
    kind = panel["type"].replace("-", "")
    fields = NO_FIELDS.get(kind, f"{kind}.FieldConfig")
    value = {key: held for key, held in panel.items() if key != "targets"}
    lines = [f"const {name}: Of<{kind}.Options, {fields}> = {json.dumps(value)};"]
    for number, target in enumerate(panel["targets"]):
        of = "PrometheusDataQuery" if target["datasource"]["type"] == "prometheus" else "Influx"
        lines.append(f"const {name}_{number}: {of} = {json.dumps(target)};")
    return "\n".join(lines)


def test_every_dashboard_has_only_what_grafana_knows(compile_with_types: Any) -> None:
    text = []
    for name, board in boards().items():
        plain = name.replace("-", "_")
        head = {key: held for key, held in board.items() if key not in {"panels", "annotations"}}
        for variable in head["templating"]["list"]:
            for key in ("auto", "auto_count", "auto_min"):  # the SDK writes them everywhere; only intervals have them
                variable.pop(key, None)
        type_ = 'Partial<Plain<Omit<dashboard.Dashboard, "panels" | "annotations">>>'
        text.append(f"const {plain}: {type_} = {json.dumps(head)};")
        text += [_typed(f"{plain}_{panel['id']}", panel) for panel in panels(board)]
    assert compile_with_types("\n".join(text)) == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda panel: panel["options"].update(legned={}), "legned"),
        (lambda panel: panel["fieldConfig"]["defaults"].update(unti="s"), "unti"),
        (lambda panel: panel["fieldConfig"]["defaults"]["custom"].update(drawStyle="scribble"), "scribble"),
        (lambda panel: panel["targets"][0].update(expression="up"), "expression"),
        (lambda panel: panel["gridPos"].update(h="8"), "number"),
    ],
)
def test_what_grafana_does_not_know_is_found(compile_with_types: Any, change: Any, named: str) -> None:
    panel = next(panel for panel in panels(boards()["detectors"]) if panel["title"] == "Alerts opened, by detector")
    change(panel)
    assert named in compile_with_types(_typed("wrong", panel))
