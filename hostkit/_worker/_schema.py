"""What the core schema of a pydantic model tells, and whether its instances hold buffers."""

from __future__ import annotations

from . import _buffers
from ._data import DataError, found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def refuse_without_buffers(model: Any) -> None:
    """Refuse a model that holds buffers where none are collected yet: it would be written as text. Raises ``DataError``."""
    kind = type(model)
    carries = _carrying.get(kind)
    if carries is None:
        schema = getattr(kind, "__pydantic_core_schema__", None)
        carries = _carrying[kind] = any(is_carrying(part) for part in walk_schema(schema))
    if carries and _buffers.current() is None:
        raise DataError("", "JSON data", found(model))


_carrying: dict[type, bool] = {}


def is_carrying(part: dict[str, Any]) -> bool:
    """Whether a part of a core schema is a Blob's or an Array's."""
    said = part.get("metadata")
    return isinstance(said, dict) and said.get("hostkit_carries") is True


def walk_schema(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every dictionary in a core schema that can say something of models and their fields."""
    left: list[Any] = [schema]
    seen: set[int] = set()
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            yield part
            # Of a node of the schema; in a table of fields these are fields.
            skipped = ("default", "metadata") if isinstance(part.get("type"), str) else ()
            left.extend(value for key, value in part.items() if key not in skipped)
        elif isinstance(part, (list, tuple)):
            left.extend(part)
