"""Core's own networks, on flattened inputs. Each can be a teacher or a student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.kinds import OutputKind
from stillhouse.ranges import Choices
from stillhouse.types import Task
from stillhouse.units import output_layer


class Flat(nn.Module):
    """A network on all float inputs of a batch, flattened and concatenated in the dataset's order.

    ``forward(**inputs)`` takes the batch's inputs by name, ignores those that are not float, and returns
    ``[B, outputs]``; for segmentation ``[B, C, H, W]`` and for sequence ``[B, T, V]``, with the sizes of the
    first input.

    Args:
        task: the inputs, and the width and kind of the prediction.
        hidden: widths of the hidden layers; none makes a linear model.
        dropout: probability of dropping a hidden unit during training.

    Raises:
        IncompatibleError: there is no float input, or one has no fixed size.
    """

    def __init__(self, task: Task, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.names = tuple(name for name, spec in task.inputs.items() if spec.dtype.startswith(("float", "bfloat")))
        if not self.names:
            raise IncompatibleError(
                f"none of the inputs ({', '.join(task.inputs) or 'none'}) is float",
                where="models of core",
                fix="choose a model that takes the dataset's inputs",
            )
        shapes = [task.inputs[name].shape for name in self.names]
        for name, shape in zip(self.names, shapes, strict=True):
            if any(size < 0 for size in shape):
                raise IncompatibleError(
                    f"input '{name}' has no fixed size: {list(shape)}",
                    where="models of core",
                    fix="choose a dataset option that fixes the length, or a model for sequences",
                )
        self.positions = _positions(task.kind, shapes[0])
        self.channels_first = task.kind is OutputKind.SEGMENTATION
        self.outputs = task.outputs
        layers: list[nn.Module] = []
        width = sum(math.prod(shape) for shape in shapes)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            width = size
        self.backbone = nn.Sequential(*layers)
        self.output = output_layer(task.kind, width, task.outputs * math.prod(self.positions), task.info)

    def forward(self, **inputs: Tensor) -> Tensor:
        """See the class."""
        flat = [inputs[name].reshape(inputs[name].shape[0], -1) for name in self.names]
        prediction: Tensor = self.output(self.backbone(torch.cat(flat, dim=1)))
        if not self.positions:
            return prediction
        shape = (self.outputs, *self.positions) if self.channels_first else (*self.positions, self.outputs)
        return prediction.reshape(-1, *shape)


def _positions(kind: OutputKind, shape: tuple[int, ...]) -> tuple[int, ...]:
    wanted = {OutputKind.SEGMENTATION: slice(-2, None), OutputKind.SEQUENCE: slice(0, 1)}.get(kind)
    if wanted is None:
        return ()
    found = shape[wanted]
    if len(found) < (2 if kind is OutputKind.SEGMENTATION else 1):
        raise IncompatibleError(
            f"a model for {kind} needs an input with positions, and the first has shape {list(shape)}",
            where="models of core",
            fix="choose a dataset of images ([C, H, W]) or sequences ([T, F])",
        )
    return found


def mlp(
    task: Task,
    *,
    hidden: Annotated[tuple[int, ...], Choices((16,), (32,), (64,), (128,), (256, 256), size=True)] = (256, 256),
    dropout: Annotated[float, Choices(0.0, 0.2, 0.4)] = 0.0,
) -> nn.Module:
    """Multi-layer perceptron with ReLU on all float inputs, flattened.

    Args:
        task: what the framework gives.
        hidden: widths of the hidden layers, e.g. [256, 256].
        dropout: probability of dropping a hidden unit during training.

    Raises:
        OptionError: a width is below one, or dropout is outside [0, 1).
        IncompatibleError: the inputs do not suit.
    """
    if any(width < 1 for width in hidden):
        raise OptionError(
            f"hidden is {list(hidden)}", where="model 'mlp'", fix="widths from 1 upwards, e.g. [256, 256]"
        )
    if not 0 <= dropout < 1:
        raise OptionError(f"dropout is {dropout}", where="model 'mlp'", fix="a number from 0 to below 1")
    return Flat(task, tuple(hidden), dropout)


def linear(task: Task) -> nn.Module:
    """Linear (for classes: logistic) regression on all float inputs, flattened.

    Raises:
        IncompatibleError: the inputs do not suit.
    """
    return Flat(task, (), 0.0)
