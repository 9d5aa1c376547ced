"""Switches of a training against plain float32 steps: ``python -m benchmarks.switches [--write]``.

For a multi-layer perceptron, an image network and a transformer: how long an epoch takes with ``precision: bf16``,
``compile``, ``channels_last`` and ``fused`` (processor time of the shortest epoch after the first, over
that of plain steps, in turns), and what becomes of the result: the difference of the last training loss and the largest
difference of a probability of a held-out row, beside what another seed changes. ``--write`` puts the table into
``docs/scale.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from benchmarks.networks import CHANNELS, CLASSES, LENGTH, Transformer, mlp
from benchmarks.scale import machine
from benchmarks.timing import processor_seconds
from stillhouse.heads import Multiclass
from stillhouse.progress import Silent
from stillhouse.recipe import TrainConfig
from stillhouse.training.learner import Supervised
from stillhouse.training.loop import Fit, fit
from stillhouse.types import DataInfo, TensorSpec, TensorSplit

PAGE = Path(__file__).resolve().parent.parent / "docs" / "scale.md"
BEGIN, END = "<!-- switches: python -m benchmarks.switches --write -->", "<!-- end of switches -->"
EPOCHS, ROUNDS, ROWS = 4, 3, 2048
SWITCHES: dict[str, dict[str, Any]] = {
    "another seed": {},
    "`precision: bf16`": {"precision": "bf16"},
    "`compile: true`": {"compile": True},
    "`channels_last: true`": {"channels_last": True},
    "`fused: true`": {"fused": True},
}


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Args:
        epoch: seconds of the shortest epoch after the first.
        first: seconds of the first by the clock, in which networks are compiled.
        loss: mean training loss of the last.
        probabilities: of held-out rows.
    """

    epoch: float
    first: float
    loss: float
    probabilities: Tensor


class Clock(Silent):
    """Processor time, with that of compilers, at the start and at the end of every epoch."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        """See `Silent`."""
        self.at.append(processor_seconds())

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `Silent`."""
        self.at.append(processor_seconds())


def image_network() -> nn.Module:
    """Three convolutions over two dimensions."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


CASES: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "MLP, 2 x 256": ((CHANNELS, LENGTH), lambda: mlp(256)),
    "CNN, 3 layers of 32 to 64, images of 32 x 32": ((3, 32, 32), image_network),
    "transformer, 3 layers of 64": ((CHANNELS, LENGTH), lambda: Transformer(64, 3)),
}


def rows(shape: tuple[int, ...], count: int, seed: int, first: int) -> TensorSplit:
    """Made-up rows whose class is told by a random projection."""
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(99))
    inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    score = (inputs * weights).flatten(1).sum(1) / weights.square().sum().sqrt()
    target = torch.bucketize(score, torch.tensor([-1.0, -0.3, 0.3, 1.0]))
    return TensorSplit({"x": inputs, "target": target, "index": torch.arange(first, first + count)})


def train(shape: tuple[int, ...], build: Callable[[], nn.Module], seed: int, **switch: Any) -> Trained:
    """A training of a few epochs; the same start and the same rows whatever the seed, which is of the order."""
    torch.manual_seed(0)
    model = build()
    clock = Clock()
    info = DataInfo(inputs={"x": TensorSpec(shape)}, classes=tuple("abcde"))
    head = Multiclass(info)
    held_out = rows(shape, 512, 1, ROWS)
    work = Fit(
        train=rows(shape, ROWS, 0, 0),
        val=held_out,
        head=head,
        config=TrainConfig(epochs=EPOCHS, batch_size=64, lr=1e-3, threads=1, select="last", **switch),
        seed=seed,
        accelerator=_accelerator(switch.get("precision", "no")),
        reporter=clock,
        label="a network",
    )
    history = fit(Supervised(model, ["x"], head.hard_loss), work)
    with torch.no_grad():
        probabilities = model(held_out.columns()["x"]).softmax(1)
    epochs = [later - earlier for earlier, later in pairwise(clock.at)]
    return Trained(min(epochs[1:]), history[0]["seconds"], history[-1]["train"]["loss"], probabilities)


def _accelerator(precision: str) -> Accelerator:
    AcceleratorState._reset_state()  # accelerate allows one precision in a process
    return Accelerator(cpu=True, mixed_precision=precision)


def measured(name: str) -> list[str]:
    """Rows of the table for a network."""
    shape, build = CASES[name]
    lines = []
    for switch, changes in SWITCHES.items():
        if "channels_last" in changes and len(shape) < 3:
            continue
        ratios, firsts = [], []
        for _ in range(ROUNDS):
            plain = train(shape, build, 0)
            other = train(shape, build, 0 if changes else 1, **changes)
            ratios.append(other.epoch / plain.epoch)
            firsts.append(other.first)
        loss = abs(other.loss - plain.loss)
        probability = float((other.probabilities - plain.probabilities).abs().max())
        time_told = f"{statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f}" if changes else "– | –"
        first_told = f"{firsts[0]:.0f} s" if "compile" in changes else "–"
        lines.append(f"| {name} | {switch} | {time_told} | {first_told} | {loss:.1e} | {probability:.1e} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Print the table, and write it where that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switches", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table of the documentation")
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()  # compile here, whatever was compiled before
    on = machine()
    lines = [
        f"\n{on['date']}, one thread, load {on['load']}, Python {on['python']}, torch {on['torch']}.\n",
        "| network | switch | an epoch, over plain | range | compiling | loss differs by | a probability by |",
        "|---|---|---:|---:|---:|---:|---:|",
        *(line for name in CASES for line in measured(name)),
    ]
    if given.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
