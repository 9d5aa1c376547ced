"""Losses against their equations written down directly, one step forward and backward: time, and peak memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import Comparison, compare
from stillhouse.objectives import AttentionTransfer, BernoulliKL, Hints, Relational

ROWS, WIDTHS = 256, (1024, 2048, 4096)
Loss = Callable[[Tensor, Tensor], Tensor]


def relational(student: Tensor, teacher: Tensor, distance_weight: float = 25.0, angle_weight: float = 50.0) -> Tensor:
    """Distances and angles from all differences of rows, ``[B, B, D]``."""
    student_gaps, teacher_gaps = (each.unsqueeze(0) - each.unsqueeze(1) for each in (student, teacher))
    loss = student.sum() * 0.0
    if distance_weight:
        loss = loss + distance_weight * F.smooth_l1_loss(_distances(student_gaps), _distances(teacher_gaps))
    if angle_weight:
        loss = loss + angle_weight * F.smooth_l1_loss(_cosines(student_gaps), _cosines(teacher_gaps))
    return loss


def _distances(gaps: Tensor) -> Tensor:
    distances = torch.linalg.vector_norm(gaps, dim=2)
    relative: Tensor = distances / distances[distances > 0].mean()
    return relative


def _cosines(gaps: Tensor) -> Tensor:
    directions = F.normalize(gaps, p=2, dim=2)
    return torch.bmm(directions, directions.transpose(1, 2))


def bernoulli_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Each label a softmax over ``[z, 0]``."""
    student_log, teacher_log = (
        F.log_softmax(torch.stack((each, torch.zeros_like(each)), dim=-1), dim=-1) for each in (student, teacher)
    )
    probability = teacher_log.exp()
    return (probability * (teacher_log - student_log) - probability + student_log.exp()).sum(-1).mean()


def hints(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of squares."""
    return (student - teacher).square().mean()


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Each feature at its own scale, its magnitudes and their powers all written out."""
    student_map, teacher_map = (
        F.normalize((each / each.detach().abs().amax((1, 2, 3), keepdim=True)).abs().pow(2.0).mean(1).flatten(1), dim=1)
        for each in (student, teacher)
    )
    return (student_map - teacher_map).square().mean()


CASES: dict[str, tuple[Loss, Loss, tuple[int, ...]]] = {
    **{f"relational, width {width}": (Relational(), relational, (ROWS, width)) for width in WIDTHS},
    **{
        f"relational distances, width {width}": (
            Relational(angle_weight=0.0),
            lambda student, teacher: relational(student, teacher, angle_weight=0.0),
            (ROWS, width),
        )
        for width in WIDTHS
    },
    "bernoulli-kl, 512 labels": (BernoulliKL(), bernoulli_kl, (ROWS, 512)),
    "hints, 64 maps of 28 x 28": (Hints(), hints, (64, 64, 28, 28)),
    "attention-transfer, 64 maps of 28 x 28": (AttentionTransfer(), attention_transfer, (64, 64, 28, 28)),
}


def compare_objectives() -> Iterator[Comparison]:
    """Every loss against its direct form, in time and in memory."""
    for name, (ours, direct, shape) in CASES.items():
        pairs = 1 if "relational" in name else 9  # the direct form takes many seconds a step
        yield compare(f"{name}: time", partial(_step, ours, shape), partial(_step, direct, shape), pairs=pairs)
        peaks = [_peak(name, side) for side in ("ours", "direct")]
        yield Comparison(f"{name}: peak memory", peaks[0], peaks[1], (peaks[0] / peaks[1],), unit="MB")


def _step(loss: Loss, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(shape, generator=generator).requires_grad_()
    loss(student, torch.randn(shape, generator=generator)).backward()  # type: ignore[no-untyped-call]


def _peak(name: str, side: str) -> float:
    """MB that one step adds to a fresh process."""
    command = [sys.executable, "-m", "benchmarks.objectives", name, side]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _print_peak(name: str, side: str) -> None:
    ours, direct, shape = CASES[name]
    torch.set_num_threads(1)
    loss = ours if side == "ours" else direct
    _step(loss, (2, *shape[1:]))  # what the first step loads does not count
    before = _highest()
    _step(loss, shape)
    print(max(1.0, _highest() - before))


def _highest() -> float:
    """MB that this process ever held (Linux; ``ru_maxrss`` begins at what its parent held)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    _print_peak(*sys.argv[1:])
