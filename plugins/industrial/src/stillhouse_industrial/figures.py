"""Figures of the remaining-useful-life report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stillhouse import figures
from stillhouse.types import ReportFigure

BINS = 5
"""Ranges of true RUL in which errors are averaged."""


def predicted_against_true(values: Mapping[str, np.ndarray], target: np.ndarray, unit: str) -> ReportFigure:
    """One panel a model: each row's predicted RUL ``[N]`` over its true RUL ``[N]``."""
    names = figures.order(list(values))
    figure, panels = figures.new_figure(height=2.3, columns=max(1, len(names)), share=True)
    top = max([float(target.max()), *(float(values[name].max()) for name in names)]) * 1.03 + 1e-9
    for position, (panel, name) in enumerate(zip(panels, names, strict=False)):
        panel.plot([0, top], [0, top], color=figures.QUIET, linewidth=1)
        panel.scatter(target, values[name], s=12, color=figures.colour(name, position), alpha=0.7, linewidths=0)
        panel.set_title(name, fontsize=10)
        panel.set(xlim=(-top * 0.02, top), ylim=(-top * 0.02, top), aspect="equal")
    panels[0].set_ylabel(f"predicted ({unit})")
    panels[len(panels) // 2].set_xlabel(f"true RUL ({unit})")
    return ReportFigure(
        figure,
        "Predicted against true remaining useful life",
        "Each point is one test window. On the line the prediction is exact; above it failure comes sooner "
        "than predicted (a late warning), below it later.",
    )


def error_by_true(values: Mapping[str, np.ndarray], target: np.ndarray, unit: str) -> ReportFigure:
    """RMSE of each model in equally wide ranges of true RUL ``[N]``."""
    names = figures.order(list(values))
    figure, (axes,) = figures.new_figure(height=2.8)
    edges = np.linspace(0.0, max(float(target.max()), 1.0), BINS + 1)
    bins = np.clip(np.searchsorted(edges, target, side="left") - 1, 0, BINS - 1)
    width = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        squares = (values[name] - target) ** 2
        heights = [float(np.sqrt(squares[bins == k].mean())) if (bins == k).any() else 0.0 for k in range(BINS)]
        axes.bar(np.arange(BINS) + number * width, heights, width, label=name, color=figures.colour(name, number))
    labels = [f"{edges[k]:.0f}–{edges[k + 1]:.0f}\nn={int((bins == k).sum())}" for k in range(BINS)]
    axes.set_xticks(np.arange(BINS) + width * (len(names) - 1) / 2, labels)
    axes.set(xlabel=f"true RUL ({unit})", ylabel=f"RMSE ({unit})")
    axes.grid(False, axis="x")
    figures.legend(axes)
    return ReportFigure(
        figure,
        "Error by true remaining useful life",
        "RMSE of the test windows in each range; n is the number of windows. What counts most is the left "
        "side, close to failure.",
    )
