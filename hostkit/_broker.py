"""Connect in a confined worker's place: to the hosts and ports that were granted to its plugin, and to no others.

    plugin: connect() ─► the kernel holds it, and asks ─► is that granted? ─► a socket of the host's, connected
                         the plugin's descriptor is that socket now ◄───────────────────┘
                         else PermissionError (EACCES)

The address is read once, and what was read is what is connected to: that the plugin changes it meanwhile changes nothing. Names are
resolved here, when they are connected to. In the worker each of them stands for an address that leads nowhere else
(``stand_ins``), so it needs no name server.

seccomp_unotify(2) says how the kernel asks.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import select
import socket
import struct
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ._lifetimes import close_in_forks
from ._monitor import Monitor

# seccomp_unotify(2): the requests, and what they are about.
_RECEIVE, _ANSWER, _IS_VALID, _ADD_FD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_QUESTION = struct.Struct("=QII iIQ 6Q")
_REPLY = struct.Struct("=QqiI")
_ADDED = struct.Struct("=QIIII")
_SET_FD = 1
# The most bytes of an address (sockaddr_storage), of which IPv6 needs 28.
_LONGEST = 128
# Seconds for a connection, and how many may be under way at once for one worker.
_PATIENCE, _MOST = 30.0, 64
# Addresses for benchmarks (RFC 2544): no network routes them.
_STAND_INS = ipaddress.ip_network("198.18.0.0/15")


def stand_ins(endpoints: Iterable[str]) -> dict[str, str]:
    """Return name → address, for the names among ``host:port`` endpoints: what a worker takes them for."""
    names = sorted({name for endpoint in endpoints if _is_name(name := _host(endpoint))})
    return {name: str(_STAND_INS[number]) for number, name in enumerate(names, 1)}


class Broker:
    """One worker's. ``theirs`` is what it sends the kernel's end through; the rest happens on the monitor's thread."""

    def __init__(self, endpoints: Sequence[str], monitor: Monitor) -> None:
        self._endpoints = [(_host(endpoint), endpoint.rpartition(":")[2]) for endpoint in endpoints]
        self._names = {address: name for name, address in stand_ins(endpoints).items()}
        self._monitor = monitor
        self._lock = threading.Lock()  # guards _asked, and is held while it is used
        self._asked = -1
        self._places = threading.BoundedSemaphore(_MOST)
        self._mine, other = socket.socketpair()
        self.theirs = other.detach()
        close_in_forks(self)

    def hand_over(self) -> None:
        """Close the worker's end here, once it has it. Idempotent."""
        theirs, self.theirs = self.theirs, -1
        if theirs >= 0:
            os.close(theirs)

    def watch(self) -> None:
        """Wait for what the worker sends when it confines itself."""
        self._monitor.watch(self._mine.fileno(), self._take)

    def close(self) -> None:
        """Answer nothing any more. Idempotent."""
        self.hand_over()
        self._monitor.unwatch(self._mine.fileno())
        self._mine.close()
        with self._lock:
            asked, self._asked = self._asked, -1
        if asked >= 0:
            self._monitor.unwatch(asked)
            os.close(asked)

    def forget(self) -> None:
        """Close this process's copies in a fork of the host, taking no lock."""
        for fd in (self.theirs, self._asked):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)
        self.theirs = self._asked = -1
        self._mine.close()

    def _take(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._mine, 1, 1)
        except OSError:
            data, fds = b"", []
        self._monitor.unwatch(self._mine.fileno())
        if not data or len(fds) != 1:
            return  # it couldn't be had; the worker says so itself
        os.set_inheritable(fds[0], False)
        with self._lock:
            self._asked = fds[0]
        self._monitor.watch(fds[0], self._answer)
        with suppress(OSError):
            self._mine.send(b"\x01")

    def _answer(self) -> None:
        question = bytearray(_QUESTION.size)
        try:
            poller = select.poll()
            poller.register(self._asked, select.POLLIN)
            if poller.poll(0):
                fcntl.ioctl(self._asked, _RECEIVE, question)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINTR):  # whoever asked has gone
                self._monitor.unwatch(self._asked)
            return
        about, thread, _, _, _, _, fd, address, length, *_ = _QUESTION.unpack(question)
        if not about:
            return
        if not self._places.acquire(blocking=False):
            self._reply(about, errno.EAGAIN)
            return
        try:
            # It may take as long as the network does.
            arguments = (about, thread, fd & 0xFFFFFFFF, address, length)
            # A daemon: nobody's exit may wait for it.
            threading.Thread(target=self._connect, args=arguments, name="hostkit-broker", daemon=True).start()
        except RuntimeError:  # no thread to be had
            self._places.release()
            self._reply(about, errno.EAGAIN)

    def _connect(self, about: int, thread: int, fd: int, address: int, length: int) -> None:
        try:
            error = self._connected(about, thread, fd, address, length & 0xFFFFFFFF)
        except OSError as raised:  # no descriptor left, say
            error = raised.errno or errno.EIO
        finally:
            self._places.release()
        self._reply(about, error)

    def _connected(self, about: int, thread: int, fd: int, address: int, length: int) -> int:
        """Return the error number of a connection that is made and handed over; 0 for none."""
        try:
            host, port = _address(_read(thread, address, min(length, _LONGEST)))
            flags = _flags(thread, fd)
        except (OSError, ValueError):
            return errno.EFAULT
        if not self._is_valid(about):
            return errno.EINTR  # it ended meanwhile, and what was read may have been another's
        name = self._names.get(host, host)
        if not self._may(name, port):
            return errno.EACCES
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return errno.EHOSTUNREACH
        return self._to_any_of(found, about, fd, flags)

    def _to_any_of(self, found: Sequence[tuple[int, int, int, str, tuple[object, ...]]], about: int, fd: int, flags: int) -> int:
        failed = errno.EHOSTUNREACH
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as made:
                made.settimeout(_PATIENCE)
                if flags & os.O_NONBLOCK:
                    made.setblocking(False)
                failed = made.connect_ex(where)
                if failed == errno.EAGAIN and not flags & os.O_NONBLOCK:
                    failed = errno.ETIMEDOUT
                if failed in (0, errno.EINPROGRESS):
                    made.setblocking(bool(not flags & os.O_NONBLOCK))
                    return failed if self._add(about, made.fileno(), fd, flags) else errno.EINTR
        return failed

    def _may(self, host: str, port: int) -> bool:
        return any(other in (host, "*") and wanted in (str(port), "*") for other, wanted in self._endpoints)

    def _is_valid(self, about: int) -> bool:
        return self._tell(_IS_VALID, struct.pack("=Q", about))

    def _add(self, about: int, source: int, fd: int, flags: int) -> bool:
        return self._tell(_ADD_FD, _ADDED.pack(about, _SET_FD, source, fd, flags & os.O_CLOEXEC))

    def _reply(self, about: int, error: int) -> None:
        self._tell(_ANSWER, _REPLY.pack(about, 0, -error, 0))

    def _tell(self, request: int, said: bytes) -> bool:
        with self._lock, suppress(OSError):  # whoever asked has gone
            if self._asked >= 0:
                fcntl.ioctl(self._asked, request, said)
                return True
        return False


def _host(endpoint: str) -> str:
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _is_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host != "*"
    return False


def _read(thread: int, address: int, length: int) -> bytes:
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(length) or b""


def _address(data: bytes) -> tuple[str, int]:
    """Return host and port of a socket's address. Raises ``ValueError`` for one that has none."""
    family = int.from_bytes(data[:2], "little" if struct.pack("=H", 1) == b"\x01\x00" else "big")
    port = int.from_bytes(data[2:4], "big")
    if family == socket.AF_INET and len(data) >= 8:
        return str(ipaddress.IPv4Address(data[4:8])), port
    if family == socket.AF_INET6 and len(data) >= 24:
        found = ipaddress.IPv6Address(data[8:24])
        return str(found.ipv4_mapped or found), port
    raise ValueError("no address of the internet")


def _flags(thread: int, fd: int) -> int:
    """Return the flags of a thread's descriptor, as open(2) has them."""
    with open(f"/proc/{thread}/fdinfo/{fd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("flags:"):
                return int(line.split()[1], 8)
    raise ValueError("no flags")
