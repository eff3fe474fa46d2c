"""The isolation toggle under traffic: what callers notice while a plugin changes its place, again and again."""

from __future__ import annotations

import collections
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hostkit import Host, HostkitError

from ._report import Row, Section
from ._site import site

_CALLERS = 16
# Seconds between two calls of a caller. Sixteen that never pause keep the interpreter's lock from whoever starts the worker.
_PAUSE = 0.001

_COUNTED = """
    import os

    class P:
        def __init__(self, config: dict):
            self.journal = os.open(config["journal"], os.O_WRONLY | os.O_APPEND)

        def execute(self, ctx, request):
            os.write(self.journal, b"%d\\n" % request)
            return request

        def close(self):
            if self.journal >= 0:
                os.close(self.journal)
            self.journal = -1
"""


def measure(*, rounds: int, turn: float) -> list[Section]:
    """Toggle a thousand times, fifty with ``--quick``."""
    del turn
    toggles = 1000 if rounds >= 21 else 50
    section = Section(f"{toggles} toggles between in-process and a worker, {_CALLERS} callers", base="in-process, nothing toggled")
    with tempfile.TemporaryDirectory(prefix="hostkit-benchmarks-") as place, site({"toggled": _COUNTED}):
        journal = Path(place, "journal")
        journal.touch()
        with Host(config={"plugins": {"toggled": {"sandbox": "off", "config": {"journal": str(journal)}}}}) as host:
            traffic = _Traffic(host)
            with traffic:
                _row(section, section.base, traffic.during(lambda: time.sleep(1.0)))
                host.reload("toggled", isolation="process")
                _row(section, "a worker, nothing toggled", traffic.during(lambda: time.sleep(1.0)))
                took: list[float] = []
                _row(section, "while it is toggled", traffic.during(lambda: _toggle(host, toggles, took)))
        section.rows.append(Row("one toggle", took))
        begun = collections.Counter(map(int, journal.read_text().split()))
    answered = set(traffic.answered)
    section.missing(
        "calls",
        f"{len(traffic.answered):,} answered, {len(traffic.failed)} failed {traffic.failed[:3] or ''}, "
        f"{len(begun.keys() - answered)} lost, {sum(count > 1 for count in begun.values())} made twice",
    )
    section.promise("calls failed, lost or made twice in all toggles", [float(_wrong(begun, traffic))], "", most=0.0)
    return [section]


def _toggle(host: Host, toggles: int, took: list[float]) -> None:
    for number in range(toggles):
        started = time.perf_counter()
        host.reload("toggled", isolation=("none", "process")[number % 2])
        took.append(time.perf_counter() - started)


def _wrong(begun: collections.Counter[int], traffic: _Traffic) -> int:
    answered = collections.Counter(traffic.answered)
    return len(traffic.failed) + (begun - answered).total() + (answered - begun).total()


def _row(section: Section, name: str, seconds: list[float]) -> None:
    ordered = sorted(seconds)
    worst = {"p99": [ordered[int(len(ordered) * 0.99)]], "the longest": ordered[-1:]}
    section.rows.append(Row(name, ordered, beside=worst))


class _Traffic:
    """Callers that count their calls. A context manager."""

    def __init__(self, host: Host) -> None:
        self.answered: list[int] = []
        self.failed: list[str] = []
        self._seconds: list[float] = []
        self._host = host
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(caller,)) for caller in range(_CALLERS)]

    def during(self, work: Callable[[], object]) -> list[float]:
        """Return how long each call took that ended while ``work`` was done."""
        before = len(self._seconds)
        work()
        return self._seconds[before:]

    def _call(self, number: int) -> None:
        handle = self._host.plugin("toggled")
        while not self._over.wait(_PAUSE):
            started = time.perf_counter()
            try:
                answer = handle.execute(number)
            except HostkitError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            else:
                self._seconds.append(time.perf_counter() - started)
                self.answered.append(answer if answer == number else -1)
            number += _CALLERS

    def __enter__(self) -> None:
        self._host.load("toggled")
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
