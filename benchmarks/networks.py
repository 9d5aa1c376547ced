"""Teachers, students and rows of the comparisons of training, and their distillation written by hand: torch alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

BATCH, CLASSES, CHANNELS, LENGTH = 64, 5, 8, 32
TEMPERATURE, ALPHA = 4.0, 0.3


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        name: of the student.
        teacher: frozen, in eval mode.
        student: makes a student, the same in every call.
        batches: steps of an epoch.
        goal: see `benchmarks.timing.Comparison`.
    """

    name: str
    teacher: nn.Module
    student: Callable[[], nn.Module]
    batches: list[dict[str, torch.Tensor]]
    goal: float


class Transformer(nn.Module):
    """An encoder over positions, and the mean of what it says."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.embed = nn.Linear(CHANNELS, width)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of ``[B, C, L]``."""
        out: torch.Tensor = self.out(self.encoder(self.embed(x.transpose(1, 2))).mean(1))
        return out


def mlp(width: int) -> nn.Sequential:
    """Two hidden layers over the first position."""
    first = nn.Linear(CHANNELS * LENGTH, width)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES))


def cnn(width: int) -> nn.Sequential:
    """Two convolutions over time."""
    return nn.Sequential(
        nn.Conv1d(CHANNELS, width, 5, padding=2),
        nn.ReLU(),
        nn.Conv1d(width, width, 5, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


def cases() -> list[Case]:
    """A tiny multi-layer perceptron, a convolutional network, a transformer."""
    return [
        _case("a tiny MLP", mlp(128), lambda: mlp(16), steps=200, goal=1.05),
        _case("a CNN", cnn(128), lambda: cnn(32), steps=30, goal=1.02),
        _case("a transformer", Transformer(64, 3), lambda: Transformer(32, 2), steps=20, goal=1.02),
    ]


def _case(name: str, teacher: nn.Module, student: Callable[[], nn.Module], *, steps: int, goal: float) -> Case:
    torch.manual_seed(0)
    batch = {
        "x": torch.randn(BATCH, CHANNELS, LENGTH),
        "target": torch.randint(CLASSES, (BATCH,)),
        "index": torch.arange(BATCH),
    }

    def made() -> nn.Module:
        torch.manual_seed(0)
        return student()

    return Case(name, teacher.eval().requires_grad_(False), made, [batch] * steps, goal)


def hard_loss(prediction: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy."""
    return F.cross_entropy(prediction, batch["target"])


def by_hand(case: Case) -> nn.Module:
    """One epoch of soft targets and labels with AdamW, as a script would have it; the student that it trained."""
    student = case.student().train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for batch in case.batches:
        with torch.no_grad():
            wanted = case.teacher(batch["x"])
        logits = student(batch["x"])
        soft = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, 1),
            F.log_softmax(wanted / TEMPERATURE, 1),
            reduction="batchmean",
            log_target=True,
        )
        loss = ALPHA * hard_loss(logits, batch) + (1 - ALPHA) * TEMPERATURE**2 * soft
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return student
