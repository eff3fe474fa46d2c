"""What must hold after every fault of a plugin, checked in one place."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from hostkit._errors import CallError, CircuitOpen, HostkitError

if TYPE_CHECKING:
    from hostkit._host import Host

_numbers = itertools.count(1)


class Told(NamedTuple):
    """What a caller was told: an error of hostkit's, or None and the answer; and the seconds that it took."""

    error: HostkitError | None
    answer: Any  # JSON data
    seconds: float

    @property
    def word(self) -> str:
        """The error's class, or "answer"."""
        return "answer" if self.error is None else type(self.error).__name__


def tried(call: Callable[[], Any]) -> Told:
    """Call, and return what came of it. Any other error than hostkit's own goes through: it would be a fault of the host's."""
    started = time.monotonic()
    try:
        answer = call()
    except HostkitError as error:
        return Told(error, None, time.monotonic() - started)
    return Told(None, answer, time.monotonic() - started)


def survives(
    host: Host,
    name: str,
    request: object,
    *,
    next_request: object = None,
    timeout: float | None = None,
    neighbour: Callable[[], object] | None = None,
    log: Sequence[dict[str, Any]] | None = None,
) -> tuple[Told, Told]:
    """Make one call that goes wrong, and check that nothing else does; return what its caller was told, and the next one.

    The error is typed and names plugin and call; ``neighbour``, a call of another plugin, is answered within a second; the next call,
    with ``next_request``, is answered, or the circuit is open; and ``log`` (from ``hear``) has one record of the error with the
    plugin's name and the call's id. Raises ``AssertionError`` otherwise. Wrap it in ``no_leaks`` to see what is left behind.
    """
    request_id = f"fault-{next(_numbers)}"
    told = tried(lambda: host.execute(name, request, timeout=timeout, request_id=request_id))
    if neighbour is not None:
        answers_soon(neighbour)
    if told.error is not None:
        assert isinstance(told.error, CallError), f"{told.word} is no error of a call"
        where = (told.error.plugin, told.error.request_id)
        assert where == (name, request_id), f"the error is of {where}, the call was {(name, request_id)}"
        if log is not None:
            _told_once(log, name, request_id, told.word)
    following = tried(lambda: host.execute(name, next_request))
    assert following.error is None or isinstance(following.error, CircuitOpen), f"the next call: {following.error!r}"
    return told, following


def answers_soon(neighbour: Callable[[], object], limit: float = 1.0) -> float:
    """Call another plugin and return the seconds that it took. Raises ``AssertionError`` where that was too long."""
    told = tried(neighbour)
    assert told.error is None, f"another plugin was disturbed: {told.error!r}"
    assert told.seconds <= limit, f"another plugin answered after {told.seconds:.2f} s"
    return told.seconds


def _told_once(log: Sequence[dict[str, Any]], name: str, request_id: str, word: str) -> None:
    records = [record for record in log if record.get("request_id") == request_id and record["text"].startswith(f"{word}: ")]
    assert [record["plugin"] for record in records] == [name], f"the log has {len(records)} records of the error, not one"


@contextmanager
def hear() -> Iterator[list[dict[str, Any]]]:
    """Collect hostkit's log as dictionaries with text, level, plugin and request_id. Turns the log on, and off again.

    Hostkit's records are written by a thread of their own; whoever looks at the list waits for those that were told before.
    """
    from loguru import logger

    from hostkit._sinks import flush

    records = _Heard()

    def sink(message: Any) -> None:  # Any: loguru has no class to import at run time
        record = message.record
        records.append({"text": record["message"], "level": record["level"].name, **record["extra"]})

    logger.enable("hostkit")
    handler = logger.add(sink, level=0, format="{message}")
    try:
        yield records
    finally:
        flush(_PATIENCE)
        logger.remove(handler)
        logger.disable("hostkit")


def _after_a_flush(name: str) -> Callable[..., Any]:
    plain: Callable[..., Any] = getattr(list, name)

    def looked(self: list[Any], *arguments: Any) -> Any:
        from hostkit._sinks import flush

        flush(_PATIENCE)
        return plain(self, *arguments)

    return looked


_LOOKS = ("__iter__", "__len__", "__getitem__", "__contains__", "__eq__", "__ne__", "__repr__", "__reversed__")
# A list that is complete whenever it is looked at.
_Heard: type[list[dict[str, Any]]] = type(
    "_Heard", (list,), {name: _after_a_flush(name) for name in (*_LOOKS, "clear", "copy", "count", "index", "pop")}
)
# Seconds.
_PATIENCE = 5.0
