"""Say on stderr what went wrong: a sentence for people, one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType

from ._text import block, escaped, json_text

# Long texts that an error may carry, and how they are headed; people see them with --verbose.
_DETAILS = {
    "remote_traceback": "in the plugin",
    "fault_dump": "fault dump of the worker",
    "stderr_tail": "last words of the worker on stderr",
}


def tell_error(
    kind: str, message: str, *, status: int, as_json: bool, verbose: int = 0, carried: Mapping[str, object] = MappingProxyType({})
) -> None:
    """Tell one error. ``carried`` is what it has beside its message, told where it says something."""
    if as_json:
        more = {name: value for name, value in carried.items() if _says_something(name, value)}
        tell_json({"error": {"type": kind, "message": message, "status": status, **more}})
        return
    tell(f"hostkit: {kind}: {block(message)}")
    details = {heading: text for name, heading in _DETAILS.items() if (text := carried.get(name))}
    for heading, text in details.items():
        if verbose:
            tell(f"  --- {heading} ---\n  {block(text)}")
    if details and not verbose:
        tell(f"  (-v shows more: {', '.join(details)})")


def tell_json(value: object) -> None:
    """Write one line of JSON to stderr."""
    tell(json_text(value, indented=False, ascii_only=True))


def tell(text: str) -> None:
    """Write to stderr; where that is closed there is nobody to tell."""
    if sys.stderr is None:
        return
    try:
        encoding = sys.stderr.encoding or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def tell_log(message: object, *, as_json: bool) -> None:
    """Write one of loguru's messages; the sink of hostkit's log."""
    record = message.record  # type: ignore[attr-defined]  # what loguru gives its sinks
    level, extra = record["level"].name, record["extra"]
    if as_json:
        told = {name: extra[name] for name in ("plugin", "request_id", "source") if extra.get(name)}
        tell_json({"log": {"time": record["time"].isoformat(), "level": level, "message": record["message"], **told}})
        return
    where = " ".join(escaped(extra[name]) for name in ("plugin", "request_id") if extra.get(name))
    tell(f"{record['time']:HH:mm:ss.SSS} {level:<7} {where + ': ' if where else ''}{block(record['message'])}")


def _says_something(name: str, value: object) -> bool:
    return not name.startswith("_") and isinstance(value, (str, int, float, list)) and value not in ("", [])
