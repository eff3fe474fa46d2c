"""Check what a manifest requires, before anything of the plugin is imported."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from . import __version__
from ._errors import RequirementError
from ._manifest import Manifest
from ._names import normalized
from ._spec import PluginSpec


def check(name: str, manifest: Manifest, environment: Mapping[str, str]) -> None:
    """Raise ``RequirementError`` for whatever is not there, other plugins aside.

    ``environment`` is what the plugin will see: the host's own in-process, the allow-list in a worker.
    """
    needs = manifest.requirements
    python = ".".join(map(str, sys.version_info[:3]))
    for what, wanted, there in (("Python", needs.python, python), ("hostkit", needs.hostkit, __version__)):
        if wanted is not None and not SpecifierSet(wanted).contains(there, prereleases=True):
            raise RequirementError(_sentence(name, f"{what} {wanted}", f"{what} {there}", "run it under one that fits"))
    for variable in needs.environment_vars:
        if variable not in environment:
            remedy = f'set it; an isolated plugin sees it only where the operator passes it: env = ["{variable}"]'
            raise RequirementError(_sentence(name, f"the environment variable {variable}", "none of that name", remedy))
    for program in needs.system_packages:
        if shutil.which(program) is None:
            raise RequirementError(_sentence(name, f"the program {program} on PATH", "no such program", "install it"))


def _sentence(name: str, wanted: str, found: str, remedy: str) -> str:
    return f"plugin {name!r} requires {wanted}, found {found}; {remedy}"


def seen_by_plugin(isolation: str, passed: tuple[str, ...]) -> Mapping[str, str]:
    """Return the environment that a plugin will see."""
    if isolation == "none":
        return os.environ
    from ._launch import environment  # multiprocess, which an in-process host doesn't need

    return environment(passed, None)


@dataclass(frozen=True, slots=True)
class Unmet:
    """One plugin that isn't there as it is required. ``mark`` says so in a chain of names."""

    wanted: str
    mark: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Needs:
    """Which other plugins one needs, as they are called here; ``optional`` are those that are there and usable, ``unusable`` says of
    the others that are there why they aren't, and ``unmet`` is the first requirement in vain."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    unusable: tuple[str, ...] = ()
    unmet: Unmet | None = None


class There:
    """What there is for plugins that require others. ``kept_out`` says of plugins that don't count why they don't, and
    ``disabled`` has normalized names. Thread-safe: whoever finds something out twice finds the same."""

    def __init__(
        self, specs: Mapping[str, PluginSpec], kept_out: Mapping[str, str] | None = None, disabled: Container[str] = ()
    ) -> None:
        self.specs = specs
        self._kept_out = {normalized(name): why for name, why in (kept_out or {}).items()}
        self._disabled = disabled
        self._spelled = {normalized(name): name for name in specs}
        self._found: dict[str, Needs] = {}

    def needs(self, name: str) -> Needs:
        """Return what a plugin needs. Raises ``ManifestError``."""
        found = self._found.get(name)
        if found is None:
            spec = self.specs.get(name)
            # Most plugins need no other one, and a manifest takes a while to validate.
            declared = spec is not None and bool(spec.manifest_data.get("requirements"))
            found = self._found[name] = self.needed_by(name, spec.manifest) if spec is not None and declared else _NOTHING
        return found

    def check(self, name: str, manifest: Manifest) -> None:
        """Raise ``RequirementError`` for a plugin that one with this manifest requires in vain."""
        if unmet := self.needed_by(name, manifest).unmet:
            raise RequirementError(unmet.sentence)

    @property
    def usable(self) -> Iterator[str]:
        """The names of those that are enabled and not broken."""
        return (name for name, spec in self.specs.items() if spec.error is None and normalized(name) not in self._disabled)

    def needed_by(self, name: str, manifest: Manifest) -> Needs:
        """Return what a plugin with this manifest needs."""
        collected = _Collected()
        for text in manifest.requirements.required_plugins:
            self._require(collected, name, Requirement(text))
        for text in manifest.requirements.optional_plugins:
            self._use(collected, name, Requirement(text))
        required = dict.fromkeys(collected.required)
        optional = [each for each in dict.fromkeys(collected.optional) if each not in required and each != name]
        return Needs(tuple(required), tuple(optional), tuple(collected.unusable), next(iter(collected.unmet), None))

    def _require(self, collected: _Collected, name: str, wanted: Requirement) -> None:
        spelled = self._spelled.get(normalized(wanted.name))
        unmet = self._missing(name, wanted, spelled)
        if unmet is None and spelled is not None:
            spec = self.specs[spelled]
            if spec.error is not None:
                unmet = _unmet(name, wanted, "broken", f"a broken one: {spec.error}", "mend it")
            else:
                unmet = _unfit(name, wanted, spec, "install a version that fits")
        if unmet is not None:
            collected.unmet.append(unmet)
        elif spelled is not None:
            collected.required.append(spelled)

    def _missing(self, name: str, wanted: Requirement, spelled: str | None) -> Unmet | None:
        folded = normalized(wanted.name)
        if spelled is None:
            if why := self._kept_out.get(folded):
                remedy = "let it in, if it may be used"
                return _unmet(name, wanted, "kept out", f"one that is installed and kept out: {why}", remedy)
            return _unmet(name, wanted, "not installed", "no plugin of that name", "install it")
        if folded in self._disabled:
            return _unmet(name, wanted, "disabled", "one that is disabled in the configuration", "enable it")
        return None

    def _use(self, collected: _Collected, name: str, wanted: Requirement) -> None:
        """Take an optional plugin in. One that is there in a version that the plugin can't live with is no better than a required one:
        the plugin would find it, whether it was loaded before or not."""
        spelled = self._spelled.get(normalized(wanted.name))
        if spelled is None or normalized(wanted.name) in self._disabled:
            return
        spec = self.specs[spelled]
        if spec.error is not None:
            collected.unusable.append(f"the optional plugin {spelled!r} is broken: {spec.error}")
        elif unmet := _unfit(name, wanted, spec, "install a version that fits, or disable it"):
            collected.unmet.append(unmet)
        else:
            collected.optional.append(spelled)


@dataclass(slots=True)
class _Collected:
    required: list[str] = field(default_factory=list)
    optional: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    unmet: list[Unmet] = field(default_factory=list)


_NOTHING = Needs()


def _unfit(name: str, wanted: Requirement, spec: PluginSpec, remedy: str) -> Unmet | None:
    if not wanted.specifier or (spec.version and wanted.specifier.contains(spec.version, prereleases=True)):
        return None
    found = f"version {spec.version}" if spec.version else "one of unknown version"
    return _unmet(name, wanted, found.removeprefix("one of "), found, remedy)


def _unmet(name: str, wanted: Requirement, mark: str, found: str, remedy: str) -> Unmet:
    return Unmet(str(wanted), mark, _sentence(name, f"the plugin {wanted}", found, remedy))


def chain(names: Sequence[str]) -> str:
    """Return names as a chain that can be read, however long it is."""
    return " → ".join(names if len(names) <= 12 else [*names[:6], "...", *names[-5:]])
