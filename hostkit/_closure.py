"""The distributions on the import path, what each requires, and so all that a plugin may import.

Nothing of a distribution is imported. Requirements count with their markers and extras, as an installer reads them.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import importlib_metadata
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from ._content import Content, of_distribution, recorded, tops_of
from ._digests import Digest, contents
from ._errors import IntegrityError
from ._names import normalized, printable
from ._package import origin_of
from ._stamps import search_path


class Installed:
    """One distribution, by the directory of its metadata. Nothing is read before it is asked for."""

    def __init__(self, place: str, directory: str) -> None:
        self.place = place
        self.directory = directory
        self.path = os.path.join(place, directory)
        self._metadata = importlib_metadata.PathDistribution(Path(self.path))

    @cached_property
    def name(self) -> str:
        """Its name, normalized."""
        return normalized(self._field("Name") or "")

    @cached_property
    def version(self) -> str:
        """Its version, normalized; as it stands there where it is none."""
        text = self._field("Version") or ""
        try:
            return str(Version(text[:100]))
        except InvalidVersion:
            return printable(text)

    def _field(self, key: str) -> str | None:
        try:
            value = self._metadata.metadata[key]
        except Exception:  # metadata of anybody's
            return None
        return None if value is None else str(value)

    @cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        """What it requires, whatever the markers say. Raises ``IntegrityError``."""
        try:
            return tuple(Requirement(text) for text in self._metadata.requires or ())
        except (InvalidRequirement, ValueError, OSError) as error:
            raise IntegrityError(f"{printable(self.path, 1000)}: its requirements can't be read: {error}") from None

    @cached_property
    def claims(self) -> Mapping[str, Digest | None]:
        """What its RECORD claims."""
        return recorded(self.path)

    @cached_property
    def editable(self) -> bool:
        """Whether it was installed as a working tree."""
        path = os.path.join(self.path, "direct_url.json")
        if not os.path.lexists(path):
            return False
        try:
            found = json.loads(contents(path))
        except (ValueError, RecursionError):
            raise IntegrityError(f"{printable(path, 1000)} can't be parsed") from None
        info = found.get("dir_info") if isinstance(found, dict) else None
        return isinstance(info, dict) and bool(info.get("editable"))

    @cached_property
    def modules(self) -> list[str]:
        """The modules that its entry points name."""
        try:
            return [str(each.module) for each in self._metadata.entry_points]
        except Exception:  # a parser of anybody's file
            return []

    def content(self, tops: Iterable[str] = ()) -> Content:
        """Return what it has; ``tops`` are names on the import path that it had when it was locked."""
        if self.editable:
            source, found = self._working_tree()
        else:
            source, found = self.place, tops_of(self.path, self.claims, self.modules)
        return of_distribution(self.place, self.directory, source, {*found, *tops}, self.claims)

    def _working_tree(self) -> tuple[str, set[str]]:
        """Return where an editable distribution's modules lie, and what they are called there."""
        names = {module.partition(".")[0] for module in (*self.modules, self.name.replace("-", "_"))}
        origins = {origin for name in names if (origin := origin_of(name))}
        tops = {os.path.dirname(origin) if os.path.basename(origin).startswith("__init__.") else origin for origin in origins}
        places = {os.path.dirname(top) for top in tops}
        if len(places) != 1:
            raise IntegrityError(f"where the working tree of {self.name} lies can't be told; install it as a package")
        return places.pop(), {os.path.basename(top) for top in tops}


@dataclass(frozen=True, slots=True)
class Lack:
    """A requirement that isn't met: of whom, and the words for what there is."""

    name: str
    wanted: str
    text: str


class There:
    """Every distribution on the import path. Not thread-safe."""

    def __init__(self) -> None:
        self.path = search_path()
        self._by_name: dict[str, list[Installed]] = defaultdict(list)
        for place in self.path:
            for directory in _metadata_in(place):
                found = Installed(place, directory)
                self._by_name[_name_outside(directory)].append(found)

    def all(self, name: str) -> list[Installed]:
        """Return what is installed under a name, the one that is imported first."""
        return self._by_name.get(normalized(name), [])

    def closure(self, names: Iterable[str]) -> tuple[dict[str, Installed], list[Lack]]:
        """Return these distributions with all that they require, by name, sorted; and what is required in vain."""
        found: dict[str, Installed] = {}
        lacks: list[Lack] = []
        extras: dict[str, set[str]] = defaultdict(set)
        queue: list[tuple[str, str, frozenset[str], str]] = [(normalized(name), "", frozenset(), "") for name in names]
        while queue:
            name, specifier, wanted, by = queue.pop()
            new = wanted - extras[name]
            extras[name] |= wanted
            installed = found.get(name) or next(iter(self.all(name)), None)
            if installed is None or not _fits(specifier, installed.version):
                is_there = "it is not installed" if installed is None else f"{installed.version} is installed"
                lacks.append(Lack(name, f"{name}{specifier}", f"{by or 'the lock'} requires {name}{specifier}, and {is_there}"))
            if installed is None or (name in found and not new):
                continue
            found[name] = installed
            needed = [each for each in installed.requirements if _applies(each, extras[name])]
            queue += [(normalized(each.name), str(each.specifier), frozenset(each.extras), name) for each in needed]
        return dict(sorted(found.items())), sorted(set(lacks), key=lambda lack: (lack.name, lack.text))


def _fits(specifier: str, version: str) -> bool:
    if not specifier:
        return True
    try:
        return Requirement(f"x{specifier}").specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    if requirement.marker is None:
        return True
    try:
        return any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    except (UndefinedComparison, UndefinedEnvironmentName):  # nobody can tell, so it may be imported
        return True


def _metadata_in(place: str) -> list[str]:
    try:
        names = os.listdir(place)
    except OSError:  # not there, or an archive
        return []
    return sorted(name for name in names if name.lower().endswith((".dist-info", ".egg-info")))


def _name_outside(directory: str) -> str:
    return normalized(directory.rpartition(".")[0].partition("-")[0])
