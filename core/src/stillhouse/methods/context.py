"""What the framework gives to a method: rows, head, teacher, losses, and fits that resume to the bit."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from stillhouse.errors import PluginError, RecipeError
from stillhouse.kinds import OutputKind
from stillhouse.methods.losses import idle_term, make_terms, try_loss
from stillhouse.methods.phases import PHASES, read_phase, read_progress, write_phase, write_progress
from stillhouse.progress import Reporter
from stillhouse.recipe.model import TrainConfig
from stillhouse.recipe.resolved import Bound, BoundTerm
from stillhouse.teachers import EnsembleTeacher, StoredTeacher, TeacherSource
from stillhouse.teachers.ensemble import combine
from stillhouse.trained import Trained, build
from stillhouse.training.learner import Distillation, Learner, Supervised
from stillhouse.training.loop import Fit, fit
from stillhouse.training.loss import DistillationLoss
from stillhouse.types import Head, Split, Splits, Task

KEPT = "kept"
"""Folder of models that a method keeps beside the deployed student."""


class Unset:
    """Tells "not given" from None."""


@dataclass(frozen=True, kw_only=True)
class MethodContext:
    """What the framework gives to a method for the student of one seed.

    Args:
        splits: the rows; a method trains on ``train`` and ``unlabelled`` and never looks at ``test``.
        head: what the task means.
        student: the recipe's student, with its options.
        teachers: the members of the recipe's teacher, frozen.
        terms: the recipe's soft terms.
        alpha: the recipe's share of the hard loss, a number or a schedule.
        config: training settings of the student.
        seed: seed of the student.
        accelerator: devices, precision and processes.
        reporter: receives every epoch.
        label: what to call the student, e.g. ``"student, seed 0"``.
        tags: fields of every record of this student.
        folder: of this student; phases and checkpoints are kept there while it is in training.
        teacher_source: the recipe's teacher as a source, by tapped modules and whether its members are wanted.
        bind: a component of the recipe by kind and reference (``{"use": id, **options}``), checked.
        load: a model from the folder that it was saved in.
        warn: tells the user something, once.
        teacher_on: the recipe's teacher, trained anew on the training rows at some positions and on no others. Nothing
            is chosen on validation rows: networks keep their last epoch. A checkpoint, and a teacher that is asked,
            stay as they are.
        elsewhere: makes this context again in another process, without teachers; it can be pickled.
        history: records of all epochs so far.
        notes: what `note` kept.
    """

    splits: Splits
    head: Head
    student: Bound
    teachers: tuple[Trained, ...]
    terms: tuple[BoundTerm, ...]
    alpha: Any
    config: TrainConfig
    seed: int
    accelerator: Accelerator
    reporter: Reporter
    label: str
    tags: Mapping[str, Any]
    folder: Path
    teacher_source: Callable[[Sequence[str], bool], TeacherSource]
    bind: Callable[[str, Any], Bound]
    load: Callable[[Path], Trained]
    warn: Callable[[str], None]
    teacher_on: Callable[[Sequence[int]], TeacherSource]
    elsewhere: Callable[[], MethodContext]
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    _random_state: list[Tensor] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """Where models are."""
        device: torch.device = self.accelerator.device
        return device

    # Models ----------------------------------------------------------------------------------------------------------

    def build(self, component: Bound | None = None, *, seed: int | None = None) -> Trained:
        """A model with its initial weights: the recipe's student, or another component.

        Args:
            component: what to build; the recipe's student by default.
            seed: seed of the weights; the student's own by default. `derived_seed` gives others.

        Raises:
            OptionError: it cannot be built with its options.
        """
        chosen = component or self.student
        task = Task(
            info=self.splits.info,
            kind=self.head.kind,
            outputs=self.head.outputs,
            seed=self.seed if seed is None else seed,
        )
        trained = build(chosen.component, chosen.options, task)
        # Adapters draw their weights where the student's own ended, also when a finished phase is not trained again.
        self._random_state[:] = [torch.get_rng_state()]
        return trained

    def derived_seed(self, name: str) -> int:
        """A seed that is a function of the student's seed and a name, e.g. of a peer."""
        return zlib.crc32(f"{self.seed}/{name}".encode()) % 2**31

    # Teachers --------------------------------------------------------------------------------------------------------

    def signal(self, taps: Sequence[str] = (), *, members: bool = False) -> TeacherSource:
        """The recipe's teacher: cached outputs where its recipe and the rows allow it, else asked at every step.

        Args:
            taps: modules of the teacher whose features are wanted.
            members: the outputs have the prediction of each member of an ensemble, too.
        """
        return self.teacher_source(taps, members)

    def as_teacher(self, *models: Trained, taps: Sequence[str] = ()) -> TeacherSource:
        """Finished models as a teacher (their mean, when there are several); frozen from here on.

        Its predictions of the training rows are computed once, unless rows are augmented at random or features are
        tapped, or predictions differ in length from row to row.
        """
        live = self._live(models, taps)
        parts = [self.splits.train] + ([self.splits.unlabelled] if self.splits.unlabelled is not None else [])
        ragged = self.head.kind is OutputKind.SEQUENCE and any(part.lengths is not None for part in parts)
        if taps or ragged or any(part.stochastic for part in parts):
            return live
        return StoredTeacher.of(live, parts, self.device)

    def _live(self, models: Sequence[Trained], taps: Sequence[str]) -> TeacherSource:
        for model in models:
            if model.is_network:
                model.model.to(self.device).eval().requires_grad_(False)
        sources = [model.source(taps=taps) for model in models]
        if len(sources) == 1:
            return sources[0]
        return EnsembleTeacher(sources, weights=[1.0] * len(sources), kind=self.head.kind)

    # Losses ----------------------------------------------------------------------------------------------------------

    def supervised(self, student: Trained) -> Supervised:
        """Learning from labels alone."""
        return Supervised(student.model, student.inputs, self.head.hard_loss)

    def loss(
        self,
        student: Trained,
        *,
        terms: Sequence[BoundTerm] | None = None,
        alpha: Any = Unset,
        teacher: Trained | None = None,
    ) -> DistillationLoss:
        """The weighted sum of hard and soft losses, with adapters for this student.

        Args:
            student: the network that learns.
            terms: the soft terms; the recipe's by default.
            alpha: share of the hard loss; the recipe's by default.
            teacher: the network to tap; the recipe's teacher by default.
        """
        if self._random_state:
            torch.set_rng_state(self._random_state[0])
        tapped = teacher or (self.teachers[0] if len(self.teachers) == 1 else None)
        made = make_terms(self.terms if terms is None else terms, self.splits, student, tapped, self.device)
        return DistillationLoss(self.head.hard_loss, made, self.alpha if alpha is Unset else alpha)

    def distillation(
        self,
        student: Trained,
        teacher: TeacherSource | None = None,
        *,
        terms: Sequence[BoundTerm] | None = None,
        alpha: Any = Unset,
    ) -> Distillation:
        """Learning from labels and a teacher, tried on two rows.

        Args:
            student: the network that learns.
            teacher: where the teacher's outputs come from; the recipe's teacher by default.
            terms: the soft terms; the recipe's by default.
            alpha: share of the hard loss; the recipe's by default.

        Raises:
            IncompatibleError: terms that do not fit the two models or the rows.
        """
        loss = self.loss(student, terms=terms, alpha=alpha)
        source = self.signal(loss.teacher_taps) if teacher is None else teacher
        learner = Distillation(student.model, student.inputs, loss, source)
        try_loss(learner, self.splits, self.device)
        return learner

    # Fits ------------------------------------------------------------------------------------------------------------

    def fit(
        self,
        learner: Learner,
        *,
        phase: str = "",
        rows: Split | None = None,
        unlabelled: Split | type[Unset] | None = Unset,
        **settings: Any,
    ) -> list[dict[str, Any]]:
        """Train a learner: one phase of a method. A finished phase is not trained again when a run goes on.

        Args:
            learner: what learns; left with the weights of its chosen epoch.
            phase: name of the phase, unique among those of the method; empty for a method of one fit.
            rows: training rows; the recipe's by default.
            unlabelled: rows that only a teacher labels; those of the dataset by default.
            **settings: training settings that differ from those of the recipe, e.g. ``epochs=5``.

        Returns:
            one record per epoch.

        Raises:
            RecipeError: a setting does not exist or has a wrong value.
            TrainingError: see `stillhouse.training.loop.fit`.
        """
        folder = self.folder / PHASES / phase if phase else self.folder
        label = f"{self.label}, {phase}" if phase else self.label
        if phase and (folder / "done.json").exists():
            self.reporter.model(label, 0)
            history = read_phase(folder, learner)
            self.reporter.model_done("finished before")
        else:
            work = Fit(
                train=self.splits.train if rows is None else rows,
                val=self.splits.val,
                head=self.head,
                config=changed_settings(self.config, settings, phase),
                seed=self.derived_seed(phase) if phase else self.seed,
                folder=folder,
                accelerator=self.accelerator,
                reporter=self.reporter,
                label=label,
                tags={**self.tags, "seed": self.seed, **({"phase": phase} if phase else {})},
                unlabelled=self.splits.unlabelled if isinstance(unlabelled, type) else unlabelled,
            )
            if self.accelerator.is_main_process:
                folder.mkdir(parents=True, exist_ok=True)
            self.accelerator.wait_for_everyone()
            history = fit(learner, work)
            if phase and self.accelerator.is_main_process:
                write_phase(folder, learner, history)
            self.accelerator.wait_for_everyone()
        self.history.extend(history)
        if idle := idle_term(history):
            self.warn(
                f"term '{idle[0]}' was under 1 % of the loss for a whole epoch (first in epoch {idle[1]} of seed "
                f"{self.seed}); raise its weight or drop it"
            )
        return history

    def save_progress(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Keep where a method of many steps (rounds, say) is, instead of what it kept before, so that a run which stops
        goes on there. It is gone when the student is finished.

        Args:
            step: how many steps are done.
            tensors: weights and other values by name.
            facts: JSON-ready values by name.
        """
        if self.accelerator.is_main_process:
            write_progress(self.folder, step, tensors, facts)

    def saved_progress(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts that `save_progress` kept last; None without any."""
        return read_progress(self.folder)

    # Metrics ---------------------------------------------------------------------------------------------------------

    def validate(self, model: Trained) -> dict[str, float]:
        """The head's metrics of the validation rows."""
        return self.judge("val", model.predict(self.splits.val, self.device, self.head))

    def judge(self, split: str, prediction: Tensor) -> dict[str, float]:
        """The head's metrics of predictions of a split, ``"val"`` or ``"test"`` (in `Method.evaluate` only)."""
        rows = self.splits.named()[split].columns(["target", "index", *self.head.row_entries()])
        return self.head.evaluate(prediction, rows)

    def keep(self, name: str, model: Trained) -> None:
        """Save a finished model beside the student, for `kept`: phases are removed when the student is finished.

        Args:
            name: of the model; a file name.
            model: what to save.
        """
        if self.accelerator.is_main_process:
            model.save(self.folder / KEPT / name)

    def kept(self, role: Literal["student", "baseline"] = "student") -> dict[str, Trained]:
        """The models that `keep` saved, by name, on the run's device.

        Args:
            role: those of the student, or of its baseline (in `Method.evaluate` only).
        """
        folder = self.folder if role == "student" else self.folder.parent.with_name(role) / self.folder.name
        models = {path.parent.name: self.load(path.parent) for path in sorted(folder.glob(f"{KEPT}/*/model.json"))}
        for model in models.values():
            if model.is_network:
                model.model.to(self.device)
        return models

    def compare(self, models: Mapping[str, Trained], split: str) -> dict[str, float]:
        """The head's primary metric of several models, by name, and of their ``"ensemble"``: the mean of what they
        predict, each with the same weight. A head that keeps answers instead of predictions has no mean of them, and
        no ``"ensemble"``.

        Args:
            models: by name.
            split: ``"val"``, or ``"test"`` (in `Method.evaluate` only).
        """
        rows = self.splits.named()[split]
        predictions = {name: model.predict(rows, self.device, self.head) for name, model in models.items()}
        if not self.head.keeps_answers:
            shares = [1 / len(models)] * len(models)
            predictions["ensemble"] = combine(list(predictions.values()), shares, self.head.kind)
        return {name: self.judge(split, each)[self.head.primary] for name, each in predictions.items()}

    def best(self, values: Mapping[str, float]) -> str:
        """The name with the best value of the primary metric; the first of equals."""
        sign = 1 if self.head.higher_is_better else -1
        return max(values, key=lambda name: sign * values[name] if math.isfinite(values[name]) else -math.inf)

    def note(self, **facts: Any) -> None:
        """Keep facts about this training (chosen peer, rows dropped) for the summary and the report.

        Args:
            **facts: JSON-ready values by name. Numbers, and mappings of numbers by model, get a row in the report.

        Raises:
            PluginError: a value that JSON does not have.
        """
        for name, value in facts.items():
            try:
                self.notes[name] = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError) as error:
                raise PluginError(
                    f"the fact '{name}' cannot be kept: {error}",
                    where="MethodContext.note",
                    fix="give finite numbers, texts, lists and mappings",
                ) from error


def changed_settings(config: TrainConfig, settings: Mapping[str, Any], phase: str) -> TrainConfig:
    """Training settings with those of one phase.

    Raises:
        RecipeError: a setting does not exist.
    """
    unknown = sorted(set(settings) - set(TrainConfig.model_fields))
    if unknown:
        raise RecipeError(
            f"'{unknown[0]}' is not a training setting",
            where=f"method, phase '{phase}'",
            fix=f"one of {', '.join(TrainConfig.model_fields)}",
        )
    return TrainConfig.model_validate({**config.model_dump(), **settings})
