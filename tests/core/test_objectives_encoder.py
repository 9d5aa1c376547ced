"""Objectives between encoders of texts, against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stillhouse.objectives import AttentionScores, CosineEmbedding, FeatureMaps, make_adapter

Loss = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def cosine(s: np.ndarray, t: np.ndarray, mask: np.ndarray) -> float:
    gaps = [
        1 - float(np.dot(a, b)) / math.sqrt(float(np.dot(a, a)) * float(np.dot(b, b)))
        for a, b in zip(s[mask], t[mask], strict=True)
    ]
    return sum(gaps) / len(gaps)


def maps(s: np.ndarray, t: np.ndarray, mask: np.ndarray) -> float:
    total = 0.0
    for a, b in zip(s[mask], t[mask], strict=True):
        a_mean, b_mean = sum(a) / len(a), sum(b) / len(b)
        a_var, b_var = (sum((v - m) ** 2 for v in x) / len(x) for x, m in ((a, a_mean), (b, b_mean)))
        squares = [
            ((u - a_mean) / math.sqrt(a_var) - (v - b_mean) / math.sqrt(b_var)) ** 2 for u, v in zip(a, b, strict=True)
        ]
        total += sum(squares) / len(squares) + (a_mean - b_mean) ** 2 + abs(a_var - b_var)
    return total / int(mask.sum())


def scores(s: np.ndarray, t: np.ndarray, mask: np.ndarray) -> float:
    squares = [
        (s[row, head, i, j] - t[row, head, i, j]) ** 2
        for row, head, i, j in np.ndindex(s.shape)
        if mask[row, i] and mask[row, j]
    ]
    return sum(squares) / len(squares)


def softmax_kl(s: np.ndarray, t: np.ndarray, mask: np.ndarray) -> float:
    found = []
    for row, head, i in np.ndindex(s.shape[:3]):
        if not mask[row, i]:
            continue
        q, p = (np.exp(x[row, head, i][mask[row]]) for x in (s, t))
        q, p = q / q.sum(), p / p.sum()
        found.append(sum(b * math.log(b / a) for a, b in zip(q, p, strict=True)))
    return sum(found) / len(found)


CASES: list[tuple[nn.Module, tuple[int, ...], Loss, float]] = [
    (CosineEmbedding(), (3, 4, 5), cosine, 1.015745),
    (FeatureMaps(), (3, 4, 5), maps, 2.512627),
    (AttentionScores(), (3, 2, 4, 4), scores, 0.978967),
    (AttentionScores(loss="kl"), (3, 2, 4, 4), softmax_kl, 0.217728),
]
CASE = pytest.mark.parametrize(("objective", "shape", "plain", "frozen"), CASES, ids=["cosine", "maps", "mse", "kl"])
LENGTHS = (4, 2, 1)


def features(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.arange(shape[-1] if len(shape) == 4 else shape[1]) < torch.tensor(LENGTHS)[:, None]


@CASE
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_loss_is_the_plain_formula(
    objective: nn.Module, shape: tuple[int, ...], plain: Loss, frozen: float, seed: int
) -> None:
    student, teacher, mask = features(shape, seed)
    expected = plain(student.numpy(), teacher.numpy(), mask.numpy())
    assert float(objective(student, teacher, mask=mask)) == pytest.approx(expected, rel=1e-9)
    whole = plain(student.numpy(), teacher.numpy(), np.ones_like(mask.numpy()))
    assert float(objective(student, teacher)) == pytest.approx(whole, rel=1e-9)


@CASE
def test_frozen_value(objective: nn.Module, shape: tuple[int, ...], plain: Loss, frozen: float) -> None:
    grid = torch.arange(math.prod(shape), dtype=torch.float64).reshape(shape)
    student, teacher = (grid * 0.7).sin() + 0.1 * grid.cos(), (grid * 1.3).cos()
    mask = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    assert float(objective(student, teacher, mask=mask)) == pytest.approx(frozen, abs=1e-6)


@CASE
def test_gradient_is_right_and_zero_at_a_match(
    objective: nn.Module, shape: tuple[int, ...], plain: Loss, frozen: float
) -> None:
    student, teacher, mask = features(shape)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: objective(x, teacher, mask=mask), student)
    same = teacher.clone().requires_grad_()
    loss = objective(same, teacher, mask=mask)
    (gradient,) = torch.autograd.grad(loss, same)
    assert float(loss) == 0
    assert float(gradient.abs().max()) == 0


@CASE
@pytest.mark.parametrize("filling", [float("nan"), float("inf"), 1e30])
def test_padding_has_no_part(
    objective: nn.Module, shape: tuple[int, ...], plain: Loss, frozen: float, filling: float
) -> None:
    student, teacher, mask = features(shape)
    keep = mask.unsqueeze(2) if len(shape) == 3 else mask[:, None, :, None] & mask[:, None, None, :]
    spoiled = student.masked_fill(~keep, filling).requires_grad_()
    loss = objective(spoiled, teacher.masked_fill(~keep, filling), mask=mask)
    (gradient,) = torch.autograd.grad(loss, spoiled)
    assert float(loss) == float(objective(student, teacher, mask=mask))
    assert bool(gradient.isfinite().all())
    assert float(gradient.masked_fill(keep, 0.0).abs().max()) == 0


@CASE
def test_rows_without_tokens_add_nothing(
    objective: nn.Module, shape: tuple[int, ...], plain: Loss, frozen: float
) -> None:
    student, teacher, mask = features(shape)
    nothing = torch.zeros_like(mask)
    student.requires_grad_()
    loss = objective(student, teacher, mask=nothing)
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(loss) == 0
    assert float(gradient.abs().max()) == 0


@pytest.mark.parametrize("objective", [CosineEmbedding(), FeatureMaps()])
def test_states_without_direction_add_nothing(objective: nn.Module) -> None:
    student = torch.zeros(2, 3, 4, requires_grad=True)
    teacher = torch.zeros(2, 3, 4)
    loss = objective(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(loss) == 0
    assert bool(gradient.isfinite().all())


@CASE
def test_what_is_not_finite_shows(objective: nn.Module, shape: tuple[int, ...], plain: Loss, frozen: float) -> None:
    student, teacher, mask = features(shape)
    student[0, 0] = float("nan")
    assert not math.isfinite(float(objective(student, teacher, mask=mask)))


def test_scores_of_fewer_heads_meet_the_teachers_through_an_adapter() -> None:
    torch.manual_seed(0)
    adapter = make_adapter((2, 4, 4), (6, 4, 4))
    for tokens in (4, 9):
        adapted = adapter(torch.randn(3, 2, tokens, tokens))
        assert adapted.shape == (3, 6, tokens, tokens)


@pytest.mark.parametrize(
    ("objective", "shapes", "text"),
    [
        (CosineEmbedding(), ((2, 3, 4), (2, 3, 5)), "adapter"),
        (FeatureMaps(), ((4,), (4,)), r"\[B, \.\.\., D\]"),
        (AttentionScores(), ((2, 3, 4), (2, 3, 4)), r"\[B, H, T, T\]"),
        (AttentionScores(), ((2, 3, 4, 5), (2, 3, 4, 5)), "mask"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    objective: nn.Module, shapes: tuple[tuple[int, ...], tuple[int, ...]], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        objective(*(torch.zeros(shape) for shape in shapes))


def test_options_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="loss must be"):
        AttentionScores(loss="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mean_weight"):
        FeatureMaps(mean_weight=-1.0)
