"""``core/assistant``: models of intermediate size between a large teacher and a small student."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from stillhouse.evaluation.measure import parameters
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.trained import Trained


class Assistant(Method):
    """A chain of models, each taught by the one before: teacher, assistants from large to small, student.

    With ``L(student, teacher) = alpha * hard(student) + (1 - alpha) * sum_i weight_i * soft_i(student, teacher)``, the
    recipe's loss on predictions ``[B, ...]``, and m assistants ``a_1 ... a_m``::

        a_1        minimises L(a_1, the recipe's teacher)
        a_k        minimises L(a_k, a_(k-1)),    a_(k-1) frozen at its best validation epoch
        student    minimises L(student, a_m)

    Source: Mirzadeh, Farajtabar, Li, Levine, Matsukawa, Ghasemzadeh, "Improved Knowledge Distillation via Teacher
    Assistant" (2020), equation 3 for the loss and section 4 for several assistants (TAKD).

    Cost: one training more per assistant, with the settings of ``train.student``; the student is deployed alone.

    Args:
        assistants: from large to small: ids of students, or {use: id, **options}. The default, the core's network of
            its default size, is for a first try: choose sizes between your teacher and your student.
    """

    def __init__(
        self, *, assistants: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)] = ("core/mlp",)
    ) -> None:
        self.assistants = assistants

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit per assistant, one of the student."""
        teacher = None
        sizes: dict[str, int | None] = {}
        values: dict[str, float] = {}
        for number, reference in enumerate(self.assistants, start=1):
            name = f"assistant-{number}"
            model = context.build(context.bind("student", reference), seed=context.derived_seed(name))
            context.fit(context.distillation(model, teacher), phase=name)
            teacher = context.as_teacher(model)
            sizes[name] = parameters(model.model)
            values[name] = context.validate(model)[context.head.primary]
        context.fit(context.distillation(student, teacher), phase="student")
        sizes["student"] = parameters(student.model)
        values["student"] = context.validate(student)[context.head.primary]
        context.note(parameters=sizes, **{f"val_{context.head.primary}": values})
        return student
