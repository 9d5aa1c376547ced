"""``core/self-supervised``: which rows look alike after a change, as the teacher sees it, is distilled too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.methods.staged import resting
from stillhouse.objectives.functional import kl_elements
from stillhouse.ranges import Range
from stillhouse.teachers import TeacherSource
from stillhouse.teachers.cached import RowIndex
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import TermValues
from stillhouse.types import Batch, Outputs, Split

View = Callable[[Batch], Batch]
"""From a batch of labelled training rows to the same rows, changed."""


class SelfSupervised(Method):
    """A contrastive pretext over changed rows, solved on the teacher first, whose similarities are distilled too.

    ``x`` is a batch, ``x'`` the same rows changed, ``z = head(prediction)`` at L2 norm 1, with a head of two layers for
    each of the two models; ``A(i, j) = softmax over j of <z'_i, z_j> / temperature``: which row a changed one is::

        phase pretext    the teacher's head alone: mean of -log A_T(i, i)
        phase student    recipe's loss(x) + (1 - alpha) * soft terms(x') + weight * mean over i of KL(A_T(i) || A_S(i))

    Rows that the dataset augments at random are changed by drawing them once more; others by normal noise, ``noise``
    times the standard deviation of each element over the batch. Rows without labels have a part in the recipe's loss
    only. Soft terms of ``x'`` are those between predictions.

    Source: Xu, Liu, Li, Loy, "Knowledge Distillation Meets Self-Supervision" (2020), equations 1 to 6: the matrix of
    similarities between changed and unchanged rows. The paper turns images by 90 degrees too, puts heads on features
    before the classifier, and keeps of the teacher's wrong similarities those that are least wrong; here all are kept.

    Cost: an epoch of ``pretext_epochs`` asks the teacher twice a row; one of the student two forwards of either.

    Args:
        weight: of the similarities.
        temperature: of the similarities.
        pretext_epochs: of the teacher's head.
        noise: see above.
        width: of what the heads give.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0), Range(0.1, 10.0, log=True)] = 1.0,
        temperature: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = 0.5,
        pretext_epochs: Annotated[int, Field(ge=1)] = 5,
        noise: Annotated[float, Field(gt=0), Range(0.05, 0.5, log=True)] = 0.2,
        width: Annotated[int, Field(ge=1)] = 32,
    ) -> None:
        self.weight, self.temperature, self.pretext_epochs = weight, temperature, pretext_epochs
        self.noise, self.width = noise, width

    def check(self, context: MethodContext) -> None:
        """Whether rows can be changed.

        Raises:
            IncompatibleError: they are not augmented, and have no numbers to add noise to.
        """
        inputs = context.splits.info.inputs.values()
        if not context.splits.train.stochastic and not any(each.dtype.startswith("float") for each in inputs):
            raise IncompatibleError(
                "rows are changed by the dataset's augmentation or by noise, and these have neither",
                where="dataset",
                fix="switch an augmentation of the dataset on, or choose another method",
            )

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """The pretext on the teacher, then the student."""
        base = context.distillation(student)
        rows = context.splits.train
        view: View = Redrawn(rows) if rows.stochastic else Noisy(self.noise, tuple(context.splits.info.inputs))
        answers = context.splits.train.batch([0, 1])
        answers = {name: entry.to(context.device) for name, entry in answers.items()}
        outputs = base.teacher(answers).prediction.flatten(1).shape[1]
        torch.manual_seed(context.derived_seed("heads"))
        heads = [
            nn.Sequential(nn.Linear(outputs, self.width), nn.ReLU(), nn.Linear(self.width, self.width)) for _ in "ts"
        ]
        pretext = Pretext(student, base.teacher, heads[0], view, self.temperature)
        with resting([student.model], pretext):
            history = context.fit(
                pretext, phase="pretext", epochs=self.pretext_epochs, unlabelled=None, select="last", patience=None
            )
        learner = Similarities(base, pretext, heads[1], self.weight)
        context.fit(learner, phase="student")
        context.note(pretext_loss=history[-1]["train"]["loss"])
        return student


class Redrawn:
    """The rows once more, augmented anew.

    Args:
        split: the training rows, augmented at random.
    """

    def __init__(self, split: Split) -> None:
        self._split, self._rows = split, RowIndex(split.index())

    def __call__(self, batch: Batch) -> Batch:
        """See `View`."""
        drawn = self._split.batch(self._rows(batch["index"]).tolist())
        return {**batch, **{name: entry.to(batch["index"].device) for name, entry in drawn.items() if name != "target"}}


class Noisy:
    """The rows with normal noise on all inputs of floats.

    Args:
        scale: of the noise, in standard deviations of each element over the batch.
        inputs: names of the inputs.
    """

    def __init__(self, scale: float, inputs: tuple[str, ...]) -> None:
        self._scale, self._inputs = scale, inputs

    def __call__(self, batch: Batch) -> Batch:
        """See `View`."""
        changed = dict(batch)
        for name in self._inputs:
            entry = batch[name]
            if entry.is_floating_point():
                spread = entry.std(0, unbiased=False, keepdim=True)
                changed[name] = entry + self._scale * spread * torch.randn_like(entry)
        return changed


class Pretext(Learner):
    """The teacher's head learns to tell which row a changed one is; the student rests. See `SelfSupervised`.

    Args:
        student: the student, which has no part in it.
        teacher: where the teacher's outputs come from, of changed rows too.
        head: from a prediction to what is compared.
        view: changes rows.
        temperature: of the similarities.
    """

    def __init__(
        self, student: Trained, teacher: TeacherSource, head: nn.Module, view: View, temperature: float
    ) -> None:
        super().__init__(student.model, student.inputs)
        self.teacher, self.head, self.view, self.temperature = teacher, head, view, temperature

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        rows = {name: entry[:labelled] for name, entry in batch.items()}
        assert self.teacher is not None
        changed = self.teacher(self.view(rows)).prediction
        log = similarities(self.head, self.teacher(rows).prediction, changed, self.temperature)
        loss = -log.diagonal().mean()
        return loss, {"pretext": {"raw": loss.detach(), "weighted": loss.detach()}}


class Similarities(Distillation):
    """The student's loss with similarities; see `SelfSupervised`.

    Args:
        base: the learner of plain distillation; its student, loss and teacher are used.
        pretext: with the teacher's head, which rests.
        head: the student's.
        weight: of the similarities.
    """

    def __init__(self, base: Distillation, pretext: Pretext, head: nn.Module, weight: float) -> None:
        super().__init__(base.student, base.inputs, base.loss, base.teacher)
        self.head, self._weight, self._temperature, self._view = head, weight, pretext.temperature, pretext.view
        self._teacher_head = [
            pretext.head.requires_grad_(False).eval()
        ]  # in a list: no module of this one, it does not learn

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        student, teacher = self.outputs(batch), self.teacher(batch)
        total: Tensor
        total, values = self.loss(student, teacher, batch, labelled)
        changed = self._view({name: entry[:labelled] for name, entry in batch.items()})
        student_changed = Outputs(self.outputs(changed).prediction)
        teacher_changed = Outputs(self.teacher(changed).prediction)
        soft = total.new_zeros(())
        for term, weight in zip(self.loss.terms, self.loss.weights, strict=True):
            if term.student is None:
                soft = soft + (1 - self.loss.alpha) * weight * term(student_changed, teacher_changed, changed, labelled)
        log, wanted = (
            similarities(head, before.prediction[:labelled], after.prediction, self._temperature)
            for head, before, after in (
                (self.head, student, student_changed),
                (self._teacher_head[0], teacher, teacher_changed),
            )
        )
        alike = kl_elements(log, wanted.detach()).sum(1).mean()
        values["changed"] = {"raw": soft.detach(), "weighted": soft.detach()}
        values["similarities"] = {"raw": alike.detach(), "weighted": self._weight * alike.detach()}
        return total + soft + self._weight * alike, values


def similarities(head: nn.Module, before: Tensor, after: Tensor, temperature: float) -> Tensor:
    """Log-probabilities that changed row i is row j, ``[B, B]``."""
    one, two = (F.normalize(head(each.flatten(1).float()), dim=1) for each in (before, after))
    return F.log_softmax(two @ one.T / temperature, dim=1)
