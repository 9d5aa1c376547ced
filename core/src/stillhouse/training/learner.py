"""What one fit trains: a student, and whatever learns beside it, as one module whose forward is the loss of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from torch import Tensor, nn

from stillhouse.forwarding import predict
from stillhouse.taps import Taps
from stillhouse.teachers import TeacherSource
from stillhouse.training.loss import DistillationLoss, HardLoss, TermValues
from stillhouse.types import Batch, Outputs


class Learner(nn.Module):
    """A student and what learns beside it (adapters, peers). Being one module, it is wrapped, clipped, checkpointed and
    synchronised between processes as one.

    A subclass gives `forward`: the loss of one step. What must not learn (a teacher) is kept outside of its modules.

    Args:
        student: the network that is judged on validation rows and kept.
        inputs: batch entries that the student is called with.

    Attributes:
        teacher: the source that it learns from, if any; an error names the rows of which its output is not finite.
        frozen: modules that stay in eval mode while the others learn, so that their running statistics do not move.
    """

    teacher: TeacherSource | None = None

    def __init__(self, student: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.student = student
        self.inputs = tuple(inputs)
        self.frozen: tuple[nn.Module, ...] = ()

    def train(self, mode: bool = True) -> Self:
        """See ``nn.Module.train``; frozen modules stay in eval mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    @property
    def judged(self) -> Mapping[str, nn.Module]:
        """Networks that are judged on validation rows after every epoch, by name; each keeps its own best epoch. The
        first is the one whose metrics are reported."""
        return {"student": self.student}

    def inputs_of(self, name: str) -> tuple[str, ...]:
        """Batch entries that a judged network is called with: the student's by default."""
        return self.inputs

    def set_progress(self, progress: float) -> None:
        """Called before each epoch with the share of the training that is done, in [0, 1], for schedules."""

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """The loss of one step, a scalar, and the raw and weighted value of each of its terms, detached.

        Args:
            batch: the rows; ``target`` holds for the first ``labelled`` of them.
            labelled: number of labelled rows, which come first.
        """
        raise NotImplementedError


class Supervised(Learner):
    """Learning from labels alone: teachers and baselines.

    Args:
        student: the network.
        inputs: batch entries that it is called with.
        hard_loss: a head's ``hard_loss``.
    """

    def __init__(self, student: nn.Module, inputs: Sequence[str], hard_loss: HardLoss) -> None:
        super().__init__(student, inputs)
        self._hard_loss = hard_loss

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`; rows without a label are left out."""
        batch = {name: entry[:labelled] for name, entry in batch.items()}
        loss = self._hard_loss(predict(self.student, batch, self.inputs), batch)
        return loss, {"hard": {"raw": loss.detach(), "weighted": loss.detach()}}


class Distillation(Learner):
    """Learning from labels and a teacher: equation 2 of Zhang et al. (2025).

    Args:
        student: the network.
        inputs: batch entries that it is called with.
        loss: the weighted sum of hard and soft terms; its adapters learn with the student.
        teacher: where the teacher's outputs come from.

    Raises:
        IncompatibleError: a tap of the loss does not exist in the student.
    """

    teacher: TeacherSource

    def __init__(
        self, student: nn.Module, inputs: Sequence[str], loss: DistillationLoss, teacher: TeacherSource
    ) -> None:
        super().__init__(student, inputs)
        self.loss = loss
        self.teacher = teacher
        self._taps = Taps(student, loss.student_taps)

    def set_progress(self, progress: float) -> None:
        """Move the schedules of the loss."""
        self.loss.set_progress(progress)

    def outputs(self, batch: Batch) -> Outputs:
        """What the student says of a batch: its prediction and its tapped features."""
        if not self.loss.student_taps:
            return Outputs(predict(self.student, batch, self.inputs))
        with self._taps:
            prediction = predict(self.student, batch, self.inputs)
        return Outputs(prediction, self._taps.take())

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        student = self.outputs(batch)
        total: Tensor
        total, values = self.loss(student, self.teacher(batch), batch, labelled)
        return total, values
