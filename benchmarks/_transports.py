"""64 bytes there and back between two processes, by everything that could carry a frame.

measure ─► write ─► child: read, write ─► read

The column of switches says how often the measuring side went to sleep for one round trip. Less than one is possible: on one CPU whoever
wakes the other goes on until it has to wait itself, so that the answer is there by the time it looks.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median

from ._cpu import Meter
from ._report import Section
from ._timing import Peer, interleave

_MESSAGE = b"." * 64
_PATIENCE = 5.0
_SPINS = 50
_SOCKETPAIR, _PIPES = "socketpair", "two pipes"

# What the child does, with the descriptors that it reads and writes.
_ECHO = """
import os, select, socket, sys
r, w, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if kind == "socket":
    s = socket.socket(fileno=r)
    while b := s.recv(4096): s.send(b)
elif kind == "two sockets":
    a, b = socket.socket(fileno=r), socket.socket(fileno=w)
    while m := a.recv(4096): b.send(m)
elif kind == "polled socket":
    s = socket.socket(fileno=r); p = select.poll(); p.register(r, select.POLLIN)
    while True:
        p.poll()
        if not (m := s.recv(4096)): break
        s.send(m)
elif kind == "pipes":
    while m := os.read(r, 4096): os.write(w, m)
elif kind == "spinning pipes":
    os.set_blocking(r, False); p = select.poll(); p.register(r, select.POLLIN)
    while True:
        for _ in range(int(sys.argv[4])):
            try: m = os.read(r, 4096); break
            except BlockingIOError: pass
        else: p.poll(); m = os.read(r, 4096)
        if not m: break
        os.write(w, m)
"""


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Measure each in turn."""
    section = Section("Raw transports: 64 bytes there and back", base=_PIPES)
    with ExitStack() as stack:
        calls = {name: stack.enter_context(opening()) for name, opening in _TRANSPORTS.items()}
        meter = _Switches()
        found = interleave(
            [Peer(name, timeit.Timer(call).timeit) for name, call in calls.items()], rounds=rounds, turn=turn, meter=meter
        )
    beside: dict[str, dict[str, Sequence[float] | str]] = {
        name: {**meter.found[name], "switches": f"{median(meter.switches[name]):.2f}"} for name in found
    }
    section.measured(found, beside=beside)
    return [section]


class _Switches(Meter):
    """Counts the voluntary context switches of the measuring thread, too."""

    def __init__(self) -> None:
        super().__init__()
        self.switches: dict[str, list[float]] = {}
        self._before = 0

    def begin(self) -> None:
        super().begin()
        self._before = _switches()

    def end(self, name: str, calls: int) -> None:
        self.switches.setdefault(name, []).append((_switches() - self._before) / calls)
        super().end(name, calls)


def _switches() -> int:
    lines = Path("/proc/thread-self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("voluntary_ctxt_switches")).split()[1])


@contextmanager
def _child(kind: str, reads: int, writes: int, spins: int = 0) -> Iterator[None]:
    command = [sys.executable, "-I", "-S", "-c", _ECHO, str(reads), str(writes), kind, str(spins)]
    child = subprocess.Popen(command, pass_fds={reads, writes})
    try:
        yield
    finally:
        child.wait(_PATIENCE)


@contextmanager
def _socket(kind: int = socket.SOCK_STREAM) -> Iterator[Callable[[], object]]:
    mine, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with _child("socket", theirs.fileno(), theirs.fileno()), mine:
        theirs.close()

        def once() -> None:
            mine.send(_MESSAGE)
            mine.recv(4096)

        yield once


@contextmanager
def _polled_socket() -> Iterator[Callable[[], object]]:
    mine, theirs = socket.socketpair()
    poller = select.poll()
    poller.register(mine, select.POLLIN)
    with _child("polled socket", theirs.fileno(), theirs.fileno()), mine:
        theirs.close()

        def once() -> None:
            mine.send(_MESSAGE)
            poller.poll(30_000)
            mine.recv(4096)

        yield once


@contextmanager
def _two_sockets() -> Iterator[Callable[[], object]]:
    there, theirs = socket.socketpair()
    back, their_back = socket.socketpair()
    with _child("two sockets", theirs.fileno(), their_back.fileno()), there, back:
        theirs.close()
        their_back.close()

        def once() -> None:
            there.send(_MESSAGE)
            back.recv(4096)

        yield once


@contextmanager
def _pipes(*, polled: bool = False) -> Iterator[Callable[[], object]]:
    reads, there = os.pipe()
    back, writes = os.pipe()
    poller = select.poll()
    poller.register(back, select.POLLIN)

    def once() -> None:
        os.write(there, _MESSAGE)
        os.read(back, 4096)

    def once_polled() -> None:
        os.write(there, _MESSAGE)
        poller.poll(30_000)
        os.read(back, 4096)

    with _child("pipes", reads, writes):
        os.close(reads)
        os.close(writes)
        yield once_polled if polled else once
        os.close(there)
        os.close(back)


@contextmanager
def _spinning_pipes(here: int, child: int) -> Iterator[Callable[[], object]]:
    reads, there = os.pipe()
    back, writes = os.pipe()
    os.set_blocking(back, False)
    poller = select.poll()
    poller.register(back, select.POLLIN)

    def once() -> None:
        os.write(there, _MESSAGE)
        for _ in range(here):
            try:
                os.read(back, 4096)
            except BlockingIOError:
                continue
            return
        poller.poll(30_000)
        os.read(back, 4096)

    with _child("spinning pipes", reads, writes, child):
        os.close(reads)
        os.close(writes)
        yield once
        os.close(there)
        os.close(back)


_TRANSPORTS: dict[str, Callable[[], AbstractContextManager[Callable[[], object]]]] = {
    _SOCKETPAIR: _socket,
    "socketpair, both poll first": _polled_socket,
    "seqpacket": lambda: _socket(socket.SOCK_SEQPACKET),
    "two socketpairs": _two_sockets,
    _PIPES: _pipes,
    "two pipes, we poll first": lambda: _pipes(polled=True),
    f"two pipes, we read {_SPINS} times before we sleep": lambda: _spinning_pipes(_SPINS, 0),
    f"two pipes, both read {_SPINS} times before they sleep": lambda: _spinning_pipes(_SPINS, _SPINS),
}
