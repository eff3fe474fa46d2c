"""Converters for what JSON has as one value: text, numbers, choices, and what is written as text."""

from __future__ import annotations

from ._data import DataError, found, listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Converter = Callable[[Any], Any]


def exactly(kind: type, words: str) -> Converter:
    def convert(value: object) -> object:
        if type(value) is not kind:
            raise DataError("", words, found(value))
        return value

    return convert


def _float(value: object) -> float:
    if type(value) is float and -_INFINITY < value < _INFINITY:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise DataError("", "a number that fits a float", found(value)) from None
    raise DataError("", "a number", found(value))


_INFINITY = float("inf")

SCALARS: Mapping[type, Converter] = {
    str: exactly(str, "text"),
    int: exactly(int, "a whole number"),
    bool: exactly(bool, "true or false"),
    float: _float,
}


def literal(choices: tuple[Any, ...]) -> Converter:
    for choice in choices:
        if not isinstance(_as_data(choice), (str, int, type(None))):
            raise TypeError(f"{choice!r} is nothing that JSON data can be")
    return _one_of(choices)


def enumeration(kind: Any) -> Converter:
    return _one_of(tuple(kind))


def _one_of(choices: tuple[Any, ...]) -> Converter:
    words = f"one of {listed(repr(_as_data(choice)) for choice in choices)}"

    def convert(value: Any) -> Any:
        for choice in choices:
            data = _as_data(choice)
            if value == data and (type(value) is bool) is (type(data) is bool):
                return choice
        raise DataError("", words, found(value))

    return convert


def _as_data(choice: Any) -> Any:
    """Return what JSON has for a choice: an enumeration's member is its value."""
    return choice.value if any((base.__module__, base.__name__) == ("enum", "Enum") for base in type(choice).__mro__) else choice


def parsed(parse: Callable[[str], Any], words: str) -> Converter:
    def convert(value: Any) -> Any:
        if type(value) is str:
            try:
                return parse(value)
            except (ValueError, ArithmeticError):
                pass
        raise DataError("", words, found(value))

    return convert


def whole_number(text: str) -> int:
    number = int(text)
    if str(number) != text:  # " 1", "01" and "1_0" would collide with other keys
        raise ValueError(text)
    return number


def finite_number(text: str) -> float:
    number = float(text)
    if not -_INFINITY < number < _INFINITY:
        raise ValueError(text)
    return number


def _moment(kind: Any) -> Converter:
    # Before 3.11 fromisoformat doesn't know the Z that pydantic and JavaScript write.
    return parsed(lambda text: kind.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text), _text_of(kind))


def _decimal(kind: Any) -> Converter:
    def convert(value: Any) -> Any:
        if type(value) in (int, float, str):
            try:
                number = kind(str(value))
                if number.is_finite():
                    return number
            except ArithmeticError:
                pass
        raise DataError("", f"a number, or {_text_of(kind)}", found(value))

    return convert


def _text_of(kind: Any) -> str:
    return f"the text of a {kind.__name__}"


PARSED: Mapping[tuple[str, str], Callable[[Any], Converter]] = {
    ("datetime", "datetime"): _moment,
    ("datetime", "date"): lambda kind: parsed(kind.fromisoformat, _text_of(kind)),
    ("datetime", "time"): _moment,
    ("uuid", "UUID"): lambda kind: parsed(kind, _text_of(kind)),
    ("decimal", "Decimal"): _decimal,
    ("pathlib", "Path"): lambda kind: parsed(kind, _text_of(kind)),
    ("pathlib", "PurePath"): lambda kind: parsed(kind, _text_of(kind)),
}
