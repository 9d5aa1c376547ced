"""How figures look: one colour and one marker per model in every figure of a report, readable on a phone.

Figures are drawn transparent and with black text; the report turns black into the page's text colour, and the
colours of the models into those of its light or dark theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

COLOURS = {"teacher": "#0072b2", "baseline": "#d55e00", "student": "#009e73"}
"""Okabe and Ito's blue, vermillion and bluish green: told apart with any common colour blindness."""
MARKERS = {"teacher": "s", "baseline": "^", "student": "o"}
OTHER_COLOURS = ("#cc79a7", "#8c6d00", "#56b4e9", "#666666")
QUIET = "#8a8a8a"
"""Grid lines, references and chance levels."""
WIDTH = 4.6
"""Width in inches: a figure fills a phone at its natural size, so that its text is readable there."""


def colour(name: str, position: int = 0) -> str:
    """Colour of a model; of another series, by its position."""
    return COLOURS.get(name, OTHER_COLOURS[position % len(OTHER_COLOURS)])


def new_figure(height: float = 3.1, columns: int = 1, share: bool | Literal["y"] = False) -> tuple[Figure, list[Axes]]:
    """An empty figure with ``columns`` axes side by side, styled.

    Args:
        height: in inches.
        columns: number of axes.
        share: share both scales between the axes, or only the vertical one ("y").
    """
    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(wspace=0.06))
    FigureCanvasAgg(figure)
    found = figure.subplots(1, columns, squeeze=False, sharex=share is True, sharey=bool(share))
    axes: list[Axes] = list(np.ravel(found))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color(QUIET)
        each.tick_params(labelsize=9.5, color=QUIET, length=3)
        each.xaxis.label.set_fontsize(10)
        each.yaxis.label.set_fontsize(10)
        each.grid(True, color=QUIET, alpha=0.25, linewidth=0.6)
        each.set_axisbelow(True)
    return figure, axes


def legend(axes: Axes, *, columns: int = 3) -> None:
    """A legend without a frame above the axes, where it hides no data; none when nothing is labelled."""
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=9.5,
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def order(names: Sequence[str]) -> list[str]:
    """Teacher, baseline, student, then others as they come."""
    known = [name for name in COLOURS if name in names]
    return known + [name for name in names if name not in COLOURS]
