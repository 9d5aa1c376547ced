"""Teachers for tables: gradient boosting, and a transformer over the columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from stillhouse.components.trees import hist_gradient_boosting
from stillhouse.errors import OptionError
from stillhouse.ranges import Choices, Range
from stillhouse.types import Estimator, Task
from stillhouse.units import output_layer


def gradient_boosting(
    task: Task,
    *,
    max_iter: Annotated[int, Range(50, 600, log=True)] = 100,
    learning_rate: Annotated[float, Range(0.02, 0.2, log=True)] = 0.05,
    max_leaf_nodes: Annotated[int, Choices(7, 15, 31, 63)] = 15,
    min_samples_leaf: Annotated[int, Choices(5, 20, 50)] = 20,
    l2_regularization: float = 1.0,
    max_features: float = 1.0,
    bins: int = 250,
    class_weight: Literal["balanced"] | None = None,
) -> Estimator:
    """Histogram gradient boosting (scikit-learn) on the columns and on equally wide bins of them.

    Histogram boosting puts thresholds at quantiles. A column that is zero in 98 of 100 rows, as the risk of a terminal
    is, gets four thresholds above zero that way, and the equally wide bins beside it give it the others.

    Args:
        task: gives the kind of the prediction and the seed.
        max_iter: trees (per class).
        learning_rate: share of each tree's correction that is kept.
        max_leaf_nodes: largest number of leaves of a tree.
        min_samples_leaf: fewest training rows in a leaf.
        l2_regularization: L2 penalty of leaf values.
        max_features: share of the columns that each split may choose from.
        bins: equally wide bins of each column; 0 leaves them out.
        class_weight: "balanced" weighs classes by the inverse of their frequency; not for regression.

    Raises:
        OptionError: bins is 1, negative, or above 255.
    """
    from sklearn.pipeline import make_union
    from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer

    from stillhouse_finance.boosting import WeightedPipeline

    if bins != 0 and not 2 <= bins <= 255:
        raise OptionError(f"bins is {bins}", where="model 'gradient-boosting'", fix="2 to 255, or 0 for none")
    boosting = hist_gradient_boosting(
        task,
        max_iter=max_iter,
        learning_rate=learning_rate,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        l2_regularization=l2_regularization,
        max_features=max_features,
        class_weight=class_weight,
    )
    if not bins:
        return boosting
    binned = KBinsDiscretizer(bins, encode="ordinal", strategy="uniform", subsample=None)
    model: Estimator = WeightedPipeline([("bins", make_union(FunctionTransformer(), binned)), ("boosting", boosting)])
    return model


def quantile_boosting(
    task: Task,
    *,
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95),
    max_iter: int = 100,
    learning_rate: float = 0.05,
    max_leaf_nodes: int = 7,
    min_samples_leaf: int = 40,
    l2_regularization: float = 1.0,
    max_features: float = 0.5,
) -> Estimator:
    """Histogram gradient boosting (scikit-learn) with quantile loss, one model a quantile.

    Args:
        task: gives the number of quantiles and the seed.
        quantiles: levels, those of the head.
        max_iter: trees of each quantile.
        learning_rate: share of each tree's correction that is kept.
        max_leaf_nodes: largest number of leaves of a tree.
        min_samples_leaf: fewest training rows in a leaf.
        l2_regularization: L2 penalty of leaf values.
        max_features: share of the columns that each split may choose from.

    Raises:
        OptionError: the head has another number of quantiles.
    """
    from stillhouse_finance.boosting import QuantileBoosting

    if len(quantiles) != task.outputs:
        raise OptionError(
            f"the model has {len(quantiles)} quantiles and the head {task.outputs} outputs",
            where="model 'quantile-boosting'",
            fix="give head and model the same quantiles",
        )
    boosting = hist_gradient_boosting(
        replace(task, outputs=1),
        max_iter=max_iter,
        learning_rate=learning_rate,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        l2_regularization=l2_regularization,
        max_features=max_features,
    )
    model: Estimator = QuantileBoosting(boosting, tuple(quantiles))
    return model


class FTTransformer(nn.Module):
    """Transformer over the columns of a table, one token each; see `ft_transformer`."""

    def __init__(self, task: Task, *, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        features = task.inputs["x"].shape[0]
        spans = task.info.meta.get("column_widths") or [1] * features
        # A numeric column is one feature, a categorical one its indicators: both times a matrix is its token.
        owner = torch.repeat_interleave(torch.arange(len(spans)), torch.tensor(spans))
        self.owner: Tensor
        self.register_buffer("owner", nn.functional.one_hot(owner, len(spans)).T.float(), persistent=False)
        self.weight = nn.Parameter(torch.empty(features, width))
        self.bias = nn.Parameter(torch.empty(len(spans), width))
        self.summary = nn.Parameter(torch.empty(width))
        for parameter in (self.weight, self.bias, self.summary):
            nn.init.uniform_(parameter, -(width**-0.5), width**-0.5)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.output = output_layer(task.kind, width, task.outputs, task.info)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions ``[B, outputs]`` for ``x`` ``[B, F]``."""
        tokens = (x.unsqueeze(1) * self.owner) @ self.weight + self.bias
        summary = self.summary.expand(len(x), 1, -1)
        states = self.encoder(torch.cat([summary, tokens], dim=1))
        return self.output(states[:, 0])


def ft_transformer(task: Task, *, width: int = 48, heads: int = 4, layers: int = 2, dropout: float = 0.1) -> nn.Module:
    """A transformer encoder with one token a column and one that gathers the answer.

    After Gorishniy, Rubachev, Khrulkov and Babenko, "Revisiting Deep Learning Models for Tabular Data" (2021).

    Args:
        task: inputs, and width and kind of the prediction.
        width: features of a token; a multiple of ``heads``.
        heads: attention heads.
        layers: encoder layers.
        dropout: share of activations dropped.

    Raises:
        OptionError: width is no multiple of heads.
    """
    if width % heads:
        raise OptionError(
            f"width {width} is no multiple of {heads} heads",
            where="model 'ft-transformer'",
            fix="e.g. width: 48, heads: 4",
        )
    return FTTransformer(task, width=width, heads=heads, layers=layers, dropout=dropout)
