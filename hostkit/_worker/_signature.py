"""Read signatures and annotations off code objects; ``inspect`` and ``typing`` would cost a worker 25 ms."""

from __future__ import annotations

from .._contract import Plugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parameters(function: Any, *, bound: bool) -> tuple[list[str], list[str], bool]:
    """Return the required and the optional parameters' names, and whether there is a ``*args``.

    A required keyword-only parameter counts as required. What has no code object (a C function) says nothing: ``*args``.
    """
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return [], [], True
    names = list(code.co_varnames[: code.co_argcount])
    defaults = len(function.__defaults__ or ())
    cut = len(names) - defaults
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    given = function.__kwdefaults__ or {}
    skip = 1 if bound and names else 0
    required = [*names[skip:cut], *(name for name in keyword_only if name not in given)]
    return required, names[max(cut, skip) :], bool(code.co_flags & 0x04)


def is_contract(execute: Any) -> bool:
    """Whether this is the contract class's own ``execute``, which only says that it must be defined."""
    return getattr(execute, "__func__", execute) is Plugin.execute


def promised_types(plugin: Any, execute: Any, *, streams: bool) -> tuple[Any, Any]:
    """Return the request's and the response's annotation, None where there is none; a stream's is the item's.

    ``Plugin[Req, Resp]`` goes before the annotations of ``execute``. Raises ``NameError`` where a name in one is unknown.
    """
    if execute is None or is_contract(execute):
        return None, None
    for base in type(plugin).__mro__:
        for alias in base.__dict__.get("__orig_bases__", ()):
            origin, types = getattr(alias, "__origin__", None), getattr(alias, "__args__", ())
            if isinstance(origin, type) and issubclass(origin, Plugin) and len(types) == 2:
                return types[0], types[1]
    function = innermost(execute)
    required, optional, _ = parameters(execute, bound=hasattr(execute, "__self__"))
    names = [*required, *optional]
    request = evaluated(function, names[1]) if len(names) > 1 else None
    response = evaluated(function, "return")
    if streams:
        response = (getattr(response, "__args__", None) or (None,))[0]
    return request, response


def evaluated(function: Any, name: str) -> Any:
    """Return one annotation, read from text where it is kept as text. Raises ``NameError``."""
    function = getattr(function, "__func__", function)
    annotation = getattr(function, "__annotations__", {}).get(name)
    if isinstance(annotation, str):
        return eval(annotation, getattr(function, "__globals__", {}))  # the plugin's own words, in its own module
    return annotation


def innermost(function: Any) -> Any:
    """Return the function below the decorators that say what they wrap."""
    for _ in range(16):
        function = getattr(function, "__func__", function)
        if not hasattr(function, "__wrapped__"):
            break
        function = function.__wrapped__
    return function
