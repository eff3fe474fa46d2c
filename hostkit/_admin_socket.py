"""A Unix socket by which programs of the same user ask a running host.

    client                                           host
    {"key": "…"}                             ──►     who reads the key's file may ask
                                             ◄──     {"result": {"pid": …, "app": …}}
    {"id": 1, "verb": "…", "arguments": {}}  ──►
                                             ◄──     {"id": 1, "result": …}  |  {"id": 1, "error": {"type": …, "message": …}}

One JSON object a line, any number of requests, one at a time on each connection. The kernel says who the client is (SO_PEERCRED): nobody
else's user gets in. The key lies beside the socket, for its owner to read: a confined plugin runs as the same user, and can't.
"""

from __future__ import annotations

import hmac
import itertools
import json
import os
import re
import secrets
import socket
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ._errors import ConfigError, HostkitError
from ._log import tell
from ._proc import is_there
from ._worker._failure import message, type_name

# Bytes of one request; connections at a time; seconds for the key, for sending an answer, and without a request.
MOST = 64 * 1024
_CLIENTS = 32
_KEY_TIME, _SEND_TIME, _IDLE_TIME = 5.0, 10.0, 600.0
# Hosts of one application in one process that listen by themselves.
_HOSTS = 1000
_NAME = re.compile(r"([0-9]{1,9})-(.+?)(?:\.[0-9]+)?\.sock(?:\.key)?")
# sockaddr_un.sun_path, unix(7).
_LONGEST_PATH = 107


def directory() -> Path:
    """Return where the sockets of this user's hosts are."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "hostkit") if runtime else Path("/tmp", f"hostkit-{os.geteuid()}")  # noqa: S108 - checked before it is used


def named(app: str) -> Path:
    """Return where a host of this process listens by itself: another place for each that there is."""
    own = directory() / f"{os.getpid()}-{app}.sock"
    others = (own.with_suffix(f".{number}.sock") for number in itertools.count(2))
    return next(path for path in (own, *itertools.islice(others, _HOSTS)) if not path.exists())


def owner(name: str) -> tuple[int, str]:
    """Return the process and the application of a file that is named so; 0 for another one."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), match[2]) if match else (0, "")


def key_of(path: Path) -> Path:
    """Return the file beside a socket that has its key."""
    return path.with_name(path.name + ".key")


class AdminSocket:
    """Listens, and answers each request by ``answer(verb, arguments)``, on a thread for each client. Thread-safe."""

    def __init__(self, path: Path, answer: Callable[[str, Mapping[str, Any]], Any], introduction: Mapping[str, Any]) -> None:
        self.path = path
        self._answer = answer
        self._introduction = dict(introduction)
        self._key = secrets.token_hex(32)
        self._lock = threading.Lock()  # guards _clients and _closed
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._closed = False
        self._socket = _bound(path)
        try:
            _write_key(key_of(path), self._key)
            self._socket.listen(16)
            self._thread = threading.Thread(target=self._accept, name="hostkit-admin", daemon=True)
            self._thread.start()
        except BaseException:
            self._socket.close()
            _remove(path)
            raise

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                threading.Event().wait(0.1)  # no descriptor left; some will come back
                continue
            self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        thread = threading.Thread(target=self._converse, args=(client,), name="hostkit-admin-client", daemon=True)
        with self._lock:
            full = self._closed or len(self._clients) >= _CLIENTS
            if not full:
                self._clients[client] = thread
        try:
            if full:
                client.close()
            else:
                thread.start()
        except RuntimeError:  # no thread left
            self._hang_up(client)

    def _converse(self, client: socket.socket) -> None:
        lines = _Lines(client)
        try:
            if self._is_let_in(client, lines):
                while (line := lines.next(_IDLE_TIME)) is not None:
                    lines.send(self._answered(line))
        except OSError:
            pass  # it went away, sends nothing or reads nothing
        except _TooLong:
            with suppress(OSError):
                lines.send(_refusal("BadRequest", f"a request has at most {MOST} bytes"))
        finally:
            self._hang_up(client)

    def _is_let_in(self, client: socket.socket, lines: _Lines) -> bool:
        pid, uid = _peer(client)
        if uid != os.geteuid():
            tell("WARNING", f"the admin socket refused process {pid} of uid {uid}")
            lines.send(_refusal("Refused", f"only uid {os.geteuid()} may ask this host, and you are uid {uid}"))
            return False
        line = lines.next(_KEY_TIME)
        if line is None:
            return False
        said = _object(line)
        key = said.get("key") if said is not None else None
        if not isinstance(key, str) or not hmac.compare_digest(key.encode("utf-8", "replace"), self._key.encode()):
            tell("WARNING", f"the admin socket refused process {pid}: it doesn't know the key")
            lines.send(_refusal("Refused", f"the first line must have the key that is in {key_of(self.path)}"))
            return False
        lines.send({"result": self._introduction})
        return True

    def _answered(self, line: bytes) -> dict[str, Any]:
        said = _object(line)
        if said is None or not isinstance(said.get("verb"), str) or not isinstance(said.get("arguments", {}), dict):
            return _refusal("BadRequest", 'expected one JSON object a line: {"id": 1, "verb": "snapshot", "arguments": {}}')
        number = said.get("id")
        answered = {"id": number if isinstance(number, int) else None}
        try:
            return {**answered, "result": self._answer(said["verb"], said.get("arguments", {}))}
        except HostkitError as error:
            return {**answered, **_refusal(type(error).__name__, str(error))}
        except Exception as error:  # a fault of ours must not cost the operator the connection
            tell("ERROR", f"the admin verb {said['verb']!r} failed: {type_name(error)}: {message(error)}")
            return {**answered, **_refusal(type_name(error), message(error))}

    def _hang_up(self, client: socket.socket) -> None:
        with self._lock:
            self._clients.pop(client, None)
        client.close()

    def close(self) -> None:
        """Let nobody ask any more, and remove the socket. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            clients = dict(self._clients)
        for end in (self._socket, *clients):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # whoever waits in it wakes up
        self._socket.close()
        _remove(self.path)
        for thread in (self._thread, *clients.values()):
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(1.0)

    def forget(self) -> None:
        """Let go of it in a fork: the path is the parent's."""
        self._closed = True
        for end in (self._socket, *self._clients):
            end.close()
        self._clients = {}
        self._lock = threading.Lock()


class _TooLong(Exception):
    """A line has no end."""


class _Lines:
    """A connection, line by line, each way with a limit of time and size."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._part = b""

    def next(self, seconds: float) -> bytes | None:
        """Return the next line, or None at the end. Raises ``OSError``, and ``_TooLong``."""
        self._client.settimeout(seconds)
        while b"\n" not in self._part:
            if len(self._part) > MOST:
                raise _TooLong
            data = self._client.recv(MOST)
            if not data:
                return None
            self._part += data
        line, _, self._part = self._part.partition(b"\n")
        if len(line) > MOST:
            raise _TooLong
        return line

    def send(self, said: Mapping[str, Any]) -> None:
        """Send one object. Raises ``OSError`` where the other side doesn't read it in time."""
        self._client.settimeout(_SEND_TIME)
        self._client.sendall(json.dumps(said, default=str).encode() + b"\n")


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _refusal(kind: str, text: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": text}}


def _peer(client: socket.socket) -> tuple[int, int]:
    """Return the process and the user on the other side, as the kernel has them: struct ucred of unix(7)."""
    pid, uid, _ = struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII")))
    return pid, uid


def _bound(path: Path) -> socket.socket:
    if not hasattr(socket, "SO_PEERCRED"):
        raise ConfigError(
            "admin: this system doesn't say who is at the other end of a Unix socket (SO_PEERCRED), so nobody is let in"
        )
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"admin: {path}: the path of a Unix socket has at most {_LONGEST_PATH} bytes; choose a shorter one")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        # Linux gives the file the mode of the descriptor, less the umask: there is no moment in which it is open to others.
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(os.fspath(path))
        os.chmod(path, 0o600)
    except OSError as error:
        listening.close()
        raise ConfigError(f"admin: {path}: the socket can't be made: {error.strerror or error}") from error
    except BaseException:
        listening.close()
        raise
    return listening


def _make_way(path: Path) -> None:
    """Make the directory of ours, and remove a socket that nobody listens on. Raises ``ConfigError``, ``OSError``."""
    if path.parent == directory():
        with suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        found = os.lstat(path.parent)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError(
                f"admin: {path.parent} is not a directory of uid {os.geteuid()} alone (mode 0700), so somebody else could put their own "
                "socket there; remove it, or pass admin a path of your own"
            )
        _sweep(path.parent)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"admin: {path} is there and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            _remove(path)
        else:
            raise ConfigError(f"admin: {path} is in use by another host; choose another path, or close that one")


def _sweep(place: Path) -> None:
    """Remove what hosts left behind that were killed."""
    for name in os.listdir(place):
        pid, _ = owner(name)
        if pid and not is_there(pid):
            with suppress(OSError):
                os.unlink(place / name)


def _write_key(path: Path, key: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="ascii") as file:
        file.write(key)


def _remove(path: Path) -> None:
    for file in (path, key_of(path)):
        with suppress(OSError):
            os.unlink(file)
