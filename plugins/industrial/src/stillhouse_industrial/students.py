"""Students for windows of signals: a depthwise temporal CNN, a GRU, a network on window statistics, for the edge."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from stillhouse.errors import OptionError
from stillhouse.ranges import Range
from stillhouse.types import Task
from stillhouse_industrial.layers import TargetUnits


class TemporalCNN(nn.Module):
    """Depthwise filters over time, then a small mix of all sensors' responses; see `temporal_cnn`."""

    def __init__(self, task: Task, *, width: int, filters: int, kernel: int | None, dropout: float) -> None:
        super().__init__()
        window, sensors = task.inputs["signal"].shape
        channels = sensors * filters
        self.depthwise = nn.Conv1d(sensors, channels, min(kernel or window, window), groups=sensors, bias=False)
        self.whole_window = self.depthwise.kernel_size == (window,)
        self.norm = nn.BatchNorm1d(channels)
        self.pointwise = nn.Conv1d(channels, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, task.outputs)
        self.units = TargetUnits(task.info)

    def forward(self, signal: Tensor) -> Tensor:
        """Predictions ``[B, D]``, values in the target's unit or logits, for ``signal`` ``[B, T, S]``."""
        responses = torch.relu(self.norm(self.filtered(signal)))
        mixed = torch.relu(self.pointwise(responses)).mean(dim=-1)
        return self.units(self.output(self.dropout(mixed)))

    def filtered(self, signal: Tensor) -> Tensor:
        """Responses ``[B, S * filters, T - kernel + 1]`` of each sensor's filters."""
        if not self.whole_window:
            return self.depthwise(signal.transpose(1, 2))
        # A filter as long as the window has one response: a matrix product, several times faster on a CPU.
        filters = self.depthwise.weight.reshape(self.depthwise.in_channels, -1, *self.depthwise.kernel_size)
        return (filters @ signal.permute(2, 1, 0)).flatten(0, 1).T.unsqueeze(-1)


class GRU(nn.Module):
    """Gated recurrent unit over the window, its last state to the prediction; see `gru`."""

    def __init__(self, task: Task, *, hidden: int, layers: int) -> None:
        super().__init__()
        self.gru = nn.GRU(task.inputs["signal"].shape[-1], hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, task.outputs)
        self.units = TargetUnits(task.info)

    def forward(self, signal: Tensor) -> Tensor:
        """Predictions ``[B, D]``, values in the target's unit or logits, for ``signal`` ``[B, T, S]``."""
        states, _ = self.gru(signal)
        return self.units(self.output(states[:, -1]))


class StatisticsMLP(nn.Module):
    """The statistics of `features.window_statistics`, computed inside, and one hidden layer; see `statistics_mlp`."""

    def __init__(self, task: Task, *, hidden: int, dropout: float, bound: float) -> None:
        super().__init__()
        if bound <= 0:
            raise OptionError(
                f"bound must be above 0, not {bound}", where="model 'statistics-mlp'", fix="e.g. bound: 2"
            )
        self.bound = bound
        window, sensors = task.inputs["signal"].shape
        time = torch.arange(window, dtype=torch.float32) - (window - 1) / 2
        self.slope: Tensor
        self.register_buffer("slope", time / max(float((time**2).sum()), 1.0), persistent=False)
        self.third = max(1, window // 3)
        self.norm = nn.BatchNorm1d(6 * sensors, affine=False)
        self.hidden = nn.Sequential(nn.Dropout(dropout / 2), nn.Linear(6 * sensors, hidden), nn.ReLU())
        self.output = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, task.outputs))
        self.units = TargetUnits(task.info)

    def forward(self, signal: Tensor) -> Tensor:
        """Predictions ``[B, D]``, values in the target's unit or logits, for ``signal`` ``[B, T, S]``."""
        mean = signal.mean(dim=1)
        # The root of a tiny constant is added by hand: the gradient of std is not finite where a sensor stands still.
        spread = ((signal - mean[:, None]).square().mean(dim=1) + 1e-12).sqrt()
        slope = (self.slope[:, None] * signal).sum(dim=1)
        late, early = signal[:, -self.third :].mean(dim=1), signal[:, : self.third].mean(dim=1)
        statistics = torch.cat([mean, spread, slope, signal[:, -1], late, late - early], dim=1)
        bounded = self.bound * torch.tanh(self.norm(statistics) / self.bound)
        return self.units(self.output(self.hidden(bounded)))


def temporal_cnn(
    task: Task,
    *,
    width: Annotated[int, Range(4, 64, log=True, size=True)] = 32,
    filters: int = 6,
    kernel: int | None = None,
    dropout: float = 0.0,
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


def gru(task: Task, *, hidden: Annotated[int, Range(4, 64, log=True, size=True)] = 32, layers: int = 1) -> nn.Module:
    """A gated recurrent unit: about 4,800 parameters at the default width.

    Args:
        task: inputs and width of the prediction.
        hidden: units.
        layers: stacked layers.
    """
    return GRU(task, hidden=hidden, layers=layers)


def statistics_mlp(
    task: Task,
    *,
    hidden: Annotated[int, Range(4, 128, log=True, size=True)] = 32,
    dropout: float = 0.3,
    bound: float = 2.0,
) -> nn.Module:
    """One hidden layer on six statistics of each sensor's window: about 11,000 parameters at 52 sensors and 19 classes.

    Mean, standard deviation, slope, last value, mean of the last third and change from the first third, computed inside
    the model from the window, so that an exported model takes signals. Which sensors shake, rather than where they
    stand, is what many process faults show in, and a filter alone cannot see it. Standardised statistics are bounded
    smoothly, because a fault may drive them further in service than in any training run.

    Args:
        task: inputs and width of the prediction.
        hidden: units of the hidden layer.
        dropout: share of hidden units dropped while training; half of it of the statistics.
        bound: standard deviations that a statistic can count for.

    Raises:
        OptionError: bound is not positive.
    """
    return StatisticsMLP(task, hidden=hidden, dropout=dropout, bound=bound)
