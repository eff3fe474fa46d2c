"""Numbers and foreign texts in as few cells as a table has for them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size

from .._printable import escaped

UNKNOWN = "-"
_BARS = " ▁▂▃▄▅▆▇█"


def fitted(text: object, cells: int, *, right: bool = False) -> str:
    """Return a text, escaped, in exactly so many cells of a terminal."""
    return padded(short(text, cells), cells, right)


def padded(words: str, cells: int, right: bool) -> str:  # noqa: FBT001 - mapped over
    """Return words in so many cells."""
    padding = " " * (cells - width(words))
    return padding + words if right else words + padding


def width(words: str) -> int:
    """Return how many cells of a terminal words take."""
    return cell_len(words)


def short(text: object, cells: int) -> str:
    """Return a text on one line, escaped, in no more than so many cells; one that was cut ends with three dots in one cell."""
    # Marks that take no cell of their own can be as many as a plugin likes.
    words = escaped(str(text)[: 4 * cells])
    if cell_len(words) <= cells and len(str(text)) <= 4 * cells:
        return words
    return set_cell_size(words, cells - 1).rstrip() + "…" if cells > 1 else set_cell_size(words, cells)


def rate(number: float | None) -> str:
    """Return so many a second, in five cells."""
    if number is None:
        return UNKNOWN
    if number < 9.95:
        return f"{number:.1f}" if number >= 0.05 else "0"
    return f"{number:.0f}" if number < 9_999.5 else f"{number / 1000:.0f}k"


def time(seconds: float | None) -> str:
    """Return a short time, in five cells."""
    if seconds is None:
        return UNKNOWN
    unit, scale = ("µs", 1e6) if seconds < 999.5e-6 else ("ms", 1e3) if seconds < 0.9995 else ("s", 1.0)
    number = seconds * scale
    return f"{number:.1f}{unit}" if number < 9.95 else f"{number:.0f}{unit}"


def duration(seconds: float) -> str:
    """Return a long time, in its two largest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02}h"


def memory(size: float | None) -> str:
    """Return so many bytes, in five cells."""
    if size is None:
        return UNKNOWN
    number, unit = float(size), "B"
    for larger in "KMGT":
        if number < 999.5:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f}{unit}" if unit not in "BK" and number < 9.95 else f"{number:.0f}{unit}"


def percent(number: float | None) -> str:
    """Return a share in percent, without the sign."""
    return UNKNOWN if number is None else f"{number:.0f}"


def spark(numbers: Iterable[float], cells: int) -> str:
    """Return the last numbers as bars, the highest of them a whole cell high."""
    shown = list(numbers)[-cells:]
    most = max(shown, default=0.0)
    bars = "".join(_BARS[min(8, max(1, round(number / most * 8)))] if number > 0 else _BARS[1] if most else " " for number in shown)
    return bars.rjust(cells)
