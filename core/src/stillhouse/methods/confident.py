"""``core/confident-teachers``: of several teachers, a row hears most from those that are right, or sure, about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.methods.base import Method
from stillhouse.methods.by_row import row_losses
from stillhouse.methods.context import MethodContext
from stillhouse.teachers import TeacherSource
from stillhouse.teachers.ensemble import combine
from stillhouse.trained import Trained
from stillhouse.training.learner import Learner
from stillhouse.training.loss import HardLoss
from stillhouse.types import Batch, Outputs


class ConfidentTeachers(Method):
    """The teachers' mean, with weights of their own for every row.

    With ``d_k`` how doubtful teacher k of K is about a row, and ``p_k`` what it predicts::

        w_k = (1 - exp(d_k) / sum_j exp(d_j)) / (K - 1),     teacher = sum_k w_k * p_k

    (of probabilities for classes, of values for regression), in the recipe's loss. ``by: loss``: d is the head's loss
    of the teacher's prediction; rows without a label have equal weights. ``by: entropy``: d is the entropy of what it
    predicts, in nats, which needs no label. The recipe's own weights of the members are not used.

    Source: Zhang, Chen, Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation" (2022), its weights of
    predictions (by loss). The paper sums the divergences from each teacher, weighted; here the student learns from the
    weighted mean, which has the same gradient in its logits at T = 1. Its weights of features are not part of this.

    Cost: as plain distillation from the same teachers.

    Args:
        by: what makes a teacher doubtful: its ``"loss"`` on the label, or the ``"entropy"`` of its prediction.
    """

    def __init__(self, *, by: Literal["loss", "entropy"] = "loss") -> None:
        self.by = by

    def check(self, context: MethodContext) -> None:
        """Whether predictions have an entropy, where that is asked for.

        Raises:
            IncompatibleError: they do not.
        """
        if self.by == "entropy" and context.head.kind not in (OutputKind.MULTICLASS, OutputKind.BINARY):
            raise IncompatibleError(
                f"the entropy of {context.head.kind} predictions is not defined here",
                where="method.by",
                fix="by: loss",
            )

    def step(self, context: MethodContext, student: Trained) -> Learner:
        """Plain distillation from the weighted teachers; the mean weight of each is noted."""
        doubt = of_loss(context.head.hard_loss) if self.by == "loss" else of_entropy(context.head.kind)
        source = WeightedTeachers(context.signal(members=True), doubt, context.head.kind)
        # The first rows tell which teacher is heard; all of them would ask every teacher once more.
        rows = context.splits.train.batch(range(min(512, len(context.splits.train))))
        batch = {name: entry.to(context.device) for name, entry in rows.items()}
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(context.derived_seed("weights"))
            weights = source.weights(batch).mean(1)
        context.note(mean_weight={f"teacher-{k}": float(weight) for k, weight in enumerate(weights, start=1)})
        return context.distillation(student, source)


Doubt = Callable[[Tensor, Batch], Tensor]
"""From a teacher's prediction of the first N rows of a batch to how doubtful it is about each, ``[N]``."""


class WeightedTeachers:
    """Teachers as one source, with weights by row; see `ConfidentTeachers`.

    Args:
        source: gives the prediction of each member.
        doubt: of one member's prediction.
        kind: the head's output kind.
    """

    def __init__(self, source: TeacherSource, doubt: Doubt, kind: OutputKind) -> None:
        self._source, self._doubt, self._kind = source, doubt, kind

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`."""
        members = self._members(batch)
        return Outputs(combine(list(members), self._of(members, batch), self._kind), members=members)

    def weights(self, batch: Batch) -> Tensor:
        """Weights of the members, ``[K, B]``."""
        return self._of(self._members(batch), batch)

    def _members(self, batch: Batch) -> Tensor:
        members = self._source(batch).members
        assert members is not None
        return members

    @torch.no_grad()
    def _of(self, members: Tensor, batch: Batch) -> Tensor:
        doubts = torch.stack([self._doubt(each, batch) for each in members]).double()
        weights = (1 - doubts.softmax(0)) / max(len(members) - 1, 1)
        unknown = torch.full((len(members), members.shape[1] - doubts.shape[1]), 1 / len(members))
        return torch.cat((weights, unknown.to(weights)), dim=1)


def of_loss(hard_loss: HardLoss) -> Doubt:
    """A head's loss of every labelled row; the target of a batch is as long as there are labels."""

    def doubt(prediction: Tensor, batch: Batch) -> Tensor:
        labelled = len(batch["target"])
        return row_losses(hard_loss, prediction[:labelled], {name: entry[:labelled] for name, entry in batch.items()})

    return doubt


def of_entropy(kind: OutputKind) -> Doubt:
    """Entropy of every row, in nats."""

    def doubt(prediction: Tensor, batch: Batch) -> Tensor:
        if kind is OutputKind.BINARY:
            prediction = torch.cat((prediction, torch.zeros_like(prediction)), dim=1)
        log = F.log_softmax(prediction, dim=1)
        return -(log.exp() * log.clamp(min=torch.finfo(log.dtype).min)).sum(1)

    return doubt
