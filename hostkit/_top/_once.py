"""One look at a host as a plain table: a line a plugin, every column, no cell but the last one with a blank in it."""

from __future__ import annotations

from collections.abc import Iterator

from . import _words
from ._columns import ALL, TREND, Column, Order
from ._rows import Look, Row


def table(look: Look) -> Iterator[str]:
    """Yield the lines, the headings first."""
    columns = [column for column in ALL if column is not TREND]
    rows = [[_cell(column, row) for column in columns] for row in Order().sort(look.rows)]
    cells = [[column.heading.replace(" ", "-") for column in columns], *rows]
    widths = [max(map(_words.width, words)) for words in zip(*cells, strict=True)]
    for line in cells:
        yield " ".join(map(_words.padded, line, widths, (column.right for column in columns))).rstrip()


def _cell(column: Column, row: Row) -> str:
    words = _words.short(column.words(row), 200)
    return words if column is ALL[-1] else words.replace(" ", "-") or _words.UNKNOWN
