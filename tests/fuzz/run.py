"""Run the fuzz targets of this directory, coverage-guided, each for a given time: ``python run.py --minutes 10 frames answers``.

A target is a module with a function ``check(data)`` that raises for whatever must not happen. Here every input must also be done with
in a second of CPU time, and must not make the process grow by more than ``GROWTH``. libFuzzer ends a process at the first finding
and leaves the input behind as ``TARGET-crash-*``; it belongs in ``tests/corpus/TARGET`` once its fault is mended. ``--replay`` only
runs that corpus, and needs no atheris.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE.parent / "corpus"
TARGETS = [path.stem.removeprefix("fuzz_") for path in sorted(HERE.glob("fuzz_*.py"))]
# Inputs are this long at the most, and none of them is worth this much memory.
LONGEST, GROWTH = 16 * 1024, 64 << 20
SLOW = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=f"of {', '.join(TARGETS)}; all if none"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--found", type=Path, default=Path("fuzzed"), help="where inputs that reach something new are kept")
    parser.add_argument("--replay", action="store_true", help="run what is in the corpus and nothing else")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process:
        fuzz(options.targets[0], options.minutes, options.found)
    run = _replayed if options.replay else _ran
    failed = [target for target in options.targets or TARGETS if not run(target, options)]
    print(f"failed: {', '.join(failed)}" if failed else "no findings")
    return 1 if failed else 0


def _ran(target: str, options: argparse.Namespace) -> bool:
    # libFuzzer ends its process, so each target has one of its own.
    command = [
        sys.executable,
        __file__,
        "--in-this-process",
        "--minutes",
        str(options.minutes),
        "--found",
        str(options.found),
        target,
    ]
    return subprocess.run(command, check=False).returncode == 0


def _replayed(target: str, options: argparse.Namespace) -> bool:
    del options
    check, right = Bounded(load(target).check), True
    for path in sorted(path for path in (CORPUS / target).rglob("*") if path.is_file()):
        try:
            check(path.read_bytes())
        except Exception:
            traceback.print_exc()
            print(f"{target}: {path}")
            right = False
    return right


def fuzz(target: str, minutes: float, found: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["hostkit"]):
        check = load(target).check
    mine = found / target
    mine.mkdir(parents=True, exist_ok=True)
    seeds = [str(path) for path in (CORPUS / target, *(CORPUS / target).glob("*/")) if path.is_dir()]
    flags = [
        f"-max_total_time={int(60 * minutes)}",
        f"-max_len={LONGEST}",
        "-rss_limit_mb=2048",
        "-timeout=20",
        "-print_final_stats=1",
    ]
    flags.append(f"-dict={HERE / 'words.dict'}")
    atheris.Setup([target, *flags, f"-artifact_prefix={found}/{target}-", str(mine), *seeds], Bounded(check))
    atheris.Fuzz()


def load(target: str):
    """Return a target's module; tests replay the corpus through it."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{target}", HERE / f"fuzz_{target}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Bounded:
    """A check that also measures what an input costs."""

    def __init__(self, check) -> None:
        self._check = check
        self._peak = 0

    def __call__(self, data: bytes) -> None:
        began, before = time.process_time(), self._peak or _peak()
        self._check(data)
        self._peak = _peak()
        seconds = time.process_time() - began
        assert seconds < SLOW, f"{len(data)} bytes took {seconds:.1f} s"
        assert self._peak - before < GROWTH, f"{len(data)} bytes took {self._peak - before >> 20} MB"


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
