"""``core/spot-adaptive``: a policy network decides, row by row, at which tapped modules the student is distilled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError
from stillhouse.forwarding import predict
from stillhouse.methods.base import Method
from stillhouse.methods.by_row import soft_losses
from stillhouse.methods.context import MethodContext
from stillhouse.objectives.adapters import make_adapter
from stillhouse.ranges import Range
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import TermValues
from stillhouse.types import Batch, Outputs

BY_ROW = tuple(
    f"core/{name}"
    for name in ("hints", "attention-transfer", "nst", "cosine-embedding", "feature-maps", "attention-scores")
)
"""Objectives between features that have a loss for a single row."""


class SpotAdaptive(Method):
    """Where to distil, by row: the feature terms of the recipe count for the rows for which a policy chooses them.

    With ``f_k, t_k`` the features of student and teacher at spot k (a soft term with taps), a linear policy sees both,
    averaged over positions, and draws a gate by straight-through Gumbel-softmax, ``g_k in {0, 1}`` for each row. Beside
    the student there is a routed one: the same student, in which the feature at every spot is replaced by the adapted
    teacher's where the gate is open::

        routed = student with f_k + g_k * (adapter_k(t_k) - f_k) at every spot
        L = alpha * hard + (1 - alpha) * (sum of prediction terms + sum_k weight_k * mean over rows of g_k * soft_k)
            + route_weight * hard(routed)

    The gates (which have no gradient in ``g_k * soft_k``) and adapters learn from ``hard(routed)`` alone: a spot is
    chosen for a row if the teacher's feature serves the rest of the student better than its own. There the student is
    to have it. Rows without labels have gates too, from the same policy.

    Source: the idea of Song, Chen, Ye, Song, "Spot-Adaptive Knowledge Distillation" (2022): a multi-path network, a
    policy by Gumbel-softmax, distillation at the chosen spots. The paper routes between both whole networks and anneals
    the temperature; here teacher features go into the student's path, and the formula above is this project's.

    Cost: two forward and backward passes of the student a step, and the teacher's features.

    Args:
        route_weight: weight of the routed student's hard loss.
        gumbel_temperature: of the gates; a smaller one is nearer to a hard choice in its gradient.
    """

    def __init__(
        self,
        *,
        route_weight: Annotated[float, Field(gt=0), Range(0.1, 2.0, log=True)] = 0.5,
        gumbel_temperature: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        self.route_weight, self.gumbel_temperature = route_weight, gumbel_temperature

    def check(self, context: MethodContext) -> None:
        """Whether there are spots, and losses of single rows at them.

        Raises:
            IncompatibleError: no term names taps, or one that does compares rows with each other.
        """
        spots = [(position, term) for position, term in enumerate(context.terms) if term.student is not None]
        if not spots:
            raise IncompatibleError(
                "without a term between features there is no spot to choose",
                where="objectives.soft",
                fix="add a term with taps: {use: core/hints, student: <path>, teacher: <path>}",
            )
        for position, term in spots:
            if term.bound.id not in BY_ROW:
                raise IncompatibleError(
                    f"'{term.bound.id}' has no loss of a single row, and spots are chosen row by row",
                    where=f"objectives.soft.{position}",
                    fix=f"one of {', '.join(BY_ROW)}",
                )

    def step(self, context: MethodContext, student: Trained) -> Learner:
        """See `Routed`."""
        base = context.distillation(student)
        rows = context.splits.train.batch([0, 1])
        batch = {name: entry.to(context.device) for name, entry in rows.items()}
        with torch.random.fork_rng(), torch.no_grad():
            base.eval()
            found = base.outputs(batch), base.teacher(batch)
        return Routed(base, found, self.route_weight, self.gumbel_temperature)


class Routed(Distillation):
    """The loss of one step; see `SpotAdaptive`.

    Args:
        base: the learner of plain distillation; its student, loss and teacher are used.
        example: what student and teacher say of a few rows.
        route_weight: weight of the routed student's hard loss.
        temperature: of the gates.
    """

    def __init__(
        self, base: Distillation, example: tuple[Outputs, Outputs], route_weight: float, temperature: float
    ) -> None:
        super().__init__(base.student, base.inputs, base.loss, base.teacher)
        self._route_weight, self._temperature = route_weight, temperature
        self.policies, self.back = nn.ModuleList(), nn.ModuleList()
        for term in self.loss.terms:
            if term.student is not None and term.teacher is not None:
                student_features = example[0].features[term.student]
                teacher_features = example[1].features[term.teacher]
                self.policies.append(
                    nn.Linear(_pooled(student_features).shape[1] + _pooled(teacher_features).shape[1], 2)
                )
                self.back.append(make_adapter(tuple(teacher_features.shape[1:]), tuple(student_features.shape[1:])))

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`; the share of open gates is logged as raw value of ``gates``, which weighs nothing."""
        loss, student, teacher = self.loss, self.outputs(batch), self.teacher(batch)
        assert loss.hard_loss is not None
        rows = {name: entry[:labelled] for name, entry in batch.items()}
        hard = loss.hard_loss(student.prediction[:labelled], rows)
        total = loss.alpha * hard
        values: TermValues = {"hard": {"raw": hard.detach(), "weighted": total.detach()}}
        routes: list[tuple[str, Tensor]] = []
        opened: list[Tensor] = []
        for term, weight in zip(loss.terms, loss.weights, strict=True):
            if term.student is None or term.teacher is None:
                raw = term(student, teacher, batch, labelled)
            else:
                student_features, teacher_features = student.features[term.student], teacher.features[term.teacher]
                spot = len(routes)
                seen = torch.cat((_pooled(student_features), _pooled(teacher_features)), dim=1).detach()
                gate = F.gumbel_softmax(self.policies[spot](seen), tau=self._temperature, hard=True)[:, 0]
                shape = (-1, *(1 for _ in student_features.shape[1:]))
                routes.append(
                    (
                        term.student,
                        gate.reshape(shape) * (self.back[spot](teacher_features) - student_features.detach()),
                    )
                )
                adapted = student_features if term.adapter is None else term.adapter(student_features)
                each = soft_losses(term, adapted, teacher_features, batch)
                raw = (gate.detach()[: len(each)] * each).mean()
                opened.append(gate.detach().mean())
            part = (1 - loss.alpha) * weight * raw
            values[term.name] = {"raw": raw.detach(), "weighted": part.detach()}
            total = total + part
        routed = self._route_weight * loss.hard_loss(self._routed(batch, routes)[:labelled], rows)
        values["routed"] = {"raw": routed.detach() / self._route_weight, "weighted": routed.detach()}
        values["gates"] = {"raw": torch.stack(opened).mean(), "weighted": routed.detach() * 0.0}
        return total + routed, values

    def _routed(self, batch: Batch, routes: list[tuple[str, Tensor]]) -> Tensor:
        """The student's prediction with a change added to what each of some modules returns."""
        handles = [self.student.get_submodule(path).register_forward_hook(_adding(change)) for path, change in routes]
        try:
            return predict(self.student, batch, self.inputs)
        finally:
            for handle in handles:
                handle.remove()


def _adding(change: Tensor) -> Callable[[nn.Module, Any, Any], Any]:
    def add(module: nn.Module, inputs: Any, output: Any) -> Any:
        return output + change if isinstance(output, Tensor) else (output[0] + change, *output[1:])

    return add


def _pooled(features: Tensor) -> Tensor:
    """``[B, C, *positions]`` averaged over positions, ``[B, T, D]`` over tokens, as ``[B, C]``."""
    if features.dim() == 3:
        return features.mean(1)
    return features.flatten(2).mean(2) if features.dim() > 3 else features
