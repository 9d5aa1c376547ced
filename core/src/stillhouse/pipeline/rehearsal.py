"""Trainings that are not made: every fit of a run is set up as it would be, and takes a few steps on a few rows, which
tells what does not fit and how long a step takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from stillhouse.data.splitting import spread_positions
from stillhouse.errors import StillhouseError
from stillhouse.forwarding import to_device
from stillhouse.methods.context import MethodContext, Unset, changed_settings
from stillhouse.progress import Silent
from stillhouse.recipe.model import TrainConfig
from stillhouse.teachers import TeacherSource
from stillhouse.trained import Trained
from stillhouse.training.finite import FiniteGuard
from stillhouse.training.learner import Learner
from stillhouse.training.loop import Fit, step_batches, train_epoch, validate
from stillhouse.training.optim import make_optimizer
from stillhouse.training.rows import step_positions
from stillhouse.training.threads import choose_threads, limited_threads
from stillhouse.types import Batch, Outputs, Split, Splits, SubsetSplit

STEPS, ENOUGH_STEPS, ENOUGH_SECONDS = 2, 30, 0.2
"""Steps that are timed at least, after one that is not; more of a fast step are, until that many or for that long."""
SLOW_SECONDS = 5.0
"""What takes longer is not done again to be timed better."""
JUDGED_ROWS = 256
"""Validation rows that a rehearsal predicts."""


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal found of one fit.

    Attributes:
        phase: of the method; empty for a fit without phases.
        epochs: of the real fit.
        steps: of one of its epochs.
        seconds_per_step: median of the timed steps, without the time that the teacher took.
        validation_seconds: of the judgement after each epoch.
        threads: CPU threads.
    """

    phase: str
    epochs: int
    steps: int
    seconds_per_step: float
    validation_seconds: float
    threads: int

    @property
    def seconds(self) -> float:
        """Of the whole fit, when no patience ends it."""
        return self.epochs * (self.steps * self.seconds_per_step + self.validation_seconds)


class Stopwatch:
    """A teacher source that counts its time and its rows.

    Args:
        source: the teacher.
    """

    def __init__(self, source: TeacherSource) -> None:
        self._source, self.seconds, self.rows = source, 0.0, 0

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`."""
        began = time.perf_counter()
        outputs = self._source(batch)
        self.seconds += time.perf_counter() - began
        self.rows += len(outputs.prediction)
        return outputs


class StandIn:
    """Speaks for a teacher that says nothing before it is fitted, or costs something: numbers of the right shape that
    mean nothing.

    Args:
        shape: of the prediction of one row.
        members: of the ensemble.
    """

    def __init__(self, shape: Sequence[int], members: int) -> None:
        self._shape, self._members = tuple(shape), members

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`."""
        index = batch["index"]
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn((self._members, len(index), *self._shape), generator=generator).to(index.device)
        return Outputs(drawn.mean(0), members=drawn)


def few_rows(splits: Splits, batch_size: int) -> Splits:
    """Training rows for three steps, and a few of the others, spread over all of them."""

    def some(split: Split, count: int, *, labelled: bool = True) -> Split:
        if len(split) <= count:
            return split
        positions = set(spread_positions(len(split), count))
        return SubsetSplit(split, sorted(positions | set(_of_each_class(split) if labelled else ())))

    return replace(
        splits,
        train=some(splits.train, (STEPS + 1) * batch_size),
        val=some(splits.val, JUDGED_ROWS),
        test=some(splits.test, JUDGED_ROWS),
        unlabelled=None
        if splits.unlabelled is None
        else some(splits.unlabelled, (STEPS + 1) * batch_size, labelled=False),
    )


def _of_each_class(split: Split) -> Iterator[int]:
    """Positions of the first two rows of every class, where the target is one."""
    target = split.columns(["target"])["target"] if split.lengths is None else torch.zeros(0)
    if target.dim() != 1 or target.is_floating_point():
        return
    for value in sorted(set(target.tolist()))[:1000]:
        yield from (target == value).nonzero().flatten()[:2].tolist()


def rehearse(learner: Learner, work: Fit, *, rows: int, judged_rows: int, phase: str = "") -> Rehearsed:
    """Take a few steps of a fit.

    Args:
        learner: what would learn; it is changed by the steps.
        work: the fit, with few rows.
        rows: training rows of the real fit.
        judged_rows: validation rows of the real fit.
        phase: of the method.

    Raises:
        StillhouseError: what the first steps find wrong.
    """
    threads = choose_threads(work.config, learner.student, work.train, learner.inputs)
    with limited_threads(threads), torch.random.fork_rng():
        learner.to(work.accelerator.device)
        learner.set_progress(0.0)
        optimizer = make_optimizer(learner.parameters(), work.config)
        watch = learner.teacher if isinstance(learner.teacher, Stopwatch) else None
        taken: list[float] = []
        for epoch in range(ENOUGH_STEPS + 1):
            targets = work.train.columns(["target"])["target"] if work.config.balance else None
            steps = step_batches(work, epoch, targets)
            while not _enough(taken):
                began, asked = time.perf_counter(), watch.seconds if watch else 0.0
                step = next(steps, None)
                if step is None:
                    break
                guard = FiniteGuard(f"the loss of {work.label}", 0, fix="lower train.*.lr", teacher=learner.teacher)
                train_epoch(
                    learner,
                    [step],
                    optimizer,
                    guard,
                    accelerator=work.accelerator,
                    grad_clip=work.config.grad_clip,
                )
                taken.append(time.perf_counter() - began - ((watch.seconds - asked) if watch else 0.0))
            if _enough(taken):
                break
        validation = _validation_seconds(learner, work, judged_rows)
    learner.eval()
    # Which rows make a step is drawn, how many steps there are is not.
    per_epoch = len(step_positions(rows, work.config, work.seed, 0)) if rows else 0
    timed = taken[1:] or taken
    return Rehearsed(phase, work.config.epochs, per_epoch, statistics.median(timed), validation, threads)


def _enough(taken: Sequence[float]) -> bool:
    """Whether so many steps tell how long one takes: that of a small model is short beside what else a machine does."""
    return len(taken) > STEPS and (sum(taken[1:]) >= ENOUGH_SECONDS or len(taken) > ENOUGH_STEPS)


def _validation_seconds(learner: Learner, work: Fit, rows: int) -> float:
    """Time of judging so many validation rows, from that of a few: a part for each row, and one that no row changes."""

    def judged(split: Split) -> float:
        began = time.perf_counter()
        for name, each in learner.judged.items():
            _judge(each, work, split, learner.inputs_of(name))
        return time.perf_counter() - began

    few = len(work.val)
    whole = judged(work.val)  # it imports and compiles what later ones have
    if whole < SLOW_SECONDS:
        whole = judged(work.val)
    if whole >= ENOUGH_SECONDS or few < 8:
        return whole * rows / few
    quarter = SubsetSplit(work.val, spread_positions(few, few // 4))
    whole, part = (min(judged(split) for _ in range(3)) for split in (work.val, quarter))
    per_row = max(whole - part, 0.0) / (few - len(quarter))
    return max(whole, whole + per_row * (rows - few))


def _judge(model: torch.nn.Module, work: Fit, split: Split, inputs: tuple[str, ...]) -> None:
    """Predict and judge a few rows, which a head may refuse (one class only)."""
    with suppress(StillhouseError):
        validate(model, work.head, split, inputs, work.accelerator.device)


@dataclass(frozen=True, kw_only=True)
class RehearsalContext(MethodContext):
    """What a method is given when it is rehearsed: its fits take a few steps, its models are never finished.

    Args:
        whole: all rows; ``splits`` are few of them.
        times: all training rows for each of the few.
        fits: what `fit` found.
    """

    whole: Splits
    times: float
    fits: list[Rehearsed] = field(default_factory=list)

    @classmethod
    def of(cls, given: MethodContext, few: Splits, **changes: Any) -> Self:
        """The context of a run, with few of its rows and silent.

        Args:
            given: what the method would be given.
            few: some of its rows.
            changes: other fields, such as ``teacher_source``.
        """
        values: dict[str, Any] = {name: getattr(given, name) for name in given.__dataclass_fields__}
        values |= {"splits": few, "reporter": Silent(), "history": [], "notes": {}, "_random_state": []}
        whole = given.splits
        return cls(**{**values, **changes}, whole=whole, times=len(whole.train) / len(few.train))

    def fit(
        self,
        learner: Learner,
        *,
        phase: str = "",
        rows: Split | None = None,
        unlabelled: Split | type[Unset] | None = Unset,
        **settings: Any,
    ) -> list[dict[str, Any]]:
        """See `MethodContext.fit`."""
        config: TrainConfig = changed_settings(self.config, settings, phase)
        train = self.splits.train if rows is None else rows
        count = round(self.times * len(train))
        work = Fit(
            train=train,
            val=self.splits.val,
            head=self.head,
            config=config,
            seed=self.seed,
            accelerator=self.accelerator,
            reporter=self.reporter,
            label=f"{self.label}, {phase}" if phase else self.label,
            unlabelled=self.splits.unlabelled if isinstance(unlabelled, type) else unlabelled,
        )
        found = rehearse(learner, work, rows=count, judged_rows=len(self.whole.val), phase=phase)
        self.fits.append(found)
        record = {
            **self.tags,
            "epoch": 0,
            "epochs": config.epochs,
            "lr": config.lr,
            "train": {"loss": 0.0, "terms": {}, "steps": found.steps},
            "val": {self.head.primary: 0.0},
            "threads": found.threads,
            "seconds": 0.0,
        }
        self.history.append(record)
        return [record]

    def as_teacher(self, *models: Trained, taps: Sequence[str] = ()) -> TeacherSource:
        """See `MethodContext.as_teacher`; its time does not count where its outputs would be kept."""
        live = self._live(models, taps)
        random = any(part.stochastic for part in (self.splits.train, self.splits.unlabelled) if part is not None)
        return live if taps or random else Stopwatch(live)

    def judge(self, split: str, prediction: Tensor) -> dict[str, float]:
        """See `MethodContext.judge`; a number that means nothing where the head refuses so few rows."""
        try:
            return super().judge(split, prediction)
        except StillhouseError:
            return {self.head.primary: 0.0}

    def note(self, **facts: Any) -> None:
        """Nothing is worth a note."""

    def keep(self, name: str, model: Trained) -> None:
        """Nothing is kept."""

    def save_progress(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Nothing is kept."""

    def saved_progress(self) -> None:
        """Nothing was kept."""

    def kept(self, role: Literal["student", "baseline"] = "student") -> dict[str, Trained]:
        """Nothing was kept."""
        return {}


def prediction_shape(model: Trained, splits: Splits, device: torch.device) -> tuple[int, ...]:
    """Shape of the prediction of one row; of two, which normalisation layers need."""
    if model.is_network:
        model.model.to(device).eval()
        return tuple(model.call(to_device(splits.train.batch([0, 1]), device)).shape[1:])
    return (model.task.outputs,)
