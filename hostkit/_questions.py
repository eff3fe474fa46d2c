"""The host's end of a worker's control socket: what is asked beside the calls, and the frames that come back."""

from __future__ import annotations

import itertools
import json
import select
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ._deadline import Deadline
from ._worker._frames import ERROR, RESULT, Assembler, Frame, FrameError, packed

# A control frame holds a health status, an introduction or an error: text, not data.
_CAP = 4 * 1024 * 1024


class Full(Exception):
    """The worker doesn't read what it is told."""


class Questions:
    """Sends from any thread; ``receive``, ``frames`` and ``take`` are the monitor's alone."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._assembler = Assembler(_CAP)
        self._ids = itertools.count(1)
        self._sending = threading.Lock()  # keeps one frame's bytes together
        self._lock = threading.Lock()  # guards everything below
        self._open: dict[int, Future[Frame]] = {}
        self._shared: dict[int, tuple[Future[Frame], Deadline]] = {}  # by kind, the last one that may be
        self._over = False

    def send(self, frame: bytes, deadline: Deadline, fd: int | None = None) -> None:
        """Send one frame, with a descriptor or without. A worker that has gone is no error: its death is seen elsewhere. Raises
        ``Full``."""
        beside = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("@i", fd))]
        with self._sending:
            view = memoryview(frame)
            while view:
                try:
                    view = view[self._control.sendmsg([view], beside, socket.MSG_DONTWAIT) :]
                    beside = []
                except BlockingIOError:
                    if not _writable(self._control, deadline):
                        raise Full from None
                except OSError:
                    return

    def ask(self, kind: int, deadline: Deadline | None = None) -> Future[Frame]:
        """Send a question; the future gets the answer's frame, or is cancelled when the worker ends. Raises ``Full``.

        Who asks the same within the ``deadline`` of one that is still open shares its answer: the worker asks its plugin once at a
        time.
        """
        answer: Future[Frame] = Future()
        number = next(self._ids)
        with self._lock:
            if self._over:
                answer.cancel()
                return answer
            if deadline is not None:
                before, until = self._shared.get(kind, (answer, deadline))
                if before is not answer and not before.done() and not until.passed:
                    return before
                self._shared[kind] = (answer, deadline)
            self._open[number] = answer
        self.send(packed(kind, number), Deadline.after(0.0))
        return answer

    def receive(self) -> int | None:
        """Take in what is there; return the number of bytes, 0 where the worker has closed its end, None where nothing is there."""
        try:
            data = self._control.recv(self._assembler.wants, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        self._assembler.feed(data)
        return len(data)

    def frames(self) -> Iterator[Frame]:
        """Yield the whole frames that are here. Raises ``FrameError``."""
        while (frame := self._assembler.pop()) is not None:
            yield frame

    def take(self, frame: Frame) -> None:
        """Hand an answer to whoever asked. Raises ``FrameError`` for one that nobody asked for."""
        if frame.kind not in (RESULT, ERROR):
            raise FrameError(f"a frame of kind {frame.kind} as an answer to a question")
        with self._lock:
            asked = self._open.pop(frame.call_id, None)
        if asked is None:
            raise FrameError(f"an answer to question {frame.call_id}, which is not open")
        if asked.set_running_or_notify_cancel():
            asked.set_result(frame)

    def close(self) -> None:
        """Close the socket. Idempotent."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # wakes whoever waits to send
        with self._sending:
            self._control.close()

    def end(self) -> None:
        """Cancel what is still open: nobody will answer any more."""
        with self._lock:
            self._over = True
            left, self._open = self._open, {}
        for answer in left.values():
            answer.cancel()


def spoken(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a worker said. Raises ``FrameError`` for anything else: it comes from foreign code's process."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"no JSON: {type(error).__name__}") from None
    if not isinstance(said, dict):
        raise FrameError(f"a {type(said).__name__} instead of a JSON object")
    return said


def _writable(connection: socket.socket, deadline: Deadline) -> bool:
    poller = select.poll()
    poller.register(connection, select.POLLOUT)
    return bool(poller.poll(deadline.remaining() * 1000))
