"""From a worker's death to the typed error of whoever waited for it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Any

from ._errors import (
    CallCancelled,
    CallTimeout,
    CpuExceeded,
    MemoryExceeded,
    ProcessesExceeded,
    ProtocolError,
    SandboxViolation,
    WorkerCrashed,
    WorkerExited,
    WorkerHung,
    WorkerKilled,
    WorkerLost,
)

# Why the host ends a worker that did wrong, unlike those that it ends because of a caller.
_OWN_DOING = (ProtocolError, WorkerHung, MemoryExceeded, CpuExceeded, ProcessesExceeded)

# A fatal signal that the process brought on itself; any other one was sent by somebody.
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}


# Lines of a fault dump that are told.
_FRAMES = 12


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the host itself ended a worker: recorded before the signal is sent, so it goes before what the status says."""

    error: type[WorkerLost | CallTimeout | CallCancelled]
    text: str
    evidence: str = ""  # of a MemoryExceeded


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended. ``code`` is its exit status, negative for a signal; ``peak`` its largest resident size in bytes.

    ``oom_kills`` is how many processes the kernel killed meanwhile because memory ran out: in the worker's control group, and on this
    machine; None where that isn't known.
    """

    code: int
    reason: Reason | None
    stderr_tail: str
    fault_dump: str
    peak: int
    memory_limit: int | None
    oom_kills: tuple[int, int | None] = (0, None)

    @property
    def own_doing(self) -> bool:
        """Whether it ended without the host's wish: what a restart budget counts."""
        return self.reason is None or issubclass(self.reason.error, _OWN_DOING)

    @property
    def violated(self) -> bool:
        """Whether the kernel ended it for a system call that it may not make."""
        return self._classified()[0] is SandboxViolation

    @property
    def innermost(self) -> str:
        """The frames of the fault dump that its last instruction was in, the innermost first, in one line."""
        where = self.fault_dump.rfind("Current thread")
        lines = self.fault_dump[max(0, where) :].strip().splitlines()
        return "; ".join(line.strip() for line in lines[:_FRAMES])

    def error(self, *, plugin: str, request_id: str = "", phase: str = "execute") -> Any:  # Any: a CallError
        """Return what to raise for a call, or a start, that this death cut off; with an empty ``phase``, for nobody in particular."""
        kind, text, extra = self._classified()
        where: dict[str, Any] = {"plugin": plugin, "request_id": request_id, "phase": phase, **extra}
        if issubclass(kind, WorkerLost):
            where.update(
                exit_code=self.code if self.code >= 0 else None,
                signal=-self.code if self.code < 0 else None,
                stderr_tail=self.stderr_tail,
                fault_dump=self.fault_dump,
            )
        while_ = {"execute": " while it ran a call", "start": " while it started", "": ""}.get(phase, f" in {phase}")
        error = kind(f"plugin {plugin!r}: {text}{while_}{self._last_words()}", **where)
        for name, shown in (("fault dump", self.fault_dump), ("last words on stderr", self.stderr_tail)):
            if shown:
                error.add_note(f"\n--- {name} of the worker ---\n{shown.rstrip()}")
        return error

    def _classified(self) -> tuple[type[Any], str, dict[str, Any]]:
        if self.reason is not None:
            return self.reason.error, self.reason.text, {"evidence": self.reason.evidence} if self.reason.evidence else {}
        if self.code >= 0:
            return WorkerExited, f"its worker exited with status {self.code}{self._hint()}", {}
        number = -self.code
        name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
        if number == signal.SIGXCPU:
            return CpuExceeded, "its worker used up its CPU seconds (max_cpu_seconds)", {}
        if number == signal.SIGSYS:
            return SandboxViolation, "its worker made a system call that it may not make (SIGSYS)", {}
        if number in _CRASHES:
            return WorkerCrashed, f"its worker crashed with {name}{self._hint()}", {}
        if number == signal.SIGKILL:
            return self._killed()
        return WorkerKilled, f"its worker was killed from outside by {name}", {}

    def _killed(self) -> tuple[type[Any], str, dict[str, Any]]:
        """Tell the kernel's kill for memory from anybody else's: the status is the same."""
        own, machines = self.oom_kills
        if own:
            return MemoryExceeded, "the kernel killed its worker at its memory limit (max_memory_mb)", {"evidence": "cgroup"}
        limit = self.memory_limit
        # Where nobody counts for the machine, its size alone has to do.
        if machines != 0 and limit is not None and self.peak >= 0.8 * limit:
            words = f"its worker was killed at {self.peak >> 20} of {limit >> 20} MB (max_memory_mb)"
            return MemoryExceeded, words, {"evidence": "probable"}
        hint = ", and this machine ran out of memory meanwhile" if machines else ""
        return WorkerKilled, f"its worker was killed from outside by SIGKILL{hint}", {}

    def _hint(self) -> str:
        # C libraries that get no memory write something and abort or exit.
        if self.memory_limit is None or not re.search("alloc|memory", self.stderr_tail, re.IGNORECASE):
            return ""
        return f", which may come of its limit of {self.memory_limit >> 20} MB (max_memory_mb),"

    def _last_words(self) -> str:
        lines = self.stderr_tail.rstrip().rsplit("\n", 1)
        return f"; it last said: {lines[-1][-200:]!r}" if lines[-1] else ""
