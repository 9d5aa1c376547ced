"""How many CPU threads a training uses: as many as help it, and never more than its share of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.forwarding import predict, to_device
from stillhouse.recipe.model import TrainConfig
from stillhouse.types import Split

FLOPS_PER_OPERATION = 4_000_000
"""Average work of an operation of a forward pass from which a second thread saves more than waking it costs (measured
by ``python -m benchmarks threads``)."""


def share() -> int:
    """Threads that this process may use: the cores it may run on (fewer where ``OMP_NUM_THREADS`` says so), divided by
    the processes of a launcher that run beside it."""
    cores = available_cores()
    allowed = int(given) if (given := os.environ.get("OMP_NUM_THREADS", "")).isdigit() and int(given) > 0 else cores
    return max(1, min(cores, allowed) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_threads(config: TrainConfig, model: nn.Module, rows: Split, inputs: Sequence[str]) -> int:
    """``config.threads``, at most the cores there are; for ``"auto"`` one thread where the steps are too short to be
    shared out, else `share`.

    The choice is a function of the model and the batch size, never of the time of day: a training that is repeated
    takes the same number, and so gives the same bits.
    """
    if config.threads != "auto":
        return min(config.threads, available_cores())
    most = share()
    return (
        most if most > 1 and _flops_per_operation(model, rows, inputs) * config.batch_size >= FLOPS_PER_OPERATION else 1
    )


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Let torch, and the thread pools of scikit-learn and BLAS, use ``count`` threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def _flops_per_operation(model: nn.Module, rows: Split, inputs: Sequence[str]) -> float:
    """Floating-point operations of an operation of one row's forward pass, on average."""
    training, device = model.training, next((each.device for each in model.parameters()), torch.device("cpu"))
    count, flops = _Operations(), FlopCounterMode(display=False)  # type: ignore[no-untyped-call]
    model.eval()
    try:
        with torch.random.fork_rng(), torch.no_grad(), flops, count:
            predict(model, to_device(rows.batch([0]), device), inputs)
    finally:
        model.train(training)
    return float(flops.get_total_flops()) / max(count.number, 1)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that reach the device."""

    number = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return function(*args, **(kwargs or {}))
