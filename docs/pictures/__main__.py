"""Make the pictures of docs/images, each from a real run on this machine: ``python docs/pictures [NAME ...]``.

It needs hostkit, sample_plugins/ops-host and the dependency group ``pictures``; ``nox -s pictures`` brings them. Nothing is drawn that was
not measured a moment before; so no two runs make the same picture, and what it says under it holds for the run it shows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import breaker_opening
import screens
import toggle_under_load
import worker_restart

IMAGES = Path(__file__).parent.parent / "images"

PICTURES: dict[str, Callable[[Path], None]] = {
    "breaker-opening": breaker_opening.make,
    "worker-restart": worker_restart.make,
    "toggle-under-load": toggle_under_load.make,
    "top": screens.top,
    "dashboard": screens.dashboard,
}


def main(asked: list[str]) -> int:
    """Make those that were asked for, or all of them."""
    unknown = set(asked) - PICTURES.keys()
    if unknown:
        print(f"no picture is called {', '.join(sorted(unknown))}; there are: {', '.join(PICTURES)}", file=sys.stderr)
        return 2
    for name in asked or PICTURES:
        print(f"{name} ...", flush=True)
        PICTURES[name](IMAGES)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
