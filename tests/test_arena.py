"""The memory that host and worker share: how it is handed to and fro, and what a worker can't do to it."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import mmap
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hostkit import _arena as host_arena
from hostkit._arena import Arena
from hostkit._worker import _arena, _segments
from hostkit._worker._frames import HEADER, HEADER_SIZE, MEMORY, FrameError
from hostkit._worker._segments import INLINE, Reader, Segment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no memfd")

MB = 1 << 20


class Pair:
    """A host's and a worker's side in one process; what one says reaches the other at once."""

    def __init__(self, limit: int = 64 * MB) -> None:
        self.worker_maps = True
        self.told = 0
        self.host = Arena(limit, self._to_worker)
        self.worker = _arena.Arena(limit)
        self.worker.ask = self._to_host

    def _to_worker(self, joined: bytes, fd: int | None) -> None:
        self.told += 1
        _, _, kind, _, _, question, _, meta, _, _ = HEADER.unpack_from(joined)
        assert kind == MEMORY
        self.worker.hear(question, json.loads(joined[HEADER_SIZE : HEADER_SIZE + meta]), fd if self.worker_maps else None)

    def _to_host(self, question: int, said: dict[str, Any]) -> None:
        self.told += 1
        self.host.hear(question, json.loads(json.dumps(said)))

    def request(self, *parts: bytes) -> list[memoryview]:
        """Send a request's buffers to the worker."""
        places, inline = self.host.pack([memoryview(part) for part in parts])
        return self.worker.views(json.loads(json.dumps(places)), inline)

    def answer(self, *parts: Any) -> list[memoryview]:
        """Send an answer's buffers to the host, with what the worker has let go of."""
        places, inline = self.worker.writer.pack([memoryview(part) for part in parts], self.worker.room)
        return self.host.take(json.loads(json.dumps({"buffers": places, "freed": self.worker.reader.freed()})), inline)

    def next_call(self) -> None:
        """Tell the worker what the host has let go of."""
        self.worker.writer.released(self.host.freed())


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both sides; their mappings end with the test."""
    made = Pair()
    yield made
    del made.host, made.worker
    gc.collect()


def test_large_buffers_arrive_in_shared_memory_and_small_ones_with_the_frame(pair: Pair) -> None:
    small, large = pair.request(b"abc")[0], pair.request(b"x" * MB)[0]
    assert (bytes(small), bytes(large)) == (b"abc", b"x" * MB)
    assert isinstance(small.obj, bytes)
    assert isinstance(large.obj, mmap.mmap)
    assert isinstance(pair.answer(b"y" * MB)[0].obj, mmap.mmap)


def test_all_buffers_of_one_message_share_a_segment_and_lie_aligned(pair: Pair) -> None:
    views = pair.request(b"a" * 5, b"b" * MB, b"", b"c" * 7)
    assert [bytes(view[:3]) for view in views] == [b"aaa", b"bbb", b"", b"ccc"]
    assert len({id(view.obj) for view in views}) == 1
    addresses = [ctypes.addressof(ctypes.c_char.from_buffer_copy(view[:1])) and view for view in views if view]
    assert len(addresses) == 3
    places, _ = pair.host.pack([memoryview(bytes(100)), memoryview(bytes(MB))])
    assert all(offset % 64 == 0 for _, offset, _ in places)


def test_a_segment_is_used_again_once_the_last_view_has_died(pair: Pair) -> None:
    first = pair.answer(b"1" * MB)
    part_of_it = first[0][10:20]
    del first
    pair.next_call()
    second = pair.answer(b"2" * MB)
    assert bytes(part_of_it) == b"1" * 10, "a slice keeps it"
    assert second[0].obj is not part_of_it.obj
    del part_of_it
    pair.next_call()
    third = pair.answer(b"3" * MB)
    assert bytes(third[0][:1]) == b"3"
    assert pair.host.total == 2 * MB
    asked = pair.told
    for number in range(10):
        del third
        pair.next_call()
        third = pair.answer(bytes([number]) * MB)
    assert pair.told == asked, "no round trip beside the calls"


def test_a_request_stays_as_it_is_for_as_long_as_the_worker_keeps_it(pair: Pair) -> None:
    kept = pair.request(b"1" * MB)
    pair.answer(b"")
    other = pair.request(b"2" * MB)
    pair.answer(b"")
    assert (kept[0][0], other[0][0]) == (ord("1"), ord("2"))
    del kept, other
    pair.answer(b"")
    total = pair.host.total
    for _ in range(5):
        pair.request(b"3" * MB)
        pair.answer(b"")
    assert pair.host.total == total


def test_whoever_keeps_everything_holds_a_bounded_number_of_segments(pair: Pair) -> None:
    kept = []
    for number in range(300):
        kept.append(pair.answer(bytes([number % 256]) * (INLINE + 1))[0])
        pair.next_call()
    assert [view[0] for view in kept] == [number % 256 for number in range(300)]
    assert pair.host.total < 70 * 256 * 1024
    assert len({id(view.obj) for view in kept if isinstance(view.obj, mmap.mmap)}) <= 65


def test_memory_is_bounded_and_what_has_no_room_goes_with_the_frame() -> None:
    pair = Pair(limit=2 * MB)
    kept = [pair.answer(b"x" * 2 * MB) for _ in range(10)]
    assert pair.host.total <= 4 * MB
    assert all(bytes(view[0]) == b"x" * 2 * MB for view in kept)
    requests = [pair.request(b"y" * 2 * MB) for _ in range(10)]
    assert pair.host.total <= 8 * MB
    assert all(view[0][-1] == ord("y") for view in requests)


def test_small_segments_make_room_for_a_large_one() -> None:
    pair = Pair(limit=8 * MB)
    for size in range(1, 9):
        assert isinstance(pair.request(b"x" * size * MB)[0].obj, mmap.mmap)
        assert isinstance(pair.answer(b"x" * size * MB)[0].obj, mmap.mmap)
        pair.next_call()
    assert pair.host.total <= 32 * MB


def test_what_nobody_uses_is_given_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    view = pair.answer(b"x" * MB)
    pair.request(b"y" * MB)
    pair.answer(b"")
    del view
    pair.host.tidy()
    pair.worker.tidy()
    assert pair.host.total == 2 * MB, "not at once"
    monkeypatch.setattr(_segments, "_IDLE", -1.0)
    pair.host.tidy()
    pair.worker.tidy()
    assert pair.host.total == 0
    assert bytes(pair.request(b"z" * MB)[0][:1]) == b"z", "and made anew"


def test_memory_that_is_allocated_crosses_without_a_copy(pair: Pair) -> None:
    place = pair.worker.writer.allocate(MB, pair.worker.room)
    assert place is not None
    place[:3] = b"abc"
    first, second = pair.answer(place), pair.answer(place)
    assert bytes(first[0][:3]) == bytes(second[0][:3]) == b"abc"
    assert pair.host.total == MB
    del first, second
    pair.next_call()
    assert pair.worker.writer.allocate(MB, pair.worker.room).obj is not place.obj, "it is still somebody's"
    part = pair.answer(place[5:])
    assert part[0].obj is not pair.answer(place)[0].obj, "of a part nobody knows where it begins, so it is copied"


def test_views_outlive_both_sides() -> None:
    pair = Pair()
    answered, asked = pair.answer(b"x" * MB), pair.request(b"y" * MB)
    del pair
    gc.collect()
    assert bytes(answered[0]) == b"x" * MB
    assert bytes(asked[0]) == b"y" * MB


def test_views_of_an_answer_can_only_be_read(pair: Pair) -> None:
    view = pair.answer(b"x" * MB)[0]
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1


def test_nobody_can_resize_a_segment() -> None:
    fd = host_arena._sealed(MB)
    try:
        for size in (0, MB - 1, MB + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "said",
    [
        "text",
        {"a": 1},
        [1],
        [[1, 0]],
        [[1, 0, 4, 4]],
        [[1, 0, True]],
        [[1, 0, 4.0]],
        [[1, -1, 4]],
        [[1, 0, -4]],
        [[1, MB - 3, 4]],
        [[1, 1 << 62, 1 << 62]],
        [[1, 0, MB + 1]],
        [[2, 0, 4]],
        [[-1, 0, 4]],
        [[0, 0, 4]],
        [["1", 0, 4]],
        [[1, 0, MB]] * 65,
    ],
)
def test_places_that_can_not_be_are_refused_before_a_view_is_made(pair: Pair, said: Any) -> None:
    pair.answer(b"x" * MB)
    pair.next_call()
    with pytest.raises(FrameError):
        pair.host.take({"buffers": said}, b"abc")
    assert pair.host.freed() == []
    assert bytes(pair.answer(b"y" * MB)[0][:1]) == b"y"


@pytest.mark.parametrize("freed", [[99], [-1], ["1"], [True], "1", [[1]], None, [1, 1]])
def test_a_worker_can_not_give_back_what_it_has_not(pair: Pair, freed: Any) -> None:
    held = pair.request(b"x" * MB)
    with pytest.raises(FrameError):
        pair.host.take({"freed": freed}, b"")
    assert held


def test_a_worker_can_not_give_back_anything_twice(pair: Pair) -> None:
    pair.request(b"x" * MB)
    freed = pair.worker.reader.freed()
    pair.host.take({"freed": freed}, b"")
    with pytest.raises(FrameError, match="not out"):
        pair.host.take({"freed": freed}, b"")


def test_a_worker_can_not_drop_what_the_host_still_looks_at(pair: Pair) -> None:
    view = pair.answer(b"x" * MB)
    for dropped in ([1], [99], "1", [None]):
        with pytest.raises(FrameError):
            pair.host.hear(0, {"dropped": dropped})
    assert bytes(view[0][:1]) == b"x"


@pytest.mark.parametrize("size", [0, -1, "5", True, None, 1.0])
def test_a_worker_can_not_ask_for_nonsense(pair: Pair, size: Any) -> None:
    with pytest.raises(FrameError):
        pair.host.hear(1, {"need": size})
    assert pair.host.total == 0


def test_a_worker_that_asks_for_ever_gets_no_more_than_the_limit(pair: Pair) -> None:
    for question in range(1, 500):
        pair.host.hear(question, {"need": MB})
    pair.host.hear(500, {"need": 1 << 60})
    assert pair.host.total <= 128 * MB


def test_without_descriptors_or_memory_it_goes_with_the_frame(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(size: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(host_arena, "_sealed", fails)
    assert isinstance(pair.request(b"x" * MB)[0].obj, bytes)
    assert isinstance(pair.answer(b"x" * MB)[0].obj, bytes)
    assert pair.host.total == 0


def test_a_worker_without_descriptors_answers_with_the_frame_and_says_why_it_can_not_read(pair: Pair) -> None:
    pair.worker_maps = False
    assert isinstance(pair.answer(b"x" * MB)[0].obj, bytes)
    with pytest.raises(OSError, match="no descriptor"):
        pair.request(b"x" * MB)


def test_a_message_that_can_not_be_copied_gives_its_segment_back(pair: Pair) -> None:
    no_bytes = memoryview(bytes(MB)).cast("d")
    for _ in range(3):
        with pytest.raises(ValueError, match="different structures"):
            pair.host.pack([memoryview(bytes(MB)), no_bytes])
    assert pair.host.total == 2 * MB


def test_a_reader_tells_nothing_twice() -> None:
    reader = Reader(MB)
    reader.add(Segment(1, MB, mmap.mmap(-1, MB)))
    views = reader.views([[1, 0, 10], [1, 20, 5]], b"")
    assert reader.freed() == []
    more = reader.views([[1, 30, 5]], b"")
    del views
    assert reader.freed() == []
    del more
    assert reader.freed() == [1, 1]
    assert reader.freed() == []
