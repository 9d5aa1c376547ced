"""The weighted sum of hard and soft losses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from stillhouse.objectives import SoftTargets, combined_loss


@given(
    hard=st.floats(0, 100),
    values=st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), max_size=4),
    alpha=st.floats(0, 1),
)
def test_equals_the_equation(hard: float, values: list[tuple[float, float]], alpha: float) -> None:
    terms = [(f"term{i}", weight, torch.tensor(value, dtype=torch.float64)) for i, (weight, value) in enumerate(values)]
    total, parts = combined_loss(torch.tensor(hard, dtype=torch.float64), terms, alpha)
    soft = sum(weight * value for weight, value in values)
    assert total.item() == pytest.approx(alpha * hard + (1 - alpha) * soft)
    assert list(parts) == ["hard", *(name for name, _, _ in terms)]
    assert sum(part["weighted"].item() for part in parts.values()) == pytest.approx(total.item())
    for name, weight, value in terms:
        assert parts[name]["raw"].item() == value.item()
        assert parts[name]["weighted"].item() == pytest.approx((1 - alpha) * weight * value.item())


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_t_squared_stays_whatever_alpha_is(alpha: float) -> None:
    student, teacher = (torch.tensor([row], dtype=torch.float64) for row in ([1.0, 0.0, -1.0], [0.0, 2.0, 0.0]))
    p, log_q = F.softmax(teacher / 4, 1), F.log_softmax(student / 4, 1)
    expected = 16 * (p * (p.log() - log_q)).sum().item()
    total, parts = combined_loss(
        torch.tensor(0.0), [("soft", 1.0, SoftTargets(temperature=4.0)(student, teacher))], alpha
    )
    assert total.item() == pytest.approx((1 - alpha) * expected)
    assert parts["soft"]["raw"].item() == pytest.approx(expected)


def test_alpha_1_needs_no_soft_term() -> None:
    hard = torch.tensor(3.0, requires_grad=True)
    total, parts = combined_loss(hard, [], 1.0)
    total.backward()
    assert total.item() == 3.0
    assert hard.grad.item() == 1.0
    assert list(parts) == ["hard"]


def test_rows_without_labels_give_the_soft_part_alone() -> None:
    total, parts = combined_loss(None, [("soft", 2.0, torch.tensor(5.0))], 0.25)
    assert total.item() == pytest.approx(0.75 * 2.0 * 5.0)
    assert list(parts) == ["soft"]


def test_logged_values_are_detached_and_gradients_are_weighted() -> None:
    hard, soft = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    total, parts = combined_loss(hard, [("soft", 3.0, soft)], 0.2)
    total.backward()
    assert hard.grad.item() == pytest.approx(0.2)
    assert soft.grad.item() == pytest.approx(0.8 * 3.0)
    assert not any(value.requires_grad for part in parts.values() for value in part.values())


def test_a_term_of_weight_0_keeps_its_place_in_the_backward_pass() -> None:
    soft = torch.tensor(2.0, requires_grad=True)
    total, _ = combined_loss(torch.tensor(1.0), [("soft", 1.0, soft)], 1.0)
    total.backward()
    assert soft.grad.item() == 0.0


def test_nothing_is_read_from_the_device() -> None:
    """Tensors without storage cannot be read: any synchronisation for logging would raise."""
    hard, soft = torch.empty((), device="meta"), torch.empty((), device="meta")
    total, parts = combined_loss(hard, [("soft", 1.0, soft)], 0.5)
    assert total.is_meta
    assert parts["soft"]["weighted"].is_meta


@pytest.mark.parametrize(
    ("hard", "terms", "alpha", "word"),
    [
        (torch.tensor(1.0), [], 1.5, "alpha"),
        (torch.tensor(1.0), [], float("nan"), "alpha"),
        (torch.tensor(1.0), [("a", -1.0, torch.tensor(1.0))], 0.5, "weight of 'a'"),
        (torch.tensor(1.0), [("a", float("inf"), torch.tensor(1.0))], 0.5, "weight of 'a'"),
        (torch.tensor(1.0), [("a", 1.0, torch.tensor(1.0))] * 2, 0.5, "unique"),
        (torch.tensor(1.0), [("hard", 1.0, torch.tensor(1.0))], 0.5, "unique"),
        (None, [], 0.5, "neither"),
    ],
)
def test_what_makes_no_sense_is_refused(
    hard: torch.Tensor | None, terms: list[tuple[str, float, torch.Tensor]], alpha: float, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        combined_loss(hard, terms, alpha)
