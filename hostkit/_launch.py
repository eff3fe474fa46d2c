"""Start a worker: a ``multiprocess`` process whose launch executes a clean interpreter.

``is_alive``, ``exitcode``, ``sentinel``, ``join``, ``terminate``, ``kill`` and ``multiprocess.active_children()`` all hold. Unlike
spawn, the child gets its own session, an allow-list environment, only the descriptors it needs, and neither the host's argv,
authkey, main module nor anything pickled. It keeps the host's working directory and umask, so that a relative path and a new
file's mode mean the same to a plugin wherever it runs.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import multiprocess.process
from multiprocess.process import BaseProcess, active_children

from . import _worker

# What a program needs to find its way, its language and its clock. Everything else of the host's environment stays there.
_ALLOWED = ("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER")
_THREAD_COUNTS = ("MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Forks(Protocol):
    """What may make a worker's process faster than an interpreter is executed."""

    def fork(self, process: WorkerProcess) -> int | None:
        """Return the id of a child of this process that becomes this worker, or None where it can't be had."""
        ...


class WorkerProcess(BaseProcess):  # type: ignore[misc]  # multiprocess has no types
    """One worker's process. ``fds`` are what it inherits, ``streams`` its stdout and stderr; where there is a ``template``, that
    forks it."""

    _start_method = "hostkit"

    def __init__(
        self,
        name: str,
        *,
        control: int,
        fds: Sequence[int],
        streams: tuple[int, int],
        environment: Mapping[str, str],
        template: Forks | None = None,
    ) -> None:
        super().__init__(name=f"hostkit-worker-{name}", daemon=True)
        self.control = control
        self.fds = fds
        self.streams = streams
        self.environment = environment
        self.template = template

    def start(self) -> None:
        """Execute the interpreter; hold ``_lifetimes.starting``. Raises ``OSError`` where the system can't."""
        # Not super().start(): that forbids it in a daemon process, such as a pool's, because nobody would end the grandchildren.
        # A worker ends with its host by its lifeline.
        active_children()  # reaps what has ended
        self._popen = self._Popen(self)
        multiprocess.process._children.add(self)

    @property
    def sentinel(self) -> int:
        """A descriptor that is readable once the process has ended. Raises ``ValueError`` before the start, and after the host has
        seen the end: the number may be another descriptor's by then."""
        if self._popen is None or self._popen.sentinel < 0:
            raise ValueError("the process has not started, or its end was seen")
        sentinel: int = self._popen.sentinel
        return sentinel

    def _Popen(self, process: WorkerProcess) -> Popen:  # noqa: N802  # pyright: ignore[reportIncompatibleMethodOverride]
        return Popen(process)

    def __reduce__(self) -> Any:
        raise TypeError("a worker's process belongs to the host that started it")


class Popen:
    """What ``BaseProcess`` asks of its popen object. Thread-safe."""

    method = "hostkit"

    def __init__(self, process: WorkerProcess) -> None:
        self.returncode: int | None = None
        self.usage: Any = None  # a resource.struct_rusage once it has ended
        self._owner = os.getpid()
        self._lock = threading.Lock()  # guards returncode, the one wait4, and sentinel
        forked = None if process.template is None else process.template.fork(process)
        self.pid = _executed(process) if forked is None else forked
        self.sentinel = -1
        if hasattr(os, "pidfd_open"):
            try:
                self.sentinel = os.pidfd_open(self.pid)
            except BaseException:  # no descriptor or no memory left
                self.kill()
                os.waitpid(self.pid, 0)
                raise

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit status, negative for a signal, or None while the process lives."""
        if self.returncode is None and self._owner == os.getpid():
            with self._lock:
                if self.returncode is None:
                    self._reap(flag)
        return self.returncode

    def _reap(self, flag: int) -> None:
        try:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | flag) is None:
                return
            # While it is still a zombie its process group can't be anybody else's.
            self._signal_group(signal.SIGKILL)
            _, status, self.usage = os.wait4(self.pid, 0)
            self.returncode = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            # The application ignores SIGCHLD or waits for any child: how this one ended is lost.
            self.returncode = 255

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end and return the exit status, or None where it hasn't come in time."""
        if self._owner != os.getpid():
            return None
        own = self._own_sentinel()
        if own >= 0:
            try:
                poller = select.poll()
                poller.register(own, select.POLLIN)
                poller.poll(None if timeout is None else max(0, int(timeout * 1000)))
            finally:
                os.close(own)
            return self.poll()
        deadline = time.monotonic() + (timeout if timeout is not None else 1e9)
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)  # no pidfd on this system, and no other way to wait with a limit
        return self.returncode

    def _own_sentinel(self) -> int:
        """Return a copy of the sentinel, or -1. Whoever polls a descriptor that another thread closes may wait for ever, for
        whatever has its number next."""
        with self._lock:
            return os.dup(self.sentinel) if self.returncode is None and self.sentinel >= 0 else -1

    def terminate(self) -> None:
        """Ask the whole process group to end."""
        self._to_group(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole process group."""
        self._to_group(signal.SIGKILL)

    def _to_group(self, number: int) -> None:
        if self._owner == os.getpid():
            with self._lock:
                if self.returncode is None:
                    self._signal_group(number)

    def _signal_group(self, number: int) -> None:
        for send in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(self.pid, number)

    def close(self) -> None:
        """Release the sentinel. Idempotent."""
        with self._lock:
            sentinel, self.sentinel = self.sentinel, -1
            if sentinel >= 0:
                os.close(sentinel)


def _executed(process: WorkerProcess) -> int:
    started = subprocess.Popen(
        command(str(process.control)),
        stdin=subprocess.DEVNULL,
        stdout=process.streams[0],
        stderr=process.streams[1],
        pass_fds=process.fds,
        env=dict(process.environment),
        start_new_session=True,
    )
    started.returncode = 0  # whoever waits for the worker reaps it: subprocess must neither wait nor warn
    return started.pid


def environment(passed: Sequence[str], cores: int | None, *, home: str = "") -> dict[str, str]:
    """Return what a worker gets to see of this process's environment: the allow-list, the locale, and ``passed``. A confined one is at
    ``home`` in its private directory: it may write nowhere else."""
    names = {*_ALLOWED, *passed, *(name for name in os.environ if name.startswith("LC_"))}
    found = {name: os.environ[name] for name in sorted(names) if name in os.environ}
    # pydantic looks for plugins of its own in every distribution at the first model: 10 to 30 ms for nothing.
    found.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    if home:
        found.update({"HOME": home, "TMPDIR": home})
    if cores is not None:
        found.update({name: str(cores) for name in _THREAD_COUNTS if name not in passed})
    return found


def command(*arguments: str) -> list[str]:
    """Return what executes the worker's program with these arguments, in an interpreter like this one."""
    flags = ["-I", "-S"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    if sys.flags.optimize:
        flags.append("-" + "O" * sys.flags.optimize)
    flags += ["-X", f"utf8={sys.flags.utf8_mode}"]
    worker = os.path.join(os.path.dirname(os.path.abspath(_worker.__file__)), "__main__.py")
    return [sys.executable, *flags, worker, *arguments]
