"""The plugins of installed distributions: their entry points, and the manifests of their packages.

    sys.path ─► distributions, in order ─► entry points of the group ─► a row each

Metadata is read as it is, garbage included: nothing of a distribution is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import importlib_metadata
from packaging.version import InvalidVersion, Version

from ._errors import ManifestError, PluginLoadError
from ._lines import place
from ._manifest import Manifest, validated
from ._names import checked_name, normalized, printable
from ._package import Package, manifest_in, package_of
from ._parsing import Document
from ._spec import PluginSpec
from ._stamps import Stamps, search_path

_DISTRIBUTION_NAME = re.compile(r"[A-Z0-9]([A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE | re.ASCII)
_LONGEST_TARGET = 500


def installed(group: str, stamps: Stamps) -> Iterator[PluginSpec]:
    """Yield a row for every entry point of the group, and one for every distribution that can't be read."""
    for found in _first_of_each(_distributions(stamps)):
        yield from _rows(found, group, stamps)


def offered_by(name: str, group: str) -> list[PluginSpec]:
    """Return the rows of one distribution as it is now."""
    for query in ({"name": name}, {}):  # without a name for one whose directory is called differently
        stamps = Stamps()
        for found in _first_of_each(_distributions(stamps, **query)):
            rows = list(_rows(found, group, stamps))
            if any(row.distribution and normalized(row.distribution) == normalized(name) for row in rows):
                return rows
    return []


@dataclass(frozen=True, slots=True)
class _Found:
    """A distribution, and the directory of its metadata where it is known to have one."""

    distribution: Any  # Any: importlib_metadata's Distribution, of any finder
    place: str

    @property
    def basename(self) -> str:
        return os.path.basename(self.place)


def _distributions(stamps: Stamps, **query: str) -> Iterator[_Found]:
    try:
        for place in search_path():
            if not query:
                _stamp_place(place, stamps)
            distributions = importlib_metadata.distributions(path=[place], **query)
            found = [_Found(each, str(getattr(each, "_path", "")).rstrip("/")) for each in distributions]
            yield from sorted(found, key=lambda each: each.place)  # the order of a directory is no order
    finally:
        importlib_metadata.MetadataPathFinder.invalidate_caches()  # which would hold archives open


def _stamp_place(place: str, stamps: Stamps) -> None:
    stamps.take(place)
    try:
        names = os.listdir(place)
    except OSError:  # not there, or an archive, whose own stamp says it all
        return
    for name in names:
        if name.lower().endswith((".dist-info", ".egg-info")) or name.lower() == "egg-info":
            stamps.take(f"{place}/{name}/entry_points.txt")


def _first_of_each(distributions: Iterable[_Found]) -> Iterator[_Found]:
    """Leave out what is shadowed: the same distribution further down the path isn't the one that imports."""
    seen: dict[str, _Found] = {}
    for found in distributions:
        name = _name_outside(found)
        if name not in seen or not _is_whole(seen[name]):
            seen[name] = found
            yield found


def _name_outside(found: _Found) -> str:
    """Return a distribution's name as its directory has it, because reading 300 METADATA files takes long."""
    name = found.basename.partition("-")[0]
    try:
        return normalized(name if name and name != "EGG" else str(found.distribution.metadata["Name"]))
    except Exception:  # a foreign finder's, or a METADATA that isn't there
        return ""


def _is_whole(found: _Found) -> bool:
    try:
        _identity(found)
    except _Broken:  # what a deinstallation left behind
        return False
    return True


def _rows(found: _Found, group: str, stamps: Stamps) -> Iterator[PluginSpec]:
    try:
        entry_points = _entry_points(found, group)
        if not entry_points:
            return
        for file in ("METADATA", "PKG-INFO") if found.place else ():
            stamps.take(f"{found.place}/{file}")
        name, version = _identity(found)
    except _Broken as problem:
        yield _broken(found, str(problem))
        return
    offers = [_Offer.of(each, value) for each, value in sorted(entry_points)]
    for offer in offers:
        yield _row(offer, [each for each in offers if each.package.name == offer.package.name], name, version, stamps)


class _Broken(Exception):
    """A distribution can't be read; the message says what of it."""


def _entry_points(found: _Found, group: str) -> list[tuple[str, str]]:
    try:
        text = _text_of(found)
    except Exception as error:  # a foreign finder's, or bytes that are no text
        raise _Broken(f"its entry_points.txt can't be read: {getattr(error, 'strerror', None) or error}") from None
    if text is None or group not in text:
        return []
    try:
        return [(str(each.name), str(each.value)) for each in found.distribution.entry_points.select(group=group)]
    except Exception as error:  # the parser raises whatever a broken file makes it raise
        raise _Broken(f"its entry_points.txt can't be parsed: {type(error).__name__}: {error}") from None


def _text_of(found: _Found) -> str | None:
    if not isinstance(getattr(found.distribution, "_path", None), Path):
        text: str | None = found.distribution.read_text("entry_points.txt")
        return text
    try:
        # Not by read_text, which hides a file that may not be read, and takes three times as long.
        with open(f"{found.place}/entry_points.txt", encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _identity(found: _Found) -> tuple[str, str]:
    try:
        metadata = found.distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
    except Exception as error:  # a METADATA that isn't there, or none
        raise _Broken(f"its METADATA can't be read: {type(error).__name__}: {error}") from None
    if name is None or version is None:
        raise _Broken("its METADATA has no Name or no Version")
    if not _DISTRIBUTION_NAME.fullmatch(str(name)):
        raise _Broken(f"its METADATA has a Name that is none: {str(name)[:60]!a}")
    try:
        return str(name), str(Version(str(version)[:100]))
    except (InvalidVersion, ValueError):
        raise _Broken(f"its METADATA has a Version that is none: {str(version)[:60]!a}") from None


def _broken(found: _Found, problem: str) -> PluginSpec:
    name = printable(found.basename or "unknown")
    error = PluginLoadError(f"distribution {name!r}: {printable(problem)}", plugin=name, kind="metadata")
    return PluginSpec(name=name, entry_point="", error=error)


@dataclass(frozen=True, slots=True)
class _Offer:
    """One entry point; ``problem`` is why it can't be used."""

    name: str
    target: str
    package: Package
    problem: str = ""

    @classmethod
    def of(cls, name: str, value: str) -> _Offer:
        # Extras ("module:Class [extra]") say what to install, not what to import.
        target = value.partition("[")[0].strip().replace(" ", "")
        module, colon, attribute = target.partition(":")
        try:
            checked_name(name)
            parts = [*module.split("."), *(attribute.split(".") if colon else ())]
            if len(target) > _LONGEST_TARGET or not all(part.isidentifier() for part in parts):
                raise ValueError(f"its entry point is {value[:200]!a}; expected module:Class")
        except ValueError as error:
            return cls(name, printable(target), Package(""), str(error))
        return cls(name, target, package_of(module))


def _row(offer: _Offer, siblings: list[_Offer], distribution: str, version: str, stamps: Stamps) -> PluginSpec:
    spec = PluginSpec(printable(offer.name), offer.target, distribution, version)
    if offer.problem:
        problem = f"distribution {distribution!r} offers {offer.name[:60]!a}: {offer.problem}"
        return replace(spec, error=PluginLoadError(problem, plugin=spec.name, kind="metadata"))
    try:
        found = manifest_in(offer.package, spec.name, stamps)
        if found is not None and _is_about(validated(found[1], found[0], spec.name), offer, siblings, *found):
            return replace(spec, manifest_path=found[0], manifest_data=dict(found[1]))
    except ManifestError as error:
        return replace(spec, error=error)
    return spec


def _is_about(manifest: Manifest, offer: _Offer, siblings: list[_Offer], path: Path, data: Document) -> bool:
    """Whether a manifest is about this one of its package's plugins. Raises ``ManifestError`` for one about none of them."""
    if _fits(manifest, offer):
        return True
    if any(_fits(manifest, other) for other in siblings):
        return False
    named = [other for other in siblings if normalized(manifest.name) in ("", normalized(other.name))]
    if not named:
        expected = " or ".join(repr(other.name) for other in siblings)
        where = place(path, data.line(("name",)))
        raise ManifestError(
            f"plugin {offer.name!r}: {where}: name: expected {expected} as its entry point, found {manifest.name!r}"
        )
    expected = " or ".join(repr(other.target) for other in named)
    where = place(path, data.line(("entry_point",)))
    raise ManifestError(
        f"plugin {offer.name!r}: {where}: entry_point: expected {expected} as installed, found {manifest.entry_point!r}"
    )


def _fits(manifest: Manifest, offer: _Offer) -> bool:
    return normalized(manifest.name) in ("", normalized(offer.name)) and manifest.entry_point in (None, offer.target)
