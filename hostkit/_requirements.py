"""Check what a manifest requires, before anything of the plugin is imported."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from . import __version__
from ._errors import RequirementError
from ._manifest import Manifest
from ._names import normalized
from ._spec import PluginSpec


def load_order(name: str, specs: Mapping[str, PluginSpec]) -> list[str]:
    """Return the names of the plugins that a plugin requires, directly or not, each after those that it requires itself.

    Raises ``RequirementError`` where one is missing or they require each other in a circle, ``ManifestError`` for a wrong manifest.
    """
    required: dict[str, list[str]] = {}
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in required:
            wanted = specs[each].manifest.requirements.required_plugins if each in specs else []
            required[each] = [_required(each, text, specs) for text in wanted]
            waiting.extend(required[each])
    try:
        return [each for each in TopologicalSorter(required).static_order() if each != name]
    except CycleError as error:
        circle = error.args[1][::-1]
        shown = circle if len(circle) <= 12 else [*circle[:6], "...", *circle[-5:]]
        raise RequirementError(f"plugin {name!r}: plugins require each other in a circle: {' → '.join(shown)}") from None


def check(name: str, manifest: Manifest, specs: Mapping[str, PluginSpec], environment: Mapping[str, str]) -> None:
    """Raise ``RequirementError`` for whatever is not there.

    ``environment`` is what the plugin will see: the host's own in-process, the allow-list in a worker.
    """
    needs = manifest.requirements
    python = ".".join(map(str, sys.version_info[:3]))
    for what, wanted, there in (("Python", needs.python, python), ("hostkit", needs.hostkit, __version__)):
        if wanted is not None and not SpecifierSet(wanted).contains(there, prereleases=True):
            raise _unmet(name, f"{what} {wanted}", f"{what} {there}", "run it under one that fits")
    for variable in needs.environment_vars:
        if variable not in environment:
            remedy = f'set it; an isolated plugin sees it only where the operator passes it: env = ["{variable}"]'
            raise _unmet(name, f"the environment variable {variable}", "none of that name", remedy)
    for program in needs.system_packages:
        if shutil.which(program) is None:
            raise _unmet(name, f"the program {program} on PATH", "no such program", "install it")
    for wanted in needs.required_plugins:
        _required(name, wanted, specs)
    for wanted in needs.optional_plugins:
        requirement = Requirement(wanted)
        spec = _named(requirement.name, specs)
        if spec is not None and spec.error is None:
            _check_version(name, requirement, spec)


def _required(name: str, wanted: str, specs: Mapping[str, PluginSpec]) -> str:
    requirement = Requirement(wanted)
    spec = _named(requirement.name, specs)
    if spec is None:
        raise _unmet(name, f"the plugin {wanted}", "no plugin of that name", "install it")
    if spec.error is not None:
        raise _unmet(name, f"the plugin {wanted}", f"a broken one: {spec.error}", "mend it")
    _check_version(name, requirement, spec)
    return spec.name


def _named(name: str, specs: Mapping[str, PluginSpec]) -> PluginSpec | None:
    if name in specs:
        return specs[name]
    return next((spec for other, spec in specs.items() if normalized(other) == normalized(name)), None)


def _check_version(name: str, requirement: Requirement, spec: PluginSpec) -> None:
    if requirement.specifier and not (spec.version and requirement.specifier.contains(spec.version, prereleases=True)):
        found = f"version {spec.version}" if spec.version else "one of unknown version"
        raise _unmet(name, f"the plugin {requirement}", found, "install a version that fits")


def _unmet(name: str, wanted: str, found: str, remedy: str) -> RequirementError:
    return RequirementError(f"plugin {name!r} requires {wanted}, found {found}; {remedy}")


def seen_by_plugin(isolation: str, passed: tuple[str, ...]) -> Mapping[str, str]:
    """Return the environment that a plugin will see."""
    if isolation == "none":
        return os.environ
    from ._launch import environment  # multiprocess, which an in-process host doesn't need

    return environment(passed, None)
