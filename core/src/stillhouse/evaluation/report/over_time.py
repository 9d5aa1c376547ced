"""Figures of a stream: quality chunk by chunk, and what is left of earlier tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stillhouse.evaluation.report import format as fmt
from stillhouse.evaluation.report.read import MODELS, Run
from stillhouse.evaluation.statistics import ci95
from stillhouse.figures import MARKERS, QUIET, colour, legend, new_figure
from stillhouse.types import ReportFigure


def figures_over_time(run: Run) -> list[ReportFigure]:
    """Those that the method's facts have data for."""
    facts = [each for each in (run.summary.get("method_facts") or {}).get("per_seed") or [] if each.get("over_time")]
    if not facts:
        return []
    made = (quality_over_time(run, facts), earlier_tasks(facts))
    return [figure for figure in made if figure is not None]


def quality_over_time(run: Run, facts: list[dict[str, Any]]) -> ReportFigure | None:
    """The measure of each chunk, as it was predicted before it was learned, by model; dotted lines where drift was
    told."""
    series = [each["over_time"] for each in facts]
    if len(series[0]["chunk"]) < 2:
        return None
    figure, (axes,) = new_figure()
    at = series[0]["chunk"]
    for name in MODELS:
        _lines(axes, name, at, [each[name] for each in series if name in each])
    drifts = sorted({place["chunk"] for each in facts for place in each.get("drift_points", [])})
    for chunk in drifts:
        axes.axvline(chunk, color=QUIET, linestyle=":", linewidth=1.2)
    measure = series[0]["measure"]
    axes.set(xlabel="chunk", ylabel=f"{measure} ({run.unit})" if run.unit and measure == run.primary else measure)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    legend(axes)
    tasks = "accuracy_of_tasks" in facts[0]
    how = (
        "Accuracy on validation rows of all classes that had arrived, after each chunk."
        if tasks
        else "Each chunk of the training rows, predicted before it was learned; the teacher knew what was known then."
    )
    seeds = " Thin lines are single seeds, thick lines their mean." if len(facts) > 1 else ""
    dotted = " Dotted: drift was told." if drifts else ""
    title = "Classes so far, after each chunk" if tasks else "Quality over time"
    return ReportFigure(figure, title, f"{how}{_whole(run, facts)}{dotted}{seeds}")


def _lines(axes: Axes, name: str, at: list[int], found: list[list[float | None]]) -> None:
    values = np.array(found, dtype=float)
    if not values.size:
        return
    if len(values) > 1:
        for each in values:
            axes.plot(at, each, color=colour(name), alpha=0.3, linewidth=0.8)
    mean = values.mean(axis=0)
    spacing = max(1, len(at) // 6)
    axes.plot(
        at, mean, color=colour(name), linewidth=2.0, label=name, marker=MARKERS[name], markevery=spacing, markersize=4.5
    )


def _whole(run: Run, facts: list[dict[str, Any]]) -> str:
    """What student and baseline have over all rows of the stream, and their difference, paired by seed."""
    pairs = [each.get("prequential") or {} for each in facts]
    if any(each.get(name) is None for each in pairs for name in ("student", "baseline")):
        return ""
    student, baseline = (np.array([each[name] for each in pairs]) for name in ("student", "baseline"))
    gains = (student - baseline) * (1 if run.higher_is_better else -1)
    places = fmt.decimals(float(student.mean()))
    bounds = ci95(gains.tolist())
    spread = f" [{fmt.signed(bounds[0], places)}, {fmt.signed(bounds[1], places)}]" if bounds else ""
    return (
        f" Over all rows as they were predicted, {run.primary} is {fmt.number(float(student.mean()), places)} for the "
        f"student and {fmt.number(float(baseline.mean()), places)} for the baseline, a gain of "
        f"{fmt.signed(float(gains.mean()), places)}{spread}."
    )


def earlier_tasks(facts: list[dict[str, Any]]) -> ReportFigure | None:
    """Mean accuracy on the tasks before the latest one, after each task."""
    tables = [each["accuracy_of_tasks"] for each in facts if "accuracy_of_tasks" in each]
    if not tables or len(tables[0]["classes"]) < 3:
        return None
    figure, (axes,) = new_figure()
    tasks = len(tables[0]["classes"])
    at = list(range(2, tasks + 1))
    for name in MODELS:
        found = [[float(np.mean(each[name][task - 1][: task - 1])) for task in at] for each in tables if name in each]
        _lines(axes, name, at, [list(each) for each in found])
    axes.set(xlabel="chunk", ylabel="accuracy on earlier classes", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    legend(axes)
    return ReportFigure(
        figure,
        "What is left of earlier classes",
        "Mean accuracy on validation rows of the classes that arrived before the latest one; what falls is forgotten.",
    )
