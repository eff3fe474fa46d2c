"""Calls that go wrong inside a plugin: one typed error, and the same worker answers the next call."""

from __future__ import annotations

import threading

import pytest

from hostkit import InvalidResponse, PluginFailed


@pytest.mark.parametrize(
    ("what", "remote"),
    [
        ("value", "ValueError"),
        ("weird", "hostkit.testing.badplugin._raising.Weird"),
        ("unprintable", "hostkit.testing.badplugin._raising.Unprintable"),
        ("generator-exit", "GeneratorExit"),
        ("keyboard", "KeyboardInterrupt"),
        ("stop", "StopIteration"),
        ("exit-0", "SystemExit"),
        ("exit-3", "SystemExit"),
        ("exit-text", "SystemExit"),
        ("exit-none", "SystemExit"),
        ("exit-object", "SystemExit"),
        ("unpicklable", "hostkit.testing.badplugin._raising.Unpicklable"),
        ("nameless", "hostkit.testing.badplugin._raising.Nameless"),
        ("group", "ExceptionGroup"),
        ("cyclic", "ValueError"),
        ("noted", "ValueError"),
    ],
)
def test_whatever_execute_raises_is_a_failed_call_and_the_worker_stays(faulty, what, remote):
    error = faulty().fails(PluginFailed, "raise_", what=what, stays=True)
    assert error.remote_type == remote
    assert "raise_" in error.remote_traceback
    assert error.phase == "execute"


def test_sys_exit_in_execute_ends_neither_host_nor_worker(faulty):
    faulty().fails(PluginFailed, "sys_exit", code=0, stays=True)


def test_endless_recursion_is_a_failed_call_and_the_worker_stays(faulty):
    error = faulty().fails(PluginFailed, "recurse", stays=True)
    assert error.remote_type == "RecursionError"
    assert len(error.remote_traceback) < 70_000


def test_a_hundred_leaked_threads_disturb_no_call(faulty):
    bad = faulty()
    before = threading.active_count()
    assert bad.call("leak-threads") == 100
    assert bad.call("fine") == "fine"
    bad.neighbour_answers()
    if bad.isolation == "process":
        assert threading.active_count() <= before + 1


@pytest.mark.parametrize(
    "what",
    [
        "object()",
        "lambda: 1",
        "{1: 2}[1] and {(1, 2): 3}",
        "float('nan')",
        "[float('inf')]",
        "10 ** 400",
        "'\\ud800'",
        "{'\\udfff': 1}",
        "[set(), b'beside what is no data', object()]",
        "__import__('functools').reduce(lambda inner, _: [inner], range(100_000), [])",
        "(lambda loop: loop.append(loop) or loop)([])",
        "ctx",
        "__import__('io').BytesIO()",
        "type('Sly', (), {'__reduce__': lambda self: (print, ('gadget',))})()",
        "(_ for _ in ())",
    ],
)
def test_an_answer_that_is_no_data_is_an_invalid_response_and_the_worker_stays(faulty, what):
    faulty().fails(InvalidResponse, "answer", what=what, stays=True)


def test_an_answer_above_the_size_limit_is_an_invalid_response_and_the_worker_stays(faulty):
    error = faulty(max_message_mb=1).fails(InvalidResponse, "answer", what="'x' * (1 << 20)", stays=True)
    assert "bytes" in str(error)


def test_an_answer_with_very_many_keys_crosses(faulty):
    assert len(faulty().call("answer", what="{str(i): i for i in range(100_000)}")) == 100_000


TYPED = """
    from typing import TypedDict

    class Answer(TypedDict):
        number: int

    class P:
        def execute(self, ctx, request) -> Answer:
            return eval(request)
"""


@pytest.mark.parametrize(
    "what", ["{}", "{'number': '1'}", "{'number': True}", "{'number': 1, 'more': 2}", "None", "[1]", "3", "{'number': 1.5}"]
)
def test_an_answer_of_another_type_than_promised_is_an_invalid_response(install, host, isolation, what):
    install("typed", TYPED)
    host.load("typed", isolation=isolation)
    with pytest.raises(InvalidResponse) as caught:
        host.execute("typed", what)
    assert caught.value.errors
    assert host.execute("typed", "{'number': 7}") == {"number": 7}


@pytest.mark.parametrize(
    "canary",
    [
        "__import__('pickle').dumps(Gadget()).hex()",
        "'!!python/object/apply:os.mkdir ' + {place!r}",
        "{'py/reduce': [{'py/type': 'os.mkdir'}, {'py/tuple': [{place!r}]}]}",
        "{'__class__': 'os.mkdir', '__reduce__': [{place!r}]}",
        "{'$type': 'System.Diagnostics.Process', 'dtype': 'O'}",
    ],
)
def test_an_answer_that_looks_like_code_is_only_data(install, host, isolation, tmp_path, canary):
    place = tmp_path / "canary"
    install(
        "sly",
        f"""
        import os
        class Gadget:
            def __reduce__(self):
                return os.mkdir, ({str(place)!r},)
        class P:
            def execute(self, ctx, request):
                return eval(request)
        """,
    )
    host.load("sly", isolation=isolation)
    answer = host.execute("sly", canary.replace("{place!r}", repr(str(place))))
    assert isinstance(answer, (str, dict))
    assert not place.exists()
