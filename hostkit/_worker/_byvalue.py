"""Plugins that come by value, from a notebook or a script: how they are put together in the worker."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FunctionType
    from typing import Any


def load(pickled: bytes) -> Any:
    """Return the class or object of a pickle that the host made."""
    import dill

    target, names = dill.loads(pickled)  # noqa: S301 - what the host itself sent  # noqa: S301 - what the host itself sent
    for function in functions_of(target):
        for name, value in names.items():
            function.__globals__.setdefault(name, value)
    return target


def functions_of(target: Any) -> list[FunctionType]:
    """Return the functions of a class, or of an object's class."""
    kind = target if isinstance(target, type) else type(target)
    members = [getattr(member, "__func__", member) for base in kind.__mro__ for member in vars(base).values()]
    return [member for member in members if type(member).__name__ == "function"]


def bare_class(meta: type, name: str, bases: tuple[type, ...], named: dict[str, Any]) -> type:
    """Make a class that ``fill`` completes: until then what belongs to it can refer to it."""
    made: type = meta(name, bases, named)
    return made


def bare_enum(meta: Any, name: str, bases: tuple[type, ...], named: dict[str, Any], members: dict[str, Any]) -> type:
    """Make an enumeration with its members, for ``fill`` to add its methods."""
    namespace = meta.__prepare__(name, bases)
    for member, value in {**named, **members}.items():
        namespace[member] = value
    made: type = meta(name, bases, namespace)
    return made


def fill(made: type, attributes: dict[str, Any]) -> None:
    """Complete a class."""
    for name, value in attributes.items():
        type.__setattr__(made, name, value)
