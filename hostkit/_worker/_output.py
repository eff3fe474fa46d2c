"""Send what the plugin logs and prints to the host, a JSON object a line, with the id of the call it belongs to.

``logging`` and ``loguru`` are wired up when the plugin imports them, and not before. What is written to the descriptors 1 and 2
by anything else reaches the host as it is, through pipes of its own.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from _contextvars import ContextVar

from ._data import found
from ._failure import describe, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from .._contract import ExecutionContext

current: ContextVar[ExecutionContext | None] = ContextVar("hostkit_current_call", default=None)

_CUT = " [cut]"
_TEXT_LIMIT = 16 * 1024 - len(_CUT)


def capture(fd: int) -> None:
    """Route prints, logging and loguru to ``fd`` from now on."""
    pipe = _Pipe(fd)
    sys.stdout = _Lines(pipe, "stdout", 1)
    sys.stderr = _Lines(pipe, "stderr", 2)
    wires = {"logging": _wire_logging, "loguru": _wire_loguru}
    for name in wires.keys() & sys.modules.keys():  # a template has imported it
        wires.pop(name)(sys.modules[name], pipe)
    sys.meta_path.insert(0, _ImportWatch(wires, pipe))


class _Pipe:
    """The write end; one record a line, whole."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # Keeps one record's bytes together; a signal handler or a finalizer that prints may come in between.
        self._lock = threading.RLock()

    def write(self, record: dict[str, Any]) -> None:
        context = current.get()
        record["request_id"] = context.request_id if context is not None else ""
        # Not escaped to ASCII, which would make it six times as long in most of the world's languages.
        data = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            with self._lock:
                while data:
                    data = data[os.write(self._fd, data) :]
        except OSError:
            pass  # the host is gone, and the lifeline with it


class _Lines(io.TextIOBase):
    """A text stream that hands on whole lines."""

    def __init__(self, pipe: _Pipe, stream: str, fd: int) -> None:
        self._pipe = pipe
        self._stream = stream
        self._fd = fd
        self._part = ""
        self._lock = threading.RLock()  # guards _part
        self.buffer = io.FileIO(fd, "w", closefd=False)

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True

    @property
    def name(self) -> str:
        return f"<{self._stream}>"

    def reconfigure(self, **_: object) -> None:
        """Do nothing: programs ask for UTF-8 and for whole lines, and have both."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            *lines, self._part = (self._part + text).split("\n")
            if len(self._part) > _TEXT_LIMIT:
                lines.append(self._part)
                self._part = ""
        for line in lines:
            self._pipe.write({"stream": self._stream, "text": _clipped(line)})
        return len(text)

    def flush(self) -> None:
        with self._lock:
            part, self._part = self._part, ""
        if part:
            self._pipe.write({"stream": self._stream, "text": part})


class _ImportWatch:
    """A finder that finds nothing itself, and wires a module up right after somebody imported it."""

    def __init__(self, wires: dict[str, Any], pipe: _Pipe | None) -> None:
        self._wires = wires
        self._pipe = pipe

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        wire = self._wires.pop(name, None)
        if wire is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)  # finders of an older kind have none
            spec: ModuleSpec | None = find(name, path, target) if finder is not self and find is not None else None
            if spec is not None and spec.loader is not None:
                self._run_after(spec, wire)
                return spec
        return None

    def _run_after(self, spec: ModuleSpec, wire: Any) -> None:
        loader: Any = spec.loader
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            loader.exec_module = run
            wire(module, self._pipe)

        loader.exec_module = exec_module


def _wire_logging(module: Any, pipe: _Pipe) -> None:
    class Handler(module.Handler):  # type: ignore[misc]
        def emit(self, record: logging.LogRecord) -> None:
            pipe.write({"level": record.levelno, "logger": record.name[:200], "text": text_of(record)})

    module.getLogger().addHandler(Handler())


def _wire_loguru(module: Any, pipe: _Pipe) -> None:
    def sink(message: Any) -> None:
        record = message.record
        failed = record["exception"]
        text = _with_error(record["message"], failed.value if failed is not None else None)
        pipe.write({"level": record["level"].no, "logger": (record["name"] or "")[:200], "text": text})

    module.logger.remove()
    module.logger.add(sink, format="{message}", level=0, catch=False)


def text_of(record: logging.LogRecord) -> str:
    """Return a log record's text with the traceback of what it tells of; the same in host and worker. Never raises."""
    try:
        text = record.getMessage()
    except Exception as error:  # a record with the wrong arguments is still worth its line
        text = f"{found(record.msg)} [can't be formatted: {type_name(error)}]"
    return _with_error(text, record.exc_info[1] if record.exc_info else None)


def _with_error(text: str, error: BaseException | None) -> str:
    return _clipped(text if error is None else "\n".join((text, describe(error)["traceback"].rstrip())))


def _clipped(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]}{_CUT}"
