"""The contract, stated once and run over every backend, a toy one that only this file knows included."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import hostkit
from hostkit._backends import BACKENDS
from hostkit._backends._inprocess import InProcess
from hostkit._raised import invalid_request, invalid_response
from hostkit._shape import UNTYPED
from hostkit._worker._data import DataError


class Toy:
    """A backend that runs the plugin on a thread of its own and passes nothing but JSON text to it."""

    def __init__(self, opening):
        self._name = opening.name
        self._inner = InProcess(opening)
        self._thread = ThreadPoolExecutor(8, thread_name_prefix="toy")
        self.kind, self.hooks = self._inner.kind, self._inner.hooks

    def call(self, context, request, shape):
        data = json.loads(self._encoded(context, request, shape))
        return self._decoded(context, self._thread.submit(self._inner.call, context, data, UNTYPED).result(), shape)

    async def acall(self, context, request, shape):
        data = json.loads(self._encoded(context, request, shape))
        try:
            return self._decoded(context, await self._inner.acall(context, data, UNTYPED), shape)
        except asyncio.CancelledError:
            context._cancelled = True
            raise

    def stream(self, context, request, shape):
        for item in self._inner.stream(context, json.loads(self._encoded(context, request, shape)), UNTYPED):
            yield self._decoded(context, item, shape)

    async def astream(self, context, request, shape):
        async for item in self._inner.astream(context, json.loads(self._encoded(context, request, shape)), UNTYPED):
            yield self._decoded(context, item, shape)

    def call_hook(self, context, name, arguments, crossing):
        return self._inner.call_hook(context, name, arguments, crossing)

    def ask_health(self, deadline):
        return self._inner.ask_health(deadline)

    @property
    def settings_shown(self):
        return self._inner.settings_shown

    def vitals(self):
        return self._inner.vitals()

    def info(self, deadline):
        return self._inner.info(deadline)

    def close(self, deadline):
        try:
            self._inner.close(deadline)
        finally:
            self._thread.shutdown()

    def _encoded(self, context, request, shape):
        try:
            return shape.encode(request)
        except DataError as error:
            raise invalid_request(error.rows, plugin=self._name, request_id=context.request_id) from None

    def _decoded(self, context, answer, shape):
        try:
            return shape.decode(json.dumps(answer).encode())
        except DataError as error:
            raise invalid_response(error.rows, plugin=self._name, request_id=context.request_id) from None


@pytest.fixture(params=[*BACKENDS, "toy"])
def place(request, monkeypatch):
    monkeypatch.setitem(BACKENDS, "toy", Toy)
    return request.param


@pytest.fixture
def load(install, host, place):
    """Install a plugin from its source and load it in this place; returns the host."""

    def make(source, name="p", **options):
        install(name, source, **options)
        host.load(name, isolation=place)
        return host

    return make


ADDER = """
    from pydantic import BaseModel
    from hostkit import Plugin

    class Request(BaseModel):
        a: int
        b: int = 0

    class Response(BaseModel):
        sum: int

    class P(Plugin[Request, Response]):
        def execute(self, ctx, request):
            return Response(sum=request.a + request.b)
"""


class Request(BaseModel):
    a: int
    b: int = 0


class Response(BaseModel):
    sum: int


@dataclass
class SumRecord:
    sum: int


class SumDict(TypedDict):
    sum: int


# Results


def test_untyped_in_is_json_data_out(load):
    assert load(ADDER).execute("p", {"a": 1, "b": 2}) == {"sum": 3}


def test_typed_in_is_typed_out(load):
    handle = load(ADDER).plugin("p", Request, Response)
    assert handle.execute(Request(a=1, b=2)) == Response(sum=3)


def test_a_model_may_be_sent_by_an_untyped_caller(load):
    assert load(ADDER).execute("p", Request(a=1, b=2)) == {"sum": 3}


@pytest.mark.parametrize(("kind", "expected"), [(SumRecord, SumRecord(3)), (SumDict, {"sum": 3}), (dict, {"sum": 3})])
def test_the_response_type_is_the_callers(load, kind, expected):
    handle = load(ADDER).plugin("p", dict, kind)
    assert handle.execute({"a": 1, "b": 2}) == expected


def test_an_answer_that_is_not_what_the_caller_expects_is_an_invalid_response(load):
    class Other(BaseModel):
        total: int

    with pytest.raises(hostkit.InvalidResponse, match="total: expected this field, found nothing") as caught:
        load(ADDER).plugin("p", Request, Other).execute(Request(a=1))
    assert caught.value.errors == [{"path": "total", "expected": "this field", "found": "nothing"}]


@pytest.mark.parametrize(
    "source",
    [
        """
        from dataclasses import dataclass

        @dataclass
        class Point:
            x: int
            y: int = 5

        class P:
            def execute(self, ctx, request: Point) -> Point:
                return Point(request.y, request.x)
        """,
        """
        from typing import TypedDict

        class Point(TypedDict, total=False):
            x: int
            y: int

        class P:
            def execute(self, ctx, request: Point) -> Point:
                return {"x": request.get("y", 5), "y": request["x"]}
        """,
        """
        class P:
            def execute(self, ctx, request):
                return {"x": request.get("y", 5), "y": request["x"]}
        """,
        """
        from __future__ import annotations

        class P:
            async def execute(self, ctx, request: dict[str, int]) -> dict[str, int]:
                return {"x": request.get("y", 5), "y": request["x"]}
        """,
    ],
    ids=["dataclass", "TypedDict", "plain data", "async"],
)
def test_every_kind_of_request_type_works(load, source):
    assert load(source).execute("p", {"x": 1}) == {"x": 5, "y": 1}


def test_what_a_plugin_keeps_and_changes_later_changes_no_answer(load):
    host = load("""
        class P:
            def __init__(self):
                self.seen = []

            def execute(self, ctx, request):
                self.seen.append(request)
                return self.seen
    """)
    first = host.execute("p", [1])
    host.execute("p", [2])
    assert first == [[1]]


def test_python_data_arrives_as_the_json_data_that_it_is(load):
    host = load("class P:\n    def execute(self, ctx, request): return {1: (request, None, True)}\n")
    assert host.execute("p", {"t": (1, 2)}) == {"1": [{"t": [1, 2]}, None, True]}


# Shapes of a call


def test_a_submitted_call_is_a_future(load):
    assert load(ADDER).submit("p", {"a": 2}).result(10) == {"sum": 2}


def test_a_submitted_failure_is_in_the_future(load):
    assert isinstance(load(ADDER).submit("p", {"a": "x"}).exception(10), hostkit.InvalidRequest)


def test_a_call_can_be_awaited(load):
    host = load(ADDER)

    async def several():
        return await asyncio.gather(*(host.aexecute("p", {"a": n}) for n in range(20)))

    assert asyncio.run(several()) == [{"sum": n} for n in range(20)]


STREAMS = {
    "generator": """
        class P:
            def execute(self, ctx, request):
                for n in range(request):
                    yield {"n": n}
    """,
    "async generator": """
        import asyncio
        class P:
            async def execute(self, ctx, request):
                for n in range(request):
                    await asyncio.sleep(0)
                    yield {"n": n}
    """,
}


@pytest.mark.parametrize("source", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_iterated_item_by_item(load, source):
    assert list(load(source).stream("p", 3)) == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("source", STREAMS.values(), ids=STREAMS)
def test_a_stream_can_be_awaited_item_by_item(load, source):
    host = load(source)

    async def collect():
        return [item async for item in host.astream("p", 3)]

    assert asyncio.run(collect()) == [{"n": 0}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize("source", STREAMS.values(), ids=STREAMS)
def test_a_stream_that_is_left_early_leaves_the_plugin_usable(load, source):
    host = load(source)
    items = host.stream("p", 1_000_000)
    assert next(items) == {"n": 0}
    items.close()
    assert list(host.stream("p", 1)) == [{"n": 0}]


def test_a_typed_stream_yields_typed_items(load):
    class Item(BaseModel):
        n: int

    assert list(load(STREAMS["generator"]).plugin("p", int, Item).stream(2)) == [Item(n=0), Item(n=1)]


def test_a_plugin_that_does_not_stream_gives_one_item(load):
    assert list(load(ADDER).stream("p", {"a": 1})) == [{"sum": 1}]


def test_execute_on_a_stream_says_what_to_call(load):
    with pytest.raises(hostkit.InvalidRequest, match=r"call stream\(\)"):
        load(STREAMS["generator"]).execute("p", 3)


def test_an_error_in_the_middle_of_a_stream_comes_after_the_items_before_it(load):
    host = load("class P:\n    def execute(self, ctx, request):\n        yield 1\n        raise ValueError('no more')\n")
    items = host.stream("p", None)
    assert next(items) == 1
    with pytest.raises(hostkit.PluginFailed, match="no more"):
        next(items)
    assert next(host.stream("p", None)) == 1


def test_many_threads_call_at_once_and_each_gets_its_own_answer(load):
    handle = load(ADDER).plugin("p", Request, Response)
    wrong = []

    def caller(number):
        wrong.extend(n for n in range(20) if handle.execute(Request(a=number, b=n)).sum != number + n)

    threads = [threading.Thread(target=caller, args=(number * 1000,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# The context

CONTEXT = """
    class P:
        def execute(self, ctx, request):
            left = ctx.remaining()
            ctx.logger.info("working on %s", request)
            return {
                "request_id": ctx.request_id, "timeout": ctx.timeout, "left": left is None or 0 < left <= ctx.timeout,
                "max_retries": ctx.max_retries, "attempt": ctx.attempt, "headers": dict(ctx.headers),
                "metadata": dict(ctx.metadata), "cancelled": ctx.cancelled,
            }
"""


def test_the_context_has_what_the_caller_passed(load):
    seen = load(CONTEXT).execute("p", 1, timeout=9, headers={"h": "1"}, metadata={"m": [1]}, request_id="my-request", max_retries=2)
    assert seen == {
        "request_id": "my-request",
        "timeout": 9,
        "left": True,
        "max_retries": 2,
        "attempt": 1,
        "headers": {"h": "1"},
        "metadata": {"m": [1]},
        "cancelled": False,
    }


def test_the_context_of_a_bare_call_has_an_id_of_its_own_and_the_default_timeout(load):
    host = load(CONTEXT)
    first, second = host.execute("p", 1), host.execute("p", 1)
    assert first["request_id"] != second["request_id"]
    assert first["timeout"] == 30.0
    assert (first["headers"], first["metadata"], first["max_retries"]) == ({}, {}, 0)


def test_an_infinite_timeout_is_no_limit(load):
    assert load(CONTEXT).execute("p", 1, timeout=float("inf"))["timeout"] is None


def test_a_logged_line_arrives_with_plugin_and_request_id(load, log):
    host = load(CONTEXT)
    host.execute("p", "x", request_id="r-1")
    host.close()
    assert [(row["plugin"], row["request_id"], row["level"]) for row in log if row["text"] == "working on x"] == [
        ("p", "r-1", "INFO")
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": -1},
        {"timeout": float("nan")},
        {"headers": {"a": 1}},
        {"metadata": {"a": object()}},
        {"request_id": ""},
        {"request_id": "a\nb"},
        {"max_retries": -1},
    ],
    ids=["negative", "NaN", "headers", "metadata", "no id", "id of two lines", "retries"],
)
def test_call_options_that_are_wrong_are_refused(load, options):
    with pytest.raises(hostkit.InvalidRequest):
        load(CONTEXT).execute("p", 1, **options)


# Errors

RAISES = """
    class Odd(Exception):
        def __init__(self, code, *more):
            super().__init__(code, *more)
            self.code = code
            self.add_note("look it up")

    def deeper(request):
        raise {"value": ValueError("bad"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "odd": Odd(7)}[request]

    class P:
        def execute(self, ctx, request):
            try:
                deeper(request)
            except BaseException as error:
                raise error from LookupError("the reason")
"""


@pytest.mark.parametrize(
    ("request_", "remote_type", "message"),
    [
        ("value", "ValueError", "bad"),
        ("exit", "SystemExit", "3"),
        ("interrupt", "KeyboardInterrupt", ""),
        ("odd", "p.Odd", "7"),
    ],
)
def test_what_a_plugin_raises_is_told_as_text(load, request_, remote_type, message):
    host = load(RAISES)
    with pytest.raises(hostkit.PluginFailed) as caught:
        host.execute("p", request_, request_id="r-2")
    error = caught.value
    assert (error.remote_type, error.remote_message) == (remote_type, message)
    assert (error.plugin, error.request_id, error.phase, error.retryable) == ("p", "r-2", "execute", False)
    assert "LookupError: the reason" in error.remote_traceback
    assert "direct cause" in error.remote_traceback
    assert "deeper(request)" in error.remote_traceback
    assert ("look it up" in error.remote_traceback) == (request_ == "odd")
    assert "hostkit/_" not in error.remote_traceback
    assert str(error).startswith(f"plugin 'p' raised {remote_type}")


@pytest.mark.parametrize(
    ("request_", "errors"),
    [
        ({"a": "x"}, [{"path": "a", "expected": "a valid integer, unable to parse string as an integer", "found": "'x'"}]),
        ({}, [{"path": "a", "expected": "this field", "found": "nothing"}]),
        ({"a": 1, "bb": 2}, [{"path": "bb", "expected": "a known field (did you mean 'b'?)", "found": "2"}]),
        ({"a": float("nan")}, [{"path": "a", "expected": "a finite number", "found": "nan"}]),
        ({"a": 1, "b": {1, 2}.__len__}, None),
        ({"a": "\ud800"}, None),
        ({"a": 10**400}, None),
        ([1], None),
    ],
    ids=["mistyped", "missing", "unknown", "NaN", "no data", "lone surrogate", "huge", "wrong shape"],
)
def test_a_request_that_is_wrong_never_reaches_the_plugin(load, request_, errors):
    with pytest.raises(hostkit.InvalidRequest) as caught:
        load(ADDER).execute("p", request_)
    assert caught.value.phase == "request"
    assert caught.value.errors
    assert errors is None or caught.value.errors == errors


@pytest.mark.parametrize(
    "answer", ["object()", "{'sum': 'x'}", "{}", "{'sum': float('nan')}", "'\\ud800'", "b'x'", "[float('inf')]"]
)
def test_an_answer_that_was_not_promised_is_an_invalid_response(load, answer):
    host = load(ADDER.replace("return Response(sum=request.a + request.b)", f"return {answer}"))
    for _ in range(2):
        with pytest.raises(hostkit.InvalidResponse) as caught:
            host.execute("p", {"a": 1})
        assert caught.value.phase == "response"


def test_data_nested_too_deep_is_refused_and_the_plugin_stays(load):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    host = load("class P:\n    def execute(self, ctx, request): return request\n")
    with pytest.raises(hostkit.InvalidRequest, match="nested"):
        host.execute("p", deep)
    assert host.execute("p", 1) == 1


def test_a_request_above_the_size_limit_is_refused(install, new_host, place):
    install("p", "class P:\n    def execute(self, ctx, request): return len(request)\n")
    host = new_host(config={"defaults": {"max_message_mb": 1}})
    host.load("p", isolation=place)
    if place != "toy":
        with pytest.raises(hostkit.InvalidRequest, match="at most 1048576 bytes"):
            host.execute("p", "x" * (1 << 20))
    assert host.execute("p", "x" * 1_000_000) == 1_000_000


def test_a_timeout_of_zero_has_passed_already(load):
    with pytest.raises(hostkit.CallTimeout) as caught:
        load(ADDER).execute("p", {"a": 1}, timeout=0)
    assert caught.value.phase == "queue"


FLAKY = """
    from hostkit import RetryableError

    class P:
        def execute(self, ctx, request):
            if ctx.attempt < request:
                raise RetryableError("not yet")
            return ctx.attempt
"""


def test_a_retryable_error_is_repeated_as_often_as_the_caller_allows(install, new_host, place):
    install("p", FLAKY)
    host = new_host(config={"defaults": {"retry": {"attempts": 1, "wait": "1ms"}}})
    host.load("p", isolation=place)
    assert host.execute("p", 3, max_retries=2) == 3
    with pytest.raises(hostkit.PluginFailed) as caught:
        host.execute("p", 3, max_retries=1)
    assert caught.value.retryable


def test_an_ordinary_error_is_never_repeated(load):
    host = load("""
        class P:
            def __init__(self):
                self.calls = 0
            def execute(self, ctx, request):
                self.calls += 1
                if request == "fail":
                    raise ValueError
                return self.calls
    """)
    with pytest.raises(hostkit.PluginFailed):
        host.execute("p", "fail", max_retries=5)
    assert host.execute("p", "count") == 2


def test_the_operators_rate_is_held(install, new_host, place):
    install("p", ADDER)
    host = new_host(config={"plugins": {"p": {"rate": {"per_second": 0.001, "burst": 2}}}})
    host.load("p", isolation=place)
    host.execute("p", {"a": 1})
    host.execute("p", {"a": 1})
    with pytest.raises(hostkit.RateLimited) as caught:
        host.execute("p", {"a": 1})
    assert 900 < caught.value.retry_after <= 1000


# Health, info, close


def test_a_plugin_that_says_nothing_is_healthy_and_named_by_its_distribution(load):
    host = load("class P:\n    def execute(self, ctx, request): ...\n", version="2.5")
    assert host.health("p").status is hostkit.Status.HEALTHY
    info = host.info("p")
    assert (info.name, info.version) == ("p", "2.5")


TALKS = """
    from hostkit import HealthStatus, Plugin, PluginInfo, Status

    class P(Plugin):
        def execute(self, ctx, request): ...
        def health(self):
            return HealthStatus(Status.DEGRADED, "cache only", metadata={"cache": 3})
        def info(self):
            return PluginInfo("renamed", "9.9", "what it does", "who", ("a", "b"), {"k": "v"})
"""


def test_a_plugin_speaks_for_itself(load):
    host = load(TALKS)
    status = host.health("p")
    assert (status.status, status.message, status.metadata) == (hostkit.Status.DEGRADED, "cache only", {"cache": 3})
    assert 0 < status.response_time < 5
    info = host.info("p")
    assert (info.name, info.version, info.description, info.author, info.capabilities) == (
        "renamed",
        "9.9",
        "what it does",
        "who",
        ("a", "b"),
    )
    assert info.metadata["k"] == "v"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("raise RuntimeError('database gone')", "UNHEALTHY", "database gone"),
        ("raise SystemExit(1)", "UNHEALTHY", "SystemExit"),
        ("return 42", "UNKNOWN", "42"),
        ("return 'degraded'", "DEGRADED", ""),
        ("return {'status': 'offline', 'message': 'm'}", "OFFLINE", "m"),
    ],
)
def test_bad_health_is_an_answer_and_not_an_error(load, body, status, words):
    answer = load(f"class P:\n    def execute(self, ctx, request): ...\n    def health(self): {body}\n").health("p")
    assert answer.status is hostkit.Status[status]
    assert words in answer.message


def test_health_of_all_loaded_plugins_is_by_name(load):
    load(ADDER, "one")
    host = load(ADDER, "two")
    assert list(host.health()) == ["one", "two"]


def test_async_health_info_and_close_are_awaited(load):
    host = load("""
        import asyncio
        class P:
            async def execute(self, ctx, request): return 1
            async def health(self):
                await asyncio.sleep(0)
                return "degraded"
            async def info(self): return {"name": "async"}
            async def close(self): await asyncio.sleep(0)
    """)
    assert host.execute("p", None) == 1
    assert host.health("p").status is hostkit.Status.DEGRADED
    assert host.info("p").name == "async"


def test_close_is_called_once_and_in_reverse_order_of_loading(install, host, place, tmp_path):
    notes = tmp_path / "notes"
    for name in ("one", "two"):
        install(
            name,
            f"""
            class P:
                def execute(self, ctx, request): ...
                def close(self):
                    with open({str(notes)!r}, "a") as file:
                        file.write("{name} ")
        """,
        )
        host.load(name, isolation=place)
    host.close()
    host.close()
    assert notes.read_text() == "two one "


def test_a_closed_host_refuses(load):
    host = load(ADDER)
    host.close()
    with pytest.raises(hostkit.PluginClosed):
        host.execute("p", {"a": 1})


@pytest.mark.parametrize("body", ["raise RuntimeError('stuck')", "raise SystemExit"])
def test_a_close_that_raises_closes_all_the_same_and_is_logged(load, log, body):
    host = load(f"class P:\n    def execute(self, ctx, request): ...\n    def close(self): {body}\n")
    host.close()
    assert any("did not close in order" in row["text"] for row in log)


# Lifecycle


def test_a_plugin_is_loaded_by_its_first_call(install, host, log):
    install("p", ADDER)
    assert not any("loaded" in row["text"] for row in log)
    host.execute("p", {"a": 1})
    assert any("loaded" in row["text"] for row in log)


def test_an_unloaded_plugin_starts_anew_with_its_next_call(load):
    host = load("""
        class P:
            def __init__(self):
                self.calls = 0
            def execute(self, ctx, request):
                self.calls += 1
                return self.calls
    """)
    assert [host.execute("p", None), host.execute("p", None)] == [1, 2]
    host.unload("p")
    assert host.execute("p", None) == 1


def test_a_drained_plugin_takes_no_calls_until_it_is_reloaded(load, place):
    host = load(ADDER)
    assert host.drain("p", 5)
    with pytest.raises(hostkit.Draining):
        host.execute("p", {"a": 1})
    host.reload("p", isolation=place)
    assert host.execute("p", {"a": 1}) == {"sum": 1}


def test_a_reload_under_traffic_loses_no_call(load, place):
    host = load(ADDER)
    done = threading.Event()
    answered, failed = [], []

    def caller():
        while not done.is_set():
            try:
                answered.append(host.execute("p", {"a": 1})["sum"])
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for isolation in (place, "none", place):
        host.reload("p", isolation=isolation)
    done.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert set(answered) == {1}


def test_a_reload_that_fails_leaves_the_old_one_working(load, site, place):
    host = load(ADDER)
    (site / "p" / "plugin.toml").write_text("no_such_key = 1")
    with pytest.raises(hostkit.ManifestError):
        host.reload("p", isolation=place)
    assert host.execute("p", {"a": 1}) == {"sum": 1}


class Registered:
    def execute(self, ctx, request):
        return [request]


def test_a_class_can_be_registered_without_being_installed(host, place):
    class Local:
        def execute(self, ctx, request):
            return [request]

    host.register(Local, name="local", isolation=place)
    assert host.execute("local", 1) == [1]
    with pytest.raises(hostkit.DuplicatePlugin):
        host.register(Local, name="local", isolation=place)


def test_an_object_can_be_registered(host, place):
    host.register(Registered(), name="object", isolation=place)
    assert host.execute("object", 1) == [1]


def test_the_operators_config_reaches_the_constructor(install, new_host, place):
    install(
        "p",
        """
        from dataclasses import dataclass

        @dataclass
        class Config:
            depth: int = 1

        class P:
            def __init__(self, config: Config):
                self.config = config
            def execute(self, ctx, request):
                return self.config.depth
    """,
    )
    host = new_host(config={"plugins": {"p": {"config": {"depth": 4}}}})
    host.load("p", isolation=place)
    assert host.execute("p", None) == 4


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ("raise RuntimeError('at import')", "import", "at import"),
        ("raise SystemExit(0)", "import", "SystemExit"),
        ("raise KeyboardInterrupt", "import", "KeyboardInterrupt"),
        ("import no_such_module_anywhere", "import", "no_such_module_anywhere"),
        ("class Ps: ...", "attribute", "did you mean Ps"),
        ("P = 3", "type", "int"),
        ("class P: ...", "contract", "no execute"),
        ("class P:\n    def execute(self): ...", "contract", "(ctx, request)"),
        ("class P:\n    execute = 3", "contract", "int"),
        ("class P:\n    def __init__(self, db): ...\n    def execute(self, ctx, request): ...", "contract", "needs (db)"),
        ("class P:\n    def __init__(self): 1 / 0\n    def execute(self, ctx, request): ...", "init", "ZeroDivisionError"),
        ("class P:\n    def execute(self, ctx, request: object.__class__): ...", "contract", "nothing that JSON data can be"),
        ("class P:\n    def execute(self, ctx, request: 'NoSuch'): ...", "contract", "NoSuch"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said_when_it_is_loaded(install, host, place, source, kind, words):
    install("p", source)
    with pytest.raises(hostkit.PluginLoadError) as caught:
        host.load("p", isolation=place)
    assert caught.value.kind == kind
    assert words in str(caught.value)
    assert caught.value.plugin == "p"


json_data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


def test_any_json_data_comes_back_the_same_from_every_place(load):
    host = load("class P:\n    def execute(self, ctx, request): return request\n")

    @settings(max_examples=50)
    @given(json_data)
    def comes_back(data):
        assert host.execute("p", data) == data

    comes_back()
