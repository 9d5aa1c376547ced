"""``core/on-policy``: the student writes, and the teacher judges each token of it."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from stillhouse.kinds import SEQUENCE_IGNORE
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.methods.sequence import require_pairs, writing_teacher
from stillhouse.text.generators import until_end
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import TermValues
from stillhouse.types import Batch, Writer


class OnPolicy(Method):
    """Generalised knowledge distillation: a share of the steps is on texts that the student draws from itself.

    Each step draws u from [0, 1). With ``u >= share`` it is on the true texts and has the recipe's loss,
    ``alpha * hard + (1 - alpha) * sum_i weight_i * soft_i``. Otherwise the student writes a text for each source of the
    batch, token by token at a temperature, and the step has ``sum_i weight_i * soft_i`` on that text: of a text that
    the student made up there is no label. The divergence is that of the recipe's `core/token-kl`: ``direction``
    forward, reverse or jsd with its ``beta``. No gradient passes through the drawing.

    Source: Agarwal et al., "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes" (2024),
    algorithm 1, where ``share`` is lambda, and the steps on the true texts have no hard loss (``alpha: 0``). Its
    combination with rewards is not part of it.

    Args:
        share: share of steps on the student's own texts; 0 is core/offline.
        temperature: of the drawing; 1 draws from the student's own distribution.
        max_tokens: most tokens that the student writes; as many as a target may have by default.
    """

    def __init__(
        self,
        *,
        share: Annotated[float, Field(ge=0, le=1)] = 0.5,
        temperature: Annotated[float, Field(gt=0)] = 1.0,
        max_tokens: Annotated[int, Field(ge=2)] | None = None,
    ) -> None:
        self.share, self.temperature, self.max_tokens = share, temperature, max_tokens

    def check(self, context: MethodContext) -> None:
        """Rows are pairs of texts, all of them labelled."""
        require_pairs(context, "core/on-policy")

    def step(self, context: MethodContext, student: Trained) -> Learner:
        """The recipe's losses, on texts of either kind."""
        writing_teacher(context)
        plain = context.distillation(student)
        facts = context.splits.info.meta["text"]
        return OwnTexts(
            plain,
            share=self.share,
            temperature=self.temperature,
            max_tokens=self.max_tokens or facts["max_target"],
            start=facts["start"],
            end=facts["end"],
        )


class OwnTexts(Distillation):
    """A step of `OnPolicy`.

    Args:
        plain: student, loss and teacher.
        share: share of steps on the student's own texts.
        temperature: of the drawing.
        max_tokens: most tokens to write.
        start: id that a text begins from.
        end: id that ends it.
    """

    def __init__(
        self, plain: Distillation, *, share: float, temperature: float, max_tokens: int, start: int, end: int
    ) -> None:
        super().__init__(plain.student, plain.inputs, plain.loss, plain.teacher)
        self._share, self._temperature, self._max_tokens = share, temperature, max_tokens
        self._start, self._end = start, end

    def rewritten(self, batch: Batch) -> Batch:
        """The batch with texts drawn from the student as ``given`` and ``target``."""
        assert isinstance(self.student, Writer)  # the tag "writes" admits no others
        written = self.student.generate(
            batch["source"],
            batch["source_mask"],
            max_tokens=self._max_tokens,
            sample=True,
            temperature=self._temperature,
        )
        kept = until_end(written, self._end)
        written, kept = written[:, : int(kept.sum(dim=1).max())], kept[:, : int(kept.sum(dim=1).max())]
        start = torch.full_like(written[:, :1], self._start)
        given = torch.cat([start, written[:, :-1]], dim=1)
        return {**batch, "given": given, "target": torch.where(kept, written, SEQUENCE_IGNORE)}

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`. Of a step on the student's own texts the hard loss is not logged."""
        if float(torch.rand(())) >= self._share:
            return super().forward(batch, labelled)
        hard_loss, alpha = self.loss.hard_loss, self.loss.alpha
        self.loss.hard_loss, self.loss.alpha = None, 0.0
        try:
            return super().forward(self.rewritten(batch), labelled)
        finally:
            self.loss.hard_loss, self.loss.alpha = hard_loss, alpha
