"""Find the hook implementations of a plugin object or module, without pluggy, and call them; in a worker, with data.

b'"some text"\\n3' ─► each line is an argument, read by its annotation ─► the implementation ─► its result as JSON
"""

from __future__ import annotations

import sys
from types import FunctionType, MethodType

from ._annotations import is_missing
from ._codec import codec_for
from ._data import DataError
from ._signature import evaluated, innermost, parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ._codec import Codec

# CPython's code flag of a generator function; inspect has a name for it and costs a worker 15 ms.
_GENERATOR = 0x20
# pluggy's options that are on or off.
_SWITCHES = ("wrapper", "hookwrapper", "optionalhook", "tryfirst", "trylast")


class HookImplementation:
    """One function that implements a hook. ``function`` is its name on the plugin, which may have several for one hook.

    ``arguments`` are those that it must have, ``optional`` those that it can have; ``options`` are pluggy's.
    """

    def __init__(self, function: str, call: Callable[..., Any], options: dict[str, Any]) -> None:
        self.hook = str(options.get("specname") or function)
        self.function = function
        self.options: dict[str, bool] = {name: bool(options.get(name)) for name in _SWITCHES}
        self._call = call
        self._inner = innermost(call)
        self._code = getattr(self._inner, "__code__", None)
        self.arguments, self.optional, _ = parameters(self._inner, bound=hasattr(call, "__self__"))
        self._positional = () if self._code is None else self._code.co_varnames[: self._code.co_posonlyargcount]
        self._codecs: dict[str, Codec] = {}

    def __call__(self, values: dict[str, Any]) -> Any:
        """Call it with arguments by name, as many as were asked for. Raises what it raises."""
        if not self._positional:
            return self._call(**values)
        first = [values[name] for name in self._positional if name in values]
        return self._call(*first, **{name: value for name, value in values.items() if name not in self._positional})

    def offer(self, *, isolated: bool) -> dict[str, Any]:
        """Return what the host must know to call it, as data. ``trouble`` says what keeps it from being called, and ``untyped``
        has the arguments that an isolated one doesn't annotate."""
        wraps = self.options["wrapper"] or self.options["hookwrapper"]
        trouble, untyped = (self._wrong_wrapper(), []) if wraps else self._prepare() if isolated else ("", [])
        return {
            "name": self.hook,
            "function": self.function,
            "options": self.options,
            "arguments": tuple(self.arguments),
            "optional": tuple(self.optional),
            "untyped": tuple(untyped),
            "trouble": trouble,
        }

    def decode(self, names: Iterable[str], payload: bytes) -> dict[str, Any]:
        """Return the arguments that arrive as JSON, one a line in the order of ``names``. Raises ``DataError``."""
        values, name = {}, ""
        try:
            for name, line in zip(names, payload.split(b"\n")):
                values[name] = self._codecs[name].decode(line)
        except DataError as error:
            raise under(name, error) from None
        return values

    @property
    def carries(self) -> bool | None:
        """Whether its result can hold buffers."""
        return self._codecs["return"].carries

    def encode(self, value: object, *, round_trip: bool = False) -> bytes:
        """Return a result as JSON. Raises ``DataError``."""
        # One without a result takes no part, whatever its annotation says.
        return b"null" if value is None else self._codecs["return"].encode(value, round_trip=round_trip)

    def _wrong_wrapper(self) -> str:
        if self.options["wrapper"] and self.options["hookwrapper"]:
            return "wrapper and hookwrapper exclude each other"
        generates = self._code is not None and self._code.co_flags & _GENERATOR
        return "" if generates else "a wrapper must be a generator function, with one yield"

    def _prepare(self) -> tuple[str, list[str]]:
        """Make the codecs by the implementation's own annotations; return what keeps one from being made, and what has none."""
        untyped = []
        for name in (*self.arguments, *self.optional, "return"):
            what = "its result" if name == "return" else f"its argument {name!r}"
            try:
                annotation = evaluated(self._inner, name)
                # As a reader of answers is: the application may be newer than the plugin, and its models have more fields.
                self._codecs[name] = codec_for(annotation, tolerant=name != "return")
            except TypeError as error:
                return f"{what} is no data and can't cross to a worker: {error}; run it in-process", []
            except Exception as error:  # annotations are the plugin's own code
                return f"the annotation of {what} can't be resolved: {type(error).__name__}: {error}", []
            if is_missing(annotation) and name != "return":
                untyped.append(name)
        return "", untyped


def hook_implementations(plugin: Any) -> dict[str, HookImplementation]:
    """Return function's name → implementation of everything on ``plugin`` that ``hookimpl`` marked."""
    return {name: HookImplementation(name, function, options) for name, function, options in _marked(plugin)}


def under(name: str, error: DataError) -> DataError:
    """Return the error with its paths below ``name``."""
    return DataError.of([{**row, "path": f"{name}.{row['path']}" if row["path"] else name} for row in error.rows])


# What pluggy takes for a hook implementation. Other objects may run code when an attribute is looked up.
_FUNCTIONS = (FunctionType, MethodType, staticmethod, classmethod)


def _marked(plugin: Any) -> Iterable[tuple[str, Callable[..., Any], dict[str, Any]]]:
    # Names come from dictionaries and not from dir(): looking at a property would run it.
    spaces = [getattr(plugin, "__dict__", {})]
    if not isinstance(plugin, type(sys)):
        spaces += [vars(base) for base in type(plugin).__mro__]
    for name in sorted({name for space in spaces for name in space if isinstance(name, str)}):
        source = next(space[name] for space in spaces if name in space)
        if not isinstance(source, _FUNCTIONS):
            continue
        options = getattr(source, "hostkit_impl", None) or getattr(getattr(source, "__func__", None), "hostkit_impl", None)
        if isinstance(options, dict):
            yield name, getattr(plugin, name), options
