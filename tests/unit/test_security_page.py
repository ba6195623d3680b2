"""docs/security.md names the tests that show what it says: they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TESTS = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:[\w/]+/)?test_\w+\.py)`", PAGE)
    assert len(named) > 15
    for name in named:
        assert (ROOT / name).is_file() if "/" in name else name in TESTS, name


def test_every_part_of_a_tests_name_is_in_it() -> None:
    for name, parts in re.findall(r"`((?:[\w/]+/)?test_\w+\.py)` \(((?:`\w+`(?:, )?)+)\)", PAGE):
        source = (ROOT / name if "/" in name else TESTS[name]).read_text(encoding="utf-8")
        for part in re.findall(r"`(\w+)`", parts):
            assert part in source, f"{name} has nothing called {part}"


def test_every_threat_names_what_shows_that_it_is_stopped() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and line.count(" | ") >= 2]
    threats = [row for row in rows if not row.startswith(("| Could", "| Who"))]
    shown = [row for row in threats if "test_" in row or "make " in row or "docs/event-time.md" in row]
    open_ones = [row for row in threats if row not in shown]
    rights = [row for row in open_ones if "plant." in row]  # the table of who may write what
    admitted = [row for row in open_ones if re.search(r"\| nothing[:,]|not tested here|set quotas", row)]
    assert sorted(rights + admitted) == sorted(open_ones)
    assert len(shown) >= 15
