"""Foreign text on its way to a terminal: nothing in it may move the cursor, paint, or pass for another line."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), what reorders or breaks lines invisibly, and what can't be encoded.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: object) -> str:
    """Return a text on one line, with escapes for whatever is not to be printed as it is."""
    return UNSAFE.sub(lambda match: _SHORT.get(match[0]) or _escape(match[0]), str(text))


def _escape(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 0x100 else f"\\u{ord(letter):04x}"
