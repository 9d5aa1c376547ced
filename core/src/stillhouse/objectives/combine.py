"""The sum that a student minimises: label loss and teacher losses under one alpha."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Silent(torch.autograd.Function):
    """The input, or zeros of its shape, with a gradient of zeros whatever comes back."""

    @staticmethod
    def forward(context: Any, values: Tensor, zeros: bool) -> Tensor:
        return torch.zeros_like(values) if zeros else values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(gradients[0]), None


def silent(values: Tensor, *, zeros: bool = False) -> Tensor:
    """``values`` (or zeros) that pass zeros back, which 0 times a gradient that is not finite would not be.

    Parameters behind them keep their place in the backward pass, as several processes need.
    """
    result: Tensor = _Silent.apply(values, zeros)
    return result


def combined_loss(
    hard: Tensor | None, terms: Sequence[tuple[str, float, Tensor]], alpha: float
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """``alpha * hard + (1 - alpha) * sum(weight * term)``, and what each part adds to it.

    Source: equation 2 of Zhang et al., "Distilling Wisdom" (2025), doi 10.1109/ACCESS.2025.3554586, and
    Hinton et al. (2015). Public implementations differ in giving T^2 to the soft loss only when alpha is
    above 0, or folding (1 - alpha) into it.

    A part that weighs 0 adds exactly nothing, even when it is not finite, and keeps its place in the backward pass.

    Args:
        hard: loss against labels, a scalar; None for rows without labels.
        terms: ``(name, weight, value)`` of each soft loss, value a scalar; names are unique and none is
            ``"hard"``.
        alpha: weight of the hard loss, in [0, 1].

    Returns:
        The total, and by name (``"hard"``, when there is one, and every term) two detached scalars: ``raw``,
        the loss as its objective gave it, and ``weighted``, what it adds to the total. They stay on their
        device: reading them is what waits for it.

    Raises:
        ValueError: ``alpha`` lies outside [0, 1], a weight is negative or not finite, a name is given twice,
            or there is nothing to add.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    names = [name for name, _, _ in terms]
    if len({*names, "hard"}) != len(names) + 1:
        raise ValueError(f"the names of losses must be unique and not 'hard', not {', '.join(names)}")
    parts = [("hard", alpha, hard)] if hard is not None else []
    for name, weight, value in terms:
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of '{name}' must be at least 0 and finite, not {weight}")
        parts.append((name, (1 - alpha) * weight, value))
    if not parts:
        raise ValueError("there is neither a hard loss nor a soft one to add")
    total: Tensor | None = None
    values = {}
    for name, weight, value in parts:
        weighted = weight * value if weight else silent(value, zeros=True)
        total = weighted if total is None else total + weighted
        values[name] = {"raw": value.detach(), "weighted": weighted.detach()}
    assert total is not None
    return total, values
