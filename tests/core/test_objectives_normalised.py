"""Normalised KD, correlations of Gaussians, and variational information, against plain loops."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from torch import Tensor

from stillhouse.objectives import VID, CorrelationAware, NormalisedKD

Labels = Literal["teacher", "customised"]
LABELS = torch.tensor([1, 3, 0, 2, 1, 0])


def pair(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale for _ in range(2))
    return student.requires_grad_(), teacher


# Normalised KD


def normalised(s: np.ndarray, t: np.ndarray, y: np.ndarray, gamma: float, temperature: float, custom: bool) -> float:
    student, teacher = softmax(s, axis=1), softmax(t, axis=1)
    squares = [row[true] ** 2 for row, true in zip(student, y, strict=True)]
    total = 0.0
    for i, true in enumerate(y):
        others = [k for k in range(s.shape[1]) if k != true]
        q = softmax(s[i, others] / temperature)
        if custom:
            confidence = squares[i] + 1 - sum(squares) / len(squares)
            ranked = sorted(others, key=lambda k, i=i: -s[i, k])
            zipf = {k: 1 / (rank + 1) for rank, k in enumerate(ranked)}
            p = np.array([zipf[k] / sum(zipf.values()) for k in others])
        else:
            confidence, p = teacher[i, true], softmax(t[i, others] / temperature)
        kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        total += -confidence * math.log(student[i, true]) + gamma * temperature**2 * kl
    return total / len(y)


@pytest.mark.parametrize("labels", ["teacher", "customised"])
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(0.1, 20.0),
    gamma=st.floats(0.0, 5.0),
    temperature=st.floats(0.5, 6.0),
)
def test_normalised_kd_equals_the_formula(
    labels: Labels, seed: int, scale: float, gamma: float, temperature: float
) -> None:
    student, teacher = pair((6, 4), seed, scale)
    objective = NormalisedKD(gamma=gamma, temperature=temperature, soft_labels=labels)
    value = objective(student, teacher, target=LABELS)
    expected = normalised(
        student.detach().numpy(), teacher.numpy(), LABELS.numpy(), gamma, temperature, labels == "customised"
    )
    assert value.item() == pytest.approx(expected, rel=1e-8)


STUDENT = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
TEACHER = torch.tensor([[2.0, 1.0, 0.0], [0.5, -0.5, 2.0]])


@pytest.mark.parametrize(("labels", "frozen"), [("teacher", 0.632353961), ("customised", 0.298123956)])
def test_normalised_kd_frozen(labels: Labels, frozen: float) -> None:
    objective = NormalisedKD(temperature=2.0, soft_labels=labels)
    value = objective(STUDENT, TEACHER, target=torch.tensor([1, 2]))
    assert value.item() == pytest.approx(frozen, rel=1e-5)


def test_normalised_kd_gradient_agrees_with_differences_and_is_the_labels_at_a_match() -> None:
    student, teacher = pair((6, 4))
    assert torch.autograd.gradcheck(lambda s: NormalisedKD()(s, teacher, target=LABELS), (student,))
    value = NormalisedKD()(student, student.detach(), target=LABELS)
    (gradient,) = torch.autograd.grad(value, student)
    share = student.detach().softmax(1)
    true = torch.nn.functional.one_hot(LABELS, 4)
    expected = (share * true).sum(1, keepdim=True) * (share - true) / 6
    torch.testing.assert_close(gradient, expected)


def test_customised_labels_have_no_gradient_and_need_no_teacher() -> None:
    student, teacher = pair((6, 4))
    objective = NormalisedKD(soft_labels="customised")
    assert objective(student, teacher, target=LABELS).item() == objective(student, teacher * 5, target=LABELS).item()
    of_true = NormalisedKD(soft_labels="customised", gamma=0.0)(student, teacher, target=LABELS)
    (gradient,) = torch.autograd.grad(of_true, student)
    share = student.detach().softmax(1)
    true = torch.nn.functional.one_hot(LABELS, 4)
    square = (share * true).sum(1).square()
    confidence = square + 1 - square.mean()
    torch.testing.assert_close(gradient, confidence[:, None] * (share - true) / 6)


@pytest.mark.parametrize("labels", ["teacher", "customised"])
@pytest.mark.parametrize("classes", [2, 4])
def test_normalised_kd_at_extremes(labels: Labels, classes: int) -> None:
    teacher = torch.where(torch.rand(3, classes, generator=torch.Generator().manual_seed(0)) > 0.5, 1e4, -1e4)
    student = (-teacher).requires_grad_()
    objective = NormalisedKD(soft_labels=labels)
    value = objective(student, teacher, target=torch.tensor([0, 1, 1]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()
    constant = torch.zeros(1, classes, requires_grad=True)
    value = objective(constant, torch.zeros(1, classes), target=torch.tensor([1]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(constant.grad).all()


def test_a_masked_row_has_no_part_in_the_mean_of_customised_labels() -> None:
    student, teacher = pair((6, 4))
    keep = torch.tensor([True, False, True, True, False, True])
    objective = NormalisedKD(soft_labels="customised")
    masked = objective(student, teacher, target=LABELS, mask=keep)
    alone = objective(student[keep], teacher[keep], target=LABELS[keep])
    assert masked.item() == pytest.approx(alone.item(), rel=1e-12)


def test_normalised_kd_refuses_what_does_not_fit() -> None:
    student, teacher = pair((6, 4))
    for target in (LABELS[:3], LABELS.double(), LABELS + 3):
        with pytest.raises(ValueError, match="target"):
            NormalisedKD()(student, teacher, target=target)
    with pytest.raises(ValueError, match="soft_labels"):
        NormalisedKD(soft_labels="mine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gamma"):
        NormalisedKD(gamma=-1.0)


# Correlations of Gaussians


def relations(s: np.ndarray, t: np.ndarray, distance_weight: float, overlap_weight: float) -> float:
    half, size = s.shape[1] // 2, len(s)

    def smooth(a: float, b: float) -> float:
        gap = abs(a - b)
        return 0.5 * gap * gap if gap < 1 else gap - 0.5

    def kl(m: float, v: float, n: float, w: float) -> float:
        return 0.5 * (math.log(w / v) + (v + (m - n) ** 2) / w - 1)

    total = 0.0
    for d in range(half):
        far, near = [], []
        for x in (s, t):
            g = [(float(row[d]), math.exp(float(row[half + d]))) for row in x]
            distance = [[(kl(*g[i], *g[j]) + kl(*g[j], *g[i])) / 2 for j in range(size)] for i in range(size)]
            positive = [v for i, row in enumerate(distance) for j, v in enumerate(row) if i != j]
            far.append([[v * len(positive) / sum(positive) for v in row] for row in distance])
            near.append(
                [
                    [
                        math.sqrt(2 * math.sqrt(v * w) / (v + w)) * math.exp(-((m - n) ** 2) / (2 * (v + w)))
                        for n, w in g
                    ]
                    for m, v in g
                ]
            )
        for i in range(size):
            for j in range(size):
                total += distance_weight * smooth(far[0][i][j], far[1][i][j])
                total += overlap_weight * smooth(near[0][i][j], near[1][i][j])
    return total / (half * size**2)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 3.0), weight=st.floats(0.0, 5.0))
def test_correlations_equal_the_formula(seed: int, scale: float, weight: float) -> None:
    student, teacher = pair((5, 4), seed, scale)
    value = CorrelationAware(distance_weight=weight, overlap_weight=2.0)(student, teacher)
    assert value.item() == pytest.approx(relations(student.detach().numpy(), teacher.numpy(), weight, 2.0), rel=1e-7)


def test_correlations_frozen() -> None:
    student = torch.tensor([[1.0, 0.0], [2.0, 0.5], [0.0, -1.0]])
    teacher = torch.tensor([[0.5, 0.0], [2.5, 0.0], [1.0, 1.0]])
    assert CorrelationAware()(student, teacher).item() == pytest.approx(0.438023776, rel=1e-5)


def test_correlations_gradient_agrees_with_differences_and_is_zero_at_a_match() -> None:
    student, teacher = pair((5, 4))
    assert torch.autograd.gradcheck(lambda s: CorrelationAware()(s, teacher), (student,))
    for scale in (1e-3, 1.0, 10.0):
        same = pair((5, 4), scale=scale)[0].detach().float().requires_grad_()
        value = CorrelationAware()(same, same.detach().clone())
        value.backward()
        assert value.item() == 0.0
        assert torch.count_nonzero(same.grad) == 0


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e4, 1e7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_correlations_are_finite_at_extremes(scale: float, dtype: torch.dtype) -> None:
    student, teacher = (each.detach().to(dtype) for each in pair((5, 4), scale=scale))
    student.requires_grad_()
    value = CorrelationAware()(student, -teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("student", [torch.randn(1, 4), torch.ones(3, 4)], ids=["one row", "constant rows"])
def test_gaussians_without_relations_add_no_distance(student: Tensor) -> None:
    student = student.clone().requires_grad_()
    value = CorrelationAware(overlap_weight=0.0)(student, torch.randn(student.shape))
    value.backward()
    assert value.item() == 0.0
    assert torch.count_nonzero(student.grad) == 0


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="log-variances"):
        CorrelationAware()(torch.zeros(4, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="min_log_variance"):
        CorrelationAware(min_log_variance=1.0, max_log_variance=0.0)


# Variational information


@pytest.mark.parametrize(
    ("shape", "layout", "channel"),
    [((5, 3), "tokens", 1), ((5, 3, 2, 2), "tokens", 1), ((5, 2, 3), "tokens", 2), ((5, 3, 2), "channels", 1)],
)
def test_vid_equals_the_formula(shape: tuple[int, ...], layout: str, channel: int) -> None:
    objective = VID(initial_variance=2.0, layout=layout)  # type: ignore[arg-type]
    student, teacher = pair(shape)
    objective(student, teacher)
    raw = torch.tensor([-1.0, 0.5, 2.0])
    assert objective.raw_variance.shape == raw.shape
    assert np.log1p(np.exp(objective.raw_variance.detach().numpy())) + 1e-5 == pytest.approx(2.0, rel=1e-5)
    objective.raw_variance.data.copy_(raw)
    total, student = 0.0, student.detach()
    for at in np.ndindex(*shape):
        variance = math.log1p(math.exp(float(raw[at[channel]]))) + 1e-5
        total += (float(teacher[at]) - float(student[at])) ** 2 / (2 * variance) + math.log(variance) / 2
    assert objective(student, teacher).item() == pytest.approx(total / math.prod(shape), rel=1e-6)


def test_vid_frozen_and_gradients() -> None:
    objective = VID(initial_variance=0.5)
    assert objective(STUDENT, TEACHER).item() == pytest.approx(0.611759722, rel=1e-5)
    student, teacher = pair((4, 3))
    assert torch.autograd.gradcheck(lambda s: objective.double()(s, teacher), (student,))
    same = teacher.clone().requires_grad_()
    objective(same, teacher).backward()
    assert torch.count_nonzero(same.grad) == 0
    assert torch.count_nonzero(objective.raw_variance.grad) == 3


def test_a_channel_that_cannot_be_said_gets_a_large_variance() -> None:
    objective = VID(initial_variance=1.0)
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(64, 2, generator=generator)
    teacher = student + torch.tensor([0.1, 3.0]) * torch.randn(64, 2, generator=generator)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.1)  # before the first batch tells the width
    for _ in range(400):
        optimizer.zero_grad()
        objective(student, teacher).backward()
        optimizer.step()
    variance = torch.nn.functional.softplus(objective.raw_variance) + 1e-5
    torch.testing.assert_close(variance, (teacher - student).square().mean(0), rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4, 1e7])
def test_vid_is_finite_at_extremes_and_computes_in_float32(scale: float) -> None:
    student, teacher = (each.detach().to(torch.bfloat16) * scale for each in pair((1, 3)))
    student.requires_grad_()
    value = VID()(student, -teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_vid_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="initial_variance"):
        VID(initial_variance=0.0)
    with pytest.raises(ValueError, match="layout"):
        VID(layout="rows")  # type: ignore[arg-type]
    objective = VID()
    objective(STUDENT, TEACHER)
    with pytest.raises(ValueError, match="3 channels"):
        objective(STUDENT[:, :2], TEACHER[:, :2])
    with pytest.raises(ValueError, match="must both have"):
        objective(STUDENT, TEACHER[:1])
