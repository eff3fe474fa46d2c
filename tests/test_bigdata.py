"""Blobs and arrays through whole calls: the same in every mode, fast in a worker, and whatever the worker does to them."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel

import hostkit
from hostkit import Array, Blob, InvalidRequest, InvalidResponse, ProtocolError

SANDBOX = "standard"

numpy = pytest.importorskip("numpy")

MB = 1 << 20


class Request(BaseModel):
    what: str = "echo"
    data: Blob = b""
    pixels: Array | None = None
    many: list[Blob] = []


class Response(BaseModel):
    data: Blob = b""
    pixels: Array[numpy.float64] | None = None
    many: list[Blob] = []


PLUGIN = """
import os, signal, sys, time
from typing import Optional
from pydantic import BaseModel
from hostkit import Array, Blob, Plugin, empty_array
import hostkit._worker._arena as arena

class Request(BaseModel):
    what: str = "echo"
    data: Blob = b""
    pixels: Optional[Array] = None
    many: list[Blob] = []

class Response(BaseModel):
    data: Blob = b""
    pixels: Optional[Array] = None
    many: list[Blob] = []

KEPT = []
PLACE = []

class P(Plugin[Request, Response]):
    def execute(self, ctx, request: Request) -> Response:
        return getattr(self, request.what)(ctx, request)

    def echo(self, ctx, request):
        return Response(data=request.data, pixels=request.pixels, many=request.many)

    def keep(self, ctx, request):
        KEPT.append(request)
        return Response(data=bytes([len(KEPT) % 256]))

    def kept(self, ctx, request):
        return Response(many=[each.data for each in KEPT])

    def raises(self, ctx, request):
        raise ValueError("no")

    def dies(self, ctx, request):
        os.kill(os.getpid(), signal.SIGKILL)

    def wait(self, ctx, request):
        while not ctx.cancelled:
            time.sleep(0.005)
        time.sleep(0.1)  # its own deadline and the caller's are not the same moment
        return Response(data=request.data)

    def writes(self, ctx, request):
        try:
            request.pixels[0] = 1
        except ValueError as error:
            return Response(data=str(error).encode())
        return Response(data=b"written")

    def wrong(self, ctx, request):
        return Response(pixels=request.pixels.astype("int16"))

    def mapped(self, ctx, request):
        if not PLACE:
            PLACE.append(empty_array(1 << 18))
            PLACE[0][:] = 7
        return Response(pixels=PLACE[0])

    def later(self, ctx, request):
        PLACE[0][0] += 1
        return Response()

    def truncates(self, ctx, request):
        told = []
        for name in os.listdir("/proc/self/fd"):
            try:
                if "memfd:hostkit " in os.readlink("/proc/self/fd/" + name):
                    os.ftruncate(int(name), 0)
            except OSError as error:
                told += [error.errno] if error.errno != 2 else []
        return Response(data=bytes(sorted(set(told))))
"""

STREAMS = """
from pydantic import BaseModel
from hostkit import Blob

class Request(BaseModel):
    data: Blob
    count: int

class Item(BaseModel):
    data: Blob

class P:
    def execute(self, ctx, request: Request):
        for number in range(request.count):
            yield Item(data=bytes([number % 256]) * len(request.data))
"""


@pytest.fixture
def called(install: Any, host: hostkit.Host, isolation: str) -> Any:
    """Call the plugin of this file with types, in every mode."""
    install("p", PLUGIN)
    host.load("p", isolation=isolation)
    handle = host.plugin("p", Request, Response)
    yield lambda **fields: handle.execute(Request(**fields))
    gc.collect()


@pytest.fixture
def worker(install: Any, host: hostkit.Host) -> Any:
    """The same in a worker."""
    install("p", PLUGIN)
    host.load("p", isolation="process")
    handle = host.plugin("p", Request, Response)
    yield lambda **fields: handle.execute(Request(**fields))
    gc.collect()


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 3 * MB])
def test_bytes_and_arrays_come_back_as_they_were(called: Any, size: int) -> None:
    data = os.urandom(size)
    pixels = numpy.arange(size, dtype="float64").reshape(-1, 1)
    got = called(data=data, pixels=pixels, many=[data, b"x", bytearray(b"yz")])
    assert got.data == data
    assert (got.pixels == pixels).all()
    assert got.pixels.shape == (size, 1)
    assert [bytes(each) for each in got.many] == [data, b"x", b"yz"]


def test_plain_data_with_bytes_and_arrays_is_the_same_in_every_mode(install: Any, host: hostkit.Host, isolation: str) -> None:
    install("p", "class P:\n    def execute(self, ctx, request):\n        return {'back': request, 'size': len(request['data'])}\n")
    host.load("p", isolation=isolation)
    got = host.execute("p", {"data": b"abc", "in": [{"it": numpy.eye(2)}], "large": bytearray(MB)})
    assert got["size"] == 3
    assert bytes(got["back"]["data"]) == b"abc"
    assert isinstance(got["back"]["data"], memoryview)
    assert got["back"]["in"][0]["it"].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert got["back"]["large"] == bytes(MB)


def test_an_untyped_caller_gets_views_and_a_typed_plugin_takes_plain_bytes(
    install: Any, host: hostkit.Host, isolation: str
) -> None:
    install("p", PLUGIN)
    host.load("p", isolation=isolation)
    got = host.execute("p", {"data": b"a" * MB, "pixels": numpy.ones(3)})
    assert got["data"] == b"a" * MB
    assert got["pixels"].tolist() == [1.0, 1.0, 1.0]
    assert host.execute("p", {"data": "/wA="})["data"] == b"\xff\x00", "base64, where there is nothing but JSON"


def test_a_request_is_read_only_in_every_mode(called: Any) -> None:
    assert b"read-only" in bytes(called(what="writes", pixels=numpy.zeros(3)).data)


def test_a_request_of_the_wrong_type_is_told_alike(called: Any, host: hostkit.Host) -> None:
    with pytest.raises(InvalidRequest, match="a numpy array, found"):
        host.execute("p", {"pixels": "text"})
    with pytest.raises(InvalidRequest, match="bytes, a bytearray or a memoryview, found"):
        host.execute("p", {"data": 5})


def test_an_answer_of_the_wrong_element_type_is_an_invalid_response_and_the_worker_stays(worker: Any) -> None:
    with pytest.raises(InvalidResponse, match="pixels: expected a numpy array of float64, found an array of int16 in 1 dim"):
        worker(what="wrong", pixels=numpy.zeros(3))
    assert worker(data=b"x").data == b"x"


def test_what_is_over_the_operators_limit_is_refused_by_name(install: Any, new_host: Any, site: Path, isolation: str) -> None:
    install("p", PLUGIN)
    host = new_host(config={"plugins": {"p": {"max_buffers_mb": 1, "isolation": isolation}}})
    host.load("p", isolation=isolation)
    with pytest.raises(InvalidRequest, match="max_buffers_mb"):
        host.execute("p", {"data": bytes(MB + 1)})
    assert len(host.execute("p", {"data": bytes(MB)})["data"]) == MB
    with pytest.raises(InvalidResponse, match="max_buffers_mb"):
        host.execute("p", {"what": "mapped"})


def test_a_small_limit_on_json_does_not_hold_buffers(install: Any, new_host: Any, site: Path, isolation: str) -> None:
    install("p", PLUGIN)
    host = new_host(config={"plugins": {"p": {"max_message_mb": 1}}})
    host.load("p", isolation=isolation)
    assert len(host.execute("p", {"data": bytes(5 * MB)})["data"]) == 5 * MB


def test_a_caller_may_keep_a_thousand_answers(worker: Any) -> None:
    kept = [worker(data=number.to_bytes(2, "big") * 40_000).data for number in range(1000)]
    assert [int.from_bytes(view[:2], "big") for view in kept] == list(range(1000))


def test_a_plugin_may_keep_its_requests(worker: Any) -> None:
    for number in range(100):
        worker(what="keep", data=bytes([number]) * 70_000)
    assert [view[0] for view in worker(what="kept").many] == list(range(100))


def test_views_stay_what_they_are_when_the_host_is_closed(worker: Any, host: hostkit.Host) -> None:
    answer = worker(data=b"x" * MB)
    host.close()
    gc.collect()
    assert bytes(answer.data) == b"x" * MB


def test_views_stay_what_they_are_when_the_worker_dies_and_the_next_one_has_its_own_memory(worker: Any) -> None:
    answer = worker(data=b"x" * MB)
    for _ in range(2):
        with pytest.raises(hostkit.WorkerKilled):
            worker(what="dies", data=b"y" * MB)
    assert bytes(worker(data=b"z" * MB).data) == b"z" * MB
    assert bytes(answer.data) == b"x" * MB


def test_views_can_be_read_in_a_fork(worker: Any) -> None:
    answer = worker(data=b"x" * MB)
    pid = os.fork()
    if not pid:
        os._exit(0 if bytes(answer.data) == b"x" * MB else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert bytes(worker(data=b"z" * MB).data[:1]) == b"z"


def test_a_plugin_that_raises_gives_its_request_back(install: Any, new_host: Any) -> None:
    install("p", PLUGIN)
    host = new_host(config={"plugins": {"p": {"breaker": False}}})
    host.load("p", isolation="process")
    for _ in range(20):
        with pytest.raises(hostkit.PluginFailed):
            host.plugin("p", Request, Response).execute(Request(what="raises", data=bytes(MB)))
    assert _link(host).arena.total <= 4 * MB


def test_memory_is_reused_from_call_to_call(worker: Any, host: hostkit.Host) -> None:
    for _ in range(30):
        answer = worker(data=bytes(3 * MB), pixels=numpy.zeros(100_000))
    assert len(answer.data) == 3 * MB
    assert _link(host).arena.total <= 20 * MB


def test_an_answer_in_memory_that_the_plugin_allocated_is_not_copied(worker: Any, host: hostkit.Host) -> None:
    first, second = worker(what="mapped"), worker(what="mapped")
    assert first.pixels.tolist() == second.pixels.tolist() == [7.0] * (1 << 18)
    assert _link(host).arena.total == 2 * MB
    worker(what="later")
    assert first.pixels[0] == 8.0, "so the worker can still write it: whoever decides by it takes a copy"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no memfd")
def test_a_worker_can_not_truncate_what_the_host_reads(worker: Any) -> None:
    answer = worker(data=b"x" * MB)
    told = bytes(worker(what="truncates", data=b"y" * MB).data)
    # Later interpreters keep no descriptor at all.
    assert told in (b"\x01", b"")
    assert bytes(answer.data) == b"x" * MB


@pytest.mark.parametrize("size", [10_000, 3 * MB])
def test_a_stream_of_blobs_arrives_whole_and_in_order(install: Any, host: hostkit.Host, isolation: str, size: int) -> None:
    install("s", STREAMS)
    host.load("s", isolation=isolation)
    seen = [
        (view[0], view[-1], len(view)) for view in (item["data"] for item in host.stream("s", {"data": bytes(size), "count": 40}))
    ]
    assert seen == [(number, number, size) for number in range(40)]
    gc.collect()


def test_a_stream_that_nobody_reads_on_stays_within_its_memory(install: Any, host: hostkit.Host) -> None:
    install("s", STREAMS)
    host.load("s", isolation="process")
    stream = host.stream("s", {"data": bytes(2 * MB), "count": 60})
    kept = [next(stream)["data"]]
    assert _link(host, "s").arena.total <= 16 * MB
    for number, item in enumerate(stream, 1):
        assert item["data"][0] == number
        assert _link(host, "s").arena.total <= 16 * MB
    del kept, stream
    gc.collect()


def test_a_stream_that_is_left_gives_its_memory_back(install: Any, host: hostkit.Host) -> None:
    install("s", STREAMS)
    host.load("s", isolation="process")
    for _ in range(5):
        stream = host.stream("s", {"data": bytes(MB), "count": 20})
        assert next(stream)["data"][0] == 0
        stream.close()
    assert _link(host, "s").arena.total <= 80 * MB
    gc.collect()


@pytest.mark.parametrize("shared", [True, False], ids=["in shared memory", "through the channel"])
def test_a_hundred_megabytes_that_are_cancelled_leave_the_channel_in_order(
    install: Any, new_host: Any, site: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    install("p", PLUGIN)
    if not shared:
        monkeypatch.setattr("hostkit._arena._sealed", _no_memory)
    host = new_host(config={"plugins": {"p": {"cancel_grace": "10s"}}})
    host.load("p", isolation="process")
    handle = host.plugin("p", Request, Response)
    for timeout in (0.001, 0.05, 0.3):
        with pytest.raises((hostkit.CallTimeout, hostkit.Busy)):
            handle.execute(Request(what="wait", data=bytes(100 * MB)), timeout=timeout)
        assert handle.execute(Request(data=b"next"), timeout=20).data == b"next"
    assert handle.execute(Request(data=b"z" * MB)).data == b"z" * MB


def test_many_callers_get_their_own(install: Any, new_host: Any, site: Path) -> None:
    install("p", PLUGIN)
    host = new_host(config={"plugins": {"p": {"concurrency": 3, "workers": 2}}})
    host.load("p", isolation="process")
    handle = host.plugin("p", Request, Response)
    futures = [handle.submit(Request(data=bytes([number]) * (50_000 + 1000 * number))) for number in range(60)]
    for number, future in enumerate(futures):
        assert future.result(30).data == bytes([number]) * (50_000 + 1000 * number)
    del future, futures
    gc.collect()


def test_tasks_get_their_own(install: Any, host: hostkit.Host, isolation: str) -> None:
    source = PLUGIN.replace("    def execute", "    async def execute")
    install("a", source)
    host.load("a", isolation=isolation)
    handle = host.plugin("a", Request, Response)

    async def all_of_them() -> list[Response]:
        return await asyncio.gather(*(handle.aexecute(Request(data=bytes([number]) * 100_000)) for number in range(40)))

    assert [answer.data[0] for answer in asyncio.run(all_of_them())] == list(range(40))
    gc.collect()


class Sound(TypedDict):
    samples: Array[numpy.int16]


class Hooks:
    @hostkit.hookspec
    def louder(self, sound: Sound, marks: list[Blob]) -> Array[numpy.int16]:
        """Make it louder."""


HOOKED = """
from typing import TypedDict
from hostkit import Array, Blob, hookimpl

class Sound(TypedDict):
    samples: Array["int16"]

class P:
    @hookimpl
    def louder(self, sound: Sound, marks: list[Blob]) -> Array["int16"]:
        assert [bytes(mark) for mark in marks] == [b"one", b"two"]
        return sound["samples"] * 2
"""


def test_hooks_take_and_give_them(install: Any, new_host: Any, site: Path, isolation: str) -> None:
    install("p", HOOKED, group="music.plugins")
    host = new_host("music", hookspecs=[Hooks])
    host.load("p", isolation=isolation)
    for size in (3, 300_000):
        (got,) = host.hook.louder(sound={"samples": numpy.ones(size, dtype="int16")}, marks=[b"one", memoryview(b"two")])
        assert got.sum() == 2 * size
        assert got.dtype == "int16"
    del got
    gc.collect()


FORGER = """
import json, os
from pydantic import BaseModel
from hostkit import Blob, Plugin
from hostkit._worker import _loop

class P:
    def execute(self, ctx, request):
        honest = _loop.packed

        def forged(kind, call_id, payload=b"", **beside):
            _loop.packed = honest
            said = {"meta": request["meta"].encode(), "buffers": request["inline"].encode()}
            return honest(kind, call_id, request["payload"].encode() or payload, **said)

        _loop.packed = forged
        return {}
"""


@pytest.mark.parametrize(
    ("meta", "inline", "payload"),
    [
        ('{"buffers":[[1,0,10]]}', "", ""),
        ('{"buffers":[[0,0,10]]}', "abc", ""),
        ('{"buffers":[[0,-1,1]]}', "abc", ""),
        ('{"buffers":[[0,1,4294967296000]]}', "abc", ""),
        ('{"buffers":"x"}', "", ""),
        ('{"freed":[7]}', "", ""),
        ('{"freed":{}}', "", ""),
        ("no json", "", ""),
        ("[]", "", ""),
        ('{"buffers":[[0,0,3]]}', "abc", '{"a":{"$blob":1}}'),
        ('{"buffers":[[0,0,8]]}', "abcdefgh", '{"a":{"$array":[0,"|O",[1]]}}'),
        ('{"buffers":[[0,0,8]]}', "abcdefgh", '{"a":{"$array":[0,"<f8",[2]]}}'),
        ('{"buffers":[[0,0,8]]}', "abcdefgh", '{"a":{"$array":[0,"<f8",[-1]]}}'),
    ],
)
def test_a_worker_that_forges_places_types_or_shapes_breaks_the_protocol(
    install: Any, host: hostkit.Host, meta: str, inline: str, payload: str
) -> None:
    install("f", FORGER)
    install("neighbour", "class P:\n    def execute(self, ctx, request):\n        return request\n")
    host.load("neighbour", isolation="process")
    host.load("f", isolation="process")
    with pytest.raises(ProtocolError, match="broke the protocol"):
        host.execute("f", {"meta": meta, "inline": inline, "payload": payload})
    assert host.execute("neighbour", 1) == 1
    honest = {"meta": '{"buffers":[[0,0,3]]}', "inline": "abc", "payload": '{"a":{"$blob":0}}'}
    assert bytes(host.execute("f", honest)["a"]) == b"abc"


def test_nothing_that_arrives_as_bytes_is_unpickled(install: Any, host: hostkit.Host, isolation: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    source = f"""
        import pickle
        class Gadget:
            def __reduce__(self):
                return (open, ({str(canary)!r}, "w"))
        class P:
            def execute(self, ctx, request):
                return pickle.dumps(Gadget())
    """
    install("g", source)
    host.load("g", isolation=isolation)
    assert bytes(host.execute("g", None)[:2]) == b"\x80\x04"
    assert not canary.exists()


def test_where_there_is_no_shared_memory_it_goes_through_the_channel(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostkit._arena._sealed", _no_memory)
    assert worker(data=b"x" * 5 * MB).data == b"x" * 5 * MB


def _no_memory(size: int) -> int:
    raise OSError(38, "Function not implemented")


def _link(host: hostkit.Host, name: str = "p") -> Any:
    return host._loader.record(name).lane.backend.supervisor.any_link()


def test_a_plugin_may_allocate_before_it_is_ready(install: Any, host: hostkit.Host, isolation: str) -> None:
    source = """
        from hostkit import empty_array
        class P:
            def __init__(self):
                self.table = empty_array(100_000)
                self.table[:] = 3
            def execute(self, ctx, request):
                return {"table": self.table}
    """
    install("p", source)
    host.load("p", isolation=isolation)
    assert host.execute("p", None)["table"].sum() == 300_000
