"""What the framework costs in training: our loop against a plain one, a cached teacher against none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

import stillhouse
from benchmarks.networks import ALPHA, BATCH, CHANNELS, LENGTH, TEMPERATURE, Case, by_hand, cases, cnn, hard_loss
from benchmarks.timing import Comparison, compare
from stillhouse.heads import Multiclass
from stillhouse.objectives import SimilarityPreserving, SoftTargets
from stillhouse.progress import Silent
from stillhouse.recipe import TrainConfig
from stillhouse.teachers import CachedTeacher, LiveTeacher, write_cache
from stillhouse.training.learner import Supervised
from stillhouse.training.loop import Fit, fit
from stillhouse.training.loss import Term
from stillhouse.training.threads import available_cores, choose_threads, limited_threads
from stillhouse.types import DataInfo, TensorSpec, TensorSplit

FEATURES, EPOCHS = 16, 2


def compare_training() -> Iterator[Comparison]:
    """Epochs of distillation with `stillhouse.distill` and by hand; torchdistill, where there is one; caches; taps."""
    every = cases()
    for case in every:
        yield compare(
            f"distill() on {case.name}, against the same steps by hand",
            lambda case=case: ours(case),  # type: ignore[misc]
            lambda case=case: by_hand(case),  # type: ignore[misc]
            goal=case.goal,
        )
    yield from _torchdistill()
    yield compare(
        "a run's epochs of a tiny MLP on labels, order and gathering of rows included, against the same by hand",
        run_alone,
        gathered_alone,
    )
    convolutional = every[1]
    with tempfile.TemporaryDirectory() as folder:
        cached = _cached(convolutional, Path(folder) / "cache")
        yield compare(
            "an epoch of a CNN with the teacher's outputs cached, against the student alone by hand",
            lambda: ours(convolutional, cached),
            lambda: alone(convolutional),
            goal=1.05,
        )
        yield compare(
            "the same with the teacher's outputs cached, against asking it",
            lambda: ours(convolutional, cached),
            lambda: ours(convolutional),
        )
    tapped = [
        Term(name="soft", objective=SoftTargets(temperature=TEMPERATURE)),
        Term(name="similarity", objective=SimilarityPreserving(), student="2", teacher="2"),
    ]
    yield compare(
        "the same with taps and a second objective, against soft targets alone",
        lambda: ours(convolutional, terms=tapped),
        lambda: ours(convolutional),
    )


def ours(case: Case, source: object = None, terms: object = None) -> nn.Module:
    """One epoch with `stillhouse.distill`; the student that it trained."""
    student = case.student()
    stillhouse.distill(
        student,
        source or case.teacher,  # type: ignore[arg-type]
        case.batches,
        terms or [SoftTargets(temperature=TEMPERATURE)],  # type: ignore[arg-type]
        hard_loss=hard_loss,
        alpha=ALPHA,
        inputs=["x"],
    )
    return student


def alone(case: Case) -> None:
    """One epoch of the student on labels, by hand."""
    student = case.student().train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for batch in case.batches:
        loss = F.cross_entropy(student(batch["x"]), batch["target"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def run_alone() -> None:
    """Epochs of a tiny MLP as a run trains its baseline."""
    rows = _rows()
    head = Multiclass(DataInfo(inputs={"x": TensorSpec((FEATURES,))}, classes=tuple("abc")))
    work = Fit(
        train=rows,
        val=TensorSplit({name: column[:BATCH] for name, column in rows.columns().items()}),
        head=head,
        config=TrainConfig(epochs=EPOCHS, batch_size=BATCH, schedule="constant", threads=1),
        seed=0,
        accelerator=Accelerator(cpu=True),
        reporter=Silent(),
        label="a tiny MLP",
    )
    fit(Supervised(_tiny(), ["x"], head.hard_loss), work)


def gathered_alone() -> None:
    """The same in plain torch: a new order in every epoch, and the rows of each step gathered."""
    columns, student = _rows().columns(), _tiny()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        for at in torch.randperm(len(columns["target"])).split(BATCH):
            loss = F.cross_entropy(student(columns["x"][at]), columns["target"][at])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def _rows() -> TensorSplit:
    inputs = torch.randn(100 * BATCH, FEATURES, generator=torch.Generator().manual_seed(0))
    return TensorSplit({"x": inputs, "target": inputs[:, :3].argmax(1), "index": torch.arange(len(inputs))})


def _tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 3))


def _cached(case: Case, folder: Path) -> CachedTeacher:
    write_cache(LiveTeacher(case.teacher, inputs=["x"], taps=()), TensorSplit(case.batches[0]), folder, key="benchmark")
    return CachedTeacher((folder, "benchmark"))


def _torchdistill() -> Iterator[Comparison]:
    """Its comparisons, where the Python that ``TORCHDISTILL_PYTHON`` names (or this one) can import it."""
    python = os.environ.get("TORCHDISTILL_PYTHON", sys.executable)
    script = Path(__file__).with_name("torchdistill_loop.py")
    done = subprocess.run([python, str(script)], check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        found = json.loads(line)
        yield Comparison(**{**found, "ratios": tuple(found["ratios"])})


def compare_threads() -> Iterator[Comparison]:
    """An epoch with all cores against one with a single thread: a step that is too short for them, and a longer one."""
    import time

    torch.manual_seed(0)
    rows = torch.randn(16 * BATCH, CHANNELS, LENGTH)
    for name, width in (("short steps", 16), ("long steps", 256)):
        network = cnn(width)

        def epoch(threads: int, network: nn.Module = network) -> None:
            with limited_threads(threads):
                for at in range(0, len(rows), BATCH):
                    network(rows[at : at + BATCH]).square().mean().backward()

        found = compare(
            f"all cores, against one thread: {name}",
            lambda: epoch(available_cores()),
            lambda: epoch(1),
            clock=time.perf_counter,  # more threads use more processor time to be ready earlier
        )
        chosen = choose_threads(TrainConfig(batch_size=BATCH), network, TensorSplit({"x": rows}), ["x"])
        yield replace(found, name=f"{found.name}; auto takes {chosen}")
