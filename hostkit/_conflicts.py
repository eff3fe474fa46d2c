"""Say which requirements of a plugin's own distribution are not met here.

Most plugins are told only once they couldn't be loaded: many distributions work with a neighbour that is newer than they ask for. But
where one of two plugins got the version that the other can't live with, the import error alone ("cannot import name …") sends the
reader to the wrong place. One with ``isolation = "auto"`` is not tried at all then.
"""

from __future__ import annotations

from ._errors import PluginLoadError
from ._spec import PluginSpec


def told_with_conflicts(error: PluginLoadError, spec: PluginSpec | None) -> PluginLoadError:
    """Return the error with what its distribution requires in vain, where that may be the reason."""
    missing = [] if spec is None or not spec.distribution or error.kind not in ("import", "init") else unmet(spec.distribution)
    if missing:
        distribution = f"{spec.distribution} {spec.version}" if spec is not None else ""
        error.args = (f"{error}; {distribution} requires {', '.join(missing)}: two plugins may need different versions of it",)
    return error


def unmet(distribution: str) -> list[str]:
    """Return what a distribution requires and doesn't have here, as its metadata tells; nothing is imported."""
    import importlib_metadata
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    try:
        required = importlib_metadata.requires(distribution) or []
    except Exception:  # broken metadata of somebody else's: the error is told without it
        return []
    for text in required:
        try:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            there = importlib_metadata.version(requirement.name)
        except importlib_metadata.PackageNotFoundError:
            found.append(f"{text}, which is not installed")
        except (InvalidRequirement, ValueError):
            continue
        else:
            if not requirement.specifier.contains(there, prereleases=True):
                found.append(f"{text}, and {there} is installed")
    return found
