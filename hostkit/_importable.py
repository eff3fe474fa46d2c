"""Make importable in a worker what is importable here: paths by name, classes by name, and by value only where there is none."""

from __future__ import annotations

import enum
import functools
import io
import os
import site
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._errors import PluginLoadError
from ._worker._byvalue import bare_class, bare_enum, fill, functions_of


@dataclass(frozen=True, slots=True)
class Target:
    """What the worker is to load: an entry point, or a class or object pickled by value."""

    entry_point: str
    pickled: bytes = b""


def target_of(name: str, entry_point: str, target: object | None) -> Target:
    """Return how to name a plugin in another process. Raises ``PluginLoadError`` where nothing names it."""
    if target is None:
        return Target(entry_point)
    if isinstance(target, type) and _resolves(target):
        return Target(f"{target.__module__}:{target.__qualname__}")
    return Target("", _by_value(name, target))


def host_path() -> dict[str, Any]:
    """Return this process's import path as a worker takes it: ``path``, and the ``site_dirs`` whose .pth files run code."""
    path = import_path()
    return {"path": path, "site_dirs": [entry for entry in _site_dirs() if entry in path and _has_code(entry)]}


def import_path() -> list[str]:
    """Return the directories and archives that this process imports from."""
    return [os.getcwd() if entry == "" else entry for entry in sys.path if isinstance(entry, str)]


@functools.cache
def _site_dirs() -> list[str]:
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [*site.getsitepackages(), *user]


def _has_code(directory: str) -> bool:
    try:
        return any(
            line.startswith(("import ", "import\t"))
            for file in Path(directory).glob("*.pth")
            for line in file.read_text(errors="replace").splitlines()
        )
    except OSError:
        return False


def _resolves(target: type) -> bool:
    found: Any = sys.modules.get(target.__module__)
    if found is None or target.__module__ == "__main__" or getattr(found, "__spec__", None) is None:
        return False
    for part in target.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is target


def _by_value(name: str, target: object) -> bytes:
    import dill  # multiprocess brings it; only classes of notebooks and scripts need it

    class Pickler(dill.Pickler):  # type: ignore[misc]  # dill has no types
        def reducer_override(self, found: Any) -> Any:
            if not isinstance(found, type) or _resolves(found):
                return NotImplemented
            return _model_by_value(found) if "__pydantic_validator__" in vars(found) else _enum_by_value(found)

    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # It warns where what it writes can't be read again.
            warnings.simplefilter("error", dill.PicklingWarning)
            Pickler(file, byref=False, recurse=True).dump((target, _annotated_names(target)))
    except Exception as error:  # pickling runs the objects' own code
        raise PluginLoadError(
            f"plugin {name!r} can't be sent to a worker by value: {type(error).__name__}: {error}; put its class into a "
            "module that can be imported",
            plugin=name,
            kind="import",
        ) from error
    return file.getvalue()


# What a class gets when it is made, or what holds on to the frame in which it was.
_MADE_ANEW = {"__dict__", "__weakref__", "__abstractmethods__", "__signature__", "__pydantic_parent_namespace__", "_abc_impl"}


def _model_by_value(model: type) -> Any:
    """Say how to make a pydantic model anew, which dill can't: its schema refers to the model itself, so it is filled in later."""
    named = {"__module__": model.__module__, "__qualname__": model.__qualname__}
    rest = {key: value for key, value in vars(model).items() if key not in _MADE_ANEW and key not in named}
    return bare_class, (type(model), model.__name__, model.__bases__, named), rest, None, None, fill


def _enum_by_value(found: type) -> Any:
    """Say how to make an enumeration anew, whose members dill would make without their class."""
    if not isinstance(found, enum.EnumMeta) or "__init__" in vars(found):
        return NotImplemented
    named = {"__module__": found.__module__, "__qualname__": found.__qualname__}
    members = {name: member.value for name, member in dict[str, Any](found.__members__).items()}
    rest = {key: value for key, value in vars(found).items() if isinstance(value, _METHODS) and not key.startswith("__")}
    return bare_enum, (type(found), found.__name__, found.__bases__, named, members), rest, None, None, fill


_METHODS = (types.FunctionType, property, classmethod, staticmethod)


def _annotated_names(target: object) -> dict[str, Any]:
    """Return what annotations kept as text refer to: dill sends along only what the code itself refers to."""
    found: dict[str, Any] = {}
    for function in functions_of(target):
        for annotation in function.__annotations__.values():
            if isinstance(annotation, str):
                names = compile(annotation, "<annotation>", "eval").co_names
                found |= {name: function.__globals__[name] for name in names if name in function.__globals__}
    return found
