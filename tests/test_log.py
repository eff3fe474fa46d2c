from __future__ import annotations

import contextvars
import fcntl
import io
import json
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

import hostkit
from hostkit._log import TAIL, OutputPipe, hear_plugins, tell, tell_of_plugin
from hostkit._sinks import flush
from hostkit._worker import _output
from hostkit.testing import FakeClock


@pytest.fixture
def outlet():
    """Make an OutputPipe and the descriptor that a worker writes to."""
    made = []

    def make(source, clock=None):
        read, write = os.pipe()
        pipe = OutputPipe(read, source, plugin="p", clock=clock or FakeClock())
        made.append((pipe, write))
        return pipe, write

    yield make
    for pipe, write in made:
        pipe.close()
        try:
            os.close(write)
        except OSError:
            pass


def flow(pipe, write, data):
    """Write all of the data as fast as it is read."""
    os.set_blocking(write, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(write, view) :]
        except BlockingIOError:
            assert pipe.read()
    assert pipe.read(most=1 << 30)


def texts(log):
    return [record["text"] for record in log]


# What a worker writes.


def test_each_line_is_a_record_with_its_plugin_and_source(outlet, log):
    pipe, write = outlet("stdout")
    flow(pipe, write, b"one\ntwo\n\nthree")
    assert texts(log) == ["one", "two"]
    pipe.close()
    assert texts(log) == ["one", "two", "three"]
    assert {(record["plugin"], record["source"], record["level"]) for record in log} == {("p", "stdout", "INFO")}


def test_what_stands_on_stderr_is_a_warning_and_kept_as_last_words(outlet, log):
    pipe, write = outlet("stderr")
    flow(pipe, write, b"bad\nworse\n")
    assert [record["level"] for record in log] == ["WARNING", "WARNING"]
    assert pipe.tail == "bad\nworse\n"


def test_a_record_has_its_level_logger_and_request(outlet, log):
    pipe, write = outlet("log")
    for level in (5, 10, 20, 25, 30, 40, 50):
        record = {"level": level, "logger": "a.b", "text": f"level {level}", "request_id": "r-1"}
        flow(pipe, write, json.dumps(record).encode() + b"\n")
    assert [record["level"] for record in log] == ["TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL"]
    assert {(record["request_id"], record["source"], record["plugin"]) for record in log} == {("r-1", "a.b", "p")}


@pytest.mark.parametrize("level", [0, 7, 35, 100])
def test_a_level_without_a_name_is_a_level_too(outlet, log, level):
    pipe, write = outlet("log")
    flow(pipe, write, json.dumps({"level": level, "text": "x"}).encode() + b"\n")
    assert texts(log) == ["x"]


@pytest.mark.parametrize("level", [-5, 10**6, "20", 20.7, True])
def test_a_level_out_of_range_is_brought_into_it(outlet, log, level):
    pipe, write = outlet("log")
    flow(pipe, write, json.dumps({"level": level, "text": "x"}).encode() + b"\n")
    assert texts(log) == ["x"]


FORGED = [
    b"{}",
    b"[]",
    b"5",
    b'"text"',
    b"null",
    b"{",
    b"\xff\xfe",
    b'{"text": 5}',
    b'{"level": 20}',
    b'{"level": null, "text": "x"}',
    b'{"level": "high", "text": "x"}',
    b'{"level": NaN, "text": "x"}',
    b'{"level": Infinity, "text": "x"}',
    b'{"level": -1e400, "text": "x"}',
    b'{"level": [], "text": "x"}',
    b'{"level": 20, "text": {"a": [1]}}',
    b'{"level": 20, "text": null, "request_id": {"a": 1}, "logger": []}',
    b'{"stream": 5, "text": "x"}',
    b'{"stream": {"a": 1}, "text": "x"}',
    b'{"level": ' + b"9" * 5000 + b', "text": "x"}',
    b"[" * 60_000,
    b'{"level": 20, "text": "x", "plugin": "another", "source": "another", "time": 0}',
]


@pytest.mark.parametrize("line", FORGED, ids=[str(number) for number in range(len(FORGED))])
@pytest.mark.parametrize("source", ["log", "stdout", "stderr"])
def test_a_forged_record_is_one_short_record_of_its_own_plugin(outlet, log, line, source):
    pipe, write = outlet(source)
    flow(pipe, write, line + b"\n" + b'{"level": 20, "text": "after"}\n')
    assert len(log) == 2
    assert "after" in texts(log)[1]
    assert all(record["plugin"] == "p" for record in log)
    assert all(len(record["text"]) < 20_000 for record in log)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_taken(data):
    for source in ("log", "stdout", "stderr"):
        read, write = os.pipe()
        pipe = OutputPipe(read, source, plugin="p")
        try:
            flow(pipe, write, data)
        finally:
            pipe.close()
            os.close(write)


HOSTILE_TEXT = "\x1b[2J\x1b]0;title\x07red\r overwritten\x00\x85\x9b31m\u2028line\u202eright to left\ufeff"


@pytest.mark.parametrize("source", ["log", "stdout", "stderr"])
def test_control_characters_are_escaped(outlet, log, source):
    pipe, write = outlet(source)
    line = HOSTILE_TEXT.encode() if source != "log" else json.dumps({"level": 20, "text": HOSTILE_TEXT}).encode()
    flow(pipe, write, line + b"\n")
    [record] = log
    assert record["text"].isprintable()
    assert "\\x1b[2J" in record["text"]
    assert "\\u202eright to left" in record["text"]


def test_a_tab_and_letters_of_all_the_world_stay_as_they_are(outlet, log):
    pipe, write = outlet("stdout")
    flow(pipe, write, "a\tb é 漢字 😀 שלום\n".encode())
    assert texts(log) == ["a\tb é 漢字 😀 שלום"]


def test_the_lines_of_one_record_can_not_pass_for_others(outlet, log):
    pipe, write = outlet("log")
    text = "first\n2024-01-01 | ERROR | forged\r\n{}\u2028forged too"
    flow(pipe, write, json.dumps({"level": 20, "text": text}).encode() + b"\n")
    assert texts(log) == ["first\n  | 2024-01-01 | ERROR | forged\\x0d\n  | {}\\u2028forged too"]
    assert all(line.startswith("  | ") for line in texts(log)[0].split("\n")[1:])


def test_a_forged_request_id_or_logger_is_escaped_and_short(outlet, log):
    pipe, write = outlet("log")
    record = {"level": 20, "text": "x", "request_id": "r\n\x1b[31m" + "x" * 1000, "logger": "l\r\n" + "y" * 1000}
    flow(pipe, write, json.dumps(record).encode() + b"\n")
    [told] = log
    assert told["request_id"].isprintable()
    assert told["source"].isprintable()
    assert len(told["request_id"]) < 300
    assert len(told["source"]) < 300


def test_half_a_surrogate_pair_reaches_a_sink_as_text_that_utf_8_can_hold(outlet, log):
    pipe, write = outlet("log")
    flow(pipe, write, rb'{"level": 20, "text": "\ud800 x", "request_id": "\udfff"}' + b"\n")
    [record] = log
    assert record["text"] == "\\ud800 x"
    assert record["request_id"] == "\\udfff"


def test_a_line_of_10_mb_is_cut_and_what_follows_arrives(outlet, log):
    pipe, write = outlet("stdout")
    data = b"".join((b"x" * 10_000_000, b"\nafter\n", b"y" * 100_000, b"\nlast\n"))
    tracemalloc.start()
    flow(pipe, write, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [text[-6:] for text in texts(log)] == [" [cut]", "after", " [cut]", "last"]
    assert all(len(text) < 17_000 for text in texts(log))
    assert peak < 2_000_000


def test_a_line_without_an_end_is_told_once(outlet, log):
    pipe, write = outlet("stderr")
    flow(pipe, write, b"x" * 3_000_000)
    pipe.close()
    assert len(log) == 1
    assert len(pipe.tail) <= TAIL


def test_a_record_of_the_longest_text_of_any_kind_arrives_whole(outlet, log):
    worker_end = io.BytesIO()
    for letter in ("é", "😀", "\x01", '"'):
        read, write = os.pipe()
        pipe = OutputPipe(read, "log", plugin="p")
        stream = _output._Lines(_output._Pipe(write), "stdout", 1)
        thread = threading.Thread(target=stream.write, args=(letter * 16_378 + "\n",))
        thread.start()
        until = time.monotonic() + 10
        while not texts(log) and time.monotonic() < until:
            pipe.read()
        thread.join(10)
        os.close(write)
        pipe.close()
        stream.buffer.close()
        [text] = texts(log)
        assert text == (letter if letter != "\x01" else "\\x01") * 16_378
        log.clear()
    worker_end.close()


def test_a_flood_is_counted_and_not_told(outlet, log):
    clock = FakeClock()
    pipe, write = outlet("stdout", clock)
    flow(pipe, write, b"flood\n" * 100_000)
    assert len(log) == 2000
    clock.advance(1.0)
    flow(pipe, write, b"later\n")
    assert texts(log)[2000:] == ["plugin 'p': 98000 lines of its stdout dropped", "later"]
    clock.advance(1.0)
    flow(pipe, write, b"again\n" * 1000)
    assert texts(log).count("again") == 999  # what a second brings, and what was left of the one before
    pipe.close()
    assert texts(log)[-1] == "plugin 'p': 1 lines of its stdout dropped"


def test_a_flood_needs_little_memory_and_little_time(outlet):
    pipe, write = outlet("stdout")  # told to nobody: what the application's sinks keep is theirs
    data = random.Random(5).randbytes(997) * 20_000
    started = time.process_time()
    tracemalloc.start()
    flow(pipe, write, data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert time.process_time() - started < 30


def test_one_read_takes_a_limited_amount_so_that_others_get_their_turn(outlet):
    pipe, write = outlet("stdout")
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    written = os.write(write, b"x" * 500_000)
    assert pipe.read(most=10_000)
    assert len(os.read(pipe.fd, 1 << 20)) == written - 64 * 1024


def test_the_last_words_on_stderr_survive_a_flood(outlet):
    pipe, write = outlet("stderr")
    flow(pipe, write, b"noise\n" * 5000 + b"the reason\n")
    assert pipe.tail.endswith("the reason\n")
    pipe, write = outlet("log")
    noise = json.dumps({"stream": "stdout", "text": "noise"}).encode() + b"\n"
    flow(pipe, write, noise * 5000 + json.dumps({"stream": "stderr", "text": "the reason", "request_id": ""}).encode() + b"\n")
    assert pipe.tail.endswith("the reason\n")
    assert len(pipe.tail) <= TAIL


def test_the_end_of_a_pipe_is_told_to_whoever_watches(outlet):
    pipe, write = outlet("stdout")
    assert pipe.read()
    os.close(write)
    assert not pipe.read()
    pipe.close()
    pipe.close()
    assert not pipe.read()


def test_reading_and_closing_from_many_threads_loses_no_line(log):
    read, write = os.pipe()
    pipe = OutputPipe(read, "stdout", plugin="p")
    os.write(write, b"".join(b"line %d\n" % number for number in range(1000)))
    os.close(write)
    threads = [threading.Thread(target=pipe.read) for _ in range(4)] + [threading.Thread(target=pipe.close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(texts(log))) == len(log) <= 1000


# What hostkit itself says.


def test_what_hostkit_says_is_escaped_too_because_it_quotes_plugins(log):
    tell("WARNING", "plugin 'p' raised X: \x1b[31mred\nforged", plugin="p", request_id="r")
    [record] = log
    assert record == {
        "text": "plugin 'p' raised X: \\x1b[31mred\n  | forged",
        "level": "WARNING",
        "plugin": "p",
        "request_id": "r",
    }


def test_braces_in_a_text_are_no_placeholders(log):
    tell("INFO", "{a} {0} {", plugin="{p}", pid=5)
    tell_of_plugin(20, "{record} {}", plugin="p", request_id="", source="s")
    assert texts(log) == ["{a} {0} {", "{record} {}"]
    assert log[0]["pid"] == 5


def test_an_error_of_a_plugin_can_not_forge_a_log_line(install, host, isolation, log):
    install("forger", "class P:\n    def execute(self, ctx, request):\n        raise ValueError('x\\n\\x1b[31mERROR forged')\n")
    host.load("forger", isolation=isolation)
    with pytest.raises(hostkit.PluginFailed):
        host.execute("forger", {})
    [text] = [text for text in texts(log) if "forged" in text]
    assert "\x1b" not in text
    assert "\n  | \\x1b[31mERROR forged" in text


@pytest.mark.parametrize("error", [ValueError("sink"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_sink_that_raises_harms_nobody(error, capsys):
    def sink(_):
        raise error

    logger.enable("hostkit")
    handler = logger.add(sink, catch=False)
    try:
        tell("INFO", "told")
        tell_of_plugin(20, "told", plugin="p", request_id="", source="s")
        assert flush(5)
    finally:
        logger.remove(handler)
        logger.disable("hostkit")
    assert capsys.readouterr().err.count(f"hostkit: its log can't be written: {type(error).__name__}") == 2


def test_a_sink_that_raises_without_a_stderr_harms_nobody(monkeypatch):
    def sink(_):
        raise SystemExit

    logger.enable("hostkit")
    handler = logger.add(sink, catch=False)
    try:
        for stderr in (None, io.TextIOWrapper(io.BytesIO())):
            if stderr is not None:
                stderr.close()
            monkeypatch.setattr(sys, "stderr", stderr)
            tell("INFO", "told")
            assert flush(5)
    finally:
        logger.remove(handler)
        logger.disable("hostkit")


def test_the_log_is_quiet_unless_the_application_asks():
    say = "tell_of_plugin(40, '{}', plugin='p', request_id='', source='s')"
    code = f"from hostkit import Host; from hostkit._log import tell_of_plugin; {say.format('hello')}; {{}}; {say.format('again')}"
    for enabling, expected in (("pass", ""), ("from loguru import logger; logger.enable('hostkit')", "again")):
        run = subprocess.run([sys.executable, "-c", code.format(enabling)], capture_output=True, text=True, check=True, timeout=60)
        assert ("hello" in run.stderr, "again" in run.stderr) == (False, expected == "again")


def test_an_application_that_asked_before_importing_hostkit_is_heard():
    code = (
        "from loguru import logger; logger.enable('hostkit'); from hostkit._log import tell_of_plugin; "
        "tell_of_plugin(40, 'hello', plugin='p', request_id='', source='s')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "hello" in run.stderr


# Sinks that are slow, stuck or curious.


class Sink:
    """A sink of an application, which hangs while it is shut."""

    def __init__(self, act=lambda text: None):
        self.records = []
        self.open = threading.Event()
        self.reached = threading.Event()
        self.open.set()
        self._act = act

    @property
    def texts(self):
        assert flush(10)
        return [record["message"] for record in self.records]

    def __call__(self, message):
        self.reached.set()
        assert self.open.wait(30)
        self.records.append(message.record)
        self._act(message.record["message"])


@pytest.fixture
def sink():
    """Add a sink for hostkit's log; it is opened and emptied after the test."""
    added = []

    def add(**options):
        sink = Sink(**options)
        added.append((logger.add(sink, level=0, catch=False), sink))
        return sink

    logger.enable("hostkit")
    yield add
    for _, each in added:
        each.open.set()
    flush(5)
    for handler, _ in added:
        logger.remove(handler)
    logger.disable("hostkit")


FRAGILE = """
    import os
    class P:
        def execute(self, ctx, request):
            if request == "die":
                os.kill(os.getpid(), 9)
            if request == "fail":
                raise ValueError("failed")
            return os.getpid()
"""


def test_a_sink_that_hangs_holds_up_no_call_and_no_new_worker(install, host, isolation, sink):
    install("fragile", FRAGILE)
    host.load("fragile", isolation=isolation)
    stuck = sink()
    flush(5)
    stuck.open.clear()
    began = time.monotonic()
    ids = [f"r-{number}" for number in range(4)]
    for request_id in ids:
        with pytest.raises(hostkit.PluginFailed):
            host.execute("fragile", "fail", request_id=request_id)
    assert host.execute("fragile", "fine")
    if isolation != "none":
        with pytest.raises(hostkit.WorkerLost):
            host.execute("fragile", "die")
        assert host.execute("fragile", "fine")
    host.unload("fragile")
    assert time.monotonic() - began < 10
    assert stuck.records == []
    stuck.open.set()
    assert any("closed" in text for text in stuck.texts)
    assert [record["extra"]["request_id"] for record in stuck.records if record["message"].startswith("PluginFailed")] == ids
    assert not any("dropped" in text for text in stuck.texts)


def test_what_does_not_fit_while_a_sink_hangs_is_dropped_and_counted_in_one_line(sink):
    stuck = sink()
    stuck.open.clear()
    tell("INFO", "first")
    assert stuck.reached.wait(10)
    for number in range(12_000):
        tell("INFO", f"line {number}")
    assert not flush(0.01)
    stuck.open.set()
    assert stuck.texts[0] == "first"
    assert stuck.texts[1:-1] == [f"line {number}" for number in range(2_000, 12_000)]
    [told] = [record for record in stuck.records if "dropped" in record["message"]]
    assert stuck.records[-1] is told
    assert told["message"].startswith("2000 records of hostkit's log were dropped here")
    assert told["level"].name == "WARNING"
    tell("INFO", "later")
    assert stuck.texts[-1] == "later"


def test_long_lines_that_wait_for_a_sink_need_limited_memory(sink):
    stuck = sink()
    stuck.open.clear()
    tracemalloc.start()
    for number in range(3_000):
        tell_of_plugin(20, f"{number} " + "x" * 16_000, plugin="p", request_id="", source="s")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000_000
    stuck.open.set()
    assert len(stuck.texts) == 3_000
    assert stuck.texts[-1].startswith("2999 x")
    assert stuck.texts[-1].endswith("x [cut]")


def test_a_record_is_of_the_time_thread_and_context_in_which_it_was_told(sink):
    heard = sink()
    heard.open.clear()
    tell("INFO", "before")
    assert heard.reached.wait(10)

    def teller():
        with logger.contextualize(tenant="acme"):
            tell("INFO", "told", plugin="p", pid=7)

    thread = threading.Thread(target=teller, name="teller")
    thread.start()
    thread.join()
    ended = time.time()
    logger.disable(__name__)  # what was told before is not lost by that
    tell("INFO", "nobody wants this")
    heard.open.set()
    assert heard.texts == ["before", "told"]
    logger.enable(__name__)
    told = heard.records[1]
    assert (told["thread"].name, told["thread"].id) == ("teller", thread.ident)
    assert told["extra"] == {"tenant": "acme", "plugin": "p", "request_id": "", "pid": 7}
    assert told["time"].timestamp() <= ended
    assert (told["name"], told["function"], told["file"].name) == (__name__, "teller", "test_log.py")


def test_a_sink_sees_the_context_variables_of_who_told(sink):
    tenant = contextvars.ContextVar("tenant", default="nobody")
    seen = []
    heard = sink(act=lambda text: seen.append(tenant.get()))
    tenant.set("acme")
    tell("INFO", "told")
    assert heard.texts == ["told"]
    assert seen == ["acme"]


def test_what_a_plugin_logs_in_this_process_is_written_at_once_and_after_what_was_told_before(sink):
    hear_plugins()
    heard = sink()
    tell("INFO", "before")
    logging.getLogger("hostkit.plugin.p").warning("mine")
    assert [record["message"] for record in heard.records] == ["before", "mine"]
    assert heard.records[1]["thread"].id == threading.get_ident()


def test_a_sink_that_uses_the_host_itself_holds_up_nobody_and_ends(install, host, isolation, sink, capsys):
    install("fragile", FRAGILE)
    host.load("fragile", isolation=isolation)
    answers = []

    def curious(text):
        if text.startswith("PluginFailed"):
            answers.append(host.execute("fragile", "fine"))
            with pytest.raises(hostkit.PluginFailed):
                host.execute("fragile", "fail")

    other = sink()
    heard = sink(act=curious)
    with pytest.raises(hostkit.PluginFailed):
        host.execute("fragile", "fail")
    assert len([text for text in heard.texts if text.startswith("PluginFailed")]) == len(answers) == 1
    assert len([text for text in other.texts if text.startswith("PluginFailed")]) == 2
    assert "its log can't be written: RuntimeError: Could not acquire internal lock" in capsys.readouterr().err


def test_a_sink_may_close_the_host(install, new_host, sink):
    install("fragile", FRAGILE)
    host = new_host()
    host.load("fragile")
    closed = threading.Event()

    def closing(text):
        if text.startswith("PluginFailed"):
            host.close()
            closed.set()

    sink(act=closing)
    with pytest.raises(hostkit.PluginFailed):
        host.execute("fragile", "fail")
    assert closed.wait(10)


def test_where_no_thread_can_be_started_a_record_is_written_by_who_tells(sink, monkeypatch):
    def none_left(_):
        raise RuntimeError("can't start new thread")

    heard = sink()
    flush(5)
    monkeypatch.setattr(threading.Thread, "start", none_left)
    tell("INFO", "one")
    tell("INFO", "two")
    assert [record["message"] for record in heard.records] == ["one", "two"]


def run(code):
    began = time.monotonic()
    code = "import atexit, os, sys, threading\nfrom loguru import logger\nlogger.enable('hostkit')\n" + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    return done, time.monotonic() - began


def test_a_log_that_nobody_wants_needs_no_thread():
    done, _ = run(
        """
        from hostkit._log import tell_of_plugin
        def told():
            tell_of_plugin(40, "told", plugin="p", request_id="", source="s")
            return threading.active_count() - 1
        logger.remove()
        print(told())
        logger.add(lambda _: None, level="CRITICAL")
        print(told())
        logger.add(lambda _: None)
        logger.disable("hostkit")
        print(told())
        logger.enable("hostkit")
        print(told())
        """
    )
    assert done.stdout.split() == ["0", "0", "0", "1"]


def test_what_is_told_last_is_written_before_the_interpreter_is_gone():
    done, _ = run(
        """
        def last():
            tell("INFO", "told at exit")
        atexit.register(last)  # runs after hostkit's own, because it was registered before
        logger.remove()
        logger.add(sys.stderr, format="{message}")
        from hostkit._log import tell
        tell("INFO", "told before")
        """
    )
    assert done.stderr.splitlines() == ["told before", "told at exit"]
    assert done.returncode == 0


def test_a_sink_that_hangs_holds_up_no_exit():
    done, seconds = run(
        """
        atexit.unregister(logger.remove)  # loguru's own exit handler waits for every sink
        def last():
            tell("INFO", "told at exit")
            print("ended")
        atexit.register(last)
        logger.remove()
        reached = threading.Event()
        def stuck(_):
            reached.set()
            threading.Event().wait()
        logger.add(stuck)
        from hostkit import Host
        from hostkit._log import tell
        host = Host()
        tell("INFO", "told")
        assert reached.wait(10)
        """
    )
    assert (done.returncode, done.stdout) == (0, "ended\n")
    assert seconds < 15


def test_a_fork_tells_its_own_lines_and_not_those_that_wait_in_its_parent():
    done, _ = run(
        """
        parent = os.getpid()
        logger.remove()
        logger.add(lambda message: os.write(1, f"{os.getpid() == parent} {message.record['message']}\\n".encode()))
        from hostkit._log import tell
        from hostkit._sinks import flush, lines
        for number in range(300):
            tell("INFO", f"line {number}")
        lines._lock.acquire()  # as a thread may have it in the moment of the fork
        child = os.fork()
        if child == 0:
            tell("INFO", "the child's")
            assert flush(5)
            os._exit(0)
        lines._lock.release()
        _, status = os.waitpid(child, 0)
        assert flush(5)
        sys.exit(status)
        """
    )
    assert sorted(done.stdout.splitlines()) == sorted(["False the child's", *(f"True line {number}" for number in range(300))])
    assert done.returncode == 0


def test_the_command_line_shows_what_was_told_before_an_answer_before_it(install_demo, cli_process):
    install_demo("p", "class P:\n    def execute(self, ctx, request):\n        print('printed')\n        return 'answer'\n")
    process = cli_process("execute", "p", "-v", "--isolation", "process", stderr=subprocess.STDOUT)
    said = process.communicate(timeout=60)[0].splitlines()
    answered = said.index('"answer"')
    assert any("loaded, isolation process" in line for line in said[:answered])
    assert any("closed" in line for line in said[answered:])
    assert process.returncode == 0


# What a plugin logs.

LOGGING = """
    import logging, sys

    class Odd:
        def __str__(self):
            raise RuntimeError("no text")
        __repr__ = __str__

    class P:
        def execute(self, ctx, request):
            ctx.logger.warning("hello %s", "world")
            ctx.logger.debug("small")
            ctx.logger.info("%d", "no number")
            ctx.logger.info("%s", Odd())
            ctx.logger.info(Odd())
            ctx.logger.info("x" * 50_000)
            ctx.logger.log(17, "level 17")
            try:
                1 / 0
            except ZeroDivisionError:
                ctx.logger.exception("failed")
            ctx.logger.info("last\\nline \\ud800")
            return 1
"""


def test_what_a_plugin_logs_arrives_the_same_from_everywhere(install, host, isolation, log, monkeypatch):
    # pytest adds handlers that raise for a record with the wrong arguments.
    monkeypatch.setattr(logging.getLogger("hostkit.plugin"), "handlers", [])
    hear_plugins()
    install("talker", LOGGING)
    host.load("talker", isolation=isolation)
    log.clear()
    assert host.execute("talker", {}, request_id="r-7") == 1
    until = time.monotonic() + 10
    while not any(text.startswith("last") for text in texts(log)) and time.monotonic() < until:
        threading.Event().wait(0.01)
    said = [record for record in log if record.get("source") == "hostkit.plugin.talker"]
    assert {(record["plugin"], record["request_id"]) for record in said} == {("talker", "r-7")}
    assert [record["level"] for record in said] == ["WARNING", "DEBUG", "INFO", "INFO", "INFO", "INFO", "Level 17", "ERROR", "INFO"]
    lines = texts(said)
    assert lines[:3] == ["hello world", "small", "'%d' [can't be formatted: TypeError]"]
    assert lines[3] == "'%s' [can't be formatted: RuntimeError]"
    assert lines[4].endswith("Odd> [can't be formatted: RuntimeError]")
    assert lines[5] == "x" * (16 * 1024 - 6) + " [cut]"
    assert lines[7].startswith("failed\n  | Traceback (most recent call last):")
    assert lines[7].endswith("\n  | ZeroDivisionError: division by zero")
    assert lines[8] == "last\n  | line \\ud800"


def test_listening_to_plugins_twice_hears_them_once(log):
    threads = [threading.Thread(target=hear_plugins) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logging.getLogger("hostkit.plugin.once").warning("once")
    assert texts(log) == ["once"]


# The worker's side.


@pytest.fixture
def lines():
    """A stream as a plugin's print sees it, and what has been sent through it."""
    read, write = os.pipe()
    stream = _output._Lines(_output._Pipe(write), "stdout", 1)

    def sent():
        os.set_blocking(read, False)
        try:
            return [json.loads(line) for line in os.read(read, 1 << 20).splitlines()]
        except BlockingIOError:
            return []

    yield stream, sent
    stream.buffer.close()
    os.close(read)
    os.close(write)


def test_prints_are_sent_a_line_at_a_time(lines):
    stream, sent = lines
    print("a", "b", file=stream)
    print("c", end="", file=stream)
    assert [record["text"] for record in sent()] == ["a b"]
    print("d", file=stream, flush=True)
    print("e", end="", file=stream)
    assert [record["text"] for record in sent()] == ["cd"]
    stream.flush()
    stream.flush()
    assert [record["text"] for record in sent()] == ["e"]


def test_a_print_without_end_is_sent_in_pieces(lines):
    stream, sent = lines
    for _ in range(40):
        stream.write("x" * 1000)
    assert sum(len(record["text"]) for record in sent()) > 16_000


def test_a_stream_is_what_programs_expect_of_stdout(lines):
    stream, _ = lines
    assert stream.writable()
    assert not stream.isatty()
    assert not stream.readable()
    assert stream.encoding == "utf-8"
    assert stream.name == "<stdout>"
    stream.reconfigure(encoding="utf-8", line_buffering=True)
    with pytest.raises(TypeError, match="must be str, not bytes"):
        stream.write(b"bytes")
    assert stream.fileno() == 1


def test_any_text_can_be_printed(lines):
    stream, sent = lines
    print("\ud800 \x00 é 😀", file=stream)
    assert sent()[0]["text"] == "\ud800 \x00 é 😀"


def test_a_print_in_the_middle_of_a_print_does_not_hang(lines, monkeypatch):
    stream, sent = lines
    write, calls = os.write, []

    def interrupted(fd, data):
        # What a signal handler or a finalizer does that prints.
        if not calls:
            calls.append(1)
            print("from within", file=stream)
        return write(fd, data)

    monkeypatch.setattr(_output.os, "write", interrupted)
    print("outer", file=stream)
    assert [record["text"] for record in sent()] == ["from within", "outer"]


def test_a_host_that_is_gone_is_no_error_for_whoever_prints():
    read, write = os.pipe()
    os.close(read)
    stream = _output._Lines(_output._Pipe(write), "stdout", 1)
    print("nobody listens", file=stream)
    os.close(write)
    stream.buffer.close()
