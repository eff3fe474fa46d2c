"""Check and convert plain JSON data by an annotation, with the standard library alone.

Strict on purpose: an ``int`` is no bool and no text, unknown and missing fields are errors. Each converter is built once, when
the plugin is loaded, so an annotation that no data can be is found before the first call.
"""

from __future__ import annotations

import itertools
import sys
import threading

from ._annotations import form_of, hints_of, home_of, is_missing
from ._buffers import resolved
from ._data import MOST_ROWS, DataError, found, listed, no_such_field
from ._failure import message, type_name
from ._json import dump_json
from ._models import ModelCodec, is_pydantic
from ._scalars import PARSED, SCALARS, enumeration, exactly, finite_number, literal, parsed, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ._scalars import Converter


class Structure:
    """Converts JSON data into what an annotation names. Raises ``TypeError`` where the annotation is nothing that data can be,
    and ``NameError`` where a name in it is unknown.

    ``tolerant`` lets unknown fields pass, and drops them. ``has_models`` says whether a part of it is pydantic's, and ``carries``
    whether its values can hold buffers.
    """

    def __init__(self, annotation: Any, *, tolerant: bool = False) -> None:
        self.has_models = False
        self.carries = False
        self._tolerant = tolerant
        self._chosen: _Chosen | None = None
        # A type that holds itself finds its own converter here, before or after that is built.
        self._built: dict[int, tuple[Any, list[Converter]]] = {}
        self._convert = self._for(annotation)

    def convert(self, value: Any) -> Any:
        """Return the data as the annotation's type. Raises ``DataError``."""
        if self._chosen is None:
            return self._convert(value)
        before, self._chosen.now = self._chosen.now, {}
        try:
            return self._convert(value)
        finally:
            self._chosen.now = before

    def _for(self, annotation: Any) -> Converter:
        if annotation is None or annotation is type(None):
            return exactly(type(None), "null")
        if is_missing(annotation):
            return resolved
        if hasattr(annotation, "__hostkit_convert__"):
            self.carries = True
            converter: Converter = annotation.__hostkit_convert__
            return converter
        if is_pydantic(annotation):
            return self._model(annotation)
        if type(annotation).__name__ == "TypeAliasType":
            return self._once(annotation, lambda: self._for(annotation.__value__))
        if hasattr(annotation, "__supertype__"):  # NewType
            return self._for(annotation.__supertype__)
        if hasattr(annotation, "__metadata__"):  # Annotated
            return self._for(annotation.__origin__)
        return self._special(annotation)

    def _special(self, annotation: Any) -> Converter:
        origin = getattr(annotation, "__origin__", None)
        form = form_of(origin if origin is not None else annotation)
        arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
        if form == "Literal":
            return literal(arguments)
        if form == "Union":
            return self._union(arguments)
        if form in QUALIFIERS:
            return self._for(arguments[0])
        return self._class(origin or annotation, arguments)

    def _class(self, kind: Any, arguments: tuple[Any, ...]) -> Converter:
        if not isinstance(kind, type):
            raise TypeError(f"{kind!r} is nothing that JSON data can be")
        if kind in SCALARS:
            return SCALARS[kind]
        if hasattr(kind, "__dataclass_fields__"):
            return self._once(kind, lambda: self._dataclass(kind))
        if hasattr(kind, "__required_keys__"):
            return self._once(kind, lambda: self._typed_dict(kind))
        home = (home_of(kind), kind.__name__)
        if home in MAPPINGS:
            return self._mapping(arguments)
        if kind is tuple:
            return self._tuple(arguments)
        if home in SEQUENCES:
            return self._sequence(arguments, SEQUENCES[home])
        if ("enum", "Enum") in {(base.__module__, base.__name__) for base in kind.__mro__}:
            return enumeration(kind)
        if home in PARSED:
            return PARSED[home](kind)
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} is nothing that JSON data can be")

    def _once(self, kind: Any, build: Callable[[], Converter]) -> Converter:
        """Build the converter of a type that may hold itself."""
        _, cell = self._built.setdefault(id(kind), (kind, []))
        if not cell:
            cell.append(lambda value: cell[-1](value))  # noqa: PLW0108 - the last one is not there yet
            cell.append(build())
        return cell[-1]

    def _model(self, annotation: Any) -> Converter:
        self.has_models = True
        codec = ModelCodec(annotation, tolerant=self._tolerant)
        self.carries = self.carries or bool(codec.carries)
        return lambda value: codec.decode(dump_json(value))

    def _union(self, choices: tuple[Any, ...]) -> Converter:
        some = [choice for choice in choices if choice is not type(None)]
        converters = [self._for(choice) for choice in some]
        or_null = len(some) < len(choices)
        words = " or ".join([getattr(choice, "__name__", str(choice)) for choice in some] + ["null"] * or_null)
        first_fit = self._first_fit(converters, words)

        def convert(value: Any) -> Any:
            # A whole number stays one where there is a choice.
            if (value is None and or_null) or (type(value) is int and int in some):
                return value
            return converters[0](value) if len(converters) == 1 else first_fit(value)

        return convert

    def _first_fit(self, converters: list[Converter], words: str) -> Converter:
        chosen = self._chosen = self._chosen or _Chosen()

        def first_fit(value: Any) -> Any:
            for attempt in converters:
                try:
                    return attempt(value)
                except DataError:
                    continue
            raise DataError("", words, found(value))

        def convert(value: Any) -> Any:
            if type(value) not in (dict, list):
                return first_fit(value)
            # Each choice further out would look at this part again, and the same for each level below: twice as often a level.
            at = (id(value), id(converters))
            if at not in chosen.now:
                try:
                    chosen.now[at] = (first_fit(value),)
                except DataError:
                    chosen.now[at] = ()
            if not chosen.now[at]:
                raise DataError("", words, found(value))
            return chosen.now[at][0]

        return convert

    def _mapping(self, arguments: tuple[Any, ...]) -> Converter:
        convert_key = self._key(arguments[0]) if arguments else SCALARS[str]
        convert_value = self._for(arguments[1] if arguments else object)

        def convert(value: Any) -> dict[Any, Any]:
            if type(value) is not dict:
                raise DataError("", "an object", found(value))
            converted = {}
            for key, part in value.items():
                try:
                    converted[convert_key(key)] = convert_value(part)
                except DataError as error:
                    raise error.under(key) from None
            return converted

        return convert

    def _key(self, annotation: Any) -> Converter:
        """JSON has text keys only; numbers are read back from their text."""
        if annotation is int:
            return parsed(whole_number, "a whole number as key")
        if annotation is float:
            return parsed(finite_number, "a number as key")
        return self._for(annotation)

    def _sequence(self, arguments: tuple[Any, ...], kind: Callable[[Any], Any]) -> Converter:
        convert_part = self._for(arguments[0] if arguments else object)

        def convert(value: Any) -> Any:
            if type(value) is not list:
                raise DataError("", "a list", found(value))
            try:
                return kind(_parts(value, itertools.repeat(convert_part)))
            except TypeError:
                raise DataError("", "a list of parts that a set can hold", found(value)) from None

        return convert

    def _tuple(self, arguments: tuple[Any, ...]) -> Converter:
        if not arguments or arguments[-1] is Ellipsis:
            return self._sequence(arguments[:1], tuple)
        converters = [self._for(argument) for argument in arguments]

        def convert(value: Any) -> tuple[Any, ...]:
            if type(value) is not list or len(value) != len(converters):
                raise DataError("", f"a list of {len(converters)}", found(value))
            return tuple(_parts(value, converters))

        return convert

    def _dataclass(self, kind: Any) -> Converter:
        hints = hints_of(kind)
        missing = sys.modules["dataclasses"].MISSING
        converters: dict[str, Converter] = {}
        required, computed = set(), set()
        for name, field in kind.__dataclass_fields__.items():
            has_default = field.default is not missing or field.default_factory is not missing
            if field._field_type.name == "_FIELD_INITVAR" and not has_default:
                raise TypeError(f"{kind.__qualname__} needs {name}, an InitVar, which no instance holds and so no data has")
            if field._field_type.name != "_FIELD":
                continue
            if not field.init:
                computed.add(name)
                continue
            converters[name] = self._for(hints.get(name, field.type))
            if not has_default:
                required.add(name)
        fill = self._fields(converters, required, computed)
        return lambda value: _made(kind, fill(value))

    def _typed_dict(self, kind: Any) -> Converter:
        required = set(kind.__required_keys__)
        converters = {}
        for name, hint in hints_of(kind).items():
            converters[name] = self._for(hint)
            # The interpreter's own __required_keys__ doesn't see them in annotations that are kept as text.
            form = form_of(getattr(hint, "__origin__", None))
            if form == "Required":
                required.add(name)
            elif form == "NotRequired":
                required.discard(name)
        return self._fields(converters, required, set())

    def _fields(self, converters: dict[str, Converter], required: set[str], computed: set[str]) -> Converter:
        """``computed`` fields are in what an instance is written as, and made anew when it is read."""
        tolerant = self._tolerant

        def convert(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise DataError("", f"an object with {listed(converters)}", found(value))
            rows: list[dict[str, str]] = []
            taken: dict[str, Any] = {}
            for name, part in value.items():
                try:
                    if name in converters:
                        taken[name] = converters[name](part)
                    elif not tolerant and name not in computed:
                        raise DataError("", no_such_field(name, converters), found(part))
                except DataError as error:
                    rows.extend(error.under(name).rows)
                    if len(rows) >= MOST_ROWS:
                        break
            missing = (name for name in converters if name in required and name not in value)
            rows.extend({"path": name, "expected": "this field", "found": "nothing"} for name in missing)
            if rows:
                raise DataError.of(rows[:MOST_ROWS])
            return taken

        return convert


def _parts(values: list[Any], converters: Iterable[Converter]) -> list[Any]:
    converted: list[Any] = []
    try:
        for value, convert in zip(values, converters):
            converted.append(convert(value))
    except DataError as error:
        raise error.under(len(converted)) from None
    return converted


def _made(kind: Any, fields: dict[str, Any]) -> Any:
    try:
        return kind(**fields)
    except MemoryError:
        raise
    except Exception as error:  # a __post_init__ is foreign code, and refuses values by raising
        raise DataError("", f"what {kind.__qualname__} takes", f"{type_name(error)}: {message(error)}") from None


class _Chosen(threading.local):
    """What a thread's unions made of the parts of the data that it has in hand; nothing where none of their choices fits."""

    def __init__(self) -> None:
        self.now: dict[tuple[int, int], tuple[Any, ...]] = {}


QUALIFIERS = ("Required", "NotRequired", "ReadOnly")


MAPPINGS = {("builtins", "dict"), ("collections.abc", "Mapping"), ("collections.abc", "MutableMapping")}
SEQUENCES: Mapping[tuple[str, str], Callable[[Any], Any]] = {
    ("builtins", "list"): list,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    **{("collections.abc", name): list for name in ("Sequence", "MutableSequence", "Iterable", "Collection")},
    **{("collections.abc", name): set for name in ("Set", "MutableSet")},
}
