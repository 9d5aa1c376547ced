"""One trained model in a folder: trained, fitted, resumed, taken from the store of teachers, or found complete."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.methods.phases import PHASES
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.stages import finish, why_stale
from stillhouse.recipe.model import TrainConfig
from stillhouse.recipe.resolved import Bound
from stillhouse.storage import RULES, cache_folder, digest, read_json, replacing_folder, write_json, write_text
from stillhouse.trained import Trained, load
from stillhouse.training.estimators import fit_hard
from stillhouse.training.learner import Supervised
from stillhouse.training.loop import Fit, fit
from stillhouse.training.threads import limited_threads, share
from stillhouse.types import Split

FIT = "fit.json"
"""How long the fit of an estimator took, which has no epochs."""
MakeModel = Callable[[], tuple[Trained, list[dict[str, Any]]]]
"""Builds and trains a model inside its folder; returns it with one record per epoch."""


@dataclass(frozen=True)
class Piece:
    """One trained model of a stage; the pieces of a stage do not depend on each other.

    Attributes:
        label: what to call it.
        role: "teacher", "baseline", "control" or "student": what takes about as long.
        epochs: of its trainings, as far as the recipe tells.
        make: makes it, or finds it complete.
    """

    label: str
    role: str
    epochs: int
    make: Callable[[], Trained]


def trained_model(
    context: RunContext,
    folder: Path,
    bound: Bound,
    *,
    seed: int,
    inputs: Mapping[str, Any],
    label: str,
    make: MakeModel,
    predictions: bool = True,
    shared: bool = False,
) -> Trained:
    """The trained model of ``folder``, made if it is not there or its inputs changed.

    Args:
        context: the run.
        folder: of this model alone.
        bound: its component and options.
        seed: of its weights and training.
        inputs: all that it depends on; a change repeats it and says why.
        label: what to call it.
        make: builds and trains it.
        predictions: write its predictions of validation and test rows.
        shared: keep it in the store, and take it from there when another run made it from exactly these inputs; not
            where several processes train it.
    """
    # Each of several processes draws for its own rows (dropout), so that their model is another than one process makes.
    shared = shared and context.processes == 1
    everything = _everything(context, bound, seed, inputs)
    reason = why_stale(folder, everything)
    context.wait()
    if reason is None:
        return load(folder, context.registry, context.splits.info)
    key = _key(everything)
    stored = (context.store or _store()) / key
    if context.is_main:
        _prepare(context, folder, key, reason, label)
    context.wait()
    if shared and (stored / "done.json").exists():
        context.reporter.model(label, 0)
        if context.is_main:
            with replacing_folder(folder) as temporary:
                shutil.copytree(stored, temporary, dirs_exist_ok=True)
        context.wait()
        context.reporter.model_done("taken from the store: an earlier run made it from exactly these inputs")
        trained = load(folder, context.registry, context.splits.info)
        if predictions and context.is_main:
            context.write_predictions(folder, trained)
        context.wait()
        return trained
    began = time.perf_counter()
    trained, history = make()
    took = time.perf_counter() - began
    trained.merge()
    if context.is_main:
        trained.save(folder)
        write_text(folder / "history.jsonl", "".join(json.dumps(record) + "\n" for record in history))
        if not trained.is_network:
            write_json(folder / FIT, {"seconds": round(took, 3)})
        if shared:
            _keep(folder, stored, everything)
        if predictions:
            context.write_predictions(folder, trained)
        finish(folder, everything)
        for leftover in ("checkpoint.pt", "key.json"):
            (folder / leftover).unlink(missing_ok=True)
        shutil.rmtree(folder / PHASES, ignore_errors=True)
    context.wait()
    return trained


def is_in_store(context: RunContext, bound: Bound, *, seed: int, inputs: Mapping[str, Any]) -> bool:
    """Whether an earlier run kept this model in the store."""
    key = _key(_everything(context, bound, seed, inputs))
    return ((context.store or _store()) / key / "done.json").exists()


def _everything(context: RunContext, bound: Bound, seed: int, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {**context.common_inputs(), "model": context.bound_inputs(bound), "seed": seed, **inputs}


def _key(everything: Mapping[str, Any]) -> str:
    return digest(json.loads(json.dumps(everything, default=str)))


def _prepare(context: RunContext, folder: Path, key: str, reason: str | None, label: str) -> None:
    """Clear what was made from other inputs; keep a checkpoint that belongs to these."""
    if reason:
        context.make_again(f"{label}: {reason}")
        context.reporter.stage(label, f"made again: {reason}")
    path = folder / "key.json"
    if folder.exists() and (not path.exists() or read_json(path) != key):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, key)


def _store() -> Path:
    """Folder of teachers that runs share."""
    return cache_folder() / "teachers"


def _keep(folder: Path, stored: Path, everything: Mapping[str, Any]) -> None:
    try:
        with replacing_folder(stored) as temporary:
            for name in ("model.json", "model.safetensors", "estimator.skops", RULES, "history.jsonl", FIT):
                if (folder / name).exists():
                    shutil.copy2(folder / name, temporary / name)
            finish(temporary, everything)
    except OSError:
        pass  # a store that cannot be written costs time in the next run, nothing in this one


def train_hard(
    context: RunContext,
    trained: Trained,
    rows: Split,
    config: TrainConfig,
    *,
    seed: int,
    label: str,
    tags: Mapping[str, Any],
    folder: Path,
) -> list[dict[str, Any]]:
    """Training on labels alone: teachers and baselines. One record per epoch; none for an estimator."""
    if not trained.is_network:
        context.reporter.model(label, 0)
        columns = rows.columns()
        with limited_threads(share()):
            fit_hard(trained.model, trained.features(columns), columns["target"], trained.task)
        context.reporter.model_done("fitted")
        return []
    learner = Supervised(trained.model, trained.inputs, context.head.hard_loss)
    return fit(
        learner,
        Fit(
            train=rows,
            val=context.splits.val,
            head=context.head,
            config=config,
            seed=seed,
            folder=folder,
            accelerator=context.accelerator(config.precision),
            reporter=context.reporter,
            label=label,
            tags={**tags, "seed": seed},
        ),
    )


def member_seed(bound: Bound, fallback: int) -> int:
    """Seed of an ensemble's member."""
    return fallback if bound.seed is None else bound.seed
