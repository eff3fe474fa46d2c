"""From nothing to the first answer of a worker, and how much memory an idle one has to itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import hostkit
from hostkit import Host

from . import _models, _peers, _plugin
from ._report import Row, Section, ratios
from ._site import PLAIN, PYDANTIC, site
from ._timing import Peer, interleave

_OURS, _OURS_COMPILING = "hostkit, without pydantic", "hostkit, without pydantic, no bytecode cached"
_OURS_PYDANTIC = "hostkit, with pydantic"
_OURS_OFF, _OURS_STRICT = "hostkit, without a sandbox", "hostkit, sandbox strict"
_FORKED, _FORKED_PYDANTIC = "hostkit, from the template, without pydantic", "hostkit, from the template, with pydantic"
_MANY = 100
_FLOOR = "bare interpreter (python -I -S -c pass)"


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure starts and memory; at least seven of each."""
    del turn  # a start is one start
    rounds = max(7, rounds)
    start = Section("Worker start to first answer", base=_FLOOR)
    memory: dict[str, list[float]] = {
        name: [] for name in (_OURS, _OURS_OFF, _OURS_STRICT, _OURS_PYDANTIC, _FORKED, _FORKED_PYDANTIC)
    }
    with Host(config={"defaults": {"start": "template"}}) as forking, site({"plain": PLAIN, "models": PYDANTIC}) as place:
        peers = [
            Peer(_OURS, lambda _: _started("plain", memory[_OURS]), number=1),
            Peer(_OURS_COMPILING, lambda _: _started_compiling(place), number=1),
            Peer(_OURS_OFF, lambda _: _started("plain", memory[_OURS_OFF], "off"), number=1),
            Peer(_OURS_STRICT, lambda _: _started("plain", memory[_OURS_STRICT], "strict"), number=1),
            Peer(_OURS_PYDANTIC, lambda _: _started("models", memory[_OURS_PYDANTIC]), number=1),
            Peer(_FORKED, lambda _: _started_in(forking, "plain", memory[_FORKED]), number=1),
            Peer(_FORKED_PYDANTIC, lambda _: _started_in(forking, "models", memory[_FORKED_PYDANTIC]), number=1),
            Peer("ProcessPoolExecutor (spawn), without pydantic", lambda _: _pool_started(_plugin), number=1),
            Peer("ProcessPoolExecutor (spawn), with pydantic", lambda _: _pool_started(_models), number=1),
            Peer(_FLOOR, lambda _: _bare(), number=1),
        ]
        with _with_bytecode():
            _started("plain", [])
            _started("models", [])
            _started_in(forking, "plain", [])
            found = interleave(peers, rounds=rounds, turn=0.0)
    start.measured(found)
    start.promise("worker start to first answer, without pydantic", found[_OURS], "s", most=0.045)
    plain = found[_OURS_OFF]
    adds = {each: [one - other for one, other in zip(found[each], plain, strict=True)] for each in (_OURS, _OURS_STRICT)}
    start.promise("what the sandbox adds to that, standard", adds[_OURS], "s", most=0.005)
    start.rows += [
        Row(f"what the sandbox adds, {each}", adds[name], "s") for each, name in (("standard", _OURS), ("strict", _OURS_STRICT))
    ]
    start.promise("worker start to first answer, from the template", found[_FORKED], "s", most=0.010)
    start.promise("the same with pydantic", found[_FORKED_PYDANTIC], "s", most=0.025)
    idle = Section("Unique memory of an idle worker (USS)")
    idle.rows += [Row(name, samples, "MB") for name, samples in memory.items()]
    idle.promise("idle worker's memory, without pydantic", memory[_OURS], "MB", most=10.0)
    idle.promise("idle worker's memory, from the template, with pydantic", memory[_FORKED_PYDANTIC], "MB", most=6.0)
    return [start, idle, _hundred(max(3, rounds // 7))]


def _hundred(rounds: int) -> Section:
    """Measure how long it takes until a hundred plugins are loaded, each in a worker of its own."""
    section = Section(f"{_MANY} plugins, until all are loaded", base="one by one, fresh")
    plugins = {f"plain{number:03}": PLAIN for number in range(_MANY)}
    with site(plugins), _with_bytecode():
        ways = {
            section.base: lambda _: _loaded(plugins, "fresh", at_once=False),
            "load_all, fresh": lambda _: _loaded(plugins, "fresh", at_once=True),
            "one by one, from the template": lambda _: _loaded(plugins, "template", at_once=False),
            "load_all, from the template": lambda _: _loaded(plugins, "template", at_once=True),
        }
        found = interleave([Peer(name, run, number=1) for name, run in ways.items()], rounds=rounds, turn=0.0)
    section.measured(found)
    at_once = ratios(found["load_all, fresh"], found[section.base])
    section.promise(f"{_MANY} plugins by load_all ÷ one by one", at_once, most=0.75)
    return section


def _loaded(plugins: dict[str, str], start: str, *, at_once: bool) -> float:
    with Host(config={"defaults": {"start": start}}) as host:
        host.specs  # noqa: B018 - the look at what is installed has a section of its own
        started = time.perf_counter()
        if at_once:
            host.load_all(*plugins, isolation="process")
        else:
            for name in plugins:
                host.load(name, isolation="process")
        return time.perf_counter() - started


class _with_bytecode:  # noqa: N801 - reads as a phrase where it is used
    """Let workers cache bytecode, which many containers forbid by PYTHONDONTWRITEBYTECODE: a worker does as its host does."""

    def __enter__(self) -> None:
        self._before, sys.dont_write_bytecode = sys.dont_write_bytecode, False

    def __exit__(self, *_: object) -> None:
        sys.dont_write_bytecode = self._before


def _started(name: str, memory: list[float], sandbox: str = "standard") -> float:
    with Host(config={"defaults": {"sandbox": sandbox}}) as host:
        return _started_in(host, name, memory)


def _started_in(host: Host, name: str, memory: list[float]) -> float:
    host.specs  # noqa: B018 - the look at what is installed has a section of its own
    started = time.perf_counter()
    host.load(name, isolation="process")
    host.execute(name, _plugin.REQUEST)
    seconds = time.perf_counter() - started
    memory.append(_unique_memory(host, name))
    host.unload(name)
    return seconds


def _unique_memory(host: Host, name: str) -> float:
    backend: Any = host._loader.record(name).lane.backend  # type: ignore[union-attr]  # it is loaded
    (pid,) = backend.supervisor.pids
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
    return kilobytes / 1024


def _started_compiling(place: Path) -> float:
    """The same from a copy of hostkit without bytecode, in a host that may not write any."""
    with tempfile.TemporaryDirectory(prefix="hostkit-benchmarks-") as copy:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(hostkit.__file__).parent, Path(copy, "hostkit"), ignore=ignored)
        environment = {**os.environ, "PYTHONPATH": f"{copy}{os.pathsep}{place}"}
        said = subprocess.run(
            [sys.executable, "-B", "-c", _COMPILING], env=environment, cwd=copy, check=True, capture_output=True, text=True
        )
    seconds: float = json.loads(said.stdout)
    return seconds


_COMPILING = """
import time
import hostkit
with hostkit.Host() as host:
    host.specs
    started = time.perf_counter()
    host.load("plain", isolation="process")
    host.execute("plain", {"a": 2.0, "b": 3.0})
    print(time.perf_counter() - started)
"""


def _pool_started(module: Any) -> float:  # Any: one of the two modules of work
    started = time.perf_counter()
    with _peers.process_pool(1) as pool:
        pool.submit(module.calculate, module.REQUEST).result()
        return time.perf_counter() - started


def _bare() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return time.perf_counter() - started
