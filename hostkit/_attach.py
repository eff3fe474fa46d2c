"""Ask a host that runs in another process of the same user, by its admin socket (``_admin_socket.py`` draws the exchange)."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ._admin_socket import directory, key_of, owner
from ._errors import HostkitError
from ._proc import is_there

# Seconds that a host may take for an answer, and bytes of one.
_TIMEOUT = 5.0
_MOST = 64 * 1024 * 1024


class AdminError(HostkitError):
    """A running host can't be asked, or refused."""


class NotRunning(AdminError):
    """No host is there, or it has ended, or it doesn't answer."""


class Refused(AdminError):
    """The host is there and did not do it; ``kind`` is the name of the error that it told."""

    def __init__(self, text: str, *, kind: str = "Refused") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Running:
    """A host that can be asked."""

    pid: int
    app: str
    path: Path


def found() -> list[Running]:
    """Return this user's hosts that listen where they do by themselves, by process id."""
    return sorted(_listening(), key=lambda host: host.pid)


def _listening() -> Iterator[Running]:
    with suppress(OSError):
        for name in os.listdir(directory()):
            pid, app = owner(name)
            if name.endswith(".sock") and pid and is_there(pid):
                yield Running(pid, app, directory() / name)


class Attached:
    """A host that is asked. Thread-safe: questions at the same time go by connections of their own. Connects when it is asked, and anew
    where the host was gone and is back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # guards _idle and _closed
        self._idle: list[_Connection] = []
        self._closed = False

    def ask(self, verb: str, /, *, within: float = _TIMEOUT, **arguments: Any) -> Any:  # Any: JSON data
        """Return the answer. Raises ``NotRunning`` where none comes ``within`` seconds, and ``Refused``."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._asked(connection, verb, arguments, within)
            except NotRunning:
                if connection.answered:  # it was the host, not a connection that had grown old
                    raise
        return self._asked(_Connection(self.path, within), verb, arguments, within)

    def _asked(self, connection: _Connection, verb: str, arguments: dict[str, Any], within: float) -> Any:
        try:
            answer = connection.ask(verb, arguments, within)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            keep = not self._closed and len(self._idle) < 8
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()
        if "error" in answer:
            error = answer["error"]
            raise Refused(str(error.get("message", "")), kind=str(error.get("type", "")))
        return answer.get("result")

    def close(self) -> None:
        """Hang up. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Connection:
    """One connection, one question at a time."""

    def __init__(self, path: Path, within: float) -> None:
        self.answered = True  # whether the question was sent in vain because the other side had hung up long before
        self._path = path
        self._numbers = itertools.count(1)
        self._part = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(within)
            self._socket.connect(os.fspath(path))
            answer = self._exchange({"key": _key(path)})
        except OSError as error:
            self._socket.close()
            raise _unreachable(path, error) from error
        except BaseException:
            self._socket.close()
            raise
        if "error" in answer:
            self._socket.close()
            raise Refused(str(answer["error"].get("message", "")))

    def ask(self, verb: str, arguments: dict[str, Any], within: float) -> dict[str, Any]:
        """Return the answer's object. Raises ``NotRunning``."""
        number = next(self._numbers)
        self.answered = True
        try:
            self._socket.settimeout(within)
            answer = self._exchange({"id": number, "verb": verb, "arguments": arguments})
        except TimeoutError as error:
            raise NotRunning(
                f"{self._path}: the host did not answer {verb!r} within {within:g} s; is it stopped or very busy?"
            ) from error
        except OSError as error:
            self.answered = False
            raise _unreachable(self._path, error) from error
        if answer.get("id") != number and "error" not in answer:
            raise NotRunning(f"{self._path}: what is there is no hostkit host: it answered another question")
        return answer

    def _exchange(self, said: dict[str, Any]) -> dict[str, Any]:
        with suppress(BrokenPipeError):  # it may have said why before it hung up
            self._socket.sendall(json.dumps(said).encode() + b"\n")
        parts = [self._part]
        size = 0
        while b"\n" not in parts[-1]:
            data = self._socket.recv(1 << 18)
            size += len(data)
            if not data or size > _MOST:
                raise ConnectionResetError("it hung up" if not data else "its answer has no end")
            parts.append(data)
        line, _, self._part = b"".join(parts).partition(b"\n")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise NotRunning(f"{self._path}: what is there is no hostkit host: its answer is no JSON object")
        return answer

    def close(self) -> None:
        """Hang up. Idempotent."""
        self._socket.close()


def _key(path: Path) -> str:
    try:
        return key_of(path).read_text("ascii")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise Refused(
            f"{key_of(path)}: the key of the host can't be read: {error}; only the user who runs the host may ask it"
        ) from error


def _unreachable(path: Path, error: OSError) -> AdminError:
    if isinstance(error, FileNotFoundError):
        return NotRunning(f"{path}: no host listens there; it does with Host(..., admin=True), for as long as it is open")
    if isinstance(error, PermissionError):
        return Refused(f"{path}: only the user who runs the host may ask it")
    return NotRunning(f"{path}: the host is gone: {error.strerror or error}")
