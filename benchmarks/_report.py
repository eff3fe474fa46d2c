"""What was measured, as tables for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One peer's figures, one a round; or none, and ``note`` says why. Units: s, calls/s, MB.

    ``beside`` are further columns, in seconds: a figure a round, or a sentence.
    """

    name: str
    samples: Sequence[float] = ()
    unit: str = "s"
    note: str = ""
    beside: Mapping[str, Sequence[float] | str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The middle figure."""
        return median(self.samples)


@dataclass(frozen=True, slots=True)
class Budget:
    """A promise of the design and what was measured, one figure a round. A ratio's unit is "x"."""

    what: str
    samples: Sequence[float]
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool:
        """Whether the median keeps it."""
        found = median(self.samples)
        return (self.most is None or found <= self.most) and (self.least is None or found >= self.least)

    @property
    def limit(self) -> str:
        """The promise in words."""
        return f"≤ {_shown(self.most, self.unit)}" if self.most is not None else f"≥ {_shown(self.least or 0.0, self.unit)}"


Beside = Mapping[str, Mapping[str, Sequence[float] | str]]
_NOTHING: Beside = {}


@dataclass(slots=True)
class Section:
    """One question's rows; ``base`` is the row that the others are compared with. ``way`` says on which CPUs it was asked."""

    title: str
    base: str = ""
    way: str = ""
    rows: list[Row] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)

    def measured(self, found: Mapping[str, Sequence[float]], unit: str = "s", beside: Beside = _NOTHING) -> None:
        """Add a row for each."""
        self.rows += [Row(name, tuple(samples), unit, beside=beside.get(name, {})) for name, samples in found.items()]

    def missing(self, name: str, why: str) -> None:
        """Add a row of a peer that can't be measured here."""
        self.rows.append(Row(name, note=why))

    def promise(self, what: str, samples: Sequence[float], unit: str = "x", **limit: float) -> None:
        """Add a budget: ``most=`` or ``least=``."""
        self.budgets.append(Budget(what, tuple(samples), unit, **limit))


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide round by round: what slows a whole round down cancels out."""
    return [one / other for one, other in zip(above, below, strict=True)]


def text(sections: Sequence[Section], conditions: Mapping[str, Any]) -> str:
    """Return everything as tables."""
    lines = [", ".join(f"{key} {value}" for key, value in conditions.items())]
    for section in sections:
        lines += ["", _titled(section), *_table(section)]
    if any(section.budgets for section in sections):
        lines += ["", "Budgets (DESIGN.md, section 8)", *_verdicts(sections)]
    return "\n".join(lines)


def data(sections: Sequence[Section], conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything as JSON data; times are seconds."""
    return {
        "conditions": dict(conditions),
        "sections": [
            {
                "title": section.title,
                "way": section.way,
                "base": section.base,
                "rows": [_row_data(row) for row in section.rows],
                "budgets": [
                    {"what": each.what, "budget": each.limit, "measured": median(each.samples), "unit": each.unit, "met": each.met}
                    for each in section.budgets
                ],
            }
            for section in sections
        ],
    }


def conditions(*, rounds: int) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": len(os.sched_getaffinity(0)),
        "rounds": rounds,
        "load": load(),
        "bytecode": "not written" if sys.dont_write_bytecode else "cached",
    }


def load() -> str:
    """Return how many processes wanted a CPU, in the last minute and the last five and fifteen."""
    return " ".join(f"{each:.1f}" for each in os.getloadavg())


def _titled(section: Section) -> str:
    return f"{section.title}; {section.way}" if section.way else section.title


def _table(section: Section) -> list[str]:
    base = next((row for row in section.rows if row.name == section.base and row.samples), None)
    beside = list(dict.fromkeys(name for row in section.rows for name in row.beside))
    cells: list[tuple[str, ...]] = [("", "median", "min", "max", f"÷ {section.base}" if base is not None else "", *beside)]
    for row in section.rows:
        if not row.samples:
            here = (row.name, row.note)
            cells.append((*here, "", "", "", *(_cell(row.beside.get(name, "")) for name in beside)) if row.beside else here)
            continue
        against = "" if base is None or base.unit != row.unit else f"{row.median / base.median:.2f}"
        cells.append((row.name, *_spread(row.samples, row.unit), against, *(_cell(row.beside.get(name, "")) for name in beside)))
    return _aligned(cells)


def _cell(found: Sequence[float] | str) -> str:
    return found if isinstance(found, str) else _shown(median(found), "s")


def _verdicts(sections: Sequence[Section]) -> list[str]:
    cells: list[tuple[str, ...]] = [("", "budget", "median", "min", "max", "")]
    cells += [
        (
            f"{each.what}; {section.way}" if section.way else each.what,
            each.limit,
            *_spread(each.samples, each.unit),
            "met" if each.met else "MISSED",
        )
        for section in sections
        for each in section.budgets
    ]
    return _aligned(cells)


def _spread(samples: Sequence[float], unit: str) -> tuple[str, str, str]:
    return _shown(median(samples), unit), _shown(min(samples), unit), _shown(max(samples), unit)


def _aligned(cells: Sequence[tuple[str, ...]]) -> list[str]:
    """Line columns up: the first to the left, the others to the right. A row of two cells is a name and a sentence."""
    first = max(len(row[0]) for row in cells)
    widths = [max(map(len, column)) for column in zip(*(row[1:] for row in cells if len(row) > 2), strict=True)]
    return [
        "  ".join([f"  {row[0]:<{first}}", *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths, strict=False))]).rstrip()
        for row in cells
    ]


def _row_data(row: Row) -> dict[str, Any]:
    if not row.samples:
        return {"name": row.name, "skipped": row.note}
    return {
        "name": row.name,
        "unit": row.unit,
        "median": row.median,
        "min": min(row.samples),
        "max": max(row.samples),
        "samples": list(row.samples),
        "beside": {name: found if isinstance(found, str) else median(found) for name, found in row.beside.items()},
    }


def _shown(value: float, unit: str) -> str:
    if unit == "calls/s":
        return f"{value:,.0f}/s"
    if unit == "MB":
        return f"{value:.1f} MB"
    if unit == "x":
        return f"{value:.2f} x"
    if unit in ("", "threads", "calls"):
        return f"{value:.3g} {unit}".rstrip()
    for factor, name in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if abs(value) * factor < 1000.0:
            return f"{value * factor:.3g} {name}" if abs(value) * factor < 100.0 else f"{value * factor:.0f} {name}"
    return f"{value:.2f} s"
