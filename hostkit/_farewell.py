"""End a plugin's workers: ask them, then SIGTERM, then SIGKILL, each with a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout

from ._deadline import Deadline
from ._link import CLOSED, Link
from ._log import tell
from ._monitor import Monitor
from ._questions import spoken
from ._raised import text_of
from ._strays import end_marked
from ._worker._frames import CLOSE, Frame, FrameError

# Seconds that each step gets, and what comes after it. Once SIGKILL is sent there is nothing to ask any more: the end is waited
# for beyond the deadline, and a worker in an uninterruptible sleep is left to the monitor.
_STEPS: tuple[tuple[float, Callable[[Link], None] | None], ...] = (
    (1.0, lambda link: link.terminate(CLOSED)),
    (0.5, lambda link: link.end(CLOSED)),
    (2.0, None),
)


def dismiss(link: Link, monitor: Monitor, close_timeout: float) -> None:
    """End one worker without waiting for it. Its calls have ended; its channels are still open, because it ends without them."""
    link.dismissed = True
    answer = link.ask(CLOSE)
    answer.add_done_callback(lambda answer: _hang_up(link, answer))
    monitor.later(close_timeout, link.terminate, CLOSED)
    monitor.later(close_timeout + _STEPS[1][0], link.end, CLOSED)


def _hang_up(link: Link, answer: Future[Frame]) -> None:
    complaint = _complaint(answer, Deadline.after(0.0))
    if complaint:
        name = link.opening.name
        tell("ERROR", f"plugin {name!r}: a worker did not close in order: {complaint}", plugin=name)
    link.hang_up(CLOSED)


def end_all(links: Sequence[Link], deadline: Deadline) -> list[str]:
    """End these workers and return what went wrong, one text a worker."""
    asked = {link: link.ask(CLOSE) for link in links if link.ready and not link.dismissed and not deadline.passed}
    complaints = {link: _complaint(answer, deadline) for link, answer in asked.items()}
    for link in links:
        link.hang_up(CLOSED)
    waiting = list(links)
    for limit, harder in _STEPS:
        step = deadline.sooner(limit) if harder is not None else Deadline.after(limit)
        waiting = [link for link in waiting if not link.ended.wait(step.wait())]
        for link in waiting:
            if link in asked:
                complaints[link] = complaints[link] or "its worker went on after close() and had to be killed"
            if harder is not None:
                harder(link)
    end_marked([link.mark for link in links])
    return [complaint for complaint in complaints.values() if complaint]


def _complaint(answer: Future[Frame], deadline: Deadline) -> str:
    try:
        frame = answer.result(deadline.wait())
        said = spoken(frame.meta) if frame.meta else {}
    except FutureTimeout:
        return "close() did not return in time"
    except CancelledError:
        return "its worker died in close()"
    except FrameError as error:
        return f"close() was answered with {error}"
    return f"close() raised {text_of(said.get('type'))}: {text_of(said.get('message'))}" if said else ""
