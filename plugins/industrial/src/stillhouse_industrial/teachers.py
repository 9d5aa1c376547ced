"""Teachers for windows of signals: a BiLSTM with attention, a transformer encoder, ensembles of trees."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from stillhouse.components.trees import hist_gradient_boosting, random_forest
from stillhouse.ranges import Choices, Range
from stillhouse.types import Estimator, Task
from stillhouse_industrial.layers import TargetUnits, sinusoids


class AttentionPool(nn.Module):
    """Weighted mean over time ``[B, T, F] -> [B, F]``, weighted by a small network (additive attention)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width // 2), nn.Tanh(), nn.Linear(width // 2, 1))

    def forward(self, states: Tensor) -> Tensor:
        """See the class."""
        return (torch.softmax(self.score(states), dim=1) * states).sum(dim=1)


class BiLSTM(nn.Module):
    """Bidirectional LSTM over the window, pooled by attention together with the last step; see `bilstm`."""

    def __init__(self, task: Task, *, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        sensors = task.inputs["signal"].shape[-1]
        self.lstm = nn.LSTM(
            sensors,
            hidden,
            layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.pool = AttentionPool(2 * hidden)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Sequential(nn.Linear(4 * hidden, hidden), nn.ReLU())
        self.output = nn.Linear(hidden, task.outputs)
        self.units = TargetUnits(task.info)

    def forward(self, signal: Tensor) -> Tensor:
        """Predictions ``[B, D]``, values in the target's unit or logits, for ``signal`` ``[B, T, S]``."""
        states, _ = self.lstm(signal)
        pooled = torch.cat([self.pool(states), states[:, -1]], dim=-1)
        return self.units(self.output(self.hidden(self.dropout(pooled))))


class Transformer(nn.Module):
    """Transformer encoder over the window, one token a cycle, pooled by attention; see `transformer`."""

    def __init__(self, task: Task, *, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        window, sensors = task.inputs["signal"].shape
        self.embed = nn.Linear(sensors, width)
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(window, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.pool = AttentionPool(width)
        self.output = nn.Linear(width, task.outputs)
        self.units = TargetUnits(task.info)

    def forward(self, signal: Tensor) -> Tensor:
        """Predictions ``[B, D]``, values in the target's unit or logits, for ``signal`` ``[B, T, S]``."""
        return self.units(self.output(self.pool(self.encoder(self.embed(signal) + self.positions))))


def bilstm(
    task: Task,
    *,
    hidden: Annotated[int, Choices(32, 64, 128, size=True)] = 64,
    layers: int = 2,
    dropout: Annotated[float, Choices(0.1, 0.2, 0.4)] = 0.2,
) -> nn.Module:
    """A bidirectional LSTM with attention.

    Args:
        task: inputs and width of the prediction.
        hidden: units of each direction.
        layers: stacked LSTM layers.
        dropout: share of activations dropped between layers and before the output.
    """
    return BiLSTM(task, hidden=hidden, layers=layers, dropout=dropout)


def transformer(task: Task, *, width: int = 64, heads: int = 4, layers: int = 3, dropout: float = 0.1) -> nn.Module:
    """A transformer encoder over the cycles of the window.

    Args:
        task: inputs and width of the prediction.
        width: features of a token; a multiple of ``heads``.
        heads: attention heads.
        layers: encoder layers.
        dropout: share of activations dropped.
    """
    return Transformer(task, width=width, heads=heads, layers=layers, dropout=dropout)


def gradient_boosting(
    task: Task,
    *,
    max_iter: Annotated[int, Range(50, 600, log=True)] = 200,
    learning_rate: Annotated[float, Range(0.02, 0.2, log=True)] = 0.05,
    max_leaf_nodes: Annotated[int, Choices(7, 15, 31, 63)] = 31,
    min_samples_leaf: Annotated[int, Choices(10, 40, 100)] = 40,
    l2_regularization: float = 1.0,
    max_features: float = 0.1,
) -> Estimator:
    """Histogram gradient boosting (scikit-learn) on the window statistics of `features.window_statistics`.

    Args:
        task: gives the seed, and whether values or classes are wanted.
        max_iter: trees, or trees of each class.
        learning_rate: share of each tree's correction that is kept.
        max_leaf_nodes: largest number of leaves of a tree.
        min_samples_leaf: fewest training rows in a leaf.
        l2_regularization: L2 penalty of leaf values.
        max_features: share of the features that each split may choose from.
    """
    return hist_gradient_boosting(
        task,
        max_iter=max_iter,
        learning_rate=learning_rate,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        l2_regularization=l2_regularization,
        max_features=max_features,
    )


def extra_trees(
    task: Task, *, n_estimators: int = 200, min_samples_leaf: int = 2, max_features: float = 0.2
) -> Estimator:
    """Extremely randomised trees (scikit-learn) on the window statistics of `features.window_statistics`.

    Args:
        task: gives the seed, and whether values or classes are wanted.
        n_estimators: trees.
        min_samples_leaf: fewest training rows in a leaf.
        max_features: share of the features that each split may choose from.
    """
    return random_forest(
        task,
        n_estimators=n_estimators,
        min_samples_leaf=min_samples_leaf,
        max_features=max_features,
        extra_trees=True,
    )
