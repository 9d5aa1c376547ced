"""The supervised contrastive objective against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from stillhouse.objectives import SupervisedContrastive

TARGET = torch.tensor([0, 1, 0, 2, 1])


def formula(s: np.ndarray, t: np.ndarray, target: list[int], temperature: float) -> float:
    s, t = (x.reshape(len(x), -1) for x in (s, t))
    unit_s, unit_t = ([row / math.sqrt(sum(v * v for v in row)) for row in x] for x in (s, t))
    total = 0.0
    for i, mine in enumerate(unit_s):
        scores = [float(np.dot(mine, other)) / temperature for other in unit_t]
        largest = max(scores)
        log_sum = largest + math.log(sum(math.exp(score - largest) for score in scores))
        alike = [scores[j] - log_sum for j in range(len(unit_t)) if target[j] == target[i]]
        total -= sum(alike) / len(alike)
    return total / len(unit_s)


def pair(seed: int = 0, scale: float = 1.0, rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn((rows, 3, 2), generator=generator, dtype=torch.float64) * scale for _ in range(2))
    return student.requires_grad_(), teacher


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(0.01, 100.0),
    temperature=st.floats(0.05, 2.0),
    target=st.lists(st.integers(0, 3), min_size=1, max_size=7),
)
def test_equals_the_formula_at_any_scale(seed: int, scale: float, temperature: float, target: list[int]) -> None:
    student, teacher = pair(seed, scale, rows=len(target))
    value = SupervisedContrastive(temperature=temperature)(student, teacher, target=torch.tensor(target))
    expected = formula(student.detach().numpy(), teacher.numpy(), target, temperature)
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_frozen_value() -> None:
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    teacher = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    value = SupervisedContrastive(temperature=0.5)(student, teacher, target=torch.tensor([0, 1, 1]))
    assert value.item() == pytest.approx(0.8297585845, rel=1e-5)


def test_gradient_agrees_with_differences() -> None:
    student, teacher = pair()
    objective = SupervisedContrastive(temperature=0.5)
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher, target=TARGET), (student,))


@pytest.mark.parametrize("scale", [1e-20, 1e4, 1e20])
def test_finite_at_extreme_values(scale: float) -> None:
    student, teacher = (each.detach().float().mul(scale) for each in pair())
    student.requires_grad_()
    value = SupervisedContrastive(temperature=0.01)(student, -teacher, target=TARGET)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_dead_features_give_finite_values_and_gradients() -> None:
    student = torch.zeros(5, 3, 2, requires_grad=True)
    value = SupervisedContrastive()(student, pair()[1].float(), target=TARGET)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_a_batch_of_one_has_nothing_to_contrast_with() -> None:
    student, teacher = pair(rows=1)
    value = SupervisedContrastive()(student, teacher, target=torch.tensor([3]))
    value.backward()
    assert value.item() == 0.0
    assert torch.count_nonzero(student.grad) == 0


def test_a_student_at_its_class_in_the_teachers_space_costs_least() -> None:
    teacher = torch.eye(3)[TARGET]
    right = SupervisedContrastive()(teacher, teacher, target=TARGET)
    wrong = SupervisedContrastive()(teacher.roll(1, 1), teacher, target=TARGET)
    # Nothing is above log of the rows of one's class: each of two positives can get half of the probability.
    least = sum(math.log(int((each == TARGET).sum())) for each in TARGET) / len(TARGET)
    assert right.item() == pytest.approx(least, abs=1e-3)
    assert wrong > right + 1


def test_teacher_gets_no_gradient_and_bfloat16_computes_in_float32() -> None:
    student, teacher = pair()
    teacher.requires_grad_()
    SupervisedContrastive()(student, teacher, target=TARGET).backward()
    assert teacher.grad is None
    half = [each.detach().to(torch.bfloat16) for each in (student, teacher)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = SupervisedContrastive()(*half, target=TARGET)
    assert value.dtype == torch.float32
    assert torch.equal(value, SupervisedContrastive()(*(each.float() for each in half), target=TARGET))


def test_no_value_is_read_from_the_device() -> None:
    with FakeTensorMode():
        student = torch.rand(5, 6, requires_grad=True)
        value = SupervisedContrastive()(student, torch.rand(5, 6), target=torch.zeros(5, dtype=torch.int64))
        value.backward()
    assert value.shape == ()


@pytest.mark.parametrize(
    ("student", "teacher", "target"),
    [
        (torch.zeros(4, 3), torch.zeros(4, 2), torch.zeros(4).long()),
        (torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(3).long()),
        (torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4)),
    ],
    ids=["widths", "rows", "probabilities"],
)
def test_what_does_not_fit_is_refused(student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be"):
        SupervisedContrastive()(student, teacher, target=target)


def test_a_temperature_of_zero_is_refused_when_made() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        SupervisedContrastive(temperature=0.0)
