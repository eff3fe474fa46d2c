"""Make importable in a worker what is importable here: paths by name, classes by name, and by value only where there is none."""

from __future__ import annotations

import functools
import os
import site
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._errors import PluginLoadError


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
    path = [os.getcwd() if entry == "" else entry for entry in sys.path if isinstance(entry, str)]
    return {"path": path, "site_dirs": [entry for entry in _site_dirs() if entry in path and _has_code(entry)]}


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

    try:
        pickled: bytes = dill.dumps(target, byref=False, recurse=True)
    except Exception as error:  # pickling runs the objects' own code
        raise PluginLoadError(
            f"plugin {name!r} can't be sent to a worker by value: {type(error).__name__}: {error}; put its class into a "
            "module that can be imported",
            plugin=name,
            kind="import",
        ) from error
    return pickled
