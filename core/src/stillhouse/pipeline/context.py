"""What the stages of one run share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from stillhouse.errors import RunFolderError
from stillhouse.pipeline.extra_rows import MadeRows
from stillhouse.pipeline.folder import ELSEWHERE, remove_results
from stillhouse.pipeline.stages import platform_identity
from stillhouse.plugins.registry import Registry
from stillhouse.progress import Reporter
from stillhouse.recipe.model import ComponentRef, SoftTerm
from stillhouse.recipe.resolved import Bound, ResolvedRecipe, bind
from stillhouse.storage import write_tensors
from stillhouse.trained import Trained, component_identity
from stillhouse.types import Batch, Head, Split, Splits, Task


@dataclass
class RunContext:
    """A run in progress: its recipe, rows and head, where it writes, and what it has noticed.

    Attributes:
        splits: the rows that models are trained on; ``unlabelled`` are those of the dataset and the extra rows.
        data: fingerprint of the dataset, without the extra rows: teacher and baseline do not depend on them.
        extra: rows that the recipe's augmenter made.
        manager: arguments of the plugin manager, for other processes; None for the installed plugins.
        store: folder of teachers that other runs may share; that of the user by default.
        settled: the run is finished, and nothing of it may be made again.
    """

    resolved: ResolvedRecipe
    registry: Registry
    folder: Path
    reporter: Reporter
    splits: Splits
    head: Head
    data: str
    extra: MadeRows | None = None
    manager: Mapping[str, Any] | None = None
    store: Path | None = None
    settled: bool = False
    warnings: list[str] = field(default_factory=list)
    guards: dict[str, str] = field(default_factory=dict)
    _accelerators: dict[str, Accelerator] = field(default_factory=dict)

    def accelerator(self, precision: str = "no") -> Accelerator:
        """The accelerator for a precision; there is one per run and precision."""
        if precision not in self._accelerators:
            # accelerate keeps its state in a process-wide singleton, which refuses a second precision unless it is
            # reset.
            AcceleratorState._reset_state()
            # Processes of a launcher find each other on CPUs only where accelerate is told that these are meant.
            several = int(os.environ.get("WORLD_SIZE", "1")) > 1
            cpu = self.resolved.recipe.device == "cpu" or (several and not torch.accelerator.is_available())
            self._accelerators = {precision: Accelerator(cpu=cpu, mixed_precision=precision)}
        return self._accelerators[precision]

    def _any_accelerator(self) -> Accelerator:
        """Whichever there is: device and processes do not depend on precision."""
        return next(iter(self._accelerators.values())) if self._accelerators else self.accelerator()

    @property
    def device(self) -> torch.device:
        """Where models are."""
        device: torch.device = self._any_accelerator().device
        return device

    @property
    def processes(self) -> int:
        """Processes that train every model together."""
        return int(self._any_accelerator().num_processes)

    @property
    def is_main(self) -> bool:
        """This process writes files; the others wait for it."""
        return bool(self._any_accelerator().is_main_process)

    def wait(self) -> None:
        """Let all processes meet."""
        self._any_accelerator().wait_for_everyone()

    def task(self, seed: int) -> Task:
        """What models are built for."""
        return Task(info=self.splits.info, kind=self.head.kind, outputs=self.head.outputs, seed=seed)

    def warn(self, message: str) -> None:
        """Tell the user, once, and keep it for summary and report."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.reporter.warn(message)

    def make_again(self, why: str) -> None:
        """What was made from other inputs is about to be replaced: results and exports that rest on it go first.

        Raises:
            RunFolderError: the run is settled.
        """
        if self.settled:
            raise RunFolderError(
                f"'{self.folder}' holds a finished run, and what it was made from has changed ({why})",
                where=str(self.folder),
                fix=f"{ELSEWHERE}, so that its results are not lost",
            )
        remove_results(self.folder)

    def guard(self, name: str, detail: str) -> None:
        """Note that a guard rail held, for the manifest."""
        self.guards[name] = detail

    def unlabelled(self) -> dict[str, Split]:
        """Rows without labels by where they come from: ``unlabelled`` of the dataset, ``extra`` of the augmenter."""
        own = self.splits.unlabelled if self.extra is None else self.extra.own
        parts = {"unlabelled": own, "extra": None if self.extra is None else self.extra.rows}
        return {name: part for name, part in parts.items() if part is not None}

    def common_inputs(self) -> dict[str, Any]:
        """Inputs that every trained model depends on."""
        return {
            "data": self.data,
            "head": self.bound_inputs(self.resolved.head),
            "packages": platform_identity(),
            "device": self.device.type,
        }

    def bound_inputs(self, bound: Bound) -> dict[str, Any]:
        """Identity and options of a component, and of those that its options name."""
        identity: dict[str, Any] = {**component_identity(bound.component), "options": dict(bound.options)}
        if bound.named:
            identity["named"] = [component_identity(each.component) for each in bound.named]
        return identity

    def bind(self, kind: str, reference: Any) -> Bound:
        """A component by kind and reference (an id, or ``{"use": id, **options}``), options checked."""
        model = SoftTerm if kind == "objective" else ComponentRef
        return bind(self.registry, kind, model.model_validate(reference))

    def judged_rows(self, split: Split) -> Batch:
        """Entries of a split that metrics need, without the inputs."""
        return split.columns(["target", "index", *self.head.row_entries()])

    def evaluate(self, prediction: Tensor, rows: Mapping[str, Tensor]) -> dict[str, float]:
        """The head's metrics and those that the recipe adds."""
        metrics = dict(self.head.evaluate(prediction, dict(rows)))
        for bound in self.resolved.metrics:
            metrics[bound.component.spec.name] = float(bound.component.load()(**bound.options)(prediction, dict(rows)))
        return metrics

    def write_predictions(self, folder: Path, trained: Trained) -> None:
        """Predictions of validation and test rows, beside what is needed to judge them."""
        for name in ("val", "test"):
            split = self.splits.named()[name]
            self.write_prediction(folder, name, trained.predict(split, self.device, self.head))

    def write_prediction(self, folder: Path, name: str, prediction: Tensor) -> None:
        """One split's predictions."""
        rows = self.judged_rows(self.splits.named()[name])
        write_tensors(folder / "predictions" / f"{name}.safetensors", {"prediction": prediction, **rows})
