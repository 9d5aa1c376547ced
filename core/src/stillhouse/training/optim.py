"""Optimiser, learning-rate schedule and weight averaging of a `TrainConfig`; everything is torch's own."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stillhouse.recipe.model import TrainConfig

Tensors = tuple[Tensor, ...] | list[Tensor]


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser over parameters that learn, in the order given."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    fused = config.fused or None  # None: as torch chooses
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            learning,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
            fused=fused,
        )
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(learning, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int) -> LambdaLR:
    """Learning rate over ``steps`` steps, as a multiple of the peak: a linear rise over ``warmup``, then the schedule.

    ``onecycle`` (Smith and Topin 2018) rises along a cosine over the first 30 % (or ``warmup``) and falls along a
    cosine.
    """
    rise = config.warmup or (0.3 if config.schedule == "onecycle" else 0.0)

    def multiple(step: int) -> float:
        progress = min((step + 0.5) / steps, 1.0)
        if progress < rise:
            share = progress / rise
            return (1 - math.cos(math.pi * share)) / 2 if config.schedule == "onecycle" else share
        falling = (progress - rise) / max(1 - rise, 1e-12)
        if config.schedule == "constant":
            return 1.0
        if config.schedule == "linear":
            return 1 - falling
        return (1 + math.cos(math.pi * falling)) / 2

    return LambdaLR(optimizer, multiple)


def make_average(model: nn.Module, config: TrainConfig) -> AveragedModel | None:
    """An exponential moving average of weights and buffers, when the recipe asks for one.

    The decay rises with the steps ``n``, min(``ema``, (1 + n) / (10 + n)): without that rise the average of a short
    training stays near the weights of the start.
    """
    if config.ema is None:
        return None
    longest: float = config.ema

    def mean(averages: Tensors, weights: Tensors, steps: Tensor | int) -> None:
        done = int(steps)
        get_ema_multi_avg_fn(min(longest, (1 + done) / (10 + done)))(averages, weights, steps)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=mean, use_buffers=True)
