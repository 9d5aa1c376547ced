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
from torch import nn
from torch.nn import functional as F

import stillhouse
from benchmarks.networks import ALPHA, BATCH, CHANNELS, LENGTH, TEMPERATURE, Case, by_hand, cases, cnn, hard_loss
from benchmarks.timing import Comparison, compare
from stillhouse.objectives import SimilarityPreserving, SoftTargets
from stillhouse.recipe import TrainConfig
from stillhouse.teachers import CachedTeacher, LiveTeacher, write_cache
from stillhouse.training.loss import Term
from stillhouse.training.threads import available_cores, choose_threads, limited_threads
from stillhouse.types import TensorSplit


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
