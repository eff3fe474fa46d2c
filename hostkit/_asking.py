"""Ask foreign code a question with a time limit, in this process; a question still unanswered is not asked twice."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from ._deadline import Deadline


class NoAnswer(Exception):
    """No answer in time, or the same question is still open from before; the text says which."""


class Asking:
    """Runs questions on daemon threads, one of a kind at a time. Thread-safe."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._lock = threading.Lock()  # guards _open
        self._open: set[str] = set()
        self._standby: queue.SimpleQueue[tuple[Any, ...] | None] | None = None

    def stand_by(self) -> None:
        """Keep a thread for a question that comes when no more threads can be had, until ``end``."""
        self._standby = queue.SimpleQueue()
        threading.Thread(target=self._wait, args=(self._standby,), name=f"hostkit-standby-{self._plugin}", daemon=True).start()

    def end(self) -> None:
        """Let the standby go. Idempotent."""
        if self._standby is not None:
            self._standby.put(None)

    def ask(self, what: str, question: Callable[[], Any], deadline: Deadline) -> Any:  # Any: what the question returns
        """Return the answer. Raises ``NoAnswer``, and whatever the question raises."""
        with self._lock:
            if what in self._open:
                raise NoAnswer(f"the {what} check before has not answered yet")
            self._open.add(what)
        box: list[tuple[bool, Any]] = []
        done = threading.Event()
        asked = (what, question, box, done)
        try:
            threading.Thread(target=self._run, args=asked, name=f"hostkit-{what}-{self._plugin}", daemon=True).start()
        except RuntimeError as error:  # no more threads, or the interpreter is shutting down
            if self._standby is None:
                with self._lock:
                    self._open.discard(what)
                raise NoAnswer(f"{what} can't be asked now: {error}") from error
            self._standby.put(asked)
        if not done.wait(deadline.wait()):
            raise NoAnswer(f"no answer to {what} in time")
        returned, value = box[0]
        if not returned:
            raise value
        return value

    def _wait(self, questions: queue.SimpleQueue[tuple[Any, ...] | None]) -> None:
        while (asked := questions.get()) is not None:
            self._run(*asked)

    def _run(self, what: str, question: Callable[[], Any], box: list[tuple[bool, Any]], done: threading.Event) -> None:
        try:
            box.append((True, question()))
        except BaseException as error:  # foreign code, on a thread of its own
            box.append((False, error))
        finally:
            with self._lock:
                self._open.discard(what)
            done.set()
