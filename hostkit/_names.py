"""What a plugin may be called, and when two names are one. Standard library only, because a listing needs it."""

from __future__ import annotations

import re
import unicodedata

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_SEPARATORS = re.compile(r"[-_.]+")
# Names of directories and variables are made from plugins' names; on Windows these are devices, whatever their suffix.
_DEVICES = {"aux", "con", "nul", "prn", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def checked_name(name: str) -> str:
    """Return a plugin's name, or raise ``ValueError`` that says what is wrong with it."""
    if not isinstance(name, str) or not 0 < len(name) <= 128:
        raise ValueError("a plugin's name is text of 1 to 128 characters")
    if not _NAME.fullmatch(name):
        # Letters of one alphabet that look like those of another would pass for somebody else's name.
        raise ValueError(
            f"{name!a} is no name for a plugin; expected ASCII letters, digits, '-', '_' and '.', a letter or digit at both ends"
        )
    if name.partition(".")[0].casefold() in _DEVICES:
        raise ValueError(f"{name!r} is the name of a device on Windows")
    return name


def normalized(name: str) -> str:
    """Return the form in which two names count as the same: NFKC, casefold, PEP 503."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return _SEPARATORS.sub("-", folded).strip("-")


def printable(text: str, most: int = 200) -> str:
    """Return what somebody else chose as it may be shown: one line, and nothing that paints or hides."""
    shown = text if text.isprintable() else text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return shown if len(shown) <= most else shown[: most - 3] + "..."
