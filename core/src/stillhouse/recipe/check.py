"""Checks of a recipe against the installed components, all before anything heavy starts: ids, options, and whether the
parts fit each other by their specs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic

from stillhouse.errors import IncompatibleError, OptionError, PluginError, RecipeError, StillhouseError
from stillhouse.kinds import DEFAULT_SOFT_LOSS, OutputKind
from stillhouse.objectives.schedule import parse_schedule
from stillhouse.plugins.registry import Registry
from stillhouse.plugins.specs import (
    AugmenterSpec,
    DatasetSpec,
    HeadSpec,
    MethodSpec,
    MetricSpec,
    ModelSpec,
    TeacherSpec,
)
from stillhouse.recipe.model import (
    ComponentRef,
    Recipe,
    SoftTerm,
    TrainConfig,
)
from stillhouse.recipe.read import apply_overrides, load_recipe, locate
from stillhouse.recipe.resolved import Bound, BoundTerm, ResolvedRecipe, Size, bind
from stillhouse.recipe.text import Path_

PRETRAINED = ("pretrained", "weights")
"""Options of models that say which trained weights they start from."""


def resolve(
    given: str | Path | Mapping[str, Any] | Recipe, registry: Registry, *, overrides: Iterable[str] = ()
) -> ResolvedRecipe:
    """Read a recipe and hold it against the registry.

    Raises:
        RecipeError: a field is wrong.
        UnknownComponentError: an id that no active plugin provides.
        OptionError: an option that a component does not have or take.
        IncompatibleError: parts that do not fit, e.g. a softmax objective with a regression head; with the reason.
    """
    recipe, source, lines, base = load_recipe(given, registry, overrides=overrides)
    checker = _Checker(registry, source, lines)
    head = checker.bind("head", ("head",), recipe.head)
    dataset = checker.bind("dataset", ("dataset",), recipe.dataset)
    single = not recipe.teacher.members
    teachers = tuple(
        checker.bind(
            "teacher",
            ("teacher",) if single else ("teacher", "members", position),
            each,
        )
        for position, member in enumerate(recipe.teacher.as_members())
        for each in member.copies(recipe.teacher.seed)
    )
    student = checker.bind("student", ("student",), recipe.student)
    spec = head.component.spec
    assert isinstance(spec, HeadSpec)
    checker.check_dataset(dataset, spec)
    extra_rows = checker.bind_extra_rows(recipe, spec)
    for position, model in enumerate((*teachers, student)):
        checker.check_model(model, spec, ("student",) if position == len(teachers) else ("teacher",))
    terms = tuple(checker.bind_term(recipe, position, spec) for position in range(len(recipe.objectives.soft)))
    checker.check_schedule(recipe.objectives.alpha, ("objectives", "alpha"))
    checker.check_asked(recipe, teachers, terms)
    checker.check_taps(recipe, terms, teachers)
    checker.check_top_k(recipe, spec, terms)
    method = checker.bind_method(recipe, spec, student, terms)
    metrics = tuple(checker.bind("metric", ("metrics", position), ref) for position, ref in enumerate(recipe.metrics))
    for position, metric in enumerate(metrics):
        assert isinstance(metric.component.spec, MetricSpec)
        if spec.output not in metric.component.spec.kinds:
            raise IncompatibleError(
                f"metric '{metric.id}' does not suit {spec.output} heads such as '{head.id}'",
                where=checker.at("metrics", position),
                fix="remove it",
            )
    controls = tuple(
        checker.bind("student", ("controls", position), ref) for position, ref in enumerate(recipe.controls)
    )
    for position, control in enumerate(controls):
        checker.check_model(control, spec, ("controls", position))
    sizes = checker.bind_sizes(recipe, student)
    recipe = checker.with_fine_tuning(recipe, teachers, student)
    return ResolvedRecipe(
        recipe, base, head, dataset, teachers, student, method, terms, metrics, controls, extra_rows, sizes
    )


def _size_name(field: str, value: Any) -> str:
    """``student.width=8``, fit for a folder on any system."""
    text = re.sub(r"[\s\"'\[\]{}]", "", json.dumps(value))
    return f"{field}={re.sub(r'[^A-Za-z0-9.,+_-]', '-', text)}"


def _misfits(
    spec: MethodSpec, recipe: Recipe, head: HeadSpec, student: Bound, tapped: Sequence[int]
) -> list[tuple[bool, str, Path_, str]]:
    """What a method may not serve: whether it is so here, what to say, where, and how to fix it."""
    return [
        (
            bool(spec.kinds) and head.output not in spec.kinds,
            f"serves {', '.join(spec.kinds)} heads, not {head.output} heads such as '{recipe.head.use}'",
            ("method",),
            "choose another method (`stillhouse components --kind method`)",
        ),
        (
            "writes" in spec.tags and "writes" not in head.tags,
            f"has models write texts, and the head '{recipe.head.use}' judges none",
            ("method",),
            "choose a head with the tag 'writes', such as core/generation, or another method",
        ),
        (
            not spec.estimators and "estimator" in student.component.spec.tags,
            f"trains networks, and '{student.id}' is an estimator",
            ("student",),
            "choose a network as student, or method: core/offline",
        ),
        (
            not spec.taps and bool(tapped),
            "compares predictions, and a soft term names taps",
            ("objectives", "soft", tapped[0] if tapped else 0),
            "remove 'student' and 'teacher' of that term",
        ),
        (
            spec.several_teachers and sum(member.count for member in recipe.teacher.as_members()) < 2,
            "needs a teacher of several members",
            ("teacher",),
            "teacher: {members: [...]}",
        ),
        (
            spec.changes_inputs and recipe.teacher.out_of_fold > 0,
            "changes inputs in its steps, for which there are no out-of-fold outputs",
            ("teacher", "out_of_fold"),
            "set teacher.out_of_fold: 0",
        ),
    ]


class _Checker:
    def __init__(self, registry: Registry, source: str, lines: Mapping[Path_, int | str]) -> None:
        self._registry, self._source, self._lines = registry, source, lines

    def at(self, *path: str | int) -> str:
        return locate(path, self._source, self._lines)

    def bind(
        self,
        kind: str,
        path: Path_,
        ref: ComponentRef | SoftTerm,
        *,
        use: str = "",
        start: Mapping[str, Any] | None = None,
    ) -> Bound:
        """The component that ``ref`` names (or ``use``), with its options; ``start`` are those of schedules."""
        try:
            # The teacher may be a student component; the teacher's own kind is asked first.
            given = ref.model_copy(update=dict(start)) if start else ref
            return bind(self._registry, ("teacher", "student") if kind == "teacher" else kind, given, use=use)
        except StillhouseError as error:
            if isinstance(error, OptionError):
                where = self.at(*path, *error.where.split("."))
            else:
                where = self.at(*path) + (f" ({error.where})" if error.where else "")
            raise type(error)(error.what, where=where, fix=error.fix) from error

    def with_fine_tuning(self, recipe: Recipe, teachers: Sequence[Bound], student: Bound) -> Recipe:
        """The recipe with the training that pretrained models want, where it says nothing itself."""
        found = {}
        for field, models in (("teacher", teachers), ("student", (student,))):
            given: TrainConfig = getattr(recipe.train, field)
            bound = next((each for each in models if any(each.options.get(name) for name in PRETRAINED)), None)
            if bound is None:
                continue
            spec = bound.component.spec
            assert isinstance(spec, ModelSpec)
            try:
                found[field] = given.beside(spec.fine_tuning)
            except pydantic.ValidationError as error:
                raise PluginError(
                    f"fine_tuning of '{bound.id}': {error.errors()[0]['msg']}",
                    where=bound.component.label,
                    fix="ModelSpec.fine_tuning has settings of train.teacher and train.student",
                ) from error
        train = recipe.train.model_copy(update=found)
        return recipe.model_copy(update={"train": train})

    def check_dataset(self, dataset: Bound, head: HeadSpec) -> None:
        spec = dataset.component.spec
        assert isinstance(spec, DatasetSpec)
        if spec.kinds and head.output not in spec.kinds:
            raise IncompatibleError(
                f"dataset '{dataset.id}' has {', '.join(spec.kinds)} targets, the head '{head.name}' needs "
                f"{head.output}",
                where=self.at("dataset"),
                fix="choose a head of that kind (`stillhouse components --kind head`)",
            )

    def bind_extra_rows(self, recipe: Recipe, head: HeadSpec) -> Bound | None:
        """The augmenter, where the recipe names one; whether it suits the inputs is known when there are rows."""
        if recipe.extra_rows is None:
            return None
        bound = self.bind("augmenter", ("extra_rows",), recipe.extra_rows)
        spec = bound.component.spec
        assert isinstance(spec, AugmenterSpec)
        if spec.kinds and head.output not in spec.kinds:
            raise IncompatibleError(
                f"augmenter '{bound.id}' needs {', '.join(spec.kinds)} targets, the head '{head.name}' has "
                f"{head.output}",
                where=self.at("extra_rows"),
                fix="choose another augmenter (`stillhouse components --kind augmenter`)",
            )
        try:
            bound.component.load()(**bound.options)
        except ValueError as error:
            raise OptionError(
                f"'{bound.id}': {error}", where=self.at("extra_rows"), fix="change the option's value"
            ) from error
        return bound

    def check_model(self, model: Bound, head: HeadSpec, path: Path_) -> None:
        spec = model.component.spec
        assert isinstance(spec, ModelSpec)
        if spec.kinds and head.output not in spec.kinds:
            kind = "teacher" if path[0] == "teacher" else "student"
            raise IncompatibleError(
                f"'{model.id}' makes {', '.join(spec.kinds)} predictions, the head '{head.name}' needs {head.output}",
                where=self.at(*path),
                fix=f"choose another model (`stillhouse components --kind {kind} --output {head.output}`)",
            )
        if "writes" in head.tags and "writes" not in spec.tags:
            raise IncompatibleError(
                f"the head '{head.name}' judges texts that a model writes, and '{model.id}' writes none",
                where=self.at(*path),
                fix="choose a model with the tag 'writes', such as core/hf-seq2seq or core/hf-causal",
            )

    def check_schedule(self, value: Any, path: Path_, **bounds: float) -> None:
        try:
            parse_schedule(value).require(str(path[-1]), **bounds)
        except ValueError as error:
            raise RecipeError(
                str(error),
                where=self.at(*path),
                fix="a number, or for example {schedule: linear, start: 8, end: 1}",
            ) from error

    def bind_term(self, recipe: Recipe, position: int, head: HeadSpec) -> BoundTerm:
        term = recipe.objectives.soft[position]
        path: Path_ = ("objectives", "soft", position)
        use = DEFAULT_SOFT_LOSS[head.output] if term.use == "soft" else term.use
        scheduled = {
            name: value for name, value in term.options.items() if isinstance(value, dict) and "schedule" in value
        }
        self.check_schedule(term.weight, (*path, "weight"), least=0.0)
        for name, value in scheduled.items():
            self.check_schedule(value, (*path, name))
        start, end = (
            {name: parse_schedule(value).value(progress) for name, value in scheduled.items()}
            for progress in (0.0, 1.0)
        )
        bound = self.bind("objective", path, term, use=use, start=start)
        for ends in (start, end):
            try:
                bound.component.load()(**{**bound.options, **ends})
            except ValueError as error:
                raise OptionError(
                    f"'{bound.id}': {error}",
                    where=self.at(*path),
                    fix="change the value, or both ends of its schedule",
                ) from error
        found = BoundTerm(bound, scheduled)
        if found.spec.level == "feature" and term.student is None:
            raise IncompatibleError(
                f"objective '{bound.id}' compares features, and no taps are named",
                where=self.at(*path),
                fix="name a module of each model: student: <path>, teacher: <path>",
            )
        if term.student is None and (head.output in found.spec.incompatible or head.output not in found.spec.kinds):
            reason = found.spec.incompatible.get(head.output, f"it is defined for {', '.join(found.spec.kinds)}")
            raise IncompatibleError(
                f"objective '{bound.id}' does not suit {head.output} heads such as '{recipe.head.use}': {reason}",
                where=self.at(*path),
                fix=f"use: soft ('{DEFAULT_SOFT_LOSS[head.output]}' for {head.output})",
            )
        return found

    def bind_method(self, recipe: Recipe, head: HeadSpec, student: Bound, terms: tuple[BoundTerm, ...]) -> Bound:
        """The method, with the students that its options name; what it does not serve is an error.

        Raises:
            IncompatibleError: see above; the message says what and why.
        """
        method = self.bind("method", ("method",), recipe.method)
        spec = method.component.spec
        assert isinstance(spec, MethodSpec)
        tapped = [position for position, term in enumerate(terms) if term.student is not None]
        for applies, what, path, fix in _misfits(spec, recipe, head, student, tapped):
            if applies:
                raise IncompatibleError(f"method '{method.id}' {what}", where=self.at(*path), fix=fix)
        return replace(method, named=tuple(self.named_students(method, spec, head)))

    def named_students(self, method: Bound, spec: MethodSpec, head: HeadSpec) -> list[Bound]:
        """The students that the options of a method name.

        Raises:
            StillhouseError: one of them is no student, does not suit the head, or cannot be trained by the method.
        """
        named = []
        for option in spec.students:
            given = method.options.get(option) or []
            for position, reference in enumerate(given if isinstance(given, list | tuple) else [given]):
                here: Path_ = ("method", option, position)
                try:
                    ref = ComponentRef.model_validate(reference)
                except pydantic.ValidationError as error:
                    raise RecipeError(
                        f"method '{method.id}' takes students in '{option}', not {reference!r}",
                        where=self.at(*here),
                        fix="an id, or {use: id, **options}",
                    ) from error
                named.append(self.bind("student", here, ref))
                self.check_model(named[-1], head, here)
                networks = not spec.estimators and option not in spec.estimator_options
                if networks and "estimator" in named[-1].component.spec.tags:
                    raise IncompatibleError(
                        f"method '{method.id}' trains networks, and '{named[-1].id}' is an estimator",
                        where=self.at(*here),
                        fix="choose a network",
                    )
        return named

    def bind_sizes(self, recipe: Recipe, student: Bound) -> tuple[Size, ...]:
        """The student with each of the recipe's sizes; the recipe's own, when it is among them, is the student itself.

        Raises:
            StillhouseError: the student has no such option, does not take a value, or two values are the same.
        """
        if recipe.sizes is None:
            return ()
        field, found = recipe.sizes.field, list[Size]()
        for position, value in enumerate(recipe.sizes.values):
            changed = {"student": student.to_recipe()}
            where = self.at("sizes", "values", position)
            try:
                apply_overrides(changed, [f"{field}={json.dumps(value)}"])
                bound = bind(self._registry, "student", ComponentRef.model_validate(changed["student"]))
            except StillhouseError as error:
                raise type(error)(error.what, where=f"{where} ({field}={value})", fix=error.fix) from error
            size = Size(_size_name(field, value), value, bound)
            for other in found:
                if size.name == other.name or bound.to_recipe() == other.student.to_recipe():
                    raise RecipeError(
                        f"'{other.value}' and '{value}' make the same student",
                        where=where,
                        fix="give each size once",
                    )
            found.append(size)
        return tuple(size for size in found if size.student.to_recipe() != student.to_recipe())

    def check_asked(self, recipe: Recipe, teachers: tuple[Bound, ...], terms: tuple[BoundTerm, ...]) -> None:
        """A teacher that is asked as it is has neither folds nor a checkpoint nor modules."""
        asked = [
            each for each in teachers if isinstance(each.component.spec, TeacherSpec) and each.component.spec.asked
        ]
        tapped = [position for position, term in enumerate(terms) if term.teacher is not None]
        config = recipe.teacher
        for applies, what, path in (
            (config.out_of_fold > 0, "is never trained, and there are no folds of it", ("teacher", "out_of_fold")),
            (config.checkpoint is not None, "is never trained, and has no checkpoint", ("teacher", "checkpoint")),
            (bool(tapped), "has no modules to tap", ("objectives", "soft", tapped[0] if tapped else 0)),
        ):
            if asked and applies:
                raise IncompatibleError(f"teacher '{asked[0].id}' {what}", where=self.at(*path), fix="remove it")

    def check_top_k(self, recipe: Recipe, head: HeadSpec, terms: tuple[BoundTerm, ...]) -> None:
        """Only distributions over tokens are shortened to the likeliest, and features are not."""
        if recipe.teacher.top_k is None:
            return
        method = self.bind("method", ("method",), recipe.method).component.spec
        assert isinstance(method, MethodSpec)
        for applies, what in (
            (head.output is not OutputKind.SEQUENCE, f"the outputs of {head.output} heads are stored whole"),
            (any(term.teacher is not None for term in terms), "features of a teacher that is tapped are not stored"),
            (
                method.changes_inputs,
                f"method '{method.name}' changes inputs in its steps, so that outputs are not stored",
            ),
        ):
            if applies:
                raise IncompatibleError(what, where=self.at("teacher", "top_k"), fix="remove it")

    def check_taps(self, recipe: Recipe, terms: tuple[BoundTerm, ...], teachers: tuple[Bound, ...]) -> None:
        tapped = [position for position, term in enumerate(terms) if term.teacher is not None]
        if tapped and (len(teachers) > 1 or recipe.teacher.out_of_fold):
            why = "an ensemble" if len(teachers) > 1 else "out-of-fold teachers"
            raise IncompatibleError(
                f"{why} cannot be tapped: their features come from different models",
                where=self.at("objectives", "soft", tapped[0]),
                fix="distil predictions, or use one teacher without folds",
            )
        if tapped and recipe.train.student.compile:
            raise IncompatibleError(
                "the inner modules of a compiled student cannot be tapped",
                where=self.at("train", "student", "compile"),
                fix="set it to false, or distil predictions",
            )
