"""What a plugin author's ``from hostkit import Plugin`` costs every process that imports the plugin."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from ._report import Section
from ._timing import Peer, interleave

_OURS, _EMPTY = "from hostkit import Plugin", "pass"
_STATEMENTS = (_EMPTY, _OURS, "from hostkit import Host", "import pluggy", "import pydantic")


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure fresh processes; an empty one is taken off round by round."""
    del turn  # a process is one process
    peers = [Peer(statement, _process(statement), number=1) for statement in _STATEMENTS]
    found = interleave(peers, rounds=max(11, rounds), turn=0.0)
    empty = found.pop(_EMPTY)
    section = Section("Imports in a fresh process, minus an empty one")
    net = {name: [one - other for one, other in zip(samples, empty, strict=True)] for name, samples in found.items()}
    section.measured({**net, "(an empty process)": empty})
    section.promise(_OURS, net[_OURS], "s", most=0.010)
    return [section]


def _process(statement: str) -> Callable[[int], float]:
    def run(_: int) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", statement], check=True)
        return time.perf_counter() - started

    return run
