"""Ask foreign code a question with a time limit, in this process; a question still unanswered is not asked twice.

Who asks while the same question is open, and in time, gets its answer; once it is late nobody waits for it any more.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ._deadline import Deadline


class NoAnswer(Exception):
    """No answer in time, or the same question is still open from before; the text says which."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    what: str
    question: Callable[[], Any]
    deadline: Deadline
    answer: Future[Any] = field(default_factory=Future)


class Asking:
    """Runs questions on daemon threads, one of a kind at a time. Thread-safe."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin
        self._lock = threading.Lock()  # guards _open
        self._open: dict[str, _Asked] = {}
        self._standby: queue.SimpleQueue[_Asked | None] | None = None

    def stand_by(self) -> None:
        """Keep a thread for a question that comes when no more threads can be had, until ``end``; where there is none now, do without."""
        questions: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        thread = threading.Thread(target=self._wait, args=(questions,), name=f"hostkit-standby-{self._plugin}", daemon=True)
        with suppress(RuntimeError):  # no more threads
            thread.start()
            self._standby = questions

    def end(self) -> None:
        """Let the standby go. Idempotent."""
        if self._standby is not None:
            self._standby.put(None)

    def ask(self, what: str, question: Callable[[], Any], deadline: Deadline) -> Any:  # Any: what the question returns
        """Return the answer. Raises ``NoAnswer``, and whatever the question raises."""
        answer = self.begin(what, question, deadline)
        if not wait((answer,), deadline.wait()).done:
            raise NoAnswer(f"no answer to {what} in time")
        return answer.result()

    def begin(self, what: str, question: Callable[[], Any], deadline: Deadline) -> Future[Any]:
        """Return the future of the answer, without waiting for it. Raises ``NoAnswer`` where there can be none."""
        asked = _Asked(what, question, deadline)
        with self._lock:
            before = self._open.setdefault(what, asked)
        if before is not asked:
            if before.deadline.passed:
                raise NoAnswer(f"the {what} check before has not answered yet")
            return before.answer
        try:
            threading.Thread(target=self._run, args=(asked,), name=f"hostkit-{what}-{self._plugin}", daemon=True).start()
        except RuntimeError as error:  # no more threads, or the interpreter is shutting down
            if self._standby is None:
                no_answer = NoAnswer(f"{what} can't be asked now: {error}")
                self._close(asked)
                asked.answer.set_exception(no_answer)  # for who came meanwhile
                raise no_answer from error
            self._standby.put(asked)
        return asked.answer

    def _wait(self, questions: queue.SimpleQueue[_Asked | None]) -> None:
        while (asked := questions.get()) is not None:
            self._run(asked)

    def _run(self, asked: _Asked) -> None:
        try:
            value = asked.question()
        except BaseException as error:  # foreign code, on a thread of its own
            self._close(asked)
            asked.answer.set_exception(error)
        else:
            self._close(asked)
            asked.answer.set_result(value)

    def _close(self, asked: _Asked) -> None:
        with self._lock:
            del self._open[asked.what]
