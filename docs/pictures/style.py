"""How all figures look: readable on a light and on a dark page, and the same file for the same data."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by everybody.
BLUE, GREEN, ORANGE, RED, SKY, GREY = "#0072B2", "#009E73", "#E69F00", "#D55E00", "#56B4E9", "#666666"
WIDTH = 8.0

mpl.rcParams.update(
    {
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "figure.facecolor": "white",
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "savefig.facecolor": "white",
        "svg.fonttype": "path",
        "svg.hashsalt": "hostkit",
    }
)


def panels(heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel above the other, which share their time."""
    figure, axes = plt.subplots(
        len(heights),
        1,
        sharex=True,
        squeeze=False,
        figsize=(WIDTH, sum(heights)),
        height_ratios=list(heights),
        layout="constrained",
    )
    return figure, [row[0] for row in axes]


def points(axes: Axes, x: Sequence[float], y: Sequence[float], **options: Any) -> None:
    """Draw one point a call; thousands of them are one small picture inside the file."""
    axes.plot(x, y, linestyle="none", **{"marker": "o", "markersize": 2.2, "markeredgewidth": 0, "rasterized": True, **options})


def durations(*alike: Axes, headroom: float = 1.6) -> None:
    """Make the axes of seconds logarithmic, alike and labelled as people read them; the largest value times ``headroom`` is the end."""
    values = [value for axes in alike for line in axes.get_lines() if line.get_rasterized() for value in line.get_ydata()]
    low, high = min(values) / 1.6, max(values) * headroom
    names = {1e-5: "10 µs", 1e-4: "100 µs", 1e-3: "1 ms", 1e-2: "10 ms", 1e-1: "100 ms", 1.0: "1 s", 10.0: "10 s"}
    for axes in alike:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        axes.set_yticks([at for at in names if low <= at <= high], [text for at, text in names.items() if low <= at <= high])
        axes.minorticks_off()


def save(figure: Figure, file: Path, *, title: str, caption: str) -> None:
    """Write the figure with its title above and its caption below it."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel("\n".join(textwrap.wrap(caption, 126)), x=0.01, ha="left", fontsize=8.5, color="#333333")
    figure.savefig(file, dpi=160, bbox_inches="tight", pad_inches=0.2, metadata={"Date": None, "Title": title, "Creator": None})
    plt.close(figure)
    file.write_text("".join(f"{line.rstrip()}\n" for line in file.read_text(encoding="utf-8").splitlines()), encoding="utf-8")
    print(f"  {file.name}: {file.stat().st_size / 1000:.0f} kB; {caption}")
