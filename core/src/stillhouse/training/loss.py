"""The loss of one distillation step: equation (2) over what student and teacher say of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import OptionError
from stillhouse.objectives.combine import combined_loss, silent
from stillhouse.objectives.functional import Objective
from stillhouse.objectives.schedule import Schedule, parse_schedule
from stillhouse.training.gathering import gathered, processes
from stillhouse.types import Batch, Outputs

TermValues = dict[str, dict[str, Tensor]]
"""Raw and weighted value of each term of a loss, detached: ``{"hard": {"raw": ..., "weighted": ...}, ...}``."""

HardLoss = Callable[[Tensor, Batch], Tensor]
"""Mean loss of a prediction against ``batch["target"]``: a head's ``hard_loss``."""


@dataclass(kw_only=True)
class Term:
    """One soft term.

    Args:
        name: how the term is logged.
        objective: module with ``forward(student, teacher, **extras) -> scalar``.
        weight: its weight inside the soft loss, a number or a schedule.
        student: tapped module of the student; None compares predictions.
        teacher: tapped module of the teacher; None compares predictions.
        extras: batch entries that ``forward`` takes as keywords. With ``"target"`` the term sees labelled rows only,
            unless the objective has a true ``partial_target``: it then sees all rows, and the target of the labelled
            ones, which come first. A ``"mask"`` is optional; rows behind those that have one are kept.
        scheduled: objective attributes that follow a schedule, e.g. ``{"temperature": {"schedule": "linear", ...}}``.
        adapter: brings the student's feature to the teacher's shape; trained with the student.
        gather: where several processes train, compare the rows of all of them.
    """

    name: str
    objective: nn.Module
    weight: Any = 1.0
    student: str | None = None
    teacher: str | None = None
    extras: Sequence[str] = ()
    scheduled: Mapping[str, Any] = field(default_factory=dict)
    adapter: nn.Module | None = None
    gather: bool = False

    def __call__(
        self, student: Outputs, teacher: Outputs, batch: Batch, labelled: int, *, counts: bool = True
    ) -> Tensor:
        """The raw value of the term.

        Args:
            student: what the student says of the batch.
            teacher: what the teacher says of it.
            batch: the rows.
            labelled: number of labelled rows, which come first.
            counts: False for a term of weight 0, which passes only zeros back to the student.
        """
        student_output = student.prediction if self.student is None else student.features[self.student]
        teacher_output = teacher.prediction if self.teacher is None else teacher.features[self.teacher]
        if "target" in self.extras and not getattr(self.objective, "partial_target", False):
            student_output, teacher_output = student_output[:labelled], teacher_output[:labelled]
        # A term of weight 0 is shut off before and behind its adapter, whose weights may not be finite either.
        if not counts:
            student_output = silent(student_output)
        if self.adapter is not None:
            student_output = self.adapter(student_output)
            if not counts:
                student_output = silent(student_output)
        rows = len(student_output)
        ends = {"target": min(labelled, rows)}
        extras = {name: batch[name][: ends.get(name, rows)] for name in self.extras if name in batch}
        if "mask" in extras and len(extras["mask"]) < rows:
            mask = extras["mask"]
            extras["mask"] = torch.cat((mask, mask.new_ones(rows - len(mask), *mask.shape[1:])))
        if self.gather and processes() > 1:
            first = min(labelled, rows)
            student_output, teacher_output = gathered(student_output, first), gathered(teacher_output, first)
            extras = {name: gathered(entry, min(first, len(entry))) for name, entry in extras.items()}
        value: Tensor = self.objective(student_output, teacher_output, **extras)
        return value


class DistillationLoss(nn.Module):
    """``alpha * hard + (1 - alpha) * sum(weight_i * soft_i)``, equation 2 of Zhang et al. (2025).

    Alpha, weights and temperatures may have schedules. Its parameters are those of the adapters and of objectives that
    learn.

    Args:
        hard_loss: a head's ``hard_loss``; None when alpha is 0 throughout.
        terms: the soft terms, in order.
        alpha: share of the hard loss, a number or a schedule.

    Attributes:
        student_taps: modules of the student to tap, each once.
        teacher_taps: modules of the teacher to tap, each once.

    Raises:
        OptionError: a schedule leaves what its option takes, or there is no such option.
    """

    def __init__(self, hard_loss: HardLoss | None, terms: Sequence[Term], alpha: Any = 0.3) -> None:
        super().__init__()
        self.hard_loss = hard_loss
        self.terms = list(terms)
        self.student_taps = tuple(dict.fromkeys(term.student for term in self.terms if term.student is not None))
        self.teacher_taps = tuple(dict.fromkeys(term.teacher for term in self.terms if term.teacher is not None))
        # An ordered list: the optimiser must see parameters in the same order in every run.
        self.modules_of_terms = nn.ModuleList(
            module for term in self.terms for module in (term.objective, term.adapter) if module is not None
        )
        self._alpha = parse_schedule(alpha)
        self._weights = [parse_schedule(term.weight) for term in self.terms]
        self._scheduled: list[tuple[Term, str, Schedule]] = [
            (term, name, parse_schedule(value)) for term in self.terms for name, value in term.scheduled.items()
        ]
        self._check_schedules()
        self.set_progress(0.0)

    def _check_schedules(self) -> None:
        """Both ends now, so that a run does not fail half-way: between them a schedule takes no other values."""
        place = "alpha"
        try:
            self._alpha.require("alpha", least=0.0, most=1.0)
            for term, weight in zip(self.terms, self._weights, strict=True):
                place = f"objective '{term.name}'"
                weight.require("weight", least=0.0)
            for term, name, _ in self._scheduled:
                place = f"objective '{term.name}'"
                if not hasattr(term.objective, name):
                    raise ValueError(f"there is no option '{name}' to schedule")
            for progress in (0.0, 1.0):
                self.set_progress(progress)
                for term in self.terms:
                    place = f"objective '{term.name}'"
                    if isinstance(term.objective, Objective):
                        term.objective.check_options()
        except ValueError as error:
            raise OptionError(str(error), where=place, fix="change the value, or both ends of its schedule") from error

    def set_progress(self, progress: float) -> None:
        """Move all schedules to ``progress`` in [0, 1] of the run."""
        self.alpha = self._alpha.value(progress)
        self.weights = [weight.value(progress) for weight in self._weights]
        for term, name, schedule in self._scheduled:
            setattr(term.objective, name, schedule.value(progress))

    def forward(
        self, student: Outputs, teacher: Outputs, batch: Batch, labelled: int | None = None
    ) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """The total, and every term's raw and weighted value (detached).

        Args:
            student: what the student says of the batch.
            teacher: what the teacher says of it.
            batch: the rows; ``target`` holds for the first ``labelled`` of them.
            labelled: number of labelled rows, which come first; all by default.
        """
        labelled = len(student.prediction) if labelled is None else labelled
        rows, prediction = batch, student.prediction
        if labelled != len(prediction):
            rows, prediction = {name: entry[:labelled] for name, entry in batch.items()}, prediction[:labelled]
        hard = None
        if self.hard_loss is not None and self.alpha > 0:
            hard = self.hard_loss(prediction, rows)
        terms = [
            (term.name, weight, term(student, teacher, batch, labelled, counts=(1 - self.alpha) * weight > 0))
            for term, weight in zip(self.terms, self.weights, strict=True)
        ]
        total, values = combined_loss(hard, terms, self.alpha)
        if hard is None and all(term.student is not None for term in self.terms):
            # What lies behind the last tap keeps its place in the backward pass of several processes.
            total = total + 0.0 * student.prediction.sum()
        if self.hard_loss is not None and hard is None:
            with torch.no_grad():  # logged, though it weighs nothing
                raw = self.hard_loss(prediction.detach(), rows)
            values["hard"] = {"raw": raw, "weighted": torch.zeros_like(raw)}
        return total, values
