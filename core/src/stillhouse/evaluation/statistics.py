"""Did distillation help? Intervals over seeds, the gain paired by seed, and the verdict in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from scipy import stats

Interval = Literal["t", "bootstrap"]
RESAMPLES = 9999
UNBOUNDED = (-math.inf, math.inf)


def ci95(
    values: Sequence[float], *, interval: Interval = "t", bounds: tuple[float, float] = UNBOUNDED
) -> list[float] | None:
    """95 % interval of the mean: ``[low, high]``, or None for a single value, which says nothing of its
    spread.

    Args:
        values: one per seed.
        interval: "t", Student's interval; or "bootstrap", bias-corrected and accelerated with 9999 resamples
            and a fixed seed, which needs no normal distribution but is too narrow for fewer than about ten
            seeds.
        bounds: least and greatest value there can be; the interval ends there.
    """
    given = np.asarray(values, dtype=float)
    if len(given) < 2:
        return None
    mean = float(given.mean())
    if alike(given):
        return [mean, mean]
    if interval == "bootstrap":
        found = stats.bootstrap(
            (given,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            return [float(found.low), float(found.high)]
    low, high = stats.t.interval(0.95, len(given) - 1, loc=mean, scale=stats.sem(given))
    return [max(float(low), bounds[0]), min(float(high), bounds[1])]


def alike(values: Sequence[float] | np.ndarray, scale: float | None = None) -> bool:
    """Whether several values differ by rounding errors alone.

    Args:
        values: two or more.
        scale: size of what they were computed from; their own by default.
    """
    given = np.asarray(values, dtype=float)
    size = float(np.abs(given).max()) if scale is None else scale
    return len(given) > 1 and bool(np.ptp(given) <= 1e-12 * size)


def paired_gain(
    student: Sequence[float],
    baseline: Sequence[float],
    higher_is_better: bool,
    *,
    interval: Interval = "t",
    bounds: tuple[float, float] = UNBOUNDED,
) -> dict[str, Any]:
    """What distillation gained: the mean over seeds of student minus baseline, signed so that positive is
    better.

    Args:
        student: the distilled student's metric per seed.
        baseline: the metric of the same model trained without the teacher, same seeds in the same order.
        higher_is_better: direction of the metric.
        interval: see `ci95`.
        bounds: least and greatest value of the metric.

    Returns:
        ``gain``, ``gain_ci95`` (of the paired differences; None for one seed, and where all seeds gain the same, as
        estimators without randomness do, or two networks that err on as many rows each: that says nothing of the
        spread), ``paired_seeds``.

    Raises:
        ValueError: the two differ in length, or are empty.
    """
    if len(student) != len(baseline) or not len(student):
        raise ValueError(f"cannot pair {len(student)} students with {len(baseline)} baselines")
    sign = 1.0 if higher_is_better else -1.0
    gains = sign * (np.asarray(student, dtype=float) - np.asarray(baseline, dtype=float))
    scale, most = float(np.abs([student, baseline]).max()), bounds[1] - bounds[0]
    return {
        "gain": float(gains.mean()),
        "gain_ci95": None if alike(gains, scale) else ci95(gains.tolist(), interval=interval, bounds=(-most, most)),
        "paired_seeds": len(gains),
    }


def ci95_over_rows(
    gain: Callable[[np.ndarray], float], rows: int, *, groups: Sequence[str] | None = None, resamples: int = 1000
) -> list[float] | None:
    """95 % interval of a gain over test rows: percentiles of a paired bootstrap with a fixed seed.

    For two models with next to no randomness, such as trees, seeds tell nothing; what is left to chance is which rows
    the test has.

    Args:
        gain: of the rows at some positions; NaN where the metric has no value.
        rows: number of test rows.
        groups: group of each row; whole groups are drawn.
        resamples: draws.

    Returns:
        ``[low, high]``; None when fewer than half of the draws have a value.
    """
    random = np.random.default_rng(0)
    of_group = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = None if of_group is None else [np.flatnonzero(of_group == group) for group in range(of_group.max() + 1)]
    found = []
    for _ in range(resamples):
        if members is None:
            drawn = random.integers(0, rows, rows)
        else:
            drawn = np.concatenate([members[group] for group in random.integers(0, len(members), len(members))])
        found.append(gain(drawn))
    known = np.array([value for value in found if math.isfinite(value)])
    if 2 * len(known) < resamples:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return [float(low), float(high)]


def retention(student: float, teacher: float, higher_is_better: bool) -> float | None:
    """Share of the teacher's quality that the student keeps: student / teacher when higher is better, teacher
    / student when lower is better; above one when the student is the better of the two. None unless both are
    positive."""
    if student <= 0 or teacher <= 0:
        return None
    return student / teacher if higher_is_better else teacher / student


def ratio(large: float | None, small: float | None) -> float | None:
    """``large / small``; None when either is unknown or not positive."""
    return large / small if large and small and large > 0 and small > 0 else None


def verdict(
    *,
    metric: str,
    higher_is_better: bool,
    teacher: float,
    baseline: Sequence[float],
    student: Sequence[float],
    teacher_parameters: int | None = None,
    student_parameters: int | None = None,
    teacher_p50_ms: float | None = None,
    student_p50_ms: float | None = None,
    unit: str = "",
    simulated: bool = False,
    interval: Interval = "t",
    bounds: tuple[float, float] = UNBOUNDED,
    rows_ci95: Sequence[float] | None = None,
    teacher_at_chance: bool = False,
    compared_with: str = "",
) -> dict[str, Any]:
    """The ``verdict`` of ``summary.json``.

    Args:
        metric: name of the primary metric.
        higher_is_better: its direction.
        teacher: the teacher's metric on the test split.
        baseline: test metric by seed of the student's model trained without the teacher.
        student: test metric of the distilled student, same seeds in the same order.
        teacher_parameters: see `stillhouse.evaluation.measure.parameters`.
        student_parameters: the same.
        teacher_p50_ms: median latency at batch 1.
        student_p50_ms: the same.
        unit: unit of the metric, e.g. "cycles"; empty for a share.
        simulated: the data come from a simulator; the sentence says so.
        interval: see `ci95`.
        bounds: least and greatest value of the metric.
        rows_ci95: interval of the gain over test rows (`ci95_over_rows`), in place of one over seeds: for estimators,
            in which seeds change next to nothing.
        teacher_at_chance: the teacher is no better than an answer that ignores the inputs.
        compared_with: what the baseline is; empty where it is the same model trained without the teacher.

    Returns:
        ``compared_with`` (in words),
        ``gain``, ``gain_ci95``, ``interval_over`` ("seeds" or "test rows"), ``paired_seeds``, ``retention``,
        ``no_retention`` (why it is null where the teacher has no quality to keep: it is at chance, or no better than
        the mean of ``baseline``; else null), ``compression`` (teacher's parameters / student's), ``speedup``
        (teacher's median latency / student's), ``teacher_suffices`` (the teacher is as good, no larger and no slower:
        nothing speaks for the student), ``helped`` (true or false
        when the interval lies on one side of zero, else null), ``sentence``.

    Raises:
        ValueError: baseline and student differ in length, or are empty.
    """
    found = paired_gain(student, baseline, higher_is_better, interval=interval, bounds=bounds)
    found["interval_over"] = "seeds"
    if rows_ci95 is not None:
        found |= {"gain_ci95": list(rows_ci95), "interval_over": "test rows"}
    ends = found["gain_ci95"]
    helped = None
    if ends is not None and (ends[0] > 0 or ends[1] < 0):
        helped = bool(ends[0] > 0)
    mean = float(np.mean(student))
    why_none = _no_retention(teacher, float(np.mean(baseline)), higher_is_better, at_chance=teacher_at_chance)
    found |= {
        "retention": None if why_none else retention(mean, teacher, higher_is_better),
        "no_retention": why_none,
        "compression": ratio(teacher_parameters, student_parameters),
        "speedup": ratio(teacher_p50_ms, student_p50_ms),
        "helped": helped,
        "compared_with": compared_with or SAME_MODEL,
    }
    as_good = teacher >= mean if higher_is_better else teacher <= mean
    factors = (found["compression"], found["speedup"])
    found["teacher_suffices"] = as_good and all(factor is not None and factor <= 1 for factor in factors)
    return found | {"sentence": sentence(found, metric=metric, student=mean, unit=unit, simulated=simulated)}


def _no_retention(teacher: float, baseline: float, higher_is_better: bool, *, at_chance: bool) -> str | None:
    """Why a share of the teacher's quality would mean nothing; None where it means something."""
    if at_chance:
        return "the teacher is no better than an answer that ignores the inputs"
    if teacher <= baseline if higher_is_better else teacher >= baseline:
        return "the teacher is no better than the same model trained without it"
    return None


SAME_MODEL = "the same model trained without the teacher"
"""What the baseline is, where a method says nothing else."""
OPENINGS = {
    True: "Distillation helped",
    False: "Distillation did not help, it made the student worse",
    None: "No proof that distillation helped",
}
ONE_SEED = "One seed only, which cannot tell whether distillation helped"
ALL_ALIKE = "All seeds gain the same, so that they cannot tell whether distillation helped"


def opening(found: dict[str, Any]) -> str:
    """First words of the verdict: whether distillation helped, as far as the numbers tell."""
    if found.get("gain_ci95") is None:
        return ALL_ALIKE if found.get("paired_seeds", 1) > 1 else ONE_SEED
    return OPENINGS[found.get("helped")]


def why_no_interval(found: dict[str, Any]) -> str:
    """Why a verdict has no interval, in a few words."""
    return "one seed" if found.get("paired_seeds", 1) == 1 else "all seeds alike"


def after_opening(text: str, first: str) -> str:
    """A sentence without the opening ``first``, where that stands before it as a title."""
    rest = text.removeprefix(f"{first}: ")
    return rest[:1].upper() + rest[1:]


def sentence(found: dict[str, Any], *, metric: str, student: float, unit: str = "", simulated: bool = False) -> str:
    """The verdict in words: whether distillation helped, by how much, and at what size and speed."""
    gain, bounds, seeds = found["gain"], found["gain_ci95"], found["paired_seeds"]
    places = _decimals(student)
    evidence = "no interval"
    if bounds is not None:
        low, high = (f"{'+' if bound >= 0 else '−'}{_number(abs(bound), places)}" for bound in bounds)
        evidence = f"95 % interval of the gain {low} to {high}"
        evidence += ", which contains zero" if found["helped"] is None else ""
        many = "one seed" if seeds == 1 else f"mean of {seeds} seeds"
        over_rows = found.get("interval_over") == "test rows"
        evidence += f"; over test rows, {many}" if over_rows else f"; {seeds} paired seeds"
    better = "better" if gain > 0 else "worse"
    change = "equal to" if gain == 0 else f"{_number(abs(gain), places)} {better} than"
    measured = f"test {metric} {_number(student, places)}{f' {unit}' if unit else ''}"
    text = f"{opening(found)}: {measured}, {change} {found.get('compared_with', SAME_MODEL)} ({evidence})."
    costs = [
        f"{_times(factor)} times {fewer}" if factor >= 1 else f"{_times(1 / factor)} times {more}"
        for factor, fewer, more in (
            (found["compression"], "fewer parameters", "more parameters"),
            (found["speedup"], "lower latency", "higher latency"),
        )
        if factor is not None
    ]
    if found["retention"] is not None:
        kept = f"keeps {100 * found['retention']:.3g} % of the teacher's quality"
        text += f" The student {kept}{' with ' if costs else ''}{' and '.join(costs)}."
    else:
        if why_none := found.get("no_retention"):
            text += f" {why_none[0].upper()}{why_none[1:]}, so that a share of its quality would mean nothing."
        if costs:
            text += f" The student has {' and '.join(costs)}."
    if found.get("teacher_suffices"):
        text += " The teacher is as good, no larger and no slower: use it in place of the student."
    return text + (" The data are simulated." if simulated else "")


def _times(factor: float) -> str:
    """A factor of at least 1 for people: ``52.8``, ``3,220``."""
    return f"{factor:,.0f}" if factor >= 999.5 else f"{factor:.3g}"


def _decimals(value: float) -> int:
    """Decimals that show four significant digits of ``value``."""
    return 3 if value == 0 or not math.isfinite(value) else min(6, max(0, 3 - math.floor(math.log10(abs(value)))))


def _number(value: float, places: int) -> str:
    text = f"{value:.{places}f}"
    return f"{value:.2g}" if value and not float(text) else text  # a small difference is not shown as none
