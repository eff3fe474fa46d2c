"""End this worker and its process group when its host is gone, within a millisecond and even while C code holds the GIL.

The host holds the write end of a pipe, the worker its read end. On Linux the kernel sends SIGKILL itself when the write end
closes (``F_SETSIG``, man 2 fcntl). ``PR_SET_PDEATHSIG`` would fire when the *thread* that started the worker ends. Elsewhere
a thread waits for the end of the pipe.
"""

from __future__ import annotations

import os
import sys


def arm(fd: int) -> None:
    """Watch the lifeline from now on."""
    if sys.platform == "linux":
        _by_signal(fd)
    else:
        import threading

        threading.Thread(target=_by_thread, args=(fd,), name="hostkit-lifeline", daemon=True).start()


def _by_signal(fd: int) -> None:
    import fcntl
    import select
    import signal

    fcntl.fcntl(fd, getattr(fcntl, "F_SETSIG", 10), signal.SIGKILL)  # fcntl names F_SETSIG on Linux only
    # Its whole group, where it leads one: what the plugin started would live on otherwise.
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpid() if os.getpgrp() == os.getpid() else os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(fd, 0)
    if poll.poll(0):  # the host went before the signal was armed
        os._exit(1)


def _by_thread(fd: int) -> None:
    while os.read(fd, 1):
        pass
    os._exit(1)
