"""Hold a worker, and all that it started, to limits that the kernel doesn't: look now and then, and end it where one is exceeded.

The kernel's own limits, which ``_worker/_limits.py`` sets, act at once. But they count each process by itself, RLIMIT_DATA doesn't
count shared memory, and code in the worker can take some of them back.
"""

from __future__ import annotations

import os
import resource
import time
from asyncio import TimerHandle
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from . import _footprint
from ._ending import Reason
from ._errors import CpuExceeded, MemoryExceeded, ProcessesExceeded, SandboxViolation
from ._family import Family, Process
from ._log import tell
from ._monitor import Monitor
from ._worker import _limits

# Seconds between two looks: while the worker does nothing, while it does something, and where it comes near to a limit.
_QUIET, _BUSY, _NEAR = 0.5, 0.05, 0.02
_LEAST = 0.005
# The part of a CPU that may go into looking, and into looking for orphans: that walks through all processes of the machine.
_SHARE, _ORPHANS_SHARE = 0.02, 0.01
# Seconds until orphans are looked for where nothing happens: whoever makes some does something, but the kernel counts in 10 ms.
_ORPHANS = 2.0
# Times that those which a worker leaves behind are looked for: they may go on making others meanwhile.
_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class Beside:
    """What a worker has that is the sandbox's, not the plugin's."""

    processes: int = 0
    threads: int = 0


class Watchdog:
    """One worker's. ``running`` returns the ids of the calls that it runs now, ``end`` kills it. The monitor's thread alone uses it."""

    def __init__(
        self,
        plugin: str,
        pid: int,
        limits: Mapping[str, float],
        *,
        running: Callable[[], Collection[int]],
        end: Callable[[Reason], object],
        beside: Beside = Beside(),
        home: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plugin = plugin
        self._limits = limits
        self._running = running
        self._end = end
        self._beside = beside
        self._home = home  # the worker's private directory
        self._clock = clock
        self._family = Family(pid)
        self._of_process = _of_process(limits)
        self._cpus = _limits.cpus(pid, int(limits["cpu_cores"]), os.sched_getaffinity(0)) if "cpu_cores" in limits else None
        self._calls: dict[int, float] = {}  # CPU seconds of the calls that run
        self._cpu = 0.0  # of the whole family, at the last look
        self._idle = 0.0  # seconds until the next look, if nothing has happened until then
        self._looked = False
        self._everywhere_at = 0.0
        self._set_back: set[str] = set()
        self._timer: TimerHandle | None = None
        self._stopped = False

    def start(self, monitor: Monitor) -> None:
        """Look, now and again, until ``stop``."""
        if self._stopped:
            return
        began = time.thread_time()  # not the clock: on a busy machine waiting isn't work
        reason, pause = self.look()
        if reason is not None:
            self._end(reason)
            self._family.kill()  # whoever made a session of its own isn't in the worker's group
        pause = max(pause, (time.thread_time() - began) / _SHARE)
        self._timer = monitor.later(pause, self.start, monitor)

    def stop(self) -> None:
        """Stop looking, and kill what the worker left behind. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(_ROUNDS):
            if not self._family.kill():
                break

    def look(self) -> tuple[Reason | None, float]:
        """Return why the worker has to end, if it has to, and the seconds until the next look."""
        members = self._seen()
        self._set_limits_back(members)
        self._looked = True
        spent = self._spent(members)
        self._idle = _BUSY if spent else min(_QUIET, self._idle * 2.0 or _BUSY)
        pauses = [self._idle]
        for check in (self._processes, self._threads, self._memory, self._temporary):
            reason = check(members, pauses)
            if reason is not None:
                return reason, _LEAST
        return self._cpu_seconds(spent, pauses), max(_LEAST, min(pauses))

    def _seen(self) -> Mapping[int, Process]:
        now = self._clock()
        if now < self._everywhere_at or (self._idle > _BUSY and now < self._everywhere_at + _ORPHANS):
            return self._family.look(everywhere=False)
        began = time.thread_time()
        members = self._family.look()
        self._everywhere_at = now + (time.thread_time() - began) / _ORPHANS_SHARE
        return members

    def _spent(self, members: Mapping[int, Process]) -> float:
        total = sum(found.cpu for found in members.values())
        spent, self._cpu = total - self._cpu, total
        return max(0.0, spent)  # the time of one that ended, and that nobody waited for, is lost

    def _processes(self, members: Mapping[int, Process], pauses: list[float]) -> Reason | None:
        most = self._limits.get("processes")
        if most is None:
            return None
        count = len(members) - self._beside.processes
        pauses.append(_NEAR if count >= most and self._idle == _BUSY else _QUIET)
        if count <= most:
            return None
        return Reason(
            ProcessesExceeded, f"its worker and what it started were {count} processes, {most:g} are allowed (max_processes)"
        )

    def _threads(self, members: Mapping[int, Process], pauses: list[float]) -> Reason | None:
        most = self._limits.get("threads")
        if most is None:
            return None
        count = sum(found.threads for found in members.values()) - self._beside.threads
        pauses.append(_NEAR if count > 0.5 * most and self._idle == _BUSY else _QUIET)
        if count <= most:
            return None
        return Reason(ProcessesExceeded, f"its worker and what it started had {count} threads, {most:g} are allowed (max_threads)")

    def _temporary(self, members: Mapping[int, Process], pauses: list[float]) -> Reason | None:
        del members
        most = self._limits.get("temporary_bytes")
        if most is None or not self._home:
            return None
        used = _footprint.on_disk(self._home, int(most))
        pauses.append(_NEAR if used > 0.5 * most and self._idle == _BUSY else _QUIET)
        if used <= most:
            return None
        text = f"its temporary directory took up more than the {int(most) >> 20} MB that are allowed (max_temporary_mb)"
        return Reason(SandboxViolation, text)

    def _memory(self, members: Mapping[int, Process], pauses: list[float]) -> Reason | None:
        most = self._limits.get("memory_bytes")
        if most is None:
            return None
        used = _footprint.at_most(members)
        if used > most:
            used = _footprint.exact(members)
        if used > 0.5 * most:
            pauses.append(_NEAR if self._idle == _BUSY else _QUIET)
        if used <= most:
            return None
        text = f"its worker took up {used >> 20} MB of memory, {int(most) >> 20} are allowed (max_memory_mb)"
        return Reason(MemoryExceeded, text, evidence="watchdog")

    def _cpu_seconds(self, spent: float, pauses: list[float]) -> Reason | None:
        """Share out what was spent among the calls that run. One that began since the last look has nothing of it yet."""
        most = self._limits.get("cpu_seconds")
        if most is None:
            return None
        running = self._running()
        share = spent / len(running) if running else 0.0
        self._calls = {call: self._calls[call] + share if call in self._calls else 0.0 for call in running}
        call = max(self._calls, key=self._calls.__getitem__, default=0)
        left = most - self._calls.get(call, 0.0)
        pauses.append(left / (os.cpu_count() or 1))
        # Not if it has ended meanwhile: the worker would be killed under the next one.
        if left > 0.0 or call not in self._running():
            return None
        return Reason(CpuExceeded, f"its worker used up the {most:g} CPU seconds of a call (max_cpu_seconds)")

    def _set_limits_back(self, members: Iterable[int]) -> None:
        for pid in members:
            with suppress(OSError):  # it has ended
                for what, value in self._of_process.items():
                    if resource.prlimit(pid, what)[1] not in range(value + 1):
                        resource.prlimit(pid, what, (value, value))
                        self._tell("its limits")
                if self._cpus is not None:
                    self._pin(pid, self._cpus)

    def _pin(self, pid: int, cpus: set[int]) -> None:
        for name in os.listdir(f"/proc/{pid}/task"):
            if not os.sched_getaffinity(int(name)) <= cpus:
                os.sched_setaffinity(int(name), cpus)
                self._tell("the CPUs that it may use")

    def _tell(self, what: str) -> None:
        # At the first look it may be too young to have set them itself.
        if self._looked and what not in self._set_back:
            self._set_back.add(what)
            tell("WARNING", f"plugin {self._plugin!r}: its worker had changed {what}; they were set back", plugin=self._plugin)


def _of_process(limits: Mapping[str, float]) -> dict[int, int]:
    """Return the kernel's limits as the worker sets them: below the host's own, which it inherited."""
    found = {}
    for what, value in _limits.of_process(limits).items():
        _, hard = resource.getrlimit(what)
        found[what] = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return found
