"""The loop over epochs: one function for teachers, baselines and students, resumable at every epoch, on accelerate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stillhouse.errors import TrainingError
from stillhouse.forwarding import predict, to_device
from stillhouse.progress import Reporter
from stillhouse.recipe.model import TrainConfig
from stillhouse.training.finite import FiniteGuard
from stillhouse.training.optim import make_average, make_optimizer, make_scheduler
from stillhouse.training.rows import batches, epoch_seed, in_order, step_positions, unlabelled_positions
from stillhouse.training.state import TrainingState
from stillhouse.types import Batch, Head, Outputs, Split

TermValues = dict[str, dict[str, Tensor]]
StepLoss = Callable[[nn.Module, Batch, int], tuple[Tensor, TermValues]]
"""``(model, batch, labelled rows) -> (total, raw and weighted value of each term)``."""

CHECKPOINT_SECONDS = 5.0
"""Shortest time between two checkpoints; a resumed run repeats the epochs since the last one, with the same numbers."""


@dataclass(kw_only=True)
class Fit:
    """What a training needs, beside the model and its loss.

    Args:
        train: training rows.
        val: validation rows; the only ones that choose an epoch.
        head: judge of the validation rows.
        inputs: batch entries that the model is called with.
        config: training settings.
        seed: seed of weights, order, dropout and augmentation.
        folder: where checkpoints go; none are written when it is None.
        accelerator: devices, precision and processes.
        reporter: told of every epoch.
        label: what to call the model, e.g. ``"student, seed 0"``.
        tags: fields added to every record (stage, seed, member).
        unlabelled: rows that follow the labelled ones in each batch.
        teacher: what the model is distilled from; an error names the rows of which its output is not finite.
        on_epoch: called with the progress in [0, 1] before each epoch (schedules).
    """

    train: Split
    val: Split
    head: Head
    inputs: Sequence[str]
    config: TrainConfig
    seed: int
    accelerator: Accelerator
    reporter: Reporter
    label: str
    folder: Path | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    unlabelled: Split | None = None
    teacher: Callable[[Batch], Outputs] | None = None
    on_epoch: Callable[[float], None] | None = None


def fit(model: nn.Module, step_loss: StepLoss, work: Fit, *, extra: nn.Module | None = None) -> list[dict[str, Any]]:
    """Train ``model`` in place and leave it with the chosen weights, in eval mode.

    Args:
        model: the network; moved to the accelerator's device.
        step_loss: the loss of one step.
        work: rows and settings.
        extra: a module whose parameters learn with the model and are not part of it (adapters).

    Returns:
        one record per epoch, JSON-ready.

    Raises:
        TrainingError: the loss is not finite (with the rows of the batch; the last checkpoint is kept), or the
            validation metric never was a number.
    """
    config, accelerator = work.config, work.accelerator
    device = accelerator.device
    targets = work.train.columns(["target"])["target"] if config.balance else None
    steps_per_epoch = len(step_positions(len(work.train), config, work.seed, 0, targets=targets))
    learning = [*model.parameters(), *(extra.parameters() if extra is not None else ())]
    model.to(device)
    if extra is not None:
        extra.to(device)
    optimizer = make_optimizer(learning, config)
    scheduler = make_scheduler(optimizer, config, steps_per_epoch * config.epochs)
    average = make_average(model, config)
    state = TrainingState(model, extra, optimizer, scheduler, average)
    state.resume(work.folder)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    work.reporter.unit(work.label, config.epochs, state.epoch)
    saved_at = time.monotonic()
    while state.epoch < config.epochs and not state.exhausted(config):
        began = time.monotonic()
        epoch = state.epoch
        if work.on_epoch is not None:
            work.on_epoch(epoch / max(config.epochs - 1, 1))
        set_seed(epoch_seed(work.seed, epoch), device_specific=accelerator.num_processes > 1)
        wrapped.train()
        if extra is not None:
            extra.train()
        sums = _run_epoch(
            wrapped, model, step_loss, work, prepared, scheduler, average, epoch, targets, steps_per_epoch, extra
        )
        chosen = average.module if average is not None else model
        metrics = validate(chosen, work.head, work.val, work.inputs, device)
        record = {
            **work.tags,
            "epoch": epoch,
            "epochs": config.epochs,
            "lr": scheduler.get_last_lr()[0],
            "train": sums,
            "val": metrics,
            "seconds": round(time.monotonic() - began, 3),
        }
        value = broadcast_object_list([metrics[work.head.primary]])[0]
        state.finish_epoch(chosen, value, work.head.higher_is_better, config, record)
        work.reporter.epoch(record)
        last = state.epoch == config.epochs or state.exhausted(config)
        if (
            work.folder is not None
            and accelerator.is_main_process
            and (last or time.monotonic() - saved_at >= CHECKPOINT_SECONDS)
        ):
            state.save(work.folder)
            saved_at = time.monotonic()
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    if state.best_weights is None:
        raise TrainingError(
            f"the validation {work.head.primary} of {work.label} was never a finite number",
            where="validation rows",
            fix="check the targets, or lower train.lr",
        )
    model.load_state_dict(state.best_weights)
    model.eval()
    work.reporter.unit_done(f"{work.head.primary} {state.best_value:.4g} on validation, epoch {state.best_epoch + 1}")
    return state.history


def _run_epoch(
    wrapped: nn.Module,
    model: nn.Module,
    step_loss: StepLoss,
    work: Fit,
    optimizer: Any,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    average: AveragedModel | None,
    epoch: int,
    targets: Tensor | None,
    steps_per_epoch: int,
    extra: nn.Module | None,
) -> dict[str, Any]:
    config, accelerator = work.config, work.accelerator
    steps = step_positions(len(work.train), config, work.seed, epoch, targets=targets)
    rank, world = accelerator.process_index, accelerator.num_processes
    mine = [step[rank::world] for step in steps]
    loader = batches(work.train, mine, workers=config.workers)
    extra_rows: Any = None
    if work.unlabelled is not None and config.unlabelled_ratio > 0:
        per_step = max(1, round(config.batch_size * config.unlabelled_ratio))
        positions = unlabelled_positions(len(work.unlabelled), steps_per_epoch, per_step, work.seed, epoch)
        extra_rows = batches(work.unlabelled, [step[rank::world] for step in positions], workers=config.workers)
    sums: dict[str, Tensor] = {}
    guard = FiniteGuard(
        f"the loss of {work.label}",
        epoch,
        fix="lower train.*.lr or set train.*.grad_clip. The last good checkpoint is kept",
        teacher=work.teacher,
    )
    for batch in loader:
        labelled = len(batch["index"])
        if extra_rows is not None:
            batch = _append(batch, next(extra_rows))
        given = batch
        batch = to_device(batch, accelerator.device)
        with accelerator.autocast():
            total, values = step_loss(wrapped, batch, labelled)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(total)
        # A gradient scaler (float16) expects infinite gradients now and then, and leaves such steps out itself.
        learning = [*wrapped.parameters(), *(extra.parameters() if extra is not None else ())]
        guard.watch(total, given, gradients=learning if accelerator.scaler is None else ())
        if extra is not None and world > 1:
            _average_gradients(extra, accelerator)
        if config.grad_clip is not None:
            accelerator.clip_grad_norm_(wrapped.parameters(), config.grad_clip)
        optimizer.step()
        scheduler.step()
        if average is not None:
            average.update_parameters(model)
        # Sums stay on the device: one host transfer per epoch, not per step.
        _accumulate(sums, "loss", total)
        for name, pair in values.items():
            _accumulate(sums, f"{name}\0raw", pair["raw"])
            _accumulate(sums, f"{name}\0weighted", pair["weighted"])
    guard.check()
    means = {name: float(value) / len(steps) for name, value in sums.items()}
    terms: dict[str, dict[str, float]] = {}
    for name, value in means.items():
        if "\0" in name:
            term, part = name.split("\0")
            terms.setdefault(term, {})[part] = value
    return {"loss": means["loss"], "terms": terms}


def _average_gradients(module: nn.Module, accelerator: Accelerator) -> None:
    """What DDP does for the model, done for modules that learn beside it and have no forward of their own to wrap."""
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")


def _append(batch: Batch, unlabelled: Batch) -> Batch:
    """The batch with unlabelled rows behind its own, in every entry that both have; ``target`` stays as it is."""
    return {
        name: torch.cat([entry, unlabelled[name]]) if name in unlabelled and name != "target" else entry
        for name, entry in batch.items()
    }


def _accumulate(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value.detach() if name in sums else value.detach().clone()


@torch.no_grad()
def predict_split(
    model: nn.Module, split: Split, inputs: Sequence[str], device: torch.device, batch_size: int = 512
) -> Tensor:
    """Predictions for all rows in order, float32 on the CPU; the model's training mode is restored."""
    training = model.training
    model.eval()
    try:
        parts = [
            predict(model, to_device(batch, device), inputs).float().cpu() for batch in in_order(split, batch_size)
        ]
    finally:
        model.train(training)
    return torch.cat(parts)


def validate(
    model: nn.Module, head: Head, split: Split, inputs: Sequence[str], device: torch.device
) -> dict[str, float]:
    """The head's metrics of a split."""
    prediction = predict_split(model, split, inputs, device)
    return head.evaluate(prediction, split.columns(["target", "index", *head.row_entries()]))
