"""Fork workers from a process that has imported what they share, and never a byte of a plugin.

    host ─► {lifeline, path, preload}                  ◄─ {missing, refused}
    host ─► {control, fds, ...} + the descriptors      ◄─ the worker's process id, said by itself; or minus an errno

A worker that is made here is a child of the host, not of this process: whoever waits for it sees its own end. That takes a raw
``clone`` with ``CLONE_PARENT``, because glibc's ``fork`` has no such option. What else ``fork`` does is done here: Python's
handlers run, and the C library's idea of its own thread's id stays right. Handlers of ``pthread_atfork`` don't run, as with
glibc's ``_Fork``; those that take locks have nothing to do in a process of one thread.
"""

from __future__ import annotations

import _socket
import atexit
import gc
import json
import os
import signal
import struct
import sys
import threading
import time

from . import _boot, _lifeline
from ._failure import message, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SIZE = struct.Struct("!I")
ANSWER = struct.Struct("!i")
# What the kernel takes in one message (SCM_MAX_FD).
MOST_FDS = 253

# The numbers of clone, set_robust_list and get_robust_list, and whether clone takes the thread's tls before its tid address.
_CALLS = {"x86_64": (56, 273, 274, False), "aarch64": (220, 99, 100, True)}
_CLONE_PARENT, _CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID = 0x00008000, 0x00200000, 0x01000000
_PR_GET_TID_ADDRESS = 40


def serve(control_fd: int) -> tuple[int, list[str]]:
    """Fork workers until the host is gone. Returns in each of them, with the descriptor of its own control socket and the
    directories whose .pth files have run."""
    os.set_inheritable(control_fd, False)
    host = _socket.socket(fileno=control_fd)
    told, _ = _received(host)
    os.set_inheritable(told["lifeline"], False)
    _lifeline.arm(told["lifeline"])
    os.chdir("/")  # whatever the host's working directory is, it can be unmounted
    missing, refused = _preload(told)
    clone: Callable[[], int] | None = None
    try:
        clone = None if refused else _cloning()
    except OSError as error:
        refused = {"this system": str(error)}
    said = json.dumps({"missing": missing, "refused": refused}).encode()
    host.sendall(SIZE.pack(len(said)) + said)
    # What is installed later must be seen, also where its directory's time is still the same.
    sys.path_importer_cache.clear()
    # No collection may touch, and so copy, what all workers share.
    gc.collect()
    gc.freeze()
    gc.disable()
    while clone is not None:
        wanted, fds = _received(host)
        pid = _forked(clone)
        if pid == 0:
            return _become(wanted, fds, host), told["site_dirs"]
        for fd in fds:
            os.close(fd)
        if pid < 0:
            host.sendall(ANSWER.pack(pid))
    os._exit(0)


def _received(host: _socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, passed, _, _ = host.recvmsg(SIZE.size, _socket.CMSG_SPACE(4 * MOST_FDS), _socket.MSG_CMSG_CLOEXEC)
    fds = [fd for _, _, data in passed for fd in memoryview(data[: len(data) // 4 * 4]).cast("i")]
    size = SIZE.unpack(head + _exactly(host, SIZE.size - len(head)))[0] if head else 0
    if not size:
        os._exit(0)  # the host has closed its end
    said: dict[str, Any] = json.loads(_exactly(host, size))
    return said, fds


def _exactly(host: _socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = host.recv(count - len(data))
        if not part:
            os._exit(0)
        data += part
    return data


def _preload(told: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Import what workers share; return what can't be imported, and what makes this process unfit for forking, with the reasons."""
    import dataclasses  # noqa: F401 - what most plugins import
    import faulthandler  # noqa: F401
    import typing  # noqa: F401

    from . import _sandbox, _sandbox_lifeline  # noqa: F401 - for those that are confined

    missing = {}
    before = _descriptors()
    _boot.see_what_the_host_sees({**told, "directory": None}, [])
    for name in ("the .pth files", *told["preload"]):
        try:
            if name in told["preload"]:
                __import__(name)
        except BaseException as error:  # whoever wrote it
            missing[name] = f"{type_name(error)}: {message(error)}"
        if len(os.listdir("/proc/self/task")) > 1:
            return missing, {name: f"{name}: threads were started, which a fork doesn't have"}
        if _descriptors() != before:
            return missing, {name: f"{name}: descriptors were left open, which a worker doesn't have"}
    if "pydantic" in sys.modules:
        _warm()
    return missing, {}


def _descriptors() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]


def _warm() -> None:
    """Pay for the first model, at which pydantic imports most of itself."""
    from ._codec import codec_for

    pydantic: Any = sys.modules["pydantic"]
    try:
        part = pydantic.create_model("Part", name=(str, ...), size=("float | None", None))
        whole = pydantic.create_model("Whole", count=(int, pydantic.Field(ge=0)), parts=(list[part], []))  # type: ignore[valid-type]
        codec = codec_for(whole)
        codec.encode(codec.decode(b'{"count": 1, "parts": [{"name": "one"}]}'))
    except Exception:  # noqa: S110 - another pydantic than the one that is known here; its first model is the worker's then
        pass


def _cloning() -> Callable[[], int]:
    """Return what makes a child of the host and returns 0 in it. Raises ``OSError`` where that can't be done safely."""
    import ctypes

    machine = os.uname().machine
    if machine not in _CALLS or sys.maxsize < 1 << 32:
        raise OSError(f"no way to clone on {machine} is known")
    clone, set_robust_list, get_robust_list, tls_first = _CALLS[machine]
    # PyDLL: the interpreter's lock is held throughout, so that there is nothing to restore in the child.
    library = ctypes.PyDLL(None, use_errno=True)
    call = library.syscall
    call.argtypes = [ctypes.c_long] * 6
    call.restype = ctypes.c_long
    address = ctypes.c_void_p()
    failed = library.prctl(_PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0)
    if failed or not address.value or ctypes.c_int.from_address(address.value).value != os.getpid():
        # musl keeps another thing there, and a kernel without CONFIG_CHECKPOINT_RESTORE doesn't tell.
        raise OSError("the C library doesn't keep its thread's id where the kernel says")
    head, size = ctypes.c_long(), ctypes.c_long()
    if call(get_robust_list, 0, ctypes.addressof(head), ctypes.addressof(size), 0, 0):
        raise OSError("the kernel doesn't tell of the list of robust locks")
    flags = _CLONE_PARENT | _CLONE_CHILD_SETTID | _CLONE_CHILD_CLEARTID | signal.SIGCHLD
    places = (0, address.value) if tls_first else (address.value, 0)

    def made() -> int:
        pid: int = call(clone, flags, 0, 0, *places)
        if pid == 0:
            call(set_robust_list, head.value, size.value, 0, 0, 0)  # a fork hasn't got one
        return -ctypes.get_errno() if pid < 0 else pid

    return made


def _forked(clone: Callable[[], int]) -> int:
    import ctypes

    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = clone()
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid


def _become(said: dict[str, Any], fds: list[int], host: _socket.socket) -> int:
    """Make this fork what an executed worker is before its first line."""
    os.setsid()
    host.sendall(ANSWER.pack(os.getpid()))
    host.detach()
    *own, directory = fds
    os.fchdir(directory)
    _settle(own, said["fds"])
    _close_others({0, *said["fds"]})
    os.umask(said["umask"])
    try:  # noqa: SIM105 - contextlib costs a worker's start
        os.sched_setaffinity(0, said["cpus"])
    except OSError:  # the CPUs changed meanwhile: the template's own are as good
        pass
    _live_in(said["environment"])
    # CPython forgets this after a fork (3.13 still does).
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    gc.enable()
    control: int = said["control"]
    return control


def leave() -> None:
    """End this worker without taking every module apart, which would copy all that it shares."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(0)


def _settle(own: list[int], places: list[int]) -> None:
    """Move descriptors to their places, which others of them may occupy."""
    for index, place in enumerate(places):
        if place in own[index + 1 :]:
            own[own.index(place, index + 1)] = os.dup(place)
        if own[index] == place:
            os.set_inheritable(place, place < 3)
        else:
            os.dup2(own[index], place, inheritable=place < 3)
            os.close(own[index])


def _close_others(kept: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:  # noqa: SIM105 - the same
                os.close(int(name))
            except OSError:
                pass  # the directory's own


def _live_in(environment: dict[str, str]) -> None:
    coerced = os.environ.get("LC_CTYPE")  # the interpreter's own doing where the locale is C
    os.environ.clear()
    os.environ.update(environment)
    if coerced is not None:
        os.environ.setdefault("LC_CTYPE", coerced)
    time.tzset()
