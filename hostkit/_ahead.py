"""Start the backends of several plugins at the same time, before the plugins are loaded one after the other.

begin(a) begin(b) ... ─► a few starts at once ─► take(a), admit a ─► take(b), admit b ─► ...

What happens in an order that an application can rely on (the requirements, the order of hooks) stays in that order; what takes
long, which is starting interpreters, doesn't wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from ._backends import Backend
from ._deadline import Deadline
from ._decided import Decided
from ._offered import Offered
from ._record import Record

# A start waits as much as it computes: with fewer at once a CPU stands idle, with more they only share it.
_FOR_EACH_CPU = 2


class Ahead:
    """Backends that nobody has asked for yet. A context manager: what wasn't taken is closed. For one thread."""

    def __init__(self, start: Callable[[Record, Decided, Offered], Backend], specs: Offered) -> None:
        self.specs = specs  # one look at what is installed, for all of them
        self._start = start
        self._pool = ThreadPoolExecutor(_FOR_EACH_CPU * _cpus(), "hostkit-ahead")
        self._begun: dict[Record, tuple[Decided, Future[Backend]]] = {}

    def begin(self, record: Record, decided: Decided, after: Mapping[Record, bool]) -> None:
        """Start a plugin's backend, once those of ``after`` that were begun before have started; its values say which of them must."""
        before = [(self._begun[other][1], needed) for other, needed in after.items() if other in self._begun]

        def start() -> Backend:
            for other, needed in before:
                if other.exception() is not None and needed:
                    other.result()  # one that is required and can't start is reason enough
            return self._start(record, decided, self.specs)

        self._begun[record] = decided, self._pool.submit(start)

    def begun(self, record: Record) -> bool:
        """Whether a plugin's backend is on its way."""
        return record in self._begun

    def take(self, record: Record) -> tuple[Decided, Backend] | None:
        """Return a started backend, waiting for it, or None where it wasn't begun. Raises what its start raised."""
        if record not in self._begun:
            return None
        decided, backend = self._begun[record]
        try:
            return decided, backend.result()
        finally:
            if backend.done():  # else a Ctrl-C came in between
                del self._begun[record]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for backend in [backend for _, backend in self._begun.values()]:
            if not backend.cancelled() and backend.exception() is None:
                backend.result().close(Deadline.after(0.0))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
