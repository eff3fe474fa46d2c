"""The hooks that an application specifies, and how the arguments and the result of each become data for a worker."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from ._errors import ConfigError
from ._shape import Shape
from ._worker._annotations import is_missing
from ._worker._buffers import written
from ._worker._codec import codec_for
from ._worker._data import DataError, found
from ._worker._hookimpls import under
from ._worker._models import ModelCodec
from ._worker._signature import parameters

if TYPE_CHECKING:
    from ._backends import OfferedHook


class HookSpec:
    """One hook of an application. Immutable.

    ``arguments`` are all of its arguments in order, ``defaults`` what those have that may be left out.
    """

    def __init__(self, name: str, function: Callable[..., Any], options: Mapping[str, Any], arguments: list[str]) -> None:
        self.name = name
        self.options = options
        self.historic = bool(options.get("historic"))
        self.arguments = tuple(arguments)
        inner = inspect.unwrap(function)
        _, optional, _ = parameters(inner, bound=False)
        self.defaults = dict(zip(optional, inner.__defaults__ or (), strict=False))
        self.crossing = Crossing(function, historic=self.historic)
        self._names = frozenset(arguments)

    def bound(self, given: Mapping[str, object]) -> Mapping[str, object]:
        """Return what a call gives, with the defaults of what it leaves out. Raises ``TypeError``."""
        if given.keys() == self._names:
            return given
        for name in given:
            if name not in self._names:
                raise TypeError(f"the hook {self.name} has no argument {name!r}{self._near(name)}")
        missing = [name for name in self.arguments if name not in given and name not in self.defaults]
        if missing:
            raise TypeError(f"the hook {self.name} needs {', '.join(missing)}; it takes {self._takes}")
        return {name: given[name] if name in given else self.defaults[name] for name in self.arguments}

    def unknown(self, arguments: Iterable[str]) -> str:
        """Say which of these the hook doesn't have; empty where it has them all."""
        for name in arguments:
            if name not in self._names:
                return f"it takes {name!r}, which the hook doesn't have{self._near(name)}"
        return ""

    @property
    def _takes(self) -> str:
        return f"({', '.join(self.arguments)})"

    def _near(self, name: str) -> str:
        return near(name, self.arguments) or f"; it takes {self._takes}"


class Crossing:
    """How one hook's arguments and result become data, by the annotations of its hookspec; worked out on first use, because
    nothing crosses where every implementation runs in-process. Thread-safe."""

    def __init__(self, function: Callable[..., Any], *, historic: bool) -> None:
        # A worker that is started later has to hear of a historic call, too.
        self.historic = historic
        self._function = function
        self._codecs: dict[str, Any] = {}  # Any: the codec of each argument
        self._shape: Shape | None = None

    @property
    def shape(self) -> Shape:
        """How a result is read."""
        if self._shape is None:
            self._shape = _Result(response=self._hint("return"))
        return self._shape

    def written(self, arguments: Mapping[str, object]) -> tuple[bytes, list[Any]]:
        """Return the arguments as JSON, one a line and in their order, and the buffers beside it. Raises ``DataError``."""
        return written(_Lines({name: self._codec(name) for name in arguments}), arguments)

    def refusal(self, hook: OfferedHook, arguments: Iterable[str]) -> str:
        """Say why an implementation can't be called in a worker; empty where it can."""
        for name in (*arguments, "return"):
            what = "its result" if name == "return" else f"its argument {name!r}"
            try:
                self._codec(name)
            except TypeError as error:
                return f"{what} is no data and can't cross to a worker: {error}; run it in-process"
            if name in hook.untyped and not _same_as_json(self._hint(name)):
                return (
                    f"{what} is a {_shown(self._hint(name))}, which arrives as plain JSON data in a worker; "
                    f"annotate {name} in the implementation, with that type or with the data's own"
                )
        return ""

    def _codec(self, name: str) -> Any:
        codec = self._codecs.get(name)
        if codec is None:
            codec = self._codecs[name] = _checked_codec(self._hint(name))
        return codec

    def _hint(self, name: str) -> Any:
        try:
            hint = typing.get_type_hints(self._function, include_extras=True).get(name)
        except Exception as error:  # annotations are the application's own code
            where = f"the hookspec {self._function.__qualname__}"
            raise ConfigError(f"{where}: an annotation can't be resolved: {type(error).__name__}: {error}") from error
        return None if is_missing(hint) else hint


class _Lines:
    """The codec of several arguments."""

    def __init__(self, codecs: Mapping[str, Any]) -> None:
        self._codecs = codecs
        self.carries: bool | None = any(codec.carries for codec in codecs.values()) or None

    def encode(self, value: Any, *, round_trip: bool = True) -> bytes:
        del round_trip
        lines = []
        for name, argument in value.items():
            try:
                lines.append(self._codecs[name].encode(argument, round_trip=True))
            except DataError as error:
                raise under(name, error) from None
        return b"\n".join(lines)


class _Result(Shape):
    __slots__ = ()

    def decode(self, payload: bytes, buffers: Sequence[Any] = ()) -> Any:
        # An implementation that has no result takes no part, whatever type the hook promises.
        return None if payload == b"null" else super().decode(payload, buffers)


def specified(hookspecs: Iterable[object]) -> dict[str, HookSpec]:
    """Return name → hook of everything that ``hookspec`` marked in these modules and classes. Raises ``ConfigError``."""
    if isinstance(hookspecs, (str, type, ModuleType)) or not isinstance(hookspecs, Iterable):
        raise ConfigError(f"hookspecs: expected a list of modules or classes, found {_named(hookspecs)}")
    specs: dict[str, HookSpec] = {}
    homes: dict[str, object] = {}
    for space in hookspecs:
        marked = dict(_marked(space))
        if not marked:
            raise ConfigError(f"hookspecs: there is no hook in {_named(space)}; mark its functions with hostkit.hookspec")
        for name in marked.keys() & specs.keys():
            raise ConfigError(f"hookspecs: the hook {name} is specified in {_named(homes[name])} and in {_named(space)}")
        specs |= marked
        homes |= dict.fromkeys(marked, space)
    return specs


def near(name: str, names: Iterable[str]) -> str:
    """Return a did-you-mean, or nothing."""
    matches = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _marked(space: object) -> Iterable[tuple[str, HookSpec]]:
    # Statically, because looking at a property would run it.
    for name in dir(space):
        raw = inspect.getattr_static(space, name, None)
        options = getattr(raw, "hostkit_spec", None) or getattr(getattr(raw, "__func__", None), "hostkit_spec", None)
        if isinstance(options, dict):
            function = getattr(space, name)
            yield name, HookSpec(name, function, options, _arguments(space, raw, function))


def _arguments(space: object, raw: object, function: Callable[..., Any]) -> list[str]:
    """Return a hookspec's arguments. Written here, because pluggy's own reading of them changed from 1.6 to 1.7."""
    required, optional, _ = parameters(inspect.unwrap(function), bound=inspect.ismethod(function))
    names = [*required, *optional]
    in_class = isinstance(space, type) and not isinstance(raw, staticmethod) and not inspect.ismethod(function)
    return names[1:] if in_class and names[:1] in (["self"], ["cls"]) else names


def _checked_codec(hint: Any) -> Any:
    codec = codec_for(hint)
    if isinstance(codec, ModelCodec):
        try:
            TypeAdapter(hint).json_schema(mode="serialization", schema_generator=_Writable)
        except Exception as error:  # pydantic's several ways of saying that a type has no JSON
            raise TypeError(str(error).partition("\n")[0]) from None
    return codec


class _Writable(GenerateJsonSchema):
    """A JSON schema that is written only to learn whether there is one."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as pydantic declares it

    def function_plain_schema(self, schema: Any) -> dict[str, Any]:
        """Take a type whose author wrote its validator by hand at the author's word."""
        del schema
        return {}


_SCALARS = (str, int, float, bool, type(None))
_LISTS = ("list", "Sequence", "MutableSequence", "Iterable", "Collection")
_OBJECTS = ("dict", "Mapping", "MutableMapping")


def _same_as_json(hint: Any, *, within: tuple[Any, ...] = ()) -> bool:
    """Whether a value of this type is the same after a way through JSON that nobody converts back."""
    if is_missing(hint) or hint in _SCALARS or hint in within or hasattr(hint, "__hostkit_convert__"):
        return True
    if hasattr(hint, "__supertype__"):  # NewType
        return _same_as_json(hint.__supertype__)
    if hasattr(hint, "__metadata__"):  # Annotated
        return _same_as_json(hint.__origin__)
    origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    name = getattr(origin, "__name__", "")
    if origin is typing.Literal:
        return all(type(part) in _SCALARS for part in parts)
    if typing.is_typeddict(origin):
        parts = tuple(typing.get_type_hints(origin).values())
    elif name in _OBJECTS:
        if parts and parts[0] is not str:
            return False
    elif name not in (*_LISTS, "UnionType") and origin is not typing.Union:
        return False
    return all(_same_as_json(part, within=(*within, hint)) for part in parts)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _named(space: object) -> str:
    if isinstance(space, ModuleType):
        return f"the module {space.__name__}"
    if isinstance(space, type):
        return f"the class {space.__qualname__}"
    return f"{type(space).__name__} {found(space)}"
