"""Where the time of a training step goes, for every network of every recipe: ``python -m benchmarks.models [WORD]``.

Every student, teacher and control of the recipes whose id has ``WORD`` takes a few steps on labels, as a run would on
one thread; a line has the time of a step, its share in the operations that take most, and the calls of operations.
Recipes whose files are missing are left out and named.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from stillhouse.errors import StillhouseError
from stillhouse.pipeline.opening import open_context, untrained
from stillhouse.pipeline.rehearsal import few_rows
from stillhouse.plugins.manager import default_manager
from stillhouse.progress import Silent
from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import TrainConfig
from stillhouse.recipe.resolved import Bound
from stillhouse.training.finite import FiniteGuard
from stillhouse.training.learner import Supervised
from stillhouse.training.loop import Fit, step_batches, train_epoch
from stillhouse.training.optim import make_optimizer

STEPS = 5


def main() -> None:
    """Print one line a network."""
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    torch.set_num_threads(1)
    registry = default_manager().registry
    for component in registry.components("recipe"):
        if word not in component.id:
            continue
        try:
            for line in _recipe(component.id, registry):
                print(line, flush=True)
        except StillhouseError as error:
            print(f"{component.id}: left out: {error.what}", flush=True)


def _recipe(id: str, registry: Any) -> Iterator[str]:
    resolved = resolve(id, registry)
    with tempfile.TemporaryDirectory() as folder:
        context = open_context(resolved, Path(folder), registry, Silent(), download=False)
        config = resolved.recipe.train
        models: list[tuple[str, Bound, TrainConfig]] = [("teacher", each, config.teacher) for each in resolved.teachers]
        models += [("student", resolved.student, config.student)]
        models += [("control", each, config.student) for each in resolved.controls]
        seen: list[Any] = []
        for role, bound, settings in models:
            if (bound.id, bound.options) in seen:
                continue
            seen.append((bound.id, bound.options))
            trained = untrained(context, bound)
            if not trained.is_network:
                continue
            splits = few_rows(context.splits, settings.batch_size)
            learner = Supervised(trained.model, trained.inputs, context.head.hard_loss)
            work = Fit(
                train=splits.train,
                val=splits.val,
                head=context.head,
                config=settings,
                seed=0,
                accelerator=context.accelerator("no"),
                reporter=Silent(),
                label=role,
            )
            yield f"{id:34} {role:8} {bound.id:30} {_measured(learner, work)}"


def _measured(learner: Supervised, work: Fit) -> str:
    optimizer = make_optimizer(learner.parameters(), work.config)
    step = next(step_batches(work, 0, None))

    def once() -> None:
        train_epoch(learner, [step], optimizer, FiniteGuard("the loss", 0, fix=""))

    for _ in range(2):
        once()
    taken = []
    for _ in range(STEPS):
        began = time.perf_counter()
        once()
        taken.append(time.perf_counter() - began)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            once()
    events = found.key_averages()
    total = sum(each.self_cpu_time_total for each in events)
    most = sorted(events, key=lambda each: -each.self_cpu_time_total)[:4]
    shares = ", ".join(
        f"{each.key.removeprefix('aten::')} {100 * each.self_cpu_time_total / total:.0f} %" for each in most
    )
    calls = sum(each.count for each in events if each.key.startswith("aten::")) // STEPS
    return f"batch {len(step[0]['index']):5} {1000 * min(taken):8.2f} ms  {calls:5} operations: {shares}"


if __name__ == "__main__":
    main()
