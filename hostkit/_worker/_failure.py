"""Turn any exception of foreign code into plain data, however hostile it is.

The data is ``{"type", "message", "traceback", "retryable", "memory", "cancelled"}``, all text and booleans, and ``"denied"``, a list of
``{"errno", "path"}``, where a system call anywhere in it was not permitted. An exception's
``__str__`` may raise SystemExit, return 10 MB or not be text; causes may be cyclic or thousands deep; notes may be anything. So
whatever asks the exception itself stands in a ``try`` of its own, and the rest is read past its class's back.
"""

from __future__ import annotations

import errno
import sys

from .._errors import CallCancelled, CallTimeout, RetryableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import Any

MESSAGE_LIMIT = 8 * 1024
TRACEBACK_LIMIT = 64 * 1024
_NAME_LIMIT = 300
_PATH_LIMIT = 500
_CHAIN_LIMIT = 16
# Exceptions in one text: each link of a chain may be a group, each member of which has a chain.
_MOST_LINKS = 64
# Frames of one traceback that are shown from either end.
_MOST_FRAMES = 32


def describe(error: BaseException, *, inputs: bool = True) -> dict[str, Any]:
    """Return what the host needs to know of ``error``; never raises. ``inputs`` as of ``message``."""
    # issubclass and not isinstance, which would ask the exception for its __class__.
    kind = type(error)
    facts: dict[str, Any] = {
        "retryable": issubclass(kind, RetryableError),
        "memory": issubclass(kind, MemoryError) or _is_enomem(error),
        "cancelled": issubclass(kind, (CallCancelled, CallTimeout)),
    }
    denied = _denied(error)
    if denied:
        facts["denied"] = denied
    try:
        text = _clip(_text(error, inputs=inputs), TRACEBACK_LIMIT)
        return {"type": type_name(error), "message": message(error, inputs=inputs), "traceback": text, **facts}
    except BaseException:  # no memory, or no room on the stack: the error must still arrive
        return {"type": "unknown", "message": "an exception that can't be described", "traceback": "", **facts}


def _is_enomem(error: BaseException) -> bool:
    """Whether a system call, like mmap, got no memory: Python makes no MemoryError of that."""
    return _errno(error) == errno.ENOMEM


def _errno(error: BaseException) -> int | None:
    if not issubclass(type(error), OSError):
        return None
    number = _number(error)
    return number if type(number) is int else None


# Past what the class would say.
_number = OSError.__dict__["errno"].__get__
_filename = OSError.__dict__["filename"].__get__
_DENIED = {errno.EACCES: "EACCES", errno.EPERM: "EPERM"}
_MOST_DENIED = 4


def _denied(error: BaseException) -> list[dict[str, str]]:
    """Return what was not permitted, in the exception or in anything that hangs on it, the exception itself first; never raises."""
    try:
        failed = [(name, each) for each in _all_in(error) if (name := _DENIED.get(_errno(each) or 0)) is not None]
        return [{"errno": name, "path": _path(_filename(each))} for name, each in failed[:_MOST_DENIED]]
    except BaseException:  # no memory, no room on the stack
        return []


def _all_in(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its causes, whether they are shown or not, and the members of groups."""
    waiting, seen = [error], {id(error)}
    while waiting and len(seen) <= _MOST_LINKS:
        at = waiting.pop(0)
        yield at
        for other in (_cause(at), _context(at), *_group_members(at)):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def _group_members(error: BaseException) -> list[BaseException]:
    try:
        members: Any = getattr(error, "exceptions", None)
    except BaseException:  # a foreign attribute
        return []
    if type(members) not in (tuple, list):
        return []
    return [member for member in members[:_MOST_LINKS] if issubclass(type(member), BaseException)]


def _path(name: object) -> str:
    if type(name) is bytes:
        name = name.decode("utf-8", "backslashreplace")
    return clean(name[:_PATH_LIMIT]) if type(name) is str else ""


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class; never raises."""
    kind = type(error)
    try:
        module = type.__dict__["__dict__"].__get__(kind).get("__module__", "")
        module = clean(_exact(module)) if isinstance(module, str) else ""
    except BaseException:  # a module that is a text of some hostile kind
        module = ""
    name = class_name(kind)
    return name if module in ("builtins", "") else _clip(f"{module}.{name}", _NAME_LIMIT)


def class_name(kind: type) -> str:
    """Return a class's qualified name, past what its metaclass would say; never raises."""
    try:
        return _clip(clean(_exact(type.__dict__["__qualname__"].__get__(kind))), _NAME_LIMIT)
    except BaseException:  # a name that is a text of some hostile kind
        return "unknown"


def message(error: BaseException, *, inputs: bool = True) -> str:
    """Return an exception's text, clipped; never raises. Without ``inputs``, pydantic doesn't say what it found."""
    try:
        return clean(_clip(_exact(str(error if inputs else _without_inputs(error))), MESSAGE_LIMIT))
    except BaseException as failed:  # foreign __str__
        return f"<its text raised {type_name(failed)}>"


def quotes_inputs(error: BaseException) -> bool:
    """Whether an exception, or one that hangs on it, quotes what pydantic found."""
    return any(_is_pydantics(each) for each in _all_in(error))


def _is_pydantics(error: BaseException) -> bool:
    kind = getattr(sys.modules.get("pydantic_core"), "ValidationError", None)
    return kind is not None and issubclass(type(error), kind)


def _without_inputs(error: Any) -> object:
    if not _is_pydantics(error):
        return error
    rows = error.errors(include_url=False, include_input=False, include_context=False)
    places = ("".join((".".join(map(str, row["loc"])), ": ") if row["loc"] else ()) + str(row["msg"]) for row in rows[:_MOST_LINKS])
    return f"{len(rows)} of its values are wrong for {error.title}: {'; '.join(places)}"


def clean(text: str) -> str:
    """Return a text that UTF-8 can hold: what it can't is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _exact(text: str) -> str:
    """Return the text itself, where a subclass of str would come with methods of its own."""
    return text if type(text) is str else str.__add__("", text)


def _text(error: BaseException, *, inputs: bool) -> str:
    try:
        return clean("".join(_Formatted(inputs=inputs).lines(error)))
    except BaseException:  # no room on the stack, or source files that can't be read
        return f"{type_name(error)}: {message(error, inputs=inputs)}\n"


_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


class _Formatted:
    """The lines of one exception with everything that hangs on it; of groups, up to a number of exceptions."""

    def __init__(self, *, inputs: bool) -> None:
        self._left = _MOST_LINKS
        self._inputs = inputs

    def lines(self, error: BaseException) -> list[str]:
        found: list[str] = []
        for link, heading in _chain(error):
            self._left -= 1
            found.append(heading)
            found.extend(_guarded(lambda link=link: _stack(link)))  # type: ignore[misc]
            found.extend(_guarded(lambda link=link: _said(link, inputs=self._inputs)))  # type: ignore[misc]
            found.extend(_guarded(lambda link=link: _notes(link)))  # type: ignore[misc]
            found.extend(_guarded(lambda link=link: self._members(link)))  # type: ignore[misc]
        return found

    def _members(self, error: BaseException) -> list[str]:
        members: Any = getattr(error, "exceptions", None)
        if type(members) not in (tuple, list):
            return []
        lines: list[str] = []
        for member in members:
            if self._left <= 0:
                return [*lines, "[more exceptions left out]\n"]
            if issubclass(type(member), BaseException):
                lines.extend(["  +---\n", *(f"  | {line}\n" for line in "".join(self.lines(member)).splitlines())])
        return lines


def _guarded(lines: Callable[[], list[str]]) -> list[str]:
    """Return the lines, or none: one hostile part of an exception must not hide the others."""
    try:
        return lines()
    except BaseException:  # foreign attributes, notes and members
        return []


# What the interpreter itself keeps of an exception, past any property of the same name.
_cause = BaseException.__dict__["__cause__"].__get__
_context = BaseException.__dict__["__context__"].__get__
_suppressed = BaseException.__dict__["__suppress_context__"].__get__
_traceback = BaseException.__dict__["__traceback__"].__get__


def _chain(error: BaseException) -> list[tuple[BaseException, str]]:
    """Return the causes of ``error``, the first cause first, each with the words before it."""
    found: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen and len(found) < _CHAIN_LIMIT:
        seen.add(id(at))
        cause, context = _cause(at), _context(at)
        if cause is not None:
            found.append((at, _CAUSE))
            at = cause
        elif context is not None and not _suppressed(at):
            found.append((at, _CONTEXT))
            at = context
        else:
            found.append((at, ""))
            at = None
    if at is not None:
        last, heading = found[-1]
        found[-1] = (last, f"[more causes left out]\n{heading}")
    return found[::-1]


def _stack(error: BaseException) -> list[str]:
    import traceback  # only a failing call pays for it

    entries = _entries(_traceback(error))
    if not entries:
        return []
    lines = ["Traceback (most recent call last):\n"]
    if len(entries) > 2 * _MOST_FRAMES:
        lines += traceback.format_tb(_chained(entries[:_MOST_FRAMES]))
        lines.append(f"  [{len(entries) - 2 * _MOST_FRAMES} frames left out]\n")
        entries = entries[-_MOST_FRAMES:]
    return lines + traceback.format_tb(_chained(entries))


def _entries(trace: TracebackType | None) -> list[TracebackType]:
    """Return a traceback's entries without hostkit's own, unless there are no others."""
    entries = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    return [entry for entry in entries if not _is_ours(entry.tb_frame)] or entries


def _chained(entries: list[TracebackType]) -> TracebackType | None:
    chain: TracebackType | None = None
    for entry in reversed(entries):
        chain = type(entry)(chain, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return chain


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return type(name) is str and (
        name.startswith(("hostkit._", "importlib._", "_frozen_importlib")) or name in ("importlib", "pluggy._callers")
    )


def _said(error: BaseException, *, inputs: bool) -> list[str]:
    words = f"{type_name(error)}: {message(error, inputs=inputs)}\n"
    if not issubclass(type(error), SyntaxError):
        return [words]
    import traceback

    try:  # with the line of source that is wrong
        return [_exact(line) for line in traceback.format_exception_only(type(error), error)]
    except BaseException:  # whatever stands in its attributes
        return [words]


def _notes(error: BaseException) -> list[str]:
    notes: Any = getattr(error, "__notes__", None)
    if type(notes) not in (list, tuple):
        return []
    return [_clip(_exact(note), MESSAGE_LIMIT) + "\n" for note in notes[:16] if isinstance(note, str)]


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}\n[{len(text) - limit} characters left out]\n{text[-limit // 2 :]}"


def is_interrupt(error: BaseException) -> bool:
    """Whether ``error`` is a real Ctrl-C that the host must see, and not one that foreign code raised by itself.

    A signal's KeyboardInterrupt arrives between instructions or in a C call of the main thread, or out of the application's own
    handler; one that foreign code raises has a ``raise`` as its innermost instruction.
    """
    if not issubclass(type(error), KeyboardInterrupt):
        return False
    import threading

    trace = _traceback(error)
    if trace is None or threading.current_thread() is not threading.main_thread():
        return False
    handler = _handlers_code()
    while trace.tb_next is not None and trace.tb_frame.f_code is not handler:
        trace = trace.tb_next
    frame = trace.tb_frame
    # asyncio's own handler cancels the main task, and its runner raises when that has ended.
    return frame.f_code is handler or frame.f_globals.get("__name__") == "asyncio.runners" or not _raises(frame, trace.tb_lasti)


def _handlers_code() -> object:
    import signal

    handler = signal.getsignal(signal.SIGINT)
    return getattr(getattr(handler, "__func__", handler), "__code__", None)


def _raises(frame: FrameType, at: int) -> bool:
    import opcode  # dis has the same names and costs 10 ms

    code = frame.f_code.co_code
    return 0 <= at < len(code) and opcode.opname[code[at]] == "RAISE_VARARGS"
