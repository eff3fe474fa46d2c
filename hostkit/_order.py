"""Which plugins are loaded before which.

    required ─► must be there, all the way down, and in no circle: else an error that draws the chain
    optional ─► comes before where it can: dropped where it closes a circle, or where it could not be loaded itself

Which optional edge of a circle is dropped depends on what is there and not on which plugin is asked for first: two threads that load
two plugins of one circle lock them in the same order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from operator import or_
from typing import NamedTuple

from packaging.requirements import Requirement

from ._errors import HostkitError, ManifestError, RequirementError
from ._manifest import Requirements
from ._names import normalized
from ._requirements import Needs, There, chain


@dataclass(frozen=True, slots=True)
class Earlier:
    """A plugin that is loaded before another one. ``needed`` says whether the other one can't do without it; ``required`` are those
    that it can't do without itself, directly."""

    name: str
    needed: bool
    required: tuple[str, ...]


class Order:
    """The order of loading, for one look at what is there. Thread-safe."""

    def __init__(self, there: There) -> None:
        self._there = there
        self._before: dict[str, tuple[Earlier, ...]] = {}
        self._kept: dict[str, list[str]] | None = None  # plugin → the optional ones that come before it

    def before(self, name: str) -> tuple[Earlier, ...]:
        """Return the plugins that are loaded before this one, each after those before it.

        Raises ``RequirementError`` where one that is required, directly or not, is missing or unfit, or they require each other in a
        circle, and ``ManifestError`` for a wrong manifest.
        """
        if name not in self._before:
            self._before[name] = self._find(name)
        return self._before[name]

    def without(self, name: str) -> list[str]:
        """Return a sentence for each optional plugin that this one names, and that is there and can't be loaded."""
        needs = self._there.needs(name)
        kept = self._before_it().get(name, ()) if needs.optional else []
        return [*needs.unusable, *(why for other in needs.optional if other not in kept and (why := self._why_not(other)))]

    def path(self, name: str, other: str) -> str:
        """Return the shortest chain from a plugin to one that is loaded before it."""
        parents = _walk(name, self._edges)
        return chain(_path(parents, other)) if other in parents else other

    def _find(self, name: str) -> tuple[Earlier, ...]:
        parents = _walk(name, self._required)
        for each in parents:
            if unmet := self._there.needs(each).unmet:
                shown = chain([*_path(parents, each), f"{unmet.wanted} ({unmet.mark})"])
                raise RequirementError(unmet.sentence if each == name else f"plugin {name!r}: {shown}: {unmet.sentence}")
        needed = {each: self._required(each) for each in parents}
        _check_circle(name, parents, needed)
        edges = needed
        if any(self._there.needs(each).optional for each in needed):
            edges = {each: self._edges(each) for each in _walk(name, self._edges)}
        order = TopologicalSorter(edges).static_order()
        return tuple(Earlier(each, each in needed, self._required(each)) for each in order if each != name)

    def _required(self, name: str) -> tuple[str, ...]:
        return self._there.needs(name).required

    def _edges(self, name: str) -> tuple[str, ...]:
        needs = self._there.needs(name)
        return (*needs.required, *(self._before_it().get(name, ()) if needs.optional else ()))

    def _why_not(self, name: str) -> str:
        try:
            self.before(name)
        except HostkitError as error:
            return f"the optional plugin {name!r} can't be loaded: {error}"
        return ""  # it would only close a circle

    def _before_it(self) -> dict[str, list[str]]:
        if self._kept is None:
            self._kept = _without_circles(self._there)
        return self._kept


def dependents(name: str, needs: Mapping[str, Requirements]) -> list[str]:
    """Return who requires a plugin, directly or not, the nearest first."""
    users: dict[str, list[str]] = defaultdict(list)
    for user, needed in needs.items():
        for text in needed.required_plugins:
            users[normalized(Requirement(text).name)].append(user)
    return [each for each in _walk(name, lambda each: users.get(normalized(each), ())) if each != name]


def _walk(name: str, edges: Callable[[str], Iterable[str]]) -> dict[str, str | None]:
    """Return everything that can be reached, the nearest first, each with the plugin that leads to it."""
    parents: dict[str, str | None] = {name: None}
    waiting = deque([name])
    while waiting:
        each = waiting.popleft()
        for other in edges(each):
            if other not in parents:
                parents[other] = each
                waiting.append(other)
    return parents


def _path(parents: Mapping[str, str | None], name: str) -> list[str]:
    path = [name]
    while (parent := parents[path[-1]]) is not None:
        path.append(parent)
    return path[::-1]


def _check_circle(name: str, parents: Mapping[str, str | None], needed: Mapping[str, tuple[str, ...]]) -> None:
    try:
        TopologicalSorter(needed).prepare()
    except CycleError as error:
        circle = error.args[1][:0:-1]  # of the two ends, which are the same, one
        nearness = {each: place for place, each in enumerate(parents)}
        first = circle.index(min(circle, key=nearness.__getitem__))
        shown = chain([*_path(parents, circle[first]), *circle[first + 1 :], *circle[: first + 1]])
        raise RequirementError(f"plugin {name!r}: plugins require each other in a circle: {shown}") from None


def _without_circles(there: There) -> dict[str, list[str]]:
    """Return, for each plugin that can be loaded as far as others are concerned, the optional ones that come before it.

    One walk into the depth: an optional edge that leads back to a plugin whose walk isn't finished is dropped, and so is one to a
    plugin that requires such a one. So a required edge never leads back.
    """
    closures = _closures(there)
    kept: dict[str, list[str]] = {name: [] for name in closures}
    done: set[str] = set()
    begun = 0  # the bits of the plugins whose walk isn't finished

    def edges(name: str) -> Iterator[str]:
        needs = there.needs(name)
        yield from needs.required
        for other in needs.optional:
            if other in closures and not closures[other].all & begun:
                kept[name].append(other)
                yield other

    for start in sorted(closures):
        path = [] if start in done else [(start, edges(start))]
        begun |= closures[start].own if path else 0
        while path:
            name, following = path[-1]
            other = next((each for each in following if each not in done), None)
            if other is not None:
                begun |= closures[other].own
                path.append((other, edges(other)))
            else:
                begun ^= closures[name].own
                done.add(name)
                path.pop()
    return kept


class _Closure(NamedTuple):
    """A plugin's own bit, and that with those of all that it requires, directly or not."""

    own: int
    all: int


def _closures(there: There) -> dict[str, _Closure]:
    graph = {name: needs.required for name in there.usable if (needs := _readable(there, name)) and needs.unmet is None}
    sorter = TopologicalSorter(graph)
    with suppress(CycleError):  # what is in a circle, or requires what is, never gets ready
        sorter.prepare()
    closures: dict[str, _Closure] = {}
    while ready := sorter.get_ready():
        for name in ready:
            if name in graph and all(other in closures for other in graph[name]):
                own = 1 << len(closures)
                closures[name] = _Closure(own, reduce(or_, (closures[other].all for other in graph[name]), own))
        sorter.done(*ready)
    return closures


def _readable(there: There, name: str) -> Needs | None:
    try:
        return there.needs(name)
    except ManifestError:
        return None
