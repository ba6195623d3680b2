"""The pieces that the report's sections are made of."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(heading: str, head: str, rows: Sequence[str], total: int) -> str:
    """A section with a table; ``total``: how many rows there would be, where not all are shown."""
    more = f'<p class="muted">{total - len(rows)} more are not shown.</p>' if total > len(rows) else ""
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<section><h2>{escape(heading)}</h2><div class="scroll">{body}</div>{more}</section>'


def cards(heading: str, cards: Sequence[str]) -> str:
    """Cards side by side where there is room."""
    title = f"<h2>{escape(heading)}</h2>" if heading else ""
    return f'{title}<div class="cards">{"".join(cards)}</div>'
