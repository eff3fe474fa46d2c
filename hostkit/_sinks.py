"""Hostkit's records on their way to the application's sinks, which may be slow, stuck or broken.

somebody tells ─► loguru makes the record, with the time, thread and context of who tells ─► an outlet ─► (its thread) ─► the sinks
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from loguru import logger

from ._outlet import Outlet
from ._worker._failure import is_interrupt, message, type_name

if TYPE_CHECKING:
    from loguru import Record

# Records that may wait. Where many wait already, long ones are cut, so that all of them together stay below some 80 MB.
_MOST, _MANY, _CUT = 10_000, 500, 1000
# Seconds that a record which can't wait gives those before it, and that the interpreter's exit gives the last ones.
_TURN, _AT_EXIT = 0.1, 1.0


class _Told(NamedTuple):
    level: str | int
    record: Record
    context: Context


class _Taken(BaseException):
    """Carries a record out of loguru before a sink gets it."""

    def __init__(self, record: Record) -> None:
        self.record = record


class _Thread(threading.local):
    writes = False


def deliver(level: str | int, text: str, words: Mapping[str, object], *, depth: int) -> None:
    """Have one record written soon, by another thread, with ``words`` bound to it; ``depth`` frames up is who tells.

    Whether anybody wants it, loguru says: nothing waits where nobody does.
    """
    if _this_thread.writes or _exiting.is_set():
        write(level, text, words, depth=depth + 1)
        return
    if len(text) > _CUT and lines.waiting > _MANY:
        text = f"{text[:_CUT]} [cut]"
    try:
        _taking.bind(**words).opt(depth=depth + 1).log(level, text)
    except _Taken as taken:
        if not lines.offer(_Told(level, taken.record, copy_context())):
            lines.flush(_TURN)
    except BaseException as error:
        _complain(error)


def write(level: str | int, text: str, words: Mapping[str, object], *, depth: int) -> None:
    """Write one record on this thread, after those that wait. Arguments as ``deliver``.

    So does whatever a sink has to tell while it writes: loguru refuses what would lock it up, and nothing runs in circles.
    """
    if not _this_thread.writes and (lines.waiting or lines.stuck_for):
        lines.flush(_TURN)
        if _exiting.is_set() and lines.stuck_for:
            return  # an exit waits for nobody's sink
    before, _this_thread.writes = _this_thread.writes, True
    try:
        logger.bind(**words).opt(depth=depth + 1).log(level, text)
    except BaseException as error:
        _complain(error)
    finally:
        _this_thread.writes = before


def flush(timeout: float) -> bool:
    """Wait until the sinks have what was told, for ``timeout`` seconds at the most; return whether they have.

    Where one has been stuck for longer than that already, don't wait.
    """
    return lines.stuck_for < timeout and lines.flush(timeout)


def _take(record: Record) -> NoReturn:
    raise _Taken(record)


class _Lines(Outlet[_Told]):
    """Gives the sinks one record after the other, and tells them how many they have missed."""

    def __init__(self) -> None:
        super().__init__("log", self._give, most=_MOST)
        self._admitted = 0

    def _give(self, told: _Told) -> None:
        to = logger.patch(lambda record: record.update(told.record))
        before, _this_thread.writes = _this_thread.writes, True
        try:
            told.context.run(_log_from_nowhere, to, told.level, told.record["message"])
        except BaseException as error:
            _complain(error)
        finally:
            _this_thread.writes = before
        if not self.waiting:
            self._admit()

    def _admit(self) -> None:
        missed, self._admitted = self.dropped - self._admitted, self.dropped
        if missed > 0:
            text = f"{missed} records of hostkit's log were dropped here, because a sink of the application was stuck or too slow"
            write("WARNING", text, {"plugin": "", "request_id": ""}, depth=0)


def _log(to: Any, level: str | int, text: str) -> None:  # Any: loguru has no class to import at run time
    to.log(level, text)


# loguru asks where a record comes from whether that is enabled. When this one was told it was; that it is written by the thread of an
# outlet, and perhaps a moment after the application has disabled it, is no reason to lose it.
_log_from_nowhere = FunctionType(_log.__code__, {"__name__": None})


def _complain(error: BaseException) -> None:
    """Say on stderr what became of a record: the application's sinks are foreign code, and nobody fails because of them."""
    if is_interrupt(error):
        raise error
    with suppress(AttributeError, OSError, ValueError):  # no stderr, or a closed one: nobody is left to tell
        sys.stderr.write(f"hostkit: its log can't be written: {type_name(error)}: {message(error)}\n")


def _at_exit() -> None:
    # From now on, records are written where they are told: this process may be gone before another thread gets its turn.
    _exiting.set()
    flush(_AT_EXIT)


_taking = logger.patch(_take)
_this_thread = _Thread()
_exiting = threading.Event()
lines = _Lines()
# After loguru's own exit handler, which removes the sinks, was registered; so before it runs.
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lines.forget)
