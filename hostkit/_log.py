"""The host's log: loguru, quiet unless the application enables ``hostkit``; and what workers write, told line by line."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from loguru import logger



def _quiet_unless_asked() -> None:
    # This module is imported late: an application may have enabled hostkit's log before. loguru has no public way to ask.
    activations = getattr(getattr(logger, "_core", None), "activation_list", ())
    if not any(name.startswith("hostkit.") for name, _ in activations):
        logger.disable("hostkit")


_quiet_unless_asked()

TAIL = 8 * 1024
_LINE_LIMIT = 16 * 1024
_READ_AT_ONCE = 64 * 1024
# Lines a worker may log at once, and for each second after that; what is more is counted, not told.
_BURST, _PER_SECOND = 2000, 500

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


def tell(level: str | int, message: str, *, plugin: str = "", request_id: str = "", **more: object) -> None:
    """Write one record with the plugin and request id bound to it."""
    logger.bind(plugin=plugin, request_id=request_id, **more).opt(depth=1).log(level, message)


def tell_of_plugin(level: int, text: str, *, plugin: str, request_id: str, source: str) -> None:
    """Write what a plugin logged or printed; control characters are escaped, so it can't forge a line or paint a terminal."""
    logger.bind(plugin=plugin, request_id=request_id, source=source).log(_LEVELS.get(level, level), text.translate(_CONTROL))


_LEVELS: dict[int, str | int] = {
    5: "TRACE",
    10: "DEBUG",
    20: "INFO",
    25: "SUCCESS",
    30: "WARNING",
    40: "ERROR",
    50: "CRITICAL",
}


class _ToLoguru(logging.Handler):
    """Where ``ctx.logger`` of an in-process plugin ends, so that its records arrive where a worker's do."""

    def emit(self, record: logging.LogRecord) -> None:
        tell_of_plugin(
            record.levelno,
            self.format(record),
            plugin=getattr(record, "plugin", ""),
            request_id=getattr(record, "request_id", ""),
            source=record.name,
        )


def hear_plugins() -> None:
    """Route the loggers of in-process plugins into the host's log. Idempotent."""
    family = logging.getLogger("hostkit.plugin")
    if not any(isinstance(handler, _ToLoguru) for handler in family.handlers):
        family.addHandler(_ToLoguru())
        family.propagate = False


class OutputPipe:
    """The host's read end of one of a worker's outputs: ``log`` has a JSON record a line, ``stdout`` and ``stderr`` have text.

    Memory is bounded whatever the worker writes: an overlong line is cut and a flood is counted. Thread-safe.
    """

    def __init__(self, fd: int, source: str, *, plugin: str, clock: Callable[[], float] = time.monotonic) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.tail = ""
        self._source = source
        self._plugin = plugin
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below, and the reading
        self._part = b""
        self._overlong = False
        self._allowance = float(_BURST)
        self._refilled = clock()
        self._dropped = 0

    def read(self, *, most: int = 4 * _READ_AT_ONCE) -> bool:
        """Take in what is there, ``most`` bytes at the most; return whether the pipe is still open."""
        with self._lock:
            while most > 0 and self.fd >= 0:
                try:
                    data = os.read(self.fd, _READ_AT_ONCE)
                except BlockingIOError:
                    return True
                except OSError:
                    return False
                if not data:
                    return False
                most -= len(data)
                self._take(data)
            return True

    def close(self) -> None:
        """Tell the rest and close. Idempotent."""
        with self._lock:
            if self._part:
                self._line(self._part)
                self._part = b""
            self._report_dropped()
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _take(self, data: bytes) -> None:
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            if not self._overlong:
                self._line(line)
            self._overlong = False
        if len(self._part) > 4 * _LINE_LIMIT:
            if not self._overlong:
                self._line(self._part)
            self._part, self._overlong = b"", True

    def _line(self, line: bytes) -> None:
        if not self._may_tell():
            self._dropped += 1
            if self._source == "stderr":
                self._remember(line[-TAIL:].decode("utf-8", "backslashreplace"))
            return
        self._report_dropped()
        if self._source == "log":
            self._record(line)
        else:
            self._text(line[:_LINE_LIMIT].decode("utf-8", "backslashreplace"), self._source, "")

    def _record(self, line: bytes) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
            text, request_id = str(said["text"])[:_LINE_LIMIT], str(said.get("request_id", ""))[:200]
            if "stream" in said:
                self._text(text, str(said["stream"])[:20], request_id)
            else:
                level = min(max(int(said["level"]), 0), 100)
                source = str(said.get("logger", ""))[:200]
                tell_of_plugin(level, text, plugin=self._plugin, request_id=request_id, source=source)
        except (ValueError, KeyError, TypeError, RecursionError):
            self._text(line[:_LINE_LIMIT].decode("utf-8", "backslashreplace"), "log", "")

    def _text(self, text: str, source: str, request_id: str) -> None:
        if source == "stderr":
            self._remember(text)
        if text:
            tell_of_plugin(30 if source == "stderr" else 20, text, plugin=self._plugin, request_id=request_id, source=source)

    def _remember(self, text: str) -> None:
        self.tail = (self.tail + text + "\n")[-TAIL:]

    def _may_tell(self) -> bool:
        now = self._clock()
        self._allowance = min(_BURST, self._allowance + (now - self._refilled) * _PER_SECOND)
        self._refilled = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def _report_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            tell("WARNING", f"plugin {self._plugin!r}: {dropped} lines of its {self._source} dropped", plugin=self._plugin)
