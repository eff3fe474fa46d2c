"""Where a plugin runs: one file a place, one line a place in this table."""

from __future__ import annotations

from collections.abc import Callable

from .._opening import Opening, Settings
from ._base import Backend, OfferedHook


def _in_process(opening: Opening) -> Backend:
    from ._inprocess import InProcess

    return InProcess(opening)


def _process(opening: Opening) -> Backend:
    from ._process import Process

    return Process(opening)


# By the word of ``isolation``, from the least isolated to the most: the operator's floor and the manifest's wish are compared
# by their place here.
BACKENDS: dict[str, Callable[[Opening], Backend]] = {
    "none": _in_process,
    "process": _process,
}

__all__ = ["BACKENDS", "Backend", "OfferedHook", "Opening", "Settings"]
