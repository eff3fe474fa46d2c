"""Ctrl-C and SIGTERM: the first ends what runs in order, the next one ends it at once.

    running ─ SIGINT, or SIGTERM without a call ─────────────► ending ─ any signal ─► forced
       └───── SIGTERM with a call in flight ─► grace ─ over, or any signal ─┘

Workers are in sessions of their own, so what the terminal sends reaches this process alone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn


class Signals:
    """What this process was told to do. For the main thread; does nothing until ``install``."""

    def __init__(self) -> None:
        self.status = 0  # what the process ends with; 0 while nobody has interrupted it
        self.quiet = False  # where stderr is for a program
        self._grace: float | None = None
        self._ending = False

    def install(self) -> None:
        """Handle both signals from now on; one that this process was started to ignore stays ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._arrived)

    @property
    def draining(self) -> bool:
        """Whether no new call is to be started."""
        return self.status != 0

    @contextmanager
    def call(self, grace: float) -> Iterator[None]:
        """Let the call in the block go on for ``grace`` seconds after a SIGTERM."""
        self._grace = grace
        try:
            yield
        finally:
            self._grace = None
            if self.status:
                signal.setitimer(signal.ITIMER_REAL, 0.0)

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Everything in the block is on its way out already: a signal forces it."""
        self._ending = True
        try:
            yield
        finally:
            self._ending = self.status != 0

    def end(self) -> None:
        """Nothing is left to do but to exit, which an in-process plugin's threads may hold up: a signal forces it."""
        self._ending = True

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._ending:
            self._force(number)
        if number == signal.SIGTERM and self._grace is not None and not self.status:
            self.status = 128 + number
            self._say(f"SIGTERM: the call in flight may end within {self._grace:g} s")
            # Not a thread: one can't be started safely from a signal handler.
            signal.signal(signal.SIGALRM, self._arrived)
            signal.setitimer(signal.ITIMER_REAL, max(self._grace, 0.001))
            return
        self.status = self.status or 128 + number
        self._ending = True
        self._say(f"{signal.Signals(self.status - 128).name}: ending what runs; once more to force it")
        # Called, not raised here: a KeyboardInterrupt whose last instruction is a raise counts as the plugin's own.
        signal.default_int_handler(signal.SIGINT, frame)

    def _force(self, number: int) -> NoReturn:
        self._say("forced")
        kill_workers()
        os._exit(self.status or 128 + number)

    def _say(self, text: str) -> None:
        if not self.quiet:
            with suppress(OSError):  # sys.stderr is not reentrant
                os.write(2, f"{chr(10) if os.isatty(2) else ''}hostkit: {text}\n".encode())


def kill_workers() -> None:
    """End every worker that is left, and what it started. Takes no lock: it may run in a signal handler."""
    process = sys.modules.get("multiprocess.process")
    for child in list(getattr(process, "_children", ())):
        popen = getattr(child, "_popen", None)
        if getattr(child, "_start_method", "") == "hostkit" and popen is not None and popen.returncode is None:
            with suppress(OSError):  # it may have ended by itself
                os.killpg(popen.pid, signal.SIGKILL)
