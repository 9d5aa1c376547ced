"""Stage teacher: members are trained (or loaded, or taken from the store), and their copies without each fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillhouse.data.splitting import fold_positions
from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.chance import warn_of_chance
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.models import Piece, member_seed, train_hard, trained_model
from stillhouse.pipeline.stages import facts, finish, why_stale
from stillhouse.recipe.model import TrainConfig
from stillhouse.storage import digest, read_json
from stillhouse.teachers import CostedTeacher, EnsembleTeacher, PreparedTeacher, TeacherSource
from stillhouse.teachers.ensemble import combine
from stillhouse.trained import Trained, build, is_asked, load
from stillhouse.types import Batch, Head, Split, SubsetSplit


@dataclass
class Teacher:
    """The finished teacher: its members, the key of everything that its outputs depend on, and where the recipe asks
    for them what computes the predictions of all training rows by copies that have not seen them."""

    members: list[Trained]
    weights: list[float]
    kind: OutputKind
    key: str
    out_of_fold: Callable[[], Tensor] | None = None

    def source(self, taps: Sequence[str] = ()) -> TeacherSource:
        """The members as one live source."""
        sources = [member.source(taps=taps) for member in self.members]
        return sources[0] if len(sources) == 1 else EnsembleTeacher(sources, weights=self.weights, kind=self.kind)

    def predict(self, split: Split, device: torch.device, head: Head | None = None) -> Tensor:
        """Predictions for all rows in order; with a head, what it keeps of them."""
        shares = [weight / sum(self.weights) for weight in self.weights]
        return combine([member.predict(split, device, head) for member in self.members], shares, self.kind)

    def call(self, batch: Batch, head: Head | None = None) -> Tensor:
        """One prediction as deployment would make it; with a head, what it keeps of it."""
        shares = [weight / sum(self.weights) for weight in self.weights]
        return combine([member.call(batch, head) for member in self.members], shares, self.kind)

    def asked_facts(self) -> dict[str, Any] | None:
        """What asking the members cost, added up; None where none of them tells."""
        told = [each.facts() for each in self._costed()]
        if not told:
            return None
        names = [name for name in told[0] if all(name in each for each in told)]
        return {name: None if None in (of := [each[name] for each in told]) else sum(of) for name in names}

    def remarks(self) -> list[str]:
        """What the members that are asked have to say of their answers."""
        return [remark for each in self._costed() for remark in each.remarks()]

    def _costed(self) -> list[CostedTeacher]:
        asked = [member.model for member in self.members if member.is_asked]
        return [model for model in asked if isinstance(model, CostedTeacher)]


def teacher_stage(context: RunContext) -> Teacher:
    """Train or load all members, and their out-of-fold copies when the recipe asks for them; write predictions."""
    recipe, folder = context.resolved.recipe, context.folder / "teacher"
    if context.head.keeps_answers and (len(context.resolved.teachers) > 1 or recipe.teacher.out_of_fold):
        raise IncompatibleError(
            f"head '{context.resolved.head.id}' judges what one model says of a row, of which there is neither a mean "
            "of several nor an out-of-fold copy",
            where="teacher",
            fix="use one teacher, without out_of_fold",
        )
    members: list[Trained] = []
    keys: list[Any] = []
    for position in range(len(context.resolved.teachers)):
        if recipe.teacher.checkpoint is not None:
            trained, key = from_checkpoint(context, context.resolved.base / recipe.teacher.checkpoint)
        elif is_asked(context.resolved.teachers[position].component):
            trained, key = asked_member(context, position)
        else:
            trained = train_member(context, position, context.splits.train, folder / f"member-{position}")
            key = facts(folder / f"member-{position}")["inputs"]
        if trained.is_network:
            trained.model.to(context.device).eval().requires_grad_(False)
        members.append(trained)
        keys.append(key)
    weights = [bound.weight for bound in context.resolved.teachers]
    key = digest({"members": keys, "weights": weights, "out_of_fold": recipe.teacher.out_of_fold})
    teacher = Teacher(members, weights, context.head.kind, key)
    if recipe.teacher.out_of_fold:
        teacher.out_of_fold = cache(_out_of_fold(context, recipe.teacher.out_of_fold))
    if context.is_main and why_stale(folder, {"key": key}) is not None:
        for name in ("val", "test"):
            context.write_prediction(
                folder, name, teacher.predict(context.splits.named()[name], context.device, context.head)
            )
        finish(folder, {"key": key})
    context.wait()
    warn_of_chance(context, "teacher", [folder / f"member-{position}" for position in range(len(members))])
    return teacher


def teacher_pieces(context: RunContext) -> list[Piece]:
    """All members that are trained, and their copies without each fold."""
    config, folder = context.resolved.recipe.teacher, context.folder / "teacher"
    if config.checkpoint is not None:
        return []
    train, epochs = context.splits.train, context.resolved.recipe.train.teacher.epochs
    trained = [at for at, bound in enumerate(context.resolved.teachers) if not is_asked(bound.component)]
    pieces = [
        Piece(
            member_label(context, at, "all"),
            "teacher",
            epochs,
            partial(train_member, context, at, train, folder / f"member-{at}"),
        )
        for at in trained
    ]
    for number, (kept, _) in enumerate(folds_of(context) if config.out_of_fold else ()):
        name = fold_names(config.out_of_fold)[number + 1]
        for at in trained:
            rows, where = SubsetSplit(train, kept), folder / f"member-{at}-fold-{number}"
            make = partial(train_member, context, at, rows, where, name)
            pieces.append(Piece(member_label(context, at, name), "teacher", epochs, make))
    return pieces


def folds_of(context: RunContext) -> list[tuple[list[int], list[int]]]:
    """Positions of the training rows that each copy of the teacher learns from, and of those that it is asked about.

    Raises:
        IncompatibleError: there are fewer groups, or fewer rows of a class, than folds.
    """
    config = context.resolved.recipe.teacher
    return list(fold_positions(context.splits.train, config.out_of_fold, context.head.kind, config.seed))


def member_label(context: RunContext, position: int, fold: str = "all") -> str:
    """What to call a member of the teacher, or its copy without a fold."""
    many = len(context.resolved.teachers)
    return "teacher" + (f" {position + 1} of {many}" if many > 1 else "") + (f", fold {fold}" if fold != "all" else "")


def train_member(
    context: RunContext,
    position: int,
    rows: Split,
    folder: Path,
    fold: str = "all",
    *,
    config: TrainConfig | None = None,
    label: str | None = None,
    shared: bool = True,
) -> Trained:
    """One member, trained on some rows in a folder of its own, or found there or in the store.

    Args:
        context: the run.
        position: of the member in the recipe.
        rows: training rows.
        folder: of this model alone.
        fold: name of the rows.
        config: training settings; the recipe's by default.
        label: what to call it.
        shared: keep it in the store of teachers.
    """
    recipe, bound = context.resolved.recipe, context.resolved.teachers[position]
    seed = member_seed(bound, recipe.teacher.seed)
    label = label or member_label(context, position, fold)
    tags = {"stage": "teacher", "member": position, "fold": fold}
    config = config or recipe.train.teacher

    def make() -> tuple[Trained, list[dict[str, Any]]]:
        trained = build(bound.component, bound.options, context.task(seed))
        return trained, train_hard(context, trained, rows, config, seed=seed, label=label, tags=tags, folder=folder)

    return trained_model(
        context,
        folder,
        bound,
        seed=seed,
        inputs=member_inputs(config, fold),
        label=label,
        make=make,
        predictions=False,
        shared=shared,
    )


def fold_names(folds: int) -> list[str]:
    """Names of the rows that a member is trained on: all of them, then all without each fold."""
    return ["all", *(f"{number + 1} of {folds}" for number in range(folds))]


def member_inputs(config: TrainConfig, fold: str) -> dict[str, Any]:
    """What a member depends on, beside its component, its seed and the data."""
    return {"train": config.model_dump(mode="json"), "rows": fold}


def asked_member(context: RunContext, position: int, rows: Split | None = None) -> tuple[Trained, Any]:
    """A teacher that is asked as it is: only its answers depend on it, and they on its revision."""
    bound = context.resolved.teachers[position]
    seed = member_seed(bound, context.resolved.recipe.teacher.seed)
    trained = build(bound.component, bound.options, context.task(seed))
    if isinstance(trained.model, PreparedTeacher):
        trained.model.prepare(context.splits.train if rows is None else rows, context.splits.reader)
    key = {
        "model": context.bound_inputs(bound),
        "revision": trained.model.revision,
        "seed": seed,
        "data": context.data,
        "head": context.bound_inputs(context.resolved.head),
    }
    return trained, key


def from_checkpoint(context: RunContext, path: Path) -> tuple[Trained, Any]:
    """A teacher that was trained before, and what identifies it.

    Raises:
        IncompatibleError: it is one of another task.
        RunFolderError: there is none, or it is damaged.
    """
    trained = load(path, context.registry, context.splits.info)
    if (trained.task.kind, trained.task.outputs) != (context.head.kind, context.head.outputs):
        raise IncompatibleError(
            f"the teacher at '{path}' makes {trained.task.outputs} {trained.task.kind} outputs, the head needs "
            f"{context.head.outputs} {context.head.kind}",
            where="teacher.checkpoint",
            fix="use a teacher of the same task",
        )
    weights = path / ("model.safetensors" if trained.is_network else "estimator.skops")
    return trained, {"model": read_json(path / "model.json"), "weights": digest(weights.read_bytes().hex())}


def _out_of_fold(context: RunContext, folds: int) -> Callable[[], Tensor]:
    """Each training row's prediction by members that were fitted without its group: an overfit teacher repeats the
    labels of rows it has seen, which teaches a student nothing (stacked generalisation, Wolpert 1992). The members are
    trained here, and asked when it is called."""
    train, device, kind = context.splits.train, context.device, context.head.kind  # what is returned holds no more
    weights = [bound.weight for bound in context.resolved.teachers]
    shares = [weight / sum(weights) for weight in weights]
    made: list[tuple[list[Trained], list[int]]] = []
    for number, (kept, held) in enumerate(folds_of(context)):
        members = []
        for position in range(len(context.resolved.teachers)):
            trained = train_member(
                context,
                position,
                SubsetSplit(train, kept),
                context.folder / "teacher" / f"member-{position}-fold-{number}",
                fold_names(folds)[number + 1],
            )
            if trained.is_network:
                trained.model.to(context.device)
            members.append(trained)
        made.append((members, held))

    def predictions() -> Tensor:
        parts: Tensor | None = None
        for members, held in made:
            rows = SubsetSplit(train, held)
            combined = combine([each.predict(rows, device) for each in members], shares, kind)
            if parts is None:
                parts = torch.empty((len(train), *combined.shape[1:]))
            parts[torch.tensor(held)] = combined
        assert parts is not None
        return parts

    return predictions
