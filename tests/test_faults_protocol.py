"""Workers that break the protocol: whatever bytes come, the call ends with one typed error and the worker is replaced."""

from __future__ import annotations

import os
import select
import socket
import struct
import time

import pytest

from hostkit import CallTimeout, InvalidResponse, PluginFailed, ProtocolError, WorkerExited
from hostkit._questions import Full, Questions

HEADER = struct.Struct(">2sBBHHQdIII")
RESULT, ERROR, ITEM, END, PING, CALL, READY, GOODBYE = 4, 5, 6, 7, 8, 3, 2, 13
# What no call of these tests has: their ids count up from 1, or lie above 1 << 62.
NOBODY = 1 << 50


def frame(
    kind=RESULT, call_id=NOBODY, payload=b"1", *, meta=b"", magic=b"hk", version=1, flags=0, reserved=0, timeout=0.0, sizes=None
):
    sizes = sizes or (len(meta), len(payload), 0)
    return (HEADER.pack(magic, version, kind, flags, reserved, call_id, timeout, *sizes) + meta + payload).hex()


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n".hex() * 4,
        "00" * 64,
        "ff" * 64,
        frame(magic=b"hK"),
        frame(version=0),
        frame(version=2),
        frame(kind=0),
        frame(kind=200),
        frame(flags=0x8000),
        frame(reserved=1),
        frame(kind=RESULT, flags=1),
        frame(timeout=5.0),
        frame(timeout=float("nan")),
        frame(timeout=-1.0),
        frame(sizes=(0, 0xFFFFFFFF, 0)),
        frame(sizes=(0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)),
        frame(sizes=(0, (64 << 20) + 8192, 0)),
    ],
    ids=[
        "text",
        "zeros",
        "ones",
        "magic",
        "version 0",
        "version 2",
        "kind 0",
        "kind 200",
        "flags",
        "reserved",
        "flags of a call",
        "timeout of a call",
        "timeout nan",
        "timeout negative",
        "huge",
        "wraps",
        "above the limit",
    ],
)
def test_bytes_that_are_no_frame_are_a_protocol_error_and_end_the_worker(faulty_worker, data):
    bad = faulty_worker()
    bad.pid  # noqa: B018 - the first call warms everything up
    before = rss()
    bad.fails(ProtocolError, "write_channel", data=data, stays=False)
    assert rss() - before < 30 << 20  # nothing near what the lengths promise was allocated


def test_rubbish_on_every_descriptor_is_a_protocol_error_and_ends_the_worker(faulty_worker):
    faulty_worker().fails(ProtocolError, "write-everywhere", timeout=20, stays=False)


@pytest.mark.parametrize("kind", [PING, CALL, READY, GOODBYE, ITEM, END])
def test_a_frame_out_of_turn_is_a_protocol_error(faulty_worker, kind):
    bad = faulty_worker()
    with pytest.raises(ProtocolError):
        bad.call("answer_with", kind=kind, meta="", then="sleep")
    assert bad.call("fine") == "fine"


@pytest.mark.parametrize("kind", [RESULT, ERROR, ITEM, END])
def test_an_answer_to_another_call_is_a_protocol_error(faulty_worker, kind):
    bad = faulty_worker()
    error = bad.fails(ProtocolError, "write_channel", data=frame(kind), stays=False)
    assert str(NOBODY) in str(error)


def test_two_answers_to_one_call_cost_the_worker_and_the_next_call_nothing(faulty_worker):
    bad = faulty_worker()
    for _ in range(3):
        pid = bad.pid
        assert bad.call("answer_twice") == "first"
        assert bad.call("answer", what="3") == 3
        assert bad.pid != pid


def test_an_answer_before_its_call_is_a_protocol_error_for_the_call_that_finds_it(faulty_worker):
    bad = faulty_worker()
    # Written by a thread while no call runs, so it lies there when the next call comes.
    bad.call("answer", what="[threading.Timer(0.1, lambda: os.write(channels()[0], bytes.fromhex(%r))).start(), 1][1]" % frame())
    (link,) = bad.host._loader.record("bad").lane.backend.supervisor._links
    assert select.select([link.channels[0].fileno()], [], [], 10.0)[0]
    with pytest.raises(ProtocolError):
        bad.call("fine")
    assert bad.call("fine") == "fine"


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"type": [], "message": 3, "rows": 7, "phase": {}}',
        b'{"rows": [3, {}, {"path": []}]}',
        b"[" * 50_000,
    ],
)
def test_an_error_frame_full_of_nonsense_is_still_one_typed_error(faulty_worker, meta):
    bad = faulty_worker()
    with pytest.raises((PluginFailed, InvalidResponse)):
        bad.call("answer_with", kind=ERROR, meta=meta.hex(), then="exit")
    assert bad.call("fine") == "fine"


@pytest.mark.parametrize("size", [1, 2, 20, 35, 36])
def test_a_frame_that_is_cut_off_by_an_exit_is_an_exit(faulty_worker, size):
    faulty_worker().fails(WorkerExited, "write_channel", data=frame()[: 2 * size], then="exit", stays=False)


@pytest.mark.parametrize("size", [1, 20, 38])
def test_a_frame_that_is_never_finished_is_a_timeout(faulty_worker, size):
    bad = faulty_worker(cancel_grace=0.1)
    data = frame(payload=b"1" * 100)[: 2 * size]
    bad.fails(CallTimeout, "write_channel", data=data, timeout=0.3, stays=False)


def test_a_frame_that_comes_byte_by_byte_has_the_one_deadline_of_the_whole(faulty_worker):
    bad = faulty_worker(cancel_grace=0.1)
    data = frame(payload=b"x" * 1000).replace("7878", "7a7a")
    started = time.monotonic()
    bad.fails(CallTimeout, "trickle", data=data, pause=0.02, timeout=0.4, stays=False)
    assert time.monotonic() - started < 5.0


def test_a_closed_channel_is_a_protocol_error_and_the_worker_is_ended(faulty_worker):
    bad = faulty_worker()
    started = time.monotonic()
    error = bad.fails(ProtocolError, "close_channel", timeout=20, stays=False)
    assert "closed" in str(error)
    assert time.monotonic() - started < 5.0


def test_a_channel_closed_after_half_a_frame_is_a_protocol_error(faulty_worker):
    faulty_worker().fails(ProtocolError, "write_channel", data=frame()[:40], then="close", timeout=20, stays=False)


def test_a_closed_control_socket_costs_the_worker_and_one_typed_error_at_most(faulty_worker):
    bad = faulty_worker(heartbeat={"interval": 0.2})
    pid = bad.pid
    with pytest.raises((ProtocolError, WorkerExited)):
        bad.call("close_control", seconds=20)
    assert bad.call("fine") == "fine"
    assert bad.pid != pid


@pytest.mark.parametrize(
    "data",
    [
        b"garbage on the control socket......................".hex(),
        frame(RESULT),
        frame(ERROR),
        frame(READY, meta=b"{}"),
        frame(GOODBYE),
    ],
    ids=["garbage", "result", "error", "second handshake", "goodbye"],
)
def test_what_nobody_asked_for_on_the_control_socket_is_a_protocol_error(faulty_worker, data):
    faulty_worker().fails(ProtocolError, "write_control", data=data, timeout=20, stays=False)


def test_a_goodbye_that_nobody_asked_for_does_not_turn_an_exit_into_a_close(faulty_worker):
    bad = faulty_worker()
    with pytest.raises((ProtocolError, WorkerExited)):
        bad.call("write_control", data=frame(GOODBYE), then="exit")
    assert bad.call("fine") == "fine"


def test_a_health_answer_full_of_nonsense_is_an_unhealthy_status(install, host):
    install(
        "sly",
        """
        import json
        from hostkit._worker import _control
        _control._health = lambda status: json.loads(status.message)
        from hostkit import HealthStatus
        class P:
            said = "{}"
            def execute(self, ctx, request):
                P.said = request
            def health(self):
                return HealthStatus(message=P.said)
        """,
    )
    host.load("sly", isolation="process")
    for said in (
        "{}",
        "[]",
        "3",
        '{"status": "sleepy"}',
        '{"status": "healthy", "metadata": 3}',
        '{"status": []}',
        "[" * 500 + "]" * 500,
    ):
        host.execute("sly", said)
        assert host.health("sly").status.value == "unhealthy"
    assert host.execute("sly", "{}") is None


def test_a_worker_whose_descriptors_are_all_closed_is_replaced(faulty_worker):
    bad = faulty_worker()
    with pytest.raises((ProtocolError, WorkerExited)):
        bad.call("answer", what="os.closerange(3, 1000)", timeout=20)
    assert bad.call("fine") == "fine"


def test_a_health_answer_of_any_size_costs_no_worker(install, host):
    install(
        "talker",
        """
        import os
        from hostkit import HealthStatus, PluginInfo
        class P:
            def execute(self, ctx, request):
                return os.getpid()
            def health(self):
                return HealthStatus(message="x" * 10_000_000)
            def info(self):
                return PluginInfo("talker", description="y" * 10_000_000)
        """,
    )
    host.load("talker", isolation="process")
    pid = host.execute("talker", None)
    assert host.health("talker").status.value == "unhealthy"
    with pytest.raises(PluginFailed, match="bytes"):
        host.info("talker")
    assert host.execute("talker", None) == pid


def test_a_plugin_without_threads_left_still_answers_calls_and_heartbeats(install, new_host):
    install(
        "threads",
        """
        import os, threading
        class P:
            def execute(self, ctx, request):
                def refuse(*arguments, **options):
                    raise RuntimeError("can't start new thread")
                threading.Thread.start = refuse
                return os.getpid()
        """,
    )
    host = new_host(config={"plugins": {"threads": {"heartbeat": {"interval": 0.1, "misses": 2}}}})
    host.load("threads", isolation="process")
    pid = host.execute("threads", None)
    assert host.health("threads").status.value == "unhealthy"
    time.sleep(0.5)
    assert host.execute("threads", None) == pid


def test_a_worker_that_no_longer_reads_its_control_socket_is_found_out():
    mine, theirs = socket.socketpair()
    questions = Questions(mine)
    with pytest.raises(Full):
        for _ in range(100_000):
            questions.ask(PING)
    questions.close()
    theirs.close()
    assert questions.ask(PING).cancelled() is False  # nobody is there, which is seen elsewhere
    questions.end()
    assert questions.ask(PING).cancelled()
