"""Specs: what a plugin says of each kind of component, as frozen metadata.

A spec validates itself when it is made, so that a bad one raises at its author's own line. The signature rule
of every target: **positional parameters are what the framework gives, keyword-only parameters are the user's
options.**
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from stillhouse.errors import SpecError
from stillhouse.kinds import ALL_KINDS, OutputKind
from stillhouse.plugins.spec import TARGET, Spec, check_kinds

RESOURCE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[\w./-]+\.ya?ml")


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(Spec):
    """A dataset: ``target(context: DataContext, *, options) -> Splits``.

    Args:
        licence: licence or terms of the data, with attribution when it is asked for.
        homepage: where the data are published.
        offline: needs neither download nor files (embedded or simulated).
        simulated: the data come from a simulator; summaries and reports say so.
        kinds: output kinds that the targets suit.
        reader: ``"package.module:Class"`` of the `Reader` that turns new files into rows for
            ``stillhouse predict``.
        sample: ``"package.module:function"`` from a `DataContext` and a folder to a file that it writes there and the
            ids (``index``) of the rows in it: some rows of the dataset with its default options, as a user's file
            has them. The contract lets the reader read it, and compares.
    """

    kind: ClassVar[str] = "dataset"
    licence: str = ""
    homepage: str = ""
    offline: bool = False
    simulated: bool = False
    kinds: tuple[OutputKind, ...] = ()
    reader: str = ""
    sample: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self, self.kinds)
        for name in ("reader", "sample"):
            value = getattr(self, name)
            if value and not (isinstance(value, str) and TARGET.fullmatch(value)):
                raise SpecError(
                    f"{name} {value!r} is malformed",
                    where=f"DatasetSpec(name={self.name!r})",
                    fix=self._target_example(),
                )
        if self.sample and not self.reader:
            raise SpecError(
                "a sample is given, and no reader to read it",
                where=f"DatasetSpec(name={self.name!r})",
                fix="name the reader, or leave out the sample",
            )


@dataclass(frozen=True, kw_only=True)
class AugmenterSpec(Spec):
    """What makes rows without labels from training rows: ``target(*, options)`` returns a
    `stillhouse.types.Augmenter`, called with the training rows, what is known of them, the number of rows and a seed.

    Args:
        inputs: names of the dataset inputs that it needs; empty means whatever there is.
        dtypes: it needs an input of one of these dtypes, e.g. ``("float32",)``; empty means any.
        kinds: output kinds whose targets it can do with; empty means all.
        asked: ``target`` returns a `stillhouse.types.AskedAugmenter`, which has the rows from a service.
    """

    kind: ClassVar[str] = "augmenter"
    inputs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    kinds: tuple[OutputKind, ...] = ()
    asked: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self, self.kinds)


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A model: ``target(task: Task, *, options)`` returns an ``nn.Module`` called with the batch's inputs by
    name, or an estimator with scikit-learn's ``fit`` and ``predict``/``predict_proba``.

    Args:
        inputs: names of the dataset inputs that it takes; empty means whatever there is.
        kinds: output kinds that it can produce; empty means all.
        features: ``"package.module:function"`` from a batch to the 2-D array that an estimator is fitted on;
            without it the inputs are flattened and concatenated.
        rules: ``"package.module:function"`` from the fitted model and its `Task` to text that explains it: the
            rules of a tree, the weights of a score. For models that a person can read; the text is kept beside the
            model as ``rules.txt``, and the report prints the student's.
        fine_tuning: settings of ``train.teacher`` or ``train.student`` that suit it where it starts from pretrained
            weights; a recipe's own come first.
    """

    inputs: tuple[str, ...] = ()
    kinds: tuple[OutputKind, ...] = ()
    features: str = ""
    rules: str = ""
    fine_tuning: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self, self.kinds)
        for name in ("features", "rules"):
            value = getattr(self, name)
            if value and not TARGET.fullmatch(value):
                raise SpecError(
                    f"{name} '{value}' is malformed",
                    where=f"{type(self).__name__}(name={self.name!r})",
                    fix=self._target_example(),
                )


@dataclass(frozen=True, kw_only=True)
class TeacherSpec(ModelSpec):
    """A large model that others learn from; see `ModelSpec`.

    Args:
        asked: ``target`` returns a `stillhouse.teachers.AskedTeacher`, which answers for rows and is never trained.
    """

    kind: ClassVar[str] = "teacher"
    asked: bool = False


@dataclass(frozen=True, kw_only=True)
class StudentSpec(ModelSpec):
    """A small model that learns from a teacher; a recipe may name it as teacher too. See `ModelSpec`."""

    kind: ClassVar[str] = "student"


@dataclass(frozen=True, kw_only=True)
class HeadSpec(Spec):
    """A task: ``target(data: DataInfo, *, options) -> Head``.

    Args:
        output: the output kind of the heads that ``target`` makes.
        primary: name of the primary metric.
        higher_is_better: direction of the primary metric.
    """

    kind: ClassVar[str] = "head"
    output: OutputKind
    primary: str
    higher_is_better: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self, (self.output,))
        object.__setattr__(self, "output", OutputKind(self.output))


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(Spec):
    """A distillation loss: ``target(*, options)`` returns a module with
    ``forward(student, teacher, **extras) -> scalar``.

    Args:
        level: ``"prediction"`` compares predictions unless a recipe names taps; ``"feature"`` needs taps.
        kinds: output kinds that it makes sense for.
        incompatible: reason by output kind that it does not suit, shown when a recipe pairs the two.
        extras: batch entries that ``forward`` takes as keywords, e.g. ``"target"``, ``"index"``, ``"mask"``. With
            ``"target"`` it sees labelled rows only, unless its class has ``partial_target = True``: then all rows, and
            the target of the labelled ones, which come first. ``"mask"`` is given where the data have one.
        adapts: a feature of another shape is brought to the teacher's by an adapter that is trained with
            the student.
    """

    kind: ClassVar[str] = "objective"
    level: str = "prediction"
    kinds: tuple[OutputKind, ...] = ALL_KINDS
    incompatible: dict[str, str] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    adapts: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self, self.kinds)
        check_kinds(self, tuple(self.incompatible))
        if self.level not in ("prediction", "feature"):
            raise SpecError(
                f"level '{self.level}' is unknown",
                where=f"ObjectiveSpec(name={self.name!r})",
                fix="level='prediction' or level='feature'",
            )


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Spec):
    """How a student learns: ``target(*, options)`` returns a `stillhouse.methods.Method`.

    What a recipe asks of a method that it does not serve is an error when the recipe is read.

    Args:
        kinds: output kinds that it serves; empty means all.
        estimators: it serves students that are estimators, too.
        uses_teacher: it learns from the recipe's teacher; without, the teacher is only reported beside the student.
        several_teachers: it needs a teacher of several members.
        taps: it serves soft terms between tapped features.
        changes_inputs: inputs change in its steps, so that teacher outputs are neither cached nor made out of fold.
        needs: what the rows must have beside labels: any of ``"groups"``, ``"times"``, ``"unlabelled"``.
        students: names of its options that name students: an id, ``{"use": id, **options}``, or a list of these. They
            are checked with the recipe.
        estimator_options: those of `students` that may name estimators, where the student itself may not be one.
        resumes: a run that was killed ends with the same bits.
        baseline: what the student is held against, where it is not the same model trained without the teacher, e.g.
            "the best client alone".
    """

    kind: ClassVar[str] = "method"
    kinds: tuple[OutputKind, ...] = ()
    estimators: bool = False
    uses_teacher: bool = True
    several_teachers: bool = False
    taps: bool = True
    changes_inputs: bool = False
    needs: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    estimator_options: tuple[str, ...] = ()
    resumes: bool = True
    baseline: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self, self.kinds)
        unknown = [each for each in self.needs if each not in ("groups", "times", "unlabelled")]
        if unknown:
            raise SpecError(
                f"need '{unknown[0]}' is unknown",
                where=f"MethodSpec(name={self.name!r})",
                fix="any of 'groups', 'times', 'unlabelled'",
            )


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """An extra metric: ``target(*, options)`` returns ``metric(prediction, rows) -> float`` of a whole split.

    Args:
        kinds: output kinds that it makes sense for.
        higher_is_better: its direction.
    """

    kind: ClassVar[str] = "metric"
    kinds: tuple[OutputKind, ...] = ALL_KINDS
    higher_is_better: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self, self.kinds)


@dataclass(frozen=True, kw_only=True)
class RecipeSpec(Spec):
    """A recipe shipped by the plugin; ``target`` is a resource, ``"package:folder/file.yaml"``.

    Args:
        dataset: id of the dataset, shown by ``stillhouse recipes``.
        offline: runs without download or files.
        minutes: about how long it takes on two CPU cores.
    """

    kind: ClassVar[str] = "recipe"
    dataset: str = ""
    offline: bool = False
    minutes: float = 0.0

    @staticmethod
    def _target_pattern() -> re.Pattern[str]:
        return RESOURCE

    @staticmethod
    def _target_example() -> str:
        return "write target='package:recipes/name.yaml'"

    def load(self) -> str:
        """The recipe's text.

        Raises:
            SpecError: the package or the file does not exist.
        """
        from importlib import resources

        package, _, path = self.target.partition(":")
        try:
            return resources.files(package).joinpath(path).read_text(encoding="utf-8")
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise SpecError(
                f"recipe '{self.name}' has no file '{self.target}'",
                where=f"RecipeSpec(name={self.name!r})",
                fix="correct the target, and ship the YAML file inside the package",
            ) from error
