"""Say which requirements of a plugin's own distribution are not met here, once it couldn't be loaded.

Not before: many distributions work with a neighbour that is newer than they ask for. But where one of two plugins got the version
that the other can't live with, the import error alone ("cannot import name …") sends the reader to the wrong place.
"""

from __future__ import annotations

from ._errors import PluginLoadError
from ._spec import PluginSpec


def told_with_conflicts(error: PluginLoadError, spec: PluginSpec | None) -> PluginLoadError:
    """Return the error with what its distribution requires in vain, where that may be the reason."""
    unmet = [] if spec is None or not spec.distribution or error.kind not in ("import", "init") else _unmet(spec.distribution)
    if unmet:
        distribution = f"{spec.distribution} {spec.version}" if spec is not None else ""
        error.args = (f"{error}; {distribution} requires {', '.join(unmet)}: two plugins may need different versions of it",)
    return error


def _unmet(distribution: str) -> list[str]:
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
