"""CPU time of this process and of its children: what a call costs, whoever else uses the machine meanwhile.

    meter.begin() ─► a turn ─► meter.end(name, calls)

Whatever the children's names, those of one peer are the only ones that work in its turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

HOST, WORKERS = "CPU here", "CPU there"


class Meter:
    """Seconds of CPU a call, here and in all children, one figure a round."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, list[float]]] = {}
        self._here = 0.0
        self._there: dict[str, int] = {}

    def begin(self) -> None:
        """Begin a turn."""
        self._there = _nanoseconds()
        self._here = time.process_time()

    def end(self, name: str, calls: int) -> None:
        """End a turn."""
        here = time.process_time() - self._here
        there = sum(now - self._there.get(task, 0) for task, now in _nanoseconds().items())
        found = self._found.setdefault(name, {HOST: [], WORKERS: []})
        found[HOST].append(here / calls)
        found[WORKERS].append(there / 1e9 / calls)

    @property
    def found(self) -> Mapping[str, Mapping[str, Sequence[float]]]:
        """Return name → column → seconds."""
        return self._found


def both(found: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the CPU of both sides together."""
    return [here + there for here, there in zip(found[HOST], found[WORKERS], strict=True)]


def _nanoseconds() -> dict[str, int]:
    """Return the CPU time of each task of each descendant."""
    found = {}
    for process in _descendants("/proc/self"):
        with suppress(OSError):  # it has just ended
            for task in Path(process, "task").iterdir():
                found[str(task)] = int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return found


def _descendants(process: str) -> Iterator[str]:
    with suppress(OSError):
        for task in Path(process, "task").iterdir():
            for child in (task / "children").read_text(encoding="ascii").split():
                yield f"/proc/{child}"
                yield from _descendants(f"/proc/{child}")
