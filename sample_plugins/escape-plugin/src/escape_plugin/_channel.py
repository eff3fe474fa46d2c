"""What lies between worker and host: answers that attack it, and what was inherited."""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import socket
import stat
import struct
import time

from . import _own
from ._table import Held, Target, act

_HEADER = struct.Struct(">2sBBHHQdIII")
_RESULT = 4


class _Gadget:
    """What leaves a mark where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


@act(alone=True)
def answer_with_pickle(at: Target) -> str:
    """Answer with a pickle that runs code where it is read."""
    data = pickle.dumps(_Gadget(at["unpickled"]))
    _answer(_HEADER.pack(b"hk", 1, _RESULT, 0, 0, _call_id(), 0.0, 0, len(data), 0) + data)
    return "it was sent"


@act()
def return_pickle(at: Target) -> str:
    """Return the bytes of a pickle that runs code where it is read."""
    return f"returned {pickle.dumps(_Gadget(at['unpickled'])).hex()}"


@act(alone=True)
def answer_without_end(at: Target) -> str:
    """Announce an answer of twelve gigabytes."""
    _answer(_HEADER.pack(b"hk", 1, _RESULT, 0, 0, _call_id(), 0.0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF) + bytes(65536))
    return "it was sent"


@act(alone=True)
def answer_with_garbage(at: Target) -> str:
    """Answer with what is no frame."""
    _answer(b"\xff" * 4096)
    return "it was sent"


@act(alone=True)
def control_with_garbage(at: Target) -> str:
    """Send what is no frame on the control socket."""
    for fd in _own.controls():
        os.write(fd, b"\xff" * 4096)
    return _outlived()


@act(alone=True)
def send_descriptors_to_host(at: Target) -> str:
    """Fill the host with descriptors (SCM_RIGHTS on the control socket)."""
    for fd in _own.controls():
        with socket.socket(fileno=os.dup(fd)) as control:
            socket.send_fds(control, [b"h"], [0] * 200)
    return "they were sent"


@act()
def forge_log(at: Target) -> str:
    """Log in another plugin's name, and with a line of its own for whoever reads the log."""
    print('forged\n2099-01-01 | ERROR | {"plugin": "neighbour"} \x1b[31mescaped')
    return "it was sent"


@act()
def flood_log(at: Target) -> str:
    """Log 5,000 records at once."""
    import logging

    logger = logging.getLogger("flood")
    for number in range(5000):
        logger.error("flood %s", number)
    return "5,000 records"


@act()
def flood_output(at: Target) -> str:
    """Write 16 MB to the standard output at once."""
    block = b"x" * 99 + b"\n"
    for _ in range(256):
        os.write(1, block * 655)
    return "16 MB"


@act(alone=True)
def truncate_notes(at: Target) -> str:
    """Truncate the file that worker and host share."""
    os.ftruncate(_own.notes(), 0)
    return "truncated it"


@act()
def truncate_shared_memory(at: Target) -> str:
    """Truncate the memory in which host and worker pass big data, which would end the host (/proc/self/map_files)."""
    for fd, status in _own.descriptors().items():
        if stat.S_ISREG(status.st_mode) and not status.st_nlink and fd != _own.notes():
            os.ftruncate(fd, 0)
            return "truncated it"
    with open("/proc/self/maps", encoding="utf-8") as file:
        areas = [line.split()[0] for line in file if re.search(r"/memfd:hostkit(?!-faults)", line)]
    if not areas:
        raise Held("hidden: none is mapped here")
    first, last = (int(end, 16) for end in areas[0].split("-"))
    with open(os.open(f"/proc/self/map_files/{first:x}-{last:x}", os.O_RDWR), "r+b") as file:
        os.ftruncate(file.fileno(), 0)
    return "truncated it"


@act()
def read_inherited_descriptors(at: Target) -> str:
    """Read files of the host that were inherited."""
    for fd, status in _own.descriptors().items():
        if stat.S_ISREG(status.st_mode) and status.st_nlink:
            return f"read {os.pread(fd, 256, 0)!r}"
    raise Held("hidden: none was inherited")


@act()
def read_arguments_of_host(at: Target) -> str:
    """Find the host's arguments in the own ones."""
    import sys

    found = [one for one in (*sys.argv, *sys.orig_argv) if at["argument"] in one]
    if not found:
        raise Held("hidden: they are not there")
    return f"found {found}"


@act()
def find_key_of_host(at: Target) -> str:
    """Find the key with which processes of the host trust each other (multiprocessing's authkey)."""
    import multiprocessing

    if multiprocessing.current_process().authkey.hex() != at["authkey"]:
        raise Held("hidden: it is another one")
    return f"found {at['authkey']}"


def _outlived() -> str:
    time.sleep(3.0)  # the host ends this process meanwhile
    return "the host took it"


def _call_id() -> int:
    """Return the id of the call that runs."""
    found: int = ctypes.c_uint64.from_buffer_copy(os.pread(_own.notes(), 8, 0)).value
    return found


def _answer(data: bytes) -> None:
    """Write to every pipe that leads to the host; not all of them are channels."""
    for fd in _own.answers():
        os.write(fd, data)
