"""Check and convert plain JSON data by an annotation, with the standard library alone.

Strict on purpose: an ``int`` is no bool and no text, unknown and missing fields are errors. Each converter is built once, when
the plugin is loaded, so an annotation that no data can be is found before the first call.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Converter = Callable[[Any, str], Any]
else:
    Converter = None


class DataError(Exception):
    """Data that is not what was expected; ``rows`` are ``{"path", "expected", "found"}``."""

    def __init__(self, path: str, expected: str, seen: str) -> None:
        super().__init__(path, expected, seen)
        self.rows = [{"path": path, "expected": expected, "found": seen}]

    @classmethod
    def of(cls, rows: Iterable[dict[str, str]]) -> DataError:
        """Return one error of several rows."""
        error = cls("", "", "")
        error.rows = list(rows)
        return error

    def __str__(self) -> str:
        return "; ".join(
            f"{row['path'] + ': ' if row['path'] else ''}expected {row['expected']}, found {row['found']}" for row in self.rows
        )


def is_missing(annotation: object) -> bool:
    """Whether an annotation says nothing: absent, Any, object or a type variable."""
    return (
        annotation is None
        or annotation is object
        or annotation is getattr(sys.modules.get("typing"), "Any", object)
        or type(annotation).__name__ == "TypeVar"
        or isinstance(annotation, str)
    )


def found(value: object) -> str:
    """Return a short text of what was found instead."""
    try:
        text = repr(value)
    except BaseException:  # a foreign __repr__
        return f"<{type(value).__name__}>"
    text = text if len(text) <= 120 else text[:117] + "..."
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def converter(annotation: Any) -> Converter:
    """Return a function of (value, path) that converts JSON data or raises ``DataError``. Raises ``TypeError`` at once
    where the annotation is nothing that data can be."""
    if annotation is None or annotation is type(None):
        return _exactly(type(None), "null")
    if is_missing(annotation):
        return lambda value, path: value
    if hasattr(annotation, "__supertype__"):  # NewType
        return converter(annotation.__supertype__)
    if hasattr(annotation, "__metadata__"):  # Annotated
        return converter(annotation.__origin__)
    origin = getattr(annotation, "__origin__", None)
    name = getattr(origin, "__name__", None) or type(annotation).__name__
    if str(origin) == "typing.Literal":
        return _literal(annotation.__args__)
    if str(origin) == "typing.Union" or name in ("UnionType", "Union"):
        return _union(annotation.__args__)
    if str(origin) in ("typing.Required", "typing.NotRequired", "typing.ReadOnly"):
        return converter(annotation.__args__[0])
    return _of_class(origin or annotation, getattr(annotation, "__args__", ()))


def _of_class(kind: Any, arguments: tuple[Any, ...]) -> Converter:
    if not isinstance(kind, type):
        raise TypeError(f"{kind!r} is nothing that JSON data can be")
    if kind in _SCALARS:
        return _SCALARS[kind]
    if hasattr(kind, "__dataclass_fields__"):
        return _dataclass(kind)
    if hasattr(kind, "__required_keys__"):
        return _typed_dict(kind)
    if kind.__name__ in ("dict", "Mapping", "MutableMapping"):
        return _mapping(arguments)
    if kind is tuple:
        return _tuple(arguments)
    if kind.__name__ in ("list", "Sequence", "MutableSequence", "Iterable", "Collection", "set", "frozenset", "Set"):
        return _sequence(arguments, kind if kind in (set, frozenset) else list)
    if "Enum" in {base.__name__ for base in kind.__mro__}:
        return _parsed(kind, f"one of {[member.value for member in kind]}")
    parse = _PARSED.get((kind.__module__.lstrip("_").partition(".")[0], kind.__name__))
    if parse is not None:
        return _parsed(getattr(kind, parse) if parse else kind, f"the text of a {kind.__name__}", str)
    raise TypeError(f"{kind.__module__}.{kind.__qualname__} is nothing that JSON data can be")


# How the text of a class is read: the name of its constructor, "" for the class itself.
_PARSED = {
    ("datetime", "datetime"): "fromisoformat",
    ("datetime", "date"): "fromisoformat",
    ("datetime", "time"): "fromisoformat",
    ("uuid", "UUID"): "",
    ("decimal", "Decimal"): "",
    ("pathlib", "Path"): "",
    ("pathlib", "PurePath"): "",
}


def _exactly(kind: type, words: str) -> Converter:
    def convert(value: object, path: str) -> object:
        if type(value) is not kind:
            raise DataError(path, words, found(value))
        return value

    return convert


def _float(value: object, path: str) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise DataError(path, "a number that fits a float", found(value)) from None
    raise DataError(path, "a number", found(value))


_SCALARS: Mapping[type, Converter] = {
    str: _exactly(str, "text"),
    int: _exactly(int, "a whole number"),
    bool: _exactly(bool, "true or false"),
    float: _float,
}


def _literal(choices: tuple[Any, ...]) -> Converter:
    def convert(value: Any, path: str) -> Any:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise DataError(path, f"one of {', '.join(map(repr, choices))}", found(value))

    return convert


def _union(choices: tuple[Any, ...]) -> Converter:
    converters = [converter(choice) for choice in choices]
    words = " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices)

    def convert(value: Any, path: str) -> Any:
        for attempt in converters:
            try:
                return attempt(value, path)
            except DataError:
                continue
        raise DataError(path, words, found(value))

    return convert


def _parsed(parse: Callable[[Any], Any], words: str, needs: type | None = None) -> Converter:
    def convert(value: Any, path: str) -> Any:
        try:
            if needs is None or type(value) is needs:
                return parse(value)
        except (ValueError, ArithmeticError, TypeError):
            pass
        raise DataError(path, words, found(value))

    return convert


def _mapping(arguments: tuple[Any, ...]) -> Converter:
    convert_key = _key(arguments[0]) if arguments else _SCALARS[str]
    convert_value = converter(arguments[1]) if arguments else converter(object)

    def convert(value: Any, path: str) -> dict[Any, Any]:
        if type(value) is not dict:
            raise DataError(path, "an object", found(value))
        return {convert_key(key, f"{path} key"): convert_value(part, _join(path, key)) for key, part in value.items()}

    return convert


def _key(annotation: Any) -> Converter:
    """JSON has text keys only; a whole-number key is read back from its text."""
    return _parsed(int, "a whole number as key", str) if annotation is int else converter(annotation)


def _sequence(arguments: tuple[Any, ...], kind: Callable[[Any], Any]) -> Converter:
    convert_part = converter(arguments[0]) if arguments else converter(object)

    def convert(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise DataError(path, "a list", found(value))
        return kind(convert_part(part, _join(path, index)) for index, part in enumerate(value))

    return convert


def _tuple(arguments: tuple[Any, ...]) -> Converter:
    if not arguments or arguments[-1] is Ellipsis:
        return _sequence(arguments[:1], tuple)
    converters = [converter(argument) for argument in arguments]

    def convert(value: Any, path: str) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(converters):
            raise DataError(path, f"a list of {len(converters)}", found(value))
        return tuple(each(part, _join(path, index)) for index, (each, part) in enumerate(zip(converters, value)))

    return convert


def _dataclass(kind: Any) -> Converter:
    hints = _hints(kind)
    fields = {name: field for name, field in kind.__dataclass_fields__.items() if field._field_type.name == "_FIELD"}
    converters = {name: _later(hints.get(name, field.type)) for name, field in fields.items() if field.init}
    missing = sys.modules["dataclasses"].MISSING
    required = {
        name for name in converters if fields[name].default is missing and fields[name].default_factory is missing
    }
    fill = _fields(converters, required)
    return lambda value, path: kind(**fill(value, path))


def _typed_dict(kind: Any) -> Converter:
    converters = {name: _later(hint) for name, hint in _hints(kind).items()}
    return _fields(converters, set(kind.__required_keys__))


def _later(annotation: Any) -> Converter:
    """Build a field's converter at once, unless the type holds itself."""
    if annotation in _being_built:
        return lambda value, path: converter(annotation)(value, path)
    if not (isinstance(annotation, type) or hasattr(annotation, "__args__")):
        return converter(annotation)
    _being_built.append(annotation)
    try:
        return converter(annotation)
    finally:
        _being_built.pop()


_being_built: list[Any] = []


def _fields(converters: dict[str, Converter], required: set[str]) -> Callable[[Any, str], dict[str, Any]]:
    def convert(value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise DataError(path, f"an object with {', '.join(converters)}", found(value))
        rows: list[dict[str, str]] = []
        taken: dict[str, Any] = {}
        for name, part in value.items():
            where = _join(path, name)
            try:
                if name not in converters:
                    raise DataError(where, no_such_field(name, converters), found(part))
                taken[name] = converters[name](part, where)
            except DataError as error:
                rows.extend(error.rows)
        rows.extend(
            {"path": _join(path, name), "expected": "this field", "found": "nothing"}
            for name in converters
            if name in required and name not in value
        )
        if rows:
            raise DataError.of(rows)
        return taken

    return convert


def no_such_field(name: str, names: Iterable[str]) -> str:
    """Return what was expected where a field of that name is not known, with the nearest name that is."""
    import difflib  # only a failing call pays for it

    near = difflib.get_close_matches(name, list(names), 1)
    return f"no such field; did you mean {near[0]!r}?" if near else f"no such field; there is {', '.join(names)}"


def _hints(kind: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):  # annotations are no longer kept in a class's own dict
        import typing

        return typing.get_type_hints(kind)
    hints = {name: hint for base in reversed(kind.__mro__) for name, hint in vars(base).get("__annotations__", {}).items()}
    if not hasattr(kind, "__required_keys__") and hints and not any(isinstance(hint, str) for hint in hints.values()):
        return hints
    import typing  # annotations kept as text, or a TypedDict's bases, need its resolver

    return typing.get_type_hints(kind)


def _join(path: str, part: object) -> str:
    return f"{path}.{part}" if path else str(part)
