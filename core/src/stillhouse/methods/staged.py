"""``core/staged``: stages that follow each other on the same weights, each with its own losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from torch import nn
from typing_extensions import TypedDict

from stillhouse.errors import IncompatibleError, OptionError, nearest
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.objectives.schedule import parse_schedule
from stillhouse.trained import Trained
from stillhouse.training.learner import Learner
from stillhouse.training.loss import Term


class Stage(TypedDict, total=False):
    """One stage; what it leaves out is the recipe's."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    soft: Annotated[list[int], Field(description="positions in objectives.soft, from 0; [] for labels alone")]
    alpha: Annotated[
        Annotated[float, Field(ge=0, le=1)] | dict[str, Any],
        Field(description="share of the hard loss in this stage, a number or a schedule over the stage"),
    ]
    epochs: Annotated[int, Field(ge=1, description="passes over the training rows")]
    lr: Annotated[float, Field(gt=0, description="peak learning rate")]
    labelled_only: Annotated[bool, Field(description="leave out rows that only the teacher labels")]
    frozen: Annotated[list[str], Field(description="dotted paths of the student's modules that rest in this stage")]


def _known(stage: Any) -> Any:
    """Refuse a misspelt setting with the nearest name, which the type alone would not tell."""
    unknown = [key for key in stage if key not in Stage.__annotations__] if isinstance(stage, Mapping) else []
    if unknown:
        raise ValueError(f"a stage has no '{unknown[0]}'; {nearest(str(unknown[0]), Stage.__annotations__)}")
    return stage


class Staged(Method):
    """Stages on the same weights: features first, predictions second, or any other list.

    Stage s minimises the recipe's loss over the terms that it selects, starting where stage s - 1 ended::

        L_s = alpha_s * hard + (1 - alpha_s) * sum_(i in soft_s) weight_i * soft_i

    Without ``stages`` there are two: all terms that compare features with alpha 0, then all that compare predictions
    with the recipe's alpha, for half of the student's epochs each (the second has the odd one, each has one at least),
    so that the student learns for as many epochs as the baseline.

    Every stage has an optimiser, a schedule of the rate, and schedules of its losses of its own. Adapters (and
    objectives that learn) carry over with the student's weights. Each stage ends with its best epoch by the head's
    validation metric; one that has features alone and alpha 0 ends with its last, as the head has not learned yet.
    Frozen modules have no gradient and stay in eval mode: their weights and their running statistics do not move.

    Source: Jiao, Yin, Shang, Jiang, Chen, Li, Wang, Liu, "TinyBERT: Distilling BERT for Natural Language Understanding"
    (2020), sections 3.2 and 4.1: distillation of intermediate layers, then of the prediction layer.

    Cost: that of one fit of all stages' epochs.

    Args:
        stages: a list of {soft, alpha, epochs, lr, labelled_only, frozen}; see above for the default.
    """

    def __init__(
        self,
        *,
        stages: Annotated[list[Annotated[Stage, BeforeValidator(_known)]], Field(min_length=1)] | None = None,
    ) -> None:
        self.stages = stages

    def check(self, context: MethodContext) -> None:
        """Hold every stage against the recipe's terms and the student's modules.

        Raises:
            IncompatibleError: without stages, the recipe lacks one of the two kinds of terms, or an epoch for each.
            OptionError: a position, a schedule or a module that is not there, or a stage in which nothing learns.
        """
        stages = self._stages(context)
        student = context.build().model
        for number, stage in enumerate(stages):
            where = f"method.stages.{number}"
            if wrong := [each for each in stage.get("soft", []) if not 0 <= each < len(context.terms)]:
                raise OptionError(
                    f"there is no soft term {wrong[0]}: the recipe has {len(context.terms)}",
                    where=f"{where}.soft",
                    fix=f"positions from 0 to {len(context.terms) - 1}",
                )
            if stage.get("soft") == [] and "alpha" in stage:
                raise OptionError(
                    "a stage without soft terms learns from labels alone",
                    where=f"{where}.alpha",
                    fix="leave out alpha, or select terms",
                )
            try:
                parse_schedule(stage.get("alpha", 0.0))
            except ValueError as error:
                raise OptionError(
                    str(error), where=f"{where}.alpha", fix="a number in [0, 1], or a schedule"
                ) from error
            modules = dict(student.named_modules())
            if absent := [path for path in stage.get("frozen", []) if not path or path not in modules]:
                raise OptionError(
                    f"the student has no module '{absent[0]}'",
                    where=f"{where}.frozen",
                    fix=nearest(absent[0], [path for path in modules if path]),
                )
            with resting([modules[path] for path in stage.get("frozen", [])]):
                if not any(parameter.requires_grad for parameter in student.parameters()):
                    raise OptionError(
                        "nothing of the student learns", where=f"{where}.frozen", fix="freeze fewer modules"
                    )

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit per stage."""
        carried: dict[int, Term] = {}
        ends: dict[str, float] = {}
        for number, stage in enumerate(self._stages(context), start=1):
            positions = stage.get("soft", list(range(len(context.terms))))
            alpha = stage.get("alpha", context.alpha) if positions else 1.0
            features_only = alpha == 0 and all(context.terms[each].student is not None for each in positions)
            learner = context.distillation(student, terms=[context.terms[each] for each in positions], alpha=alpha)
            terms = dict(zip(positions, learner.loss.terms, strict=True))
            for position in terms.keys() & carried.keys():
                for new, old in zip(_learned(terms[position]), _learned(carried[position]), strict=True):
                    new.load_state_dict(old.state_dict())
            settings: dict[str, Any] = {name: stage[name] for name in ("epochs", "lr") if name in stage}
            if features_only:
                settings["select"] = "last"
            if stage.get("labelled_only"):
                settings["unlabelled"] = None
            modules = [student.model.get_submodule(path) for path in stage.get("frozen", [])]
            with resting(modules, learner):
                context.fit(learner, phase=f"stage-{number}", **settings)
            carried |= terms
            ends[f"stage-{number}"] = context.validate(student)[context.head.primary]
        context.note(**{f"val_{context.head.primary}": ends})
        return student

    def _stages(self, context: MethodContext) -> Sequence[Stage]:
        """The stages that were given, or features first and predictions second."""
        if self.stages is not None:
            return self.stages
        features = [number for number, term in enumerate(context.terms) if term.student is not None]
        predictions = [number for number, term in enumerate(context.terms) if term.student is None]
        epochs = max(context.config.epochs, 2)
        if not features or not predictions:
            raise IncompatibleError(
                "without stages, 'core/staged' learns features first and predictions second: it needs a soft term of "
                "each kind",
                where="objectives.soft",
                fix="add a term with taps (student: <path>, teacher: <path>) and one without, or give method.stages",
            )
        return [
            Stage(soft=features, alpha=0.0, epochs=epochs // 2),
            Stage(soft=predictions, epochs=epochs - epochs // 2),
        ]


def _learned(term: Term) -> list[nn.Module]:
    """What of a term may learn: its objective, and its adapter where there is one."""
    return [module for module in (term.objective, term.adapter) if module is not None]


@contextmanager
def resting(modules: Sequence[nn.Module], learner: Learner | None = None) -> Iterator[None]:
    """Modules without gradients and in eval mode; afterwards as they were."""
    learned = [each for module in modules for each in module.parameters() if each.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    if learner is not None:
        learner.frozen = tuple(modules)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
        if learner is not None:
            learner.frozen = ()
