"""What a process holds: memory, descriptors, threads; sampled over a run, and whether it grew."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Vitals:
    """One look at a process. Sizes in MB; ``unique`` is what it has to itself (private pages, clean and dirty)."""

    resident: float
    unique: float
    fds: int
    threads: int


def look(pid: int | None = None) -> Vitals:
    """Look at a process, this one by default. Raises ``OSError`` for one that has gone."""
    place = Path("/proc", "self" if pid is None else str(pid))
    sizes = dict(line.split()[:2] for line in (place / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:])
    kilobytes = {name: int(size) for name, size in sizes.items()}
    return Vitals(
        resident=kilobytes["Rss:"] / 1024,
        unique=(kilobytes["Private_Clean:"] + kilobytes["Private_Dirty:"]) / 1024,
        fds=len(os.listdir(place / "fd")),
        threads=len(os.listdir(place / "task")),
    )


def collect() -> None:
    """Give back what this process holds and doesn't use: cycles, and pages that malloc keeps between blocks of many sizes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


@dataclass(frozen=True, slots=True)
class Growth:
    """One figure early and late in a run, and how much more of it late is no growth."""

    what: str
    early: float
    late: float
    most: float

    @property
    def kept(self) -> bool:
        """Whether it didn't grow."""
        return self.late - self.early <= self.most


def growth(samples: Sequence[Vitals], *, megabytes: float, count: float) -> list[Growth]:
    """Compare the medians of the second and of the last fifth: the first one is the warming up."""
    fifth = max(1, len(samples) // 5)
    early, late = samples[fifth : 2 * fifth] or samples, samples[-fifth:]
    limits = {"resident": megabytes, "unique": megabytes, "fds": count, "threads": count}
    return [
        Growth(name, median(getattr(each, name) for each in early), median(getattr(each, name) for each in late), most)
        for name, most in limits.items()
    ]
