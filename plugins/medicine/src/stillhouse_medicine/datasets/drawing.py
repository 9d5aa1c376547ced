"""Drawn "scans": a body on black, lesions of several shapes in it, noise over all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHAPES = ("disc", "square", "cross")


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A lesion in a drawn scan.

    Args:
        shape: one of `SHAPES`.
        x: centre from the left, as a share of the side.
        y: centre from the top, as a share of the side.
        radius: half its width, as a share of the side.
        level: brightness in [0, 1].
    """

    shape: str
    x: float
    y: float
    radius: float
    level: float

    def inside(self, size: int) -> np.ndarray:
        """Its pixels ``[size, size]``, bool."""
        across, down = _grid(size)
        dx, dy = np.abs(across - self.x), np.abs(down - self.y)
        if self.shape == "disc":
            return np.asarray(dx**2 + dy**2 <= self.radius**2)
        square = np.maximum(dx, dy) <= self.radius * 0.88
        if self.shape == "square":
            return np.asarray(square)
        return np.asarray(square & (np.minimum(dx, dy) <= self.radius * 0.35))


def body(size: int, random: np.random.Generator) -> np.ndarray:
    """Pixels ``[size, size]`` (bool) of an ellipse about the middle, whose size and place vary."""
    across, down = _grid(size)
    centre, radii = random.uniform(0.48, 0.52, 2), random.uniform([0.4, 0.42], [0.46, 0.48])
    return np.asarray(((across - centre[0]) / radii[0]) ** 2 + ((down - centre[1]) / radii[1]) ** 2 <= 1)


def paint(inside: np.ndarray, lesions: list[Lesion], random: np.random.Generator, noise: float) -> np.ndarray:
    """A scan ``[size, size]``, uint8: the body with a soft texture, its lesions, and noise of standard deviation
    ``noise`` (of 1)."""
    size = len(inside)
    across, down = _grid(size)
    waves = random.uniform(2, 5, 2), random.uniform(0, 2 * np.pi, 2)
    texture = 0.05 * np.sin(2 * np.pi * waves[0][0] * across + waves[1][0])
    texture = texture + 0.05 * np.sin(2 * np.pi * waves[0][1] * down + waves[1][1])
    values = np.where(inside, 0.45 + texture, 0.03)
    for lesion in lesions:
        values = np.where(lesion.inside(size), lesion.level, values)
    values = values + random.normal(0, noise, values.shape)
    return np.asarray((values.clip(0, 1) * 255).round().astype(np.uint8))


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    steps = (np.arange(size) + 0.5) / size
    return steps[None, :], steps[:, None]
