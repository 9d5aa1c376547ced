"""What the framework costs in training: our loop against a plain one, a cached teacher against a live one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import stillhouse
from benchmarks.timing import Comparison, compare
from stillhouse.objectives import SimilarityPreserving, SoftTargets
from stillhouse.recipe import TrainConfig
from stillhouse.teachers import CachedTeacher, LiveTeacher, write_cache
from stillhouse.training.loss import Term
from stillhouse.training.threads import available_cores, choose_threads, limited_threads
from stillhouse.types import Batch, TensorSplit

ROWS, BATCH, CHANNELS, LENGTH, CLASSES = 2048, 64, 8, 64, 5
TEMPERATURE, ALPHA = 4.0, 0.3


def compare_training() -> Iterator[Comparison]:
    """One epoch of distilling a small temporal CNN, three ways."""
    torch.manual_seed(0)
    rows = {
        "x": torch.randn(ROWS, CHANNELS, LENGTH),
        "target": torch.randint(CLASSES, (ROWS,)),
        "index": torch.arange(ROWS),
    }
    batches = [{name: entry[at : at + BATCH] for name, entry in rows.items()} for at in range(0, ROWS, BATCH)]
    teacher = _network(128).eval().requires_grad_(False)

    def ours(source: object = teacher, terms: object = None) -> None:
        stillhouse.distill(
            _network(16),
            source,
            batches,
            terms or [SoftTargets(temperature=TEMPERATURE)],
            hard_loss=_hard,
            alpha=ALPHA,
            inputs=["x"],
        )

    yield compare("distill(), against the same epoch written by hand", ours, lambda: _by_hand(teacher, batches))
    with tempfile.TemporaryDirectory() as folder:
        source = LiveTeacher(teacher, inputs=["x"], taps=())
        write_cache(source, TensorSplit(rows), Path(folder) / "cache", key="benchmark")
        cached = CachedTeacher((Path(folder) / "cache", "benchmark"))
        yield compare("an epoch with the teacher's outputs cached, against asking it", lambda: ours(cached), ours)
    tapped = [
        Term(name="soft", objective=SoftTargets(temperature=TEMPERATURE)),
        Term(name="similarity", objective=SimilarityPreserving(), student="2", teacher="2"),
    ]
    yield compare(
        "an epoch with taps and a second objective, against one with soft targets", lambda: ours(terms=tapped), ours
    )


def compare_threads() -> Iterator[Comparison]:
    """An epoch with all cores against one with a single thread: a step that is too short for them, and a longer one."""
    torch.manual_seed(0)
    rows = torch.randn(16 * BATCH, CHANNELS, LENGTH)
    for name, width in (("short steps", 16), ("long steps", 256)):
        network = _network(width)

        def epoch(threads: int, network: nn.Module = network) -> None:
            with limited_threads(threads):
                for at in range(0, len(rows), BATCH):
                    network(rows[at : at + BATCH]).square().mean().backward()

        found = compare(f"all cores, against one thread: {name}", lambda: epoch(available_cores()), lambda: epoch(1))
        chosen = choose_threads(TrainConfig(batch_size=BATCH), network, TensorSplit({"x": rows}), ["x"])
        yield replace(found, name=f"{found.name}; auto takes {chosen}")


def _network(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(CHANNELS, width, 5, padding=2),
        nn.ReLU(),
        nn.Conv1d(width, width, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


def _hard(prediction: torch.Tensor, batch: Batch) -> torch.Tensor:
    return F.cross_entropy(prediction, batch["target"])


def _by_hand(teacher: nn.Module, batches: list[Batch]) -> None:
    student = _network(16).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for batch in batches:
        with torch.no_grad():
            wanted = teacher(batch["x"])
        logits = student(batch["x"])
        soft = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, 1),
            F.log_softmax(wanted / TEMPERATURE, 1),
            reduction="batchmean",
            log_target=True,
        )
        loss = ALPHA * _hard(logits, batch) + (1 - ALPHA) * TEMPERATURE**2 * soft
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
