"""Figures of the volatility report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stillhouse import figures
from stillhouse.types import ReportFigure

BINS = 5
"""Ranges of the index, equally full, in which errors are averaged."""


def calibration(values: Mapping[str, np.ndarray], target: np.ndarray, levels: np.ndarray) -> ReportFigure:
    """Share of targets ``[N]`` at or below each model's quantiles ``[N, Q]``, over their levels ``[Q]``."""
    figure, (axes,) = figures.new_figure()
    axes.plot([0, 1], [0, 1], "--", color=figures.QUIET, linewidth=1)
    for position, name in enumerate(figures.order(list(values))):
        share = (target[:, None] <= values[name]).mean(axis=0)
        axes.plot(levels, share, "o-", color=figures.colour(name, position), label=name, linewidth=1.6, markersize=5)
    axes.set(xlabel="level of the quantile", ylabel="share of days at or below it")
    figures.legend(axes)
    return ReportFigure(
        figure,
        "Calibration of the quantiles",
        "On the dashed line a quantile is kept as often as it says; above it the quantile is too high.",
    )


def error_by_level(values: Mapping[str, np.ndarray], target: np.ndarray, close: np.ndarray, unit: str) -> ReportFigure:
    """Mean absolute error of the median ``[N]`` over equally full ranges of the present value ``[N]``."""
    names = figures.order(list(values))
    figure, (axes,) = figures.new_figure(height=2.8)
    edges = np.unique(np.quantile(close, np.linspace(0, 1, BINS + 1)))
    bins = np.clip(np.searchsorted(edges, close, side="right") - 1, 0, max(len(edges) - 2, 0))
    used = np.unique(bins)
    width = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        heights = [float(np.abs(values[name] - target)[bins == each].mean()) for each in used]
        axes.bar(np.arange(len(used)) + number * width, heights, width, label=name, color=figures.colour(name, number))
    shown = [f"{close[bins == each].min():.0f}–{close[bins == each].max():.0f}" for each in used]
    axes.set_xticks(np.arange(len(used)) + width * (len(names) - 1) / 2, shown)
    axes.set(xlabel=f"present value ({unit})", ylabel=f"mean absolute error ({unit})")
    axes.grid(False, axis="x")
    figures.legend(axes)
    return ReportFigure(
        figure,
        "Error by present value",
        "Lower is better. Each group of bars averages an equal share of the test days.",
    )
