"""What a resumed training needs: weights, optimiser, schedule, the best epochs so far, and how it is kept on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stillhouse.recipe.model import TrainConfig
from stillhouse.storage import read_checkpoint, write_checkpoint
from stillhouse.training.learner import Learner

CHECKPOINT = "checkpoint.pt"


@dataclass
class Best:
    """The best epoch of one network on validation rows; of equally good ones the latest, which has learned for longer
    and at a lower rate. On few rows many are equal.

    Attributes:
        improved: the first epoch that was as good.
    """

    value: float = math.nan
    epoch: int = -1
    improved: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class TrainingState:
    """Everything that a resumed training needs.

    Attributes:
        averages: moving average of each judged network, where the settings ask for one.
        best: best epoch of each judged network.
    """

    learner: Learner
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    averages: Mapping[str, AveragedModel]
    best: dict[str, Best]
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def candidates(self) -> dict[str, nn.Module]:
        """The networks to judge: averages where there are some."""
        return {
            name: self.averages[name].module if name in self.averages else model
            for name, model in self.learner.judged.items()
        }

    def exhausted(self, config: TrainConfig) -> bool:
        """Whether ``patience`` epochs went by without a better one."""
        latest = max(best.improved for best in self.best.values())
        return config.patience is not None and latest >= 0 and self.epoch - 1 - latest >= config.patience

    def finish_epoch(
        self, values: Mapping[str, float], higher_is_better: bool, config: TrainConfig, record: dict[str, Any]
    ) -> None:
        """Keep the weights of every candidate whose validation value is its best so far, and count the epoch."""
        candidates = self.candidates()
        for name, value in values.items():
            best = self.best[name]
            better = math.isnan(best.value) or (value > best.value if higher_is_better else value < best.value)
            better = better or config.select == "last"
            if math.isfinite(value) and (better or value == best.value):
                weights = {key: tensor.detach().cpu().clone() for key, tensor in candidates[name].state_dict().items()}
                self.best[name] = Best(value, self.epoch, self.epoch if better else best.improved, weights)
        self.history.append(record)
        self.epoch += 1

    def save(self, folder: Path) -> None:
        """Write ``checkpoint.pt`` atomically."""
        write_checkpoint(
            folder / CHECKPOINT,
            {
                "learner": self.learner.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": {key: value for key, value in self.scheduler.state_dict().items() if key != "lr_lambdas"},
                "averages": {name: average.state_dict() for name, average in self.averages.items()},
                "best": {name: asdict(best) for name, best in self.best.items()},
                "epoch": self.epoch,
                "history": self.history,
            },
        )

    def resume(self, folder: Path | None) -> None:
        """Take up what ``checkpoint.pt`` holds, where there is one."""
        path = folder / CHECKPOINT if folder is not None else None
        if path is None or not path.exists():
            return
        state = read_checkpoint(path)
        self.learner.load_state_dict(state["learner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict({**state["scheduler"], "lr_lambdas": [None]})
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name])
        self.best = {name: Best(**best) for name, best in state["best"].items()}
        self.epoch, self.history = state["epoch"], state["history"]
