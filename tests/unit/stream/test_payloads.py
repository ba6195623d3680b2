"""docs/payloads.md says what the code does."""

import ast
import json
import re
from pathlib import Path

from stream.decode import Decoder
from stream.errors import REASONS
from stream.plan import InputSettings
from stream.records import Record

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "payloads.md").read_text(encoding="utf-8")


def test_the_table_of_reasons_is_that_of_the_code() -> None:
    table = re.findall(r"^\| (\w+) \| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    assert table == [(stage, code, what) for stage, codes in REASONS.items() for code, what in codes.items()]


def test_every_reason_in_the_code_is_in_the_table() -> None:
    used = set()
    for file in [*(ROOT / "stream").rglob("*.py"), ROOT / "models" / "pictures.py"]:
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            place = {"DecodeError": 0, "PictureRefused": 0, "DeadLetter": 2}.get(call.func.id)
            reason = call.args[place] if place is not None and len(call.args) > place else None
            if isinstance(reason, ast.Constant):
                used.add(reason.value)
    assert used == {code for codes in REASONS.values() for code in codes}


def test_the_records_shown_are_taken() -> None:
    shown = re.findall(r"```json\n(.+?)```", PAGE, re.DOTALL)
    assert len(shown) == 2
    records = [Record("readings", 0, offset, text.encode()) for offset, text in enumerate(shown)]
    readings, dead, unknown = Decoder(InputSettings(), ("temperature", "vibration")).decode(records)
    assert (len(readings), dead, unknown) == (4, [], 0)


def test_the_limits_are_the_defaults() -> None:
    settings = InputSettings()
    assert f"{settings.max_readings_per_record:,} readings" in PAGE
    assert settings.max_record_bytes == 1 << 20
    assert "and 1 MiB (`input.max_record_bytes`)" in PAGE
    assert (settings.earliest[:4], settings.latest[:4], settings.time) == ("2000", "2100", "ms")


def test_the_schemas_take_the_names_shown() -> None:
    for name, kind in (("reading", "Reading"), ("frame", "Frame")):
        schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.v1.json").read_text(encoding="utf-8"))
        assert list(schema["$defs"][kind]["properties"]) == ["asset", "ts", "values", "quality"]
