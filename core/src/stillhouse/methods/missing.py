"""``core/missing-modality``: the student lacks inputs that the teacher sees; classes carry what is missing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from stillhouse.errors import IncompatibleError
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.objectives.functional import unit_rows, unit_scale
from stillhouse.ranges import Range
from stillhouse.taps import Taps
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import TermValues
from stillhouse.types import Batch, Outputs


class MissingModality(Method):
    """What a row is like, told by its class: the student learns how near the teacher finds each row to each class.

    A student that does not take an input cannot say the teacher's feature of a row. It can say how the row lies to
    the classes. With ``c_k`` the direction of the mean feature of class k over the labelled rows of the batch, each
    model with centres of its own::

        L = the recipe's loss + weight * mean over rows i and classes k of (cos(s_i, c_k^S) - cos(t_i, c_k^T))^2

    Features are predictions unless ``student`` and ``teacher`` name modules; any two shapes will do. A row without
    direction, and a class without one, add 0. The inputs that the teacher takes and the student does not are noted;
    where there are none this is a relation to classes beside the recipe's loss, and nothing is missing.

    Source: Wang et al., "Prototype Knowledge Distillation for Medical Segmentation with Missing Modality" (2023): the
    similarity of each pixel to the prototypes of classes, student against teacher, by squared error. Here a row stands
    for a pixel, and the batch for the image.

    Cost: as plain distillation.

    Args:
        weight: of the relation to classes.
        student: path of the student's module whose output is its feature; its prediction by default.
        teacher: path of the teacher's.
    """

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0), Range(0.3, 30.0, log=True)] = 1.0,
        student: str | None = None,
        teacher: str | None = None,
    ) -> None:
        self.weight, self.student, self.teacher = weight, student, teacher

    def check(self, context: MethodContext) -> None:
        """Whether the student has the module.

        Raises:
            IncompatibleError: it does not.
        """
        if self.student is not None:
            _taps(context.build(), self.student, "method.student")

    def step(self, context: MethodContext, student: Trained) -> Learner:
        """See `ByClass`."""
        teachers = context.teachers
        if self.teacher is not None:
            if len(teachers) != 1 or not teachers[0].is_network:
                raise IncompatibleError(
                    "a teacher that is not one network has no module to tap",
                    where="method.teacher",
                    fix="leave it out: predictions are compared then",
                )
            _taps(teachers[0], self.teacher, "method.teacher")
        seen = {name for teacher in teachers for name in teacher.inputs}
        context.note(missing_inputs=", ".join(sorted(seen - set(student.inputs))) or "none")
        base = context.distillation(student)
        if self.teacher is not None:
            base.teacher = context.signal((*base.loss.teacher_taps, self.teacher))
        own = None if self.student is None else _taps(student, self.student, "method.student")
        return ByClass(base, own, self.student, self.teacher, self.weight, len(context.splits.info.classes or "ab"))


def _taps(model: Trained, path: str, where: str) -> Taps:
    try:
        return Taps(model.model, [path])
    except IncompatibleError as error:
        raise IncompatibleError(error.what, where=where, fix=error.fix) from error


class ByClass(Distillation):
    """The loss of one step; see `MissingModality`.

    Args:
        base: the learner of plain distillation; its student, loss and teacher are used.
        taps: the student's feature; None for its prediction.
        student: path of the student's module.
        teacher: path of the teacher's module.
        weight: of the relation to classes.
        classes: how many there are.
    """

    def __init__(
        self,
        base: Distillation,
        taps: Taps | None,
        student: str | None,
        teacher: str | None,
        weight: float,
        classes: int,
    ) -> None:
        super().__init__(base.student, base.inputs, base.loss, base.teacher)
        self._own, self._paths, self._weight, self._classes = taps, (student, teacher), weight, classes

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        with self._own or nullcontext():
            student = self.outputs(batch)
        features = student.features if self._own is None else self._own.take()
        teacher = self.teacher(batch)
        total: Tensor
        total, values = self.loss(student, teacher, batch, labelled)
        student_features = self._feature(Outputs(student.prediction, features), self._paths[0])
        teacher_features = self._feature(teacher, self._paths[1])
        relation = self.relation(student_features, teacher_features, batch["target"][:labelled].long().flatten())
        values["classes"] = {"raw": relation.detach(), "weighted": self._weight * relation.detach()}
        return total + self._weight * relation, values

    @staticmethod
    def _feature(outputs: Outputs, path: str | None) -> Tensor:
        return (outputs.prediction if path is None else outputs.features[path]).flatten(1).float()

    def relation(self, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """Squared difference between nearness to class centres, a scalar, of features ``[B, ...]``; the first rows
        have the classes ``target``."""
        near, defined = self._nearness(student, target)
        wanted, wanted_defined = self._nearness(teacher.detach(), target)
        return torch.where(defined & wanted_defined, near - wanted, 0.0).square().mean()

    def _nearness(self, features: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines to the centre of each class ``[B, C]``, and which of them are defined."""
        unit, active = unit_rows(unit_scale(features, 1))
        sums = unit.new_zeros(self._classes, unit.shape[1]).index_add(0, target, unit[: len(target)])
        centres, there = unit_rows(sums)
        return unit @ centres.T, active.unsqueeze(1) & there.unsqueeze(0)
