"""Turn any exception of foreign code into plain data, however hostile it is.

The data is ``{"type", "message", "traceback", "retryable", "memory", "cancelled"}``, all text and booleans. An exception's
``__str__`` may raise SystemExit, return 10 MB or not be text; causes may be cyclic or thousands deep; notes may be anything.
"""

from __future__ import annotations

from .._errors import CallCancelled, CallTimeout, RetryableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

MESSAGE_LIMIT = 8 * 1024
TRACEBACK_LIMIT = 64 * 1024
_CHAIN_LIMIT = 16


def describe(error: BaseException) -> dict[str, Any]:
    """Return what the host needs to know of ``error``; never raises."""
    try:
        return {
            "type": type_name(error),
            "message": message(error),
            "traceback": _clip(_text(error), TRACEBACK_LIMIT),
            "retryable": isinstance(error, RetryableError),
            "memory": isinstance(error, MemoryError),
            "cancelled": isinstance(error, (CallCancelled, CallTimeout)),
        }
    except BaseException:  # the exception itself is foreign code: nothing that it does may lose the error
        return {
            "type": "unknown",
            "message": "an exception that can't be described",
            "traceback": "",
            "retryable": False,
            "memory": False,
            "cancelled": False,
        }


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class; never raises."""
    kind = type(error)
    try:
        name = type.__dict__["__qualname__"].__get__(kind)
        module = vars(kind).get("__module__", "")
    except BaseException:  # a hostile metaclass
        return "unknown"
    if not isinstance(module, str) or module in ("builtins", ""):
        return str(name)
    return f"{module}.{name}"


def message(error: BaseException) -> str:
    """Return an exception's text, clipped; never raises."""
    try:
        text = str(error)
        if not isinstance(text, str):
            return "<its text is no text>"
        return _clean(_clip(text, MESSAGE_LIMIT))
    except BaseException as failed:  # foreign __str__
        return f"<its text raised {type(failed).__name__}>"


def _text(error: BaseException) -> str:
    try:
        return _clean(_formatted(error))
    except BaseException:  # foreign __str__, notes and causes run while it is formatted
        return f"{type_name(error)}: {message(error)}\n"


def _formatted(error: BaseException) -> str:
    import traceback  # only a failing call pays for it

    lines: list[str] = []
    for link, heading in _chain(error):
        lines.append(heading)
        lines.extend(_stack(link.__traceback__, traceback))
        lines.append(f"{type_name(link)}: {message(link)}\n")
        lines.extend(_notes(link))
        lines.extend(_members(link))
    return "".join(lines)


_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def _chain(error: BaseException) -> list[tuple[BaseException, str]]:
    """Return the causes of ``error``, the first cause first, each with the words before it."""
    found: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen and len(found) < _CHAIN_LIMIT:
        seen.add(id(at))
        cause, context = at.__cause__, at.__context__
        if cause is not None:
            found.append((at, _CAUSE))
            at = cause
        elif context is not None and not at.__suppress_context__:
            found.append((at, _CONTEXT))
            at = context
        else:
            found.append((at, ""))
            at = None
    last, _ = found[-1]
    found[-1] = (last, "" if at is None else "[more causes left out]\n")
    return found[::-1]


def _stack(trace: TracebackType | None, traceback: Any) -> list[str]:  # Any: the module, imported late
    while trace is not None and _is_ours(trace.tb_frame):
        trace = trace.tb_next
    if trace is None:
        return []
    return ["Traceback (most recent call last):\n", *traceback.format_tb(trace, 64)]


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and (name.startswith(("hostkit._", "importlib.", "importlib")) or name == "pluggy._callers")


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", None)
    if not isinstance(notes, (list, tuple)):
        return []
    return [_clip(note, MESSAGE_LIMIT) + "\n" for note in notes[:16] if isinstance(note, str)]


def _members(error: BaseException) -> list[str]:
    members = getattr(error, "exceptions", None)
    if not isinstance(members, tuple):
        return []
    return [
        f"  | {type_name(member)}: {message(member)}\n" for member in members[:16] if isinstance(member, BaseException)
    ]


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}\n[{len(text) - limit} characters left out]\n{text[-limit // 2 :]}"


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# dis has names for opcodes and costs 10 ms; opcode has them for nothing.
def is_interrupt(error: BaseException) -> bool:
    """Whether ``error`` is a real Ctrl-C that the host must see, and not one that foreign code raised by itself.

    A signal's KeyboardInterrupt arrives between instructions or in a C call of the main thread; one that foreign code raises
    has a ``raise`` as its innermost instruction.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    import opcode
    import threading

    trace = error.__traceback__
    if trace is None or threading.current_thread() is not threading.main_thread():
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code.co_code
    return not (0 <= trace.tb_lasti < len(code) and opcode.opname[code[trace.tb_lasti]] == "RAISE_VARARGS")
