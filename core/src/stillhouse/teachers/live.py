"""A network that is asked at every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stillhouse.errors import TrainingError
from stillhouse.forwarding import predict
from stillhouse.storage import state_digest
from stillhouse.taps import Taps
from stillhouse.types import Batch, Outputs


class LiveTeacher:
    """A frozen network. It is put into eval mode and its parameters stop requiring gradients.

    Args:
        model: the network, on the device that batches come from.
        inputs: batch entries that it is called with.
        taps: dotted paths of modules whose outputs are captured.

    Raises:
        IncompatibleError: a tap does not exist.
    """

    def __init__(self, model: nn.Module, *, inputs: Sequence[str], taps: Sequence[str] = ()) -> None:
        self.model = model.eval().requires_grad_(False)
        self._inputs, self._taps = tuple(inputs), Taps(model, taps)
        self._modules = tuple(model.modules())
        self._digest = state_digest(model)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`.

        Raises:
            TrainingError: somebody put the teacher into train mode; its dropout and batch statistics would corrupt the
                signal.
        """
        if any(module.training for module in self._modules):
            raise TrainingError(
                "the teacher is in train mode",
                where="teacher",
                fix="leave it in eval mode: do not call .train() on it or on a module that holds it",
            )
        with self._taps:
            prediction = predict(self.model, batch, self._inputs)
        return Outputs(prediction.float(), self._taps.take())

    def assert_unchanged(self) -> None:
        """Guard rail: parameters and buffers are what they were when the source was made.

        Raises:
            TrainingError: they are not.
        """
        if state_digest(self.model) != self._digest:
            raise TrainingError(
                "the teacher changed during distillation",
                where="teacher",
                fix="do not share modules or buffers between teacher and student",
            )
