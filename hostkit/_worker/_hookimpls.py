"""Find the hook implementations of a plugin object or module, without pluggy."""

from __future__ import annotations

import sys

from ._codec import codec_for, load_json
from ._signature import evaluated, parameters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class HookImplementation:
    """One function that implements a hook, with the names of its arguments and pluggy's options for it."""

    __slots__ = ("_codecs", "_result", "arguments", "function", "name", "options")

    def __init__(self, name: str, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.name = options.get("specname") or name
        self.function = function
        self.options = options
        required, _, _ = parameters(function, bound=hasattr(function, "__self__"))
        self.arguments = required
        self._codecs = {argument: codec_for(evaluated(function, argument)) for argument in required}
        self._result = codec_for(evaluated(function, "return"))

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return the arguments that arrive as one JSON object. Raises ``DataError``."""
        from ._codec import dump_json

        sent = load_json(payload)
        return {name: self._codecs[name].decode(dump_json(sent[name])) for name in self.arguments}

    def encode(self, result: object) -> bytes:
        """Return a result as JSON. Raises ``DataError``."""
        return b"null" if result is None else self._result.encode(result)


def hook_implementations(plugin: Any) -> dict[str, HookImplementation]:
    """Return name → implementation of everything on ``plugin`` that ``hookimpl`` marked. Raises ``TypeError`` and
    ``NameError`` where an annotation is nothing that data can be."""
    return {
        implementation.name: implementation
        for name, function, options in marked(plugin)
        for implementation in (HookImplementation(name, function, options),)
    }


def marked(plugin: Any) -> list[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Return (name, function, options) of everything on ``plugin`` that ``hookimpl`` marked, by name."""
    # Names come from dictionaries and not from dir(): looking at a property would run it.
    if isinstance(plugin, type(sys)):
        names = list(vars(plugin))
    else:
        names = [name for base in type(plugin).__mro__ for name in vars(base)]
    found = []
    for name in sorted(set(names)):
        source = vars(plugin).get(name) if isinstance(plugin, type(sys)) else _in_class(type(plugin), name)
        options = getattr(getattr(source, "__func__", source), "hostkit_impl", None)
        if isinstance(options, dict):
            found.append((name, getattr(plugin, name), options))
    return found


def _in_class(kind: type, name: str) -> Any:
    for base in kind.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return None
