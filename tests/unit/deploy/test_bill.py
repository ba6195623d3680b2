"""What is in the bill of materials, and what is said when nobody answers for it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bill() -> ModuleType:
    path = Path(__file__).parents[3] / "deploy" / "bill.py"
    spec = importlib.util.spec_from_file_location("bill", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_names_what_headrace_needs_to_run_and_nothing_else(bill: ModuleType) -> None:
    needed = bill.needed()
    assert {
        "headrace",
        "aiokafka",
        "kafka-python",
        "faust-streaming",
        "numpy",
        "influxdb-client",
        "yarl",
    } <= needed.keys()
    assert not {"pytest", "mypy", "ruff", "hypothesis", "matplotlib"} & needed.keys()


def test_a_bill_is_cut_to_these_with_the_edges_between_them(bill: ModuleType) -> None:
    whole = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"name": "Kafka_Python", "bom-ref": "k"}, {"name": "pytest", "bom-ref": "p"}],
        "dependencies": [{"ref": "root", "dependsOn": ["k", "p"]}, {"ref": "k"}, {"ref": "p"}],
    }
    cut = bill.trimmed(whole, {"kafka-python"})
    assert [held["bom-ref"] for held in cut["components"]] == ["k"]
    assert cut["dependencies"] == [{"ref": "root", "dependsOn": ["k"]}, {"ref": "k", "dependsOn": []}]


GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("answered", "status", "said"),
    [
        ([GOOD], 0, "1 of 1 packages checked, 0 known holes"),
        ([GOOD, BAD], 1, "b 2: CVE-1, mended in 3"),
        ([GOOD, UNKNOWN], 1, "c was not checked"),
        ([UNKNOWN, UNKNOWN], 3, "nothing was checked"),
        (None, 3, "nothing was checked, the advisory service gives no answers: no route"),
    ],
)
def test_silence_is_no_pass(
    bill: ModuleType,
    answered: list[dict[str, object]] | None,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = "" if answered is None else json.dumps({"dependencies": answered})
    assert bill.verdict(output, "ERROR\nno route", 1 if answered is None else len(answered)) == status
    out = capsys.readouterr()
    assert said in out.out + out.err
