"""One model's way through a stream: it predicts a chunk, is scored, and learns what has labels by then."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from stillhouse.errors import DataError
from stillhouse.methods.arrivals import Arrivals, Reservoir
from stillhouse.methods.by_row import row_losses
from stillhouse.methods.context import MethodContext
from stillhouse.methods.drift import Detector, DriftAlarm
from stillhouse.methods.transfer import Tasks
from stillhouse.teachers import StoredTeacher, TeacherSource
from stillhouse.trained import Trained
from stillhouse.training.estimators import fit_hard
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import DistillationLoss, TermValues
from stillhouse.training.threads import limited_threads, share
from stillhouse.types import Batch, Split, SubsetSplit


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a stream is learned; see the options of `stillhouse.methods.stream.Stream`."""

    epochs: int
    lr: float | None
    replay: int
    last_weight: float
    teacher: Literal["fixed", "refit", "drift"]
    refit_every: int
    window: int | None
    drift: Detector
    prior: str | dict[str, Any] | None


class Remembering(Distillation):
    """The recipe's loss, and ``weight`` times its soft losses to an earlier student.

    Args:
        base: the learner of the recipe's loss alone.
        last: the earlier student's answers.
        loss: the recipe's soft losses, to compare with them.
        weight: their weight.
    """

    def __init__(self, base: Distillation, last: TeacherSource, loss: DistillationLoss, weight: float) -> None:
        super().__init__(base.student, base.inputs, base.loss, base.teacher)
        self._last, self._last_loss, self._weight = last, loss, weight

    def set_progress(self, progress: float) -> None:
        """See `Learner.set_progress`."""
        super().set_progress(progress)
        self._last_loss.set_progress(progress)

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        student = self.outputs(batch)
        total: Tensor
        total, values = self.loss(student, self.teacher(batch), batch, labelled)
        kept = self._last_loss(student, self._last(batch), batch, labelled)[0]
        values["last"] = {"raw": kept.detach(), "weighted": self._weight * kept.detach()}
        return total + self._weight * kept, values


class Passage:
    """A student's or a baseline's way through a stream.

    Everything that it keeps in memory (replayed rows, alarms, scores) is a function of the weights after each chunk,
    which finished phases bring back: a stream that stops goes on in the chunk where it stopped, to the same bits.

    Args:
        context: what the framework gives.
        student: the model.
        arrivals: the chunks.
        settings: how they are learned.
        taught: with a teacher.
        by_class: chunks are classes.
    """

    def __init__(
        self,
        context: MethodContext,
        student: Trained,
        arrivals: Arrivals,
        settings: Settings,
        *,
        taught: bool,
        by_class: bool,
    ) -> None:
        self.context, self.student, self.arrivals, self.settings = context, student, arrivals, settings
        self.taught, self.by_class = taught, by_class
        self.name = "student" if taught else "baseline"
        self.rows: Split = context.splits.train
        self.teacher: TeacherSource | None = None
        self.teachings = 0
        self.replay = Reservoir(settings.replay, context.derived_seed("replay"))
        self.alarm = DriftAlarm(settings.drift if taught else "none", context.derived_seed("drift"))
        self.predictions: dict[int, Tensor] = {}
        self.answers: dict[int, Tensor] = {}
        self.drifts: list[dict[str, float]] = []
        self.tasks = Tasks(context, arrivals) if by_class else None

    def run(self) -> None:
        """Go through the whole stream, and note what happened."""
        arrivals, warm = self.arrivals, self.arrivals.warm
        if self.tasks is not None:
            self.tasks.begin(self.student)
        known = arrivals.rows(0, warm)
        if self.settings.prior is not None and self.taught:
            self._learn_prior(self.settings.prior, known)
        self._train_teacher(known)
        self._learn(known, arrivals.rows(warm, arrivals.first), phase="warm", warm=True)
        self.replay.add(known)
        self._judge_tasks()
        for chunk in range(arrivals.first, len(arrivals.chunks)):
            self._predict(chunk)
            arrived = chunk - arrivals.delay
            if self._is_due(chunk, drifted=self._look_for_drift(arrived)):
                window = self.settings.window
                start = 0 if window is None else max(0, arrived + 1 - window)
                self._train_teacher(arrivals.rows(start, arrived + 1))
            self._learn(
                [*arrivals.chunks[arrived], *self.replay.rows],
                arrivals.rows(arrived + 1, chunk + 1),
                phase=f"chunk-{chunk + 1}",
            )
            self.replay.add(arrivals.chunks[arrived])
            self._judge_tasks()
        self._note()

    # Learning --------------------------------------------------------------------------------------------------------

    def _learn(self, labelled: list[int], waiting: list[int], *, phase: str, warm: bool = False) -> None:
        rows = SubsetSplit(self.rows, labelled)
        others = SubsetSplit(self.rows, waiting) if waiting and self.taught else None
        changed: dict[str, Any] = {"select": "last", "patience": None}
        if not warm:
            changed["epochs"] = self.settings.epochs
            if self.settings.lr is not None:
                changed["lr"] = self.settings.lr
        learner = self._learner([rows] if others is None else [rows, others], warm=warm)
        self.context.fit(learner, phase=phase, rows=rows, unlabelled=others, **changed)

    def _learn_prior(self, prior: str | dict[str, Any], known: list[int]) -> None:
        """Fit the simple model on the first rows, then teach the student what it says of them."""
        context, rows = self.context, SubsetSplit(self.rows, known)
        model = context.build(context.bind("student", prior), seed=context.derived_seed("prior"))
        last: dict[str, Any] = {"select": "last", "patience": None}
        if model.is_network:
            context.fit(context.supervised(model), phase="prior-model", rows=rows, unlabelled=None, **last)
        else:
            columns = rows.columns()
            with limited_threads(share()):
                fit_hard(model.model, model.features(columns), columns["target"], model.task)
        context.build()  # adapters draw their weights where those of the student ended
        learner = self._distillation(self._answers(model.source(), [rows]), alpha=0.0)
        context.fit(learner, phase="prior", rows=rows, unlabelled=None, **last)

    def _distillation(self, answers: TeacherSource, **changed: Any) -> Distillation:
        student = self.student
        return Distillation(student.model, student.inputs, self.context.loss(student, **changed), answers)

    def _learner(self, parts: list[SubsetSplit], *, warm: bool) -> Learner:
        context, student, weight = self.context, self.student, self.settings.last_weight
        if self.teacher is None:
            return context.supervised(student)
        base = self._distillation(self._answers(self.teacher, parts))
        if warm or not weight:
            return base
        before = replace(student, model=copy.deepcopy(student.model).eval().requires_grad_(False))
        return Remembering(base, self._answers(before.source(), parts), context.loss(student, alpha=0.0), weight)

    def _answers(self, source: TeacherSource, parts: list[SubsetSplit]) -> TeacherSource:
        """What a source says of some rows, asked once unless rows are augmented at random."""
        if any(part.stochastic for part in parts):
            return source
        return StoredTeacher.of(source, parts, self.context.device)

    def _train_teacher(self, positions: list[int]) -> None:
        if self.taught:
            self.teacher = self.context.teacher_on(positions)
            self.teachings += 1

    def _is_due(self, chunk: int, *, drifted: bool) -> bool:
        """Whether the teacher is trained again before the student learns what arrives with a chunk."""
        if self.settings.teacher == "refit":
            return (chunk + 1 - self.arrivals.first) % self.settings.refit_every == 0
        return self.settings.teacher == "drift" and drifted

    # Scores ----------------------------------------------------------------------------------------------------------

    def _predict(self, chunk: int) -> None:
        context, rows = self.context, SubsetSplit(self.rows, self.arrivals.chunks[chunk])
        self.predictions[chunk] = self.student.predict(rows, context.device, context.head)
        if self.teacher is not None and not context.head.keeps_answers:
            stored = StoredTeacher.of(self.teacher, [rows], context.device)
            self.answers[chunk] = stored({"index": rows.index()}).prediction.cpu()

    def _columns(self, positions: list[int]) -> Batch:
        """What a head needs of some rows to judge them."""
        entries = set(self.rows.row(0)) - set(self.context.splits.info.inputs)
        return SubsetSplit(self.rows, positions).columns(sorted(entries | set(self.context.head.row_entries())))

    def _score(self, prediction: Tensor, positions: list[int]) -> float | None:
        """The primary metric of some rows; None where it is not defined for them, as with one class alone."""
        try:
            value = self.context.head.evaluate(prediction, self._columns(positions))[self.context.head.primary]
        except DataError:
            return None
        return value if math.isfinite(value) else None

    def _look_for_drift(self, arrived: int) -> bool:
        """Tell the detector the losses of a chunk whose labels have arrived, as it was predicted."""
        if self.settings.drift == "none" or not self.taught or arrived not in self.predictions:
            return False
        positions = self.arrivals.chunks[arrived]
        losses = row_losses(self.context.head.hard_loss, self.predictions[arrived], self._columns(positions))
        found = self.alarm(losses.tolist())
        times = self.rows.times
        for at in found:
            place = {"chunk": float(arrived + 1), "row": float(self.rows.row(positions[at])["index"])}
            self.drifts.append(place if times is None else {**place, "time": float(times[positions[at]])})
        return bool(found)

    def _judge_tasks(self) -> None:
        if self.tasks is not None:
            self.tasks.judge(self.name, self.student)
            if self.teacher is not None:
                self.tasks.judge("teacher", self.teacher)

    # Facts -----------------------------------------------------------------------------------------------------------

    def _note(self) -> None:
        context, arrivals = self.context, self.arrivals
        numbers = list(range(arrivals.first, len(arrivals.chunks)))
        every = [position for number in numbers for position in arrivals.chunks[number]]
        models = {self.name: self.predictions, **({"teacher": self.answers} if self.answers else {})}
        facts: dict[str, Any] = {}
        # A class that arrives is predicted before anybody has been told of it: nothing is right, whatever the model.
        if numbers and self.tasks is None:
            whole = {name: self._score(torch.cat(list(found.values())), every) for name, found in models.items()}
            facts["prequential"] = whole
        if self.taught:
            facts |= {"teacher_trainings": self.teachings, "chunks": len(numbers)}
            if self.settings.drift != "none":
                facts |= {"drifts": len(self.drifts), "drift_points": self.drifts}
        if self.tasks is not None:
            facts |= self.tasks.facts()
        else:
            at = [number + 1 for number in numbers]
            times = self.rows.times
            begins = (
                None if times is None else [min(times[row] for row in arrivals.chunks[number]) for number in numbers]
            )
            facts["over_time"] = {
                "measure": context.head.primary,
                "chunk": at,
                "time": begins,
                "rows": [len(arrivals.chunks[number]) for number in numbers],
                **{
                    name: [self._score(found[number], arrivals.chunks[number]) for number in numbers]
                    for name, found in models.items()
                },
            }
        context.note(**facts)
