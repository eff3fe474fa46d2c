"""What happens to hosts when nobody closes them: at exit, in a fork, and when they are forgotten.

``atexit`` runs the last registered handler first. This one is registered after multiprocess's own, which joins children without a
limit, so that by then there are none left; and after the log's, which writes what was told, and loguru's, which removes the sinks.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Generator
from contextlib import suppress
from typing import Any, Protocol

import multiprocess.process
import multiprocess.util  # imported for its exit handler, which must be registered before ours

from . import _sinks  # noqa: F401 - as multiprocess.util above: what happens at exit is told before the log's own exit handler
from ._deadline import Deadline

# What a fork of a host's process is told that uses the host.
FORKED = (
    "this process is a fork of the one in which this host loaded its plugins, and they stayed there: make a Host of its own here, or "
    "make this one before the fork and load and call nothing until after it"
)

# Seconds that running calls and closing plugins of all hosts together may hold up the interpreter's exit.
_GRACE = 1.0


class Open(Protocol):
    """A host, as far as its lifetime goes."""

    def close(self, timeout: float | None = None) -> None:
        """End everything."""
        ...

    def forget(self) -> None:
        """Let go in a fork of everything that is the parent's, touching no worker and waiting for no lock."""
        ...


class Inherited(Protocol):
    """Descriptors that a fork must not keep: with a copy of a lifeline it would keep the parent's worker alive."""

    def forget(self) -> None:
        """Close this process's copies."""
        ...


# Weak, so that being watched keeps nothing alive.
_open: weakref.WeakSet[Open] = weakref.WeakSet()
_inherited: weakref.WeakSet[Inherited] = weakref.WeakSet()
_streams: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()

# Held while a worker's descriptors are made and handed over, so that no fork falls in between and keeps some; and because
# multiprocess's own bookkeeping of children is not thread-safe. Reentrant, because a signal's handler may fork right here.
starting = threading.RLock()


def watch(host: Open) -> None:
    """End this host with the interpreter, and disarm it in a fork."""
    _open.add(host)


def unwatch(host: Open) -> None:
    """The host ends by itself."""
    _open.discard(host)


def close_in_forks(descriptors: Inherited) -> None:
    """Close these in every fork of this process, from now on."""
    _inherited.add(descriptors)


def end_at_exit(stream: Generator[Any, None, None]) -> Generator[Any, None, None]:
    """Return a stream that ends with the interpreter. One that its caller left open would end when hostkit's modules are gone."""
    _streams.add(stream)
    return stream


def _at_exit() -> None:
    deadline = Deadline.after(_GRACE)
    for host in list(_open):
        host.close(deadline.remaining())
    for stream in list(_streams):
        with suppress(Exception):  # a daemon thread is in it; or its call was cut off, and nobody is left to be told
            stream.close()


def _in_child() -> None:
    starting.release()
    for descriptors in list(_inherited):
        descriptors.forget()
    for host in list(_open):
        host.forget()
    # multiprocess would terminate the parent's daemon children when the fork exits.
    children = multiprocess.process._children
    for child in [child for child in children if getattr(child, "_start_method", "") == "hostkit"]:
        children.discard(child)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=starting.acquire, after_in_parent=starting.release, after_in_child=_in_child)
