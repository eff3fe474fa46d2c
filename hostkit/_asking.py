"""Ask foreign code a question with a time limit, in this process; a question still unanswered is not asked twice."""

from __future__ import annotations

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

    def ask(self, what: str, question: Callable[[], Any], deadline: Deadline) -> Any:  # Any: what the question returns
        """Return the answer. Raises ``NoAnswer``, and whatever the question raises."""
        with self._lock:
            if what in self._open:
                raise NoAnswer(f"the {what} check before has not answered yet")
            self._open.add(what)
        box: list[tuple[bool, Any]] = []
        done = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(what, question, box, done), name=f"hostkit-{what}-{self._plugin}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is shutting down
            with self._lock:
                self._open.discard(what)
            raise NoAnswer(f"{what} can't be asked now: {error}") from error
        if not done.wait(deadline.wait()):
            raise NoAnswer(f"no answer to {what} in time")
        returned, value = box[0]
        if not returned:
            raise value
        return value

    def _run(self, what: str, question: Callable[[], Any], box: list[tuple[bool, Any]], done: threading.Event) -> None:
        try:
            box.append((True, question()))
        except BaseException as error:  # foreign code, on a thread of its own
            box.append((False, error))
        finally:
            with self._lock:
                self._open.discard(what)
            done.set()
