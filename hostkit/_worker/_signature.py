"""Read signatures and annotations off code objects; ``inspect`` and ``typing`` would cost a worker 25 ms."""

from __future__ import annotations

from .._contract import Plugin
from ._annotations import is_missing, names_in, resolved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# CPython's code flag of a function with *args.
_VARARGS = 0x04

# Decorators over decorators: nobody has more, and a ring of them must not be walked for ever.
_MOST_LAYERS = 16


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
    return required, names[max(cut, skip) :], bool(code.co_flags & _VARARGS)


def takes(callee: Any, count: int) -> bool:
    """Whether a callable can be called with so many positional arguments; yes where nothing tells."""
    function, bound = _function_of(callee)
    code = getattr(function, "__code__", None)
    if code is None:
        return True
    positional = code.co_argcount - (1 if bound and code.co_argcount else 0)
    needed = max(0, positional - len(function.__defaults__ or ()))
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    if set(keyword_only) - set(function.__kwdefaults__ or ()):
        return False
    return needed <= count and (count <= positional or bool(code.co_flags & _VARARGS))


def shown(callee: Any) -> str:
    """Return the names of a callable's parameters, as they stand in its definition."""
    function, bound = _function_of(callee)
    required, optional, varargs = parameters(function, bound=bound)
    return ", ".join([*required, *(f"{name}=..." for name in optional), *["*args"] * varargs])


def layers(callee: Any) -> Iterator[Any]:
    """Yield a callable's function, and those below it that decorators and partials wrap."""
    for _ in range(_MOST_LAYERS):
        function, _bound = _function_of(callee)
        yield function
        callee = getattr(function, "__wrapped__", None)
        if callee is None and _is_partial(function):
            callee = function.func
        if callee is None:
            return


def innermost(function: Any) -> Any:
    """Return the function below the decorators that say what they wrap."""
    for layer in layers(function):
        function = layer
        if _is_partial(layer):  # the function in it is called with other arguments
            break
    return function


def _is_partial(function: Any) -> bool:
    return type(function).__name__ == "partial" and type(function).__module__ == "functools"


def _function_of(callee: Any) -> tuple[Any, bool]:
    """Return the function behind a method or an object with ``__call__``, and whether its first argument is bound."""
    bound = False
    if not hasattr(callee, "__code__") and not hasattr(callee, "__func__") and not isinstance(callee, type):
        call = getattr(type(callee), "__call__", None)  # noqa: B004 - not whether it can be called, but by what
        if hasattr(call, "__code__"):
            return call, True
    while hasattr(callee, "__func__"):
        bound = bound or getattr(callee, "__self__", None) is not None
        callee = callee.__func__
    return callee, bound


def is_contract(execute: Any) -> bool:
    """Whether this is the contract class's own ``execute``, which only says that it must be defined."""
    return getattr(execute, "__func__", execute) is Plugin.execute


def promised_types(plugin: Any, execute: Any, *, streams: bool) -> tuple[Any, Any]:
    """Return the request's and the response's annotation, None where there is none; a stream's is the item's.

    ``Plugin[Req, Resp]`` goes before the annotations of ``execute``. Raises ``NameError`` where a name in one is unknown.
    """
    if execute is None or is_contract(execute):
        return None, None
    request, response = _declared(type(plugin))
    function = innermost(execute)
    required, optional, _ = parameters(function, bound=_function_of(execute)[1])
    names = [*required, *optional]
    if is_missing(request) and len(names) > 1:
        request = evaluated(function, names[1])
    if is_missing(response):
        response = evaluated(function, "return")
        if streams:
            response = (getattr(response, "__args__", None) or (None,))[0]
    return request, response


def _declared(kind: type) -> tuple[Any, Any]:
    """Return what a class says of itself by ``Plugin[Req, Resp]``."""
    for base in kind.__mro__:
        for alias in base.__dict__.get("__orig_bases__", ()):
            origin: Any = getattr(alias, "__origin__", None)
            types: tuple[Any, ...] = getattr(alias, "__args__", ())
            if isinstance(origin, type) and issubclass(origin, Plugin) and len(types) == 2:
                names = names_in(base)
                return resolved(types[0], names), resolved(types[1], names)
    return None, None


def evaluated(function: Any, name: str) -> Any:
    """Return one annotation, read from text where it is kept as text. Raises ``NameError``."""
    function = getattr(function, "__func__", function)
    annotations = getattr(function, "__annotations__", None) or {}
    return resolved(annotations.get(name), getattr(function, "__globals__", {}))
