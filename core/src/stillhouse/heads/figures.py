"""Figures that heads add to a report: core's own, and what plugins' heads may draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from stillhouse.figures import MARKERS, QUIET, colour, legend, new_figure, order
from stillhouse.types import ReportFigure

__all__ = [
    "by_name",
    "by_position",
    "error_by_true",
    "precision_recall",
    "predicted_true",
    "regression",
    "reliability",
]

MOST_NAMES = 20
MOST_POINTS = 600
BINS = 10


def by_name(names: Sequence[str], values: Mapping[str, Sequence[float]], *, measure: str, title: str) -> ReportFigure:
    """A dot per model on a line per class, hardest class (for the last model) at the top; the hardest 20 of
    many."""
    models = order(list(values))
    by = np.asarray(values[models[-1]], dtype=float)
    chosen = np.argsort(np.where(np.isnan(by), np.inf, by), kind="stable")[:MOST_NAMES][::-1]
    figure, (axes,) = new_figure(height=1.2 + 0.3 * len(chosen))
    for position, name in enumerate(models):
        axes.plot(
            np.asarray(values[name], dtype=float)[chosen],
            np.arange(len(chosen)),
            MARKERS.get(name, "D"),
            color=colour(name, position),
            label=name,
            alpha=0.9,
            markersize=7,
        )
    axes.set_yticks(np.arange(len(chosen)), [names[each] for each in chosen])
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.6, len(chosen) - 0.4)
    axes.set_xlabel(f"{measure} (test)")
    legend(axes)
    many = f" The {MOST_NAMES} hardest of {len(names)} are shown." if len(names) > MOST_NAMES else ""
    return ReportFigure(figure, title, f"Further right is better; the hardest is at the top.{many}")


def reliability(confidence: Mapping[str, tuple[Tensor, Tensor]], *, horizontal: str, vertical: str) -> ReportFigure:
    """Reliability diagram from (confidence ``[N]``, correct ``[N]``) of each model, in ten equally wide
    bins."""
    figure, (axes,) = new_figure(height=3.4)
    axes.plot([0, 1], [0, 1], "--", color=QUIET, linewidth=1)
    for position, name in enumerate(order(list(confidence))):
        values, right = (each.double().numpy() for each in confidence[name])
        bins = np.minimum((values * BINS).astype(int), BINS - 1)
        # A bin with a handful of rows would be noise drawn as a finding.
        kept = [each for each in range(BINS) if (bins == each).sum() >= 5]
        means = [(values[bins == each].mean(), right[bins == each].mean()) for each in kept]
        if means:
            axes.plot(
                *zip(*means, strict=True),
                f"-{MARKERS.get(name, 'D')}",
                color=colour(name, position),
                label=name,
                markersize=5,
                linewidth=1.6,
            )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=horizontal, ylabel=vertical)
    legend(axes)
    return ReportFigure(
        figure,
        "Calibration",
        "On the dashed line a probability means what it says; below it the model is overconfident. "
        "Bins with fewer than five rows are left out.",
    )


def precision_recall(curves: Mapping[str, tuple[Tensor, Tensor]], *, base_rate: float) -> ReportFigure:
    """Precision against recall from (recall, precision) of each model."""
    figure, (axes,) = new_figure(height=3.4)
    axes.axhline(base_rate, linestyle="--", color=QUIET, linewidth=1)
    for position, name in enumerate(order(list(curves))):
        recall, precision = curves[name]
        step = max(1, len(recall) // MOST_POINTS)
        axes.plot(
            recall[::step].numpy(),
            precision[::step].numpy(),
            color=colour(name, position),
            label=name,
            linewidth=1.8,
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    legend(axes)
    return ReportFigure(
        figure,
        "Precision and recall",
        f"Up and right is better; the dashed line is guessing (share of positives: {base_rate:.3g}).",
    )


def by_position(accuracy: Mapping[str, Sequence[float]]) -> ReportFigure:
    """Accuracy of each model at each position of a sequence."""
    figure, (axes,) = new_figure()
    for position, name in enumerate(order(list(accuracy))):
        values = accuracy[name]
        axes.plot(range(1, len(values) + 1), values, color=colour(name, position), label=name, linewidth=1.8)
    axes.set(xlabel="position", ylabel="accuracy (test)")
    legend(axes)
    return ReportFigure(figure, "Accuracy by position", "Higher is better; ignored positions are left out.")


def regression(predictions: Mapping[str, Tensor], target: Tensor, *, unit: str) -> list[ReportFigure]:
    """Predicted against true values ``[N]``, and the mean absolute error by true value."""
    return [predicted_true(predictions, target, unit=unit), error_by_true(predictions, target, unit=unit)]


def predicted_true(predictions: Mapping[str, Tensor], target: Tensor, *, unit: str) -> ReportFigure:
    """Predicted against true values ``[N]``, one panel per model on equal scales."""
    models = order(list(predictions))
    true = target.double().numpy()
    step = max(1, len(true) // MOST_POINTS)
    figure, panels = new_figure(height=2.05, columns=len(models), share=True)
    everything = np.concatenate([true, *(values.double().numpy() for values in predictions.values())])
    low, high = float(everything.min()), float(everything.max())
    for position, (name, axes) in enumerate(zip(models, panels, strict=True)):
        axes.plot([low, high], [low, high], "--", color=QUIET, linewidth=1)
        axes.scatter(
            true[::step],
            predictions[name].double().numpy()[::step],
            s=9,
            color=colour(name, position),
            alpha=0.55,
            linewidths=0,
        )
        axes.set_title(name, color=colour(name, position), fontsize=10.5, fontweight="bold")
        axes.set_box_aspect(1)
        axes.locator_params(nbins=3)
    suffix = f" ({unit})" if unit else ""
    panels[0].set_ylabel(f"predicted{suffix}")
    panels[len(panels) // 2].set_xlabel(f"true{suffix}")
    return ReportFigure(
        figure, "Predicted against true", "On the dashed line a prediction is exact; below it, too low."
    )


def error_by_true(predictions: Mapping[str, Tensor], target: Tensor, *, unit: str) -> ReportFigure:
    """Mean absolute error of each model over equally filled ranges of the true value."""
    true = target.double().numpy()
    edges = np.unique(np.quantile(true, np.linspace(0, 1, 9)))
    bins = np.clip(np.searchsorted(edges, true, side="right") - 1, 0, max(len(edges) - 2, 0))
    present = [each for each in range(max(len(edges) - 1, 1)) if (bins == each).any()]
    middle = [true[bins == each].mean() for each in present]
    figure, (axes,) = new_figure()
    for position, name in enumerate(order(list(predictions))):
        error = np.abs(predictions[name].double().numpy() - true)
        axes.plot(
            middle,
            [error[bins == each].mean() for each in present],
            f"-{MARKERS.get(name, 'D')}",
            color=colour(name, position),
            label=name,
            markersize=5,
            linewidth=1.6,
        )
    suffix = f" ({unit})" if unit else ""
    axes.set(xlabel=f"true value{suffix}", ylabel=f"mean absolute error{suffix}")
    axes.set_ylim(bottom=0)
    legend(axes)
    return ReportFigure(
        figure, "Error by true value", "Lower is better. Each point averages an equal share of the test rows."
    )
