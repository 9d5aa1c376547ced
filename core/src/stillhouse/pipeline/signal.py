"""What students learn from: the teacher's outputs of the training rows, stored in shards or asked for in every step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from stillhouse.data.splitting import spread_positions
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.stages import SIGNAL_LOCK
from stillhouse.pipeline.teacher import Teacher
from stillhouse.storage import read_json, read_tensors
from stillhouse.teachers import CachedTeacher, StoredTeacher, TeacherSource, TopKTeacher
from stillhouse.teachers.cached import cache_key, check_storable, entries_of, filling
from stillhouse.teachers.shards import SHARD_ROWS, Fill, Shards
from stillhouse.teachers.top_k import filling_top_k, shards_of_tokens, summarise_top_k
from stillhouse.types import Split

LOST = 0.1
"""KL divergence, in nats a token, from which the likeliest tokens are called too few."""
OVERFIT = 3.0
"""Validation loss over training loss from which a teacher is called overfit."""
LOOKED_AT = 20_000
"""Training rows, spread over all of them, that say whether it is."""


@dataclass(frozen=True)
class Stored:
    """What is stored of the teacher for one split.

    Attributes:
        name: of the split: train, unlabelled or extra.
        shards: where it is.
        fill: writes a shard.
        top_k: it is the likeliest tokens of each position.
        folded: it comes from copies of the teacher that are asked at once for all rows.
    """

    name: str
    shards: Shards
    fill: Fill
    top_k: bool
    folded: bool

    def finish(self) -> dict[str, Any]:
        """Record that all shards are there."""
        return self.shards.finish(summarise_top_k if self.top_k else None)


def signal(context: RunContext, teacher: Teacher, taps: Sequence[str], *, members: bool = False) -> TeacherSource:
    """What the student learns from: stored outputs unless rows are augmented at random, the method changes inputs in
    its steps, or the recipe says otherwise."""
    if not is_stored(context, taps):
        return teacher.source(taps)
    entries = entries_of(taps, members and len(teacher.members) > 1)
    # Students in processes side by side share what is stored: one writes it, the others find it.
    with FileLock(context.folder / SIGNAL_LOCK) if context.is_main else nullcontext():
        if context.is_main:
            for each in stored(context, teacher, entries):
                for number in range(0 if each.shards.is_done else len(each.shards)):
                    each.shards.make(number, each.fill)
                each.finish()
        context.wait()
        folders = [(_folder(context, name), _key(context, teacher, name)) for name in labelled_splits(context)]
        if context.resolved.recipe.teacher.top_k is not None:
            return _top_k(context, folders)
        for remark in teacher.remarks():
            context.warn(remark)
        found = CachedTeacher(*folders, entries=entries)
        if teacher.out_of_fold is None:
            _warn_of_overfitting(context, CachedTeacher(folders[0], entries=["prediction"]))
        return found


def labelled_splits(context: RunContext) -> dict[str, Split]:
    """Rows that the teacher speaks of, by name."""
    return {"train": context.splits.train, **context.unlabelled()}


def stored(
    context: RunContext,
    teacher: Teacher,
    entries: Sequence[str],
    *,
    shard_rows: int | None = None,
    labelled: bool = False,
) -> list[Stored]:
    """What is to be stored of each split, begun in its folder.

    Args:
        context: the run.
        teacher: the recipe's.
        entries: see `stillhouse.teachers.cached.entries_of`; a folder that has more will do.
        shard_rows: rows of a shard.
        labelled: see `stillhouse.teachers.shards.Shards`.

    Raises:
        RunFolderError: a folder has labelled outputs of other rows or another teacher.
        IncompatibleError: rows whose outputs cannot be stored.
    """
    config, found = context.resolved.recipe.teacher, []
    for name, split in labelled_splits(context).items():
        folder, key = _folder(context, name), _key(context, teacher, name)
        if config.top_k is not None:
            outputs = context.head.outputs
            shards = shards_of_tokens(folder, split, key, outputs=outputs, rows=shard_rows, labelled=labelled)
            fill = filling_top_k(teacher.source(), k=config.top_k, outputs=outputs, device=context.device)
            found.append(Stored(name, shards, fill, True, False))
            continue
        check_storable(split)
        shards = Shards(folder, split, key, rows=shard_rows or SHARD_ROWS, entries=entries, labelled=labelled)
        # What is stored decides what is asked: a folder may have been begun with more than is wanted now.
        has = read_json(folder / "plan.json")["entries"]
        taps = [each.removeprefix("feature ") for each in has if each.startswith("feature ")]
        source, folded = teacher.source(taps), name == "train" and teacher.out_of_fold is not None
        if folded:
            source = _out_of_fold(teacher, split)
        fill = filling(
            source,
            device=context.device,
            members="members" in has,
            precision=config.cache_precision,
            ragged=split.lengths is not None,
        )
        found.append(Stored(name, shards, fill, False, folded))
    return found


def _out_of_fold(teacher: Teacher, split: Split) -> TeacherSource:
    """The training rows' predictions by copies that have not seen them; computed when the first is asked for."""
    assert teacher.out_of_fold is not None
    predictions = teacher.out_of_fold
    made = cache(lambda: StoredTeacher(split.index(), predictions()))
    return lambda batch: made()(batch)


def _folder(context: RunContext, name: str) -> Path:
    return context.folder / "teacher" / f"signal-{name}"


def _key(context: RunContext, teacher: Teacher, name: str) -> str:
    config = context.resolved.recipe.teacher
    made = f"/{context.extra.fingerprint}" if name == "extra" and context.extra is not None else ""
    folded = "/out of fold" if name == "train" and teacher.out_of_fold is not None else ""
    precision = config.cache_precision if config.top_k is None else f"top {config.top_k}"
    return cache_key(data=f"{context.data}/{name}{made}", teacher=f"{teacher.key}{folded}", precision=precision)


def _top_k(context: RunContext, folders: Sequence[tuple[Path, str]]) -> TeacherSource:
    """The likeliest tokens of each position; how much that leaves out is in the manifest."""
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


def _warn_of_overfitting(context: RunContext, found: CachedTeacher) -> None:
    """Warn when the teacher overfits: on its training rows it repeats the labels and teaches nothing else.

    Not where it speaks of more rows without a label than with one: there it says more than labels do.
    """
    if context.splits.unlabelled is not None and len(context.splits.unlabelled) > len(context.splits.train):
        return
    losses = {}
    for name, split in (("train", context.splits.train), ("val", context.splits.val)):
        rows = split.columns(["target", "index", *context.head.row_entries()])
        if name == "train":
            if len(split) > LOOKED_AT:
                some = torch.tensor(spread_positions(len(split), LOOKED_AT))
                rows = {entry: column[some] for entry, column in rows.items()}
            prediction = found(rows).prediction
        else:
            # Validation was predicted when the teacher was done; a teacher that is a service need not answer again.
            prediction = read_tensors(context.folder / "teacher" / "predictions" / "val.safetensors")["prediction"]
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
    wanted = context.resolved.recipe.teacher.cache
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
    return not (wanted is False or (wanted == "auto" and (random or ragged)))
