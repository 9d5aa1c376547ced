"""Figures of the remaining-useful-life report, drawn with matplotlib's objects (no global state)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stillhouse.types import ReportFigure

COLOURS = ("#3b6fb6", "#9a9a9a", "#d1602b", "#4f9d69", "#8a63b0")
BINS = 5
"""Ranges of true RUL in which errors are averaged."""


def predicted_against_true(values: Mapping[str, np.ndarray], target: np.ndarray, unit: str) -> ReportFigure:
    """One panel a model: each row's predicted RUL ``[N]`` over its true RUL ``[N]``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3 * max(1, len(values)), 3.4), layout="constrained")
    top = max([float(target.max()), *(float(value.max()) for value in values.values())]) * 1.03 + 1e-9
    panels = figure.subplots(1, max(1, len(values)), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (name, value), colour in zip(panels, values.items(), _colours(len(values)), strict=False):
        panel.plot([0, top], [0, top], color="0.75", linewidth=1)
        panel.scatter(target, value, s=14, color=colour, alpha=0.7, linewidths=0)
        panel.set(
            title=name,
            xlabel=f"true RUL ({unit})",
            xlim=(-top * 0.02, top),
            ylim=(-top * 0.02, top),
            aspect="equal",
        )
    panels[0].set_ylabel(f"predicted RUL ({unit})")
    return ReportFigure(
        figure,
        "Predicted against true remaining useful life",
        "Each point is one test window. On the line the prediction is exact; above it failure comes sooner "
        "than predicted (a late warning), below it later.",
    )


def error_by_true(values: Mapping[str, np.ndarray], target: np.ndarray, unit: str) -> ReportFigure:
    """RMSE of each model in equally wide ranges of true RUL ``[N]``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 3.4), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0.0, max(float(target.max()), 1.0), BINS + 1)
    bins = np.clip(np.searchsorted(edges, target, side="left") - 1, 0, BINS - 1)
    width = 0.8 / max(1, len(values))
    for number, ((name, value), colour) in enumerate(zip(values.items(), _colours(len(values)), strict=True)):
        squares = (value - target) ** 2
        heights = [float(np.sqrt(squares[bins == k].mean())) if (bins == k).any() else 0.0 for k in range(BINS)]
        axes.bar(np.arange(BINS) + number * width, heights, width, label=name, color=colour)
    labels = [f"{edges[k]:.0f}–{edges[k + 1]:.0f}\nn={int((bins == k).sum())}" for k in range(BINS)]
    axes.set_xticks(np.arange(BINS) + width * (len(values) - 1) / 2, labels)
    axes.set(xlabel=f"true RUL ({unit})", ylabel=f"RMSE ({unit})")
    if values:
        axes.legend(frameon=False)
    return ReportFigure(
        figure,
        "Error by true remaining useful life",
        "RMSE of the test windows in each range; n is the number of windows. What counts most is the left "
        "side, close to failure.",
    )


def _colours(count: int) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(count)]
