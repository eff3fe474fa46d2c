"""Finding 3 plugins among 300 distributions: as a process, in one, and from the index."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from hostkit import Host

from ._report import Section
from ._site import PLAIN, site
from ._timing import Peer, interleave

_PLUGINS = ("alpha", "beta", "gamma")
_OTHERS = 297
_LIST, _LIST_AGAIN = "hostkit list --json, first time", "hostkit list --json, indexed"
_FIRST, _INDEXED, _SECOND = "host.specs, first scan", "host.specs, new host, indexed", "host.specs, second look"


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure both ways."""
    with site(dict.fromkeys(_PLUGINS, PLAIN), _OTHERS) as place:
        return [_as_process(place, max(5, rounds // 2)), _in_process(rounds, turn)]


def _as_process(place: Path, rounds: int) -> Section:
    section = Section("Discovery as a process, 300 distributions", base="python -c pass")
    peers = [Peer(section.base, lambda _: _process(["-c", "pass"], place)[0], number=1)]
    problem = _why_not(place)
    if problem:
        for name in (_LIST, _LIST_AGAIN):
            section.missing(name, problem)
    else:
        peers += [
            Peer(_LIST, lambda _: _listed(place, first=True), number=1),
            Peer(_LIST_AGAIN, lambda _: _listed(place, first=False), number=1),
        ]
    found = interleave(peers, rounds=rounds, turn=0.0)
    section.measured(found)
    for name in (_LIST, _LIST_AGAIN):
        if name in found:
            section.promise(name, found[name], "s", most=0.120)
    return section


def _why_not(place: Path) -> str:
    _, ended = _process(_COMMAND, place)
    try:
        if ended.returncode == 0 and all(name in str(json.loads(ended.stdout)) for name in _PLUGINS):
            return ""
    except ValueError:
        pass
    words = (ended.stderr or ended.stdout).strip().splitlines() or ["it said nothing"]
    return f"hostkit list --json doesn't answer (status {ended.returncode}): {words[-1]}"


def _listed(place: Path, *, first: bool) -> float:
    if first:
        _forget_index()
    return _process(_COMMAND, place)[0]


_COMMAND = ["-m", "hostkit.cli", "list", "--json"]


def _process(command: list[str], place: Path) -> tuple[float, subprocess.CompletedProcess[str]]:
    environment = {**os.environ, "PYTHONPATH": str(place)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their bytecode; a container's rule isn't measured
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    return time.perf_counter() - started, ended


def _in_process(rounds: int, turn: float) -> Section:
    section = Section("Discovery in-process, 300 distributions", base="importlib.metadata.entry_points")
    with Host() as host:
        assert set(_PLUGINS) <= set(host.specs)
        peers = [
            Peer(_FIRST, lambda _: _first_look(forget=True), number=1),
            Peer(_INDEXED, lambda _: _first_look(forget=False), number=1),
            Peer(_SECOND, timeit.Timer(lambda: host.specs).timeit),
            Peer(section.base, _fresh(lambda: importlib.metadata.entry_points(group="hostkit.plugins")), number=1),
        ]
        found = interleave(peers, rounds=rounds, turn=turn)
    section.measured(found)
    section.promise("index hit, new host", found[_INDEXED], "s", most=0.001)
    section.promise("index hit, second look", found[_SECOND], "s", most=0.001)
    return section


def _first_look(*, forget: bool) -> float:
    if forget:
        _forget_index()
    with Host() as host:
        return _fresh(lambda: host.specs)(1)


def _fresh(look: Callable[[], object]) -> Callable[[int], float]:
    """Return how to time one look with nothing remembered by the import system."""

    def run(_: int) -> float:
        importlib.invalidate_caches()
        started = time.perf_counter()
        look()
        return time.perf_counter() - started

    return run


def _forget_index() -> None:
    shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"], "hostkit"), ignore_errors=True)
