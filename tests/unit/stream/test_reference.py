"""The reference page: made from the code, current, and with nothing left unexplained."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from stream import reference

ROOT = Path(__file__).parents[3]
KINDS = [*reference._PLAN.values(), *reference._ENVIRONMENT]


def test_what_is_committed_is_what_the_code_says() -> None:
    committed = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert committed == reference.page(), "docs/reference.md is not current: run `make docs` and commit it"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_setting_is_explained(kind: type[BaseModel]) -> None:
    fields = {
        name
        for name, field in kind.model_fields.items()
        if not (field.exclude or isinstance(field.default, reference._SECTIONS))
    }
    assert fields - reference.described(kind).keys() == set(), f"{kind.__name__}: say in its docstring what these mean"


def test_a_docstring_says_the_bounds_the_default_and_the_text() -> None:
    page = reference.page()
    assert "| `lateness_s` | number, at least 0, at most 86,400 | 0 | how late a reading may be" in page
    assert "| `HEADRACE_KAFKA_PASSWORD` | secret |  | or `password_file` |" in page
    assert "| `plant.alerts.v1` | `topics.alerts` |" in page
    assert "| `headrace_open_alerts` | gauge | `detector`, `severity` |" in page
    assert "| `lstm_forecaster` |" in page
    assert '| `severity` | `"critical"` or `"major"` or `"warning"` | required |' in page
