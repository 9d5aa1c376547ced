"""``core/adaptive``: how much the teacher counts follows the difficulty of each row, or falls from phase to phase."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from stillhouse.errors import IncompatibleError
from stillhouse.forwarding import in_order, predict, to_device
from stillhouse.kinds import DEFAULT_SOFT_LOSS, OutputKind
from stillhouse.methods.base import Method
from stillhouse.methods.by_row import row_losses, soft_losses
from stillhouse.methods.context import MethodContext
from stillhouse.objectives.schedule import parse_schedule
from stillhouse.teachers import TeacherSource
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import TermValues
from stillhouse.types import Batch

LOGITS_AND_VALUES = (OutputKind.MULTICLASS, OutputKind.BINARY, OutputKind.MULTILABEL, OutputKind.REGRESSION)
"""Output kinds whose predictions can be annealed: a squared error between them means something."""


class ByDifficulty(Distillation):
    """The loss of one step with shares by row; see `Adaptive`.

    Args:
        base: the learner of plain distillation; its student, loss and teacher are used.
        ease: from a batch of labelled rows and the teacher's prediction of them to ``exp(-difficulty)`` ``[B]``.
    """

    def __init__(self, base: Distillation, ease: Callable[[Tensor, Batch], Tensor]) -> None:
        super().__init__(base.student, base.inputs, base.loss, base.teacher)
        self._ease = ease

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        loss, student, teacher = self.loss, self.outputs(batch), self.teacher(batch)
        rows = {name: entry[:labelled] for name, entry in batch.items()}
        assert loss.hard_loss is not None
        with torch.no_grad():
            soft_share = (1 - loss.alpha) * self._ease(teacher.prediction[:labelled], rows)
        hard_share = 1 - soft_share
        weight = rows["weight"] * hard_share if "weight" in rows else hard_share
        raw = loss.hard_loss(student.prediction[:labelled], {**rows, "weight": weight})
        total = hard_share.mean() * raw
        values: TermValues = {"hard": {"raw": raw.detach(), "weighted": total.detach()}}
        share = torch.ones(len(student.prediction), device=soft_share.device)
        share[:labelled] = soft_share
        ((term, factor),) = zip(loss.terms, loss.weights, strict=True)
        each = soft_losses(term, student.prediction, teacher.prediction, batch)
        soft = factor * (share[: len(each)] * each).mean()
        values[term.name] = {"raw": each.mean().detach(), "weighted": soft.detach()}
        return total + soft, values


class Annealing(Learner):
    """Phase 1 of annealing: squared error to the teacher's prediction, drawn towards its centre; see `Adaptive`.

    Args:
        student: the student.
        teacher: where the teacher's outputs come from.
        max_temperature: T of the first epoch.
        centre: where all predictions lie when nothing is left of them: 0 for logits, the mean target for values.
    """

    def __init__(self, student: Trained, teacher: TeacherSource, max_temperature: int, centre: float) -> None:
        super().__init__(student.model, student.inputs)
        self._teacher, self._max, self._centre = teacher, max_temperature, centre
        self.set_progress(0.0)

    def set_progress(self, progress: float) -> None:
        """T falls from its maximum to 1 in whole steps, each as long as the others."""
        temperature = self._max - min(int(progress * self._max), self._max - 1)
        self.factor = 1 - (temperature - 1) / self._max

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        student = predict(self.student, batch, self.inputs).float()
        target = self._centre + self.factor * (self._teacher(batch).prediction - self._centre)
        loss = (student - target).square().mean()
        return loss, {"annealed": {"raw": loss.detach(), "weighted": loss.detach()}}


class Adaptive(Method):
    """How much the teacher counts is not one number: it follows each row, or the time.

    ``mode: difficulty``. The teacher is trusted where it is right. With ``l_i`` the head's loss of the teacher's
    prediction of row i, ``m`` the mean of ``l_i`` over the labelled training rows, and alpha the recipe's share of the
    hard loss::

        w_i = (1 - alpha) * exp(-l_i / (tau * m))
        L = mean_i(1 - w_i) * hard + mean_i(w_i * soft_i)

    where ``hard`` is the head's loss with rows weighted by ``1 - w_i`` (their share of ``batch["weight"]``), ``soft_i``
    the default soft loss of row i, and rows without labels have ``w_i = 1``: nobody knows how difficult they are. On an
    easy row the student has the recipe's alpha, on a difficult one it learns from the label alone.

    Source: the idea of Ganguly et al., "AdaKD: Dynamic Knowledge Distillation of ASR models using Adaptive Loss
    Weighting" (2024): weights by row, and difficulty that rises with the teacher's loss. The formula above and its
    constants are this project's own; the paper's is another function of the difficulty, and changes over the training.

    ``mode: annealing``. In phase 1 the student's logits fit the teacher's, annealed; in phase 2 it fits the labels
    alone::

        phase 1: mean((z_S - (c + Phi(T) * (z_T - c)))^2),  Phi(T) = 1 - (T - 1) / T_max,  T = T_max, ..., 2, 1
        phase 2: hard

    with ``c = 0`` for logits. Source: Jafari et al., "Annealing Knowledge Distillation" (EACL 2021). Differences: for
    regression c is the mean of the training target, so that annealed values are in its range; epochs of phase 1 are
    shared out evenly among temperatures, T_max is at most their number, and the best epoch of phase 1 on validation
    begins phase 2. Objectives and alpha of the recipe have no part in it.

    Cost: as plain distillation; "difficulty" asks the teacher once more for all labelled rows.

    Args:
        mode: "difficulty" or "annealing", see above.
        tau: by how much a row must be more difficult than the mean to lose the teacher (difficulty).
        max_temperature: T of the first epochs (annealing).
        soft_epochs: share of the epochs that phase 1 has (annealing).
    """

    def __init__(
        self,
        *,
        mode: Literal["difficulty", "annealing"] = "difficulty",
        tau: Annotated[float, Field(gt=0)] = 1.0,
        max_temperature: Annotated[int, Field(ge=1)] = 10,
        soft_epochs: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    ) -> None:
        self.mode, self.tau = mode, tau
        self.max_temperature, self.soft_epochs = max_temperature, soft_epochs

    def check(self, context: MethodContext) -> None:
        """What the mode asks of head, terms and epochs.

        Raises:
            IncompatibleError: predictions of the head cannot be annealed, there is but one epoch for two phases, the
                soft loss is not the head's default one, or losses of single rows cannot be told.
        """
        kind = context.head.kind
        if self.mode == "annealing":
            if kind not in LOGITS_AND_VALUES:
                raise IncompatibleError(
                    f"a squared error between predictions of {kind} heads has no meaning, and annealing needs one",
                    where="method.mode",
                    fix="mode: difficulty",
                )
            if context.config.epochs < 2:
                raise IncompatibleError(
                    "annealing has two phases and needs an epoch for each",
                    where="train.student.epochs",
                    fix="set 2 or more",
                )
            return
        default = DEFAULT_SOFT_LOSS[kind]
        if len(context.terms) != 1 or context.terms[0].bound.id != default:
            raise IncompatibleError(
                f"shares by row need the soft loss of a row, and are defined for one soft term '{default}'",
                where="objectives.soft",
                fix="soft: [soft]",
            )
        _try_row_losses(context)

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit by difficulty, or the two phases of annealing."""
        if self.mode == "difficulty":
            context.fit(self.step(context, student))
            return student
        centre = context.splits.info.target_mean if context.head.kind is OutputKind.REGRESSION else 0.0
        first = min(max(round(context.config.epochs * self.soft_epochs), 1), context.config.epochs - 1)
        annealing = Annealing(student, context.signal(), min(self.max_temperature, first), centre)
        context.fit(annealing, phase="annealing", epochs=first)
        # Rows without labels have no part in the second phase.
        context.fit(context.supervised(student), phase="labels", unlabelled=None, epochs=context.config.epochs - first)
        return student

    def step(self, context: MethodContext, student: Trained) -> Learner:
        """See `ByDifficulty`; mean difficulty and mean share of the soft loss are noted."""
        base = context.distillation(student)
        losses = self._teacher_losses(context, base.teacher)
        scale = self.tau * max(float(losses.mean()), torch.finfo(losses.dtype).tiny)

        def ease(teacher: Tensor, rows: Batch) -> Tensor:
            return torch.exp(-row_losses(context.head.hard_loss, teacher, rows) / scale)

        share = (1 - parse_schedule(context.alpha).value(1.0)) * torch.exp(-losses / scale)
        context.note(mean_teacher_loss=float(losses.mean()), mean_soft_share=float(share.mean()))
        return ByDifficulty(base, ease)

    def _teacher_losses(self, context: MethodContext, source: TeacherSource) -> Tensor:
        """The teacher's loss of every labelled training row ``[N]``, a function of the seed where rows are augmented at
        random."""
        found = []
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(context.derived_seed("difficulty"))
            for rows in in_order(context.splits.train):
                batch = to_device(rows, context.device)
                found.append(row_losses(context.head.hard_loss, source(batch).prediction.float(), batch).cpu())
        return torch.cat(found).double()


def _try_row_losses(context: MethodContext) -> None:
    """Losses of single rows once, before anything is trained: a head may be written so that they cannot be told.

    Raises:
        IncompatibleError: they cannot, or the head does not weigh rows by ``batch["weight"]``.
    """
    student, batch = context.build(), context.splits.train.batch([0, 1])
    problem = ""
    try:
        with torch.random.fork_rng(), torch.no_grad():
            prediction = predict(student.model.eval(), batch, student.inputs).float()
            hard_loss: Callable[[Tensor, Batch], Any] = context.head.hard_loss
            losses = row_losses(hard_loss, prediction, batch)
            for row, weight in enumerate((torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))):
                alone = float(hard_loss(prediction, {**batch, "weight": weight}))
                if not math.isclose(alone, float(losses[row]), rel_tol=1e-3, abs_tol=1e-5):
                    problem = "its hard loss does not weigh rows by batch['weight']"
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise IncompatibleError(
            f"the head cannot tell the losses of single rows, which shares by row need: {problem}",
            where="head",
            fix="method: core/offline, or a head whose hard loss ends with stillhouse.heads.checks.row_mean",
        )
