"""The dashboard over real connections, without a browser: who gets in, what is shown, and what bad clients and hosts do to it."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import hostkit
from hostkit._attach import Attached, NotRunning, Refused, Running, found
from hostkit._dashboard import _serving
from hostkit._dashboard._app import Dashboard
from hostkit._dashboard._browsers import Mailbox
from hostkit._dashboard._guard import HostNames
from hostkit._dashboard._line import Line
from hostkit._dashboard._points import Points
from hostkit._dashboard._rows import Traffic, Window
from hostkit._dashboard._serving import Serving
from hostkit._meter import BOUNDS, Meter

TOKEN = "the-token-of-this-test-0123456789"
HOSTILE = "</script><img src=x onerror=alert(1)> \x1b[31m \u202e \ud800 \n\nevent: state\ndata: {}\n\n"
API = ("/api/stream", "/api/points", "/api/plugin?name=p", "/api/log?name=p", "/api/events", "/metrics")


class FakeHost:
    """A host that answers as a running one does; ``asked`` has what it was asked to do."""

    def __init__(self) -> None:
        self.pid = 1
        self.app = "demo"
        self.meter = Meter()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.names = ["p"]
        self.description = ""

    def ask(self, verb: str, /, *, within: float = 5.0, **arguments: Any) -> Any:
        assert self.open.wait(20)
        if self.error is not None:
            raise self.error
        if verb == "snapshot":
            return self.snapshot()
        self.asked.append((verb, arguments))
        return {
            "plugin": lambda: {
                "name": HOSTILE,
                "config": {"key": "•••"},
                "errors": [{"message": HOSTILE, "remote_traceback": HOSTILE}],
            },
            "log": lambda: {"entries": [{"text": HOSTILE}], "next": 1, "dropped": 0},
            "events": lambda: {"entries": [], "next": 0, "dropped": 0},
            "metrics": lambda: {"text": "hostkit_calls_total 1.0\n"},
        }.get(verb, lambda: f"{verb} is done")()

    def snapshot(self) -> dict[str, Any]:
        reading = self.meter.reading()
        calls = {"outcomes": dict(reading.outcomes), "seconds": reading.seconds, "buckets": list(reading.buckets)}
        health = {"status": "healthy", "message": HOSTILE, "since": None, "last_check": None}
        plugin = {
            "version": "1",
            "description": self.description,
            "state": "loaded",
            "isolation": "process",
            "sandbox": "",
            "moved": "",
            "in_flight": 0,
            "waiting": 0,
            "breaker": "closed",
            "workers": [],
            "memory": 1,
            "cpu": 0.0,
            "restarts": 0,
            "failed": "",
            "health": health,
            "calls": calls,
        }
        return {
            "app": self.app,
            "pid": self.pid,
            "version": "1",
            "python": "3",
            "at": time.time(),
            "started": 0.0,
            "status": "healthy",
            "message": "",
            "exporters": [],
            "host": {"memory": 1, "cpu": 0.0, "threads": 1},
            "plugins": [{"name": name, **plugin} for name in self.names],
        }


@contextmanager
def serving(host: Any, *, token: str = TOKEN, penalty: float = 0.0, names: HostNames | None = None, **options: Any):
    dashboard = Dashboard(host, **{"interval": 0.02, **options})
    listener = socket.create_server(("127.0.0.1", 0))
    server = Serving(dashboard, listener, token=token, names=names or HostNames(), penalty=penalty)
    server.start()
    try:
        yield Client(listener.getsockname()[1], server, dashboard)
    finally:
        if isinstance(host, FakeHost):
            host.open.set()
        server.close()


class Client:
    """A program that talks to the dashboard; each request on a connection of its own."""

    def __init__(self, port: int, server: Serving, dashboard: Dashboard) -> None:
        self.port, self.server, self.dashboard = port, server, dashboard

    def get(self, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        return self.send("GET", path, None, **{"Authorization": f"Bearer {TOKEN}", **headers})

    def act(self, action: Any, **headers: str) -> tuple[int, Any, dict[str, str]]:
        body = action if isinstance(action, bytes) else json.dumps(action).encode()
        return self.send(
            "POST", "/api/act", body, **{"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", **headers}
        )

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            text = answer.read().decode()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, json.loads(text) if "json" in found.get("content-type", "") else text, found

    def raw(self, data: bytes) -> bytes:
        """Return what comes back for these bytes until the dashboard hangs up."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(data)
            received = b""
            try:
                while part := connection.recv(65536):
                    received += part
            except ConnectionResetError:
                pass
            return received

    @contextmanager
    def stream(self):
        """Yield an iterator of (kind, data) for each event."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", "/api/stream", headers={"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"
            try:
                yield events(answer)
            finally:
                answer.close()


def events(answer: Any):
    fields: dict[str, str] = {}
    while line := answer.readline():
        text = line.decode().rstrip("\n")
        if text:
            key, _, value = text.partition(": ")
            fields[key] = value
        else:
            yield fields["event"], json.loads(fields["data"])
            fields = {}


@pytest.fixture
def fake() -> FakeHost:
    return FakeHost()


@pytest.fixture
def client(fake: FakeHost):
    with serving(fake) as client:
        yield client


# Who gets in


def test_nothing_of_the_host_is_told_without_the_token(client: Client, fake: FakeHost) -> None:
    for path, headers in itertools.product(
        API,
        (
            {},
            {"Authorization": "Bearer " + TOKEN[:-1]},
            {"Authorization": "Bearer " + TOKEN + "x"},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer \xe4"},
            {"Authorization": "Basic " + TOKEN},
            {"Cookie": f"token={TOKEN}"},
        ),
    ):
        status, text, found = client.send("GET", path, **headers)
        assert (status, found["www-authenticate"]) == (401, "Bearer")
        assert TOKEN not in text
    assert client.send("GET", f"/api/points?token={TOKEN}")[0] == 401
    assert fake.asked == []


def test_actions_want_the_token_too(client: Client, fake: FakeHost) -> None:
    action = json.dumps({"verb": "restart", "name": "p"}).encode()
    assert client.send("POST", "/api/act", action, Content_Type="application/json")[0] == 401
    assert fake.asked == []


def test_two_tokens_are_none(client: Client) -> None:
    lines = f"Host: localhost\r\nAuthorization: Bearer x\r\nAuthorization: Bearer {TOKEN}\r\n"
    assert client.raw(f"GET /api/points HTTP/1.1\r\n{lines}\r\n".encode()).startswith(b"HTTP/1.1 401")


def test_a_wrong_token_waits_for_its_answer_and_is_told_in_the_log(fake: FakeHost, log: list[dict[str, Any]]) -> None:
    with serving(fake, penalty=0.2) as client:
        for _ in range(3):
            began = time.monotonic()
            assert client.send("GET", "/api/points", Authorization="Bearer wrong-token")[0] == 401
            assert time.monotonic() - began >= 0.2
        assert client.server.guard.wrong == 3
    told = [record["text"] for record in log if "token" in record["text"]]
    assert told == ["a wrong token was sent to the dashboard, last from 127.0.0.1"]  # and no second one at once


def test_the_pages_own_files_need_no_token_and_load_nothing_from_elsewhere(client: Client) -> None:
    for path in ("/", "/app.js", "/plot.js", "/wire.js", "/words.js", "/style.css"):
        status, text, headers = client.send("GET", path)
        assert status == 200
        assert not re.findall(r"https?://(?!www\.w3\.org/)", text)
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "connect-src": "'self'",
            "img-src": "'self' data:",
            "frame-ancestors": "'none'",
            "base-uri": "'none'",
            "form-action": "'none'",
        }
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert (headers["cache-control"], headers.get("server")) == ("no-store", None)


def test_refusals_have_the_same_headers(client: Client) -> None:
    for status, _, headers in (
        client.send("GET", "/api/points"),
        client.get("/nowhere"),
        client.get("/api/plugin", Host="evil.example"),
    ):
        assert status in (401, 404, 421)
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"


def test_a_foreign_host_name_is_refused(client: Client) -> None:
    for path, name in itertools.product(
        ("/", "/api/points"),
        (
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "0.0.0.0",
            "192.168.1.1",
            "localhost:evil",
            "[::2]",
            "",
            "127.1",
        ),
    ):
        assert client.get(path, Host=name)[0] == 421, name
    for name in ("localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:8642"):
        assert client.get("/api/points", Host=name)[0] == 200, name
    assert client.raw(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")


def test_elsewhere_than_on_loopback_addresses_and_named_hosts_pass() -> None:
    names = HostNames(["box.example"], loopback=False)
    assert all(map(names.has, ("192.168.1.1:8642", "[fe80::1]", "box.example:8642", "BOX.example.")))
    assert not any(map(names.has, ("evil.example", "box.example.evil.example", "192.168.1.1.evil.example")))


def test_requests_of_other_pages_are_refused_even_with_the_token(client: Client, fake: FakeHost) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "file://localhost"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
    ):
        assert client.act({"verb": "restart", "name": "p"}, **headers)[0] == 403
        assert client.get("/api/points", **headers)[0] == 403
    assert fake.asked == []


def test_the_page_itself_may_ask_and_through_a_tunnel_with_a_port_of_its_own(client: Client) -> None:
    for place in (f"127.0.0.1:{client.port}", "localhost:9000"):
        answer = client.act({"verb": "restart", "name": "p"}, Host=place, Origin=f"http://{place}", Sec_Fetch_Site="same-origin")
        assert answer[:2] == (200, {"answer": "restart is done"})


# What can be done


def test_actions_reach_the_host_as_they_were_meant(client: Client, fake: FakeHost) -> None:
    for action in (
        {"verb": "isolate", "name": "p", "place": "process"},
        {"verb": "drain", "name": "<b>"},
        {"verb": "resume", "name": "p"},
        {"verb": "restart", "name": "p"},
    ):
        assert client.act(action)[:2] == (200, {"answer": f"{action['verb']} is done"})
        verb, arguments = fake.asked.pop()
        assert {"verb": verb, **arguments} == action


def test_what_is_no_action_is_refused_with_a_sentence(client: Client, fake: FakeHost) -> None:
    for body in (
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"verb": "restart"}',
        b'{"verb": "restart", "name": ""}',
        b'{"verb": "restart", "name": 1}',
        b'{"verb": "restart", "name": "p", "more": 1}',
        b'{"verb": "isolate", "name": "p", "place": "venv"}',
        b'{"verb": "snapshot", "name": "p"}',
        b'{"verb": "restart", "name": "' + b"x" * 1100 + b'"}',
    ):
        status, answer, _ = client.act(body)
        assert status == 400
        assert answer["error"]["message"].startswith("that is no action")
    assert fake.asked == []


def test_an_action_is_posted_as_json_and_small(client: Client, fake: FakeHost) -> None:
    action = {"verb": "restart", "name": "p"}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert client.act(action, Content_Type=kind)[0] == 415
    assert client.act(b" " * 9000)[0] == 413
    assert client.get("/api/act")[0] == 405
    assert client.send("DELETE", "/api/act", Authorization=f"Bearer {TOKEN}")[0] == 405
    assert fake.asked == []


def test_a_host_that_refuses_is_heard(client: Client, fake: FakeHost) -> None:
    for error, status, kind in (
        (Refused("no plugin 'p'", kind="PluginNotFound"), 404, "PluginNotFound"),
        (Refused("plugin 'p' may not run in-process", kind="ConfigError"), 409, "ConfigError"),
        (NotRunning("the host is gone"), 503, "NotRunning"),
    ):
        fake.error = error
        assert client.act({"verb": "restart", "name": "p"})[:2] == (status, {"error": {"type": kind, "message": str(error)}})


def test_what_the_host_has_for_prometheus_is_passed_on(client: Client) -> None:
    status, text, headers = client.get("/metrics")
    assert (status, text) == (200, "hostkit_calls_total 1.0\n")
    assert headers["content-type"].startswith("text/plain")


def test_bad_numbers_and_names_are_refused(client: Client) -> None:
    for path in (
        "/api/log?name=p&after=-1",
        "/api/log?name=p&after=x",
        "/api/events?after=" + "9" * 20,
        "/api/plugin?name=" + "x" * 2000,
    ):
        assert client.get(path)[0] == 400


# What is shown


def test_hostile_texts_arrive_as_data_and_nothing_else(client: Client, fake: FakeHost) -> None:
    fake.names = [HOSTILE]
    status, answer, headers = client.get("/api/plugin?name=p")
    assert answer["errors"][0]["remote_traceback"] == HOSTILE
    assert headers["content-type"] == "application/json"
    with client.stream() as stream:
        state = next(data for kind, data in stream if kind == "state" and data["plugins"] and data["plugins"][0]["name"] != "p")
    assert state["plugins"][0]["name"] == HOSTILE
    assert state["plugins"][0]["health"]["message"] == HOSTILE


def test_long_texts_are_cut_before_they_are_sent_every_second(client: Client, fake: FakeHost) -> None:
    fake.description = "x" * 100_000
    with client.stream() as stream:
        state = next(data for kind, data in stream if kind == "state" and data["plugins"][0]["description"])
    assert len(state["plugins"][0]["description"]) == 1000


def test_numbers_move_with_the_calls(client: Client, fake: FakeHost) -> None:
    with client.stream() as stream:
        for kind, state in stream:
            fake.meter.add("ok", 0.001)
            fake.meter.add("PluginFailed", 0.004)
            if kind == "state" and state["plugins"][0]["errors"] and state["totals"]["p99"]:
                break
    row = state["plugins"][0]
    assert row["calls"] == pytest.approx(2 * row["errors"], rel=0.01)
    assert 0.0008 <= row["p50"] <= 0.001
    assert 0.003 <= row["p99"] <= 0.004
    assert state["totals"]["calls"] == row["calls"]
    points = client.get("/api/points?name=p")[1]
    assert len(points["at"]) == len(points["p99"]) >= 2
    assert any(points["errors"])
    assert client.get("/api/points")[1]["recent"].keys() == {"p"}


def test_a_host_that_ends_is_told_with_the_time_of_its_last_answer_and_found_again(client: Client, fake: FakeHost) -> None:
    with client.stream() as stream:
        live = [next(data for kind, data in stream if kind != "missed" and data["link"]["state"] == "live") for _ in range(3)][0]
        fake.error = NotRunning("the host is gone")
        gone = next(data for kind, data in stream if kind != "missed" and data["link"]["state"] != "live")["link"]
        assert (gone["state"], gone["why"]) == ("gone", "the host is gone")
        assert live["at"] - 1 <= gone["answered"] <= gone["since"] <= gone["now"]
        fake.error, fake.pid = None, 2
        again = next(data for kind, data in stream if kind != "missed" and data["link"]["state"] == "live")
    assert again["pid"] == 2
    assert again["totals"]["calls"] is None  # nothing is known yet of this one
    assert client.get("/api/points")[1]["at"][0] == pytest.approx(again["at"], abs=0.01)  # and what was the other's is forgotten


def test_a_host_that_is_stopped_is_told_while_the_question_is_open(fake: FakeHost) -> None:
    with serving(fake) as client:
        client.dashboard.poller._patience = 0.05
        with client.stream() as stream:
            next(data for kind, data in stream if kind != "missed" and data["link"]["state"] == "live")
            fake.open.clear()
            silent = next(data for kind, data in stream if kind != "missed" and data["link"]["state"] != "live")["link"]
            assert silent["state"] == "silent"
            assert silent["answered"] is not None
            fake.open.set()
            assert next(data for kind, data in stream if kind != "missed" and data["link"]["state"] == "live")


def test_an_answer_of_another_shape_is_told_and_ends_nothing(client: Client, fake: FakeHost) -> None:
    with client.stream() as stream:
        fake.snapshot = lambda: {"pid": 1}  # type: ignore[method-assign]
        odd = next(data for kind, data in stream if kind != "missed" and data["link"]["state"] == "odd")
        assert "another version" in odd["link"]["why"]
        del fake.snapshot
        assert next(data for kind, data in stream if kind != "missed" and data["link"]["state"] == "live")


# Clients that behave badly


def test_a_browser_that_never_reads_is_cut_off_and_the_others_go_on(fake: FakeHost, log: list[dict[str, Any]], until: Any) -> None:
    fake.names = [f"{number:0200}" for number in range(300)]
    with serving(fake, stall=0.3) as client, client.stream() as other, socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", client.port))
        stuck.sendall(f"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        until(lambda: next(other) and client.dashboard.browsers.cut and len(client.dashboard.browsers) == 1)
        assert client.dashboard.browsers.missed > 0
        until(lambda: next(other) and len(client.server._server.server_state.connections) == 1)  # nothing waits to be read any more
        assert next(other)
    assert [record["text"] for record in log if "cut off" in record["text"]] == [
        "a browser at 127.0.0.1 has read nothing for 0.3 s and was cut off"
    ]


async def _two_of(mailbox: Mailbox) -> tuple[list[int], bytes | None]:
    return [mailbox.put(b"1"), mailbox.put(b"2"), mailbox.put(b"3")], await mailbox.next()


def test_a_slow_browser_gets_the_newest_event_and_hears_how_many_it_missed() -> None:
    import asyncio

    missed, event = asyncio.run(_two_of(Mailbox()))
    assert missed == [0, 1, 1]
    assert event == b"event: missed\ndata: 2\n\n3"


def test_one_browser_too_many_is_refused_and_has_room_when_another_leaves(fake: FakeHost, until: Any) -> None:
    with serving(fake, most=1) as client:
        with client.stream() as stream:
            next(stream)
            status, answer, _ = client.get("/api/stream")
            assert (status, answer["error"]["message"]) == (503, "1 browsers watch already; close one of them")
        until(lambda: len(client.dashboard.browsers) == 0)
        with client.stream() as stream:
            next(stream)


def test_bytes_that_are_no_request_end_their_connection_alone(client: Client) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        answer = client.raw(data)
        assert not answer.startswith(b"HTTP/1.1 2")
    assert client.get("/api/points")[0] == 200


def test_a_request_that_never_comes_whole_is_cut_off(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serving, "_IDLE", 0.1)
    with serving(fake) as client:
        assert client.raw(b"GET / HTTP/1.1\r\nHost: local") == b""


def test_more_connections_than_may_be_are_hung_up_on(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serving, "_MOST", 2)
    monkeypatch.setattr(_serving, "_IDLE", 60.0)
    with serving(fake) as client, client.stream() as one, client.stream() as two:
        next(one), next(two)
        assert client.raw(b"") == b""


def test_closing_ends_open_streams_in_order(fake: FakeHost) -> None:
    with serving(fake) as client, socket.create_connection(("127.0.0.1", client.port), timeout=10) as stream:
        stream.sendall(f"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        received = stream.recv(65536)
        client.server.close()
        while part := stream.recv(65536):
            received += part
        assert received.endswith(b"\n\n\r\n0\r\n\r\n")  # the last event is whole, and so is the stream
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", client.port), timeout=5)


# What is kept


def snapshot(at: float, calls: dict[str, int], *, pid: int = 1, cpu: float | None = 0.0) -> dict[str, Any]:
    fake = FakeHost()
    fake.pid = pid
    made = {**fake.snapshot(), "at": at}
    made["plugins"][0] |= {
        "cpu": cpu,
        "calls": {"outcomes": calls, "seconds": 0.0, "buckets": [sum(calls.values())] + [0] * len(BOUNDS)},
    }
    return made


def test_rates_are_those_of_the_last_seconds() -> None:
    window = Window(5.0)
    for at in range(20):
        window.push(snapshot(at, {"ok": 10 * at**2, "PluginFailed": at, "Interrupted": at}, cpu=at * 0.5))
    row = window.rows()[0]
    assert (row["calls"], row["errors"], row["cpu"]) == ((10 * (19**2 - 14**2) + 10) / 5, 1.0, 50.0)
    assert window.last_step()["p"].calls == 10 * (19**2 - 18**2) + 2


def test_another_process_or_counters_that_begin_anew_give_no_absurd_rates() -> None:
    window = Window()
    window.push(snapshot(1.0, {"ok": 1000}, cpu=7.0))
    window.push(snapshot(2.0, {"ok": 5}, cpu=0.1))
    assert (window.rows()[0]["calls"], window.rows()[0]["cpu"]) == (5.0, None)
    window.push(snapshot(3.0, {"ok": 100_000}, pid=2))
    assert window.rows()[0]["calls"] is None
    window.push(snapshot(2.5, {"ok": 100_001}, pid=2))  # the clock was set back
    assert window.rows()[0]["calls"] is None


def test_points_have_a_bound_and_gone_plugins_are_forgotten() -> None:
    points = Points(3)
    for at in range(5):
        points.push(at, {"": Traffic(at), "p": Traffic(at, p50=None)} if at < 4 else {"": Traffic(at), "q": Traffic(1.0)})
    assert points.series() == {"at": [2, 3, 4], "calls": [2, 3, 4], "errors": [None] * 3, "p50": [None] * 3, "p99": [None] * 3}
    assert points.series("q")["calls"] == [None, None, 1.0]
    assert points.series("p")["calls"] == [None] * 3
    assert points.recent() == {"q": [None, None, 1.0]}


# With a real host


@pytest.fixture
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


SECRET = "hunter2-of-the-test"
PLUGIN = """
    import os
    from pydantic import BaseModel, SecretStr

    class Config(BaseModel):
        key: SecretStr
        shown: int = 1

    class P:
        def __init__(self, config: Config):
            self.key = config.key.get_secret_value()

        def execute(self, ctx, request):
            if request == "fail":
                raise ValueError("<b>no</b>")
            return os.getpid()
"""


def row(state: dict[str, Any]) -> dict[str, Any]:
    return next(plugin for plugin in state["plugins"] if plugin["name"] == "p")


def test_two_dashboards_show_and_move_a_real_plugin_and_never_its_secret(install: Any, new_host: Any, _runtime: None) -> None:
    install("p", PLUGIN)
    host = new_host(admin=True, config={"plugins": {"p": {"isolation": "none", "config": {"key": SECRET}}}})
    assert host.execute("p", {}) == os.getpid()
    with pytest.raises(hostkit.PluginFailed):
        host.execute("p", "fail")
    with Attached(found()[0].path) as one, Attached(found()[0].path) as two, serving(one) as first, serving(two) as second:
        assert first.act({"verb": "isolate", "name": "p", "place": "process"})[0] == 200
        pid = host.execute("p", {})
        assert pid != os.getpid()
        with second.stream() as stream:
            state = next(data for kind, data in stream if kind == "state" and row(data)["workers"])
        assert [worker["pid"] for worker in row(state)["workers"]] == [pid]
        shown = [second.get(path)[1] for path in ("/api/plugin?name=p", "/api/log?name=p", "/api/log", "/api/events")]
        assert "<b>no</b>" in json.dumps(shown)
        assert SECRET not in json.dumps([shown, state])
        assert first.act({"verb": "drain", "name": "p"})[0] == 200
        with pytest.raises(hostkit.Draining):
            host.execute("p", {})
        assert first.act({"verb": "resume", "name": "p"})[0] == 200
        assert host.execute("p", {})
        assert first.act({"verb": "restart", "name": "nobody"})[:1] == (404,)


def test_the_only_other_host_of_the_application_takes_the_place_of_one_that_is_gone(tmp_path: Path, new_host: Any) -> None:
    paths = [tmp_path / name for name in ("one", "two", "three")]
    gone, successor = (new_host(admin=path) for path in paths[:2])
    running = [Running(1, "hostkit", path) for path in paths[:2]]
    with closing(Line(Attached(paths[0]), "hostkit", lambda: running)) as line:
        assert line.ask("snapshot")["app"] == "hostkit"
        gone.close()
        with pytest.raises(NotRunning):
            line.ask("restart", name="p")  # meant for the one that is gone
        running.append(Running(3, "hostkit", paths[2]))
        with pytest.raises(NotRunning):
            line.ask("snapshot")  # which of the two?
        running[2:] = [Running(3, "another", paths[2])]
        assert line.ask("snapshot")["app"] == "hostkit"
        assert line.ask("events", after=0)["entries"] == []


# The verb


def test_the_verb_prints_the_address_with_its_token_and_ends_at_once_with_a_browser_watching(
    install_demo: Any, new_host: Any, cli_process: Any, _runtime: None
) -> None:
    new_host("demo", admin=True)
    process = cli_process("dashboard", "--port", "0")
    address = process.stdout.readline().strip()
    port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#token=([\w-]{43})", address).groups()
    with closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)) as connection:
        connection.request("GET", "/api/stream", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        kind, data = next(events(answer))
        assert (kind, data["link"]["state"]) in (("state", "live"), ("state", "gone"))
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        answer.close()
    assert "Traceback" not in process.stderr.read()


def test_a_token_of_ones_own_is_not_printed(
    new_host: Any, cli_process: Any, cli_place: Path, _runtime: None, monkeypatch: Any
) -> None:
    new_host("demo", admin=True)
    (cli_place / "token").write_text(TOKEN + "\n")
    (cli_place / "token").chmod(0o600)
    process = cli_process("--json", "dashboard", "--port", "0", "--token-file", "token")
    said = json.loads(process.stdout.readline())
    assert said["token"] is None
    port = int(said["address"].rpartition(":")[2].strip("/"))
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/api/points", headers={"Authorization": f"Bearer {TOKEN}"})
        assert connection.getresponse().status == 200
    process.terminate()
    assert process.wait(5) == 143
    assert TOKEN not in process.stderr.read()


def test_tokens_that_others_can_read_or_guess_are_refused(
    new_host: Any, cli: Any, cli_place: Path, _runtime: None, monkeypatch: Any
) -> None:
    new_host("demo", admin=True)
    file = cli_place / "token"
    for text, mode, words in (
        (TOKEN, 0o644, "chmod 600"),
        ("short", 0o600, "at least 16 characters"),
        ("with a space in it and long", 0o600, "a space or something else"),
        ("\xe4" * 20, 0o600, "expected letters"),
    ):
        file.write_text(text)
        file.chmod(mode)
        answer = cli("dashboard", "--token-file", "token")
        assert (answer.exit_code, words in answer.stderr) == (2, True), answer.stderr
    monkeypatch.setenv("HOSTKIT_DASHBOARD_TOKEN", "")
    assert "at least 16 characters, found 0" in cli("dashboard").stderr


def test_without_a_host_a_free_port_or_the_extra_the_verb_says_what_is_missing(
    new_host: Any, cli: Any, cli_place: Path, _runtime: None, monkeypatch: Any
) -> None:
    nobody = cli("dashboard")
    assert (nobody.exit_code, "Host(..., admin=True)" in nobody.stderr) == (3, True)
    new_host("demo", admin=True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = cli("dashboard", "--port", str(other.getsockname()[1]))
    assert (taken.exit_code, "--port 0 takes one that is free" in taken.stderr) == (2, True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "uvicorn" or name.startswith("hostkit._dashboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    missing = cli("dashboard")
    assert (missing.exit_code, "pip install 'hostkit[web]'" in missing.stderr) == (2, True), missing.stderr
