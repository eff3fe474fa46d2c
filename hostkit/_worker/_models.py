"""Read and write pydantic's models with what their classes carry; pydantic itself is imported by the plugin or by nobody."""

from __future__ import annotations

import sys

from ._data import MOST_ROWS, DataError, found, join, no_such_field
from ._failure import clean, message, type_name
from ._json import check_model_json, dump_json, load_json, model_json
from ._numbers import check_numbers, is_suspect
from ._schema import is_carrying, walk_schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def is_pydantic(annotation: Any) -> bool:
    """Whether an annotation is pydantic's, or has a part that is."""
    if "pydantic" not in sys.modules or hasattr(annotation, "__hostkit_convert__"):
        return False
    if hasattr(annotation, "__pydantic_core_schema__") or hasattr(annotation, "__get_pydantic_core_schema__"):
        return True
    if any(_module(part).startswith(("pydantic", "annotated_types")) for part in getattr(annotation, "__metadata__", ())):
        return True
    inner = (*_arguments(annotation), getattr(annotation, "__origin__", None))
    return any(is_pydantic(part) for part in inner if part is not None and part is not annotation)


def _arguments(annotation: Any) -> tuple[Any, ...]:
    arguments = getattr(annotation, "__args__", ())
    return arguments if isinstance(arguments, tuple) else ()


def _module(part: object) -> str:
    module = getattr(type(part), "__module__", "")
    return module if isinstance(module, str) else ""


class ModelCodec:
    """A pydantic model, or an annotation with pydantic's parts in it.

    A model that says nothing of extra fields means "no others": a mistyped name is an error, not lost data. ``tolerant``
    leaves them to pydantic, which ignores them. Raises ``TypeError`` and ``NameError`` where pydantic can't make anything of
    the annotation.
    """

    def __init__(self, annotation: Any, *, tolerant: bool) -> None:
        self.type: type | None = None
        schema: Any
        if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
            self.type = annotation
            self._validator, schema = _completed(annotation)
            model: Any = annotation
            self._write = model.__pydantic_serializer__.to_json
        else:
            adapter = _adapter(annotation)
            self._validator, schema = adapter.validator, adapter.core_schema
        said = list(walk_schema(schema))
        self.carries: bool | None = any(map(is_carrying, said))
        self._names = list(dict.fromkeys(name for part in said for name in _names(part)))
        self._computes = any(part.get("computed_fields") for part in said)
        lenient = any(part.get("extra_fields_behavior") in ("allow", "ignore") for part in said)
        # pydantic's own switch goes before what nested models say, and older ones haven't got it: then we look ourselves.
        self._looks = not tolerant and (lenient or not _takes_extra())
        self._strict = {} if tolerant or self._looks else {"extra": "forbid"}

    def decode(self, payload: bytes) -> Any:
        """Return what ``payload`` means as this type. Raises ``DataError``."""
        if is_suspect(payload):
            if b"NaN" in payload or b"Infinity" in payload:
                load_json(payload)  # pydantic takes the constants, JSON has none
            check_numbers(payload)
        try:
            value = self._validator.validate_json(payload, **self._strict)
        except MemoryError:
            raise
        except Exception as error:  # pydantic's ValidationError, or what a model's own validators raise
            raise _from_pydantic(error, self._names) from None
        if self._looks:
            rows = list(_unknown(value, load_json(payload), ""))
            if rows:
                raise DataError.of(rows[:MOST_ROWS])
        return value

    def encode(self, value: object, *, round_trip: bool = False) -> bytes:
        """Return ``value`` as JSON. Raises ``DataError`` where it is no data or not of this type."""
        if round_trip and type(value) is self.type:
            try:
                payload: bytes = self._write(value, by_alias=True, round_trip=True, warnings=False)
            except Exception:
                return model_json(value, round_trip=True)  # which tells what is wrong
            if is_suspect(payload):
                check_model_json(payload, value, round_trip=True)
            return payload
        if self.type is not None and isinstance(value, self.type):
            # Whoever reads it as a type will check it.
            return model_json(value, round_trip=True) if round_trip else self._checked(value)
        # Not what was promised as it stands; what it means as data decides.
        payload = dump_json(value, round_trip=True)
        self.decode(payload)
        return dump_json(value) if self._computes and not round_trip else payload

    def _checked(self, value: Any) -> bytes:
        """Write a model for somebody who takes it as it comes: pydantic doesn't check what is assigned to a field."""
        try:
            payload: bytes = type(value).__pydantic_serializer__.to_json(value, by_alias=True, warnings="error")
        except MemoryError:
            raise
        except Exception:  # a field of another type, or what model_json will tell
            payload = model_json(value, round_trip=False)
            self.decode(model_json(value, round_trip=True))
            return payload
        check_model_json(payload, value, round_trip=False)
        return payload


def _completed(model: Any) -> tuple[Any, Any]:
    """Return a model's validator and schema, after it has looked again for what its annotations name."""
    if not getattr(model, "__pydantic_complete__", True):
        if hasattr(model, "model_rebuild"):
            model.model_rebuild()
        else:
            sys.modules["pydantic.dataclasses"].rebuild_dataclass(model)
    return model.__pydantic_validator__, model.__pydantic_core_schema__


def _adapter(annotation: Any) -> Any:
    try:
        return sys.modules["pydantic"].TypeAdapter(annotation)
    except NameError:
        raise
    except Exception as error:  # pydantic's errors are RuntimeErrors and more, and models have hooks
        raise TypeError(message(error).partition("\n")[0]) from error


def _names(part: dict[str, Any]) -> Iterator[str]:
    """Yield the names by which a model's fields are given."""
    fields = part.get("fields")
    if isinstance(fields, dict):
        for name, field in fields.items():
            alias = field.get("validation_alias") if isinstance(field, dict) else None
            yield alias if isinstance(alias, str) else str(name)
    elif isinstance(fields, list):
        for field in fields:
            if isinstance(field, dict) and isinstance(field.get("name"), str):
                yield field["name"]


def _takes_extra() -> bool:
    version = getattr(sys.modules.get("pydantic"), "VERSION", "2.0").split(".")
    return (int(version[0]), int(version[1])) >= (2, 12)


def _unknown(value: Any, data: Any, path: str) -> Iterator[dict[str, str]]:
    """Yield a row for every field of ``data`` that a silent model in ``value`` doesn't have."""
    kind = type(value)
    fields = getattr(kind, "__pydantic_fields__", None) or getattr(kind, "model_fields", None)
    if getattr(kind, "__pydantic_root_model__", False):
        yield from _unknown(value.root, data, path)
    elif isinstance(fields, dict) and isinstance(data, dict):
        by_alias = {_alias(name, field): name for name, field in fields.items()}
        for given, part in data.items():
            name = by_alias.get(given, given if given in fields else None)
            if name is not None:
                yield from _unknown(getattr(value, name, None), part, join(path, given))
            elif not _says_extra(kind) and not _has_paths(fields):
                yield {"path": join(path, given), "expected": no_such_field(given, by_alias), "found": found(part)}
    elif isinstance(value, dict) and isinstance(data, dict) and len(value) == len(data):
        for (key, part), inner in zip(data.items(), value.values()):
            yield from _unknown(inner, part, join(path, key))
    elif isinstance(value, (list, tuple)) and isinstance(data, list):
        for index, (inner, part) in enumerate(zip(value, data)):
            yield from _unknown(inner, part, join(path, index))


def _alias(name: str, field: Any) -> str:
    alias = getattr(field, "validation_alias", None) or getattr(field, "alias", None)
    return alias if isinstance(alias, str) else name


def _has_paths(fields: dict[str, Any]) -> bool:
    """Whether a field is read from somewhere else than a key of its own: then no key can be called unknown."""
    return any(not isinstance(getattr(field, "validation_alias", None), (str, type(None))) for field in fields.values())


def _says_extra(kind: Any) -> bool:
    config = getattr(kind, "model_config", None) or getattr(kind, "__pydantic_config__", None) or {}
    return "extra" in config


def _from_pydantic(error: Exception, names: list[str]) -> DataError:
    try:
        told = error.errors(include_url=False)  # type: ignore[attr-defined]
        rows = [_row(row, names) for row in told[:MOST_ROWS]]
    except Exception:  # no ValidationError, but whatever a model's own validators raised
        rows = []
    return DataError.of(rows) if rows else DataError("", "valid data", f"{type_name(error)}: {message(error)}")


def _row(row: dict[str, Any], names: list[str]) -> dict[str, str]:
    path = ""
    for part in row["loc"]:
        path = join(path, part)
    if row["type"] == "hostkit":
        return {"path": clean(path), "expected": clean(row["ctx"]["expected"]), "found": clean(row["ctx"]["found"])}
    missing = row["type"] == "missing"
    if row["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        expected = no_such_field(str(row["loc"][-1]), names)
    else:
        expected = "this field" if missing else _expected(str(row["msg"]))
    return {"path": clean(path), "expected": expected, "found": "nothing" if missing else found(row["input"])}


def _expected(words: str) -> str:
    for prefix in ("Input should be ", "Value error, ", "Assertion failed, "):
        words = words.removeprefix(prefix)
    return clean(words[:500])
