"""Made-up rows of real shape for ``python -m benchmarks.scale``: a plugin of three datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from stillhouse import hookimpl
from stillhouse.kinds import OutputKind
from stillhouse.plugins import DatasetSpec
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit

HELD_OUT = 500
"""Validation rows, and test rows, at every size."""
CLASSES = ("a", "b", "c", "d")


def _splits(name: str, shape: tuple[int, ...], rows: int, seed: int, *, value: bool, meta: dict[str, Any]) -> Splits:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(shape, generator=generator) / len(torch.empty(shape).flatten()) ** 0.5

    def part(count: int, first: int) -> TensorSplit:
        inputs = torch.randn(count, *shape, generator=generator)
        score = (inputs * weights).flatten(1).sum(1) + 0.1 * torch.randn(count, generator=generator)
        target: Tensor = score if value else torch.bucketize(score, torch.tensor([-0.7, 0.0, 0.7]))
        return TensorSplit({name: inputs, "target": target, "index": torch.arange(first, first + count)})

    train, val, test = part(rows, 0), part(HELD_OUT, rows), part(HELD_OUT, rows + HELD_OUT)
    info = DataInfo(inputs={name: TensorSpec(shape)}, classes=None if value else CLASSES, simulated=True, meta=meta)
    return Splits(info=info, train=train, val=val, test=test)


def windows(context: DataContext, *, rows: int = 100) -> Splits:
    """30 cycles of 14 sensors and a value, as in remaining useful life.

    Args:
        rows: training rows.
    """
    return _splits("signal", (30, 14), rows, context.seed, value=True, meta={})


def transactions(context: DataContext, *, rows: int = 100) -> Splits:
    """30 numbers and a class.

    Args:
        rows: training rows.
    """
    return _splits("x", (30,), rows, context.seed, value=False, meta={})


def spectrograms(context: DataContext, *, rows: int = 100) -> Splits:
    """40 bands of 64 frames and a class.

    Args:
        rows: training rows.
    """
    settings = {"rate": 8000, "fft": 256, "hop": 80, "mels": 40}
    meta = {"log_mel": settings, "log_mel_mean": 0.0, "log_mel_std": 1.0}
    return _splits("spectrogram", (40, 64), rows, context.seed, value=False, meta=meta)


@hookimpl
def stillhouse_datasets() -> Iterable[DatasetSpec]:
    """The three."""
    made: tuple[tuple[Callable[..., Splits], OutputKind], ...] = (
        (windows, OutputKind.REGRESSION),
        (transactions, OutputKind.MULTICLASS),
        (spectrograms, OutputKind.MULTICLASS),
    )
    for target, kind in made:
        yield DatasetSpec(
            name=target.__name__,
            target=f"{__name__}:{target.__name__}",
            summary=f"made-up {target.__name__}",
            licence="none needed",
            kinds=(kind,),
            simulated=True,
        )
