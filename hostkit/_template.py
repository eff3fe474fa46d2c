"""The host's side of the template: a process that has imported what workers share, and forks them.

warm()    the template is there, or it is known why not     any thread
fork()    ─► descriptors and what the worker is to be       under ``starting``
          ◄─ the worker's process id                        the worker is this process's own child
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ._importable import host_path
from ._launch import WorkerProcess, command, environment
from ._lifetimes import close_in_forks, starting
from ._log import tell
from ._monitor import Monitor
from ._restarts import Restarts
from ._worker._template import ANSWER, MOST_FDS, SIZE

# Seconds for all imports, and for one fork. Beyond them a fresh interpreter is the faster way.
_WARMING, _FORKING = 30.0, 5.0
# How many templates may end by themselves before it is left at that.
_BUDGET, _WINDOW = 3, 300.0


class Template:
    """One host's template, started when it is first asked for, and anew where it ended or this process has changed. Thread-safe."""

    def __init__(self, preload: Sequence[str], monitor: Monitor, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._preload = list(preload)
        self._monitor = monitor
        self._restarts = Restarts(_BUDGET, _WINDOW, clock=clock)
        self._warming = threading.Lock()  # guards the starting and ending of a process, and what is above
        self._forking = threading.Lock()  # guards the exchange with it, and _running; never held for long
        self._running: _Running | None = None
        self._begun: _Running | None = None  # the one that warms up just now
        self._over = False

    @property
    def pid(self) -> int | None:
        """The template's process id, while there is one."""
        running = self._running
        return None if running is None else running.process.pid

    def warm(self) -> None:
        """Have a template that is like this process is now, if one can be had. Raises nothing: there is the other way to start."""
        if self._over:
            return
        with self._warming:
            if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
                self._give_up("only Linux, from 5.3 on, has what it takes")
                return
            state = _inherited()
            if self._running is not None and self._running.process.poll() is not None:
                self._count(f"the template ended by itself ({self._running.process.returncode})")
                self._end()
            elif self._running is not None and self._running.state != state:
                self._end()
            while self._running is None and not self._over:
                self._start(state)

    def fork(self, process: WorkerProcess) -> int | None:
        """Return the id of a new child of this process that becomes this worker, or None where there is none; hold ``starting``."""
        with self._forking:
            running = self._running
            if running is None or len(process.fds) > MOST_FDS - 3 or min(process.fds) < 3:
                return None
            try:
                return running.fork(process)
            except OSError as error:
                tell("WARNING", f"the template forked no worker, which starts fresh: {error}", plugin="")
                running.process.kill()  # its next answer would be this one's
                return None

    def close(self) -> None:
        """End the template. Its workers live on. Idempotent."""
        self._over = True
        begun = self._begun
        if begun is not None:
            begun.process.kill()  # whoever waits for it gives up at once
        with self._warming:
            self._end()

    def forget(self) -> None:
        """Let go of it in a fork of this process, without a lock: another thread may have held it."""
        self._over = True
        self._warming, self._forking = threading.Lock(), threading.Lock()
        self._running = self._begun = None  # each closes what it has by itself

    def _start(self, state: object) -> None:
        """Start a process, or give up on it, or on what it can't import."""
        try:
            running, said = self._greeted(state)
        except OSError as error:
            if not self._over:
                self._give_up(f"the template can't be started: {error}")
            return
        for name, why in said["missing"].items():
            tell("WARNING", f"the template can't preload {name}: {why}", plugin="")
        self._preload = [name for name in self._preload if name not in said["missing"]]
        if said["refused"]:
            running.end(self._monitor)
            self._leave_out(said["refused"])
            return
        with self._forking:
            self._running = running
        self._monitor.run(running.watch, self._monitor)

    def _greeted(self, state: object) -> tuple[_Running, dict[str, dict[str, str]]]:
        with starting:
            self._begun = running = _Running(state)
        try:
            if self._over:
                running.process.kill()
            return running, running.greet(self._preload)
        except BaseException:  # a Ctrl-C, too
            running.end(self._monitor)
            raise
        finally:
            self._begun = None

    def _leave_out(self, refused: dict[str, str]) -> None:
        for name, why in refused.items():
            if name in self._preload:
                self._preload.remove(name)
                tell("WARNING", f"the template doesn't preload {why}", plugin="")
            else:
                self._give_up(why)

    def _count(self, why: str) -> None:
        self._restarts.died()
        if self._restarts.used_up:
            self._give_up(why)
        else:
            tell("WARNING", f"{why}; another one is started", plugin="")

    def _give_up(self, why: str) -> None:
        self._over = True
        tell("WARNING", f"workers start fresh from now on, without a template: {why}", plugin="")

    def _end(self) -> None:
        with self._forking:
            running, self._running = self._running, None
        if running is not None:
            running.end(self._monitor)


class _Running:
    """One template process. A constructor that raises leaves nothing behind; hold ``starting``."""

    def __init__(self, state: object) -> None:
        self.state = state
        self._socket, theirs = socket.socketpair()
        self._lifeline = self._sentinel = -1
        self._their_lifeline = -1
        try:
            self._their_lifeline, self._lifeline = os.pipe()
            self.process = subprocess.Popen(
                command("template", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._their_lifeline),
                env=environment((), None),
                start_new_session=True,
            )
        except BaseException:
            self._close()
            raise
        finally:
            theirs.close()
            if self._their_lifeline >= 0:
                os.close(self._their_lifeline)
        close_in_forks(self)

    def greet(self, preload: Sequence[str]) -> dict[str, dict[str, str]]:
        """Tell it what to import and return what it can't. Raises ``OSError`` where it isn't up to it."""
        self._sentinel = os.pidfd_open(self.process.pid)
        self._socket.settimeout(_WARMING)
        self._send({"lifeline": self._their_lifeline, **host_path(), "preload": list(preload)}, ())
        said: dict[str, dict[str, str]] = json.loads(self._receive(SIZE.unpack(self._receive(SIZE.size))[0]))
        self._socket.settimeout(_FORKING)
        return said

    def fork(self, process: WorkerProcess) -> int:
        """Exchange a worker's descriptors for its process id. Raises ``OSError``."""
        places = [*process.fds, *process.streams]
        said = {
            "control": process.control,
            "fds": [*process.fds, 1, 2],
            "environment": dict(process.environment),
            "umask": _umask(),
            "cpus": sorted(os.sched_getaffinity(0)),
        }
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._send(said, [*places, here])
            pid: int = ANSWER.unpack(self._receive(ANSWER.size))[0]
        finally:
            os.close(here)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def watch(self, monitor: Monitor) -> None:
        """Reap it when it ends, on the monitor's thread."""

        def reap() -> None:
            if self.process.poll() is not None:
                monitor.unwatch(self._sentinel)

        if self._sentinel >= 0:
            monitor.watch(self._sentinel, reap)

    def end(self, monitor: Monitor) -> None:
        """Kill it, which has nothing to lose, and release everything."""
        self.process.kill()
        self.process.wait()
        monitor.run(self._release, monitor)
        self._close()

    def forget(self) -> None:
        """Close this process's copies in a fork of the host."""
        self.process.returncode = 0  # it is the parent's child
        self._close()
        self._close_sentinel()

    def _release(self, monitor: Monitor) -> None:
        monitor.unwatch(self._sentinel)
        self._close_sentinel()

    def _close_sentinel(self) -> None:
        sentinel, self._sentinel = self._sentinel, -1
        if sentinel >= 0:
            os.close(sentinel)

    def _close(self) -> None:
        self._socket.close()
        lifeline, self._lifeline = self._lifeline, -1
        if lifeline >= 0:
            os.close(lifeline)

    def _send(self, said: dict[str, Any], fds: Sequence[int]) -> None:
        data = json.dumps(said).encode()
        head = SIZE.pack(len(data))
        if fds:
            socket.send_fds(self._socket, [head], list(fds))
        else:
            self._socket.sendall(head)
        self._socket.sendall(data)

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionResetError("it ended meanwhile")
            data += part
        return data


def _inherited() -> object:
    """Return what a fork of a template has from the start of the template, and an executed worker from this process as it is now."""
    words = {name: value for name, value in os.environ.items() if name in ("LANG", "LANGUAGE") or name.startswith("LC_")}
    limits = [resource.getrlimit(number) for number in _LIMITS]
    return command(), host_path(), words, os.getresuid(), os.getresgid(), sorted(os.getgroups()), limits


_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


def _umask() -> int:
    # os.umask tells only by setting another one, which a thread that makes a file just now would get.
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    raise OSError("the system doesn't tell the umask")
