"""Workers that say whatever they like, seen from a whole backend: real pipes and sockets, real frames, and a thread as the worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import select
import socket
import struct
import threading
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostkit import (
    CallError,
    CallTimeout,
    InvalidResponse,
    MemoryExceeded,
    PluginFailed,
    PluginLoadError,
    ProtocolError,
    WorkerExited,
    WorkerLost,
    _link,
)
from hostkit._backends._outcome import Outcome
from hostkit._backends._process import Process
from hostkit._channel import Channel, Late
from hostkit._contract import Caller, ExecutionContext
from hostkit._deadline import Deadline
from hostkit._monitor import Monitor
from hostkit._opening import Opening, Settings
from hostkit._shape import UNTYPED
from hostkit._wires import Ends
from hostkit._worker._frames import (
    CLOSE,
    END,
    ERROR,
    GOODBYE,
    HEADER,
    HEALTH,
    INFO,
    ITEM,
    MAGIC,
    PING,
    PONG,
    PROTOCOL,
    READY,
    RESULT,
    Assembler,
    Truncated,
    packed,
)

LONG = 20.0  # seconds that no test takes on a busy machine


class Killed(Exception):
    """The host ended the worker."""


class Popen:
    """What the host asks of a process that has started."""

    usage = None
    pid = 1 << 22 | 1  # above every process's number

    def __init__(self):
        self.sentinel, self.dead = os.pipe()
        self._lock = threading.Lock()
        self._code = None

    def poll(self):
        return self._code

    def end(self, code):
        with self._lock:
            if self._code is None:
                self._code = code
                os.close(self.dead)

    def kill(self):
        self.end(-9)

    def terminate(self):
        self.end(-15)

    def close(self):
        os.close(self.sentinel)


class Worker:
    """A worker without a process: two threads with a worker's ends. ``play`` is what it does once it is ready."""

    pid = None

    def __init__(self, play, on_control, control, fds):
        self._play = play
        self._on_control = on_control
        self._given = (control, fds)
        self._assembler = Assembler(1 << 30)
        self.cancelled = queue.Queue()

    def start(self):
        control, fds = self._given
        self.control = socket.socket(fileno=os.dup(control))
        self._fds = [os.dup(fd) for fd in fds[1:]]
        self.calls, self.answers, *_, self._notes = self._fds
        os.set_blocking(self.answers, False)
        self._popen = Popen()
        self._killed = os.dup(self._popen.sentinel)
        self._threads = [threading.Thread(target=self._run, args=(step,)) for step in (self._listen, self._serve)]
        self._ready = threading.Event()
        for thread in self._threads:
            thread.start()

    def join(self, timeout):
        pass

    def finish(self):
        self._popen.end(0)
        self._ready.set()
        for thread in self._threads:
            thread.join(LONG)
        os.close(self._killed)

    # What its plays are made of.

    def call(self):
        """Return the next call, and note it as begun."""
        frame = self._assembler.receive(lambda most: self._wait(self.calls, select.POLLIN) or os.read(self.calls, most))
        if frame is None:
            raise Killed
        os.pwrite(self._notes, struct.pack("@Q", frame.call_id), 0)
        return frame

    def waiting(self):
        """How many bytes of calls lie in the pipe or are taken in."""
        poller = select.poll()
        poller.register(self.calls, select.POLLIN)
        return self._assembler.partial + len(poller.poll(0))

    def say(self, *frames):
        left = memoryview(b"".join(frames))
        while left:
            self._wait(self.answers, select.POLLOUT)
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self.answers, left) :]

    def answer(self):
        frame = self.call()
        self.say(packed(RESULT, frame.call_id, frame.payload))

    def exit(self, code=3):
        self._popen.end(code)
        raise Killed

    def pause(self, seconds=LONG):
        if select.select([self._killed], [], [], seconds)[0]:
            raise Killed

    def _wait(self, fd, event):
        poller = select.poll()
        poller.register(fd, event)
        poller.register(self._killed, select.POLLIN)
        if any(ready == self._killed for ready, _ in poller.poll()):
            raise Killed

    # Its threads.

    def _run(self, step):
        with contextlib.suppress(Killed, OSError, Truncated):
            step()
        if step == self._serve:
            self._ready.set()
            with contextlib.suppress(Killed):
                self.pause(LONG)
            for fd in self._fds:
                os.close(fd)
        else:
            self.control.close()

    def _serve(self):
        self._ready.wait(LONG)
        self._play(self)
        while True:
            self.answer()

    def _listen(self):
        assembler = Assembler(1 << 30)
        while True:
            frame = assembler.receive(lambda most: self._wait(self.control, select.POLLIN) or self.control.recv(most))
            if frame is None:
                return
            answer = self._on_control(self, frame)
            self.control.sendall(self.courteous(frame) if answer is None else answer)
            if frame.kind == CLOSE:
                self._ready.set()
                self.exit(0)

    def courteous(self, frame):
        """Return what an honest worker answers."""
        if not self._ready.is_set():
            self._ready.set()
            said = {**json.loads(frame.meta), "protocol": PROTOCOL, "python": "3.11", "kind": "sync"}
            names = ("cookie", "protocol", "plugin", "python", "kind")
            return packed(READY, meta=json.dumps({name: said[name] for name in names}).encode())
        return (
            {
                PING: packed(PONG),
                HEALTH: packed(RESULT, frame.call_id, b'{"status":"healthy"}'),
                INFO: packed(RESULT, frame.call_id, b"{}"),
                CLOSE: packed(RESULT, frame.call_id) + packed(GOODBYE),
            }.get(frame.kind)
            or self.cancelled.put(frame.call_id)
            or b""
        )


def honest(worker):
    pass


@contextlib.contextmanager
def backend(*plays, on_control=lambda worker, frame: None, **options):
    """Open a plugin whose first workers do these things, one after the other, and whose later ones are honest."""
    left, made = list(plays), []

    def start(name, *, control, fds, **more):
        made.append(Worker(left.pop(0) if left else honest, on_control, control, fds))
        return made[-1]

    monitor = Monitor()
    options = {"cancel_grace": 0.05, "restarts": 1000, "close_timeout": 1.0, **options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_link, "WorkerProcess", start)
        opened = None
        try:
            opened = Process(Opening("fake", "fake:Fake", {}, Settings(**options), Caller("fake", "fake"), monitor))
            yield opened
        finally:
            if opened is not None:
                with contextlib.suppress(PluginFailed):  # a worker that was being replaced has no word for its close
                    opened.close(Deadline.after(LONG))
            monitor.stop()
            # The next worker may be starting just now.
            while started := [thread for thread in threading.enumerate() if thread.name in ("hostkit-start", "hostkit-monitor")]:
                started[0].join(LONG)
                assert not started[0].is_alive()
            for worker in made:
                worker.finish()


def by_thread(opened, request=1, *, timeout=LONG):
    return opened.call(ExecutionContext(timeout=timeout), request, UNTYPED)


def by_task(opened, request=1, *, timeout=LONG):
    return asyncio.run(opened.acall(ExecutionContext(timeout=timeout), request, UNTYPED))


def by_stream(opened, request=1, *, timeout=LONG):
    return list(opened.stream(ExecutionContext(timeout=timeout), request, UNTYPED))


def by_task_stream(opened, request=1, *, timeout=LONG):
    async def gathered():
        return [item async for item in opened.astream(ExecutionContext(timeout=timeout), request, UNTYPED)]

    return asyncio.run(gathered())


CALLERS = [by_thread, by_task]
STREAMS = [by_stream, by_task_stream]
callers = pytest.mark.parametrize("call", CALLERS)
streams = pytest.mark.parametrize("call", STREAMS)
both = pytest.mark.parametrize("call", CALLERS + STREAMS)


def outcome(call, *arguments, **options):
    """What a caller gets: a value, or the class of a typed error. Nothing else may come."""
    try:
        return call(*arguments, **options)
    except CallError as error:
        assert error.plugin == "fake"
        return type(error)


@both
def test_an_honest_answer_arrives(call):
    with backend() as opened:
        assert call(opened, {"a": 1}) in ({"a": 1}, [{"a": 1}])
        assert call(opened, "again") in ("again", ["again"])


# What a worker may say, and what the first of it comes to. The call's id is put in when it is known.
PIECES = {
    "result": (lambda own: packed(RESULT, own, b"7"), 7),
    "no JSON": (lambda own: packed(RESULT, own, b"{"), InvalidResponse),
    "NaN": (lambda own: packed(RESULT, own, b"NaN"), InvalidResponse),
    "deep": (lambda own: packed(RESULT, own, b"[" * 9000 + b"]" * 9000), InvalidResponse),
    "a pickle": (lambda own: packed(RESULT, own, b"\x80\x04\x95\x00cposix\nsystem\n"), InvalidResponse),
    "error": (lambda own: packed(ERROR, own, meta=b'{"type":"ValueError","message":"no"}'), PluginFailed),
    "error of nonsense": (lambda own: packed(ERROR, own, meta=b"\xff"), PluginFailed),
    "item": (lambda own: packed(ITEM, own, b"1"), ProtocolError),
    "end": (lambda own: packed(END, own), ProtocolError),
    "heartbeat": (lambda own: packed(PONG, own), ProtocolError),
    "handshake": (lambda own: packed(READY, own), ProtocolError),
    "of another call": (lambda own: packed(RESULT, own + 1, b"1"), ProtocolError),
    "of the call before": (lambda own: packed(RESULT, own - 1, b"1"), ProtocolError),
    "of no call": (lambda own: packed(RESULT, 0, b"1"), ProtocolError),
    "garbage": (lambda own: b"\0garbage" * 5, ProtocolError),
    "too long": (lambda own: HEADER.pack(MAGIC, PROTOCOL, RESULT, 0, 0, own, 0.0, 0, 0xFFFFFFFF, 0), ProtocolError),
    "a timeout": (lambda own: HEADER.pack(MAGIC, PROTOCOL, RESULT, 0, 0, own, 1.0, 0, 0, 0), ProtocolError),
    "half": (lambda own: packed(RESULT, own, b"12345")[:-2], None),
    "a byte": (lambda own: b"h", None),
}


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(sorted(PIECES)), max_size=4),
    st.sampled_from(["goes on", "exits", "is silent"]),
    st.integers(1, 60),
    st.sampled_from(CALLERS),
)
def test_whatever_a_worker_says_the_call_has_its_answer_or_a_typed_end(names, then, cut, call):
    # Behind half a frame everything is the rest of it, which may be anything; so it comes last.
    names = [name for name in names if PIECES[name][1] is not None] + [name for name in names if PIECES[name][1] is None][:1]
    expected = PIECES[names[0]][1] if names else None
    if expected is None:
        expected = {"exits": WorkerExited, "is silent": CallTimeout, "goes on": CallTimeout if names else None}[then]

    def play(worker):
        own = worker.call().call_id
        said = b"".join(PIECES[name][0](own) for name in names)
        worker.say(said[:cut])
        worker.say(said[cut:])
        if then == "exits":
            worker.exit()
        if expected is CallTimeout:
            worker.pause()
        if not names:
            worker.say(packed(RESULT, own, b"0"))

    timeout = 0.2 if expected is CallTimeout else LONG
    with backend(play) as opened:
        began = time.monotonic()
        found = outcome(call, opened, timeout=timeout)
        # A worker that is gone before it can be ended for what it said has ended itself.
        gone = WorkerExited if expected is ProtocolError and then == "exits" else expected
        assert found in (0 if expected is None else expected, gone)
        assert time.monotonic() - began < LONG / 2
        assert call_until_answered(call, opened) == "next"


def call_until_answered(call, opened):
    """What a worker said too much may cost the next call, too, but never gives it a wrong answer."""
    for _ in range(3):
        found = outcome(call, opened, "next")
        if not (isinstance(found, type) and issubclass(found, WorkerLost)):
            break
    return found


@settings(max_examples=30)
@given(st.binary(max_size=120), st.booleans(), st.sampled_from(CALLERS + STREAMS))
def test_noise_in_place_of_an_answer_is_a_typed_end(noise, magic, call):
    def play(worker):
        worker.call()
        worker.say((b"hk\x01" if magic else b"") + noise)
        worker.exit()

    with backend(play) as opened:
        assert outcome(call, opened) in (ProtocolError, WorkerExited)


@settings(max_examples=30)
@given(st.integers(0, 35), st.integers(0, 255), st.sampled_from(CALLERS))
def test_an_answer_with_a_changed_byte_in_its_header_is_the_answer_or_a_typed_end(offset, value, call):
    def play(worker):
        frame = bytearray(packed(RESULT, worker.call().call_id, b"7" * 200))
        frame[offset] = value
        worker.say(frame)
        worker.exit()

    with backend(play) as opened:
        found = outcome(call, opened)
        assert found in (ProtocolError, WorkerExited, PluginFailed, InvalidResponse) or set(str(found)) == {
            "7"
        }  # fewer of them, where it is a length


@both
@pytest.mark.parametrize("size", [100, 1_000_000], ids=["small", "large"])
def test_a_worker_that_never_reads_costs_no_more_than_the_deadline(call, size):
    with backend(lambda worker: worker.pause()) as opened:
        began = time.monotonic()
        assert outcome(call, opened, "x" * size, timeout=0.2) is CallTimeout
        assert time.monotonic() - began < LONG / 2
        assert call(opened, "next") in ("next", ["next"])


@both
def test_an_answer_that_comes_byte_by_byte_has_the_one_deadline_of_the_whole(call):
    def play(worker):
        for byte in packed(RESULT, worker.call().call_id, b"1" * 10_000):
            worker.say(bytes([byte]))
            worker.pause(0.005)

    with backend(play) as opened:
        began = time.monotonic()
        assert outcome(call, opened, timeout=0.3) is CallTimeout
        assert time.monotonic() - began < LONG / 2
        assert call(opened, "next") in ("next", ["next"])


@streams
def test_a_stream_that_never_pauses_ends_at_its_deadline(call):
    def play(worker):
        item = packed(ITEM, worker.call().call_id, b"1") * 100
        while True:
            worker.say(item)

    with backend(play) as opened:
        began = time.monotonic()
        assert outcome(call, opened, timeout=0.3) is CallTimeout
        assert time.monotonic() - began < LONG / 2


def takes_his_time(items, end):
    found = [next(items)]
    while time.monotonic() < end:
        pass
    return found + list(items)


def test_items_that_lie_there_at_the_deadline_are_too_late():
    def play(worker):
        own = worker.call().call_id
        worker.say(packed(ITEM, own, b"1") * 50, packed(END, own))

    with backend(play) as opened:
        items = opened.stream(ExecutionContext(timeout=0.3), 1, UNTYPED)
        assert outcome(takes_his_time, items, time.monotonic() + 0.4) is CallTimeout
        assert call_until_answered(by_thread, opened) == "next"


def test_an_answer_of_which_there_is_always_a_little_more_is_late_all_the_same(tmp_path):
    # A file is always readable, as the pipe of a worker that writes faster than this reads.
    file, over = tmp_path / "answer", os.pipe()
    with file.open("wb") as written:
        written.write(HEADER.pack(MAGIC, PROTOCOL, RESULT, 0, 0, 7, 0.0, 0, 50 << 20, 0))
        written.truncate(HEADER.size + (50 << 20))
    answers = os.open(file, os.O_RDONLY)
    channel = Channel(None, 0, Ends(os.dup(over[1]), -1, answers, over[0]), 64 << 20)
    try:
        with pytest.raises(Late):
            channel.receive(7, Deadline.after(0.0))
        assert os.lseek(answers, 0, os.SEEK_CUR) < 2 << 20
    finally:
        channel.close()
        os.close(over[1])


@both
def test_an_answer_before_its_call_is_no_answer(call):
    told = threading.Event()

    def play(worker):
        worker.say(packed(RESULT, 1 << 62, b'"too soon"'), packed(RESULT, 1, b'"too soon"'))
        told.set()

    with backend(play) as opened:
        assert told.wait(LONG)
        assert outcome(call, opened) is ProtocolError
        assert call(opened, "next") in ("next", ["next"])


@callers
def test_a_second_answer_is_never_that_of_the_next_call(call):
    def play(worker):
        own = worker.call().call_id
        worker.say(packed(RESULT, own, b'"first"'), packed(RESULT, own, b'"second"'), packed(RESULT, own + 1, b'"guessed"'))

    with backend(play) as opened:
        assert call(opened) == "first"
        assert call_until_answered(call, opened) == "next"


@callers
@pytest.mark.parametrize("late", ["the answer", "another answer", "garbage"])
def test_what_comes_after_the_deadline_is_never_that_of_the_next_call(call, late):
    def play(worker):
        own = worker.call().call_id
        worker.cancelled.get(timeout=LONG)
        said = {
            "the answer": packed(RESULT, own, b'"late"'),
            "another answer": packed(RESULT, own + 1, b'"late"'),
            "garbage": b"x" * 40,
        }
        worker.say(said[late])

    with backend(play, cancel_grace=LONG) as opened:
        assert outcome(call, opened, timeout=0.1) is CallTimeout
        assert call_until_answered(call, opened) == "next"


def test_answers_out_of_order_are_taken_for_nothing():
    swapped = []

    def play(worker):
        while not swapped:
            first = worker.call()
            if worker.waiting():
                second = worker.call()
                swapped.append((first.payload, second.payload))
                worker.say(packed(RESULT, second.call_id, second.payload), packed(RESULT, first.call_id, first.payload))
                worker.pause()
            worker.say(packed(RESULT, first.call_id, first.payload))

    async def main(opened):
        calls = (opened.acall(ExecutionContext(timeout=LONG), number, UNTYPED) for number in range(300))
        return await asyncio.gather(*calls, return_exceptions=True)

    with backend(play) as opened:
        answers = asyncio.run(main(opened))
    assert swapped
    lost = [answer for answer in answers if isinstance(answer, Exception)]
    assert [type(error) for error in lost] == [ProtocolError]
    assert all(answer == number for number, answer in enumerate(answers) if not isinstance(answer, Exception))


@settings(max_examples=15)
@given(
    st.lists(
        st.sampled_from(["answer", "answer", "answer", "answer", "error", "twice", "skip", "garbage", "exit", "item"]), max_size=25
    ),
    st.integers(2, 60),
)
def test_many_tasks_get_each_its_own_answer_or_a_typed_end_whatever_is_between(steps, count):
    def play(worker):
        for step in steps:
            frame = worker.call()
            right = packed(RESULT, frame.call_id, frame.payload)
            if step == "skip" and worker.waiting():  # else the next one is not sent before this one is answered
                frame = worker.call()
                worker.say(packed(RESULT, frame.call_id, frame.payload))
            elif step == "exit":
                worker.exit()
            else:
                said = {
                    "twice": right * 2,
                    "error": packed(ERROR, frame.call_id),
                    "garbage": b"\0" * 40,
                    "item": packed(ITEM, frame.call_id),
                }
                worker.say(said.get(step, right))

    async def main(opened):
        calls = (opened.acall(ExecutionContext(timeout=LONG), number, UNTYPED) for number in range(count))
        return await asyncio.gather(*calls, return_exceptions=True)

    with backend(play) as opened:
        began = time.monotonic()
        answers = asyncio.run(main(opened))
        assert time.monotonic() - began < LONG / 2
    for number, answer in enumerate(answers):
        assert answer == number or type(answer) in (ProtocolError, WorkerExited, PluginFailed), answer
    failed = sum(type(answer) is PluginFailed for answer in answers)
    assert failed <= steps.count("error")


@callers
def test_an_answer_over_the_limit_costs_no_memory(call):
    filler = bytes(1 << 16)

    def play(worker):
        own = worker.call().call_id
        worker.say(HEADER.pack(MAGIC, PROTOCOL, RESULT, 0, 0, own, 0.0, 0, 100 << 20, 0))
        while True:
            worker.say(filler)

    with backend(play, max_message=1 << 20) as opened:
        assert peak_of(lambda: outcome(call, opened)) < 1 << 20


@callers
def test_an_answer_that_is_never_finished_costs_no_more_memory_than_the_limit(call):
    limit, filler = 4 << 20, bytes(1 << 16)

    def play(worker):
        own = worker.call().call_id
        worker.say(HEADER.pack(MAGIC, PROTOCOL, RESULT, 0, 0, own, 0.0, 0, limit, 0))
        for _ in range(limit // len(filler) - 1):
            worker.say(filler)
        worker.pause()

    with backend(play, max_message=limit) as opened:
        assert peak_of(lambda: outcome(call, opened, timeout=1.0)) < 2.5 * limit


def peak_of(step):
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Beside the calls.


def asked(opened, kind):
    deadline = Deadline.after(LONG)
    return opened.info(deadline) if kind == INFO else opened.ask_health(deadline).result(LONG)


@pytest.mark.parametrize("kind", [HEALTH, INFO], ids=["health", "info"])
@pytest.mark.parametrize(
    "said",
    [packed(ITEM, 1), packed(PONG, 1), packed(READY, 1), packed(RESULT, 2), b"\0" * 40],
    ids=["item", "pong", "ready", "another", "noise"],
)
def test_a_question_that_is_answered_with_something_else_ends_at_once(kind, said):
    with backend(on_control=lambda worker, frame: said if frame.kind == kind else None) as opened:
        began = time.monotonic()
        with pytest.raises(ProtocolError):
            asked(opened, kind)
        assert time.monotonic() - began < LONG / 2
        assert call_until_answered(by_thread, opened) == "next"


NO_HEALTH = [
    b"",
    b"{}",
    b"[]",
    b"\xff",
    b"[" * 100_000,
    b'{"status":"sleepy"}',
    b'{"status":"' + b"x" * 3_000_000 + b'"}',
    b'{"status":"healthy","message":3}',
    b'{"status":"healthy","message":"\\ud800"}',
    b'{"status":"healthy","last_check":NaN}',
    b'{"status":"healthy","response_time":1e999}',
    b'{"status":"healthy","metadata":[["a",1]]}',
    b'{"status":"healthy","metadata":{"a":1e999}}',
    b'{"status":"healthy","' + b"x" * 3_000_000 + b'":1}',
]
NO_INFO = [
    b"",
    b"[]",
    b'{"name":3}',
    b'{"name":"\\ud800"}',
    b'{"capabilities":"word"}',
    b'{"capabilities":3}',
    b'{"capabilities":[[]]}',
    b'{"metadata":[1]}',
    b'{"metadata":{"a":NaN}}',
    b'{"colour":"red"}',
]


@pytest.mark.parametrize(
    ("kind", "said"), [(HEALTH, said) for said in NO_HEALTH] + [(INFO, said) for said in NO_INFO], ids=lambda said: str(said)[:40]
)
def test_an_account_that_is_none_is_an_invalid_response_of_a_few_words(kind, said):
    def answer(worker, frame):
        return packed(RESULT, frame.call_id, said) if frame.kind == kind else None

    with backend(on_control=answer) as opened:
        with pytest.raises(InvalidResponse) as caught:
            asked(opened, kind)
        assert len(str(caught.value)) < 2000
        assert caught.value.phase == ("health" if kind == HEALTH else "info")
        assert by_thread(opened, "next") == "next"


@pytest.mark.parametrize("flood", [PONG, GOODBYE, READY, RESULT], ids=["pong", "goodbye", "ready", "result"])
def test_a_worker_that_floods_its_control_socket_is_ended(flood):
    def play(worker):
        worker.call()
        while True:
            worker.control.sendall(packed(flood) * 100)

    with backend(play) as opened:
        assert outcome(by_thread, opened) is ProtocolError
        assert by_thread(opened, "next") == "next"


@pytest.mark.parametrize("said", [packed(PONG), packed(GOODBYE), b""], ids=["pong", "goodbye", "nothing"])
def test_what_a_dead_worker_left_behind_keeps_nobody_busy(said):
    ended = threading.Event()

    def play(worker):
        worker.call()
        with socket.socket(fileno=os.dup(worker.control.fileno())) as heir:
            heir.settimeout(LONG)
            worker._popen.end(3)
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    heir.sendall(said * 100)
                    ended.wait(0 if said else LONG)

    with backend(play) as opened:
        try:
            assert outcome(by_thread, opened) in (WorkerExited, ProtocolError)
            assert by_thread(opened, "next") == "next"
        finally:
            ended.set()


HANDSHAKES = {
    "another cookie": {"cookie": "x" * 100_000},
    "another protocol": {"protocol": 2},
    "another plugin": {"plugin": "other"},
    "a long field": {"y" * 100_000: 1},
    "an argument twice": {"hooks": {"f": {"arguments": ["a"], "optional": ["a"]}}},
    "a keyword": {"hooks": {"f": {"arguments": ["lambda"]}}},
    "no name": {"hooks": {"f": {"optional": ["a=__import__('os')"]}}},
    "a name that can't be given": {"hooks": {"f": {"arguments": ["__debug__"]}}},
    "no list": {"hooks": [1]},
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_that_is_wrong_is_told_in_a_few_words(name):
    hook = {"name": "f", "function": "f", "options": {}, "arguments": [], "optional": [], "untyped": [], "trouble": ""}

    def greet(worker, frame):
        if frame.kind == CLOSE:
            return None
        meta = json.loads(worker.courteous(frame)[HEADER.size :])
        changes = dict(HANDSHAKES[name])
        if isinstance(changes.get("hooks"), dict):
            changes["hooks"] = {key: {**hook, **value} for key, value in changes["hooks"].items()}
        return packed(READY, meta=json.dumps({**meta, **changes}).encode())

    with pytest.raises(ProtocolError, match="handshake") as caught, backend(on_control=greet):
        pass
    assert len(str(caught.value)) < 2000


def test_a_load_failure_full_of_nonsense_is_still_one_typed_error():
    said = json.dumps({"text": "x" * 100_000 + "\ud800", "kind": ["import"], "type": None, "traceback": {}})
    with pytest.raises(PluginLoadError) as caught, backend(on_control=lambda worker, frame: packed(ERROR, meta=said.encode())):
        pass
    assert len(str(caught.value)) < 50_000


def test_a_memory_error_in_foreign_words_is_still_text():
    said = {"memory": True, "message": "\ud800" + "x" * 1_000_000}
    error = Outcome("fake", limited=True).failed(ExecutionContext(), said)
    assert isinstance(error, MemoryExceeded)
    assert len(str(error).encode()) < 100_000
