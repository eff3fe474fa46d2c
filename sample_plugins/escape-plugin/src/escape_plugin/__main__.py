"""Try every act on this machine: ``python -m escape_plugin [--level standard ...] [--markdown] [ACT ...]``.

Says what became of each, and ends with the status 1 where something came out otherwise than it should.
"""

from __future__ import annotations

import argparse
import sys

from . import _report
from ._run import LEVELS, Row, run, stage
from ._table import ACTS


def main() -> int:
    """Run, print, and compare."""
    parser = argparse.ArgumentParser(prog="python -m escape_plugin", description="Try to leave hostkit's sandbox.")
    parser.add_argument("acts", nargs="*", metavar="ACT", help="all of them where none is named")
    parser.add_argument("--level", action="append", choices=LEVELS, help="all of them where none is named")
    parser.add_argument("--markdown", action="store_true", help="print docs/reference/containment.md")
    said = parser.parse_args()
    if unknown := [name for name in said.acts if name not in ACTS]:
        parser.error(f"no such act: {', '.join(unknown)}")
    from loguru import logger

    logger.remove()
    rows: dict[str, dict[str, Row]] = {}
    with stage() as made:
        for level in said.level or LEVELS:
            rows[level] = run(made, level, said.acts or ACTS)
    if said.markdown:
        sys.stdout.write(_report.document(rows))
    else:
        for level, found in rows.items():
            for name, row in found.items():
                print(f"{level:9} {name:40} {row.word:8} {row.how[:120]}")
    wrong = _report.differences(rows)
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
