"""The loop over epochs: one function for teachers, baselines and students, resumable at every epoch, on accelerate."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType, broadcast_object_list, set_seed
from torch import Tensor, nn

from stillhouse.errors import TrainingError
from stillhouse.forwarding import predict_split, to_device
from stillhouse.progress import Reporter
from stillhouse.recipe.model import TrainConfig
from stillhouse.training.acceleration import accelerated
from stillhouse.training.finite import FiniteGuard
from stillhouse.training.learner import Learner
from stillhouse.training.optim import make_average, make_optimizer, make_scheduler
from stillhouse.training.rows import batches, epoch_seed, step_positions, unlabelled_positions
from stillhouse.training.state import Best, TrainingState
from stillhouse.training.threads import choose_threads, limited_threads
from stillhouse.training.values import StepValues
from stillhouse.types import Batch, Head, Split, joined

CHECKPOINT_SECONDS = 5.0
"""Shortest time between two checkpoints; a resumed run repeats the epochs since the last one, with the same numbers."""


@dataclass(kw_only=True)
class Fit:
    """What a training needs, beside the learner.

    Args:
        train: training rows.
        val: validation rows; the only ones that choose an epoch.
        head: judge of the validation rows.
        config: training settings.
        seed: seed of order, dropout and augmentation.
        folder: where checkpoints go; none are written when it is None.
        accelerator: devices, precision and processes.
        reporter: receives every epoch.
        label: what to call the model, e.g. ``"student, seed 0"``.
        tags: fields added to every record (stage, seed, member).
        unlabelled: rows that follow the labelled ones in each batch.
    """

    train: Split
    val: Split
    head: Head
    config: TrainConfig
    seed: int
    accelerator: Accelerator
    reporter: Reporter
    label: str
    folder: Path | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    unlabelled: Split | None = None


@functools.cache
def freeze_imports() -> None:
    """Take what is alive now, the imported packages above all, out of the reach of the garbage collector: accelerate
    collects at the end of every fit, and looking through them took most of the time of a short one."""
    gc.freeze()


def fit(learner: Learner, work: Fit) -> list[dict[str, Any]]:
    """Train in place; every judged network is left with the weights of its chosen epoch, in eval mode.

    Args:
        learner: what learns; moved to the accelerator's device.
        work: rows and settings.

    Returns:
        one record per epoch, JSON-ready.

    Raises:
        TrainingError: the loss is not finite (with the rows of the batch; the last checkpoint is kept), the
            validation metric never was a number, or the network cannot be compiled.
    """
    threads = choose_threads(work.config, learner.student, work.train, learner.inputs)
    with limited_threads(threads), accelerated(learner, work.config, work.label):
        return _fit(learner, work, threads)


def _fit(learner: Learner, work: Fit, threads: int) -> list[dict[str, Any]]:
    config, accelerator, head = work.config, work.accelerator, work.head

    # Everything that a checkpoint holds is made before it is taken up.
    targets = work.train.columns(["target"])["target"] if config.balance else None
    steps = len(step_positions(len(work.train), config, work.seed, 0, targets=targets, lengths=work.train.lengths))
    learner.to(accelerator.device)
    optimizer = make_optimizer(learner.parameters(), config)
    scheduler = make_scheduler(optimizer, config, steps * config.epochs)
    averages = {name: average for name, model in learner.judged.items() if (average := make_average(model, config))}
    state = TrainingState(learner, optimizer, scheduler, averages, {name: Best() for name in learner.judged})
    state.resume(work.folder)
    work.reporter.model(work.label, config.epochs, state.epoch)

    def after_step() -> None:
        scheduler.step()
        for name, average in averages.items():
            average.update_parameters(learner.judged[name])

    # One epoch after the other, each judged on validation rows and kept where that is due.
    model, prepared = _prepared(learner, optimizer, accelerator)
    saved_at = time.monotonic()
    while state.epoch < config.epochs and not state.exhausted(config):
        began, epoch = time.monotonic(), state.epoch
        learner.set_progress(epoch / max(config.epochs - 1, 1))
        # One seed an epoch: a resumed training needs no saved generator state.
        set_seed(epoch_seed(work.seed, epoch), device_specific=accelerator.num_processes > 1)
        train = train_epoch(
            model,
            step_batches(work, epoch, targets),
            prepared,
            _guard(learner, work, epoch),
            accelerator=accelerator,
            grad_clip=config.grad_clip,
            after_step=after_step,
        )
        metrics = {
            name: validate(each, head, work.val, learner.inputs_of(name), accelerator.device)
            for name, each in state.candidates().items()
        }
        record = {
            **work.tags,
            "epoch": epoch,
            "epochs": config.epochs,
            "lr": scheduler.get_last_lr()[0],
            "train": train,
            "val": next(iter(metrics.values())),
            **({"judged": metrics} if len(metrics) > 1 else {}),
            "threads": threads,
            "seconds": round(time.monotonic() - began, 3),
        }
        # Every process must choose the same epoch.
        values = broadcast_object_list([{name: each[head.primary] for name, each in metrics.items()}])[0]
        state.finish_epoch(values, head.higher_is_better, config, record)
        work.reporter.epoch(record)
        last = state.epoch == config.epochs or state.exhausted(config)
        due = last or time.monotonic() - saved_at >= CHECKPOINT_SECONDS
        if work.folder is not None and accelerator.is_main_process and due:
            state.save(work.folder)
            saved_at = time.monotonic()
    # What was only for the steps goes, and the chosen weights come back.
    accelerator.wait_for_everyone()
    if not _alone(accelerator):
        accelerator.free_memory()

    _take_best(learner, work, state)
    return state.history


def _guard(learner: Learner, work: Fit, epoch: int) -> FiniteGuard:
    return FiniteGuard(
        f"the loss of {work.label}",
        epoch,
        fix="lower train.*.lr or set train.*.grad_clip. The last good checkpoint is kept",
        teacher=learner.teacher,
    )


def _take_best(learner: Learner, work: Fit, state: TrainingState) -> None:
    """Every judged network gets the weights of its chosen epoch, in eval mode."""
    metric = work.head.primary
    for name, each in learner.judged.items():
        if state.best[name].epoch < 0:
            raise TrainingError(
                f"the validation {metric} of {work.label} was never a finite number",
                where="validation rows",
                fix="check the targets, or lower train.lr",
            )
        each.load_state_dict(state.best[name].weights)
    learner.eval()
    best = next(iter(state.best.values()))
    work.reporter.model_done(f"{metric} {best.value:.4g} on validation, epoch {best.epoch + 1}")


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Batch, int]],
    optimizer: torch.optim.Optimizer,
    guard: FiniteGuard,
    *,
    accelerator: Accelerator | None = None,
    grad_clip: float | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One pass over the batches: the steps of a run and of `stillhouse.distill`.

    Args:
        model: a `Learner`, wrapped or not.
        batches: batch and number of labelled rows of each step, on the model's device.
        optimizer: over what is to learn.
        guard: stops at a loss or a gradient that is not finite.
        accelerator: precision and processes; plain backward steps without it.
        grad_clip: largest norm of the gradient of all that learns, adapters included.
        after_step: called after each step.

    Returns:
        ``{"loss": mean, "terms": {name: {"raw": mean, "weighted": mean}}, "steps": number}``.

    Raises:
        TrainingError: a loss or a gradient is not finite.
    """
    model.train()
    plain = accelerator is None or _plain(accelerator)
    if plain and isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    # A gradient scaler (float16) expects infinite gradients now and then, and leaves such steps out itself.
    scaled = accelerator is not None and accelerator.scaler is not None
    watched = [] if scaled else list(model.parameters())
    mixed = accelerator is not None and accelerator.mixed_precision != "no"
    values = StepValues()
    steps = 0
    for batch, labelled in batches:
        with accelerator.autocast() if accelerator is not None and mixed else nullcontext():
            total, terms = model(batch, labelled)
        optimizer.zero_grad(set_to_none=True)
        if accelerator is None or plain:
            total.backward()
        else:
            accelerator.backward(total)
        guard.watch(total, batch, gradients=watched)
        if grad_clip is not None:
            clip = nn.utils.clip_grad_norm_ if accelerator is None else accelerator.clip_grad_norm_
            clip(model.parameters(), grad_clip)
        optimizer.step()
        after_step()
        steps += 1
        values.add(total, terms)
    guard.check()
    return {**values.means(), "steps": steps}


def _prepared(
    learner: Learner, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Learner and optimiser as accelerate wants them for the steps."""
    if _alone(accelerator):
        return learner, optimizer
    freeze_imports()
    model, prepared = accelerator.prepare(learner, optimizer)
    return model, prepared


def _alone(accelerator: Accelerator) -> bool:
    """Whether accelerate has nothing to prepare: one process, on the CPU, in one precision. At the end of a fit it
    would search the whole process for garbage, which takes longer than many a fit, and a fit leaves none."""
    one: bool = accelerator.distributed_type == DistributedType.NO
    return one and accelerator.device.type == "cpu" and accelerator.mixed_precision == "no"


def _plain(accelerator: Accelerator) -> bool:
    """Whether a step is torch's own: accelerate then only adds to it, looking for packages above all, a quarter of a
    millisecond a step."""
    kinds = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    return accelerator.scaler is None and accelerator.distributed_type in kinds


def step_batches(work: Fit, epoch: int, targets: Tensor | None) -> Iterator[tuple[Batch, int]]:
    """This process's rows of every step of an epoch, unlabelled ones last in every entry that both
    have, and the number of the labelled."""
    config, accelerator = work.config, work.accelerator
    rank, world = accelerator.process_index, accelerator.num_processes
    steps = step_positions(len(work.train), config, work.seed, epoch, targets=targets, lengths=work.train.lengths)
    loader = batches(work.train, steps.of_process(rank, world), workers=config.workers)
    others: Iterator[Batch] | None = None
    if work.unlabelled is not None and config.unlabelled_ratio > 0:
        per_step = max(1, round(config.batch_size * config.unlabelled_ratio))
        positions = unlabelled_positions(len(work.unlabelled), len(steps), per_step, work.seed, epoch)
        others = batches(work.unlabelled, positions.of_process(rank, world), workers=config.workers)
    for batch in loader:
        labelled = len(batch["index"])
        if others is not None:
            more = next(others)
            # Only the labelled rows have a target that means something.
            batch = {
                name: joined([entry, more[name]]) if name in more and name != "target" else entry
                for name, entry in batch.items()
            }
        yield to_device(batch, accelerator.device), labelled


def validate(
    model: nn.Module, head: Head, split: Split, inputs: tuple[str, ...], device: torch.device
) -> dict[str, float]:
    """The head's metrics of a split."""
    prediction = predict_split(model, split, inputs, device, head=head)
    return head.evaluate(prediction, split.columns(["target", "index", *head.row_entries()]))
