"""Where a plugin's package lies and what its manifest says, with nothing of it imported.

Its package is the top-level one; below a namespace package, which nobody owns, the first that somebody does. Editable installs and
zip files are found as the import system finds them.
"""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec
from pathlib import Path
from typing import Any

from ._errors import ManifestError
from ._parsing import MANIFEST_LIMIT, SUFFIXES, Document, Unreadable, parse, read
from ._stamps import Stamps

_INITS = [f"__init__{suffix}" for suffix in (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES, ".pyc")]


@dataclass(frozen=True, slots=True)
class Package:
    """``name`` is dotted; ``places`` are its directories, none for a single module."""

    name: str
    places: tuple[str, ...] = ()
    loader: Any = None  # Any: what the import system has, with get_data or without


def package_of(module: str) -> Package:
    """Return the package of a dotted module; one that isn't there has no places."""
    top, *parts = module.split(".")
    spec = _found(top)
    if spec is None or spec.submodule_search_locations is None:
        return Package(top)
    places = tuple(str(place) for place in spec.submodule_search_locations)
    if spec.origin is not None:
        return Package(top, places, spec.loader)
    return _below_namespace(top, places, parts)


def _below_namespace(name: str, places: tuple[str, ...], parts: list[str]) -> Package:
    for part in parts:
        name = f"{name}.{part}"
        places = tuple(path for place in places if os.path.isdir(path := os.path.join(place, part)))
        if any(os.path.isfile(os.path.join(place, file)) for place in places for file in _INITS):
            break
    return Package(name, places)


def origin_of(top: str) -> str:
    """Return the file that importing a top-level module would run, empty where there is none."""
    spec = _found(top)
    return "" if spec is None or spec.origin is None else os.path.realpath(spec.origin) if spec.has_location else spec.origin


def _found(top: str) -> ModuleSpec | None:
    try:
        # Only of the top level: of a dotted name find_spec imports the parents.
        return importlib.util.find_spec(top)
    except Exception:  # foreign finders, and modules without a spec; whoever imports it will see why
        return None


def manifest_in(package: Package, plugin: str, stamps: Stamps) -> tuple[Path, Document] | None:
    """Return the path of a package's manifest and what it says, None where it has none. Raises ``ManifestError``."""
    paths = [path for place in package.places for path in _manifests(place, package.loader, stamps)]
    if len(paths) > 1:
        raise ManifestError(f"plugin {plugin!r}: expected one manifest, found {', '.join(map(str, paths))}")
    for path in paths:
        try:
            return path, _read(path, package.loader)
        except Unreadable as error:
            raise ManifestError(f"plugin {plugin!r}: {error.at(path)}") from None
    return None


def _manifests(place: str, loader: Any, stamps: Stamps) -> Iterator[Path]:
    archive = getattr(loader, "archive", None)
    if archive is not None:
        stamps.take(str(archive))
    for suffix in SUFFIXES:
        path = f"{place}/plugin{suffix}"
        stamps.take(path)
        # A dangling link counts: whatever is in the place of a manifest is one that can be read, or an error.
        if os.path.lexists(path) or (not os.path.isdir(place) and _is_packed(path, loader)):
            yield Path(path)


def _is_packed(path: str, loader: Any) -> bool:
    archive = getattr(loader, "archive", None)
    try:
        if archive is not None:
            with zipfile.ZipFile(archive) as packed:
                return _inside(path, archive) in packed.NameToInfo
        return hasattr(loader, "get_data") and loader.get_data(path) is not None
    except Exception:  # a foreign loader, or an archive that is none: its modules can't be imported either
        return False


def _read(path: Path, loader: Any) -> Document:
    if os.path.lexists(path):
        return read(path, limit=MANIFEST_LIMIT)
    archive = getattr(loader, "archive", None)
    try:
        if archive is None:
            return parse(loader.get_data(str(path)), path.suffix, limit=MANIFEST_LIMIT)
        # Not by get_data, which unpacks whatever there is, and a little of a zip file can become gigabytes.
        with zipfile.ZipFile(archive) as packed, packed.open(_inside(str(path), archive)) as file:
            return parse(file.read(MANIFEST_LIMIT + 1), path.suffix, limit=MANIFEST_LIMIT)
    except Unreadable:
        raise
    except Exception as error:  # a foreign loader, or a broken archive
        raise Unreadable(f"can't be unpacked: {type(error).__name__}: {error}") from None


def _inside(path: str, archive: str) -> str:
    return os.path.relpath(path, archive).replace(os.sep, "/")
