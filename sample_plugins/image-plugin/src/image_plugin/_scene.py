"""A picture to work with: evening over a lake, rendered from nothing."""

from __future__ import annotations

import numpy as np

_RIDGES = [  # how high, how rough, its colour
    (0.43, 0.060, (118, 92, 128)),
    (0.48, 0.050, (84, 66, 104)),
    (0.54, 0.035, (48, 40, 70)),
]
_SHORE = 0.60


def scene(width: int = 960, height: int = 600) -> np.ndarray:
    """Return rows of red, green and blue."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    picture = _sky(x, y)
    for number, (level, rough, colour) in enumerate(_RIDGES):
        ground = y > _ridge(x, level, rough, number)
        # Haze: the lower, the lighter.
        picture[ground] = np.array(colour) + (y[ground] - level)[:, None] * np.array([260.0, 190.0, 120.0])
    rows = np.arange(height)
    shore = int(_SHORE * height)
    picture[shore:] = _lake(picture, rows[shore:], shore, x[0])
    return np.clip(picture, 0, 255).astype("uint8")


def _sky(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    low, high = np.array([255, 176, 104.0]), np.array([40, 52, 110.0])
    height = (1 - y / _SHORE)[..., None]
    sky = low + (high - low) * np.clip(height, 0, 1) ** 0.75
    away = np.hypot((x - 0.66) * 1.6, y - 0.36)[..., None]
    sky += np.array([150, 110, 60.0]) * np.exp(-((away / 0.16) ** 2))
    sun = np.clip((0.055 - away) / 0.003, 0, 1)
    sky = sky * (1 - sun) + np.array([255, 244, 214.0]) * sun
    clouds = sum(np.sin(x * f + np.sin(y * f * 5 + f)) / f for f in (7.0, 13.0, 29.0, 61.0)) * np.exp(-(((y - 0.17) / 0.1) ** 2))
    return sky + np.array([120, 84, 70.0]) * np.clip(clouds, 0, 1)[..., None] * 2.2


def _ridge(x: np.ndarray, level: float, rough: float, seed: int) -> np.ndarray:
    waves = sum(np.sin(x * f + seed * 2.1 + f) / f**0.8 for f in (5.0, 11.0, 23.0, 47.0, 101.0))
    return level - rough * waves * 2.2


def _lake(picture: np.ndarray, rows: np.ndarray, shore: int, x: np.ndarray) -> np.ndarray:
    depth = (rows - shore) / max(1, len(rows))
    ripple = np.sin(rows / (1.5 + 5 * depth)) * (1 + 7 * depth)
    mirrored = np.clip(2 * shore - rows + ripple, 0, shore - 1).astype(int)
    shifts = (np.sin(rows / 2.7) * (1 + 9 * depth)).astype(int)
    lake = np.stack([np.roll(picture[row], shift, axis=0) for row, shift in zip(mirrored, shifts, strict=True)])
    glitter = np.exp(-(((x - 0.66) / (0.03 + 0.06 * depth[:, None])) ** 2)) * (np.sin(rows / 1.9)[:, None] > 0.2)
    return lake * (0.78 - 0.33 * depth)[:, None, None] + glitter[..., None] * np.array([90, 66, 36.0])
