"""Where answers go: stdout, which nothing else may write to, and what to do when it is gone."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

from ._text import json_text


class OutputGone(Exception):
    """Whoever read stdout has gone away."""


class OutputFailed(Exception):
    """Stdout can't be written to."""


class Output:
    """Writes answers, each of them after ``before``; every line is on its way when a method returns."""

    def __init__(self, stream: TextIO | None, before: Callable[[], object] = lambda: None) -> None:
        self.stream = stream
        self._before = before
        self.terminal = stream is not None and stream.isatty()

    def line(self, text: str) -> None:
        """Write one or more whole lines. Raises ``OutputGone`` and ``OutputFailed``."""
        if self.stream is None:
            raise OutputFailed("stdout is closed")
        encoding = self.stream.encoding or "utf-8"
        self._before()
        try:
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self.stream.flush()
        except BrokenPipeError:
            silence(self.stream)
            raise OutputGone from None
        except OSError as error:
            silence(self.stream)
            raise OutputFailed(f"stdout can't be written to: {error.strerror or error}") from None

    def json(self, value: object, *, one_line: bool = False) -> None:
        """Write a value as JSON: indented on a terminal, compact elsewhere."""
        encoding = (getattr(self.stream, "encoding", None) or "utf-8").lower().replace("_", "-")
        self.line(json_text(value, indented=self.terminal and not one_line, ascii_only=encoding not in ("utf-8", "utf8")))


@contextmanager
def kept_from_plugins(before: Callable[[], object]) -> Iterator[Output]:
    """Give stdout to the block alone: what a plugin in this process prints, also from C code or a child, goes to stderr.

    ``before`` is called before each answer.
    """
    real = sys.stdout
    if real is None or not _is_process_stdout(real):
        with redirect_stdout(sys.stderr):
            yield Output(real, before)
        return
    _flush(real)
    kept = os.dup(1)
    try:
        _redirect(1, to=2)
        with open(kept, "w", encoding=real.encoding, errors="backslashreplace", closefd=False) as answers:
            yield Output(answers, before)
    finally:
        _flush(real)  # what was printed must not wait until stdout is itself again
        os.dup2(kept, 1)
        os.close(kept)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        silence(stream)


def _redirect(fd: int, *, to: int) -> None:
    try:
        os.dup2(to, fd)
    except OSError:  # stderr is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != fd:
            os.dup2(nowhere, fd)
            os.close(nowhere)


def _is_process_stdout(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 1
    except (io.UnsupportedOperation, AttributeError, ValueError):
        return False


def silence(stream: TextIO) -> None:
    """Let what is still buffered go nowhere, so that the interpreter's own flush at exit says nothing."""
    with suppress(OSError, ValueError):  # there may be no real file behind it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
