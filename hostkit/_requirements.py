"""Check what a manifest requires, before anything of the plugin is imported."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from . import __version__
from ._errors import RequirementError
from ._manifest import Manifest
from ._spec import PluginSpec


def check(name: str, manifest: Manifest, specs: Mapping[str, PluginSpec], environment: Mapping[str, str]) -> list[str]:
    """Return the names of the plugins that must be loaded first. Raises ``RequirementError`` for whatever is not there.

    ``environment`` is what the plugin will see: the host's own in-process, the allow-list in a worker.
    """
    needs = manifest.requirements
    for what, wanted, there in (("Python", needs.python, platform.python_version()), ("hostkit", needs.hostkit, __version__)):
        if wanted is not None and not SpecifierSet(wanted).contains(there, prereleases=True):
            raise _unmet(name, f"{what} {wanted}", f"{what} {there}", "run it under one that fits")
    for variable in needs.environment_vars:
        if variable not in environment:
            remedy = f'set it; an isolated plugin sees it only where the operator passes it: env = ["{variable}"]'
            raise _unmet(name, f"the environment variable {variable}", "none of that name", remedy)
    for program in needs.system_packages:
        if shutil.which(program) is None:
            raise _unmet(name, f"the program {program} on PATH", "no such program", "install it")
    required = [_plugin(name, wanted, specs, optional=False) for wanted in needs.required_plugins]
    optional = [_plugin(name, wanted, specs, optional=True) for wanted in needs.optional_plugins]
    return [each for each in (*required, *optional) if each]


def _plugin(name: str, wanted: str, specs: Mapping[str, PluginSpec], *, optional: bool) -> str:
    requirement = Requirement(wanted)
    spec = specs.get(requirement.name)
    if spec is None or spec.error is not None:
        if optional:
            return ""
        found = "no plugin of that name" if spec is None else f"a broken one: {spec.error}"
        raise _unmet(name, f"the plugin {wanted}", found, "install it")
    if requirement.specifier and not requirement.specifier.contains(spec.version or "0", prereleases=True):
        raise _unmet(name, f"the plugin {wanted}", f"version {spec.version or 'unknown'}", "install a version that fits")
    return "" if optional else spec.name


def _unmet(name: str, wanted: str, found: str, remedy: str) -> RequirementError:
    return RequirementError(f"plugin {name!r} requires {wanted}, found {found}; {remedy}")


def seen_by_plugin(isolation: str, passed: tuple[str, ...]) -> Mapping[str, str]:
    """Return the environment that a plugin will see."""
    if isolation == "none":
        return os.environ
    from ._launch import environment  # multiprocess, which an in-process host doesn't need

    return environment(passed, None)
