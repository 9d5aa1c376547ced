"""What a run would do and what is wrong with it, told without training: the rows are made, every model is built, every
fit takes a few steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.evaluation.measure import parameters
from stillhouse.methods import Method
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.data import classes_of
from stillhouse.pipeline.extra_rows import is_service
from stillhouse.pipeline.leakage import leaks
from stillhouse.pipeline.models import is_in_store, member_seed
from stillhouse.pipeline.opening import checks_before_training, open_context, untrained
from stillhouse.pipeline.rehearsal import (
    RehearsalContext,
    Rehearsed,
    StandIn,
    Stopwatch,
    few_rows,
    prediction_shape,
    rehearse,
)
from stillhouse.pipeline.runner import with_changes
from stillhouse.pipeline.signal import is_stored
from stillhouse.pipeline.student import make_method, method_context
from stillhouse.pipeline.teacher import Teacher, fold_names, from_checkpoint, member_inputs
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.progress import Reporter, Silent
from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import Recipe, TrainConfig
from stillhouse.recipe.resolved import Bound, ResolvedRecipe
from stillhouse.teachers import TeacherSource
from stillhouse.trained import Trained, is_asked
from stillhouse.training.learner import Supervised
from stillhouse.training.loop import Fit
from stillhouse.types import Splits


@dataclass
class Planned:
    """One model of a run.

    Attributes:
        role: "teacher", "baseline", "student", "control" or a size.
        component: its id.
        form: "network", "estimator", "asked" or "checkpoint".
        parameters: None where they are not known before it is fitted.
        trainings: how often it is trained (seeds, folds).
        fits: of one training, rehearsed; empty for all but networks.
        in_store: so many of the trainings were made by earlier runs and are kept.
    """

    role: str
    component: str
    form: str
    parameters: int | None = None
    trainings: int = 1
    fits: list[Rehearsed] = field(default_factory=list)
    in_store: int = 0

    @property
    def steps(self) -> int:
        """Of one training."""
        return sum(fit.epochs * fit.steps for fit in self.fits)

    @property
    def seconds(self) -> float | None:
        """Of all trainings that are to be made; None where it is not known."""
        left = self.trainings - self.in_store
        if left <= 0 or self.form in ("asked", "checkpoint"):
            return 0.0
        return left * sum(fit.seconds for fit in self.fits) if self.fits else None


@dataclass
class Checked:
    """What `check` found.

    Attributes:
        recipe: its name.
        dataset: ``id``, ``rows`` by split, ``inputs`` (shape and dtype), ``simulated``, ``classes`` and
            ``event`` (see `stillhouse.pipeline.data.classes_of`).
        head: ``id``, ``kind``, ``outputs``, ``primary``.
        models: what would be trained, in order.
        labelling_seconds: of the teacher's answers for the training rows, kept once; None where it is not known.
        memory_bytes: the most that this process has used, rows and steps included; None where the system does not tell.
        problems: what is wrong.
        warnings: what the user should know.
    """

    recipe: str
    dataset: dict[str, Any] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    models: list[Planned] = field(default_factory=list)
    labelling_seconds: float | None = None
    memory_bytes: int | None = None
    problems: list[StillhouseError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of all trainings of networks, one after the other, and of labelling."""
        return sum(model.seconds or 0.0 for model in self.models) + (self.labelling_seconds or 0.0)

    @property
    def unknown(self) -> list[str]:
        """Components whose time is not part of `seconds`: estimators, which are fitted at once."""
        return list(dict.fromkeys(model.component for model in self.models if model.seconds is None))

    def describe(self) -> dict[str, Any]:
        """JSON-ready values."""
        models = [
            {
                **asdict(model),
                "steps": model.steps,
                "seconds": model.seconds,
                "fits": [asdict(fit) for fit in model.fits],
            }
            for model in self.models
        ]
        problems = [
            {"class": type(each).__name__, "what": each.what, "where": each.where, "fix": each.fix}
            for each in self.problems
        ]
        return {
            "recipe": self.recipe,
            "dataset": self.dataset,
            "head": self.head,
            "models": models,
            "seconds": self.seconds,
            "seconds_without": self.unknown,
            "labelling_seconds": self.labelling_seconds,
            "memory_bytes": self.memory_bytes,
            "problems": problems,
            "warnings": self.warnings,
        }


def check(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    overrides: Iterable[str] = (),
    seeds: Iterable[int] | None = None,
    sizes: Mapping[str, Any] | None = None,
    download: bool = False,
    manager: Manager | None = None,
    reporter: Reporter | None = None,
) -> Checked:
    """Check a recipe: files and rows, every model, every fit for a few steps on a few rows. Nothing is trained, and no
    folder is left behind.

    Args:
        recipe: a recipe's id, a YAML file, a mapping, or a `Recipe`.
        overrides: ``path=value`` changes to the recipe.
        seeds: see `stillhouse.run`.
        sizes: see `stillhouse.run`.
        download: missing datasets may be downloaded.
        manager: plugins to use, the installed ones by default.
        reporter: receives what happens; silent by default.

    Raises:
        StillhouseError: the recipe cannot be read, or its rows cannot be made. What is wrong beyond that is in
            `Checked.problems`.
    """
    registry = (manager or default_manager()).registry
    resolved = resolve(recipe, registry, overrides=with_changes(overrides, seeds, sizes))
    if resolved.extra_rows is not None and is_service(resolved.extra_rows):
        resolved = replace(resolved, extra_rows=None)  # nothing is asked, and so nothing paid for, by a check
    with tempfile.TemporaryDirectory(prefix="stillhouse-check-") as folder:
        context = open_context(resolved, Path(folder), registry, reporter or Silent(), download=download)
        checked = Checked(resolved.recipe.name)
        info = context.splits.info
        checked.dataset = {
            "id": resolved.dataset.id,
            "rows": {name: len(split) for name, split in context.splits.named().items()}
            | {name: len(split) for name, split in context.unlabelled().items()},
            "inputs": {name: {"shape": list(spec.shape), "dtype": spec.dtype} for name, spec in info.inputs.items()},
            "simulated": info.simulated,
            **classes_of(info, context.head),
        }
        checked.head = {
            "id": resolved.head.id,
            "kind": str(context.head.kind),
            "outputs": context.head.outputs,
            "primary": context.head.primary,
        }
        _attempt(checked, partial(_warn_of_leaks, context))
        for _, step in checks_before_training(context):
            _attempt(checked, step)
        _Rehearsal(context, checked).all()
        checked.warnings = [*context.warnings, *_of_small_teacher(checked.models), *_of_writing(resolved)]
        checked.memory_bytes = _most_memory()
        return checked


def _warn_of_leaks(context: RunContext) -> None:
    for each in leaks(context.splits, name=context.resolved.dataset.id):
        context.warn(each)


def _of_small_teacher(models: Sequence[Planned]) -> list[str]:
    """A warning where the teacher has fewer parameters than its student; nothing where they are not known."""
    teachers = [each.parameters for each in models if each.role == "teacher"]
    student = next((each.parameters for each in models if each.role == "student"), None)
    if not teachers or None in teachers or student is None:
        return []
    teacher = sum(each or 0 for each in teachers)
    if teacher >= student:
        return []
    return [
        f"the teacher has {teacher:,} parameters, fewer than the student ({student:,}): as a rule it knows no more; "
        "take a larger one, or a smaller student"
    ]


def _of_writing(resolved: ResolvedRecipe) -> list[str]:
    """A warning where texts are written by models that have not learnt where one ends."""
    if "writes" not in resolved.head.component.spec.tags:
        return []
    return [
        "untrained models write every text to its greatest length, so that the times of a method or a validation that "
        "has texts written are upper bounds, and of one that learns what was written too"
    ]


def _attempt(checked: Checked, step: Callable[[], Any], known: Collection[str] = ()) -> bool:
    """Do a step; what it finds wrong is kept, unless it was known before."""
    try:
        step()
    except StillhouseError as error:
        # A model that cannot be built is met again by its rehearsal.
        if error.what not in known:
            checked.problems.append(error)
        return False
    return True


class _Rehearsal:
    """Every model of a run, built and led through its first steps."""

    def __init__(self, context: RunContext, checked: Checked) -> None:
        self._context, self._checked, self._resolved = context, checked, context.resolved
        config = context.resolved.recipe.train
        self._few = few_rows(context.splits, max(config.teacher.batch_size, config.student.batch_size))

    def all(self) -> None:
        """Teachers, baseline, controls, student, then the other sizes."""
        resolved, seeds = self._resolved, len(self._resolved.recipe.seeds)
        sources = self._teachers()
        models = [("", resolved.student), *((f", {size.name}", size.student) for size in resolved.sizes)]
        for suffix, bound in models:
            planned = self._planned(f"baseline{suffix}", bound, trainings=seeds)
            self._attempt(partial(self._baseline, bound, planned, None))
        for control in resolved.controls:
            planned = self._planned("control", control, trainings=seeds)
            self._attempt(partial(self._baseline, control, planned, Method()))
        for suffix, bound in models:
            planned = self._planned(f"student{suffix}", bound, trainings=seeds)
            self._attempt(partial(self._student, bound, planned, sources))

    def _attempt(self, step: Callable[[], Any]) -> bool:
        return _attempt(self._checked, step, [each.what for each in self._checked.problems])

    def _planned(self, role: str, bound: Bound, *, trainings: int) -> Planned:
        planned = Planned(role, bound.id, "network", trainings=trainings)
        self._checked.models.append(planned)
        return planned

    def _built(self, bound: Bound, planned: Planned, *, seed: int | None = None) -> Trained:
        built = untrained(self._context, bound, seed=seed)
        planned.form = "network" if built.is_network else "estimator"
        planned.parameters = parameters(built.model) if built.is_network else None
        return built

    def _teachers(self) -> list[Trained]:
        """The members, untrained; none where one cannot be built or is asked."""
        found = list[Trained]()
        rehearsed: list[tuple[Bound, Planned]] = []
        for bound in self._resolved.teachers:
            folds = self._resolved.recipe.teacher.out_of_fold
            planned = self._planned("teacher", bound, trainings=1 + folds)
            twins = [other for known, other in rehearsed if (known.id, known.options) == (bound.id, bound.options)]
            if self._attempt(partial(self._teacher, bound, planned, twins[:1], found)):
                rehearsed.append((bound, planned))
        return found if len(found) == len(self._resolved.teachers) else []

    def _teacher(self, bound: Bound, planned: Planned, twins: list[Planned], found: list[Trained]) -> None:
        """One member, added to ``found``; a twin has been rehearsed before."""
        recipe = self._resolved.recipe
        if recipe.teacher.checkpoint is not None:
            planned.form = "checkpoint"
            found.append(from_checkpoint(self._context, self._resolved.base / recipe.teacher.checkpoint)[0])
            planned.parameters = parameters(found[-1].model)
            return
        if is_asked(bound.component):
            planned.form = "asked"
            return
        config, seed = recipe.train.teacher, member_seed(bound, recipe.teacher.seed)
        built = self._built(bound, planned, seed=seed)
        found.append(built)
        for part in fold_names(recipe.teacher.out_of_fold):
            planned.in_store += is_in_store(self._context, bound, seed=seed, inputs=member_inputs(config, part))
        if twins:
            planned.fits = twins[0].fits
        elif built.is_network:
            planned.fits.append(self._supervised(built, config, seed, "teacher"))

    def _supervised(self, built: Trained, config: TrainConfig, seed: int, label: str) -> Rehearsed:
        work = Fit(
            train=self._few.train,
            val=self._few.val,
            head=self._context.head,
            config=config,
            seed=seed,
            accelerator=self._context.accelerator(config.precision),
            reporter=Silent(),
            label=label,
        )
        learner = Supervised(built.model, built.inputs, self._context.head.hard_loss)
        whole: Splits = self._context.splits
        return rehearse(learner, work, rows=len(whole.train), judged_rows=len(whole.val))

    def _baseline(self, bound: Bound, planned: Planned, method: Method | None) -> None:
        built = self._built(bound, planned)
        if not built.is_network:
            return
        owner = method or make_method(self._context)
        train = self._resolved.recipe.train
        config = train.student if method is not None else train.of_baseline
        given = self._method_context(bound, planned.role, None, config)
        student = owner.build(given)
        student = owner.finish(given, owner.train_baseline(given, student))
        planned.fits = list(given.fits)
        planned.parameters = parameters(student.model)

    def _student(self, bound: Bound, planned: Planned, members: list[Trained]) -> None:
        built = self._built(bound, planned)
        if not built.is_network:
            return  # it is fitted at once; what it cannot learn from is told by the checks before
        speaks = bool(members) and all(member.is_network for member in members)
        if not speaks and any(term.teacher is not None for term in self._resolved.terms):
            return  # there is no teacher to tap, which has been told
        watches: list[Stopwatch] = []
        members = members if speaks else []
        config = self._resolved.recipe.train.student
        given = self._method_context(bound, planned.role, self._source(built, members, watches), config, members)
        method = make_method(self._context)
        student = method.finish(given, method.train(given, method.build(given)))
        planned.fits = list(given.fits)
        planned.parameters = parameters(student.model)
        asked = [watch for watch in watches if watch.rows]
        if members and asked:
            rows = len(self._context.splits.train)
            rows += sum(len(part) for part in self._context.unlabelled().values())
            self._checked.labelling_seconds = asked[0].seconds / asked[0].rows * rows

    def _source(
        self, built: Trained, members: list[Trained], watches: list[Stopwatch]
    ) -> Callable[[Any, bool], TeacherSource]:
        """What the student is rehearsed with: the teacher untrained, or numbers where it has nothing to say; where its
        outputs would be stored, its time is counted apart."""
        shape = prediction_shape(built, self._few, self._context.device)
        weights = [bound.weight for bound in self._resolved.teachers]
        for member in members:
            member.model.to(self._context.device).eval()

        def ask(taps: Any, _: bool) -> TeacherSource:
            source: TeacherSource = StandIn(shape, len(weights))
            if members:
                source = Teacher(members, weights, self._context.head.kind, "").source(taps)
            if not is_stored(self._context, taps):
                return source
            watches.append(Stopwatch(source))
            return watches[-1]

        return ask

    def _method_context(
        self, bound: Bound, label: str, source: Any, config: TrainConfig, members: Sequence[Trained] = ()
    ) -> RehearsalContext:
        given = method_context(
            self._context,
            bound,
            None,
            config=config,
            seed=self._resolved.recipe.seeds[0],
            label=label,
            tags={"stage": label},
            folder=self._context.folder,
        )
        changes: dict[str, Any] = {"teachers": tuple(members)}
        if source is not None:
            changes |= {"teacher_source": source, "teacher_on": lambda _: source((), False)}
        return RehearsalContext.of(given, self._few, **changes)


def _most_memory() -> int | None:
    """The most memory that this process has had, in bytes."""
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
