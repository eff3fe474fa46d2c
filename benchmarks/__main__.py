"""``python -m benchmarks [SECTION ...] [--quick] [--pin] [--json FILE]``

The sections are imported when they run: the peers' spawned workers import this module again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
from pathlib import Path

_SECTIONS = ("inprocess", "roundtrip", "throughput", "start", "discovery", "imports", "bigdata")


def main() -> None:
    """Measure and print."""
    arguments = _parsed()
    pinned = _pin() if arguments.pin else None
    from . import _report

    rounds, turn = (5, 0.01) if arguments.quick else (21, 0.03)
    conditions = _report.conditions(pinned=pinned, rounds=rounds)
    with tempfile.TemporaryDirectory(prefix="hostkit-benchmarks-") as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # no index of the user's is read or written
        sections = [
            section
            for name in arguments.sections or _SECTIONS
            for section in importlib.import_module(f"benchmarks._{name}").measure(rounds=rounds, turn=turn)
        ]
    print(_report.text(sections, conditions))
    if arguments.json:
        arguments.json.write_text(json.dumps(_report.data(sections, conditions), indent=1), encoding="utf-8")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure hostkit side by side with its peers.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(_SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, under a minute")
    parser.add_argument("--pin", action="store_true", help="run this process and all its workers on one CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to a file, too")
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(_SECTIONS)
    if unknown:
        parser.error(f"no section {min(unknown)!r}; there is {', '.join(_SECTIONS)}")
    return arguments


def _pin() -> int:
    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    return cpu


if __name__ == "__main__":
    main()
