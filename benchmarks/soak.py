"""``python -m benchmarks.soak [--minutes 10] [--every 50] [--calls N]``: promises that only long runs can break.

With ``--minutes``: callers of every kind, while a random worker is killed every ``--every`` milliseconds. With ``--calls``: that many
calls, and nothing goes wrong. Exits with 1 where a promise broke.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from multiprocess.process import active_children

from hostkit import Host

from . import _report
from ._ledger import EXPECTED, Ledger
from ._load import PLUGINS, Load, Specs, _request
from ._site import site
from ._vitals import Growth, Vitals, collect, growth, look

_SOURCE = Path(__file__).with_name("_soak_plugin.py")


def main() -> None:
    """Soak, print, and exit with 1 where a promise broke."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long callers call while workers are killed (10)")
    parser.add_argument("--every", type=float, default=50.0, metavar="MS", help="milliseconds between two kills (50)")
    parser.add_argument("--seed", type=int, default=1, help="what the callers draw from (1)")
    parser.add_argument("--calls", type=int, metavar="N", help="make N calls without any fault instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostkit-soak-") as place:
        os.environ["XDG_CACHE_HOME"] = place  # no index of the user's is read or written
        broken = (
            _many(Path(place), arguments.calls)
            if arguments.calls
            else _soak(Path(place), arguments.minutes * 60.0, arguments.every / 1000.0, arguments.seed)
        )
    print(f"\nBROKEN: {'; '.join(broken)}" if broken else "\nEvery promise was kept.")
    sys.exit(bool(broken))


# Workers are killed.


def _soak(place: Path, seconds: float, every: float, seed: int) -> list[str]:
    ledger = Ledger(place)
    before = look()
    started = time.monotonic()
    with _host(ledger, workers=2, concurrency=2, config={"begun": str(ledger.begun)}) as host:
        load = Load(host, ledger, seed)
        over = threading.Event()
        kills: list[int] = []
        killer = threading.Thread(target=_kill, args=(random.Random(seed), every, over, kills))
        load.start()
        killer.start()
        samples = list(_sampled(seconds, ledger))
        over.set()
        killer.join()
        came_back = load.stop()
        hung = ledger.waiting
        began = time.monotonic()
    closing = time.monotonic() - began
    ledger.close()
    # What is done later by somebody else: the monitor's thread ends, tasks' executors are collected.
    after = _settled(before)
    _print_outcomes(ledger, time.monotonic() - started, sum(kills), closing)
    grown = growth(samples, megabytes=8.0, count=6)
    _print_growth("host", samples, grown)
    broken = [f"{count:,} {what}" for what, count in ledger.wrong.items() if count]
    broken += [f"the host's {each.what} grew from {each.early:.1f} to {each.late:.1f}" for each in grown if not each.kept]
    if hung or not came_back:
        broken.append(f"{hung} calls hung")
    if closing > 15.0:
        broken.append(f"close took {closing:.1f} s")
    if after:
        broken.append(f"left behind: {after}")
    return broken


def _kill(dice: random.Random, every: float, over: threading.Event, kills: list[int]) -> None:
    while not over.wait(every):
        workers = [child for child in active_children() if child.pid is not None]
        if workers:
            dice.choice(workers).kill()
            kills.append(1)


def _sampled(seconds: float, ledger: Ledger) -> Iterator[Vitals]:
    """Look at this process sixty times within these seconds, and tell how it goes."""
    end = time.monotonic() + seconds
    step = seconds / 60
    while (left := end - time.monotonic()) > 0.0:
        time.sleep(min(step, left))
        held = look().unique
        collect()
        vitals = look()
        yield vitals
        print(
            f"{end - time.monotonic():5.0f} s to go: {ledger.outcomes.total():,} outcomes, {ledger.waiting} calls under way, "
            f"{len(ledger.hung)} overdue, {held:.1f} MB, {vitals.unique:.1f} in use, {vitals.fds} descriptors, {vitals.threads} threads",
            file=sys.stderr,
        )


def _print_outcomes(ledger: Ledger, seconds: float, kills: int, closing: float) -> None:
    shapes = sorted({shape for shape, _ in ledger.outcomes})
    words = [*EXPECTED, *sorted({word for _, word in ledger.outcomes} - {*EXPECTED})]
    total = ledger.outcomes.total()
    print(f"{total:,} calls in {seconds:.0f} s ({total / seconds:,.0f}/s), {kills:,} kills; closed in {closing:.2f} s\n")
    cells: list[tuple[str, ...]] = [("outcome", *shapes, "together")]
    for word in words:
        counts = [ledger.outcomes[shape, word] for shape in shapes]
        if sum(counts):
            cells.append((word[:60], *(f"{count:,}" for count in counts), f"{sum(counts):,}"))
    print("\n".join(_report._aligned(cells)))


# Nothing goes wrong.


def _many(place: Path, calls: int) -> list[str]:
    ledger = Ledger(place)
    before = look()
    marks = {tenth: calls * tenth // 10 for tenth in (1, 5, 10)}
    seen: dict[int, dict[str, Vitals]] = {}
    with _host(ledger, workers=1, concurrency=4, config={"begun": os.devnull}) as host:
        done = 0
        started = time.monotonic()
        for tenth, mark in marks.items():
            _call(host, mark - done)
            done = mark
            collect()
            seen[tenth] = {"host": look(), **{child.name: look(child.pid) for child in active_children()}}
            print(f"{mark:,} calls in {time.monotonic() - started:.0f} s: {seen[tenth]}", file=sys.stderr)
        seconds = time.monotonic() - started
    after = _settled(before)
    print(f"{calls:,} calls in {seconds:.0f} s ({calls / seconds:,.0f}/s)\n")
    cells: list[tuple[str, ...]] = [("", "calls", "resident MB", "unique MB", "descriptors", "threads")]
    for who in seen[1]:
        for tenth, found in seen.items():
            each = found[who]
            cells.append((who, f"{marks[tenth]:,}", f"{each.resident:.1f}", f"{each.unique:.1f}", str(each.fds), str(each.threads)))
    print("\n".join(_report._aligned(cells)))
    broken = [
        f"{who}: {each.what} grew from {each.early:.1f} to {each.late:.1f}"
        for who in seen[1]
        for each in growth([seen[1][who]] * 4 + [seen[10][who]], megabytes=1.0, count=0)
        if not each.kept
    ]
    return [*broken, f"left behind: {after}"] if after else broken


def _call(host: Host, calls: int) -> None:
    """Make so many calls: 6 of 10 by threads, the others by tasks."""
    share = calls // 10
    with ThreadPoolExecutor(6) as pool:
        threads = [pool.submit(_executed, host, share) for _ in range(6)]
        asyncio.run(_awaited(host, share * 4))
        for thread in threads:
            thread.result()


def _executed(host: Host, calls: int) -> None:
    for number in range(calls):
        _check(number, host.execute("plain", _request(number, "", "answer", 0.0)))


async def _awaited(host: Host, calls: int) -> None:
    async def one(plugin: str) -> None:
        for number in range(calls // 50):
            _check(number, await host.aexecute(plugin, _request(number, "", "answer", 0.0)))

    await asyncio.gather(*(one(plugin) for plugin in ("plain", "coroutine") * 25))


def _check(number: int, answer: Any) -> None:
    if answer["number"] != number:
        raise AssertionError(f"call {number} was answered with {answer}")


# Both.


@contextmanager
def _host(ledger: Ledger, *, workers: int, concurrency: int, config: dict[str, str]) -> Iterator[Host]:
    source = _SOURCE.read_text(encoding="utf-8")
    settings: dict[str, Any] = {
        "workers": workers,
        "concurrency": concurrency,
        "timeout": 5.0,
        "cancel_grace": 0.2,
        "restarts": {"budget": 1_000_000, "window": 0.1},
        "breaker": False,
        "config": config,
    }
    with site(dict.fromkeys(PLUGINS, source)) as place:
        for plugin, attribute in PLUGINS.items():
            points = next(place.glob(f"{plugin}-*.dist-info")) / "entry_points.txt"
            points.write_text(points.read_text(encoding="utf-8").replace(":P", f":{attribute}"), encoding="utf-8")
        importlib.invalidate_caches()
        with Host(hookspecs=[Specs], config={"defaults": {"sandbox": "off"}, "plugins": dict.fromkeys(PLUGINS, settings)}) as host:
            for plugin in PLUGINS:
                host.load(plugin, isolation="process")
            yield host


def _settled(before: Vitals) -> str:
    """Wait a little for what ends by itself; return what is left of workers, descriptors and threads."""
    end = time.monotonic() + 5.0
    while True:
        collect()
        now = look()
        left = [f"{len(active_children())} workers"] if active_children() else []
        left += [f"{now.fds - before.fds} descriptors ({', '.join(_targets())})"] if now.fds > before.fds else []
        left += [f"{now.threads - before.threads} threads"] if now.threads > before.threads else []
        if not left or time.monotonic() > end:
            return ", ".join(left)
        time.sleep(0.05)


def _targets() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(found)


def _print_growth(who: str, samples: list[Vitals], grown: list[Growth]) -> None:
    print(f"\nThe {who} over the run ({len(samples)} looks; medians of the second and of the last fifth)")
    cells: list[tuple[str, ...]] = [("", "early", "late", "least", "most", "")]
    for each in grown:
        figures = [getattr(sample, each.what) for sample in samples]
        shown = [f"{figure:.1f}" for figure in (each.early, each.late, min(figures), max(figures))]
        cells.append((each.what, *shown, "kept" if each.kept else "GREW"))
    print("\n".join(_report._aligned(cells)))


if __name__ == "__main__":
    main()
