"""Stages baseline and student: the same model and seeds, without and with the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillhouse.errors import IncompatibleError, StillhouseError
from stillhouse.forwarding import predict, to_device
from stillhouse.kinds import DEFAULT_SOFT_LOSS
from stillhouse.objectives.adapters import make_adapter
from stillhouse.objectives.schedule import parse_schedule
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.teacher import Teacher, signal
from stillhouse.pipeline.units import TrainUnit, fit_settings, train_hard, unit
from stillhouse.recipe.check import Bound, BoundTerm
from stillhouse.storage import state_digest
from stillhouse.taps import Taps, tap_shapes
from stillhouse.teachers import TeacherSource
from stillhouse.trained import Trained
from stillhouse.training.distill import distillation_step
from stillhouse.training.estimators import fit_distilled
from stillhouse.training.loop import fit
from stillhouse.training.loss import DistillationLoss, Term
from stillhouse.types import Outputs


def baseline_stage(context: RunContext) -> None:
    """Train the student's model, and the recipe's controls, on labels alone, per seed."""
    config = context.resolved.recipe.train.student
    models = [("baseline", context.folder / "baseline", context.resolved.student)]
    models += [
        (f"control {bound.id}", context.folder / control_folder(bound), bound) for bound in context.resolved.controls
    ]
    for name, folder, bound in models:
        for seed in context.resolved.recipe.seeds:
            label = f"{name}, seed {seed}"
            stage = {"stage": "baseline"} if name == "baseline" else {"stage": "control", "control": bound.id}
            unit(
                context,
                folder / f"seed-{seed}",
                bound,
                seed=seed,
                inputs={"train": config.model_dump(mode="json")},
                label=label,
                train=train_hard(context, context.splits.train, config, seed=seed, label=label, tags=stage),
            )


def control_folder(bound: Bound) -> Path:
    """Folder of a control inside the run."""
    return Path("controls") / bound.id.replace("/", "-")


def student_stage(context: RunContext, teacher: Teacher) -> None:
    """Distil the student, per seed; afterwards the teacher must be what it was."""
    recipe, config = context.resolved.recipe, context.resolved.recipe.train.student
    before = [state_digest(member.model) for member in teacher.members if member.is_network]
    for seed in recipe.seeds:
        label = f"student, seed {seed}"
        unit(
            context,
            context.folder / "student" / f"seed-{seed}",
            context.resolved.student,
            seed=seed,
            inputs={
                "train": config.model_dump(mode="json"),
                "teacher": teacher.key,
                "objectives": {
                    "alpha": recipe.objectives.alpha,
                    "terms": [
                        {
                            **context.bound_inputs(term.bound),
                            "weight": term.weight,
                            "scheduled": dict(term.scheduled),
                            "taps": [term.student, term.teacher],
                        }
                        for term in context.resolved.terms
                    ],
                },
            },
            label=label,
            train=_train_distilled(context, teacher, seed=seed, label=label),
        )
    after = [state_digest(member.model) for member in teacher.members if member.is_network]
    if before != after:
        raise StillhouseError(
            "the teacher changed during distillation",
            where="student stage",
            fix="do not share modules between teacher and student",
        )
    context.guard("teacher frozen", "parameters and buffers hashed before and after distillation are equal")


def _train_distilled(context: RunContext, teacher: Teacher, *, seed: int, label: str) -> TrainUnit:
    config = context.resolved.recipe.train.student

    def run(trained: Trained, folder: Path) -> list[dict[str, Any]]:
        if not trained.is_network:
            return _fit_estimator(context, teacher, trained, label)
        terms = make_terms(context, teacher, trained, context.resolved.terms)
        loss = DistillationLoss(context.head.hard_loss, terms, context.resolved.recipe.objectives.alpha)
        source = signal(context, teacher, loss.teacher_taps)
        _check_loss(context, trained, source, loss)
        work = fit_settings(
            context,
            trained,
            context.splits.train,
            config,
            seed=seed,
            label=label,
            tags={"stage": "student"},
            folder=folder,
        )
        work.unlabelled = context.splits.unlabelled
        work.on_epoch = loss.set_progress
        work.teacher = source
        with Taps(trained.model, loss.student_taps) as taps:
            history = fit(trained.model, distillation_step(source, loss, taps, trained.inputs), work, extra=loss)
        _warn_of_idle_terms(context, history)
        return history

    return run


def make_terms(context: RunContext, teacher: Teacher, trained: Trained, bound: Sequence[BoundTerm]) -> list[Term]:
    """The soft terms, with adapters where tapped shapes differ.

    Raises:
        IncompatibleError: a tap does not exist, an estimator is tapped, or no adapter joins the two shapes.
    """
    terms: list[Term] = []
    one = context.splits.train.batch([0, 1])
    for position, each in enumerate(bound):
        objective: nn.Module = each.bound.component.load()(**each.bound.options)
        adapter = None
        if each.student is not None and each.teacher is not None:
            master = teacher.members[0]
            if not master.is_network:
                raise IncompatibleError(
                    "an estimator has no modules to tap",
                    where=f"objectives.soft.{position}",
                    fix="use a network as teacher",
                )
            mine, theirs = (
                tap_shapes(model.model.cpu(), {name: one[name] for name in model.inputs}, [path])[path]
                for model, path in ((trained, each.student), (master, each.teacher))
            )
            master.model.to(context.device)
            if each.spec.adapts and tuple(mine) != tuple(theirs):
                try:
                    adapter = make_adapter(mine, theirs)
                except ValueError as error:
                    raise IncompatibleError(
                        str(error),
                        where=f"objectives.soft.{position}",
                        fix="tap modules whose shapes can be matched",
                    ) from error
        names = [other.name for other in terms]
        name = each.bound.id if each.bound.id not in names else f"{each.bound.id} ({position})"
        terms.append(
            Term(
                name=name,
                objective=objective,
                weight=each.weight,
                student=each.student,
                teacher=each.teacher,
                extras=each.spec.extras,
                scheduled=each.scheduled,
                adapter=adapter,
            )
        )
    return terms


def _check_loss(context: RunContext, trained: Trained, source: TeacherSource, loss: DistillationLoss) -> None:
    """Every term once on two rows before the first step, so that shapes that do not fit are told by name."""
    device = context.device
    batch = to_device(context.splits.train.batch([0, 1]), device)
    model = trained.model.to(device).eval()
    loss.to(device)
    with torch.random.fork_rng(), torch.no_grad(), Taps(model, loss.student_taps) as taps:
        student = Outputs(predict(model, batch, trained.inputs), taps.take())
        teacher = source(batch)
        if student.prediction.shape[1:] != teacher.prediction.shape[1:]:
            raise IncompatibleError(
                f"the student predicts {tuple(student.prediction.shape[1:])}, the teacher "
                f"{tuple(teacher.prediction.shape[1:])} per row",
                where="student",
                fix="both must follow task.outputs",
            )
        for term in loss.terms:
            try:
                term(student, teacher, batch, 2)
            except (RuntimeError, ValueError, IndexError) as error:
                raise IncompatibleError(
                    f"objective '{term.name}' does not fit these shapes: {error}",
                    where=f"student '{term.student or 'prediction'}', teacher '{term.teacher or 'prediction'}'",
                    fix="tap other modules, or use an objective that adapts shapes such as core/hints",
                ) from error


def _fit_estimator(context: RunContext, teacher: Teacher, trained: Trained, label: str) -> list[dict[str, Any]]:
    objectives = context.resolved.recipe.objectives
    terms = context.resolved.terms
    default = DEFAULT_SOFT_LOSS[context.head.kind]
    if len(terms) != 1 or terms[0].bound.id != default or isinstance(objectives.alpha, dict):
        raise IncompatibleError(
            f"an estimator such as '{trained.component.id}' learns from mixed targets: one soft term '{default}' "
            "and a constant alpha",
            where="objectives",
            fix="objectives: {alpha: 0.5, soft: [soft]}",
        )
    context.reporter.unit(label, 0)
    source = signal(context, teacher, ())
    parts = [context.splits.train] + ([context.splits.unlabelled] if context.splits.unlabelled is not None else [])
    columns = [part.columns([*trained.inputs, "index"]) for part in parts]
    features = torch.cat([torch.from_numpy(trained.features(each)) for each in columns]).numpy()
    predictions = torch.cat([source({**each}).prediction.cpu() for each in columns])
    target = context.splits.train.columns(["target"])["target"]
    fit_distilled(
        trained.model,
        features,
        target,
        predictions,
        kind=context.head.kind,
        alpha=parse_schedule(objectives.alpha).value(1.0),
        temperature=float(terms[0].bound.options.get("temperature", 1.0)),
    )
    context.reporter.unit_done("fitted")
    return []


def _warn_of_idle_terms(context: RunContext, history: Sequence[dict[str, Any]]) -> None:
    for record in history:
        total = sum(abs(pair["weighted"]) for pair in record["train"]["terms"].values())
        for name, pair in record["train"]["terms"].items():
            if name != "hard" and total > 0 and abs(pair["weighted"]) < 0.01 * total:
                context.warn(
                    f"term '{name}' was under 1 % of the loss for a whole epoch (first in epoch "
                    f"{record['epoch'] + 1} of seed {record['seed']}); raise its weight or drop it"
                )
                return
