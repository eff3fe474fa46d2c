"""Foreign text on its way to a terminal: nothing in it may move the cursor, paint, or pass for another line."""

from __future__ import annotations

import json
import re
from typing import Any

from .._worker._buffers import as_json

# Control characters (C0, DEL, C1), what reorders or breaks lines invisibly, and what can't be encoded.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: object) -> str:
    """Return a text on one line, with escapes for whatever is not to be printed as it is."""
    return _UNSAFE.sub(lambda match: _SHORT.get(match[0]) or _escape(match[0]), str(text))


def block(text: object, indent: str = "  ") -> str:
    """Return a text of several lines, escaped, each line after the first one indented so that it can't pass for one of ours."""
    return f"\n{indent}".join(escaped(line) for line in str(text).rstrip("\n").split("\n"))


def json_text(value: object, *, indented: bool, ascii_only: bool) -> str:
    """Return a value as JSON that can be printed: the same value, with more of its characters written as escapes."""
    separators = None if indented else (",", ":")
    options: dict[str, Any] = {"ensure_ascii": ascii_only, "indent": 2 if indented else None, "separators": separators}
    text = json.dumps(value, allow_nan=False, default=as_json, **options)
    # Outside of strings JSON has none of these but the line breaks of an indented text.
    return _UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def _escape(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}"
