"""The host's log: loguru, quiet unless the application enables ``hostkit``; and what workers write, told line by line."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loguru import logger

from ._sinks import deliver, write
from ._worker._failure import clean
from ._worker._output import text_of


def _quiet_unless_asked() -> None:
    # This module is imported late: an application may have enabled hostkit's log before. loguru has no public way to ask.
    activations = getattr(getattr(logger, "_core", None), "activation_list", ())
    if not any(name.startswith("hostkit.") for name, _ in activations):
        logger.disable("hostkit")


_quiet_unless_asked()

TAIL = 8 * 1024
_LINE_LIMIT = 16 * 1024
# An unfinished line: room for a worker's record of 16 Ki characters, each of them escaped.
_PART_LIMIT = 256 * 1024
_READ_AT_ONCE = 64 * 1024
# Lines a worker may log at once, and for each second after that; what is more is counted, not told.
_BURST, _PER_SECOND = 2000, 500

# What moves a terminal's cursor, colours it, ends a line somewhere or turns the direction of writing. Tabs do no harm.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))}
_CONTROL |= {
    code: f"\\u{code:04x}"
    for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF, 0xFFF9, 0xFFFA, 0xFFFB)
}
# A record may have several lines, a traceback for one; none of them but the first looks like the beginning of a record.
_IN_TEXT = {**_CONTROL, 10: "\n  | "}


def tell(level: str | int, text: str, *, plugin: str = "", request_id: str = "", **more: object) -> None:
    """Have one record written with the plugin and request id bound to it. Control characters are escaped: the text may quote a plugin."""
    words = {"plugin": _word(plugin), "request_id": _word(request_id)}
    if _listeners:
        _heard(level, text, words)
    deliver(level, clean(text).translate(_IN_TEXT), {**words, **more}, depth=1)


def tell_of_plugin(level: int, text: str, *, plugin: str, request_id: str, source: str) -> None:
    """Have written what a plugin logged or printed; control characters are escaped, so it can't forge a record or paint a terminal."""
    deliver(*_of_plugin(level, text, plugin, request_id, source), depth=0)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that was told: by hostkit where ``source`` is empty, else by a plugin. ``text`` is the plugin's: escape it."""

    at: float
    level: str
    text: str
    plugin: str
    request_id: str
    source: str


def listen(listener: Callable[[Line], object]) -> Callable[[], None]:
    """Call ``listener`` with every line from now on, whether the application shows the log or not, until what this returns is called. It
    must not block and not raise."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


_listeners: list[Callable[[Line], object]] = []


def _heard(level: str | int, text: str, words: Mapping[str, str]) -> None:
    line = Line(time.time(), str(level), clean(text), words["plugin"], words["request_id"], words.get("source", ""))
    for listener in tuple(_listeners):
        listener(line)


def on_one_line(text: str) -> str:
    """Return a text that may quote a plugin without what could forge a record or paint a terminal."""
    return clean(text).translate(_CONTROL)


def _of_plugin(level: int, text: str, plugin: str, request_id: str, source: str) -> tuple[str | int, str, dict[str, str]]:
    words = {"plugin": _word(plugin), "request_id": _word(request_id), "source": _word(source)}
    level = min(max(level, 0), 100)
    named = _LEVELS.get(level, level)
    if _listeners:
        _heard(named, text, words)
    return named, clean(text).translate(_IN_TEXT), words


def _word(text: str) -> str:
    return clean(text[:200]).translate(_CONTROL)


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
    """Where ``ctx.logger`` of an in-process plugin ends, so that its records arrive where a worker's do.

    They are written on the plugin's own thread: it may take the process down in the next moment, and this is what it said before.
    """

    def emit(self, record: logging.LogRecord) -> None:
        plugin, request_id = str(getattr(record, "plugin", "")), str(getattr(record, "request_id", ""))
        write(*_of_plugin(record.levelno, text_of(record), plugin, request_id, record.name), depth=0)


def hear_plugins() -> None:
    """Route the loggers of in-process plugins into the host's log. Idempotent."""
    family = logging.getLogger("hostkit.plugin")
    with _wiring:
        if not any(isinstance(handler, _ToLoguru) for handler in family.handlers):
            family.addHandler(_ToLoguru())
            family.propagate = False


_wiring = threading.Lock()  # guards the handlers of that logger, which is logging's own and as global


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
            return self.fd >= 0

    def close(self) -> None:
        """Tell the rest and close. Idempotent."""
        with self._lock:
            if self._part and not self._overlong:
                self._line(self._part)
            self._part = b""
            self._report_dropped()
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def _take(self, data: bytes) -> None:
        # Split no further than may be told: the rest of a flood is counted, not looked at.
        *lines, rest = (self._part + data).split(b"\n", self._lines_allowed())
        for line in lines:
            if not self._overlong:
                self._line(line)
            self._overlong = False
        left_out, newline, self._part = rest.rpartition(b"\n")
        if newline:
            self._leave_out(left_out, left_out.count(newline) + (not self._overlong))
            self._overlong = False
        if len(self._part) > _PART_LIMIT:
            if not self._overlong:
                self._line(self._part)
            self._part, self._overlong = b"", True

    def _line(self, line: bytes) -> None:
        if not self._may_tell():
            self._leave_out(line, 1)
            return
        self._report_dropped()
        if self._source == "log":
            self._record(line)
        else:
            self._text(_cut(line), self._source, "")

    def _leave_out(self, lines: bytes, count: int) -> None:
        self._dropped += count
        # The last words on stderr say why a worker died, whatever flood they drown in.
        for line in lines[-4 * TAIL :].split(b"\n")[-64:] if self._source != "stdout" else ():
            if self._source == "stderr" or b'"stderr"' in line[:40]:
                self._remember(_stderr_of(line))

    def _record(self, line: bytes) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
            text, request_id = str(said["text"])[:_LINE_LIMIT], str(said.get("request_id", ""))[:200]
            if "stream" in said:
                self._text(text, str(said["stream"])[:20], request_id)
            else:
                source = str(said.get("logger", ""))[:200]
                tell_of_plugin(int(said["level"]), text, plugin=self._plugin, request_id=request_id, source=source)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            self._text(_cut(line), "log", "")

    def _text(self, text: str, source: str, request_id: str) -> None:
        if source == "stderr":
            self._remember(text)
        if text:
            tell_of_plugin(30 if source == "stderr" else 20, text, plugin=self._plugin, request_id=request_id, source=source)

    def _remember(self, text: str) -> None:
        self.tail = (self.tail + text + "\n")[-TAIL:]

    def _may_tell(self) -> bool:
        allowed = self._lines_allowed() >= 1
        if allowed:
            self._allowance -= 1.0
        return allowed

    def _lines_allowed(self) -> int:
        now = self._clock()
        self._allowance = min(_BURST, self._allowance + (now - self._refilled) * _PER_SECOND)
        self._refilled = now
        return int(self._allowance)

    def _report_dropped(self) -> None:
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            tell("WARNING", f"plugin {self._plugin!r}: {dropped} lines of its {self._source} dropped", plugin=self._plugin)


def _cut(line: bytes) -> str:
    text = line[:_LINE_LIMIT].decode("utf-8", "backslashreplace")
    return text if len(line) <= _LINE_LIMIT else f"{text} [cut]"


def _stderr_of(line: bytes) -> str:
    """Return the text of a line that is not told, whichever way it came."""
    try:
        return str(json.loads(line)["text"])[-TAIL:]
    except (ValueError, KeyError, TypeError, RecursionError):
        return line[-TAIL:].decode("utf-8", "backslashreplace")
