"""Numbers in JSON that a float, or JSON itself, doesn't hold."""

from __future__ import annotations

import json

from ._data import DataError, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# A whole number with more bits than this is more than a float holds (1.8e308) and would arrive as infinity.
MOST_BITS = 1024
FEWEST_DIGITS = 309
_DEEPEST = 100  # levels of data that are looked into
_DIGITS = frozenset(b"0123456789")
_N, _I = b"NI"


def is_suspect(payload: bytes) -> bool:
    """Whether there can be a number in JSON that needs a look; rarely in a small message."""
    # By number, because asking for a piece of bytes makes and drops an error first, which takes longer than the search.
    return _N in payload or _I in payload or payload.find(b"null") >= 0 or len(payload) >= FEWEST_DIGITS


def check_numbers(payload: bytes) -> None:
    """Refuse JSON with a whole number that no float holds. Raises ``DataError``."""
    # So many digits in a row cover one of these places, whatever stands before them.
    for at in range(FEWEST_DIGITS - 1, len(payload), FEWEST_DIGITS):
        if payload[at] in _DIGITS and (payload[at - 150 : at].isdigit() or payload[at : at + 150].isdigit()):
            for path in _too_large(_with_any_number(payload), "", 0):
                raise too_large(path)
            return


def _with_any_number(payload: bytes) -> Any:
    # Above 4300 digits the interpreter refuses to read a number, and above 309 it only matters that it is too large.
    try:
        return json.loads(payload, parse_int=lambda digits: int(digits[: FEWEST_DIGITS + 2]))
    except (ValueError, RecursionError):
        return None  # no JSON at all: whoever reads it says so


def _too_large(value: Any, path: str, depth: int) -> Iterator[str]:
    """Yield where such a number is."""
    if isinstance(value, int):
        if value.bit_length() > MOST_BITS:
            yield path
    elif depth <= _DEEPEST:
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, part in parts:
            yield from _too_large(part, join(path, key), depth + 1)


def too_large(path: str) -> DataError:
    """Return the error for such a number."""
    return DataError(path, "a number below 1.8e308", "a whole number of more than 308 digits")
