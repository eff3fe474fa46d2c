"""Which of the plugins that are there count for a host, by the operator's word, and why the others don't.

    what is installed ─► [discovery] include, exclude, required_capabilities, allowed_isolation ─► name → PluginSpec
                                                                                             └──► name → why it is kept out

A listing uses this too: nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ._index import Index
from ._names import normalized
from ._spec import PluginSpec

if TYPE_CHECKING:
    from ._config import HostConfig
    from ._order import Order
    from ._requirements import There


@dataclass(frozen=True, slots=True)
class Glance:
    """What a configuration says of plugins that were merely found.

    ``paths`` are searched for plugin directories, ``isolation`` is the floor of all that have none in ``isolations``, ``words``
    are the places from the least isolated to the most, and the last four are those of ``DiscoveryConfig``. Names are normalized.
    """

    paths: Sequence[str] = ()
    isolation: str | None = None
    isolations: Mapping[str, str | None] = field(default_factory=dict)
    disabled: Sequence[str] = ()
    words: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    required_capabilities: Sequence[str] = ()
    allowed_isolation: Sequence[str] = ()

    def disables(self, name: str) -> bool:
        """Whether a plugin is switched off."""
        return normalized(name) in self.disabled

    def place(self, spec: PluginSpec) -> str:
        """Return where a plugin would run: what its manifest wishes ("none" where it says nothing), or the floor above that."""
        wish = _wish(spec.manifest_data)
        floor = self.isolations.get(normalized(spec.name), self.isolation)
        if floor is None or wish not in self.words:
            return wish
        return max(wish, floor, key=self.words.index)

    def why_not(self, spec: PluginSpec) -> str:
        """Return what keeps a plugin out; "" where it counts. A broken one, whose manifest can't be asked, is judged by its name."""
        if self.include and _match(spec.name, self.include) is None:
            return f"none of [discovery] include matches its name: {_shown(self.include)}"
        if (pattern := _match(spec.name, self.exclude)) is not None:
            return f"[discovery] exclude has {pattern!r}"
        if spec.error is None and self.required_capabilities:
            offered = spec.manifest_data.get("capabilities") or ()
            if missing := [each for each in self.required_capabilities if each not in offered]:
                return f"[discovery] required_capabilities asks for what its manifest doesn't list: {_shown(missing)}"
        if spec.error is None and self.allowed_isolation and (place := self.place(spec)) not in self.allowed_isolation:
            return f"it would run with isolation {place!r}, and [discovery] allowed_isolation has {_shown(self.allowed_isolation)}"
        return ""


def glance_of(config: HostConfig) -> Glance:
    """Return what a configuration says of plugins that were merely found."""
    from ._decided import words  # asyncio and more

    found = config.discovery
    own = {normalized(name): table for name, table in config.plugins.items()}
    return Glance(
        paths=[str(path) for path in found.paths],
        isolation=config.defaults.isolation,
        isolations={name: table.isolation for name, table in own.items() if "isolation" in table.model_fields_set},
        disabled=[name for name, table in own.items() if not table.enabled],
        words=words(),
        include=found.include,
        exclude=found.exclude,
        required_capabilities=found.required_capabilities,
        allowed_isolation=found.allowed_isolation,
    )


class Offered(Mapping[str, PluginSpec]):
    """name → spec of the plugins that count; ``kept_out`` says of the others that are installed why they don't. Immutable.

    What the application ``registered`` counts in any case.
    """

    def __init__(self, installed: Mapping[str, PluginSpec], glance: Glance, registered: Sequence[str] = ()) -> None:
        self.installed = installed
        self.glance = glance
        self.kept_out = {name: why for name, spec in installed.items() if (why := glance.why_not(spec))}
        self._specs = {name: spec for name, spec in installed.items() if name not in self.kept_out}
        self._specs |= {name: PluginSpec(name, "") for name in registered}

    def __getitem__(self, name: str) -> PluginSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    @cached_property
    def there(self) -> There:
        """What there is for plugins that require others."""
        from ._requirements import There  # pydantic, which a listing doesn't need

        return There(self._specs, self.kept_out, frozenset(self.glance.disabled))

    @cached_property
    def order(self) -> Order:
        """Which of them are loaded before which."""
        from ._order import Order

        return Order(self.there)


class Offers:
    """Looks at what is installed, and remembers what counts of it until something changes. Not thread-safe: its Loader guards it."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._seen: dict[bool, tuple[tuple[object, ...], Offered]] = {}

    def look(self, config: HostConfig, registered: Sequence[str] = ()) -> Offered:
        """Return what counts by a configuration, and with what the application registered."""
        installed = self._index.look()
        by = (installed, config, tuple(registered))
        before, offered = self._seen.get(bool(registered), (None, None))
        if offered is None or before is None or not (before[0] is installed and before[1] is config and before[2] == by[2]):
            offered = Offered(installed, glance_of(config), registered)
            self._seen[bool(registered)] = by, offered
        return offered


def _match(name: str, patterns: Sequence[str]) -> str | None:
    return next((each for each in patterns if matches(name, each)), None)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern as of a shell matches a plugin's name, as it is spelled or as names are compared."""
    return fnmatchcase(name, pattern) or fnmatchcase(normalized(name), _folded(pattern))


_SEPARATORS = re.compile(r"[-_.]+")


def _folded(pattern: str) -> str:
    # Not ``normalized``, which strips separators at the ends: of "*_" that would make "*".
    return _SEPARATORS.sub("-", pattern.casefold())


def _wish(manifest: Mapping[str, Any]) -> str:
    """Return ``Manifest.wished_isolation`` of a manifest that the scan has checked, without pydantic; "none" where it says nothing."""
    word = manifest.get("isolation")
    if word is None:
        word = manifest.get("transport") == "subprocess"
    if isinstance(word, bool):
        return "process" if word else "none"
    return str(word)


def _shown(words: Sequence[str]) -> str:
    return ", ".join(map(repr, words))


def kept_out(name: str, why: str) -> str:
    """Return the words for a plugin that the operator keeps out."""
    return f"plugin {name!r} is installed, and the configuration keeps it out: {why}"


def not_found(name: object, specs: Offered, group: str) -> str:
    """Return the words for a name that is no plugin's, with the nearest name that is."""
    if isinstance(name, str) and name in specs.kept_out:
        return kept_out(name, specs.kept_out[name])
    near = difflib.get_close_matches(str(name), specs, 1)
    shown = str(name).encode("unicode_escape", "backslashreplace").decode()[:200]
    if near:
        return f"no plugin {shown!r} in {group}; did you mean {near[0]!r}?"
    there = f"there is {', '.join(list(specs)[:10])}" if specs else "none is installed"
    return f"no plugin {shown!r} in {group}; {there}"
