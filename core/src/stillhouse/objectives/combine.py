"""The sum that a student minimises: label loss and teacher losses under one alpha."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def combined_loss(
    hard: Tensor | None, terms: Sequence[tuple[str, float, Tensor]], alpha: float
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """``alpha * hard + (1 - alpha) * sum(weight * term)``, and what each part adds to it.

    Source: equation 2 of Zhang et al., "Distilling Wisdom" (2025), doi 10.1109/ACCESS.2025.3554586, and
    Hinton et al. (2015). Public implementations differ in giving T^2 to the soft loss only when alpha is
    above 0, or folding (1 - alpha) into it.

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
        ValueError: ``alpha`` lies outside [0, 1], a weight is negative or not finite, a name stands twice,
            or there is nothing to add.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    names = [name for name, _, _ in terms]
    if len({*names, "hard"}) != len(names) + 1:
        raise ValueError(f"the names of losses must be unique and not 'hard', not {', '.join(names)}")
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    if hard is not None:
        parts["hard"] = (hard, alpha * hard)
    for name, weight, value in terms:
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of '{name}' must be at least 0 and finite, not {weight}")
        parts[name] = (value, (1 - alpha) * weight * value)
    if not parts:
        raise ValueError("there is neither a hard loss nor a soft one to add")
    # Parts of weight 0 stay in the sum: every parameter then keeps its place in the backward pass of
    # several processes.
    first, *others = (weighted for _, weighted in parts.values())
    total = first
    for weighted in others:
        total = total + weighted
    return total, {
        name: {"raw": raw.detach(), "weighted": weighted.detach()} for name, (raw, weighted) in parts.items()
    }
