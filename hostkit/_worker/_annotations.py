"""Read annotations, whichever version of ``typing`` they come from, without importing it where that can be avoided."""

from __future__ import annotations

import sys

from ._failure import message, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_missing(annotation: object) -> bool:
    """Whether an annotation says nothing: absent, Any, object or a type variable."""
    return (
        annotation is None
        or annotation is object
        or annotation is getattr(sys.modules.get("typing"), "Any", object)
        or type(annotation).__name__ == "TypeVar"
    )


def form_of(thing: Any) -> str:
    """Return the name of one of typing's special forms, whichever module and version it comes from; else nothing."""
    kind = thing if isinstance(thing, type) else type(thing)
    if kind.__name__ in ("UnionType", "Union") and kind.__module__ in ("types", "typing"):
        return "Union"
    words = str(thing)
    return words.rpartition(".")[2] if words.startswith(("typing.", "typing_extensions.")) else ""


def home_of(kind: type) -> str:
    """Return the public module of a class, whichever one it is made in."""
    module = kind.__module__.lstrip("_")
    return "collections.abc" if module == "collections_abc" else module.partition("._")[0]


def hints_of(kind: Any) -> dict[str, Any]:
    """Return a class's annotations, with names in text looked up. Raises ``NameError``."""
    own = {kind.__name__: kind}
    if sys.version_info < (3, 14):  # later ones don't keep annotations in a class's own dict
        hints = {
            name: _evaluated(hint, names_in(base), own)
            for base in reversed(kind.__mro__)
            for name, hint in vars(base).get("__annotations__", {}).items()
        }
        if not any(map(_has_text, hints.values())):
            return hints
    return _by_typing(kind, localns=own)


def names_in(kind: type) -> dict[str, Any]:
    """Return what the names in a class's annotations mean: its module's."""
    return getattr(sys.modules.get(kind.__module__), "__dict__", {})


def resolved(annotation: Any, names: dict[str, Any]) -> Any:
    """Return an annotation with what is kept as text in it looked up in ``names``. Raises ``NameError``."""
    annotation = _evaluated(annotation, names)
    if not _has_text(annotation):
        return annotation

    class Holder:
        __annotations__ = {"held": annotation}

    return _by_typing(Holder, globalns=names, localns=names)["held"]


def _evaluated(annotation: Any, names: dict[str, Any], more: dict[str, Any] | None = None) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names, more)  # noqa: S307 - the plugin's own words, in its own module
    except NameError:
        raise
    except Exception as error:  # whatever evaluating them raises
        raise NameError(f"{annotation}: {type_name(error)}: {message(error)}") from error


def _by_typing(kind: Any, **names: dict[str, Any]) -> dict[str, Any]:
    import typing  # costs 10 ms; an annotation with text inside another one needs its resolver

    try:
        return typing.get_type_hints(kind, include_extras=True, **names)
    except NameError:
        raise
    except Exception as error:  # whatever evaluating the plugin's own words raises
        raise NameError(f"{type_name(error)}: {message(error)}") from error


def _has_text(annotation: Any, depth: int = 0) -> bool:
    if isinstance(annotation, str) or type(annotation).__name__ == "ForwardRef":
        return True
    arguments = getattr(annotation, "__args__", ())
    if depth > 20 or not isinstance(arguments, tuple) or form_of(getattr(annotation, "__origin__", None)) == "Literal":
        return False
    return any(_has_text(argument, depth + 1) for argument in arguments)
