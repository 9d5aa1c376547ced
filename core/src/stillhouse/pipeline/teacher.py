"""Stage teacher: members are trained (or loaded, or taken from the store), and their outputs for the training rows are
kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.splitting import fold_positions
from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.chance import warn_of_chance
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.models import member_seed, train_hard, trained_model
from stillhouse.pipeline.stages import facts, finish, why_stale
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
            trained, key = _from_checkpoint(context, context.resolved.base / recipe.teacher.checkpoint)
        elif is_asked(context.resolved.teachers[position].component):
            trained, key = _asked(context, position)
        else:
            trained = _member(context, position, context.splits.train, folder / f"member-{position}")
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


def _member(context: RunContext, position: int, rows: Split, folder: Path, fold: str = "all") -> Trained:
    recipe, bound = context.resolved.recipe, context.resolved.teachers[position]
    seed = member_seed(bound, recipe.teacher.seed)
    many = len(context.resolved.teachers) > 1
    label = (
        "teacher"
        + (f" {position + 1} of {len(context.resolved.teachers)}" if many else "")
        + (f", fold {fold}" if fold != "all" else "")
    )
    tags = {"stage": "teacher", "member": position, "fold": fold}
    config = recipe.train.teacher

    def make() -> tuple[Trained, list[dict[str, Any]]]:
        trained = build(bound.component, bound.options, context.task(seed))
        return trained, train_hard(context, trained, rows, config, seed=seed, label=label, tags=tags, folder=folder)

    return trained_model(
        context,
        folder,
        bound,
        seed=seed,
        inputs={"train": config.model_dump(mode="json"), "rows": fold},
        label=label,
        make=make,
        predictions=False,
        shared=True,
    )


def _asked(context: RunContext, position: int) -> tuple[Trained, Any]:
    """A teacher that is asked as it is: only its answers depend on it, and they on its revision."""
    bound = context.resolved.teachers[position]
    seed = member_seed(bound, context.resolved.recipe.teacher.seed)
    trained = build(bound.component, bound.options, context.task(seed))
    if isinstance(trained.model, PreparedTeacher):
        trained.model.prepare(context.splits.train, context.splits.reader)
    key = {
        "model": context.bound_inputs(bound),
        "revision": trained.model.revision,
        "seed": seed,
        "data": context.data,
        "head": context.bound_inputs(context.resolved.head),
    }
    return trained, key


def _from_checkpoint(context: RunContext, path: Path) -> tuple[Trained, Any]:
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
    for number, (kept, held) in enumerate(
        fold_positions(train, folds, context.head.kind, context.resolved.recipe.teacher.seed)
    ):
        predictions = []
        for position in range(len(context.resolved.teachers)):
            trained = _member(
                context,
                position,
                SubsetSplit(train, kept),
                context.folder / "teacher" / f"member-{position}-fold-{number}",
                f"{number + 1} of {folds}",
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
    cache = context.resolved.recipe.teacher.cache
    if context.resolved.method_spec.changes_inputs:
        return teacher.source(taps)
    splits = {"train": context.splits.train}
    splits |= context.unlabelled()
    random = any(split.stochastic for split in splits.values())
    # Features of positions differ in shape from row to row where rows differ in length.
    ragged = any(split.lengths is not None for split in splits.values()) and (
        bool(taps) or context.head.kind is OutputKind.SEQUENCE
    )
    if context.resolved.recipe.teacher.top_k is not None:
        return _top_k(context, teacher, splits)
    if teacher.out_of_fold is None and (cache is False or (cache == "auto" and (random or ragged))):
        return teacher.source(taps)
    folders: list[tuple[Path, str | None]] = []
    for name, split in splits.items():
        folded = name == "train" and teacher.out_of_fold is not None
        made = f"/{context.extra.fingerprint}" if name == "extra" and context.extra is not None else ""
        key = cache_key(
            data=f"{context.data}/{name}{made}", teacher=f"{teacher.key}/{folded}", taps=tuple(taps), members=members
        )
        folder = context.folder / "teacher" / f"signal-{name}"
        folders.append((folder, key))
        if context.is_main and not _is_current(folder, key):
            source: TeacherSource = teacher.source(taps)
            if folded:
                assert teacher.out_of_fold is not None
                source = StoredTeacher(split.index(), teacher.out_of_fold)
            write_cache(source, split, folder, key=key, device=context.device, members=members)
    context.wait()
    for remark in teacher.remarks():
        context.warn(remark)
    if teacher.out_of_fold is None:
        _warn_of_overfitting(context, teacher)
    return CachedTeacher(*folders)


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


def _is_current(folder: Path, key: str) -> bool:
    return (folder / "cache.json").exists() and read_json(folder / "cache.json")["key"] == key
