"""breaker-opening.svg: a plugin's upstream breaks down and comes back, and what its callers notice of that."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from callers import Call, calls_of
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from style import GREEN, ORANGE, RED, SKY, durations, panels, points, save

import hostkit

GOOD, BAD, RECOVERY, SECONDS, BIN = 5.0, 10.0, 2.0, 20.0, 0.25
CONFIG = {
    "plugins": {
        "flaky": {
            "concurrency": 4,
            "breaker": {"failures": 5, "recovery": RECOVERY},
            "config": {"good_seconds": GOOD, "bad_seconds": BAD, "failure_rate": 1.0, "failing_seconds": 0.1},
        }
    }
}
OUTCOMES = {
    "ok": ("answered", GREEN),
    "PluginFailed": ("PluginFailed, after 100 ms", RED),
    "CircuitOpen": ("CircuitOpen, at once", ORANGE),
}
# How the circuit's states are shown behind the curves: a colour and how much of it.
STATES = {"open": (ORANGE, 0.18), "half-open": (SKY, 0.9)}


def make(images: Path) -> None:
    """Run it and draw it."""
    changes: list[tuple[float, str]] = []
    with hostkit.Host("opshost", config=CONFIG) as host:
        host.subscribe(
            lambda event: changes.append((time.monotonic(), event.after)) if isinstance(event, hostkit.BreakerChanged) else None
        )
        host.load("flaky")
        start = time.monotonic()
        flaky = host.plugin("flaky")
        calls = calls_of(lambda: flaky.execute({"currency": "EUR"}), threads=4, per_second=25, while_=lambda: time.sleep(SECONDS))
    _draw(images / "breaker-opening.svg", calls, [(at - start, state) for at, state in changes], start)


def _draw(file: Path, calls: list[Call], changes: list[tuple[float, str]], start: float) -> None:
    figure, (rate, share, wait) = panels((1.7, 1.2, 1.9))
    for axes in (rate, share, wait):
        _shade(axes, changes)
    edges = [BIN * number for number in range(int(SECONDS / BIN))]
    ended = Counter((int((call.at - start) / BIN), call.outcome) for call in calls)
    below = [0.0] * len(edges)
    for outcome, (label, colour) in OUTCOMES.items():
        heights = [ended[number, outcome] / BIN for number in range(len(edges))]
        rate.bar(edges, heights, BIN, below, align="edge", color=colour, label=label)
        below = [lower + height for lower, height in zip(below, heights, strict=True)]
    rate.set_ylabel("calls/s")
    rate.set_title("Calls, by how they ended")
    rate.legend(loc="lower right", ncols=3, bbox_to_anchor=(1.0, 1.0), borderaxespad=0)

    reached = [(ended[number, "PluginFailed"], ended[number, "ok"]) for number in range(len(edges))]
    shares = [(edge + BIN / 2, 100 * bad / (bad + good)) for edge, (bad, good) in zip(edges, reached, strict=True) if bad + good]
    share.plot(*zip(*shares, strict=True), color=RED, marker="o", markersize=3, linestyle="none")
    share.set_ylim(-8, 108)
    share.set_ylabel("failed, %")
    share.set_title("Of the calls that reached the plugin")
    share.legend(
        handles=[Patch(color=colour, alpha=alpha, label=f"circuit {state}") for state, (colour, alpha) in STATES.items()],
        loc="lower right", ncols=2, bbox_to_anchor=(1.0, 1.0), borderaxespad=0,
    )  # fmt: skip

    for outcome, (_, colour) in OUTCOMES.items():
        mine = [call for call in calls if call.outcome == outcome]
        points(wait, [call.at - start for call in mine], [call.seconds for call in mine], color=colour)
    durations(wait)
    wait.set_ylabel("a caller waits")
    wait.set_title("Each call")
    wait.set_xlabel("seconds")
    wait.set_xlim(0, SECONDS)

    counts = Counter(call.outcome for call in calls)
    save(
        figure,
        file,
        title="A circuit breaker opens, and closes again",
        caption=f"{len(calls):,} calls of an isolated plugin from 4 threads. Its upstream was down from second {GOOD:g} to {GOOD + BAD:g}: "
        f"after five failures in a row the circuit opened. {counts['PluginFailed']} calls waited in vain, {counts['CircuitOpen']:,} were "
        f"refused at once. After {RECOVERY:g} s or a little more a call is tried each time; two that go well close the circuit.",
    )


def _shade(axes: Axes, changes: list[tuple[float, str]]) -> None:
    """Show when the circuit was open, and when calls were on trial; the latter takes too little time to be seen as it is."""
    ends = [*(at for at, _ in changes[1:]), SECONDS]
    for (begin, state), end in zip(changes, ends, strict=True):
        if state in STATES:
            colour, alpha = STATES[state]
            axes.axvspan(begin, max(end, begin + 0.06), color=colour, alpha=alpha, linewidth=0)
