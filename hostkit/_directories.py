"""The plugins of configured directories: each is a directory ``NAME`` with a manifest, and code that is on no import path yet.

Nobody installed these, so what is read is checked: it lies where the operator pointed, and not everybody may write it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path

from ._errors import HostkitError, IntegrityError, ManifestError
from ._manifest import validated
from ._names import checked_name, printable
from ._package import origin_of
from ._parsing import MANIFEST_LIMIT, SUFFIXES, Unreadable, read
from ._spec import PluginSpec
from ._stamps import Stamps

_MANIFESTS = {f"plugin{suffix}" for suffix in SUFFIXES}


def in_directories(paths: Iterable[Path], stamps: Stamps) -> Iterator[PluginSpec]:
    """Yield a row for every plugin directory in ``paths``, and one for every path that can't be searched."""
    seen: set[str] = set()
    for parent in paths:
        real = os.path.realpath(parent) if "\0" not in str(parent) else str(parent)
        if real in seen:
            continue  # the same directory by another name
        seen.add(real)
        stamps.take(str(parent))
        try:
            names = sorted(os.listdir(parent))
            _check_writers(parent)
        except (OSError, ValueError) as error:
            problem = f"the plugin path {_shown(parent)} can't be read: {getattr(error, 'strerror', None) or error}"
            yield PluginSpec(printable(str(parent)), "", error=ManifestError(problem))
            continue
        except IntegrityError as error:
            yield PluginSpec(printable(str(parent)), "", error=error)
            continue
        for name in names:
            yield from _rows(parent / name, stamps)


def in_directory(place: Path) -> list[PluginSpec]:
    """Return the row of one plugin directory as it is now."""
    _check_writers(place.parent)
    return list(_rows(place, Stamps()))


def _rows(place: Path, stamps: Stamps) -> Iterator[PluginSpec]:
    stamps.take(str(place))
    spec = PluginSpec(printable(place.name), "", directory=place)
    try:
        manifests = sorted(_MANIFESTS.intersection(os.listdir(place)))
    except NotADirectoryError:
        return
    except OSError as error:
        yield replace(spec, error=ManifestError(f"plugin {spec.name!r}: {_shown(place)} can't be read: {error.strerror}"))
        return
    for name in sorted(_MANIFESTS):
        stamps.take(str(place / name))
    if manifests:
        yield _row(spec, place, [place / name for name in manifests], stamps)


def _row(spec: PluginSpec, place: Path, manifests: list[Path], stamps: Stamps) -> PluginSpec:
    path = manifests[0]
    try:
        if len(manifests) > 1:
            raise ManifestError(f"plugin {spec.name!r}: expected one manifest, found {', '.join(map(_shown, manifests))}")
        _check_trusted(place, place.parent)
        _check_trusted(path, place.parent)
        data = read(path, limit=MANIFEST_LIMIT)
        manifest = validated(data, path, spec.name)
        spec = replace(spec, name=manifest.name or checked_name(place.name))
        if manifest.entry_point is None:
            raise ValueError("entry_point: is missing; a plugin directory needs module:Class")
        spec = replace(spec, entry_point=manifest.entry_point, version=manifest.version or "")
        _check_module(spec.entry_point.partition(":")[0].partition(".")[0], place, stamps)
    except HostkitError as error:
        return replace(spec, error=error)
    except Unreadable as error:
        return replace(spec, error=ManifestError(f"plugin {spec.name!r}: {error.at(_shown(path))}"))
    except ValueError as error:
        return replace(spec, error=ManifestError(f"plugin {spec.name!r}: {_shown(path)}: {error}"))
    except OSError as error:
        return replace(spec, error=ManifestError(f"plugin {spec.name!r}: {_shown(path)}: can't be read: {error.strerror}"))
    return replace(spec, manifest_path=path, manifest_data=dict(data))


def _check_module(top: str, place: Path, stamps: Stamps) -> None:
    """Make sure that it is this directory's module that an import will find."""
    found = PathFinder.find_spec(top, [str(place)])
    if found is None:
        raise ValueError(f"entry_point: there is no module {top!r} in {_shown(place)}")
    origins = [found.origin] if found.origin is not None else list(found.submodule_search_locations or ())
    for origin in origins:
        stamps.take(origin)
        _check_trusted(Path(origin), place.parent)
    elsewhere = origin_of(top)
    if elsewhere and elsewhere not in map(os.path.realpath, origins):
        raise ValueError(f"entry_point: the name of module {top!r} is taken by {elsewhere}; rename the module")


def _check_trusted(path: Path, parent: Path) -> None:
    if not path.resolve(strict=True).is_relative_to(parent.resolve(strict=True)):
        raise IntegrityError(
            f"{_shown(path)} leads out of the plugin path {_shown(parent)}, to {_shown(path.resolve())}; move the plugin there"
        )
    _check_writers(path)


def _check_writers(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & stat.S_IWOTH:
        raise IntegrityError(f"{_shown(path)} can be written by everybody, so nothing in it is trusted; take that permission away")


def _shown(path: Path) -> str:
    return printable(str(path), 4096)
