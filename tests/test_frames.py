from __future__ import annotations

import os
import struct
import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from hostkit._worker import _frames
from hostkit._worker._frames import (
    CALL,
    CANCEL,
    END,
    ERROR,
    HEADER,
    HEADER_SIZE,
    HOOK,
    ITEM,
    MAGIC,
    PING,
    PROTOCOL,
    RESULT,
    ROUND_TRIP,
    Assembler,
    FrameError,
    Truncated,
    packed,
    send_all,
)

KINDS = range(1, 16)
SMALL = 64 * 1024


def told(frame):
    """A frame as a tuple that can be compared."""
    return frame.kind, frame.call_id, frame.flags, frame.timeout, frame.meta, frame.payload, frame.buffers


whole = packed


def header(**changes):
    fields = {
        "magic": MAGIC,
        "version": PROTOCOL,
        "kind": CALL,
        "flags": 0,
        "reserved": 0,
        "call_id": 7,
        "timeout": 0.0,
        "meta": 0,
        "payload": 0,
        "buffers": 0,
    }
    return HEADER.pack(*{**fields, **changes}.values())


class Pieces:
    """A ``read`` that gives the bytes out in the given sizes, and then the end."""

    def __init__(self, data, sizes):
        self.data = memoryview(bytes(data))
        self.sizes = list(sizes)
        self.largest = 0

    def __call__(self, most):
        assert most > 0, "asked for no bytes"
        self.largest = max(self.largest, most)
        size = min(self.sizes.pop(0) if self.sizes else len(self.data), most, len(self.data))
        data, self.data = bytes(self.data[:size]), self.data[size:]
        return data


def received(data, sizes=(), cap=_frames.DEFAULT_CAP):
    """Every frame in ``data``, arriving in pieces of ``sizes``."""
    assembler, source, found = Assembler(cap), Pieces(data, sizes), []
    while (frame := assembler.receive(source)) is not None:
        found.append(told(frame))
    return found


FRAMES = st.builds(
    lambda kind, call_id, flags, timeout, meta, payload, buffers: (
        kind,
        call_id,
        flags if kind == CALL else 0,
        timeout if kind == CALL else 0.0,
        meta,
        payload,
        buffers,
    ),
    st.sampled_from(KINDS),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, ROUND_TRIP, HOOK, ROUND_TRIP | HOOK]),
    st.floats(0.0, 1e300),
    st.binary(max_size=200),
    st.binary(max_size=200),
    st.binary(max_size=200),
)


def encoded(frame):
    kind, call_id, flags, timeout, meta, payload, buffers = frame
    return whole(kind, call_id, payload, meta=meta, buffers=buffers, flags=flags, timeout=timeout)


def test_the_header_is_as_long_as_its_table_says():
    assert HEADER_SIZE == 36


@given(FRAMES)
def test_what_is_sent_is_what_arrives(frame):
    assert received(encoded(frame)) == [frame]


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 300), max_size=40))
def test_frames_arrive_whole_however_they_are_cut_up(frames, sizes):
    assert received(b"".join(map(encoded, frames)), sizes) == frames


def test_a_frame_that_is_split_at_any_byte_arrives():
    data = whole(CALL, 3, b'{"a":1}', meta=b'{"headers":{}}', buffers=b"\0\1", timeout=1.5) + whole(PING, 4)
    expected = received(data)
    assert len(expected) == 2
    for cut in range(1, len(data)):
        assert received(data, [cut]) == expected


def test_many_frames_in_one_read_come_out_one_by_one():
    assembler = Assembler()
    assembler.feed(b"".join(whole(ITEM, 9, str(number).encode()) for number in range(500)))
    assert [assembler.pop().payload for _ in range(500)] == [str(number).encode() for number in range(500)]
    assert assembler.pop() is None


# Every header: what is wrong with it, and how the error says so.
BAD = [
    ({"magic": b"HK"}, "not a frame"),
    ({"magic": b"\0\0"}, "not a frame"),
    ({"version": 0}, "protocol version 0, expected 1"),
    ({"version": 2}, "protocol version 2, expected 1"),
    ({"kind": 0}, "unknown kind of frame 0"),
    ({"kind": 16}, "unknown kind of frame 16"),
    ({"kind": 255}, "unknown kind of frame 255"),
    ({"flags": 4}, "reserved bits"),
    ({"flags": 0x8000}, "reserved bits"),
    ({"reserved": 1}, "reserved bits"),
    ({"kind": RESULT, "flags": ROUND_TRIP}, "only a call has"),
    ({"kind": RESULT, "timeout": 1.0}, "only a call has"),
    ({"kind": PING, "timeout": float("nan")}, "only a call has"),
    ({"timeout": -1.0}, "timeout of -1.0 seconds"),
    ({"timeout": float("nan")}, "timeout of nan seconds"),
    ({"timeout": float("inf")}, "timeout of inf seconds"),
    ({"payload": 0xFFFFFFFF}, "over the limit"),
    ({"meta": 0xFFFFFFFF}, "over the limit"),
    ({"buffers": 0xFFFFFFFF}, "over the limit"),
    # The sum is more than 32 bits hold: it must not wrap around to something small.
    ({"meta": 0x80000000, "payload": 0x80000000, "buffers": 16}, "over the limit"),
    ({"meta": 0xFFFFFFFF, "payload": 1, "buffers": 0}, "over the limit"),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_a_header_that_is_wrong_is_refused_and_says_why(changes, words):
    with pytest.raises(FrameError, match=words) as caught:
        received(header(**changes) + b"x" * 64)
    assert not isinstance(caught.value, Truncated)


@pytest.mark.parametrize("changes", [{}, {"call_id": 2**64 - 1}, {"flags": 3}, {"timeout": 1e300}, {"timeout": 5e-324}], ids=str)
def test_a_header_that_is_unusual_and_right_is_taken(changes):
    assert len(received(header(**changes))) == 1


def verdict(data):
    try:
        return received(data)
    except Truncated:
        return "truncated"
    except FrameError:
        return "refused"


@pytest.mark.parametrize("offset", range(HEADER_SIZE))
def test_a_changed_byte_anywhere_in_the_header_is_a_frame_or_a_frame_error(offset):
    good = whole(CALL, 3, b"{}", meta=b"[1]", timeout=2.0)
    for value in range(256):
        data = bytearray(good)
        data[offset] = value
        found = verdict(data)
        if offset < 4 and data != good and not (offset == 3 and 1 <= value <= 14):
            assert found == "refused", f"byte {offset} is {value}"
        if offset in (6, 7) and value:
            assert found == "refused", f"byte {offset} is {value}"
        if offset in (4, 5):
            allowed = (0,) if offset == 4 else range(4)
            assert (found != "refused") == (value in allowed), f"byte {offset} is {value}"
        if 8 <= offset < 16:
            assert len(found) == 1
            assert found[0][1] == int.from_bytes(data[8:16], "big")


@given(st.binary(max_size=400))
def test_noise_is_never_anything_but_frames_or_a_frame_error(noise):
    verdict(noise)


@given(st.binary(min_size=HEADER_SIZE - 2, max_size=200))
def test_noise_behind_the_magic_is_never_anything_but_frames_or_a_frame_error(noise):
    verdict(MAGIC + noise)


@given(FRAMES, st.data())
def test_an_end_in_the_middle_of_a_frame_is_truncated(frame, data):
    sent = encoded(frame)
    cut = data.draw(st.integers(1, len(sent) - 1))
    assembler = Assembler()
    with pytest.raises(Truncated, match=f"after {cut} bytes"):
        assembler.receive(Pieces(sent[:cut], []))


def test_an_end_after_a_whole_frame_is_a_clean_end():
    assembler = Assembler()
    source = Pieces(whole(END, 1), [])
    assert assembler.receive(source).kind == END
    assert assembler.receive(source) is None
    assert assembler.partial == 0


def test_an_assembler_that_refused_a_frame_goes_on_refusing():
    assembler = Assembler()
    source = Pieces(header(kind=99) + whole(PING, 1), [])
    for _ in range(3):
        with pytest.raises(FrameError):
            assembler.receive(source)


@pytest.mark.parametrize(
    "lengths",
    [(0xFFFFFFFF, 0, 0), (0, 0xFFFFFFFF, 0), (0, 0, 0xFFFFFFFF), (0xFFFFFFFF,) * 3, (0x80000000, 0x80000000, 0)],
    ids=str,
)
def test_a_length_over_the_limit_is_refused_before_anything_is_allocated(lengths):
    data = header(meta=lengths[0], payload=lengths[1], buffers=lengths[2]) + b"x" * 1000
    assembler = Assembler()
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="over the limit"):
            assembler.receive(Pieces(data, []))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_limit_counts_the_header_and_is_exact():
    cap = HEADER_SIZE + 100
    assert len(received(whole(RESULT, 1, b"x" * 100), cap=cap)) == 1
    assert len(received(whole(RESULT, 1, b"x" * 50, meta=b"m" * 50), cap=cap)) == 1
    with pytest.raises(FrameError, match=f"a frame of {cap + 1} bytes is over the limit of {cap}"):
        received(whole(RESULT, 1, b"x" * 101), cap=cap)


def test_an_empty_payload_is_a_frame():
    assert received(whole(RESULT, 1)) == [(RESULT, 1, 0, 0.0, b"", b"", b"")]


@pytest.mark.parametrize("size", [SMALL - HEADER_SIZE - 1, SMALL - HEADER_SIZE, SMALL - HEADER_SIZE + 1, 3 * SMALL, 5_000_000])
def test_frames_around_and_above_the_first_room_arrive(size):
    payload = bytes(range(256)) * (size // 256 + 1)
    data = whole(RESULT, 1, payload[:size]) + whole(PING, 2) + whole(ITEM, 3, payload[: size // 2])
    found = received(data, [10_000] * 3)
    assert [(frame[0], len(frame[5])) for frame in found] == [(RESULT, size), (PING, 0), (ITEM, size // 2)]
    assert found[0][5] == payload[:size]


def test_a_large_frame_is_read_in_large_portions_and_nothing_of_it_is_kept():
    big = whole(RESULT, 1, b"x" * 4_000_000)
    assembler, source = Assembler(), Pieces(big + whole(PING, 2), [HEADER_SIZE - 1, 1])
    tracemalloc.start()
    try:
        frame = assembler.receive(source)
        assert len(frame.payload) == 4_000_000
        assert SMALL < source.largest <= 1 << 20
        del frame
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 1 << 20
    assert assembler.receive(source).kind == PING
    assert assembler.pop() is None
    assert assembler.wants < SMALL


def test_a_large_frame_with_others_behind_it_is_not_kept_either():
    big = whole(RESULT, 1, b"x" * 1_000_000)
    assembler = Assembler()
    source = Pieces(big + whole(PING, 2) + whole(PING, 3)[:10], [])
    assert assembler.receive(source).kind == RESULT
    assert assembler.receive(source).call_id == 2
    assert assembler.pop() is None
    assert assembler.partial == 10
    assert assembler.wants < SMALL


def test_an_error_while_receiving_loses_nothing_that_has_arrived():
    class Late(Exception):
        pass

    assembler, data = Assembler(), whole(RESULT, 5, b"abc")

    def late(most):
        raise Late

    assembler.feed(data[:10])
    with pytest.raises(Late):
        assembler.receive(late)
    assert assembler.partial == 10
    assert assembler.receive(Pieces(data[10:], [])).payload == b"abc"


@pytest.mark.parametrize("most", [1, 2, 7, 35, 36, 37, 1000])
def test_a_frame_is_sent_whole_where_only_some_of_it_is_taken(most):
    taken = bytearray()

    def some(left):
        data = left[:most]
        taken.extend(data)
        return len(data)

    send_all(some, packed(CALL, 9, b"payload", meta=b"meta", buffers=b"buffers"))
    assert received(taken) == [(CALL, 9, 0, 0.0, b"meta", b"payload", b"buffers")]


@given(FRAMES, st.lists(st.integers(0, 50), max_size=30))
def test_partial_sends_of_any_sizes_lose_nothing(frame, sizes):
    taken = bytearray()

    def some(left):
        data = left[: sizes.pop() if sizes else None]
        taken.extend(data)
        return len(data)

    kind, call_id, flags, timeout, meta, payload, buffers = frame
    send_all(some, packed(kind, call_id, payload, meta=meta, buffers=buffers, flags=flags, timeout=timeout))
    assert received(taken) == [frame]


def test_an_error_while_sending_reaches_the_sender():
    def broken(left):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        send_all(broken, packed(PING, 1))


def test_frames_larger_than_a_pipe_cross_a_real_one():
    theirs, mine = os.pipe()
    payload = bytes(range(256)) * 8192
    frame = packed(RESULT, 1, payload, meta=b"m", buffers=payload)
    thread = threading.Thread(target=send_all, args=(lambda data: os.write(mine, data), frame))
    thread.start()
    frame = Assembler().receive(lambda most: os.read(theirs, most))
    thread.join(10)
    os.close(mine)
    os.close(theirs)
    assert frame.payload == payload
    assert frame.buffers == payload


def test_a_number_that_no_header_holds_is_not_sent_as_another_one():
    with pytest.raises(struct.error):
        packed(CANCEL, 1 << 64)
    with pytest.raises(struct.error):
        packed(CANCEL, -1)


class Stream(RuleBasedStateMachine):
    """Frames go in at one end in random chunks and come out at the other in the same order, with nothing else kept."""

    def __init__(self):
        super().__init__()
        self.assembler = Assembler(cap=1 << 20)
        self.wire = bytearray()
        self.expected = []
        self.arrived = 0

    @rule(frame=FRAMES)
    def send(self, frame):
        self.wire += encoded(frame)
        self.expected.append(frame)

    @rule(size=st.integers(SMALL - 100, 3 * SMALL), letter=st.binary(min_size=1, max_size=1))
    def send_large(self, size, letter):
        frame = (ERROR, 1, 0, 0.0, letter * 10, letter * size, b"")
        self.wire += encoded(frame)
        self.expected.append(frame)

    @precondition(lambda self: self.wire)
    @rule(size=st.one_of(st.integers(1, 100), st.integers(1, 4 * SMALL)))
    def some_arrive(self, size):
        self.take_out()
        self.assembler.feed(bytes(self.wire[:size]))
        del self.wire[:size]

    @rule()
    def take_out(self):
        while (frame := self.assembler.pop()) is not None:
            assert told(frame) == self.expected[self.arrived]
            self.arrived += 1

    @invariant()
    def keeps_no_more_than_was_sent(self):
        unseen = sum(map(len, map(encoded, self.expected[self.arrived :])))
        assert self.assembler.partial + len(self.wire) == unseen

    def teardown(self):
        while self.wire:
            self.some_arrive(1 << 20)
        self.take_out()
        assert self.arrived == len(self.expected)
        assert self.assembler.partial == 0


def test_any_stream_of_frames_in_any_chunks_arrives_in_order():
    run_state_machine_as_test(Stream, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
