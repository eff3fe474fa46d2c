"""Data that is not what was expected, and the words for it."""

from __future__ import annotations

from itertools import islice

from ._failure import class_name, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Rows of one error: whoever reads it mends the first few, and a million wrong keys must not become a million rows.
MOST_ROWS = 20

_FOUND_LIMIT = 120
_PATH_LIMIT = 300


class DataError(Exception):
    """Data that is not what was expected; ``rows`` are ``{"path", "expected", "found"}``, all text."""

    def __init__(self, path: str, expected: str, seen: str) -> None:
        super().__init__(path, expected, seen)
        self.rows = [{"path": path, "expected": expected, "found": seen}]

    @classmethod
    def of(cls, rows: Iterable[dict[str, str]]) -> DataError:
        """Return one error of several rows."""
        error = cls("", "", "")
        error.rows = list(rows)
        return error

    def under(self, part: object) -> DataError:
        """Return this error as it is told one level further out, where what is wrong is in ``part``."""
        return DataError.of({**row, "path": join(str(part), row["path"])} for row in self.rows)

    def __str__(self) -> str:
        return "; ".join(
            f"{row['path'] + ': ' if row['path'] else ''}expected {row['expected']}, found {row['found']}" for row in self.rows
        )


def too_deep() -> DataError:
    """Return the error for data that recursion can't follow."""
    return DataError("", "data that is not nested so deep", "data nested beyond the interpreter's limit, or within itself")


def found(value: object) -> str:
    """Return a short text of what was found instead; never raises."""
    try:
        text = str.__getitem__(repr(_beginning(value)), slice(_FOUND_LIMIT + 1))
    except BaseException:  # a foreign __repr__
        return f"<{class_name(type(value))}>"
    return clean(text if len(text) <= _FOUND_LIMIT else text[: _FOUND_LIMIT - 3] + "...")


def _beginning(value: Any) -> Any:
    """Return as much of a value as its text will show: the whole text of a large one would be as large."""
    kind = type(value)
    if kind in (str, bytes, list, tuple) and len(value) > _FOUND_LIMIT:
        return value[:_FOUND_LIMIT]
    if kind is dict and len(value) > _FOUND_LIMIT:
        return dict(islice(value.items(), _FOUND_LIMIT))
    return value


def no_such_field(name: str, names: Iterable[str]) -> str:
    """Return what was expected where a field of that name is not known, with the nearest name that is."""
    import difflib  # only a failing call pays for it

    known = list(names)
    near = difflib.get_close_matches(name[:_FOUND_LIMIT], known, 1)
    return f"a known field (did you mean {near[0]!r}?)" if near else f"a known field ({listed(known)})"


def listed(names: Iterable[str]) -> str:
    """Return the first names of many."""
    first = list(islice(names, MOST_ROWS + 1))
    return ", ".join([*first[:MOST_ROWS], "…"] if len(first) > MOST_ROWS else first) or "none"


def join(path: str, part: object) -> str:
    """Return the path of a part of what is at ``path``; either may be empty."""
    joined = ".".join(filter(None, (path, str(part))))
    if not joined.isascii():
        joined = clean(joined)  # a key may have half a character
    return joined if len(joined) <= _PATH_LIMIT else f"{joined[: _PATH_LIMIT // 2]}…{joined[-_PATH_LIMIT // 2 :]}"
