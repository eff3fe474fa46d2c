"""What holds one worker to its limits from outside: a control group where there is one to be had, and the watchdog."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ._cgroup import Leaf
from ._ending import Reason
from ._log import tell
from ._opening import Opening

if TYPE_CHECKING:
    from ._watchdog import Watchdog


class Fence:
    """One worker's, from before it is told what to run. ``home`` is its private directory, empty where it has none;
    ``running`` returns the ids of the calls that it runs, ``end`` kills it."""

    def __init__(
        self,
        opening: Opening,
        pid: int,
        *,
        home: str,
        running: Callable[[], Collection[int]],
        end: Callable[[Reason], object],
    ) -> None:
        self._monitor = opening.monitor
        self._killed_before = _oom_kills()
        self._leaf = _leaf(opening, pid)
        self._watchdog = _watchdog(opening, pid, home, running, end)

    def watch(self) -> None:
        """Begin to look after it. On the monitor's thread, like all that follows."""
        if self._watchdog is not None:
            self._watchdog.start(self._monitor)

    def oom_kills(self) -> tuple[int, int | None]:
        """Return how often the kernel killed for want of memory: in the worker's group, and meanwhile on the machine; None where it
        doesn't say."""
        now = _oom_kills()
        machine = None if now is None or self._killed_before is None else now - self._killed_before
        return 0 if self._leaf is None else self._leaf.oom_kills, machine

    def stop(self) -> None:
        """Look after it no more: it has ended. Idempotent."""
        if self._watchdog is not None:
            self._watchdog.stop()

    def remove(self, then: Callable[[], object], tries: int = 50) -> None:
        """Remove the control group, once those in it that were killed have gone; ``then`` is called at the end of that."""
        if self._leaf is not None and not self._leaf.remove() and tries:
            self._monitor.later(0.02, self.remove, then, tries - 1)
        else:
            then()


def _leaf(opening: Opening, pid: int) -> Leaf | None:
    settings = opening.settings
    if settings.cgroup is None:
        return None
    try:
        leaf = Leaf(settings.cgroup, settings.limits or {})
        try:
            leaf.join(pid)
        except OSError:
            leaf.remove()
            raise
    except OSError as error:
        # The other layers hold without it.
        tell("WARNING", f"plugin {opening.name!r}: a worker has no control group: {error}", plugin=opening.name)
        return None
    return leaf


def _watchdog(
    opening: Opening, pid: int, home: str, running: Callable[[], Collection[int]], end: Callable[[Reason], object]
) -> Watchdog | None:
    limits = opening.settings.limits
    if not limits or sys.platform != "linux":
        return None
    from ._watchdog import Beside, Watchdog  # needs setrlimit, which is not on every system

    # In namespaces of its own a worker has two processes above it; else a thread that guards its lifeline.
    beside = {"off": Beside(), "standard": Beside(threads=1), "strict": Beside(processes=2, threads=2)}[opening.settings.sandbox]
    return Watchdog(opening.name, pid, limits, running=running, end=end, beside=beside, home=home)


def _oom_kills() -> int | None:
    """Return how often the kernel has killed for want of memory on this machine; None where it doesn't say."""
    try:
        with open("/proc/vmstat", "rb") as file:
            found = re.search(rb"^oom_kill (\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1])
