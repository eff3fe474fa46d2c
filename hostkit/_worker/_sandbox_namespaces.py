"""Put a worker into namespaces of its own, with an init and somebody outside who tells the host how it ended.

    host ─ W0, the process that the host started: waits, ends as the worker ended
             └ W1, process 1 of the new process namespace: reaps; the kernel kills it with W0, and everything in there with it
                 └ W2, the worker: returns from here

The lifeline stays with W0, where the worker can't reach it. Signals go to the process group, which all three are in: W0 and W1 block
them, W2 gets them. W0 and W1 keep no descriptor of the worker's, so the host sees the end of each when the worker ends.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct

from ._sandbox_calls import Unavailable, block_signals
from ._sandbox_privileges import renounce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ._sandbox_calls import Kernel

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_LAST_FD = 0xFFFFFFFF
_VERDICT = struct.Struct("i")
_EX_SOFTWARE = 70
_READY = "ready"
_LONGEST_SAYING = 4096


def enter(kernel: Kernel, *, lifeline: int, network: object, uid: int | None) -> int:
    """Return in a new process that is alone in its namespaces. ``uid`` is the user whom that process's init runs as.

    What is returned is a descriptor for ``wait_for_init``.
    """
    _unshare(kernel, network=network, user=uid is None)
    verdict, told = os.pipe()
    init = os.fork()
    if init:
        _relay(kernel, init, verdict, lifeline)
    os.close(verdict)
    os.close(lifeline)
    ready, said = os.pipe()
    worker = os.fork()
    if worker:
        _reap(kernel, worker, told, said, uid)
    os.close(told)
    os.close(said)
    return ready


def wait_for_init(ready: int) -> None:
    """Return once init will end with the host. Raises ``Unavailable``, here where it can be told, if it couldn't."""
    with open(ready, "rb", buffering=0) as pipe:
        mechanism, _, why = pipe.read(_LONGEST_SAYING).decode().partition("\n")
    if mechanism != _READY:
        raise Unavailable(mechanism or "namespaces", why or "init ended")


def _unshare(kernel: Kernel, *, network: object, user: bool) -> None:
    wanted = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | (0 if network is True else _NEWNET) | (_NEWUSER if user else 0)
    uid, gid = os.geteuid(), os.getegid()
    try:
        kernel.call("unshare", wanted)
    except OSError as error:
        raise Unavailable("namespaces", _why(error, user=user)) from error
    if user:
        try:
            for file, text in (("uid_map", f"{uid} {uid} 1"), ("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1")):
                _write(f"/proc/self/{file}", text)
        except OSError as error:
            raise Unavailable("namespaces", f"{error.filename}: {error.strerror}") from error


def _why(error: OSError, *, user: bool) -> str:
    if not user:
        return f"unshare: {error.strerror} (root in a container without CAP_SYS_ADMIN has none)"
    if error.errno == errno.ENOSPC:
        return "unshare: user namespaces are used up or switched off (sysctl user.max_user_namespaces)"
    return f"unshare: {error.strerror} (this system lets ordinary users have no user namespaces)"


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _relay(kernel: Kernel, init: int, verdict: int, lifeline: int) -> NoReturn:
    try:
        block_signals()
        _close_all_but(kernel, verdict, lifeline)
        os.waitpid(init, 0)
        answer = os.read(verdict, _VERDICT.size)
        # Without a word init was killed, and the worker with it.
        _end_as(_VERDICT.unpack(answer)[0] if answer else signal.SIGKILL)
    finally:
        os._exit(_EX_SOFTWARE)


def _end_as(status: int) -> None:
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])


def _reap(kernel: Kernel, worker: int, told: int, said: int, uid: int | None) -> NoReturn:
    try:
        block_signals()
        os.write(said, _settle(kernel, told, said, uid).encode())
        os.close(said)
        while True:
            ended, status = os.waitpid(-1, 0)
            if ended == worker:
                os.write(told, _VERDICT.pack(status))
                os._exit(0)
    finally:
        os._exit(_EX_SOFTWARE)


def _settle(kernel: Kernel, told: int, said: int, uid: int | None) -> str:
    try:
        _close_all_but(kernel, told, said)
        renounce(kernel, uid=uid)  # forgets the signal of the next line, where it changes the user
        kernel.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        kernel.call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    except Unavailable as missing:
        return f"{missing.mechanism}\n{missing.why}"
    except OSError as error:
        return f"namespaces\n{error.filename}: {error.strerror}"
    poll = select.poll()
    poll.register(told, 0)
    if poll.poll(0):  # W0 went before the signal was armed
        os._exit(_EX_SOFTWARE)
    return _READY


def _close_all_but(kernel: Kernel, *kept: int) -> None:
    first = 0
    for fd in sorted(kept):
        if fd > first:
            kernel.call("close_range", first, fd - 1, 0)
        first = fd + 1
    kernel.call("close_range", first, _LAST_FD, 0)
