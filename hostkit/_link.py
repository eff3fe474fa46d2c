"""The host's side of one running worker: its process, sockets and outputs, from the first fork to the last descriptor.

    start()      process, BOOT ──► …                      any thread
    READY ◄──    ``introduced`` resolves                  monitor thread
    channels     used by callers directly                 any thread
    death        ``ended`` is set, then ``on_end`` runs   monitor thread
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ._channel import Channel
from ._deadline import Deadline
from ._ending import Ending, Reason
from ._errors import CallTimeout, PluginClosed, ProtocolError, WorkerHung
from ._importable import Target, host_path
from ._launch import WorkerProcess, environment
from ._log import OutputPipe
from ._opening import Opening
from ._raised import load_error
from ._worker._frames import (
    BOOT,
    CANCEL,
    ERROR,
    GOODBYE,
    PING,
    PONG,
    PROTOCOL,
    READY,
    RESULT,
    Assembler,
    Frame,
    FrameError,
    parts,
    send_all,
)

# A control frame holds a health status, an introduction or an error: text, not data.
_CONTROL_CAP = 4 * 1024 * 1024


class _Hook(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    arguments: list[str]
    options: dict[str, bool | str | None]
    function: str


class Introduction(BaseModel):
    """What a worker says when it is ready; it comes from foreign code's process, so it is checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    cookie: str
    protocol: int
    plugin: str
    python: str
    kind: str
    hooks: dict[str, _Hook] = Field(default_factory=dict)


class Link:
    """One worker. ``introduced`` becomes its Introduction, or the error that kept it from starting."""

    def __init__(self, opening: Opening, target: Target, on_end: Callable[[Link], None]) -> None:
        self.opening = opening
        self.introduced: Future[Introduction] = Future()
        self.ended = threading.Event()
        self.ending: Ending | None = None
        self.retired = False
        self._target = target
        self._on_end = on_end
        self._monitor = opening.monitor
        self._cookie = secrets.token_hex(8)
        self._lock = threading.Lock()  # guards _reason, _asked
        self._reason: Reason | None = None
        self._asked: dict[int, Future[Frame]] = {}
        self._ids = itertools.count(1)
        self._sending = threading.Lock()  # keeps one control frame's bytes together
        self._unanswered = 0
        self._goodbye = False
        self.channels: list[Channel] = []
        self._open_everything()

    def _open_everything(self) -> None:
        settings = self.opening.settings
        theirs: list[int] = []
        self._cleanup = ExitStack()
        try:
            self._control, control = _socketpair(theirs)
            self._cleanup.callback(self._control.close)
            pairs = [_socketpair(theirs) for _ in range(settings.concurrency or 1)]
            self.channels = [Channel(self, mine, settings.max_message) for mine, _ in pairs]
            lifeline, self._lifeline = _pipe(self._cleanup, theirs)
            self._faults = _unlinked_file(self._cleanup)
            outputs = {name: _output(self._cleanup, theirs, name, self.opening.name) for name in ("stdout", "stderr", "log")}
            self._outputs = {name: pipe for name, (pipe, _) in outputs.items()}
            boot = {
                "channels": [fd for _, fd in pairs],
                "lifeline": lifeline,
                "faults": self._faults,
                "log": outputs["log"][1],
            }
            self.process = WorkerProcess(
                self.opening.name,
                control=control,
                fds=[control, *boot["channels"], lifeline, self._faults, boot["log"]],
                streams=(outputs["stdout"][1], outputs["stderr"][1]),
                environment=environment(settings.environment, self._cores),
            )
            self.process.start()
        except BaseException:
            self._cleanup.close()
            self.hang_up()
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._boot(boot)

    @property
    def _cores(self) -> int | None:
        cores = (self.opening.settings.limits or {}).get("cpu_cores")
        return None if cores is None else int(cores)

    def _boot(self, descriptors: Mapping[str, Any]) -> None:
        settings = self.opening.settings
        said = {
            **descriptors,
            **host_path(),
            "cookie": self._cookie,
            "plugin": self.opening.name,
            "id_prefix": self.opening.caller.id_prefix,
            "entry_point": self._target.entry_point,
            "directory": None if self.opening.directory is None else str(self.opening.directory),
            "config": dict(self.opening.config),
            "limits": dict(settings.limits or {}),
            "cap": settings.max_message,
            "timeout": settings.timeout,
        }
        self._monitor.run(self._watch)
        try:
            self._send(parts(BOOT, meta=json.dumps(said).encode(), buffers=self._target.pickled), Deadline.after(10.0))
        except OSError:
            pass  # it died already; its death says how
        self._monitor.run(self._limit_start)

    # What other threads ask for.

    def end(self, reason: Reason) -> None:
        """Kill the worker; the first reason given is the one that its callers are told."""
        with self._lock:
            self._reason = self._reason or reason
        self.process.kill()

    def terminate(self) -> None:
        """Ask the worker's process group to end, by SIGTERM."""
        self.process.terminate()

    def death(self, *, patience: float = 0.5) -> Ending:
        """Return how the worker ended, after its end was seen. One that closed its sockets and lives on is killed."""
        if not self.ended.wait(patience):
            self.end(Reason(ProtocolError, "its worker closed a channel and lived on"))
            if not self.ended.wait(5.0):
                return Ending(255, Reason(ProtocolError, "its worker closed a channel and can't be killed"), "", "", 0, None)
        assert self.ending is not None
        return self.ending

    def violation(self, error: FrameError) -> Ending:
        """End a worker that sent something else than frames, and return its ending."""
        self.end(Reason(ProtocolError, f"its worker broke the protocol: {error}"))
        return self.death()

    def ask(self, kind: int) -> Future[Frame]:
        """Send a question on the control socket; the future gets the answer's frame, or an ``Ended`` cancellation."""
        answer: Future[Frame] = Future()
        number = next(self._ids)
        with self._lock:
            if self.ending is not None:
                answer.cancel()
                return answer
            self._asked[number] = answer
        self._tell(parts(kind, number))
        return answer

    def cancel(self, call_id: int) -> None:
        """Tell the worker that nobody waits for a call any more."""
        self._tell(parts(CANCEL, call_id))

    def hang_up(self) -> None:
        """Close the channels. Only for a worker without calls, which then ends by itself."""
        for channel in self.channels:
            channel.close()

    @property
    def said_goodbye(self) -> bool:
        """Whether the worker closed in order."""
        return self._goodbye

    def abandon_in_child(self) -> None:
        """Close this process's copies of everything, in a fork of the host."""
        self._cleanup.close()
        self.hang_up()

    def _tell(self, pieces: list[bytes]) -> None:
        try:
            self._send(pieces, Deadline.after(0.0))
        except OSError:
            pass  # its death is being seen by the monitor
        except TimeoutError:
            self.end(Reason(WorkerHung, "its worker stopped reading its control socket"))

    def _send(self, pieces: list[bytes], deadline: Deadline) -> None:
        with self._sending:
            view = memoryview(b"".join(pieces))
            while view:
                try:
                    view = view[self._control.send(view, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    if not _writable(self._control, deadline):
                        raise TimeoutError("the control socket is full") from None

    # What happens on the monitor's thread.

    def _watch(self) -> None:
        self._assembler = Assembler(_CONTROL_CAP)
        self._monitor.watch(self._control.fileno(), self._on_control)
        for pipe in self._outputs.values():
            self._monitor.watch(pipe.fd, lambda pipe=pipe: self._on_output(pipe))
        if self.process.sentinel >= 0:
            self._monitor.watch(self.process.sentinel, self._on_death)

    def _limit_start(self) -> None:
        seconds = self.opening.settings.start_timeout
        self._start_timer = self._monitor.later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if not self.introduced.done():
            seconds = self.opening.settings.start_timeout
            self.end(Reason(CallTimeout, f"its worker was not ready after {seconds:g} s and was ended"))

    def _on_control(self) -> None:
        try:
            with self._assembler.room() as room:
                count = self._control.recv_into(room, 0, socket.MSG_DONTWAIT)
            self._assembler.arrived(count)
            while (frame := self._assembler.pop()) is not None:
                self._take(frame)
            if count == 0:
                self._monitor.unwatch(self._control.fileno())
                self._monitor.later(0.5, self._on_silence)
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self._monitor.unwatch(self._control.fileno())
        except (FrameError, ValidationError, ValueError) as error:
            self._monitor.unwatch(self._control.fileno())
            self.end(Reason(ProtocolError, f"its worker broke the protocol: {error}"))

    def _on_silence(self) -> None:
        if not self.ended.is_set():
            self.end(Reason(ProtocolError, "its worker closed its control socket and lived on"))

    def _take(self, frame: Frame) -> None:
        self._unanswered = 0
        if frame.kind == READY and not self.introduced.done():
            self._introduce(Introduction.model_validate_json(frame.meta))
        elif frame.kind == ERROR and not self.introduced.done():
            self.introduced.set_exception(load_error(json.loads(frame.meta), plugin=self.opening.name))
        elif frame.kind in (RESULT, ERROR):
            with self._lock:
                asked = self._asked.pop(frame.call_id, None)
            if asked is None:
                raise FrameError(f"an answer to question {frame.call_id}, which is not open")
            if not asked.cancelled():
                asked.set_result(frame)
        elif frame.kind == GOODBYE:
            self._goodbye = True
        elif frame.kind != PONG:
            raise FrameError(f"a frame of kind {frame.kind} on the control socket")

    def _introduce(self, introduction: Introduction) -> None:
        expected = {"cookie": self._cookie, "protocol": PROTOCOL, "plugin": self.opening.name}
        for name, value in expected.items():
            if getattr(introduction, name) != value:
                raise FrameError(f"the handshake's {name} is {getattr(introduction, name)!r}, expected {value!r}")
        self.introduced.set_result(introduction)
        self._monitor.later(self.opening.settings.heartbeat, self._beat)

    def _beat(self) -> None:
        if self.ended.is_set():
            return
        settings = self.opening.settings
        if self._unanswered >= settings.heartbeat_misses:
            seconds = settings.heartbeat * settings.heartbeat_misses
            self.end(Reason(WorkerHung, f"its worker answered no heartbeat for {seconds:g} s"))
            return
        self._unanswered += 1
        self._tell(parts(PING))
        self._monitor.later(settings.heartbeat, self._beat)

    def _on_output(self, pipe: OutputPipe) -> None:
        if not pipe.read():
            self._monitor.unwatch(pipe.fd)

    def _on_death(self) -> None:
        code = self.process.exitcode
        if code is None:
            return
        timer = getattr(self, "_start_timer", None)
        if timer is not None:
            timer.cancel()
        for fd in (self._control.fileno(), self.process.sentinel, *(pipe.fd for pipe in self._outputs.values())):
            self._monitor.unwatch(fd)
        self._drain_control()
        for pipe in self._outputs.values():
            pipe.read(most=1 << 20)
        with self._lock:
            asked, self._asked = self._asked, {}
            self.ending = self._describe(code)
        self._cleanup.close()
        self.process.is_alive()  # takes it off multiprocess's list of children
        self.process._popen.close()
        self.ended.set()
        for answer in asked.values():
            answer.cancel()
        if not self.introduced.done():
            self.introduced.set_exception(self.ending.error(plugin=self.opening.name, phase="start"))
        self._on_end(self)

    def _drain_control(self) -> None:
        """Take what the worker still said before it died, above all why it couldn't load."""
        try:
            self._on_control()
        except OSError:
            pass

    def _describe(self, code: int) -> Ending:
        dump = os.pread(self._faults, 64 * 1024, 0).decode("utf-8", "backslashreplace")
        tail = "".join(self._outputs[source].tail for source in ("stderr", "log"))[-8 * 1024 :]
        limit = (self.opening.settings.limits or {}).get("memory_bytes")
        usage = self.process._popen.usage
        reason = self._reason
        if reason is None and code == 0 and self._goodbye:
            reason = Reason(PluginClosed, "its worker was closed")
        return Ending(
            code,
            reason,
            tail,
            dump,
            0 if usage is None else usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            None if limit is None else int(limit),
        )


def _socketpair(theirs: list[int]) -> tuple[socket.socket, int]:
    mine, other = socket.socketpair()
    theirs.append(other.detach())
    return mine, theirs[-1]


def _pipe(cleanup: ExitStack, theirs: list[int]) -> tuple[int, int]:
    read, write = os.pipe()
    cleanup.callback(os.close, write)
    theirs.append(read)
    return read, write


def _output(cleanup: ExitStack, theirs: list[int], source: str, plugin: str) -> tuple[OutputPipe, int]:
    read, write = os.pipe()
    pipe = OutputPipe(read, source, plugin=plugin)
    cleanup.callback(pipe.close)
    theirs.append(write)
    return pipe, write


def _unlinked_file(cleanup: ExitStack) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("hostkit-faults")
    else:
        file, path = tempfile.mkstemp(prefix="hostkit-faults-")
        os.unlink(path)
        fd = file
    cleanup.callback(os.close, fd)
    return fd


def _writable(connection: socket.socket, deadline: Deadline) -> bool:
    import select

    poller = select.poll()
    poller.register(connection, select.POLLOUT)
    return bool(poller.poll(deadline.remaining() * 1000))
