"""What a resumed training needs: weights, optimiser, schedule, the best epoch so far, and how it is kept on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stillhouse.recipe.model import TrainConfig
from stillhouse.storage import read_checkpoint, write_checkpoint


@dataclass
class TrainingState:
    """Everything that a resumed training needs."""

    model: nn.Module
    extra: nn.Module | None
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    average: AveragedModel | None
    epoch: int = 0
    best_value: float = math.nan
    best_epoch: int = -1
    best_weights: dict[str, Tensor] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def exhausted(self, config: TrainConfig) -> bool:
        """Whether ``patience`` epochs went by without a better one."""
        return (
            config.patience is not None and self.best_epoch >= 0 and self.epoch - 1 - self.best_epoch >= config.patience
        )

    def finish_epoch(
        self, chosen: nn.Module, value: float, higher: bool, config: TrainConfig, record: dict[str, Any]
    ) -> None:
        """Keep the weights of ``chosen`` if its validation ``value`` is the best so far, and count the epoch."""
        better = math.isfinite(value) and (
            math.isnan(self.best_value)
            or config.select == "last"
            or (value > self.best_value if higher else value < self.best_value)
        )
        if better:
            self.best_value, self.best_epoch = value, self.epoch
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in chosen.state_dict().items()}
        self.history.append(record)
        self.epoch += 1

    def save(self, folder: Path) -> None:
        """Write ``checkpoint.pt`` atomically."""
        write_checkpoint(
            folder / "checkpoint.pt",
            {
                "model": self.model.state_dict(),
                "extra": self.extra.state_dict() if self.extra is not None else {},
                "optimizer": self.optimizer.state_dict(),
                "scheduler": {key: value for key, value in self.scheduler.state_dict().items() if key != "lr_lambdas"},
                "average": self.average.state_dict() if self.average is not None else {},
                "epoch": self.epoch,
                "best_value": self.best_value,
                "best_epoch": self.best_epoch,
                "best_weights": self.best_weights or {},
                "history": self.history,
            },
        )

    def resume(self, folder: Path | None) -> None:
        """Take up what ``checkpoint.pt`` holds, where there is one."""
        path = folder / "checkpoint.pt" if folder is not None else None
        if path is None or not path.exists():
            return
        state = read_checkpoint(path)
        self.model.load_state_dict(state["model"])
        if self.extra is not None:
            self.extra.load_state_dict(state["extra"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": [None]})
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.epoch, self.history = state["epoch"], state["history"]
        self.best_value, self.best_epoch = state["best_value"], state["best_epoch"]
        self.best_weights = state["best_weights"] or None
