"""worker-restart.svg: a worker is killed under load, without and with another one on standby."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from callers import Call, calls_of
from matplotlib.axes import Axes
from style import BLUE, GREY, RED, durations, panels, points, save
from where import Where

import hostkit

THREADS, PER_SECOND, BEFORE, AFTER, BIN = 8, 25, 2.0, 3.0, 0.05
REQUEST = {"seconds": 0.003}


def make(images: Path) -> None:
    """Run it twice and draw both."""
    without, with_standby = _run(0), _run(1)
    figure, (alone, alone_rate, ready, ready_rate) = panels((1.7, 1.0, 1.7, 1.0))
    _draw(alone, alone_rate, without, "No standby: another worker is started")
    _draw(ready, ready_rate, with_standby, "standby = 1: a worker that is ready takes over")
    ready_rate.set_xlabel("seconds after SIGKILL")
    ready_rate.set_xlim(-0.5, 1.5)
    durations(alone, ready)
    outcomes = Counter(call.outcome for call in (*without, *with_standby))
    if outcomes.keys() != {"ok", "WorkerKilled"} or outcomes["WorkerKilled"] != 2:
        raise SystemExit(f"this run shows something else: {dict(outcomes)}")
    save(
        figure,
        images / "worker-restart.svg",
        title="A worker is killed under load",
        caption=f"One worker, {outcomes.total():,} calls of 3 ms from {THREADS} threads in both runs together. {outcomes['WorkerKilled']} "
        "failed: in each run the one that the worker was executing when it died. The others in line waited for the next worker.",
    )


def _run(standby: int) -> list[Call]:
    config = {"plugins": {"where": {"standby": standby, "timeout": "10s"}}}
    killed, begun, pause = 0.0, threading.Event(), threading.Event()

    def call() -> object:
        begun.set()
        return where.execute(REQUEST)

    def kill_one() -> None:
        nonlocal killed
        pid = where.execute({})["pid"]
        pause.wait(BEFORE)
        begun.clear()
        begun.wait()
        pause.wait(0.001)  # in the middle of a call
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        pause.wait(AFTER)

    with hostkit.Host("pictures", config=config) as host:
        host.register(Where, name="where", isolation="process")
        where = host.plugin("where")
        calls = calls_of(call, threads=THREADS, per_second=PER_SECOND, while_=kill_one)
    return [Call(call.at - killed, call.seconds, call.outcome, call.answer) for call in calls]


def _draw(waits: Axes, rate: Axes, calls: list[Call], title: str) -> None:
    for good, colour in ((True, BLUE), (False, RED)):
        mine = [call for call in calls if (call.outcome == "ok") is good]
        look = {} if good else {"marker": "X", "markersize": 7, "rasterized": False, "label": "WorkerKilled"}
        points(waits, [call.at for call in mine], [call.seconds for call in mine], color=colour, **look)
    waits.axvline(0, color=GREY, linewidth=0.8, linestyle="--")
    waits.set_ylabel("a call takes")
    waits.set_title(title)
    waits.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)
    ended = Counter(int((call.at + call.seconds + BEFORE) // BIN) for call in calls if call.outcome == "ok")
    numbers = range(int((BEFORE + AFTER) / BIN))
    rate.stairs(
        [ended[number] / BIN for number in numbers], [number * BIN - BEFORE for number in (*numbers, len(numbers))], color=BLUE
    )
    rate.axvline(0, color=GREY, linewidth=0.8, linestyle="--")
    rate.set_ylabel("answers/s")
    rate.set_ylim(bottom=0)
