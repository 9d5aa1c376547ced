"""The recipe's teacher as it could have been had earlier: trained on a part of the training rows, for methods whose
rows arrive one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext

from filelock import FileLock

from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.stages import SIGNAL_LOCK
from stillhouse.pipeline.teacher import Teacher, asked_member, member_label, train_member
from stillhouse.storage import digest
from stillhouse.trained import Trained, is_asked
from stillhouse.types import SubsetSplit

PAST = "past"
"""Folder, inside that of the teacher, of what was trained on a part of the rows."""


def teacher_on(context: RunContext, teacher: Teacher, positions: Sequence[int]) -> Teacher:
    """The recipe's teacher trained anew on some training rows and no others, without a look at validation rows: as it
    could have been had when only these were known. It is kept until `forget_past_teachers`, so that a run which stops
    goes on with it.

    Args:
        context: the run.
        teacher: the recipe's, whose members are taken as they are where they are asked or come from a checkpoint.
        positions: of the rows in ``splits.train``.
    """
    recipe, rows = context.resolved.recipe, SubsetSplit(context.splits.train, positions)
    if recipe.teacher.checkpoint is not None:
        return teacher
    config = recipe.train.teacher.model_copy(update={"select": "last", "patience": None})
    name = digest([int(position) for position in positions])[:16]
    members: list[Trained] = []
    # Students in processes side by side share these models: one makes them, the others find them.
    with FileLock(context.folder / SIGNAL_LOCK) if context.is_main else nullcontext():
        for position, bound in enumerate(context.resolved.teachers):
            if is_asked(bound.component):
                members.append(asked_member(context, position, rows)[0])
                continue
            folder = context.folder / "teacher" / PAST / f"{name}-{position}"
            label = f"{member_label(context, position)}, on {len(rows):,} rows"
            fold = f"rows {name}"
            trained = train_member(context, position, rows, folder, fold, config=config, label=label, shared=False)
            if trained.is_network:
                trained.model.to(context.device).eval().requires_grad_(False)
            members.append(trained)
    return Teacher(members, teacher.weights, teacher.kind, name)


def forget_past_teachers(context: RunContext) -> None:
    """Remove what `teacher_on` kept; every student is finished."""
    if context.is_main:
        shutil.rmtree(context.folder / "teacher" / PAST, ignore_errors=True)
    context.wait()
