"""A control group (cgroup v2) for one worker, where the host's own is delegated to it: see Linux's admin-guide/cgroup-v2.

delegated/            whoever runs the host may make groups here
├─ host               the host itself: a group with processes in it can't hand out controllers (systemd: DelegateSubgroup=)
└─ hostkit-PID-N      one worker, and everything that it starts
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("memory", "pids")
_numbers = itertools.count(1)


def delegated(*, root: Path = _ROOT, own: Path = Path("/proc/self/cgroup")) -> Path | None:
    """Return the group in which this process may make others that have limits, or None."""
    try:
        line = next((line for line in own.read_text().splitlines() if line.startswith("0::/")), "")
        if not line or ".." in line or not (root / "cgroup.controllers").is_file():
            return None
        place = root / line[4:]
        return next((found for found in (place, place.parent) if found != root.parent and _ours(found)), None)
    except OSError:
        return None


def _ours(place: Path) -> bool:
    """Whether this group was handed over, and hands on the controllers that are needed."""
    # To root everything is writable: only systemd's mark says that a group isn't its own any more.
    if not (_marked(place) if os.geteuid() == 0 else os.access(place, os.W_OK) and os.access(place / "cgroup.procs", os.W_OK)):
        return False
    control = place / "cgroup.subtree_control"
    if not set(_CONTROLLERS) <= set(control.read_text().split()):
        try:
            control.write_text(" ".join(f"+{name}" for name in _CONTROLLERS))
        except OSError:  # processes are in it, or it doesn't have them
            return False
    return True


def _marked(place: Path) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(place, name) == b"1":
                return True
    return False


class Leaf:
    """The group of one worker. A constructor that raises ``OSError`` leaves nothing behind."""

    def __init__(self, parent: Path, limits: Mapping[str, float], *, rmdir: Callable[[Path], object] = os.rmdir) -> None:
        self._rmdir = rmdir
        self._sweep(parent)
        self.path = parent / f"hostkit-{os.getpid()}-{next(_numbers)}"
        self.path.mkdir()
        try:
            self._limit(limits)
        except OSError:
            self.remove()
            raise

    def _limit(self, limits: Mapping[str, float]) -> None:
        if "memory_bytes" in limits:
            self._write("memory.max", int(limits["memory_bytes"]))
            self._write("memory.oom.group", 1)  # half a worker is of no use
            if (self.path / "memory.swap.max").exists():
                self._write("memory.swap.max", 0)
        if "processes" in limits:
            # It counts threads, of which each process may have many: this only stops what grows between two looks.
            self._write("pids.max", int(limits["processes"]) * _THREADS)

    def join(self, pid: int) -> None:
        """Move a process here; what it starts from now on is born here. Raises ``OSError``."""
        self._write("cgroup.procs", pid)

    @property
    def oom_kills(self) -> int:
        """How many processes the kernel has killed here because memory ran out."""
        with suppress(OSError, ValueError):
            for line in (self.path / "memory.events").read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
        return 0

    def remove(self) -> bool:
        """Kill whoever is left and remove the group; return whether it has gone. Idempotent."""
        with suppress(OSError):
            if (self.path / "cgroup.kill").exists():
                self._write("cgroup.kill", 1)
        try:
            self._rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:  # somebody in it has not ended yet
            return False
        return True

    def _write(self, name: str, value: int) -> None:
        (self.path / name).write_text(str(value))

    def _sweep(self, parent: Path) -> None:
        """Remove what hosts left behind that were killed."""
        for path in parent.glob("hostkit-*-*"):
            pid = path.name.split("-")[1]
            if pid.isdigit() and not Path("/proc", pid).exists():
                with suppress(OSError):
                    self._rmdir(path)


_THREADS = 512
