"""What travels between server and clients: arrays by name, counted in bytes and looked at before they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

OUTPUTS = "outputs"
"""Name of the array with predictions of the public rows ``[P, ...]``, in their order."""
WEIGHTS = "weights/"
"""How names of arrays with a model's state begin."""


@dataclass(frozen=True)
class Message:
    """What one side sends.

    Attributes:
        arrays: by name; all that is counted in bytes.
        facts: numbers and texts beside them: ``round`` of a request; ``rows`` and ``loss`` of a reply.
    """

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def of_outputs(prediction: Tensor) -> dict[str, np.ndarray]:
    """Predictions of the public rows as arrays."""
    return {OUTPUTS: prediction.detach().cpu().numpy()}


def of_weights(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A model's state as arrays."""
    return {f"{WEIGHTS}{name}": tensor.detach().cpu().numpy().copy() for name, tensor in state.items()}


def weights_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The model's state that a message has; empty without one."""
    return {
        name.removeprefix(WEIGHTS): torch.from_numpy(np.array(array))
        for name, array in arrays.items()
        if name.startswith(WEIGHTS)
    }


def outputs_of(arrays: Mapping[str, np.ndarray]) -> Tensor | None:
    """The predictions that a message has."""
    return torch.from_numpy(np.array(arrays[OUTPUTS])) if OUTPUTS in arrays else None


def fault(reply: Message, wanted: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> str | None:
    """Why a reply cannot be used, in a few words; None where it can.

    Args:
        reply: of a client.
        wanted: shape and dtype of every array that it must have.
    """
    if missing := sorted(set(wanted) ^ set(reply.arrays)):
        return f"{'no' if missing[0] in wanted else 'an unknown'} array '{missing[0]}'"
    for name, (shape, dtype) in wanted.items():
        array = reply.arrays[name]
        if tuple(array.shape) != shape:
            return f"'{name}' has shape {list(array.shape)}, not {list(shape)}"
        if array.dtype != dtype:
            return f"'{name}' is {array.dtype}, not {dtype}"
        if not np.isfinite(array).all():
            return f"'{name}' has values that are not finite"
    rows = reply.facts.get("rows")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        return f"its number of rows is {rows!r}"
    return None


def weighted_mean(states: Sequence[Mapping[str, Tensor]], rows: Sequence[int]) -> dict[str, Tensor]:
    """Federated averaging: ``w = sum_k n_k / n * w_k``.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (2017),
    algorithm 1. Sums are in double precision; counters (integers) are the largest.

    Args:
        states: of the clients' models, with equal names and shapes.
        rows: ``n_k`` of each.
    """
    total = sum(rows)
    found = {}
    for name, first in states[0].items():
        each = [state[name] for state in states]
        if first.is_floating_point():
            mean = sum(count / total * tensor.double() for count, tensor in zip(rows, each, strict=True))
            found[name] = torch.as_tensor(mean).to(first.dtype)
        else:
            found[name] = torch.stack(each).amax(0)
    return found


def mean_outputs(outputs: Sequence[Tensor]) -> Tensor:
    """The mean of predictions ``[P, ...]`` in their own form, logits for classes, each client with the same weight.

    Sources: Lin et al., "Ensemble Distillation for Robust Model Fusion in Federated Learning" (2020), algorithm 1
    (AvgLogits); Li and Wang, "FedMD" (2019), algorithm 1.
    """
    return torch.stack([each.double() for each in outputs]).mean(0).float()
