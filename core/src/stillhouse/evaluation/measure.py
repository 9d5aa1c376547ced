"""Cost of a model: parameters, bytes, floating-point operations, latency and throughput."""

from __future__ import annotations

import gc
import itertools
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stillhouse.forwarding import call
from stillhouse.types import Batch

LEAST_ROUNDS = 20
BLOCK = 10
"""Counted calls of a model that follow each other at batch 1."""
LEAD = 3
"""Calls of a model at the start of its block that are not counted, at most; at ``many`` one."""


def parameters(model: Any) -> int | None:
    """Numbers that define a fitted model.

    For a module its parameters, shared ones once. For scikit-learn's linear models coefficients and
    intercepts; for its trees and their ensembles a feature and a threshold per inner node and the values of
    each leaf. For a list of models their sum. None when a model's kind is not known.
    """
    if isinstance(model, nn.Module):
        return sum(parameter.numel() for parameter in model.parameters())
    if isinstance(model, list | tuple):
        return _sum(parameters(member) for member in model)
    if hasattr(model, "tree_"):
        tree = model.tree_
        inner = int((tree.children_left >= 0).sum())
        return 2 * inner + (int(tree.node_count) - inner) * int(tree.value[0].size)
    if hasattr(model, "_predictors"):  # histogram gradient boosting
        leaves = [tree.nodes["is_leaf"] for iteration in model._predictors for tree in iteration]
        return sum(int(2 * (~is_leaf.astype(bool)).sum() + is_leaf.sum()) for is_leaf in leaves)
    if hasattr(model, "estimators_"):
        return _sum(parameters(member) for member in np.ravel(model.estimators_))
    if hasattr(model, "coef_"):
        return int(np.size(model.coef_) + np.size(getattr(model, "intercept_", ())))
    if hasattr(model, "steps"):
        return parameters(model.steps[-1][1])
    return None


def _sum(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if not known or None in known else sum(value for value in known if value is not None)


def bytes_on_disk(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    path = Path(path)
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def flops(model: Any, inputs: Batch) -> int | None:
    """Floating-point operations of one forward pass over ``inputs``, two for each multiply-add.

    Matrix products, convolutions and attention are counted; activations, norms and other element-wise work
    are not.

    Args:
        model: a module; for anything else there is nothing to count.
        inputs: its inputs by argument name, usually of one row.

    Returns:
        The count, or None for what is not a module.
    """
    if not isinstance(model, nn.Module):
        return None
    training, fused_attention = model.training, torch.backends.mha.get_fastpath_enabled()
    counter = FlopCounterMode(display=False)
    try:
        model.eval()
        # Fused recurrent and attention kernels are opaque to the counter; without them an LSTM or a transformer is
        # made of products that it can count.
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the switch below warns of TF32 on hardware that nobody asked for
            with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), counter:
                call(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused_attention)
        model.train(training)
    return int(counter.get_total_flops())


def latency(
    models: Mapping[str, Callable[[Batch], Any]],
    one: Batch,
    many: Batch,
    *,
    samples: int = 200,
    throughput_samples: int = 20,
    warmup: int = 10,
    budget: float = 20.0,
) -> dict[str, Any]:
    """Time several models in turn: a block of calls of A, of B, of C, then of B, C, A, ..., so that a slow spell of the
    machine meets all. The first calls of a block are not counted: they find the caches, and the threads, as another
    model left them, and would make the time of a small model depend on what is timed beside it.

    Args:
        models: functions from a batch to a prediction, by name; modules must be in eval mode.
        one: the batch for latency, usually of one row.
        many: the batch for throughput.
        samples: rounds at ``one``.
        throughput_samples: rounds at ``many``.
        warmup: calls of each model before anything counts.
        budget: seconds after which no new round begins, shared by both parts; at least 20 rounds at ``one``
            and 3 at ``many`` are taken all the same.

    Returns:
        JSON-ready: ``batch``, ``throughput_batch`` (rows), ``threads`` (of torch), ``device``, ``samples``
        (rounds taken) and ``models``: for each name the raw ``latency_s`` and ``throughput_s``, seconds per
        call in order.
    """
    device = next(iter(one.values())).device
    started = time.perf_counter()
    with torch.inference_mode():
        small = _rounds(
            models, one, rounds=samples, least=LEAST_ROUNDS, warmup=warmup, block=BLOCK, until=started + 0.7 * budget
        )
        large = _rounds(models, many, rounds=throughput_samples, least=3, warmup=1, block=3, until=started + budget)
    return {
        "batch": len(next(iter(one.values()))),
        "throughput_batch": len(next(iter(many.values()))),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "samples": len(next(iter(small.values()))),
        "models": {name: {"latency_s": small[name], "throughput_s": large[name]} for name in models},
    }


def _rounds(
    models: Mapping[str, Callable[[Batch], Any]],
    batch: Batch,
    *,
    rounds: int,
    least: int,
    warmup: int,
    block: int,
    until: float,
) -> dict[str, list[float]]:
    names = list(models)
    for name in names:
        for _ in range(warmup):
            models[name](batch)
    taken: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in itertools.count():
            done = len(taken[names[0]])
            if done >= rounds or (done >= least and time.perf_counter() >= until):
                break
            for shift in range(len(names)):
                name = names[(number + shift) % len(names)]
                for _ in range(min(LEAD, (block + 1) // 3) if len(names) > 1 else 0):
                    models[name](batch)
                for _ in range(min(block, rounds - done)):
                    _synchronise(batch)
                    begin = time.perf_counter()
                    models[name](batch)
                    _synchronise(batch)
                    taken[name].append(time.perf_counter() - begin)
    finally:
        if collecting:
            gc.enable()
    return taken


def _synchronise(batch: Batch) -> None:
    if next(iter(batch.values())).is_cuda:
        torch.cuda.synchronize()


def summarise(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Statistics of `latency`'s raw samples: by model name ``latency_ms`` (``p50``, ``p99``) and
    ``throughput_per_s`` (rows per second at the median time of a call)."""
    found = {}
    for name, times in raw["models"].items():
        p50, p99 = np.percentile(np.asarray(times["latency_s"]) * 1000, [50, 99])
        per_call = float(np.median(times["throughput_s"]))
        found[name] = {
            "latency_ms": {"p50": float(p50), "p99": float(p99)},
            "throughput_per_s": raw["throughput_batch"] / per_call,
        }
    return found
