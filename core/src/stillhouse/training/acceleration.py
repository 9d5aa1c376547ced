"""Settings that make steps faster and change nothing but how sums are rounded: compiled networks, channels last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from stillhouse.errors import TrainingError
from stillhouse.recipe.model import TrainConfig
from stillhouse.training.learner import Learner


@contextmanager
def accelerated(learner: Learner, config: TrainConfig, label: str) -> Iterator[None]:
    """The networks that learn as ``compile`` and ``channels_last`` want them for the steps; plain again behind them,
    so that what is judged, stored and exported afterwards knows nothing of it.

    Args:
        learner: its judged networks are changed.
        config: the settings.
        label: what to call the model in an error.

    Raises:
        TrainingError: a network cannot be compiled.
    """
    networks = list(learner.judged.values())
    for network in networks:
        if config.channels_last:
            network.to(memory_format=torch.channels_last)
        if config.compile:
            network.compile()
    try:
        with _told(label) if config.compile else nullcontext():
            yield
    finally:
        for network in networks:
            if config.channels_last:
                network.to(memory_format=torch.contiguous_format)
            if config.compile:
                # There is no public way back from Module.compile.
                network._compiled_call_impl = None


@contextmanager
def _told(label: str) -> Iterator[None]:
    from torch._dynamo.exc import TorchDynamoException  # a second to import

    try:
        yield
    except TorchDynamoException as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TrainingError(
            f"torch.compile cannot compile {label}: {reason}",
            where="train.*.compile",
            fix="set it to false, or install the C++ compiler that torch.compile needs on a CPU",
        ) from error
