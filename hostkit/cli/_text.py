"""Answers and foreign text as one prints them: on one line, as a block, as JSON."""

from __future__ import annotations

import json
from typing import Any

from .._printable import UNSAFE, escaped
from .._worker._buffers import as_json

__all__ = ["block", "escaped", "json_text"]


def block(text: object, indent: str = "  ") -> str:
    """Return a text of several lines, escaped, each line after the first one indented so that it can't pass for one of ours."""
    return f"\n{indent}".join(escaped(line) for line in str(text).rstrip("\n").split("\n"))


def json_text(value: object, *, indented: bool, ascii_only: bool) -> str:
    """Return a value as JSON that can be printed: the same value, with more of its characters written as escapes."""
    separators = None if indented else (",", ":")
    options: dict[str, Any] = {"ensure_ascii": ascii_only, "indent": 2 if indented else None, "separators": separators}
    text = json.dumps(value, allow_nan=False, default=as_json, **options)
    # Outside of strings JSON has none of these but the line breaks of an indented text.
    return UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)
