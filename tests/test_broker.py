"""A plugin with granted endpoints connects to those, through the host, and to nothing else."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest

import hostkit
from hostkit._broker import stand_ins

PLUGIN = """
import asyncio, os, socket, threading
UDP = socket.SOCK_DGRAM

def asynchronous(host, port):
    async def talk():
        reader, writer = await asyncio.open_connection(host, port)
        said = await reader.read()
        writer.close()
        return said.decode()
    return asyncio.run(talk())

def fast_open(host, port):
    with socket.socket() as s:
        return s.sendto(b"x", 0x20000000, (host, port))

def fast_open_message(host, port):
    with socket.socket() as s:
        return s.sendmsg([b"x"], [], 0x20000000, (host, port))

def over(host, port, **options):
    with socket.create_connection((host, port), **options) as s:
        return s.recv(10).decode()

def many(host, port):
    said = []
    threads = [threading.Thread(target=lambda: said.append(over(host, port))) for _ in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return said

def descriptors(host, port):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        over(host, port)
    return len(os.listdir("/proc/self/fd")) - before

def listen(host, port):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))

def listen_unbound(host, port):
    with socket.socket() as s:
        s.listen()

def udp(host, port):
    with socket.socket(socket.AF_INET, UDP) as s:
        s.sendto(b"x", (host, port))

def not_blocking(host, port):
    with socket.socket() as s:
        s.setblocking(False)
        error = s.connect_ex((host, port))
        return [os.strerror(error), s.getblocking()]

def unix(host, port):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(host)

class P:
    def execute(self, ctx, r):
        return globals()[r.pop("act")](**r)
"""


@pytest.fixture
def server():
    """The port of a server that says hello, and a list that grows with whoever connects."""
    listening = socket.create_server(("127.0.0.1", 0))
    seen = []

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            seen.append(1)
            connection.sendall(b"hello")
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1], seen
    listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    listening.close()


@pytest.fixture(params=["standard", "strict"])
def loaded(request, install, new_host, server):
    """Load the plugin with grants: ``loaded("localhost:{port}")``; returns a call."""

    def load(*asked, allowed=None):
        port = server[0]
        asked = [each.format(port=port) for each in asked]
        allowed = asked if allowed is None else [each.format(port=port) for each in allowed]
        install("p", PLUGIN, manifest=json.dumps({"permissions": {"network": asked}}), manifest_name="plugin.json")
        table = {"isolation": "process", "sandbox": request.param, "permissions": {"network": allowed}, "breaker": False}
        host = new_host(config={"plugins": {"p": table}})
        try:
            host.load("p")
        except hostkit.SandboxUnavailable as missing:
            pytest.skip(str(missing))
        return lambda act, where="127.0.0.1", **more: host.execute(
            "p", {"act": act, "host": where, "port": port, **more}, timeout=20.0
        )

    return load


def refused(call, *arguments, **more):
    with pytest.raises(hostkit.PluginFailed) as caught:
        call(*arguments, **more)
    return caught.value.remote_type


def test_a_granted_endpoint_is_reached_by_address_and_by_name(loaded):
    call = loaded("127.0.0.1:{port}", "localhost:{port}")
    for where in ("127.0.0.1", "localhost", "LOCALHOST."):
        assert call("over", where) == "hello"
        assert call("over", where, timeout=5.0) == "hello"
        assert call("asynchronous", where) == "hello"


def test_what_was_not_granted_is_a_permission_error_and_nobody_hears_of_it(loaded, server):
    call = loaded("localhost:{port}")
    assert refused(call, "over") == "PermissionError"
    assert refused(call, "asynchronous") == "PermissionError"
    assert not server[1]
    assert call("over", "localhost") == "hello"


def test_another_port_of_a_granted_host_is_not_reached(loaded, server):
    call = loaded("127.0.0.1:1", "localhost:1")
    assert refused(call, "over") == refused(call, "over", "localhost") == "PermissionError"
    assert not server[1]


def test_what_the_operator_does_not_allow_is_not_reached(loaded, server):
    call = loaded("127.0.0.1:{port}", allowed=[])
    assert refused(call, "over") == "PermissionError"
    assert not server[1]


def test_a_wildcard_stands_for_every_address_at_a_port(loaded):
    assert loaded("*:{port}")("over") == "hello"


def test_there_is_no_other_way_into_the_network(loaded, server):
    call = loaded("127.0.0.1:{port}")
    for act in ("fast_open", "fast_open_message", "udp", "listen", "listen_unbound", "unix"):
        assert refused(call, act) == "PermissionError", act
    assert not server[1]


def test_a_socket_that_does_not_wait_does_not_wait(loaded):
    said, blocking = loaded("127.0.0.1:{port}")("not_blocking")
    assert said in (os.strerror(115), os.strerror(0))
    assert blocking is False


def test_many_threads_connect_at_once_and_leave_no_descriptor_behind(loaded):
    call = loaded("127.0.0.1:{port}")
    assert call("many") == ["hello"] * 20
    assert call("descriptors") == 0


def test_a_server_that_is_not_there_is_refused_as_ever(loaded, server):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    call = loaded(f"127.0.0.1:{port}")
    assert refused(call, "over", port=port) == "ConnectionRefusedError"


def test_names_stand_for_addresses_that_lead_nowhere():
    found = stand_ins(["b.example.org:1", "a.example.org:2", "a.example.org:3", "127.0.0.1:4", "[::1]:5", "*:6"])
    assert found == {"a.example.org": "198.18.0.1", "b.example.org": "198.18.0.2"}
