"""Schedules of options over a run."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.objectives import Schedule, parse_schedule

NUMBERS = st.floats(-1e6, 1e6)


@given(value=NUMBERS | st.integers(-1000, 1000), progress=st.floats(0, 1))
def test_a_number_is_constant(value: float, progress: float) -> None:
    assert parse_schedule(value).value(progress) == value


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"schedule": "constant", "end": 4}, {0.0: 4, 0.5: 4, 1.0: 4}),
        ({"schedule": "linear", "start": 8, "end": 1}, {0.0: 8, 0.25: 6.25, 0.5: 4.5, 1.0: 1}),
        ({"schedule": "linear", "start": 8, "end": 0, "fraction": 0.5}, {0.25: 4, 0.5: 0, 0.9: 0}),
        ({"schedule": "cosine", "start": 8, "end": 0}, {0.0: 8, 1 / 3: 6, 0.5: 4, 2 / 3: 2, 1.0: 0}),
        ({"schedule": "cosine", "start": 0, "end": 2, "fraction": 0.5}, {0.25: 1, 0.75: 2}),
        ({"schedule": "warmup", "end": 1, "fraction": 0.2}, {0.0: 0, 0.1: 0.5, 0.2: 1, 1.0: 1}),
        ({"schedule": "warmup", "end": 1}, {0.05: 0.5, 0.1: 1}),
        ({"schedule": "warmup", "start": 0.5, "end": 1, "fraction": 1}, {0.0: 0.5, 0.5: 0.75, 1.0: 1}),
    ],
)
def test_values_along_a_run(given: dict[str, Any], expected: dict[float, float]) -> None:
    schedule = parse_schedule(given)
    for progress, value in expected.items():
        assert schedule.value(progress) == pytest.approx(value)


@given(
    shape=st.sampled_from(["linear", "cosine", "warmup"]),
    start=NUMBERS,
    end=NUMBERS,
    fraction=st.floats(0.01, 1.0),
    steps=st.lists(st.floats(0, 1), min_size=2, max_size=5),
)
def test_a_move_starts_at_start_ends_exactly_at_end_and_never_turns(
    shape: Any, start: float, end: float, fraction: float, steps: list[float]
) -> None:
    schedule = parse_schedule({"schedule": shape, "start": start, "end": end, "fraction": fraction})
    values = [schedule.value(step) for step in sorted(steps)]
    slack = 1e-9 * max(abs(start), abs(end), 1.0)
    assert schedule.value(0.0) == start
    assert schedule.value(1.0) == end
    assert all((b - a) * (1 if end >= start else -1) >= -slack for a, b in itertools.pairwise(values))
    assert all(min(start, end) - slack <= value <= max(start, end) + slack for value in values)


def test_progress_outside_the_run_is_clamped() -> None:
    schedule = Schedule(schedule="linear", start=0.0, end=2.0)
    assert schedule.value(-0.5) == 0.0
    assert schedule.value(1.0000001) == 2.0


@given(start=st.floats(-10, 10), end=st.floats(-10, 10), shape=st.sampled_from(["linear", "cosine", "warmup"]))
def test_a_schedule_within_bounds_at_both_ends_is_so_throughout(start: float, end: float, shape: Any) -> None:
    schedule = parse_schedule({"schedule": shape, "start": start, "end": end})
    if 0 <= start <= 5 and 0 <= end <= 5:
        schedule.require("alpha", least=0, most=5)
        assert all(-1e-9 <= schedule.value(step / 10) <= 5 + 1e-9 for step in range(11))
    else:
        with pytest.raises(ValueError, match=r"alpha must be in \[0, 5\] throughout the run"):
            schedule.require("alpha", least=0, most=5)


def test_a_schedule_passes_through() -> None:
    schedule = Schedule(schedule="cosine", start=1.0, end=2.0)
    assert parse_schedule(schedule) is schedule


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("8", ["'8'", "schedule: linear"]),
        (None, ["None", "number"]),
        (True, ["True", "number"]),
        ([8, 1], ["[8, 1]"]),
        (math.nan, ["nan"]),
        (math.inf, ["inf"]),
        ({}, ["schedule None", "linear"]),
        ({"schedule": "exponential", "start": 1, "end": 2}, ["exponential", "cosine"]),
        ({"schedule": ["linear"], "start": 1, "end": 2}, ["linear"]),
        ({"schedule": "linear", "end": 2}, ["needs start"]),
        ({"schedule": "cosine"}, ["needs start and end"]),
        ({"schedule": "warmup"}, ["needs end"]),
        ({"schedule": "linear", "strat": 1, "end": 2}, ["'strat'", "did you mean 'start'?"]),
        ({"schedule": "linear", "start": "1", "end": 2}, ["start", "'1'"]),
        ({"schedule": "linear", "start": 1, "end": math.inf}, ["end", "inf"]),
        ({"schedule": "linear", "start": 1, "end": 2, "fraction": 0}, ["fraction", "(0, 1]"]),
        ({"schedule": "warmup", "end": 2, "fraction": 1.5}, ["fraction", "1.5"]),
        ({"schedule": "constant", "start": 1, "end": 2}, ["only end"]),
        ({"schedule": "linear", "zzz": 1}, ["'zzz'", "known: schedule"]),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(wrong: Any, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is checked below
        parse_schedule(wrong)
    assert all(word in str(error.value) for word in words)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5) | st.floats() | st.integers(),
        lambda inner: (
            st.dictionaries(
                st.sampled_from(["schedule", "start", "end", "fraction", "x"]) | st.text(max_size=3),
                inner,
                max_size=4,
            )
            | st.lists(inner, max_size=3)
        ),
        max_leaves=6,
    )
)
def test_whatever_is_given_becomes_a_schedule_or_a_value_error(value: Any) -> None:
    schedule = parsed(value)
    assert schedule is None or math.isfinite(schedule.value(0.5))


def parsed(value: Any) -> Schedule | None:
    try:
        return parse_schedule(value)
    except ValueError:
        return None
