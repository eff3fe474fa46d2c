"""Other programs and processes: starting them, becoming them, outliving the worker in them."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
from contextlib import suppress

from . import _own
from ._calls import call, forking
from ._table import Held, Target, act

_MANY = 30


@act()
def fork(at: Target) -> str:
    """Fork."""
    return _waited(os.fork())


@act()
def fork_by_number(at: Target) -> str:
    """Fork by the system call that the C library never uses."""
    return _waited(forking("fork"))


@act()
def clone(at: Target) -> str:
    """Make a process by clone, as the C library's fork does."""
    return _waited(forking("clone", int(signal.SIGCHLD), 0, 0, 0, 0))


@act()
def vfork(at: Target) -> str:
    """Make a process that this one waits for (clone with CLONE_VFORK)."""
    return _waited(forking("clone", 0x4000 | int(signal.SIGCHLD), 0, 0, 0, 0))


@act()
def clone_by_the_newest_call(at: Target) -> str:
    """Make a process by clone3, whose flags no filter can see."""
    arguments = (ctypes.c_uint64 * 8)(0, 0, 0, 0, int(signal.SIGCHLD))
    return _waited(forking("clone3", arguments, ctypes.sizeof(arguments)))


@act()
def fork_bomb(at: Target) -> str:
    """Fork thirty processes that stay."""
    children: list[int] = []
    try:
        for _ in range(_MANY):
            pid = os.fork()
            if not pid:
                signal.pause()
                os._exit(0)
            children.append(pid)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return f"forked {len(children)}"


@act()
def outlive_the_worker(at: Target) -> str:
    """Leave a grandchild in a session of its own behind."""
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            os.setsid()
            if not os.fork():
                with open(at["ran"], "w", encoding="utf-8") as file:
                    file.write("ran")
        os._exit(0)
    return _waited(pid)


@act()
def run_program(at: Target) -> str:
    """Run a program (subprocess)."""
    return f"it said {subprocess.run(['/bin/echo', 'ran'], check=True, capture_output=True, timeout=10).stdout!r}"


@act()
def run_shell(at: Target) -> str:
    """Run a command in a shell (os.system)."""
    if os.system(f"echo ran > {at['ran']}"):
        raise PermissionError(13, "the shell did not run")
    return "it ran"


@act()
def spawn_program(at: Target) -> str:
    """Run a program (posix_spawn)."""
    return _waited(os.posix_spawn("/bin/true", ["true"], {}))


@act(alone=True)
def become_program(at: Target) -> str:
    """Become another program (execve)."""
    os.execv("/bin/sh", ["sh", "-c", f"echo ran > {at['ran']}"])


@act(alone=True)
def become_own_file(at: Target) -> str:
    """Become a program that was written into the own temporary directory."""
    path = _own.path("program")
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o700)
    os.write(fd, program())
    os.close(fd)
    try:
        os.execv(path, [path])
    finally:
        os.unlink(path)


@act(alone=True)
def become_memory_file(at: Target) -> str:
    """Become a program that is nowhere but in memory (memfd_create, execveat)."""
    fd = os.memfd_create("program", 0)
    try:
        os.write(fd, program())
        call("execveat", fd, b"", (ctypes.c_char_p * 1)(), (ctypes.c_char_p * 1)(), 0x1000)
    finally:
        os.close(fd)
    return "it returned"


def program() -> bytes:
    """Return the smallest program of this machine's kind, which ends with the status 42. Raises ``Held`` on other machines."""
    kinds = {
        "x86_64": (62, bytes.fromhex("bf2a000000b8e70000000f05")),
        "aarch64": (183, bytes.fromhex("400580d2c80b80d2010000d4")),
    }
    if platform.machine() not in kinds:
        raise Held(f"absent: no program for {platform.machine()} here")
    machine, code = kinds[platform.machine()]
    base, head = 0x400000, 64 + 56
    return (
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, head + len(code), head + len(code), 0x1000)
        + code
    )


def _waited(pid: int) -> str:
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return f"process {pid}"
