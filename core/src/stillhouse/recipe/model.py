"""The fields of a recipe. Nothing here knows which components exist: see `stillhouse.recipe.check` for that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from stillhouse.ranges import parse_space

DEFAULT_METHOD = "core/offline"
LEAST_STEPS, LEAST_EPOCHS = 2000, 10
"""``epochs: auto`` makes so many steps, and so many passes over the rows, at least."""
STEPS_AN_EPOCH = 30
"""``batch_size: auto`` makes about so many steps of one pass, by batches of 16 to 128 rows."""
AUTO = 0
"""What a number is that follows from the number of training rows, until they are known."""


def _from_auto(value: Any) -> Any:
    if value == "auto":
        return AUTO
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PydanticCustomError("auto_or_number", "it must be a whole number of at least 1, or auto")
    return value


AutoInt = Annotated[
    int,
    BeforeValidator(_from_auto),
    PlainSerializer(lambda value: value or "auto", return_type=Any),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}),
]
"""A whole number, or `AUTO`, in a recipe ``auto``."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class ComponentRef(BaseModel):
    """A component by id, with its options inline: ``{use: industrial/gru, width: 16}``, or just ``industrial/gru``."""

    model_config = ConfigDict(extra="allow")
    use: Annotated[
        str, Field(min_length=1, description="id of the component, 'plugin/name', or 'package.module:Attribute'")
    ]

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The component's options."""
        return dict(self.model_extra or {})


class ExtraRows(ComponentRef):
    """Rows that only the teacher labels, made from the training rows."""

    per_row: Annotated[
        float, Field(gt=0, description="extra rows for each training row (made once, from training rows alone)")
    ] = 1.0


class TeacherMember(ComponentRef):
    """One teacher of an ensemble."""

    weight: Annotated[float, Field(gt=0, description="weight of this member in the ensemble's mean")] = 1.0
    seed: Annotated[
        int | None, Field(ge=0, lt=2**32, description="seed of this member; the teacher's seed by default")
    ] = None
    count: Annotated[
        int, Field(ge=1, description="so many members of this kind, with seeds that follow each other")
    ] = 1

    def copies(self, seed: int) -> list[TeacherMember]:
        """``count`` members; the first has this member's seed, or ``seed`` without one."""
        if self.count == 1:
            return [self]
        first = seed if self.seed is None else self.seed
        return [self.model_copy(update={"count": 1, "seed": first + number}) for number in range(self.count)]


class TeacherConfig(BaseModel):
    """The teacher: one component (``use`` and its options) or ``members`` of an ensemble."""

    model_config = ConfigDict(extra="allow")
    use: Annotated[str | None, Field(description="id of the component; leave it out when members are given")] = None
    members: Annotated[list[TeacherMember], Field(description="teachers of an ensemble")] = []
    out_of_fold: Annotated[
        int,
        Field(
            ge=0,
            description=(
                "soft targets of training rows come from teachers fitted without them, in this many "
                "folds; 0: from the teacher itself"
            ),
        ),
    ] = 0
    cache: Annotated[
        Literal["auto", True, False],
        Field(
            description="store the teacher's outputs of training rows once; auto: unless rows are augmented at random"
        ),
    ] = "auto"
    cache_precision: Annotated[
        Literal["float32", "float16"],
        Field(description="of stored outputs; float16 takes half the bytes and rounds them to 11 bits"),
    ] = "float32"
    top_k: Annotated[
        int | None,
        Field(
            ge=1,
            description=(
                "store so many of the likeliest tokens of each position, and the mass of the rest, in half precision "
                "(heads of sequences); none: whole outputs"
            ),
        ),
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**32, description="seed of the teacher's training")] = 0
    checkpoint: Annotated[
        Path | None,
        Field(description="folder of a trained teacher (model.json beside its weights) to use as it is"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.use) == bool(self.members):
            raise ValueError("give either 'use' (one teacher) or 'members' (an ensemble)")
        if self.members and self.model_extra:
            raise ValueError(f"options {sorted(self.model_extra)} belong to a member, not to the ensemble")
        if self.out_of_fold == 1:
            raise ValueError("out_of_fold needs at least 2 folds (or 0 for none)")
        if self.top_k is not None and self.cache is False:
            raise ValueError("top_k says how outputs are stored, and cache: false stores none")
        if self.cache_precision != "float32" and (self.cache is False or self.top_k is not None):
            raise ValueError("cache_precision is of whole outputs that are stored: not of top_k, nor with cache: false")
        if self.checkpoint and (self.members or self.out_of_fold):
            raise ValueError("a checkpoint is one trained teacher; it has neither members nor folds")
        return self

    def as_members(self) -> list[TeacherMember]:
        """The ensemble's members; a single teacher is an ensemble of one."""
        if self.members:
            return self.members
        return [TeacherMember.model_validate({"use": self.use, **(self.model_extra or {})})]


Scheduled = float | dict[str, Any]
"""A number, or a schedule over the run such as ``{schedule: linear, start: 8, end: 1}``."""


class SoftTerm(BaseModel):
    """One distillation loss: an objective, its options, its weight, and what of each model it compares."""

    model_config = ConfigDict(extra="allow")
    use: Annotated[str, Field(min_length=1, description="id of the objective; 'soft' is the one that fits the head")]
    weight: Annotated[Scheduled, Field(description="weight inside the soft loss; a number or a schedule")] = 1.0
    student: Annotated[
        str | None, Field(description="dotted path of the student's module to tap; the prediction by default")
    ] = None
    teacher: Annotated[
        str | None, Field(description="dotted path of the teacher's module to tap; the prediction by default")
    ] = None

    gather: Annotated[
        bool,
        Field(
            description="where several processes train, compare the rows of all of them: what a loss needs that holds "
            "rows of a batch against each other, to be that of the whole batch"
        ),
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _both_taps(self) -> Self:
        if (self.student is None) != (self.teacher is None):
            raise ValueError("name a tap for both 'student' and 'teacher', or for neither")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The objective's options."""
        return dict(self.model_extra or {})


class ObjectivesConfig(_Strict):
    """The loss (Zhang et al. 2025, equation 2): ``L = alpha * L_hard + (1 - alpha) * sum(weight_i * soft_i)``."""

    alpha: Annotated[Scheduled, Field(description="share of the hard loss, in [0, 1]; a number or a schedule")] = 0.3
    soft: Annotated[list[SoftTerm], Field(min_length=1, description="the distillation losses")] = [SoftTerm(use="soft")]

    @field_validator("alpha")
    @classmethod
    def _in_range(cls, value: Scheduled) -> Scheduled:
        for each in value.values() if isinstance(value, dict) else (value,):
            if isinstance(each, int | float) and not 0 <= each <= 1:
                raise ValueError(f"alpha must lie in [0, 1], not {each}")
        return value


class TrainConfig(_Strict):
    """How a network is trained; estimators take all of it from their own options."""

    epochs: Annotated[
        AutoInt, Field(description="passes over the training rows; auto: as many as 2,000 steps take, at least 10")
    ] = "auto"  # type: ignore[assignment]
    batch_size: Annotated[
        AutoInt,
        Field(description="rows per step, over all processes; auto: 128, or less (down to 16) below 4,000 rows"),
    ] = "auto"  # type: ignore[assignment]
    optimizer: Annotated[Literal["adamw", "adam", "sgd"], Field(description="the optimiser")] = "adamw"
    lr: Annotated[float, Field(gt=0, description="peak learning rate")] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, description="decoupled weight decay (adamw), L2 otherwise")] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1, description="momentum (sgd only)")] = 0.9
    schedule: Annotated[
        Literal["constant", "linear", "cosine", "onecycle"], Field(description="learning rate over the steps")
    ] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1, description="share of the steps in which the rate rises from 0")] = 0.0
    grad_clip: Annotated[float | None, Field(gt=0, description="largest gradient norm; none: no clipping")] = None
    ema: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="decay of an exponential moving average of the weights, which is kept instead",
        ),
    ] = None
    select: Annotated[
        Literal["best", "last"],
        Field(description="keep the epoch with the best validation metric (of equal ones the latest), or the last one"),
    ] = "best"
    patience: Annotated[
        int | None, Field(ge=1, description="stop after this many epochs without a better validation metric")
    ] = None
    precision: Annotated[Literal["no", "bf16", "fp16"], Field(description="mixed precision")] = "no"
    compile: Annotated[bool, Field(description="compile the network by torch.compile; not where a term taps it")] = (
        False
    )
    channels_last: Annotated[
        bool, Field(description="keep weights of 2D convolutions channels last, which some devices compute faster")
    ] = False
    fused: Annotated[bool, Field(description="the optimiser's fused implementation: one kernel for all weights")] = (
        False
    )
    balance: Annotated[
        bool,
        Field(description="draw training rows so that classes are equally frequent (multiclass, binary)"),
    ] = False
    unlabelled_ratio: Annotated[
        float,
        Field(
            ge=0,
            description="unlabelled rows per labelled row in each step, when the dataset has them (soft losses only)",
        ),
    ] = 1.0
    workers: Annotated[int, Field(ge=0, description="loader processes; 0 loads in the training process")] = 0
    threads: Annotated[
        Literal["auto"] | int,
        Field(
            description="CPU threads, at most the cores there are; auto: one where steps are too short to be shared "
            "out, else all cores, divided by the processes that run side by side"
        ),
    ] = "auto"

    @field_validator("threads", mode="before")
    @classmethod
    def _threads(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"threads must be 'auto' or a whole number of at least 1, not {value!r}")
        return value

    def for_rows(self, rows: int) -> Self:
        """These settings with numbers in place of ``auto``.

        Args:
            rows: labelled training rows.
        """
        fitting = 2 ** round(math.log2(max(rows, 1) / STEPS_AN_EPOCH))
        batch_size = self.batch_size or int(min(max(fitting, 16), 128))
        steps = max(math.ceil(rows / batch_size), 1)
        epochs = self.epochs or max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps))
        return self.model_copy(update={"batch_size": batch_size, "epochs": epochs})

    def beside(self, suited: Mapping[str, Any]) -> Self:
        """These settings, with others where none was given.

        Raises:
            ValidationError: one of ``suited`` does not exist or has a wrong value.
        """
        given = self.model_dump(include=self.model_fields_set)
        return self if not suited else type(self).model_validate({**suited, **given})


class TrainConfigs(_Strict):
    """Training of the teacher, and of baseline and student alike."""

    teacher: Annotated[TrainConfig, Field(description="training of teachers that are networks")] = TrainConfig()
    student: Annotated[TrainConfig, Field(description="training of the student, with and without distillation")] = (
        TrainConfig()
    )
    baseline: Annotated[
        TrainConfig | None,
        Field(description="what the baseline's training has different from the student's, as labels alone want it"),
    ] = None

    @property
    def of_baseline(self) -> TrainConfig:
        """Training of the student without distillation."""
        return self.student if self.baseline is None else self.baseline.beside(self.student.model_dump())


class EvaluateConfig(_Strict):
    """How models are measured."""

    throughput_batch: Annotated[
        int, Field(ge=1, description="rows per call for throughput, fewer of texts over a large vocabulary")
    ] = 256
    latency_samples: Annotated[int, Field(ge=5, description="timed calls at batch 1, per model")] = 200
    threads: Annotated[int, Field(ge=1, description="CPU threads while timing latency and throughput")] = 1


class SizesConfig(_Strict):
    """Baseline and student at other sizes beside the recipe's own, to tell what distillation is worth in size."""

    field: Annotated[str, Field(description="dotted path of the student's option that sets its size, 'student.width'")]
    values: Annotated[list[Any], Field(description="its values, one student each")]

    @field_validator("field")
    @classmethod
    def _of_the_student(cls, value: str) -> str:
        if not value.startswith("student.") or value in ("student.", "student.use"):
            raise ValueError(f"sizes are set by an option of the student, such as 'student.width', not by '{value}'")
        return value

    @field_validator("values")
    @classmethod
    def _several(cls, value: list[Any]) -> list[Any]:
        if len(value) < 2:
            raise ValueError(f"a curve needs at least 2 sizes, such as 4,8,16,32, not {len(value)}")
        return value

    def including(self, before: SizesConfig | None) -> bool:
        """Nothing of ``before`` is lost: no sizes, or values of the same field that all stand here too."""
        return before is None or (before.field == self.field and all(each in self.values for each in before.values))


class Recipe(_Strict):
    """A run: what to learn from what, by which losses, how often, and how it is judged."""

    name: Annotated[
        str,
        Field(description="name of the run; by default the recipe's id, the file's name, or a `recipe.yaml`'s folder"),
    ] = ""
    summary: Annotated[str, Field(description="one line on what the run shows")] = ""
    head: Annotated[ComponentRef, Field(description="the task")]
    dataset: Annotated[ComponentRef, Field(description="the rows")]
    extra_rows: Annotated[
        ExtraRows | None,
        Field(
            description="rows made from the training rows by an augmenter, which only the teacher labels: soft losses "
            "see them, the baseline never does; none by default"
        ),
    ] = None
    teacher: Annotated[TeacherConfig, Field(description="the large model, or several")]
    student: Annotated[ComponentRef, Field(description="the small model")]
    method: Annotated[ComponentRef, Field(description="how the student learns")] = ComponentRef(use=DEFAULT_METHOD)
    objectives: Annotated[ObjectivesConfig, Field(description="hard and soft losses")] = ObjectivesConfig()
    train: Annotated[TrainConfigs, Field(description="training settings")] = TrainConfigs()
    metrics: Annotated[list[ComponentRef], Field(description="metrics beside the head's own")] = []
    controls: Annotated[
        list[ComponentRef],
        Field(
            description=(
                "students trained on labels alone and reported beside the others, e.g. one that sees a "
                "part of the input only"
            )
        ),
    ] = []
    sizes: Annotated[
        SizesConfig | None,
        Field(description="other sizes of the student, trained with and without the teacher"),
    ] = None
    evaluate: Annotated[EvaluateConfig, Field(description="how models are measured")] = EvaluateConfig()
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1, description="seeds of baseline and student")
    ] = [0, 1, 2]
    data_seed: Annotated[int, Field(ge=0, lt=2**32, description="seed of simulated rows and of random splits")] = 0
    device: Annotated[Literal["auto", "cpu"], Field(description="auto: an accelerator when there is one")] = "auto"
    search: Annotated[
        dict[str, Any],
        Field(
            description=(
                "what `stillhouse tune` may change, by field: a list of values, or {low: 1, high: 8, log: true}; "
                "a run does not look at it"
            )
        ),
    ] = {}

    @field_validator("search")
    @classmethod
    def _spaces(cls, value: dict[str, Any]) -> dict[str, Any]:
        for path, space in value.items():
            if path == "teacher" and isinstance(space, list) and space:
                continue  # candidates; a single one stands beside the recipe's own
            try:
                parse_space(space)
            except ValueError as error:
                raise ValueError(f"'{path}': {error}") from error
        return value

    @field_validator("seeds")
    @classmethod
    def _unique(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError(f"seeds must differ from each other, not {value}")
        return value
