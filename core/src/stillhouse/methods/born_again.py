"""``core/born-again``: a student teaches the next one of its own architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.trained import Trained


class BornAgain(Method):
    """Generations of one architecture, each with fresh weights, each taught by the one before.

    With ``L(student, teacher) = alpha * hard(student) + (1 - alpha) * sum_i weight_i * soft_i(student, teacher)``, the
    recipe's loss on predictions ``[B, ...]``::

        generation 1    minimises L(f_1, the recipe's teacher)
        generation k    minimises L(f_k, f_(k-1)),   f_(k-1) frozen at its best validation epoch
        ensemble        mean_k p_k: of probabilities for classes, of values for regression

    Source: Furlanello, Lipton, Tschannen, Itti, Anandkumar, "Born-Again Neural Networks" (2018), section 3 (sequence of
    teaching selves) and its equation for the ensemble of generations (BANE). There the first generation learns from
    labels alone; here the recipe's teacher is generation 0, as in the paper's experiments with a teacher of another
    architecture. The paper's variants by permuted or weighted dark knowledge (DKPP, CWTM) are not part of it.

    Cost: as many trainings as generations, of which one student is deployed.

    Args:
        generations: how many students follow each other.
        keep: the generation to deploy: the last, or the one that is best on validation rows.
        ensemble: report the ensemble of all generations beside the deployed student.
    """

    def __init__(
        self,
        *,
        generations: Annotated[int, Field(ge=2)] = 3,
        keep: Literal["last", "best"] = "last",
        ensemble: bool = False,
    ) -> None:
        self.generations, self.keep, self.ensemble = generations, keep, ensemble

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit per generation."""
        models = {"generation-1": student}
        context.fit(context.distillation(student), phase="generation-1")
        for number in range(2, self.generations + 1):
            name = f"generation-{number}"
            teacher = context.as_teacher(models[f"generation-{number - 1}"])
            models[name] = context.build(seed=context.derived_seed(name))
            context.fit(context.distillation(models[name], teacher), phase=name)
        values = context.compare(models, "val")
        together = values.pop("ensemble", None)
        chosen = context.best(values) if self.keep == "best" else f"generation-{self.generations}"
        if self.ensemble:
            values |= {"ensemble": together} if together is not None else {}
            for name, model in models.items():
                context.keep(name, model)
        context.note(deployed=chosen, **{f"val_{context.head.primary}": values})
        return models[chosen]

    def evaluate(self, context: MethodContext, models: Mapping[str, Trained]) -> dict[str, Any]:
        """Test metrics of every generation and of their ensemble, when it was asked for."""
        return {f"test_{context.head.primary}": context.compare(context.kept(), "test")} if self.ensemble else {}
