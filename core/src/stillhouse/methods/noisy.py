"""``core/noisy-teachers``: teachers on overlapping parts of noisily labelled rows, and a student of their agreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from stillhouse.kinds import OutputKind
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.ranges import Choices, Range
from stillhouse.teachers import TeacherSource
from stillhouse.teachers.ensemble import combine
from stillhouse.trained import Trained
from stillhouse.types import Batch, Outputs, Split, SubsetSplit


class NoisyTeachers(Method):
    """Teachers that each see a part of the rows, and a student that learns what those say who have not seen a row.

    Teacher k learns from the labels of a random share of the training rows (of the groups, where rows have them). Then
    the student minimises the recipe's loss against::

        teacher(row) = mean of p_k over the teachers that have not seen the row; over all, where each has seen it

    of probabilities for classes, of values for regression. A wrong label can be remembered by those who saw it only,
    and two of them seldom remember the same; give the labels a small share of the loss (``objectives.alpha``).

    Source: Jaiswal et al., "RoS-KD: A Robust Stochastic Knowledge Distillation Approach for Noisy
    Medical Imaging" (2022): several teachers on overlapping subsets, one smooth student. There the student learns from
    every teacher on every row and its weights are averaged over training, for which ``train.student.ema`` stands; that
    only teachers speak who have not seen a row is this project's.

    The recipe's teacher has no part in it: it is reported beside the student.

    Cost: a training for each teacher on its share of the rows, and one of the student.

    Args:
        teachers: how many.
        share: of the rows that each of them sees.
        teacher: what they are, a student component: an id or {use: id, **options}; the student's own by default.
    """

    def __init__(
        self,
        *,
        teachers: Annotated[int, Field(ge=2), Choices(3, 5)] = 3,
        share: Annotated[float, Field(gt=0, lt=1), Range(0.4, 0.8)] = 0.6,
        teacher: str | dict[str, Any] | None = None,
    ) -> None:
        self.teachers, self.share, self.teacher = teachers, share, teacher

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit a teacher, on its rows, then that of the student."""
        rows = context.splits.train
        parts = part_positions(rows, self.teachers, self.share, context.derived_seed("parts"))
        component = None if self.teacher is None else context.bind("student", self.teacher)
        models: dict[str, Trained] = {}
        for number, positions in enumerate(parts, start=1):
            name = f"teacher-{number}"
            models[name] = context.build(component, seed=context.derived_seed(name))
            context.fit(
                context.supervised(models[name]), phase=name, rows=SubsetSplit(rows, positions), unlabelled=None
            )
        index = rows.index()
        sources = [context.as_teacher(model) for model in models.values()]
        agreement = Agreement(sources, [index[torch.tensor(part)] for part in parts], context.head.kind)
        context.build()  # adapters draw their weights where those of the student ended
        context.fit(context.distillation(student, agreement), phase="student")
        context.note(**{f"val_{context.head.primary}": context.compare(models, "val")})
        return student


class Agreement:
    """What teachers say of the rows that they have not seen; see `NoisyTeachers`.

    Args:
        sources: the teachers.
        seen: ids of the rows that each of them learned from.
        kind: the head's output kind.
    """

    def __init__(self, sources: Sequence[TeacherSource], seen: Sequence[Tensor], kind: OutputKind) -> None:
        self._sources, self._seen, self._kind = list(sources), list(seen), kind

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`."""
        predictions = [source(batch).prediction for source in self._sources]
        index = batch["index"]
        speak = torch.stack([~torch.isin(index, ids.to(index.device)) for ids in self._seen])
        speak = (speak | ~speak.any(0)).double()
        return Outputs(combine(predictions, speak / speak.sum(0), self._kind), members=torch.stack(predictions))


def part_positions(rows: Split, number: int, share: float, seed: int) -> list[list[int]]:
    """Positions that each of ``number`` teachers sees: a random ``share`` of the rows, or of their groups."""
    generator = np.random.default_rng(seed)
    groups = np.arange(len(rows)) if rows.groups is None else np.unique(np.asarray(rows.groups), return_inverse=True)[1]
    names = np.unique(groups)
    size = min(max(round(share * len(names)), 1), max(len(names) - 1, 1))
    chosen = [generator.permutation(names)[:size] for _ in range(number)]
    return [np.flatnonzero(np.isin(groups, each)).tolist() for each in chosen]
