"""The columns of the table: what each shows, how important it is, and which of them fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from . import _words
from ._rows import Row

_NAME, _LONGEST_NAME = 12, 30
# How words are painted that say how something is doing.
STYLES = {
    "healthy": "green",
    "degraded": "yellow",
    "unhealthy": "bold red",
    "offline": "bold red",
    "draining": "yellow",
    "given up": "bold red",
    "broken": "bold red",
    "open": "bold red",
    "half-open": "yellow",
}
_QUIET, BARS = "dim", "cyan"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``value`` is what is sorted by and ``words`` what is shown, in ``width`` cells."""

    heading: str
    width: int
    value: Callable[[Row], str | float | None]
    words: Callable[[Row], str]
    right: bool = True
    describes: str = ""

    @property
    def gap(self) -> int:
        """How many empty cells are before it."""
        return 0 if self.heading == "NAME" else 1

    def text(self, row: Row) -> str:
        """Return the cell of a row, padded, with the gap before it."""
        return " " * self.gap + _words.fitted(self.words(row), self.width, right=self.right)

    def style(self, row: Row) -> str:
        """Return how the cell is painted; the words say the same without it."""
        value = self.value(row)
        if self.heading == "TREND":
            return BARS
        if self.heading == "ERR/S":
            return "red" if value else _QUIET
        return STYLES.get(str(value), _QUIET if self.words(row) in (_words.UNKNOWN, "0", "") else "")


def _number(
    heading: str, width: int, value: Callable[[Row], float | None], words: Callable[[float | None], str], what: str
) -> Column:
    return Column(heading, width, value, lambda row: words(value(row)), describes=what)


def _word(heading: str, width: int, value: Callable[[Row], str], what: str) -> Column:
    return Column(heading, width, value, lambda row: value(row) or _words.UNKNOWN, right=False, describes=what)


def _count(number: float | None) -> str:
    return str(number)


def _workers(row: Row) -> str:
    return f"{row.serving}+{row.standby}" if row.standby else str(row.serving)


NAME = _word("NAME", _NAME, lambda row: row.name, "the plugin")
STATUS = _word("STATUS", 10, lambda row: row.status, "health of a loaded plugin, else its state")
STATE = _word("STATE", 10, lambda row: row.state, "loaded, not loaded, disabled, draining, given up, broken")
HEALTH = _word("HEALTH", 9, lambda row: row.health, "what its last health check said")
MODE = _word("MODE", 7, lambda row: row.mode, "where it runs: none is the host's own process")
CALLS = _number("CALL/S", 6, lambda row: row.calls, _words.rate, "calls a second that ended, in the last interval")
ERRORS = _number("ERR/S", 5, lambda row: row.errors, _words.rate, "those of them that ended with an error")
P50 = _number("P50", 5, lambda row: row.p50, _words.time, "half of them took no longer")
P99 = _number("P99", 5, lambda row: row.p99, _words.time, "99 of 100 took no longer")
BREAKER = replace(
    _word("BREAK", 6, lambda row: row.breaker, "the circuit breaker: closed, open, half (open), off"),
    words=lambda row: row.breaker.replace("half-open", "half") or _words.UNKNOWN,
)
RESTARTS = _number("RST", 3, lambda row: row.restarts, _count, "workers that were lost and replaced")
MEMORY = _number("MEM", 5, lambda row: row.memory, _words.memory, "memory of its workers")
CPU = _number("CPU%", 4, lambda row: row.cpu, _words.percent, "CPU of its workers, in percent of one core")
IN_FLIGHT = _number("RUN", 4, lambda row: row.in_flight, _count, "calls in flight")
WAITING = _number("WAIT", 4, lambda row: row.waiting, _count, "calls that wait for a place")
WORKERS = replace(_number("WRK", 4, lambda row: row.serving, _count, "workers, + those standing by"), words=_workers)
SANDBOX = _word("SANDBOX", 8, lambda row: row.sandbox, "what its workers are confined to")
TREND = Column("TREND", 16, lambda row: row.calls, lambda row: _words.spark(row.trend, 16), describes="calls a second so far")
VERSION = _word("VERSION", 10, lambda row: row.version, "the plugin's version")
SAYS = _word("HEALTH SAYS", 24, lambda row: row.says, "the message of its health")

# As they stand on a screen.
_PLACES = (
    NAME,
    VERSION,
    MODE,
    SANDBOX,
    STATUS,
    STATE,
    HEALTH,
    CALLS,
    TREND,
    ERRORS,
    P50,
    P99,
    IN_FLIGHT,
    WAITING,
    BREAKER,
    RESTARTS,
    WORKERS,
    MEMORY,
    CPU,
    SAYS,
)
# Which goes first where there is no room for all; HEALTH comes with STATE, and both in the place of STATUS.
_IMPORTANCE = (
    STATUS,
    CALLS,
    P99,
    BREAKER,
    MODE,
    ERRORS,
    MEMORY,
    P50,
    RESTARTS,
    CPU,
    IN_FLIGHT,
    WAITING,
    WORKERS,
    HEALTH,
    SANDBOX,
    TREND,
    SAYS,
    VERSION,
)

ALL = tuple(column for column in _PLACES if column is not STATUS)


def fitting(rows: Iterable[Row], cells: int) -> list[Column]:
    """Return the columns that fit side by side into so many cells; what is left over goes to the names."""
    chosen = {NAME}
    for column in _IMPORTANCE:
        more = chosen - {STATUS} | {STATE, HEALTH} if column is HEALTH else chosen | {column}
        if _cells(more) > cells:
            break
        chosen = more
    longest = max((len(row.name) for row in rows), default=0)
    spare = max(0, cells - _cells(chosen))
    named = replace(NAME, width=min(max(_NAME, longest), _LONGEST_NAME, _NAME + spare))
    return [named, *sorted(chosen - {NAME}, key=_PLACES.index)]


def _cells(columns: Iterable[Column]) -> int:
    return sum(column.gap + column.width for column in columns)


@dataclass(frozen=True, slots=True)
class Order:
    """How rows are sorted: by a column, numbers from the largest on, words by the alphabet, or the other way round."""

    heading: str = NAME.heading
    turned: bool = False

    @property
    def downwards(self) -> bool:
        """Whether the largest is on top."""
        return self._column.right is not self.turned

    def following(self, columns: Sequence[Column]) -> Order:
        """Return the order by the next of these columns."""
        headings = [column.heading for column in columns]
        here = headings.index(self.heading) if self.heading in headings else -1
        return Order(headings[(here + 1) % len(headings)])

    def sort(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows in this order; those without a value come last, equal ones by name."""
        value = self._column.value
        by_name = sorted(rows, key=lambda row: row.name)
        known = [row for row in by_name if value(row) not in (None, "")]
        return [*sorted(known, key=value, reverse=self.downwards), *(row for row in by_name if value(row) in (None, ""))]  # type: ignore[arg-type]  # one column's values are all of one kind

    @property
    def _column(self) -> Column:
        return next(column for column in (STATUS, *ALL) if column.heading == self.heading)
