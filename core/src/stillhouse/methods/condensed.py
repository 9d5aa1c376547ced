"""``core/condensed``: rows that the student says as the teacher does are left out of the later stages."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from stillhouse.errors import IncompatibleError
from stillhouse.forwarding import in_order, predict, to_device
from stillhouse.kinds import DEFAULT_SOFT_LOSS
from stillhouse.methods.base import Method
from stillhouse.methods.by_row import soft_losses
from stillhouse.methods.context import MethodContext
from stillhouse.methods.losses import make_terms
from stillhouse.ranges import Choices, Range
from stillhouse.recipe.resolved import BoundTerm
from stillhouse.trained import Trained
from stillhouse.types import SubsetSplit


class Condensed(Method):
    """Stages on the same weights, each on fewer rows: those on which the student still differs from the teacher.

    The epochs are shared out evenly among ``stages``. Stage s of S has ``N * keep^((s - 1) / (S - 1))`` of the N
    training rows: those with the largest value after stage s - 1, ::

        v_s(row) = momentum * v_(s-1)(row) + (1 - momentum) * soft(student(row), teacher(row)),    v_0 = 0

    ``soft`` the head's default soft loss. Each stage minimises the recipe's loss. Rows without labels stay in all of
    them. The compute, in steps over those of all rows in all epochs, is noted as ``share_of_compute``.

    Source: Li, Lin, Ding et al., "Knowledge Condensation Distillation" (2022): rows are chosen by their value for the
    student, estimated anew as it learns, and fewer of them as training goes on. There the value is the entropy of the
    student's prediction, relative to that of the other rows, and rows that are left out are summarised by others; here
    it is the divergence from the teacher, which is defined for all heads, and they are left out.

    Cost: ``share_of_compute`` of plain distillation, and one pass over all rows after each stage but the last.

    Args:
        keep: share of the rows in the last stage.
        stages: how many.
        momentum: share of its former value that a row keeps.
    """

    def __init__(
        self,
        *,
        keep: Annotated[float, Field(gt=0, le=1), Range(0.3, 0.9)] = 0.5,
        stages: Annotated[int, Field(ge=2), Choices(3, 5)] = 4,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    ) -> None:
        self.keep, self.stages, self.momentum = keep, stages, momentum

    def check(self, context: MethodContext) -> None:
        """Whether there is an epoch for two stages.

        Raises:
            IncompatibleError: there is not.
        """
        if context.config.epochs < 2:
            raise IncompatibleError(
                "rows are left out after a stage, and there is an epoch for one stage only",
                where="train.student.epochs",
                fix="set 2 or more",
            )

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit a stage."""
        rows, stages = context.splits.train, min(self.stages, context.config.epochs)
        values = torch.zeros(len(rows), dtype=torch.float64)
        kept, passes = list(range(len(rows))), 0
        for stage in range(stages):
            epochs = context.config.epochs // stages + (stage < context.config.epochs % stages)
            part = rows if stage == 0 else SubsetSplit(rows, kept)
            context.fit(context.distillation(student), phase=f"stage-{stage + 1}", rows=part, epochs=epochs)
            passes += epochs * len(kept)
            if stage + 1 < stages:
                values = self.momentum * values + (1 - self.momentum) * self.values(context, student)
                number = max(round(len(rows) * self.keep ** ((stage + 1) / (stages - 1))), 2)
                kept = sorted(values.sort(descending=True, stable=True).indices[:number].tolist())
        context.note(rows_of_last_stage=len(kept), share_of_compute=passes / (context.config.epochs * len(rows)))
        return student

    def values(self, context: MethodContext, student: Trained) -> torch.Tensor:
        """The soft loss of every training row as the student is now, ``[N]``, a function of the seed where rows are
        augmented at random."""
        soft = BoundTerm(context.bind("objective", DEFAULT_SOFT_LOSS[context.head.kind]), scheduled={})
        (term,) = make_terms([soft], context.splits, student, None, context.device)
        source, found = context.signal(), []
        model = student.model.to(context.device).eval()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(context.derived_seed("values"))
            for each in in_order(context.splits.train):
                batch = to_device(each, context.device)
                prediction = predict(model, batch, student.inputs).float()
                found.append(soft_losses(term, prediction, source(batch).prediction.float(), batch).cpu())
        return torch.cat(found).double()
