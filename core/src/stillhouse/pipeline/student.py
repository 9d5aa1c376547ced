"""Stages baseline and student: the same model and seeds, without the teacher and with it, by the recipe's method."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stillhouse.errors import IncompatibleError, OptionError, StillhouseError
from stillhouse.methods import Method, MethodContext
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.elsewhere import Elsewhere
from stillhouse.pipeline.models import Piece, train_hard, trained_model
from stillhouse.pipeline.past import forget_past_teachers, teacher_on
from stillhouse.pipeline.signal import signal
from stillhouse.pipeline.stages import RECORD, SIZES
from stillhouse.pipeline.teacher import Teacher
from stillhouse.recipe.model import TrainConfig
from stillhouse.recipe.resolved import Bound, Size
from stillhouse.storage import state_digest, write_json
from stillhouse.trained import Trained, component_identity, load

FACTS = "method.json"
"""What a method noted about the training of one student or baseline, beside its weights."""
TEACHER_CHANGED = "the teacher changed during distillation"
"""What is wrong when the teacher is another one after the student's training."""


def make_method(context: RunContext) -> Method:
    """The recipe's method.

    Raises:
        OptionError: it cannot be made with its options.
    """
    bound = context.resolved.method
    try:
        method = bound.component.load()(**bound.options)
    except ValueError as error:
        raise OptionError(
            f"method '{bound.id}': {error}",
            where="method",
            fix=f"correct the options; `stillhouse show {bound.id}` tells them",
        ) from error
    if not isinstance(method, Method):
        raise IncompatibleError(
            f"method '{bound.id}' made {type(method).__name__}, not a stillhouse.methods.Method",
            where=bound.component.spec.target,
            fix="derive the class from stillhouse.methods.Method",
        )
    return method


def check_method(context: RunContext) -> None:
    """Hold the rows against what the recipe's method needs, and let it look at the recipe, before anything is trained.

    Raises:
        IncompatibleError: the rows have no groups, times or unlabelled rows, and the method needs them.
        StillhouseError: whatever the method finds wrong.
    """
    splits = context.splits
    there = {
        "groups": splits.train.groups is not None,
        "times": splits.train.times is not None,
        "unlabelled": splits.unlabelled is not None,
    }
    for need in context.resolved.method_spec.needs:
        if not there[need]:
            raise IncompatibleError(
                f"method '{context.resolved.method.id}' needs {need}, which the rows of "
                f"'{context.resolved.dataset.id}' do not have",
                where="dataset",
                fix="choose another dataset, or another method",
            )
    seed = context.resolved.recipe.seeds[0]
    for model in _models(context, "student"):
        folder = model.folder / f"seed-{seed}"
        make_method(context).check(
            method_context(
                context,
                model.bound,
                None,
                config=context.resolved.recipe.train.student,
                seed=seed,
                label=model.label,
                tags={},
                folder=folder,
            )
        )


@dataclass(frozen=True)
class _Model:
    """What a stage trains, once per seed: its name, folder and tags in the records, and the component."""

    label: str
    folder: Path
    bound: Bound
    tags: Mapping[str, Any]


def _models(context: RunContext, role: str) -> list[_Model]:
    """The baseline or the student at the recipe's own size, then at its other sizes."""
    found = [_Model(role, context.folder / role, context.resolved.student, {"stage": role})]
    for size in context.resolved.sizes:
        tags = {"stage": "sizes", "size": size.name, "model": role}
        found.append(_Model(f"{role}, {size.name}", context.folder / size_folder(size, role), size.student, tags))
    return found


def baseline_pieces(context: RunContext) -> list[Piece]:
    """The student's model, and the recipe's controls, to be trained on labels alone, per seed. The baseline is what the
    method builds and finishes, trained on labels."""
    train = context.resolved.recipe.train
    method = make_method(context)
    shared = ("build", "train_baseline", "finish")
    reshapes = any(getattr(type(method), name) is not getattr(Method, name) for name in shared)
    models = [(model, method, train.of_baseline) for model in _models(context, "baseline")]
    for bound in context.resolved.controls:
        tags = {"stage": "control", "control": bound.id}
        folder = context.folder / control_folder(bound)
        models.append((_Model(f"control {bound.id}", folder, bound, tags), Method(), train.student))
    pieces = []
    for model, owner, config in models:
        inputs: dict[str, Any] = {"train": config.model_dump(mode="json")}
        if owner is method and reshapes:
            inputs["method"] = context.bound_inputs(context.resolved.method)
        for seed in context.resolved.recipe.seeds:
            given = _seed_context(context, model, None, seed, config)
            make = partial(
                trained_model,
                context,
                given.folder,
                model.bound,
                seed=seed,
                inputs=inputs,
                label=given.label,
                make=partial(_on_labels, context, given, owner),
            )
            pieces.append(Piece(given.label, model.label, config.epochs, make))
    return pieces


def baseline_stage(context: RunContext) -> None:
    """Make all that `baseline_pieces` has."""
    for piece in baseline_pieces(context):
        piece.make()
    train = context.resolved.recipe.train
    own, shared = train.of_baseline.model_dump(mode="json"), train.student.model_dump(mode="json")
    if other := [f"{name} {own[name]} (student: {shared[name]})" for name in own if own[name] != shared[name]]:
        context.guard("baseline trained as labels alone want it", ", ".join(other))


def _seed_context(
    context: RunContext, model: _Model, teacher: Teacher | None, seed: int, config: TrainConfig
) -> MethodContext:
    return method_context(
        context,
        model.bound,
        teacher,
        config=config,
        seed=seed,
        label=f"{model.label}, seed {seed}",
        tags=model.tags,
        folder=model.folder / f"seed-{seed}",
    )


def _on_labels(context: RunContext, given: MethodContext, method: Method) -> tuple[Trained, list[dict[str, Any]]]:
    student = method.build(given)
    if type(method).train_baseline is not Method.train_baseline:
        student = method.finish(given, method.train_baseline(given, student))
        _write_facts(context, given)
        return student, given.history
    history = train_hard(
        context,
        student,
        context.splits.train,
        given.config,
        seed=given.seed,
        label=given.label,
        tags=given.tags,
        folder=given.folder,
    )
    return method.finish(given, student), history


def _write_facts(context: RunContext, given: MethodContext) -> None:
    if given.notes and context.is_main:
        write_json(given.folder / FACTS, given.notes)


def control_folder(bound: Bound) -> Path:
    """Folder of a control inside the run."""
    return Path("controls") / re.sub(r"[/:]", "-", bound.id)


def size_folder(size: Size, role: str) -> Path:
    """Folder of the baseline or the student at another size, inside the run."""
    return Path(SIZES) / size.name / role


def student_labels(context: RunContext) -> list[tuple[str, str]]:
    """Label and role of each of `student_pieces`, which need the teacher."""
    seeds = context.resolved.recipe.seeds
    return [(f"{model.label}, seed {seed}", model.label) for model in _models(context, "student") for seed in seeds]


def student_pieces(context: RunContext, teacher: Teacher) -> list[Piece]:
    """The student, at its own size and the others, to be distilled per seed."""
    recipe, config = context.resolved.recipe, context.resolved.recipe.train.student
    inputs: dict[str, Any] = {
        "train": config.model_dump(mode="json"),
        "teacher": teacher.key,
        "method": context.bound_inputs(context.resolved.method),
        "objectives": {
            **recipe.objectives.model_dump(mode="json", exclude={"soft"}),
            "terms": [
                {**component_identity(term.bound.component), "term": term.to_recipe()}
                for term in context.resolved.terms
            ],
        },
    }
    if context.extra is not None:
        inputs["extra_rows"] = context.extra.fingerprint
    if recipe.teacher.top_k is not None:
        inputs["top_k"] = recipe.teacher.top_k
    if recipe.teacher.cache_precision != "float32":
        inputs["cache_precision"] = recipe.teacher.cache_precision
    pieces = []
    for model in _models(context, "student"):
        for seed in recipe.seeds:
            given = _seed_context(context, model, teacher, seed, config)
            make = partial(
                trained_model,
                context,
                given.folder,
                model.bound,
                seed=seed,
                inputs=inputs,
                label=given.label,
                make=partial(_distilled, context, given),
            )
            pieces.append(Piece(given.label, model.label, config.epochs, make))
    return pieces


def distil(context: RunContext, teacher: Teacher, pieces: Sequence[Piece]) -> None:
    """Make students; afterwards the teacher must be what it was.

    Raises:
        StillhouseError: it is not; none of the students counts as finished then.
    """
    before = [state_digest(member.model) for member in teacher.members if member.is_network]
    for piece in pieces:
        piece.make()
    after = [state_digest(member.model) for member in teacher.members if member.is_network]
    if before != after:
        for model in _models(context, "student"):  # not to be taken for finished when the run is started again
            for seed in context.resolved.recipe.seeds:
                (model.folder / f"seed-{seed}" / RECORD).unlink(missing_ok=True)
        raise StillhouseError(
            TEACHER_CHANGED,
            where="student stage",
            fix="do not share modules between teacher and student",
        )


def student_stage(context: RunContext, teacher: Teacher) -> None:
    """Make all that `student_pieces` has."""
    distil(context, teacher, student_pieces(context, teacher))
    forget_past_teachers(context)
    context.guard("teacher frozen", "parameters and buffers hashed before and after distillation are equal")


def _distilled(context: RunContext, given: MethodContext) -> tuple[Trained, list[dict[str, Any]]]:
    method = make_method(context)
    student = method.finish(given, method.train(given, method.build(given)))
    _write_facts(context, given)
    return student, given.history


def method_context(
    context: RunContext,
    bound: Bound,
    teacher: Teacher | None,
    *,
    config: TrainConfig,
    seed: int,
    label: str,
    tags: Mapping[str, Any],
    folder: Path,
) -> MethodContext:
    """What a method is given for one seed of a run; without a teacher for the baseline."""
    recipe = context.resolved.recipe
    return MethodContext(
        splits=context.splits,
        head=context.head,
        student=bound,
        teachers=tuple(teacher.members) if teacher is not None else (),
        terms=context.resolved.terms,
        alpha=recipe.objectives.alpha,
        config=config,
        seed=seed,
        accelerator=context.accelerator(config.precision),
        reporter=context.reporter,
        label=label,
        tags=tags,
        folder=folder,
        teacher_source=lambda taps, members: signal(context, _present(teacher), taps, members=members),
        bind=context.bind,
        load=lambda path: load(path, context.registry, context.splits.info),
        warn=context.warn,
        teacher_on=lambda positions: teacher_on(context, _present(teacher), positions).source(),
        elsewhere=Elsewhere(
            manager=context.manager,
            recipe=context.resolved.to_recipe(),
            base=str(context.resolved.base.resolve()),
            run=str(context.folder.resolve()),
            student=bound.to_recipe(),
            seed=seed,
            label=label,
            folder=str(folder.resolve()),
        ),
    )


def _present(teacher: Teacher | None) -> Teacher:
    if teacher is None:
        raise StillhouseError(
            "there is no teacher yet",
            where="method",
            fix="check, build and finish of a method must not ask for the teacher",
        )
    return teacher
