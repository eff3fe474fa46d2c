"""toggle-under-load.svg: a plugin is moved into a worker and back while it is called all the time."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

from callers import Call, calls_of
from style import BLUE, GREEN, GREY, durations, panels, points, save
from where import Where

import hostkit

THREADS, PER_SECOND, STAY = 4, 100, 2.0


def make(images: Path) -> None:
    """Run it and draw it."""
    moves: list[tuple[float, float, str]] = []

    def there_and_back() -> None:
        pause = threading.Event()
        pause.wait(STAY)
        for place in ("process", "none"):
            began = time.monotonic()
            host.reload("where", isolation=place)
            moves.append((began, time.monotonic(), place))
            pause.wait(STAY)

    with hostkit.Host("pictures") as host:
        host.register(Where, name="where", isolation="none")
        where = host.plugin("where")
        start = time.monotonic()
        calls = calls_of(lambda: where.execute({}), threads=THREADS, per_second=PER_SECOND, while_=there_and_back)
    _draw(images / "toggle-under-load.svg", calls, [(began - start, ended - start, place) for began, ended, place in moves], start)


def _draw(file: Path, calls: list[Call], moves: list[tuple[float, float, str]], start: float) -> None:
    figure, (axes,) = panels((3.2,))
    places = {"in the application's process": GREEN, "in a worker process": BLUE}
    for place, colour in places.items():
        here = colour == GREEN
        mine = [call for call in calls if call.outcome == "ok" and (call.answer["pid"] == os.getpid()) is here]
        points(axes, [call.at - start for call in mine], [call.seconds for call in mine], color=colour, label=place)
    durations(axes, headroom=6)  # for the words
    for began, ended, place in moves:
        axes.axvspan(began, ended, color=GREY, alpha=0.2, linewidth=0)
        said = 'isolation="process"' if place == "process" else 'isolation="none"'
        axes.text(began, 0.97, f" reload(…,\n {said})", transform=axes.get_xaxis_transform(), va="top", fontsize=8)
    axes.set_xlim(0, max(call.at for call in calls) - start)
    axes.set_xlabel("seconds")
    axes.set_ylabel("a call takes")
    axes.legend(loc="lower right", ncols=2, bbox_to_anchor=(1.0, 1.0), borderaxespad=0, markerscale=3)
    failed = Counter(call.outcome for call in calls if call.outcome != "ok")
    save(
        figure,
        file,
        title="A plugin moves into a worker and back, under load",
        caption=f"{len(calls):,} calls from {THREADS} threads, one point each; {failed.total() or 'none'} failed. In the grey bands the "
        "plugin is reloaded: the new place is made ready while the old one goes on answering, then calls change over.",
    )
