"""Find plugins without importing one: entry points of installed distributions, and plugin directories.

    sys.path ─► distributions ─► entry points of the group ─┐
    configured paths ─► NAME/plugin.* ──────────────────────┴─► rows ─► duplicates marked ─► name → PluginSpec

What is broken is a row with its error; the others are found all the same.
"""

from __future__ import annotations

import importlib.util
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import importlib_metadata

from ._errors import DuplicatePlugin, HostkitError, ManifestError, PluginLoadError
from ._manifest import checked_name, validated
from ._parsing import SUFFIXES, Unreadable, parse, read
from ._spec import PluginSpec


def scan(group: str, paths: Sequence[Path], search: Sequence[str] | None = None) -> dict[str, PluginSpec]:
    """Return name → spec of everything there is, sorted by name. ``search`` is an import path, ``sys.path`` if None."""
    rows = [*_installed(group, sys.path if search is None else search), *_in_directories(paths)]
    rows = _without_duplicates(rows)
    return {spec.name: spec for spec in sorted(rows, key=lambda spec: (spec.name, spec.distribution))}


def normalized(name: str) -> str:
    """Return the form in which two names count as the same: NFKC, casefold, PEP 503."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "-".join(part for part in folded.replace("_", "-").replace(".", "-").split("-") if part)


def _installed(group: str, search: Sequence[str]) -> Iterator[PluginSpec]:
    seen: set[str] = set()
    for distribution in importlib_metadata.distributions(path=list(search)):
        try:
            text = distribution.read_text("entry_points.txt")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            yield _broken(distribution, f"its entry_points.txt can't be read: {error}")
            continue
        if text is None or group not in text:
            continue
        try:
            entry_points = list(distribution.entry_points.select(group=group))
        except Exception as error:  # the parser raises whatever a broken file makes it raise
            yield _broken(distribution, f"its entry_points.txt can't be parsed: {type(error).__name__}: {error}")
            continue
        if not entry_points:
            continue
        try:
            name, version = str(distribution.metadata["Name"]), str(distribution.metadata["Version"])
            if "None" in (name, version):
                raise ValueError("no Name or Version in it")
        except Exception as error:  # the same, and a METADATA that isn't there
            yield _broken(distribution, f"its METADATA can't be read: {type(error).__name__}: {error}")
            continue
        if normalized(name) in seen:
            continue  # shadowed: the same distribution further down the path isn't the one that imports
        seen.add(normalized(name))
        alone = len(entry_points) == 1
        for entry_point in sorted(entry_points, key=lambda each: each.name):
            yield _from_entry_point(entry_point.name, entry_point.value, name, version, alone=alone)


def _broken(distribution: Any, problem: str) -> PluginSpec:  # Any: importlib_metadata's Distribution, of any finder
    place = getattr(distribution, "_path", None)
    name = getattr(place, "name", "") or "unknown"
    return _failed(name, "", "", PluginLoadError(f"distribution {name!r}: {problem}", plugin=name, kind="metadata"))


def _failed(name: str, entry_point: str, distribution: str, error: HostkitError) -> PluginSpec:
    return PluginSpec(name=name, entry_point=entry_point, distribution=distribution, error=error)


def _from_entry_point(name: str, value: str, distribution: str, version: str, *, alone: bool) -> PluginSpec:
    # Extras ("module:Class [extra]") say what to install, not what to import.
    target = value.partition("[")[0].replace(" ", "")
    shown = name.encode("ascii", "backslashreplace").decode()
    try:
        checked_name(name)
        module = target.partition(":")[0]
        if not all(part.isidentifier() for part in module.split(".")):
            raise ValueError(f"entry point {value!r} names no module; expected module:Class")
    except ValueError as error:
        words = f"distribution {distribution!r} offers {shown!r}: {error}"
        return _failed(shown, value, distribution, PluginLoadError(words, plugin=shown, kind="metadata"))
    spec = PluginSpec(name=name, entry_point=target, distribution=distribution, version=version)
    try:
        return _with_manifest(spec, module.partition(".")[0], alone=alone)
    except ManifestError as error:
        return replace(spec, error=error)


def _with_manifest(spec: PluginSpec, top: str, *, alone: bool) -> PluginSpec:
    found = _manifest_of(spec.name, top)
    if found is None:
        return spec
    path, data = found
    manifest = validated(data, path, spec.name)
    if manifest.name and normalized(manifest.name) != normalized(spec.name):
        if not alone:
            return spec  # one of several plugins of this package, and another one's manifest
        raise ManifestError(f"plugin {spec.name!r}: {path}: name: expected {spec.name!r} as its entry point, found {manifest.name!r}")
    if manifest.entry_point is not None and manifest.entry_point != spec.entry_point:
        raise ManifestError(
            f"plugin {spec.name!r}: {path}: entry_point: expected {spec.entry_point!r} as installed, found {manifest.entry_point!r}"
        )
    return replace(spec, manifest_path=path, manifest_data=data)


def _manifest_of(name: str, top: str) -> tuple[Path, dict[str, Any]] | None:
    """Find the manifest of a top-level package. Only the top level: of a dotted name find_spec imports the parents."""
    try:
        package = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if package is None or package.submodule_search_locations is None:
        return None
    found = [hit for place in package.submodule_search_locations for hit in _manifests_in(Path(place), package.loader)]
    if len(found) > 1:
        raise ManifestError(f"plugin {name!r}: expected one manifest, found {', '.join(str(path) for path, _ in found)}")
    try:
        return next(((path, parse(data, path.suffix)) for path, data in found), None)
    except Unreadable as error:
        raise ManifestError(f"plugin {name!r}: {found[0][0]}: {error}") from None


def _manifests_in(place: Path, loader: Any) -> Iterator[tuple[Path, bytes]]:  # Any: loaders may have get_data or not
    for suffix in SUFFIXES:
        path = place / f"plugin{suffix}"
        try:
            if place.is_dir():
                if path.is_file():
                    yield path, path.read_bytes()
            elif hasattr(loader, "get_data"):
                yield path, loader.get_data(str(path))  # inside a zip file
        except FileNotFoundError:
            continue
        except OSError as error:
            if place.is_dir():
                raise ManifestError(f"{path}: {error.strerror}") from None


def _in_directories(paths: Iterable[Path]) -> Iterator[PluginSpec]:
    for parent in paths:
        try:
            places = sorted(place for place in parent.iterdir() if place.is_dir())
        except OSError as error:
            problem = ManifestError(f"the plugin path {parent} can't be read: {error.strerror}")
            yield _failed(parent.name or str(parent), "", "", problem)
            continue
        for place in places:
            manifests = [place / f"plugin{suffix}" for suffix in SUFFIXES if (place / f"plugin{suffix}").is_file()]
            if manifests:
                yield _from_directory(place, manifests)


def _from_directory(place: Path, manifests: list[Path]) -> PluginSpec:
    spec = PluginSpec(name=place.name, entry_point="", directory=place)
    try:
        if len(manifests) > 1:
            raise ManifestError(f"plugin {place.name!r}: expected one manifest, found {', '.join(map(str, manifests))}")
        data = read(manifests[0])
        manifest = validated(data, manifests[0], place.name)
        name = checked_name(manifest.name or place.name)
        if manifest.entry_point is None:
            raise ManifestError(f"plugin {name!r}: {manifests[0]}: entry_point: is missing; a plugin directory needs module:Class")
    except (ManifestError, Unreadable, ValueError) as error:
        problem = error if isinstance(error, ManifestError) else ManifestError(f"plugin {place.name!r}: {manifests[0]}: {error}")
        return replace(spec, error=problem)
    return replace(
        spec,
        name=name,
        entry_point=manifest.entry_point,
        version=manifest.version or "",
        manifest_path=manifests[0],
        manifest_data=data,
    )


def _without_duplicates(rows: list[PluginSpec]) -> list[PluginSpec]:
    """Give every row of a name, a target or a module that two places claim the same error, whatever their order."""
    for describe, key in (("the name", _name_key), ("the entry point", _target_key), ("the module", _module_key)):
        groups: dict[str, list[PluginSpec]] = defaultdict(list)
        for row in rows:
            if (value := key(row)) is not None:
                groups[value].append(row)
        for value, claimants in groups.items():
            places = sorted({_place(row) for row in claimants})
            if len(places) > 1 or (key is _name_key and len(claimants) > 1):
                rows = _marked(rows, claimants, f"{describe} {value!r} is claimed by {' and by '.join(places)}")
    return rows


def _name_key(row: PluginSpec) -> str | None:
    return normalized(row.name)


def _target_key(row: PluginSpec) -> str | None:
    return row.entry_point if row.error is None and row.directory is None else None


def _module_key(row: PluginSpec) -> str | None:
    top = row.entry_point.partition(":")[0].partition(".")[0]
    if row.error is not None or not top or (row.directory is None and _is_namespace(top)):
        return None
    return top


def _is_namespace(top: str) -> bool:
    try:
        package = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return True
    return package is None or package.origin is None


def _place(row: PluginSpec) -> str:
    return f"distribution {row.distribution!r}" if row.directory is None else f"directory {str(row.directory)!r}"


def _marked(rows: list[PluginSpec], claimants: list[PluginSpec], problem: str) -> list[PluginSpec]:
    error = DuplicatePlugin(f"{problem}: none of them is used; uninstall all but one")
    by_name: dict[str, PluginSpec] = {}
    for row in claimants:
        by_name.setdefault(row.name, replace(row, error=error))
    kept = [row for row in rows if all(row is not other for other in claimants)]
    return [*kept, *by_name.values()]


def reread(spec: PluginSpec) -> PluginSpec:
    """Return a spec with its manifest read anew, so that nothing remembered decides what runs. Raises ``ManifestError``."""
    if spec.error is not None:
        raise spec.error
    if spec.directory is not None:
        found = _from_directory(spec.directory, [] if spec.manifest_path is None else [spec.manifest_path])
        if found.error is not None:
            raise found.error
        return found
    bare = replace(spec, manifest_path=None, manifest_data={})
    return _with_manifest(bare, spec.entry_point.partition(":")[0].partition(".")[0], alone=False)
