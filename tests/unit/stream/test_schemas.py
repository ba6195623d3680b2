from pathlib import Path

import pytest

from stream.schemas import schemas, text

FOLDER = Path(__file__).parents[3] / "docs" / "schemas"


@pytest.mark.parametrize("name", sorted(schemas()))
def test_the_published_schema_is_what_the_code_does(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == text(schemas()[name]), (
        "run: python -m stream.schemas docs/schemas"
    )


def test_no_schema_is_left_over() -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(schemas())
