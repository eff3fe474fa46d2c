"""The control socket, read by a thread of its own so that health and cancel never queue behind a running call."""

from __future__ import annotations

import _socket
import json
import os
import threading

from . import _failure
from ._frames import CANCEL, CLOSE, ERROR, GOODBYE, HEALTH, INFO, MEMORY, PING, PONG, RESULT, FrameError, packed, send_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._frames import Assembler, Frame
    from ._loop import Server

# Bytes of a health status or an info: words, not data.
ANSWER_LIMIT = 1 << 20
_BESIDE = _socket.CMSG_SPACE(8 * 4)


class Control:
    """Answers the host beside the calls."""

    def __init__(self, control: _socket.socket, assembler: Assembler, server: Server) -> None:
        self._control = control
        self._assembler = assembler
        self._server = server
        self._sending = threading.Lock()  # keeps one frame's bytes together
        self._asking: set[str] = set()  # a set's own operations are atomic
        self._fds: list[int] = []  # that came with frames, in their order

    def start(self) -> None:
        """Begin to listen, on a daemon thread."""
        threading.Thread(target=self._listen, name="hostkit-control", daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                frame = self._assembler.receive(self._receive)
                if frame is None:
                    return
                self._take(frame)
        except (OSError, FrameError):
            os._exit(1)  # the host is gone or speaks nonsense: nothing that this worker does can matter

    def _receive(self, size: int) -> bytes:
        data, beside, _, _ = self._control.recvmsg(size, _BESIDE, _socket.MSG_CMSG_CLOEXEC)
        for level, kind, fds in beside:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                self._fds += memoryview(fds)[: len(fds) // 4 * 4].cast("i")
        return data

    def _take(self, frame: Frame) -> None:
        if frame.kind == PING:
            self._send(packed(PONG, frame.call_id))
            self._server.arena.tidy()
        elif frame.kind == MEMORY:
            self._hear(frame)
        elif frame.kind == CANCEL:
            self._server.cancel(frame.call_id)
        elif frame.kind == HEALTH:
            self._beside("health", frame, lambda: _health(self._server.loaded.health()))
        elif frame.kind == INFO:
            self._beside("info", frame, self._server.loaded.info)
        elif frame.kind == CLOSE:
            self._beside("close", frame, self._server.loaded.close)

    def _hear(self, frame: Frame) -> None:
        said = json.loads(frame.meta)
        # One that the kernel couldn't pass, because no descriptor is left here, is missing.
        fd = self._fds.pop(0) if "segment" in said and self._fds else None
        try:
            self._server.arena.hear(frame.call_id, said, fd)
        finally:
            if fd is not None:
                os.close(fd)

    def ask_memory(self, number: int, said: dict[str, Any]) -> None:
        """Tell the host something about shared memory."""
        self._send(packed(MEMORY, number, meta=json.dumps(said).encode()))

    def _beside(self, what: str, frame: Frame, ask: Callable[[], Any]) -> None:
        """Ask the plugin on another thread; a question that is still unanswered is not asked twice."""
        if what in self._asking:
            self._refuse(what, frame, f"the {what} before has not answered yet")
            return
        self._asking.add(what)
        try:
            threading.Thread(target=self._ask, args=(what, frame, ask), name=f"hostkit-{what}", daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # the plugin used up the threads, or the memory
            self._asking.discard(what)
            self._refuse(what, frame, f"{what} can't be asked: {error}")

    def _refuse(self, what: str, frame: Frame, why: str) -> None:
        error = {"type": "", "message": why, "phase": what}
        self._send(packed(ERROR, frame.call_id, meta=json.dumps(error).encode()))

    def _ask(self, what: str, frame: Frame, ask: Callable[[], Any]) -> None:
        try:
            said = json.dumps(ask(), allow_nan=False).encode()
            if len(said) > ANSWER_LIMIT:
                raise ValueError(f"{what} answered with {len(said)} bytes, at most {ANSWER_LIMIT} are taken")
            answer = packed(RESULT, frame.call_id, said)
        except BaseException as error:  # foreign code
            found = {**_failure.describe(error), "phase": what}
            answer = packed(ERROR, frame.call_id, meta=json.dumps(found).encode())
        self._asking.discard(what)  # before the host can know, and ask again
        try:
            self._send(answer)
            if what == "close":
                self._send(packed(GOODBYE))
        except OSError:
            pass  # the host is gone

    def _send(self, frame: bytes) -> None:
        with self._sending:
            send_all(self._control.send, frame)


def _health(status: Any) -> dict[str, Any]:
    fields: dict[str, Any] = status._fields()
    return {**fields, "status": fields["status"].value}
