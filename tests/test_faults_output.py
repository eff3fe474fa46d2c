"""What workers print and log: in the host's log with plugin and request id, bounded whatever they write, and harmless."""

from __future__ import annotations

import os
import time

import pytest

from hostkit import WorkerExited


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


LOUD = """
    import logging, os, sys, warnings
    class P:
        def execute(self, ctx, request):
            if request == "print":
                print("printed"); print("complained", file=sys.stderr)
            elif request == "logging":
                logging.getLogger("lib").warning("warned %s", 7)
                try:
                    1 / 0
                except ZeroDivisionError:
                    logging.getLogger("lib").exception("failed")
            elif request == "loguru":
                from loguru import logger
                logger.info("through loguru")
            elif request == "ctx":
                ctx.logger.info("through ctx")
            elif request == "raw":
                os.write(1, b"raw out\\n"); os.write(2, b"raw err\\n")
            elif request == "warn":
                warnings.warn("careful")
"""


@pytest.mark.parametrize(
    ("request_", "level", "text"),
    [
        ("print", "INFO", "printed"),
        ("print", "WARNING", "complained"),
        ("logging", "WARNING", "warned 7"),
        ("logging", "ERROR", "ZeroDivisionError"),
        ("loguru", "INFO", "through loguru"),
        ("ctx", "INFO", "through ctx"),
        ("warn", "WARNING", "UserWarning: careful"),
    ],
)
def test_what_a_worker_says_is_in_the_log_with_plugin_and_request_id(install, host, log, request_, level, text, until):
    install("loud", LOUD)
    host.load("loud", isolation="process")
    host.execute("loud", request_, request_id="said-1")
    until(lambda: [record for record in log if text in record["text"] and record.get("request_id") == "said-1"])
    (record,) = [record for record in log if text in record["text"] and record.get("request_id") == "said-1"]
    assert (record["level"], record["plugin"]) == (level, "loud")


def test_what_is_written_to_the_descriptors_themselves_is_in_the_log_too(install, host, log, until):
    install("loud", LOUD)
    host.load("loud", isolation="process")
    host.execute("loud", "raw")
    until(lambda: {"raw out", "raw err"} <= {record["text"] for record in log if record["plugin"] == "loud"})


def test_the_last_words_on_stderr_are_in_the_error(faulty_worker):
    bad = faulty_worker()
    bad.call("answer", what="os.write(2, b'x' * 100 + b'\\n') and os.write(2, b'the very last words\\n')")
    error = bad.fails(WorkerExited, "exit", code=1, stays=False)
    assert "the very last words" in str(error)
    bad.call("answer", what="[os.write(2, b'y' * 999 + b'\\n') for _ in range(60)] and 1")
    error = bad.fails(WorkerExited, "exit", code=1, stays=False)
    assert 1000 < len(error.stderr_tail) <= 8192


FLOODS = {
    "short lines": "0a",
    "lines": ("6c" * 80 + "0a"),
    "no newline": "78",
    "binary": "00fffe80",
    "long lines": "79" * 30_000 + "0a",
}


@pytest.mark.parametrize("fd", [1, 2])
@pytest.mark.parametrize("chunk", FLOODS)
def test_a_flood_of_output_blocks_nobody_and_costs_no_memory(faulty_worker, log, fd, chunk):
    bad = faulty_worker()
    bad.call("flood", fd=fd, megabytes=1, chunk=FLOODS[chunk])
    before = rss()
    call = bad.begin("flood", fd=fd, megabytes=20, chunk=FLOODS[chunk])
    slowest = 0.0
    while not call.done():
        started = time.monotonic()
        bad.neighbour_answers()
        slowest = max(slowest, time.monotonic() - started)
        log.clear()
    assert call.result() == "flooded"
    assert rss() - before < 40 << 20
    assert slowest < 1.0
    assert bad.call("fine") == "fine"


def test_a_line_of_ten_megabytes_is_cut(faulty_worker, log, until):
    bad = faulty_worker()
    bad.call("print_", text="z" * 10_000_000, stream="stdout")
    until(lambda: [record for record in log if record["text"].startswith("zzz")])
    assert max(len(record["text"]) for record in log) < 100_000
    assert bad.call("fine") == "fine"


@pytest.mark.parametrize("op", ["close_standard", "dup_over_standard"])
def test_a_plugin_that_closes_or_covers_its_standard_streams_still_works(faulty_worker, op):
    bad = faulty_worker()
    pid = bad.pid
    bad.call(op)
    bad.call("print_", text="into the void", stream="stdout")
    bad.call("print_", text="into the void", stream="stderr")
    assert bad.call("fine") == "fine"
    assert bad.pid == pid
    bad.host.unload("bad")
    assert bad.call("fine") == "fine"


def test_standard_streams_that_are_broken_objects_keep_no_worker_from_ending_in_order(faulty_worker, log):
    bad = faulty_worker()
    bad.call("answer", what="setattr(sys, 'stdout', None) or setattr(sys, 'stderr', object())")
    assert bad.call("fine") == "fine"
    bad.host.close()
    assert not [record for record in log if record["level"] == "ERROR"]


def test_standard_input_is_empty(faulty_worker):
    assert faulty_worker().call("answer", what="sys.stdin.read() if sys.stdin else ''") == ""


def test_control_characters_are_escaped(faulty_worker, log, until):
    bad = faulty_worker()
    bad.call("print_", text="\x1b[31mred\rforged", stream="stdout")
    until(lambda: [record for record in log if "red" in record["text"]])
    (record,) = [record for record in log if "red" in record["text"]]
    assert record["text"] == "\\x1b[31mred\\x0dforged"
