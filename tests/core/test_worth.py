"""Size at equal quality: the factor and its interval, against formulas and against what must hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.evaluation.worth import AtSize, worth

SIZES = (100.0, 200.0, 400.0, 800.0)
NOISE = 0.0005


def line(size: float) -> float:
    """Quality that grows by .05 with each doubling."""
    return 0.5 + 0.05 * math.log2(size / 100)


def judged(
    student: Callable[[float], float],
    *,
    baseline: Callable[[float], float] = line,
    sizes: tuple[float, ...] = SIZES,
    own: int = 1,
    seeds: int = 4,
    noise: float = NOISE,
    sign: float = 1.0,
    alike: bool = False,
) -> dict[str, Any]:
    """``worth`` of two curves, with noise by seed (the same for both curves when ``alike``)."""
    rng = np.random.default_rng(0)
    tested = []
    for position, size in enumerate(sizes):
        first, second = noise * rng.normal(size=(2, seeds))
        first, second = first - first.mean(), second - second.mean()
        tested.append(
            AtSize(
                value=position,
                own=position == own,
                baseline_sizes=[size] * seeds,
                student_sizes=[size] * seeds,
                baseline=(sign * (baseline(size) + first)).tolist(),
                student=(sign * (student(size) + (first if alike else second))).tolist(),
            )
        )
    return worth(tested, field="student.width", measure="parameters", higher_is_better=sign > 0, resamples=300)


values = st.lists(st.floats(0.1, 0.9), min_size=4, max_size=4)


@given(values)
@settings(max_examples=25, deadline=None)
def test_equal_curves_of_any_shape_are_worth_nothing(curve: list[float]) -> None:
    def shape(size: float) -> float:
        return curve[SIZES.index(size)]

    found = judged(shape, baseline=shape, alike=True)
    for each in found["sizes"]:
        assert each["size_factor"] == pytest.approx(1)
        assert each["censored"] is None
        assert each["ci95"] == pytest.approx([1, 1])
    assert found["worth"] is None
    assert "same size" in found["sentence"]


def test_noise_of_its_own_gives_an_interval_around_one() -> None:
    found = judged(line)
    assert found["size_factor"] == pytest.approx(1)
    low, high = found["ci95"]
    assert low < 1 < high
    assert found["worth"] is None
    assert found["sentence"].startswith("No proof that distillation is worth size")


@given(st.floats(1.05, 1.8), st.sampled_from([1.0, -1.0]))
@settings(max_examples=25, deadline=None)
def test_a_curve_shifted_by_a_factor_in_size_gives_the_factor(factor: float, sign: float) -> None:
    better = judged(lambda size: line(factor * size), sign=sign)
    assert better["size_factor"] == pytest.approx(factor)
    assert better["equal_size"] == pytest.approx(factor * 200)
    worse = judged(lambda size: line(size / factor), sign=sign)
    assert worse["size_factor"] == pytest.approx(1 / factor)
    for found in (better, worse):
        low, high = found["ci95"]
        assert low < found["size_factor"] < high


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), values, st.lists(st.floats(0, 0.3), min_size=4, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_better_student_is_never_worth_less(base: list[float], student: list[float], more: list[float]) -> None:
    def of(curve: list[float]) -> Callable[[float], float]:
        return lambda size: curve[SIZES.index(size)]

    better = [each + added for each, added in zip(student, more, strict=True)]
    before, after = (judged(of(curve), baseline=of(base), seeds=1, noise=0.0)["sizes"] for curve in (student, better))
    for one, other in zip(before, after, strict=True):
        assert other["size_factor"] >= one["size_factor"] * (1 - 1e-9)


def test_the_verdict_follows_from_the_interval() -> None:
    helped = judged(lambda size: line(1.6 * size))
    assert helped["worth"] is True
    assert helped["sentence"].startswith(
        "Distillation is worth size: with distillation a student of 200 parameters is as good as one of 320 without "
        "it: 1.6 times smaller (95 % interval of the size factor 1."
    )
    harmed = judged(lambda size: line(size / 1.6))
    assert harmed["worth"] is False
    assert "Distillation costs size" in harmed["sentence"]
    assert "1.6 times larger" in harmed["sentence"]


def test_beyond_the_sizes_tested_the_factor_is_a_bound_and_said_to_be_one() -> None:
    above = judged(lambda size: line(size) + 1)
    assert (above["size_factor"], above["censored"]) == (pytest.approx(4), "at least")
    assert above["ci95"] == [pytest.approx(4), None]
    assert above["worth"] is True
    assert "better than all without it, tested up to 800: at least 4 times smaller" in above["sentence"]
    assert "Larger values of student.width tell more" in above["sentence"]
    below = judged(lambda size: line(size) - 1)
    assert (below["size_factor"], below["censored"]) == (pytest.approx(0.5), "at most")
    assert below["ci95"] == [None, pytest.approx(0.5)]
    assert below["worth"] is False
    assert "worse than all without it, tested down to 100: at least 2 times larger" in below["sentence"]
    json.dumps([above, below], allow_nan=False)


def test_models_that_grow_with_their_rows_are_at_most_so_much_larger() -> None:
    # Trees of one depth: on few labels the baseline's stay small, and none is as good as the distilled one.
    tested = [
        AtSize(value=depth, own=depth == 4, baseline_sizes=[50 * depth] * 2, student_sizes=[400 * depth] * 2,
               baseline=[0.5, 0.52], student=[0.8, 0.82])
        for depth in (2, 4, 8)
    ]  # fmt: skip
    found = worth(tested, field="student.max_depth", measure="parameters", higher_is_better=True)
    assert (found["size_factor"], found["censored"]) == (pytest.approx(0.25), "at least")
    told = (
        "better than all without it, tested up to 400, which are smaller: how large one as good would be is not known"
    )
    assert told in found["sentence"]


def test_a_factor_that_rounds_to_one_is_the_same_size() -> None:
    assert "as good as one of the same size without it (" in judged(lambda size: line(size / 1.04))["sentence"]


def test_the_largest_size_is_never_the_headline_and_the_sentence_says_so() -> None:
    found = judged(lambda size: line(1.5 * size), own=3)
    assert found["value"] == 2
    assert found["size"] == 400
    assert "larger values of student.width" in found["sentence"]


def test_one_seed_and_seeds_that_change_nothing_have_no_interval() -> None:
    one = judged(lambda size: line(1.5 * size), seeds=1)
    assert (one["ci95"], one["worth"]) == (None, None)
    assert one["sentence"].startswith("One seed only, which cannot tell")
    same = judged(lambda size: line(1.5 * size), noise=0.0)
    assert (same["ci95"], same["worth"]) == (None, None)
    assert same["sentence"].startswith("These seeds, all with the same results, cannot tell")


def test_a_flat_baseline_claims_least_and_one_that_falls_counts_with_its_best() -> None:
    flat = judged(lambda _: 0.7, baseline=lambda _: 0.7, alike=True)
    assert [each["size_factor"] for each in flat["sizes"]] == pytest.approx([1, 1, 1, 1])
    # A larger model that is worse, because it overfits, does not make the smaller one worse.
    dent = {100.0: 0.4, 200.0: 0.6, 400.0: 0.5, 800.0: 0.7}
    found = judged(lambda _: 0.6, baseline=dent.__getitem__, seeds=1, noise=0.0)
    assert found["equal_size"] == pytest.approx(200)
    assert [each["baseline"]["monotone"] for each in found["sizes"]] == pytest.approx([0.4, 0.6, 0.6, 0.7])
    falling = {100.0: 0.796, 200.0: 0.799, 400.0: 0.762, 800.0: 0.761}
    found = judged(lambda _: 0.797, baseline=falling.__getitem__, seeds=1, noise=0.0)
    assert found["censored"] is None, "a student below the best without it is not better than all"
    assert 100 < found["equal_size"] < 200
    assert "a student of 200 parameters" in found["sentence"]


def test_a_size_that_counts_with_a_smaller_student_says_so() -> None:
    students = {100.0: 0.8, 200.0: 0.75, 400.0: 0.75, 800.0: 0.75}
    found = judged(students.__getitem__, baseline=lambda _: 0.77, seeds=1, noise=0.0)
    assert "with distillation a student of at most 200 parameters is better than all without it" in found["sentence"]


def test_models_whose_size_differs_by_seed_have_their_geometric_mean() -> None:
    tested = [
        AtSize(2, True, [100, 400], [50, 200], [0.5, 0.6], [0.5, 0.6]),
        AtSize(4, False, [800, 800], [400, 400], [0.7, 0.8], [0.7, 0.8]),
    ]
    found = worth(tested, field="student.max_depth", measure="parameters", higher_is_better=True, resamples=100)
    assert found["size"] == pytest.approx(100)
    assert found["size_factor"] == pytest.approx(2)


def test_the_interval_holds_the_factor_as_often_as_it_says() -> None:
    rng, factor, held, repeats = np.random.default_rng(0), 1.5, 0, 60
    for _ in range(repeats):
        tested = [
            AtSize(
                size,
                size == 200,
                [size] * 4,
                [size] * 4,
                *((line(shift * size) + 0.02 * rng.normal(size=4)).tolist() for shift in (1, factor)),
            )
            for size in SIZES
        ]
        low, high = worth(tested, field="student.width", measure="parameters", higher_is_better=True, resamples=200)[
            "ci95"
        ]
        held += (low or 0) <= factor <= (high or math.inf)
    assert 0.85 * repeats <= held


@pytest.mark.parametrize(
    ("tested", "said"),
    [
        ([], "at least two"),
        ([AtSize(1, True, [1], [1], [1.0], [1.0])], "at least two"),
        ([AtSize(1, True, [1], [1], [1.0], [1.0]), AtSize(2, True, [2], [2], [1.0], [1.0])], "own"),
        ([AtSize(1, True, [1], [1], [1.0], [1.0]), AtSize(2, False, [2], [2], [1.0], [1.0, 2.0])], "same seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused(tested: list[AtSize], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        worth(tested, field="student.width", measure="parameters", higher_is_better=True)
