"""The plugins and peers' children of the benchmark of big data; importable by every worker."""

from __future__ import annotations

import pickle
import socket
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from pydantic import BaseModel

from hostkit import Array, ExecutionContext, Plugin, empty_array

NUMBER = np.dtype("float64")


class Numbers(BaseModel):
    """An array, as request and as answer."""

    values: Array[np.float64]


class Echo(Plugin[Numbers, Numbers]):
    """Answers with what it was asked."""

    def execute(self, ctx: ExecutionContext, request: Numbers) -> Numbers:
        """Give it back."""
        return Numbers(values=request.values)


class Length(BaseModel):
    """How many numbers are wanted."""

    length: int


class Table(Plugin[Length, Numbers]):
    """Answers with a table that it made once, where the host can see it."""

    def __init__(self) -> None:
        self._tables: dict[int, Any] = {}

    def execute(self, ctx: ExecutionContext, request: Length) -> Numbers:
        """Give the table."""
        if request.length not in self._tables:
            self._tables[request.length] = empty_array(request.length)
            self._tables[request.length][:] = 1.0
        return Numbers(values=self._tables[request.length])


def serve_pickles(connection: Any) -> None:
    """Echo by ``Connection.send``."""
    try:
        while True:
            connection.send(connection.recv())
    except EOFError:
        return


def send_out_of_band(connection: Any, value: object) -> None:
    """Send a pickle of protocol 5 and its buffers one by one."""
    buffers: list[pickle.PickleBuffer] = []
    connection.send_bytes(pickle.dumps(value, protocol=5, buffer_callback=buffers.append))
    connection.send(len(buffers))
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def receive_out_of_band(connection: Any) -> Any:
    """Receive the same."""
    head = connection.recv_bytes()
    return pickle.loads(head, buffers=[connection.recv_bytes() for _ in range(connection.recv())])


def serve_out_of_band(connection: Any) -> None:
    """Echo by pickles of protocol 5."""
    try:
        while True:
            send_out_of_band(connection, receive_out_of_band(connection))
    except EOFError:
        return


def serve_shared(connection: Any) -> None:
    """Echo by shared memory that is made for each message."""
    try:
        while True:
            name, length = connection.recv()
            asked = SharedMemory(name)
            answer = SharedMemory(create=True, size=length * NUMBER.itemsize)
            np.frombuffer(answer.buf, NUMBER, length)[:] = np.frombuffer(asked.buf, NUMBER, length)
            asked.close()
            answer.close()
            connection.send(answer.name)
    except EOFError:
        return


def serve_rpyc(told: Any) -> None:
    """Echo bytes, which cross by value."""
    import rpyc
    from rpyc.core.stream import SocketStream
    from rpyc.utils.factory import connect_stream

    class Service(rpyc.Service):  # type: ignore[misc]  # rpyc has no types
        def exposed_echo(self, data: bytes) -> bytes:
            return data

    with socket.create_server(("127.0.0.1", 0)) as listener:
        told.send(listener.getsockname()[1])
        connection, _ = listener.accept()
    connect_stream(SocketStream(connection), Service).serve_all()
