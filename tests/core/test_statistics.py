"""Intervals against their textbook formula and coverage, the paired gain, and what the verdict says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.evaluation.statistics import ci95, paired_gain, retention, verdict

T_975_4 = 2.7764451051977987  # quantile .975 of Student's t with 4 degrees of freedom
seeds = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


def test_interval_by_the_textbook():
    values = [1.0, 2.0, 3.0, 4.0, 6.0]
    half = T_975_4 * np.std(values, ddof=1) / np.sqrt(5)
    assert ci95(values) == pytest.approx([3.2 - half, 3.2 + half])


def test_one_value_has_no_interval_and_equal_values_a_point():
    assert ci95([3.0]) is None
    assert ci95([3.0, 3.0, 3.0]) == [3.0, 3.0]


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for low, high in (ci95(rng.normal(size=5)) for _ in range(2000))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_bootstrap_interval_is_repeatable_and_near_the_t_interval_for_many_values():
    values = np.random.default_rng(0).normal(size=60).tolist()
    found = ci95(values, interval="bootstrap")
    assert found == ci95(values, interval="bootstrap")
    assert found == pytest.approx(ci95(values), abs=0.05)


@given(seeds, st.booleans())
def test_gain_changes_sign_with_the_direction_and_with_the_roles(values, higher):
    other = [value * 0.5 + 1 for value in values]
    found = paired_gain(values, other, higher)
    turned = paired_gain(values, other, not higher)
    swapped = paired_gain(other, values, higher)
    assert found["gain"] == pytest.approx(-turned["gain"])
    assert found["gain"] == pytest.approx(-swapped["gain"])
    if np.ptp(values) < 1e-14 * max(map(abs, [*values, *other])):
        assert found["gain_ci95"] is None
    if np.ptp(values) > 1e-10 * max(map(abs, [*values, *other])):
        low, high = found["gain_ci95"]
        assert low <= found["gain"] + 1e-9
        assert found["gain"] <= high + 1e-9
    assert found["paired_seeds"] == len(values)


def test_pairing_sees_a_small_gain_under_a_large_spread_of_seeds():
    baseline = [10.0, 20.0, 30.0, 40.0]
    student = [9.0, 18.9, 29.1, 39.0]
    low, high = paired_gain(student, baseline, higher_is_better=False)["gain_ci95"]
    assert 0.8 < low < 1.0 < high < 1.2


def test_unequal_lengths_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot pair 2 students with 3"):
        paired_gain([1.0, 2.0], [1.0, 2.0, 3.0], True)
    with pytest.raises(ValueError, match="cannot pair 0"):
        paired_gain([], [], True)


def test_retention_by_direction():
    assert retention(0.8, 0.9, True) == pytest.approx(0.8 / 0.9)
    assert retention(13.0, 12.0, False) == pytest.approx(12 / 13)
    assert retention(-0.1, 0.9, True) is None


def judged(student, baseline, **more):
    options = {"metric": "rmse", "higher_is_better": False, "teacher": 12.0, "unit": "cycles"} | more
    return verdict(student=student, baseline=baseline, **options)


def test_verdict_that_it_helped():
    found = judged(
        [13.0, 13.1, 12.9],
        [14.0, 14.2, 13.9],
        teacher_parameters=100_000,
        student_parameters=4_000,
        teacher_p50_ms=8.0,
        student_p50_ms=0.5,
    )
    assert found["helped"] is True
    assert found["gain"] == pytest.approx(31 / 30)
    assert found["retention"] == pytest.approx(12 / 13)
    assert found["compression"] == 25
    assert found["speedup"] == 16
    said = found["sentence"]
    assert said.startswith(
        "Distillation helped: test rmse 13.00 cycles, 1.03 better than the same model trained without"
    )
    assert "3 paired seeds" in said
    assert said.endswith(
        "keeps 92.3 % of the teacher's quality with 25 times fewer parameters and 16 times lower latency."
    )


def test_a_teacher_without_quality_leaves_no_share_of_it_to_keep():
    costs = {"teacher_parameters": 100, "student_parameters": 50}
    weak = judged([9.0, 9.2, 8.9], [10.0, 10.1, 9.8], teacher=30.0, **costs)
    chance = judged([9.0, 9.2, 8.9], [40.0, 40.1, 39.8], teacher=30.0, teacher_at_chance=True, **costs)
    for found, why in ((weak, "no better than the same model"), (chance, "no better than an answer that ignores")):
        assert found["retention"] is None
        assert why in found["no_retention"]
        assert "keeps" not in found["sentence"]
        assert f"The teacher is {why}" in found["sentence"]
        assert "The student has 2 times fewer parameters." in found["sentence"]
    good = judged([9.0, 9.2, 8.9], [10.0, 10.1, 9.8], teacher=9.5)
    assert good["no_retention"] is None
    assert good["retention"] > 1, "a student better than a good teacher keeps more than all of it"


@pytest.mark.parametrize(
    ("teacher", "parameters", "latency", "suffices"),
    [
        (8.9, 50, 1.0, True),  # better than 9.03, half the size, twice as fast
        (9.1, 50, 1.0, False),  # worse
        (8.9, 200, 1.0, False),  # larger
        (8.9, 50, 3.0, False),  # slower
        (8.9, None, 1.0, False),  # its size is not known
    ],
)
def test_a_teacher_that_is_as_good_and_no_larger_is_the_one_to_use(
    teacher: float, parameters: int | None, latency: float, suffices: bool
) -> None:
    costs = {"teacher_parameters": parameters, "student_parameters": 100}
    costs |= {"teacher_p50_ms": latency, "student_p50_ms": 2.0}
    found = judged([9.0, 9.2, 8.9], [10.0, 10.1, 9.8], teacher=teacher, **costs)
    assert found["teacher_suffices"] is suffices
    assert ("use it in place of the student" in found["sentence"]) is suffices


def test_verdict_that_it_did_harm_comes_first_in_the_sentence():
    found = judged([14.0, 14.2, 13.9], [13.0, 13.1, 12.9])
    assert found["helped"] is False
    assert found["gain"] < 0
    assert found["sentence"].startswith("Distillation did not help, it made the student worse")


def test_verdict_without_proof():
    found = judged([13.0, 14.2, 12.9], [13.1, 13.9, 13.2])
    assert found["helped"] is None
    low, high = found["gain_ci95"]
    assert low < 0 < high
    assert found["sentence"].startswith("No proof that distillation helped")
    assert "contains zero" in found["sentence"]


def test_verdict_of_equal_figures_is_open():
    found = judged([13.0, 13.5], [13.0, 13.5])
    assert found["helped"] is None
    assert found["gain_ci95"] is None
    assert "equal to" in found["sentence"]


def test_seeds_that_all_give_the_same_figures_prove_nothing():
    found = judged([13.0, 13.0, 13.0], [14.0, 14.0, 14.0])
    assert found["helped"] is None
    assert found["gain_ci95"] is None
    assert found["sentence"].startswith("All seeds gain the same")
    assert judged([13.0, 13.0, 13.0], [14.0, 14.5, 14.0])["gain_ci95"] is not None


def test_seeds_that_gain_the_same_number_of_rows_prove_nothing():
    """Two of 94 rows each: rounding errors were all that was left of the spread, and the verdict was "helped"."""
    found = judged([87 / 94, 83 / 94], [85 / 94, 81 / 94], higher_is_better=True)
    assert found["gain"] == pytest.approx(2 / 94)
    assert (found["gain_ci95"], found["helped"]) == (None, None)
    assert found["sentence"].startswith("All seeds gain the same")


def test_intervals_end_at_the_least_and_greatest_value_of_a_metric():
    assert ci95([0.3, 0.6]) == pytest.approx([0.45 - 12.7062 * 0.15, 0.45 + 12.7062 * 0.15], rel=1e-4)
    assert ci95([0.3, 0.6], bounds=(0.0, 1.0)) == [0.0, 1.0]
    found = paired_gain([0.3, 0.9], [0.5, 0.4], True, bounds=(0.0, 1.0))
    assert found["gain_ci95"] == [-1.0, 1.0]
    assert paired_gain([0.3, 0.9], [0.5, 0.4], True)["gain_ci95"][0] < -4


def test_an_interval_over_rows_takes_the_place_of_one_over_seeds_that_hardly_differ():
    student, baseline = [13.0, 13.0, 13.01], [13.1, 13.1, 13.1]
    assert judged(student, baseline)["helped"] is True
    found = judged(student, baseline, rows_ci95=[-0.4, 0.6])
    assert (found["helped"], found["gain_ci95"], found["interval_over"]) == (None, [-0.4, 0.6], "test rows")
    assert "over test rows, mean of 3 seeds" in found["sentence"]


def test_verdict_of_one_seed_has_no_interval_and_says_so():
    found = judged([13.0], [14.0])
    assert found["helped"] is None
    assert found["gain_ci95"] is None
    assert found["sentence"].startswith("One seed only")
    assert "no interval" in found["sentence"]


def test_verdict_says_that_data_are_simulated_and_that_a_student_is_larger():
    found = judged([13.0, 13.1], [14.0, 14.2], simulated=True, teacher_parameters=10, student_parameters=40)
    assert found["sentence"].endswith("with 4 times more parameters. The data are simulated.")
    assert "latency" not in found["sentence"]
    assert found["speedup"] is None


def test_large_factors_have_no_exponent() -> None:
    found = verdict(
        metric="accuracy",
        higher_is_better=True,
        teacher=0.9,
        baseline=[0.7, 0.72],
        student=[0.8, 0.81],
        teacher_parameters=3_220_400,
        student_parameters=1_000,
    )
    assert "with 3,220 times fewer parameters" in found["sentence"]
