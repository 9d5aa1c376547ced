"""Students for remaining useful life: a depthwise temporal CNN and a GRU, for the edge."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stillhouse.types import Task
from stillhouse_industrial.layers import TargetUnits


class TemporalCNN(nn.Module):
    """Depthwise filters over time, then a small mix of all sensors' responses; see `temporal_cnn`."""

    def __init__(self, task: Task, *, width: int, filters: int, kernel: int | None, dropout: float) -> None:
        super().__init__()
        window, sensors = task.inputs["signal"].shape
        channels = sensors * filters
        self.depthwise = nn.Conv1d(sensors, channels, min(kernel or window, window), groups=sensors, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        self.pointwise = nn.Conv1d(channels, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, task.outputs)
        self.units = TargetUnits(task.info)

    def forward(self, signal: Tensor) -> Tensor:
        """Predictions ``[B, D]`` in the target's unit for ``signal`` ``[B, T, S]``."""
        responses = torch.relu(self.norm(self.depthwise(signal.transpose(1, 2))))
        mixed = torch.relu(self.pointwise(responses)).mean(dim=-1)
        return self.units(self.output(self.dropout(mixed)))


class GRU(nn.Module):
    """Gated recurrent unit over the window, its last state to the prediction; see `gru`."""

    def __init__(self, task: Task, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(task.inputs["signal"].shape[-1], hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, task.outputs)
        self.units = TargetUnits(task.info)

    def forward(self, signal: Tensor) -> Tensor:
        """Predictions ``[B, D]`` in the target's unit for ``signal`` ``[B, T, S]``."""
        states, _ = self.gru(signal)
        return self.units(self.output(states[:, -1]))


def temporal_cnn(
    task: Task, *, width: int = 32, filters: int = 6, kernel: int | None = None, dropout: float = 0.0
) -> nn.Module:
    """A depthwise-separable temporal CNN: about 5,400 parameters at the default width for 14 sensors.

    Each sensor has ``filters`` filters of its own (levels, trends, contrasts of the window), and a 1x1
    convolution mixes their responses. Few operations, so that a single window costs about as little as a call
    to the framework does.

    Args:
        task: inputs and width of the prediction.
        width: features after the mix; most parameters grow with it.
        filters: filters of each sensor.
        kernel: rows that a filter spans; by default the whole window. With fewer, responses are averaged over
            time.
        dropout: share of the mixed features dropped while training.
    """
    return TemporalCNN(task, width=width, filters=filters, kernel=kernel, dropout=dropout)


def gru(task: Task, *, hidden: int = 32, layers: int = 1) -> nn.Module:
    """A gated recurrent unit: about 4,800 parameters at the default width.

    Args:
        task: inputs and width of the prediction.
        hidden: units.
        layers: stacked layers.
    """
    return GRU(task, hidden=hidden, layers=layers)
