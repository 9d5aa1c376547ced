"""``core/stream``: rows in order of time, each chunk predicted and scored before it is learned."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.methods.arrivals import Arrivals, by_class, by_time, refuse_early_labels, warm_chunks
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.methods.drift import Detector, require_river
from stillhouse.methods.passage import Passage, Settings
from stillhouse.ranges import Range
from stillhouse.trained import Trained
from stillhouse.types import Split

CLASSES = (OutputKind.MULTICLASS, OutputKind.BINARY)


class Stream(Method):
    """Training rows arrive in chunks. Each chunk is predicted, then scored, then learned (prequential evaluation).

    The first chunks, a share ``warm`` of the rows, are fitted as usual. From then on, for every chunk t::

        predict chunk t, by the weights as they are
        train the teacher again, if that is due, on rows whose labels are known now
        learn chunk t - delay, whose labels arrive now, beside `replay` rows of the past:
            L + last_weight * sum_i weight_i * soft_i(student, the student before this chunk)

    with ``L = alpha * hard + (1 - alpha) * sum_i weight_i * soft_i(student, teacher)``, the recipe's loss. Rows of the
    chunks whose labels are still to come take part in the soft losses. The teacher is the recipe's, trained anew on
    rows whose labels had arrived by then: the one of the stage "teacher" has seen the whole stream, and is reported
    beside the student only. Labels of the last ``delay`` chunks never arrive.

    The baseline goes through the same stream with the same replay, and without any teacher, the last student included.
    Nothing is chosen on validation rows, which may lie after the stream: every fit, the teacher's too, keeps its last
    epoch. Rows of the dataset without labels and extra rows have no part in it.

    With ``order: classes`` the chunks are classes instead, each arriving once; accuracy on the validation rows of every
    class after every chunk gives forgetting and transfer (see `stillhouse.methods.transfer`).

    Sources: prequential evaluation: Gama, Sebastião, Rodrigues, "On Evaluating Stream Learning Algorithms" (2013);
    the last student as teacher: Li and Hoiem, "Learning without Forgetting" (2016); replay: Chaudhry et al., "On Tiny
    Episodic Memories in Continual Learning" (2019).

    Cost: a fit of ``epochs`` over every chunk and the replayed rows, for student and baseline each, and one of the
    teacher each time it is trained.

    Args:
        order: by time, or class by class.
        chunks: how many chunks of about equally many rows (order: time).
        span: length of a chunk in time instead, on the scale of the rows' times (order: time).
        warm: share of the rows, rounded up to whole chunks, that the first model is fitted on.
        delay: chunks after which labels arrive (order: time).
        epochs: passes over each chunk and the replayed rows.
        lr: peak learning rate of these; the recipe's by default.
        replay: rows of the past that are kept, a uniform sample.
        last_weight: weight of the soft losses to the student before the chunk; 0 without it.
        teacher: "fixed" is trained on the warm rows; "refit" every ``refit_every`` chunks; "drift" after a drift.
        refit_every: chunks between two trainings of the teacher (teacher: refit).
        window: chunks, the latest with labels, that a teacher is trained on again; all by default.
        drift: detector of drift in the student's loss, by river; "none" without.
        prior: a simple model, a student component (an id or {use: id, **options}): it is fitted on the warm rows, and
            the student first learns what it says of them, for as many epochs as the warm fit has.
    """

    def __init__(
        self,
        *,
        order: Literal["time", "classes"] = "time",
        chunks: Annotated[int, Field(ge=2)] = 20,
        span: Annotated[float | None, Field(gt=0)] = None,
        warm: Annotated[float, Field(gt=0, lt=1)] = 0.3,
        delay: Annotated[int, Field(ge=0)] = 0,
        epochs: Annotated[int, Field(ge=1)] = 1,
        lr: Annotated[float | None, Field(gt=0)] = None,
        replay: Annotated[int, Field(ge=0)] = 200,
        last_weight: Annotated[float, Field(ge=0), Range(0.0, 2.0)] = 0.0,
        teacher: Literal["fixed", "refit", "drift"] = "fixed",
        refit_every: Annotated[int, Field(ge=1)] = 4,
        window: Annotated[int | None, Field(ge=1)] = None,
        drift: Detector = "none",
        prior: str | dict[str, Any] | None = None,
    ) -> None:
        self.order, self.chunks, self.span, self.warm, self.delay = order, chunks, span, warm, delay
        self.settings = Settings(
            epochs=epochs,
            lr=lr,
            replay=replay,
            last_weight=last_weight,
            teacher=teacher,
            refit_every=refit_every,
            window=window,
            drift=drift,
            prior=prior,
        )

    def check(self, context: MethodContext) -> None:
        """Hold the options against rows, head and installed packages.

        Raises:
            IncompatibleError: rows without times, a task without classes, labels that would be learned before they are
                known, or no chunk that is left to be predicted.
            MissingDependencyError: a detector is wanted, and river is not installed.
        """
        if self.settings.drift != "none":
            require_river()
        elif self.settings.teacher == "drift":
            raise IncompatibleError(
                "the teacher is to be trained again at drift, and nothing tells drift",
                where="method.drift",
                fix="drift: adwin, page-hinkley or kswin",
            )
        rows = context.splits.train
        if self.order == "time" and rows.times is None:
            raise IncompatibleError(
                "the rows of this dataset have no times, so that there is no order in which they arrive",
                where="dataset",
                fix="choose a dataset with times, or order: classes",
            )
        if self.order == "classes" and (context.head.kind not in CLASSES or self.delay or self.span is not None):
            raise IncompatibleError(
                f"order: classes needs a head of classes (it is {context.head.kind}), and has no delay and no span",
                where="method.order",
                fix="leave out method.delay and method.span, or use order: time",
            )
        arrivals = self.arrivals(rows)
        if arrivals.first >= len(arrivals.chunks):
            raise IncompatibleError(
                f"of {len(arrivals.chunks)} chunks {arrivals.warm} are fitted at first and the labels of {self.delay} "
                "are waited for: none is left to be predicted",
                where="method",
                fix="lower method.warm or method.delay, or make chunks smaller",
            )
        if self.order == "time":
            refuse_early_labels(arrivals, rows)

    def arrivals(self, rows: Split) -> Arrivals:
        """The chunks of training rows."""
        if self.order == "classes":
            target = rows.columns(["target"])["target"].flatten().long().numpy()
            chunks = by_class(target)
        else:
            times = np.arange(len(rows)) if rows.times is None else rows.times
            chunks = by_time(list(times), self.chunks, self.span)
        return Arrivals(chunks, warm_chunks(chunks, self.warm), self.delay)

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """The stream with the teacher."""
        return self._pass(context, student, taught=True)

    def train_baseline(self, context: MethodContext, student: Trained) -> Trained:
        """The same stream without a teacher."""
        return self._pass(context, student, taught=False)

    def _pass(self, context: MethodContext, student: Trained, *, taught: bool) -> Trained:
        arrivals = self.arrivals(context.splits.train)
        Passage(context, student, arrivals, self.settings, taught=taught, by_class=self.order == "classes").run()
        return student
