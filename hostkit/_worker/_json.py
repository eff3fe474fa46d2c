"""Strict JSON in both directions, and what objects of well-known kinds are as JSON data."""

from __future__ import annotations

import json

from . import _buffers
from ._data import DataError, found, join, too_deep
from ._failure import class_name, message, type_name
from ._numbers import FEWEST_DIGITS, MOST_BITS, check_numbers, is_suspect, too_large
from ._schema import refuse_without_buffers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_BACKSLASH = ord("\\")
_INFINITY = float("inf")
_FINITE = "a finite number"


def load_json(payload: bytes) -> Any:
    """Parse strict JSON: UTF-8, no NaN or Infinity, no lone surrogates. Raises ``DataError``."""
    try:
        value = _read(payload.decode("utf-8"))
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:
        raise DataError("", "valid JSON", message(error)) from None
    if _BACKSLASH in payload and payload.find(b"\\u") >= 0:
        _check_text(value)
    return value


def _read(text: str) -> Any:
    # The decoder's own method looks for space around the data with a regular expression, which takes longer than a small message.
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass
    return _decoder.decode(text)


def _check_text(value: object) -> None:
    # Only an escape can bring in a surrogate without its partner, which no UTF-8 can hold.
    try:
        _encoder.slow.encode(value).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise _fault(value, error) from None


def dump_json(value: object, *, round_trip: bool = False) -> bytes:
    """Write a value as JSON. Raises ``DataError`` that says where the part is that is no data.

    ``round_trip`` leaves out what pydantic models compute, as their own readers don't take it.
    """
    encoder = _round_trip_encoder if round_trip else _encoder
    try:
        payload = _with_any_keys(encoder, value).encode("utf-8")
    except MemoryError:
        raise
    except Exception as error:  # what is written may be foreign objects with conversions of their own
        raise _fault(value, error) from None
    if len(payload) >= FEWEST_DIGITS:
        check_numbers(payload)
    return payload


def _with_any_keys(encoder: _Encoder, value: object) -> str:
    try:
        return "".join(encoder.write(value, 0))
    except RecursionError:
        return encoder.slow.encode(value)  # tells a cycle from data that is only deep
    except TypeError as error:
        if not str(error).startswith("keys must be"):
            raise
        return encoder.slow.encode(_keyed(value, encoder.slow.default))


def _keyed(value: Any, plain: Callable[[Any], Any]) -> Any:
    """Turn keys such as dates and ids into their text, as pydantic does; the encoder asks nobody about keys."""
    if not isinstance(value, _DATA):
        value = plain(value)
    if isinstance(value, dict):
        return {key if isinstance(key, _DATA) else plain(key): _keyed(part, plain) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_keyed(part, plain) for part in value]
    return value


def model_json(value: Any, *, round_trip: bool) -> bytes:
    """Write an instance of a pydantic model or dataclass, by its own serializer. Raises ``DataError``."""
    serializer = type(value).__pydantic_serializer__
    try:
        payload: bytes = serializer.to_json(value, by_alias=True, round_trip=round_trip, warnings=False)
    except MemoryError:
        raise
    except Exception as error:  # a model's serializers are foreign code
        raise _model_fault(value, error) from None
    if is_suspect(payload):
        check_model_json(payload, value, round_trip=round_trip)
    return payload


def check_model_json(payload: bytes, value: Any, *, round_trip: bool) -> None:
    """Refuse numbers that pydantic lost on the way, or wrote as what is no JSON. Raises ``DataError``."""
    if b"NaN" in payload or b"Infinity" in payload:
        load_json(payload)  # a model may be configured to write them as constants
    if len(payload) >= FEWEST_DIGITS:
        check_numbers(payload)
    if b"null" in payload:
        # pydantic writes NaN and infinities as null, silently.
        for path in _lost(_as_python(value, round_trip=round_trip), load_json(payload), ""):
            raise DataError(path, _FINITE, "NaN or an infinity")


def _as_python(value: Any, *, round_trip: bool = False) -> Any:
    """Return what a model writes as Python objects, where NaN is still NaN; None where it fails."""
    try:
        return type(value).__pydantic_serializer__.to_python(value, by_alias=True, round_trip=round_trip, warnings=False)
    except MemoryError:
        raise
    except Exception:  # a model's serializers are foreign code
        return None


def _lost(value: Any, written: Any, path: str) -> Iterator[str]:
    """Yield where a float became null."""
    if written is None:
        if isinstance(value, float):
            yield path
    elif isinstance(written, dict):
        if isinstance(value, dict) and len(value) == len(written):
            for (key, part), other in zip(written.items(), value.values()):
                yield from _lost(other, part, join(path, key))
    elif isinstance(written, list) and hasattr(value, "__len__") and len(value) == len(written):
        for index, (other, part) in enumerate(zip(value, written)):
            yield from _lost(other, part, join(path, index))


def _plain(value: Any, *, round_trip: bool = False) -> Any:
    """Say what an object is as JSON data: what pydantic writes for the same types. Raises ``_NoData``."""
    kind = type(value)
    if _buffers.is_big(value):
        if _buffers.current() is None:
            raise _NoData(f"{class_name(kind)} is no JSON data")
        return _buffers.placeholder(value)
    if hasattr(kind, "__pydantic_serializer__"):
        refuse_without_buffers(value)
        return json.loads(model_json(value, round_trip=round_trip))
    if hasattr(kind, "__dataclass_fields__"):
        fields = kind.__dataclass_fields__.items()
        return {name: getattr(value, name) for name, field in fields if field._field_type.name == "_FIELD"}
    for base in kind.__mro__:
        write = _WRITERS.get((base.__module__, base.__qualname__))
        if write is not None:
            return write(value)
    raise _NoData(f"{class_name(kind)} is no JSON data")


class _NoData(TypeError):
    """An object that is nothing in JSON."""


# By name, so that a worker imports none of these modules for plugins that don't.
_WRITERS: dict[tuple[str, str], Callable[[Any], Any]] = {
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


def _fault(value: object, error: Exception) -> DataError:
    """Say what is wrong with a value that couldn't be written; never raises."""
    return _deep(error) or _first_fault(value, _fault_of) or _told(error)


def _model_fault(value: object, error: Exception) -> DataError:
    """The same for a model; it may hold objects that pydantic can write and ``_plain`` can't, so they are not to blame."""
    return _deep(error) or _first_fault(_as_python(value), _fault_of_data) or _told(error)


def _deep(error: Exception) -> DataError | None:
    words = message(error)
    deep = isinstance(error, RecursionError) or any(word in words for word in ("ircular", "recursion", "depth"))
    return too_deep() if deep else None


def _told(error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    words = message(error)
    return DataError("", "JSON data", words if isinstance(error, (TypeError, ValueError)) else f"{type_name(error)}: {words}")


def _first_fault(value: object, fault_of: Callable[[Any, str], DataError | None]) -> DataError | None:
    try:
        for path, part in _walk(value, ""):
            fault = fault_of(part, path)
            if fault is not None:
                return fault
    except Exception:  # noqa: S110 - foreign conversions again; what they raised before is told instead
        pass
    return None


def _fault_of(part: Any, path: str) -> DataError | None:
    if isinstance(part, _DATA):
        return _fault_of_data(part, path)
    try:
        _plain(part)
    except DataError as error:
        return error.under(path)
    except _NoData:
        return DataError(path, _wanted(part), f"{class_name(type(part))} {found(part)}")
    except Exception as error:  # a foreign conversion
        return DataError(path, "JSON data", f"{class_name(type(part))}, which raised {type_name(error)}: {message(error)}")
    return None


def _wanted(part: object) -> str:
    if hasattr(type(part), "__await__"):
        return "JSON data (what execute returns is awaited only where it is an async def)"
    if hasattr(type(part), "__next__") or hasattr(type(part), "__anext__"):
        return "JSON data (what execute returns is a stream only where it is a generator function)"
    return "JSON data"


def _fault_of_data(part: Any, path: str) -> DataError | None:
    if isinstance(part, float) and not -_INFINITY < part < _INFINITY:
        return DataError(path, _FINITE, found(part))
    if isinstance(part, int) and part.bit_length() > MOST_BITS:
        return too_large(path)
    if isinstance(part, str):
        try:
            part.encode("utf-8")
        except UnicodeEncodeError:
            return DataError(path, "text without lone surrogates", found(part))
    return None


_DATA = (str, int, float, bool, type(None), dict, list, tuple)


def _walk(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield every part of a value that can be looked into, each with its path."""
    yield path, value
    if depth > 100:
        return
    if not isinstance(value, _DATA):
        try:
            value = _plain(value)
        except _NoData:
            return
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _walk(part, join(path, key), depth + 1)
            if isinstance(key, (str, float)):
                yield f"{path} key", key
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _walk(part, join(path, index), depth + 1)


def _plain_for_reader(value: Any) -> Any:
    return _plain(value, round_trip=True)


class _Encoder:
    """``slow`` is json's own encoder, ``write`` what that makes anew for each value, made once."""

    def __init__(self, default: Callable[[Any], Any]) -> None:
        self.slow = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=default)
        self.write: Callable[[object, int], Iterable[str]]
        make: Any = getattr(json.encoder, "c_make_encoder", None)  # CPython's
        if make is None:
            self.write = lambda value, _: [self.slow.encode(value)]
        else:
            self.write = make(None, default, json.encoder.encode_basestring, None, ":", ",", False, False, False)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder: Any = json.JSONDecoder(parse_constant=_refuse_constant)  # typeshed doesn't know its scan_once
_scan = _decoder.scan_once
_encoder = _Encoder(_plain)
_round_trip_encoder = _Encoder(_plain_for_reader)
