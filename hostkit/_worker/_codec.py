"""Between JSON bytes and the types a plugin or a caller names; the same code in host and worker, so both modes agree.

pydantic is used where an annotation is pydantic's (then its module is loaded already); everything else goes through the
standard library.
"""

from __future__ import annotations

import json
import sys

from ._structure import Converter, DataError, converter, found, is_missing, no_such_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    class Codec(Protocol):
        """Both directions between bytes and one type."""

        # The class whose instances pass by reference in-process; None for plain data, which is always copied.
        type: type | None

        def decode(self, payload: bytes) -> Any:  # Any: an instance of the annotation
            """Return what ``payload`` means as this type. Raises ``DataError``."""
            ...

        def encode(self, value: object, *, round_trip: bool = False) -> bytes:
            """Return ``value`` as JSON. Raises ``DataError`` where it is no data or not of this type."""
            ...


def codec_for(annotation: object, *, tolerant: bool = False) -> Codec:
    """Return the codec for an annotation; ``_structure.is_missing`` ones take any JSON data.

    ``tolerant`` leaves unknown fields to a pydantic model's own configuration, as a reader of answers should. Raises ``TypeError`` where the annotation is nothing that data can be.
    """
    if is_missing(annotation):
        return PlainCodec()
    if _is_pydantic(annotation):
        return _PydanticCodec(annotation, tolerant=tolerant)
    return _StructureCodec(annotation)


def load_json(payload: bytes) -> Any:
    """Parse strict JSON: UTF-8, no NaN or Infinity. Raises ``DataError``."""
    try:
        return _decoder.decode(payload.decode("utf-8"))
    except RecursionError:
        raise DataError("", "JSON that is not nested so deep", "data nested beyond the interpreter's limit") from None
    except ValueError as error:
        raise DataError("", "valid JSON", str(error)) from None


def dump_json(value: object) -> bytes:
    """Write a value as JSON. Raises ``DataError`` that says where the part is that is no data."""
    try:
        return _encoder.encode(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise _fault(value, error) from None


class PlainCodec:
    """Any JSON data, as it is."""

    type = None

    def decode(self, payload: bytes) -> Any:
        return load_json(payload)

    def encode(self, value: object, *, round_trip: bool = False) -> bytes:
        kind = type(value)
        if hasattr(kind, "__pydantic_serializer__"):
            return _model_json(kind, value, round_trip=round_trip)
        return dump_json(value)


class _StructureCodec:
    """A dataclass, a TypedDict or any other annotation of the standard library."""

    def __init__(self, annotation: object) -> None:
        self._convert: Converter = converter(annotation)
        self.type = annotation if isinstance(annotation, type) and hasattr(annotation, "__dataclass_fields__") else None

    def decode(self, payload: bytes) -> Any:
        return self._convert(load_json(payload), "")

    def encode(self, value: object, *, round_trip: bool = False) -> bytes:
        del round_trip  # only pydantic models have computed fields
        payload = dump_json(value)
        self._convert(load_json(payload), "")
        return payload


class _PydanticCodec:
    """A pydantic model, or an annotation with pydantic's parts in it."""

    def __init__(self, annotation: Any, *, tolerant: bool) -> None:
        if isinstance(annotation, type) and hasattr(annotation, "__pydantic_validator__"):
            self.type: type | None = annotation
            self._validator = annotation.__pydantic_validator__
        else:
            self.adapter = sys.modules["pydantic"].TypeAdapter(annotation)
            self.type = None
            self._validator = self.adapter.validator
        config = getattr(annotation, "model_config", {})
        # A model that says nothing of extra fields means "no others": a mistyped name is an error, not lost data.
        self._strict = {"extra": "forbid"} if not tolerant and "extra" not in config and _takes_extra() else {}
        # The author's word that inputs are secrets holds for hostkit's errors, too.
        self._hidden = bool(config.get("hide_input_in_errors"))
        self._names = list(getattr(annotation, "model_fields", ()))

    def decode(self, payload: bytes) -> Any:
        try:
            return self._validator.validate_json(payload, **self._strict)
        except ValueError as error:
            raise _from_pydantic(error, self._names, hidden=self._hidden) from None

    def encode(self, value: object, *, round_trip: bool = False) -> bytes:
        if self.type is not None and isinstance(value, self.type):
            return _model_json(type(value), value, round_trip=round_trip)
        # Not what was promised as it stands; what it means as data decides.
        payload = PlainCodec().encode(value, round_trip=round_trip)
        self.decode(payload)
        return payload


def _model_json(kind: Any, value: object, *, round_trip: bool) -> bytes:
    try:
        payload: bytes = kind.__pydantic_serializer__.to_json(value, by_alias=True, round_trip=round_trip)
    except (ValueError, TypeError, RecursionError) as error:
        raise _fault(value, error) from None
    if b"null" in payload:
        # pydantic writes NaN and infinities as null; only a payload with a null in it can hold one.
        dump_json(kind.__pydantic_serializer__.to_python(value, mode="json", by_alias=True, round_trip=round_trip))
    return payload


def _is_pydantic(annotation: Any) -> bool:
    if "pydantic" not in sys.modules:
        return False
    if hasattr(annotation, "__pydantic_core_schema__") or hasattr(annotation, "__get_pydantic_core_schema__"):
        return True
    if any(_module(part).startswith(("pydantic", "annotated_types")) for part in getattr(annotation, "__metadata__", ())):
        return True
    inner = (*getattr(annotation, "__args__", ()), getattr(annotation, "__origin__", None))
    return any(_is_pydantic(part) for part in inner if part is not None and part is not annotation)


def _module(part: object) -> str:
    module = getattr(type(part), "__module__", "")
    return module if isinstance(module, str) else ""


def _takes_extra() -> bool:
    version = getattr(sys.modules.get("pydantic"), "VERSION", "2.0").split(".")
    return (int(version[0]), int(version[1])) >= (2, 12)


def _from_pydantic(error: Any, names: list[str], *, hidden: bool) -> DataError:
    if not hasattr(error, "errors"):
        return DataError("", "valid data", str(error))
    rows = [
        {
            "path": ".".join(str(part) for part in row["loc"]),
            "expected": _expected(row, names),
            "found": "nothing" if row["type"] == "missing" else "something else" if hidden else found(row["input"]),
        }
        for row in error.errors(include_url=False)[:20]
    ]
    return DataError.of(rows)


def _expected(row: dict[str, Any], names: list[str]) -> str:
    if row["type"] == "extra_forbidden":
        return no_such_field(str(row["loc"][-1]), names)
    if row["type"] == "missing":
        return "this field"
    return str(row["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")


def _fault(value: object, error: Exception) -> DataError:
    for path, part in _walk(value, ""):
        if isinstance(part, float) and (part != part or part in (float("inf"), float("-inf"))):
            return DataError(path, "a finite number", repr(part))
        if isinstance(part, str) and any("\ud800" <= letter <= "\udfff" for letter in part):
            return DataError(path, "text without lone surrogates", found(part))
        if not isinstance(part, _DATA):
            try:
                _plain(part)
            except TypeError:
                return DataError(path, "JSON data", f"{type(part).__qualname__} {found(part)}")
    if isinstance(error, RecursionError) or "ircular" in str(error):
        return DataError("", "data that is not nested so deep", "data nested beyond the interpreter's limit, or within itself")
    return DataError("", "JSON data", str(error))


_DATA = (str, int, float, bool, type(None), dict, list, tuple)


def _walk(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    yield path, value
    if depth > 100:
        return
    if not isinstance(value, _DATA):
        try:
            value = _plain(value)
        except TypeError:
            return
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _walk(part, f"{path}.{key}" if path else str(key), depth + 1)
            if isinstance(key, str):
                yield f"{path} key", key
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _walk(part, f"{path}.{index}" if path else str(index), depth + 1)


def _plain(value: Any) -> Any:
    """Say what an object is as JSON data: what pydantic writes for the same types. Raises ``TypeError``."""
    kind = type(value)
    if hasattr(kind, "__pydantic_serializer__"):
        return kind.__pydantic_serializer__.to_python(value, mode="json", by_alias=True)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in kind.__dataclass_fields__}
    for base in kind.__mro__:
        write = _WRITERS.get((base.__module__, base.__qualname__))
        if write is not None:
            return write(value)
    raise TypeError(f"{kind.__qualname__} is no JSON data")


# By name, so that a worker imports none of these modules for plugins that don't.
_WRITERS = {
    ("enum", "Enum"): lambda value: value.value,
    ("datetime", "date"): lambda value: value.isoformat(),
    ("datetime", "time"): lambda value: value.isoformat(),
    ("uuid", "UUID"): str,
    ("decimal", "Decimal"): str,
    ("_decimal", "Decimal"): str,
    ("pathlib", "PurePath"): str,
    ("pathlib._local", "PurePath"): str,
    ("builtins", "set"): list,
    ("builtins", "frozenset"): list,
    ("collections", "deque"): list,
    ("types", "mappingproxy"): dict,
    ("builtins", "mappingproxy"): dict,
}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_encoder = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)
