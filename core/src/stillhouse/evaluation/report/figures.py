"""The report's own figures: quality against cost, gain by seed, learning curves, loss terms."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from stillhouse.evaluation.report.format import short
from stillhouse.evaluation.report.read import MODELS, Run
from stillhouse.evaluation.statistics import SAME_MODEL, why_no_interval
from stillhouse.figures import MARKERS, OTHER_COLOURS, QUIET, colour, legend, new_figure, order
from stillhouse.types import ReportFigure

INK = "#000000"
TERM_COLOURS = (
    QUIET,
    colour("teacher"),
    *OTHER_COLOURS[:3],
    colour("baseline"),
    colour("student"),
    "#e69f00",
    "#f0e442",
    "#444444",
)
"""Of the terms of a loss, the hard one first: a recipe that goes through the layers has many. The colours of the other
models come after those that stand for nothing."""
WEAK = 0.01
"""Share of the loss below which a term hardly acts."""


def all_figures(run: Run) -> list[ReportFigure]:
    """Those figures that the run has data for."""
    made = (cost(run), gain_by_seed(run), learning_curves(run), loss_terms(run))
    return [figure for figure in made if figure is not None]


def _quality(run: Run, name: str) -> tuple[float, list[float] | None]:
    part = run.summary[name]
    mean = part.get("mean")
    return (mean if mean is not None else part["metrics"]["test"][run.primary]), part.get("ci95")


def cost(run: Run) -> ReportFigure | None:
    """Test quality against parameters and against median latency, with intervals over seeds."""

    def of(name: str, cost: str) -> float | None:
        part = run.summary[name]
        return part.get("parameters") if cost == "parameters" else (part.get("latency_ms") or {}).get("p50")

    labels = {"parameters": "parameters", "latency": "latency, p50 (ms)"}
    shown = {each: {name: value for name in MODELS if (value := of(name, each))} for each in labels}
    shown = {each: by_model for each, by_model in shown.items() if by_model}
    if not shown:
        return None
    figure, panels = new_figure(height=2.9, columns=len(shown), share="y")
    for axes, (each, by_model) in zip(panels, shown.items(), strict=True):
        axes.set_xscale("log")
        axes.set_xlabel(labels[each])
        low, high = min(by_model.values()), max(by_model.values())
        # The outer points are at a tenth and at three quarters of the width, which leaves room for their names.
        width = max(np.log(high / low), np.log(1.3)) / 0.65
        axes.set_xlim(low * np.exp(-0.1 * width), low * np.exp(0.9 * width))
        for name, value in by_model.items():
            mean, bounds = _quality(run, name)
            spread = [[mean - bounds[0]], [bounds[1] - mean]] if bounds else None
            axes.errorbar(
                value,
                mean,
                yerr=spread,
                marker=MARKERS[name],
                color=colour(name),
                markersize=8,
                capsize=4,
                linewidth=1.6,
            )
        _label_points(axes, run, by_model)
        _plain_log_ticks(axes)
    panels[0].set_ylabel(f"test {run.measure}")
    better = "Higher" if run.higher_is_better else "Lower"
    bars = " Bars are 95 % intervals over seeds." if run.summary["student"].get("ci95") else ""
    parts = run.summary["baseline"], run.summary["student"]
    alike = "the same architecture" if parts[0].get("parameters") == parts[1].get("parameters") else "one kind of model"
    return ReportFigure(
        figure,
        "Quality against size and latency",
        f"{better} and further left is better; baseline and student are {alike}.{bars}",
    )


def _label_points(axes: Axes, run: Run, by_model: dict[str, float]) -> None:
    quality = {name: _quality(run, name)[0] for name in by_model}
    small = sorted((name for name in by_model if name != "teacher"), key=lambda name: quality[name])
    middle = np.sqrt(min(by_model.values()) * max(by_model.values()))
    heights = quality.values()
    # A teacher at the height of the better of the two is named above it; the other of the two is then far below.
    beside = bool(small) and "teacher" in quality
    beside = beside and abs(quality["teacher"] - quality[small[-1]]) < 0.25 * (max(heights) - min(heights))
    for name, value in by_model.items():
        left = value <= middle
        if name == "teacher":  # on the side away from the student's name, which may reach its height
            above, side = not small or quality[name] >= quality[small[-1]], "left" if left and small else "center"
        else:  # baseline and student share their size: the better-placed one is named above, the other below
            under = beside and quality["teacher"] >= quality[small[-1]]
            above, side = name == small[-1] and not under, "left" if left else "right"
        axes.annotate(
            name,
            (value, quality[name]),
            xytext=({"left": 7, "right": -7, "center": 0}[side], 7 if above else -7),
            textcoords="offset points",
            ha=side,
            va="bottom" if above else "top",
            color=colour(name),
            fontsize=10,
            fontweight="bold",
        )
    axes.margins(y=0.25)


def _plain_log_ticks(axes: Axes) -> None:
    low, high = axes.get_xlim()
    ticks: list[float] = []
    for bases in ((1,), (1, 3), (1, 2, 5), range(1, 10)):  # the sparsest that says anything of the scale
        ticks = [value for power in range(-6, 15) for base in bases if low <= (value := base * 10.0**power) <= high]
        if len(ticks) >= 2:
            break
    axes.set_xticks(ticks[:: max(1, len(ticks) // 3)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value, digits=1)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)


def quality_by_size(run: Run) -> ReportFigure | None:
    """The two curves of quality against the student's size, with intervals over seeds, and the teacher's quality."""
    found = run.summary.get("worth")
    if not found:
        return None
    figure, (axes,) = new_figure()
    axes.set_xscale("log")
    for name in ("baseline", "student"):
        points = sorted((each[name] for each in found["sizes"]), key=lambda point: point["size"])
        sizes = [point["size"] for point in points]
        axes.plot(sizes, [point["monotone"] for point in points], color=colour(name), linewidth=2)
        axes.plot(
            sizes,
            [point["mean"] for point in points],
            color=colour(name),
            marker=MARKERS[name],
            markersize=6,
            linestyle="none",
            label=name,
        )
        if all(point["ci95"] for point in points):
            low, high = zip(*(point["ci95"] for point in points), strict=True)
            axes.fill_between(sizes, low, high, color=colour(name), alpha=0.15, linewidth=0)
    axes.axhline(_quality(run, "teacher")[0], color=colour("teacher"), linestyle="--", linewidth=1.4, label="teacher")
    if found["censored"] is None:
        at = next(each["student"] for each in found["sizes"] if each["value"] == found["value"])
        axes.hlines(
            at["monotone"], *sorted((found["size"], found["equal_size"])), color=INK, linewidth=1.4, linestyle=":"
        )
    axes.set(xlabel=found["measure"], ylabel=f"test {run.measure}")
    _plain_log_ticks(axes)
    legend(axes)
    better = "Higher" if run.higher_is_better else "Lower"
    bands = " Bands are 95 % intervals over seeds." if run.summary["student"].get("ci95") else ""
    across = " The dotted line leads across at equal quality." if found["censored"] is None else ""
    return ReportFigure(
        figure,
        "Quality against the student's size",
        f"{better} is better; the same students, trained with and without the teacher. Points are means over seeds, "
        f"lines the monotone curves that the factor is read from.{across}{bands}",
    )


def gain_by_seed(run: Run) -> ReportFigure | None:
    """The paired gain of each seed, their mean and its interval, against zero."""
    baseline, student = (run.summary[name].get("per_seed", {}).get(run.primary) for name in ("baseline", "student"))
    if not baseline or not student or len(baseline) != len(student):
        return None
    seeds = run.summary["student"].get("seeds") or list(range(len(student)))
    gains = (np.asarray(student) - np.asarray(baseline)) * (1 if run.higher_is_better else -1)
    bounds = run.summary["verdict"].get("gain_ci95")
    compared_with = run.summary["verdict"].get("compared_with", SAME_MODEL)
    figure, (axes,) = new_figure(height=1.5 + 0.22 * len(gains))
    axes.axvline(0, color=INK, linewidth=1.2)
    rows = np.arange(len(gains), 0, -1)
    axes.hlines(rows, 0, gains, color=colour("student"), alpha=0.35, linewidth=2)
    axes.plot(gains, rows, "o", color=colour("student"), markersize=6)
    names = [f"seed {seed}" for seed in seeds]
    if len(gains) > 1:
        axes.plot(gains.mean(), 0, "D", color=INK, markersize=6)
        if bounds:
            axes.hlines(0, *bounds, color=INK, linewidth=2)
        rows, names = np.append(rows, 0), [*names, "mean, 95 %"]
    axes.set_yticks(rows, names)
    axes.set_ylim(-0.7, len(gains) + 0.7)
    axes.grid(False, axis="y")
    reach = max(np.abs([*gains, *(bounds or [])]).max(), 1e-9) * 1.15
    axes.set_xlim(-reach, reach)
    axes.set_xlabel(f"gain over baseline{f' ({run.unit})' if run.unit else ''}")
    for text, place, align in (("worse", 0, "left"), ("better", 1, "right")):
        axes.text(place, 1.0, text, transform=axes.transAxes, ha=align, va="bottom", fontsize=9.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return ReportFigure(
        figure,
        "Gain of distillation, seed by seed",
        f"Of the student over {compared_with}, same seed; right of zero the student was better."
        + ("" if bounds else f" No interval: {why_no_interval(run.summary['verdict'])}."),
    )


def learning_curves(run: Run) -> ReportFigure | None:
    """Primary validation metric by epoch: thin lines per seed, a thick line for their mean."""
    curves = {stage: found for stage, found in run.curves().items() if stage in MODELS}
    if not curves:
        return None
    figure, (axes,) = new_figure()
    settled: list[float] = []
    for name in order(list(curves)):
        by_epoch: dict[int, list[float]] = {}
        for curve in curves[name]:
            for epoch, value in curve:
                by_epoch.setdefault(epoch, []).append(value)
            if len(curves[name]) > 1:
                axes.plot(*zip(*curve, strict=True), color=colour(name), alpha=0.3, linewidth=0.8)
            settled += [value for _, value in curve[len(curve) // 2 :]]
        # Where seeds stopped early, the mean of the rest would jump: it is drawn while all of them go on.
        means = [(e, float(np.mean(v))) for e, v in sorted(by_epoch.items()) if len(v) == len(curves[name])]
        axes.plot(
            *zip(*means, strict=True),
            color=colour(name),
            linewidth=2.2,
            label=name,
            marker=MARKERS[name],
            markevery=max(1, len(means) // 6),
            markersize=4.5,
        )
    left_out = ""
    finite = np.asarray([value for value in settled if np.isfinite(value)])
    if len(finite):  # the first epochs may be far off and would flatten all that matters
        spread = float(np.ptp(finite) or abs(finite[0]) or 1.0)
        below, above = (0.8, 0.1) if run.higher_is_better else (0.1, 0.8)  # room for how it came there
        axes.set_ylim(finite.min() - below * spread, finite.max() + above * spread)
        low, high = axes.get_ylim()
        if any(not low <= value <= high for found in curves.values() for curve in found for _, value in curve):
            left_out = " The scale leaves out early epochs."
    axes.set(xlabel="epoch", ylabel=f"validation {run.measure}")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(axes)
    better = "Higher" if run.higher_is_better else "Lower"
    thin = " Thin lines are single seeds, thick lines their mean." if any(len(c) > 1 for c in curves.values()) else ""
    return ReportFigure(figure, "Learning curves", f"{better} is better.{thin}{left_out}")


def weak_terms(run: Run) -> list[str]:
    """Soft terms of the student's loss that stayed under one percent of it in some epoch. The hard loss is left out: an
    alpha of 0, in a phase or throughout, is a choice."""
    return [
        name for name, shares in run.shares().items() if name != "hard" and any(share < WEAK for _, share in shares)
    ]


def loss_terms(run: Run) -> ReportFigure | None:
    """Share of each weighted term in the student's loss by epoch, as stacked areas."""
    shares = run.shares()
    if len(shares) < 2:
        return None
    names = sorted(shares, key=lambda name: name != "hard")
    epochs = sorted({epoch for found in shares.values() for epoch, _ in found})
    layers = [[dict(shares[name]).get(epoch, 0.0) for epoch in epochs] for name in names]
    shown = [name.rpartition("/")[2] for name in names]  # the plugin takes the room that the legend has
    labels = shown if len(set(shown)) == len(shown) else names
    figure, (axes,) = new_figure(3.1 + 0.17 * max(0, len(names) - 6))
    if len(epochs) == 1:
        epochs, layers = [epochs[0], epochs[0] + 1], [[*layer, layer[0]] for layer in layers]
    colours = [TERM_COLOURS[position % len(TERM_COLOURS)] for position in range(len(names))]
    axes.stackplot(epochs, layers, colors=colours, alpha=0.85, labels=labels)
    axes.set(xlabel="epoch", ylabel="share of the student's loss", ylim=(0, 1), xlim=(epochs[0], epochs[-1]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(False)
    legend(axes, columns=2 if max(map(len, labels)) <= 22 else 1)
    return ReportFigure(
        figure,
        "Terms of the loss",
        "Share of each weighted term in the student's training loss, mean over seeds.",
    )
