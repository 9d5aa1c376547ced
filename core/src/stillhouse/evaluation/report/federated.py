"""Figures of a federated run: what each client has alone, what all have together, and the rounds between."""

from __future__ import annotations

from typing import Any

import numpy as np

from stillhouse.evaluation.report.read import Run
from stillhouse.evaluation.statistics import ci95
from stillhouse.figures import MARKERS, QUIET, colour, legend, new_figure
from stillhouse.types import ReportFigure

MOST_NAMED = 20
"""Clients up to which each has its name on the axis."""


def figures_of_clients(run: Run) -> list[ReportFigure]:
    """Those that the method's facts have data for."""
    facts = (run.summary.get("method_facts") or {}).get("per_seed") or []
    if not facts or not all(each.get("clients_alone") for each in facts):
        return []
    return [alone_and_together(run, facts)]


def alone_and_together(run: Run, facts: list[dict[str, Any]]) -> ReportFigure:
    """The test metric of every client alone, against those of the federated student and of all rows together."""
    clients = facts[0]["clients_alone"]
    order = np.argsort([-client["rows"] for client in clients], kind="stable")
    figure, (axes,) = new_figure(height=1.6 + 0.18 * min(len(clients), 30))
    rows = np.arange(len(clients), 0, -1)
    values = np.array([[client["test"] for client in each["clients_alone"]] for each in facts])[:, order]
    for each in values if len(values) > 1 else ():
        axes.plot(each, rows, ".", color=colour("baseline"), alpha=0.35, markersize=4)
    axes.plot(
        values.mean(axis=0), rows, MARKERS["baseline"], color=colour("baseline"), linestyle="none", label="client alone"
    )
    tests = [each[f"test_{run.primary}"] for each in facts]
    for name, label, style in (("student", "student of all clients", "-"), ("pooled", "all rows together", ":")):
        found = [each[name] for each in tests]
        shade = colour("student") if name == "student" else QUIET
        axes.axvline(float(np.mean(found)), color=shade, linestyle=style, linewidth=1.8, label=label)
        if bounds := ci95(found):
            axes.axvspan(*bounds, color=shade, alpha=0.12, linewidth=0)
    if len(clients) <= MOST_NAMED:
        axes.set_yticks(rows, [f"{clients[at]['name']} ({clients[at]['rows']:,})" for at in order])
    else:
        axes.set_yticks([])
    axes.set(xlabel=f"test {run.measure}", ylim=(0.3, len(clients) + 0.7))
    axes.grid(False, axis="y")
    legend(axes, columns=1)
    seeds = " Small dots are single seeds, bands 95 % intervals over seeds." if len(facts) > 1 else ""
    better = "Right" if run.higher_is_better else "Left"
    return ReportFigure(
        figure,
        "What joining brings",
        f"{better} is better. Each client alone (with its rows), the student of all clients, and the same student "
        f"trained on all rows together, which nobody could do.{seeds}",
    )
