"""Keep the lifeline out of reach of the plugin, which could disarm it: a descriptor that it can't name.

    main thread: {0, 1, 2, channels, ...}      guard: {lifeline}, a table of descriptors of its own

The kernel sends its signal as long as anybody has the pipe open, whoever that is. The guard, a thread that only waits, keeps it in
a table of descriptors that no other thread shares, under a filter that lets it do nothing else, even with its memory written to.
So no rule on ``fcntl``, ``close``, ``dup`` or passing descriptors through sockets is needed, and none can be forgotten.
"""

from __future__ import annotations

import os

from ._sandbox_calls import Unavailable, block_signals
from ._sandbox_seccomp import install, only_waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._sandbox_calls import Kernel

_CLOSE_RANGE_UNSHARE = 2
_LAST_FD = 0xFFFFFFFF
# The default of 8 MB would count against the limit of memory.
_STACK = 256 * 1024


def guard(kernel: Kernel, lifeline: int) -> None:
    """Move ``lifeline``, which is armed already, out of this process's descriptors."""
    import _thread

    _close_to_everybody(lifeline)
    filter_program = only_waiting(kernel)
    failures: list[Exception] = []
    ready, forever = _thread.allocate_lock(), _thread.allocate_lock()
    ready.acquire()
    forever.acquire()

    def wait() -> None:
        try:
            _keep_only(kernel, lifeline)
            install(kernel, filter_program)
        except Exception as failure:  # raised by the thread that waits for this one
            failures.append(failure)
        ready.release()
        forever.acquire()  # after a failure too: under its filter, its end would be the process's

    before = _thread.stack_size(_STACK)
    try:
        _thread.start_new_thread(wait, ())
    except RuntimeError as error:
        raise Unavailable("the lifeline's guard", str(error)) from error
    finally:
        _thread.stack_size(before)
    ready.acquire()
    if failures:
        raise failures[0]
    os.close(lifeline)


def _close_to_everybody(lifeline: int) -> None:
    """Whoever opened the pipe anew through /proc/self/fd would hold a write end, and the host's death would change nothing."""
    try:
        os.fchmod(lifeline, 0)
    except PermissionError as error:
        made = os.fstat(lifeline)  # by a host that is another user: then this one can't open it anyway
        if made.st_uid == os.geteuid() or made.st_mode & 0o077:
            raise Unavailable("the lifeline's guard", f"fchmod: {error.strerror}") from error


def _keep_only(kernel: Kernel, lifeline: int) -> None:
    block_signals()
    try:
        kernel.call("close_range", lifeline + 1, _LAST_FD, _CLOSE_RANGE_UNSHARE)
        kernel.call("close_range", 0, lifeline - 1, 0)
    except OSError as error:
        raise Unavailable("the lifeline's guard", f"close_range: {error.strerror}") from error
