"""Compare and name objects of foreign code without asking them anything: their methods may do anything."""

from __future__ import annotations

import builtins
import re
from types import FunctionType

from ._worker._failure import class_name

# Names here mean what they meant before any plugin was loaded: functions look builtins up in what this is where they are defined.
__builtins__ = vars(builtins).copy()  # type: ignore[assignment]  # which is what an imported module has


def same(one: object, other: object) -> bool:
    """Whether two objects are one, or plain and equal. Foreign objects are not asked."""
    if one is other:
        return True
    kind = type(one)
    if kind is not type(other):
        return False
    if kind is tuple:
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type, call-overload]  # both are tuples
    if kind is re.Pattern:
        return same((one.pattern, one.flags), (other.pattern, other.flags))  # type: ignore[attr-defined]
    return kind in _PLAIN and one == other


_PLAIN = frozenset({bool, bytes, float, int, str, type(None)})


def told(value: object) -> str:
    """Return what a value is in a few words, without asking it."""
    kind = type(value)
    if kind in _PLAIN:
        return f"{value!r:.120}"
    if kind is tuple:
        return f"({', '.join(map(told, value))})"  # type: ignore[call-overload]  # a tuple, as has just been asked
    if kind is FunctionType:
        code = value.__code__  # type: ignore[attr-defined]
        return f"the function {plain(code.co_qualname)} ({plain(code.co_filename)}:{code.co_firstlineno})"
    return f"the class {class_name(value)}" if issubclass(kind, type) else f"a {class_name(kind)}"  # type: ignore[arg-type]


def name_of(key: object) -> str:
    """Return a dictionary's key as the name that it should be."""
    return plain(key) if type(key) is str else class_name(type(key))


def plain(text: str) -> str:
    """Return a text without what could disturb a line of the log."""
    return repr(str.__add__("", text))[1:-1][:200]
