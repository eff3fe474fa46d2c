"""System calls that Python has no function for, by their numbers."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

from ._table import Held

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
# It keeps the interpreter's lock across the call: a process that is forked in there has one thread, which must have the lock.
_locked = ctypes.PyDLL(None, use_errno=True)
_locked.syscall.restype = ctypes.c_long

X86_64 = platform.machine() == "x86_64"
# name: (x86_64, aarch64), -1 where there is none.
_NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capget": (125, 90),
    "capset": (126, 91),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close_range": (436, 436),
    "delete_module": (176, 106),
    "execveat": (322, 281),
    "fanotify_init": (300, 262),
    "fchmodat2": (452, 452),
    "finit_module": (313, 273),
    "fork": (57, -1),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "inotify_add_watch": (254, 27),
    "inotify_init1": (294, 26),
    "io_uring_setup": (425, 425),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "modify_ldt": (154, -1),
    "mount": (165, 40),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "mq_timedsend": (242, 182),
    "msgsnd": (69, 189),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "rt_sigqueueinfo": (129, 138),
    "semctl": (66, 191),
    "setresuid": (117, 147),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmat": (30, 196),
    "shmdt": (67, 197),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


def call(name: str, *arguments: object) -> int:
    """Make a system call and return what it returns. Raises ``OSError``, or ``Held`` where this machine's kind has no such call."""
    return numbered(number(name), *arguments)


def number(name: str) -> int:
    """Return a call's number on this machine. Raises ``Held`` where there is none."""
    machines = {"x86_64": 0, "aarch64": 1}
    if platform.machine() not in machines:
        raise Held(f"absent: the numbers of {platform.machine()} are not known here")
    one = _NUMBERS[name][machines[platform.machine()]]
    if one < 0:
        raise Held(f"absent: {platform.machine()} has no {name}")
    return one


def numbered(which: int, *arguments: object) -> int:
    """Make the system call of that number. Raises ``OSError``."""
    return _made(libc, which, arguments)


def forking(name: str, *arguments: object) -> int:
    """Make a system call that may return twice; the child may do nothing but ``os._exit``. Raises ``OSError``."""
    return _made(_locked, number(name), arguments)


def permitted(name: str, *arguments: object, harmless: tuple[int, ...]) -> str:
    """Make a call with arguments that come to nothing, and return the evidence that only they stopped it. Raises ``OSError``
    where something else did."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno not in harmless:
            raise
        return f"{name} was permitted, and came to nothing by its own arguments ({errno.errorcode[error.errno]})"
    return f"{name} was done"


def opened(fd: int, what: str) -> str:
    """Close a descriptor that could be had, and return it as evidence."""
    os.close(fd)
    return f"got a descriptor of {what}"


def _made(library: ctypes.CDLL, which: int, arguments: tuple[object, ...]) -> int:
    ctypes.set_errno(0)
    found: int = library.syscall(ctypes.c_long(which), *(ctypes.c_long(one) if isinstance(one, int) else one for one in arguments))
    if found == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found
