"""Stage teacher: members are trained (or loaded, or taken from the store), and their outputs for the training rows are
kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from stillhouse.data.splitting import fold_positions
from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.chance import warn_of_chance
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.models import Piece, member_seed, train_hard, trained_model
from stillhouse.pipeline.stages import SIGNAL_LOCK, facts, finish, why_stale
from stillhouse.recipe.model import TrainConfig
from stillhouse.storage import digest, read_json, read_tensors
from stillhouse.teachers import (
    CachedTeacher,
    CostedTeacher,
    EnsembleTeacher,
    PreparedTeacher,
    StoredTeacher,
    TeacherSource,
    TopKTeacher,
    write_cache,
    write_top_k,
)
from stillhouse.teachers.cached import cache_key
from stillhouse.teachers.ensemble import combine
from stillhouse.trained import Trained, build, is_asked, load
from stillhouse.types import Batch, Head, Split, SubsetSplit

LOST = 0.1
"""KL divergence, in nats a token, from which the likeliest tokens are called too few."""
OVERFIT = 3.0
"""Validation loss over training loss from which a teacher is called overfit."""


@dataclass
class Teacher:
    """The finished teacher: its members, and the key of everything that its outputs depend on."""

    members: list[Trained]
    weights: list[float]
    kind: OutputKind
    key: str
    out_of_fold: Tensor | None = None

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
        teacher.out_of_fold = _out_of_fold(context, recipe.teacher.out_of_fold)
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
    for number, (kept, _) in enumerate(_folds(context) if config.out_of_fold else ()):
        name = fold_names(config.out_of_fold)[number + 1]
        for at in trained:
            rows, where = SubsetSplit(train, kept), folder / f"member-{at}-fold-{number}"
            make = partial(train_member, context, at, rows, where, name)
            pieces.append(Piece(member_label(context, at, name), "teacher", epochs, make))
    return pieces


def _folds(context: RunContext) -> list[tuple[list[int], list[int]]]:
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


def _out_of_fold(context: RunContext, folds: int) -> Tensor:
    """Each training row's prediction by members that were fitted without its group: an overfit teacher repeats the
    labels of rows it has seen, which teaches a student nothing (stacked generalisation, Wolpert 1992)."""
    train = context.splits.train
    parts: Tensor | None = None
    weights = [bound.weight for bound in context.resolved.teachers]
    shares = [weight / sum(weights) for weight in weights]
    for number, (kept, held) in enumerate(_folds(context)):
        predictions = []
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
            predictions.append(trained.predict(SubsetSplit(train, held), context.device))
        combined = combine(predictions, shares, context.head.kind)
        if parts is None:
            parts = torch.empty((len(train), *combined.shape[1:]))
        parts[torch.tensor(held)] = combined
    assert parts is not None
    return parts


def signal(context: RunContext, teacher: Teacher, taps: Sequence[str], *, members: bool = False) -> TeacherSource:
    """What the student learns from: cached outputs unless rows are augmented at random, the method changes inputs in
    its steps, or the recipe says otherwise."""
    if not is_stored(context, taps):
        return teacher.source(taps)
    splits = {"train": context.splits.train}
    splits |= context.unlabelled()
    # Students in processes side by side share what is stored: one writes it, the others find it.
    with FileLock(context.folder / SIGNAL_LOCK) if context.is_main else nullcontext():
        if context.resolved.recipe.teacher.top_k is not None:
            return _top_k(context, teacher, splits)
        folders = [_stored(context, teacher, name, split, tuple(taps), members) for name, split in splits.items()]
        context.wait()
        for remark in teacher.remarks():
            context.warn(remark)
        if teacher.out_of_fold is None:
            _warn_of_overfitting(context, teacher)
        return CachedTeacher(*folders)


def _stored(
    context: RunContext, teacher: Teacher, name: str, split: Split, taps: tuple[str, ...], members: bool
) -> tuple[Path, str]:
    """Folder and key of what is stored for a split, written if it is not there."""
    folded = name == "train" and teacher.out_of_fold is not None
    made = f"/{context.extra.fingerprint}" if name == "extra" and context.extra is not None else ""
    key = cache_key(data=f"{context.data}/{name}{made}", teacher=f"{teacher.key}/{folded}", taps=taps, members=members)
    folder = context.folder / "teacher" / f"signal-{name}"
    if context.is_main and not _is_current(folder, key):
        source: TeacherSource = teacher.source(taps)
        if folded:
            assert teacher.out_of_fold is not None
            source = StoredTeacher(split.index(), teacher.out_of_fold)
        write_cache(source, split, folder, key=key, device=context.device, members=members)
    return folder, key


def _top_k(context: RunContext, teacher: Teacher, splits: Mapping[str, Split]) -> TeacherSource:
    """The likeliest tokens of each position, stored once; how much that leaves out is in the manifest."""
    k = context.resolved.recipe.teacher.top_k
    assert k is not None
    folders: list[tuple[Path, str]] = []
    for name, split in splits.items():
        key = digest({"data": f"{context.data}/{name}", "teacher": teacher.key, "top_k": k})
        folder = context.folder / "teacher" / f"signal-{name}"
        folders.append((folder, key))
        if context.is_main and not _is_current(folder, key):
            write_top_k(
                teacher.source(), split, folder, key=key, k=k, outputs=context.head.outputs, device=context.device
            )
    context.wait()
    found = TopKTeacher(*folders)
    facts = found.facts[0]
    context.guard(
        "teacher outputs stored",
        f"the {facts['k']} likeliest of {facts['outputs']} tokens, {facts['bytes_per_token']} bytes a token; the rest "
        f"has {facts['rest']:.2g} of the mass, and the mean KL divergence from the whole is {facts['error']:.2g} nats",
    )
    if facts["error"] > LOST:
        context.warn(
            f"the {facts['k']} likeliest tokens (teacher.top_k) leave out a KL divergence of {facts['error']:.2g} nats "
            f"a token, {facts['rest']:.2g} of the mass; raise teacher.top_k"
        )
    return found


def _warn_of_overfitting(context: RunContext, teacher: Teacher) -> None:
    """Warn when the teacher overfits: on its training rows it repeats the labels and teaches nothing else.

    Not where it speaks of more rows without a label than with one: there it says more than labels do.
    """
    if context.splits.unlabelled is not None and len(context.splits.unlabelled) > len(context.splits.train):
        return
    kept = np.load(context.folder / "teacher" / "signal-train" / "0.npy", mmap_mode="r")
    losses = {}
    for name, split in (("train", context.splits.train), ("val", context.splits.val)):
        # Validation was predicted when the teacher was done; a teacher that is a service need not answer again.
        known = context.folder / "teacher" / "predictions" / f"{name}.safetensors"
        prediction = torch.from_numpy(np.array(kept)) if name == "train" else read_tensors(known)["prediction"]
        rows = split.columns(["target", "index", *context.head.row_entries()])
        losses[name] = float(context.head.hard_loss(prediction, rows))
    if losses["val"] > OVERFIT * losses["train"]:
        context.warn(
            f"the teacher's loss is {losses['train']:.3g} on the rows it was trained on and {losses['val']:.3g} "
            "on validation: "
            "on training rows it repeats the labels. teacher.out_of_fold: 5 gives soft targets from rows it has "
            "not seen"
        )


def is_stored(context: RunContext, taps: Sequence[str]) -> bool:
    """Whether the teacher's outputs of the training rows are stored once, and not asked for in every step."""
    cache = context.resolved.recipe.teacher.cache
    if context.resolved.method_spec.changes_inputs:
        return False
    splits = [context.splits.train, *context.unlabelled().values()]
    random = any(split.stochastic for split in splits)
    # Features of positions differ in shape from row to row where rows differ in length.
    ragged = any(split.lengths is not None for split in splits) and (
        bool(taps) or context.head.kind is OutputKind.SEQUENCE
    )
    if context.resolved.recipe.teacher.out_of_fold or context.resolved.recipe.teacher.top_k is not None:
        return True
    return not (cache is False or (cache == "auto" and (random or ragged)))


def _is_current(folder: Path, key: str) -> bool:
    return (folder / "cache.json").exists() and read_json(folder / "cache.json")["key"] == key
