"""Draw a histogram with Pillow alone."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

_WIDTH, _HEIGHT = 880, 420
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 50, 30, 55
_COLOURS = {"red": (214, 58, 47), "green": (52, 150, 71), "blue": (52, 101, 195)}
_INK, _GRID, _PAPER = (60, 60, 60), (228, 228, 228), (255, 255, 255)


def histogram_plot(counts: np.ndarray) -> Image.Image:
    """Return a picture of three histograms over each other, as shares of all pixels; the tallest bars of a clipped picture are cut."""
    shares = counts / max(1, int(counts[0].sum())) * 100.0
    # One peak, such as a white background, must not flatten everything else.
    top = max(0.01, float(np.sort(shares, axis=None)[-8]) * 1.08)
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), _PAPER)
    _draw_grid(ImageDraw.Draw(picture), top)
    for share, (name, colour) in zip(shares, _COLOURS.items(), strict=True):
        layer = Image.new("RGBA", picture.size)
        line = [(_x(level), _y(float(value), top)) for level, value in enumerate(share)]
        draw = ImageDraw.Draw(layer)
        draw.polygon([(_x(0), _y(0, top)), *line, (_x(255), _y(0, top))], fill=(*colour, 70))
        draw.line(line, fill=(*colour, 255), width=2, joint="curve")
        picture.paste(layer, mask=layer)
        _draw_key(ImageDraw.Draw(picture), name, colour)
    return picture


def _draw_grid(draw: ImageDraw.ImageDraw, top: float) -> None:
    for level in range(0, 256, 51):
        draw.line([(_x(level), _TOP), (_x(level), _HEIGHT - _BOTTOM)], fill=_GRID)
        draw.text((_x(level), _HEIGHT - _BOTTOM + 8), str(level), fill=_INK, anchor="ma", font_size=14)
    for step in range(5):
        share = top * step / 4
        draw.line([(_LEFT, _y(share, top)), (_WIDTH - _RIGHT, _y(share, top))], fill=_GRID)
        draw.text((_LEFT - 8, _y(share, top)), f"{share:.2g} %", fill=_INK, anchor="rm", font_size=14)
    draw.text((_WIDTH / 2, _HEIGHT - 12), "brightness", fill=_INK, anchor="ms", font_size=15)
    draw.text((_LEFT, _TOP - 22), "share of pixels", fill=_INK, anchor="lm", font_size=15)


def _draw_key(draw: ImageDraw.ImageDraw, name: str, colour: tuple[int, int, int]) -> None:
    left = _WIDTH - _RIGHT - 90 * (3 - list(_COLOURS).index(name))
    draw.rectangle([(left, _TOP - 29), (left + 14, _TOP - 15)], fill=colour)
    draw.text((left + 20, _TOP - 22), name, fill=_INK, anchor="lm", font_size=15)


def _x(level: int) -> float:
    return _LEFT + level / 255 * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - min(share / top, 1.0) * (_HEIGHT - _TOP - _BOTTOM)
