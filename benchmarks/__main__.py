"""``python -m benchmarks [SECTION ...] [--quick] [--pin | --free] [--json FILE]``

The sections are imported when they run: the peers' spawned workers import this module again. What depends on where processes are
woken is measured both ways, each in a process of its own:

__main__ ─► for each way: __main__ SECTION --keep FILE, on these CPUs ─► the sections, from that file ─► tables
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._report import Section

# Several processes take part in these: they run on one CPU, and on all.
_BOTH_WAYS = ("transports", "roundtrip", "steps", "throughput", "tasks")
_SECTIONS = ("inprocess", "policies", "exporters", *_BOTH_WAYS, "toggle", "faults", "start", "discovery", "imports", "bigdata")


def main() -> None:
    """Measure and print."""
    arguments = _parsed()
    from . import _report

    rounds, turn = (5, 0.01) if arguments.quick else (21, 0.03)
    conditions = _report.conditions(rounds=rounds)
    with tempfile.TemporaryDirectory(prefix="hostkit-benchmarks-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # no index of the user's is read or written
        if arguments.keep:
            sections = [section for name in arguments.sections for section in _measured(name, rounds, turn)]
            arguments.keep.write_bytes(pickle.dumps(sections))
            return
        sections = _everything(arguments, Path(cache, "sections"), rounds, turn)
    conditions["load at the end"] = _report.load()
    print(_report.text(sections, conditions))
    if arguments.json:
        arguments.json.write_text(json.dumps(_report.data(sections, conditions), indent=1), encoding="utf-8")


def _everything(arguments: argparse.Namespace, kept: Path, rounds: int, turn: float) -> list[Section]:
    found: list[Section] = []
    for name in arguments.sections or _SECTIONS:
        print(f"… {name}", file=sys.stderr, flush=True)
        try:
            found += _both_ways(name, arguments, kept) if name in _BOTH_WAYS or arguments.pin else _measured(name, rounds, turn)
        except Exception as error:  # the others took their time, too
            traceback.print_exc()
            found.append(_failed(name, error))
    return found


def _failed(name: str, error: Exception) -> Section:
    from ._report import Section

    section = Section(name)
    section.missing("failed", f"{type(error).__name__}: {error}")
    return section


def _both_ways(name: str, arguments: argparse.Namespace, kept: Path) -> list[Section]:
    ways = _ways(arguments)
    return [section for way, cpus in ways for section in _measured_on(cpus, way, name, kept, quick=arguments.quick)]


def _measured(name: str, rounds: int, turn: float) -> list[Section]:
    sections: list[Section] = importlib.import_module(f"benchmarks._{name}").measure(rounds=rounds, turn=turn)
    return sections


def _ways(arguments: argparse.Namespace) -> list[tuple[str, set[int]]]:
    free = os.sched_getaffinity(0)
    ways = [] if arguments.free else [(f"pinned to CPU {max(free)}", {max(free)})]
    return ways if arguments.pin or len(free) == 1 else [*ways, (f"on {len(free)} CPUs", free)]


def _measured_on(cpus: set[int], way: str, name: str, kept: Path, *, quick: bool) -> list[Section]:
    command = [sys.executable, "-m", "benchmarks", name, "--keep", str(kept), *(["--quick"] if quick else [])]
    subprocess.run(command, check=True, preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    sections: list[Section] = pickle.loads(kept.read_bytes())
    for section in sections:
        section.way = way
    return sections


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure hostkit side by side with its peers.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(_SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, some minutes")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--pin", action="store_true", help="only with everything on one CPU")
    ways.add_argument("--free", action="store_true", help="only on all CPUs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to a file, too")
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(_SECTIONS)
    if unknown:
        parser.error(f"no section {min(unknown)!r}; there is {', '.join(_SECTIONS)}")
    return arguments


if __name__ == "__main__":
    main()
