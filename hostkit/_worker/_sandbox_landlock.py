"""Which files a confined worker reaches: a Landlock domain that knows nothing but what was granted (man 7 landlock).

Landlock binds the calling thread and what it starts, so it comes before anything that starts threads. It says nothing on looking a
name up (``stat``), nor on modes, owners, times and attributes: those are the filter's.
"""

from __future__ import annotations

import errno
import os
import struct
from stat import S_ISDIR

from ._sandbox_calls import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ._sandbox_calls import Kernel

# Rights, by the bits of linux/landlock.h.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE, _MAKE_CHAR, _MAKE_DIR = (1 << bit for bit in range(8))
_MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM, _REFER, _TRUNCATE, _IOCTL_DEV = (1 << bit for bit in range(8, 16))

_READ = _READ_FILE | _READ_DIR
_WRITE = (
    _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_FIFO | _MAKE_SYM | _REFER
)  # no sockets and no devices
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1, 2
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

# What each can be read from or written to without reaching anybody.
_DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random"]


def version(kernel: Kernel) -> int:
    """Return the version of Landlock that this kernel has."""
    try:
        return kernel.call("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        why = "it is off: the kernel's lsm= doesn't name it" if error.errno == errno.EOPNOTSUPP else "this kernel has none"
        raise Unavailable("Landlock", why) from error


def confine(kernel: Kernel, said: dict[str, Any], *, landlock: int) -> None:
    """Put this thread, and what it starts, into a domain with what is ``said`` to be granted. ``landlock`` is the version."""
    handled = _rights(landlock)
    net = 0 if said["network"] is True or landlock < 4 else _BIND_TCP | _CONNECT_TCP
    scoped = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if landlock >= 6 else 0
    attributes = struct.pack("@QQQ", handled, net, scoped)[: 24 if landlock >= 6 else 16 if landlock >= 4 else 8]
    try:
        ruleset = kernel.call("landlock_create_ruleset", attributes, len(attributes), 0)
        try:
            for path, rights in _grants(said):
                _grant(kernel, ruleset, path, rights & handled)
            kernel.call("landlock_restrict_self", ruleset, 0)
        finally:
            os.close(ruleset)
    except OSError as error:
        raise Unavailable("Landlock", f"{error.filename}: {error.strerror}") from error


def _rights(landlock: int) -> int:
    """Return every right that this version can deny."""
    newest = _IOCTL_DEV if landlock >= 5 else _TRUNCATE if landlock >= 3 else _REFER if landlock >= 2 else _MAKE_SYM
    return 2 * newest - 1


def _grants(said: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for path in said["read"]:
        yield path, _READ
    for path in said["list"]:
        yield path, _READ_DIR
    for path in said["execute"]:
        yield path, _EXECUTE | _READ
    for path in _DEVICES:
        yield path, _READ_FILE | _WRITE_FILE
    for path in said["write"]:
        yield path, _WRITE
    yield said["temporary"], _WRITE


def _grant(kernel: Kernel, ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if rights & _MAKE_REG:  # a grant to write
            raise Unavailable("Landlock", f"{path} can't be granted: {error.strerror}") from error
        return
    try:
        if not S_ISDIR(os.fstat(parent).st_mode):
            rights &= _OF_A_FILE
        if rights:
            kernel.call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, parent), 0)
    finally:
        os.close(parent)
