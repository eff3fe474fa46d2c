"""A bounded queue before somebody who may be slow, stuck or broken."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hostkit._outlet import Outlet


@pytest.fixture
def outlet() -> Iterator[Callable[..., Outlet[Any]]]:
    made: list[Outlet[Any]] = []

    def make(write: Callable[[Any], object], **options: Any) -> Outlet[Any]:
        made.append(Outlet("test", write, **options))
        return made[-1]

    yield make
    for each in made:
        each.close(1.0)


def test_everything_arrives_in_order(outlet: Callable[..., Outlet[int]]) -> None:
    written: list[int] = []
    made = outlet(written.append)
    for number in range(1000):
        made.offer(number)
    assert made.flush(10.0)
    assert written == list(range(1000))
    assert (made.sent, made.dropped, made.waiting, made.trouble) == (1000, 0, 0, "")


def test_nothing_is_lost_when_the_thread_has_just_ended(outlet: Callable[..., Outlet[int]], until: Any) -> None:
    """It ends when nothing comes, and the next one starts another."""
    written: list[int] = []
    made = outlet(written.append)
    for number in range(3):
        made.offer(number)
        until(lambda: not any(thread.name == "hostkit-test" for thread in threading.enumerate()))
    assert written == [0, 1, 2]


def test_who_is_stuck_costs_nobody_anything(outlet: Callable[..., Outlet[int]], until: Any) -> None:
    """The oldest are dropped and counted; when it goes on, the newest arrive."""
    written: list[int] = []
    go_on = threading.Event()
    made = outlet(lambda number: (go_on.wait(30.0), written.append(number)), most=10)
    made.offer(0)
    until(lambda: made.stuck_for > 0.0)
    for number in range(1, 101):
        made.offer(number)
    assert (made.waiting, made.dropped) == (10, 90)
    assert not made.flush(0.01)
    go_on.set()
    assert made.flush(10.0)
    assert written == [0, *range(91, 101)]
    assert made.sent + made.dropped == 101
    assert made.stuck_for == 0.0


def test_what_cannot_be_written_is_counted_and_the_rest_arrives(outlet: Callable[..., Outlet[str]]) -> None:
    written: list[str] = []

    def write(text: str) -> None:
        if text == "bad":
            raise OSError(28, "No space left on device")
        written.append(text)

    made = outlet(write)
    for text in ("a", "bad", "b"):
        made.offer(text)
    assert made.flush(10.0)
    assert (written, made.sent, made.dropped) == (["a", "b"], 2, 1)
    assert made.trouble == "OSError: [Errno 28] No space left on device"


def test_a_close_writes_what_waits_and_takes_nothing_more(outlet: Callable[..., Outlet[int]]) -> None:
    written: list[int] = []
    made = outlet(written.append)
    made.offer(1)
    assert made.close(10.0)
    made.offer(2)
    assert (written, made.dropped, made.waiting) == ([1], 1, 0)
    assert made.close(0.0)


def test_a_close_waits_no_longer_than_it_is_told(outlet: Callable[..., Outlet[int]]) -> None:
    go_on = threading.Event()
    made = outlet(lambda _: go_on.wait(30.0))
    made.offer(1)
    made.offer(2)
    assert not made.close(0.05)
    assert made.waiting == 0
    go_on.set()


def test_many_threads_lose_nothing(outlet: Callable[..., Outlet[int]]) -> None:
    written: list[int] = []
    made = outlet(written.append, most=100_000)

    def offer(first: int) -> None:
        for number in range(first, first + 2000):
            made.offer(number)

    threads = [threading.Thread(target=offer, args=(2000 * place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made.flush(20.0)
    assert sorted(written) == list(range(16_000))


def test_a_writer_that_flushes_itself_does_not_wait_for_itself(outlet: Callable[..., Outlet[int]]) -> None:
    flushed: list[bool] = []
    made = outlet(lambda _: flushed.append(made.flush(30.0)))
    made.offer(1)
    assert made.flush(10.0)
    assert flushed == [False]


def test_without_a_thread_to_be_had_it_waits_for_the_next_one(
    outlet: Callable[..., Outlet[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    made = outlet(written.append)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        made.offer(1)
    assert (written, made.waiting) == ([], 1)
    made.offer(2)
    assert made.flush(10.0)
    assert written == [1, 2]
