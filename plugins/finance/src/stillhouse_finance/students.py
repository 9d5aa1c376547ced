"""Students for tables: a small network, logistic regression, and a tree that a person can read."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn

from stillhouse.errors import OptionError
from stillhouse.ranges import Choices
from stillhouse.types import Estimator, Task
from stillhouse.units import output_layer

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


class MLP(nn.Module):
    """Multi-layer perceptron over the columns; see `mlp`."""

    def __init__(self, task: Task, *, hidden: tuple[int, ...], activation: str, dropout: float) -> None:
        super().__init__()
        width = task.inputs["x"].shape[0]
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), ACTIVATIONS[activation](), *([nn.Dropout(dropout)] if dropout else [])]
            width = size
        self.backbone = nn.Sequential(*layers)
        self.output = output_layer(task.kind, width, task.outputs, task.info)

    def forward(self, x: Tensor) -> Tensor:
        """Predictions ``[B, outputs]`` for ``x`` ``[B, F]``."""
        return self.output(self.backbone(x))


def mlp(
    task: Task,
    *,
    hidden: Annotated[tuple[int, ...], Choices((8,), (16, 8), (32, 16), (64, 32), (128, 64), size=True)] = (64, 32),
    activation: Literal["relu", "silu"] = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """A multi-layer perceptron: about 3,100 parameters at the default widths for 15 columns.

    Args:
        task: inputs, and width and kind of the prediction.
        hidden: widths of the hidden layers.
        activation: between the layers: rectified linear, or its smooth relative.
        dropout: share of hidden units dropped while training.

    Raises:
        OptionError: a width is below one, or dropout is outside [0, 1).
    """
    if any(size < 1 for size in hidden) or not 0 <= dropout < 1:
        raise OptionError(
            f"hidden {list(hidden)} with dropout {dropout} is no network",
            where="model 'mlp'",
            fix="widths from 1 upwards and a dropout from 0 to below 1",
        )
    return MLP(task, hidden=hidden, activation=activation, dropout=dropout)


def logistic(task: Task, *, penalty: float = 1.0, class_weight: Literal["balanced"] | None = None) -> Estimator:
    """Logistic regression (scikit-learn), which learns from soft targets as weighted rows.

    Args:
        task: gives the seed.
        penalty: strength of the L2 penalty on the coefficients.
        class_weight: "balanced" weighs classes by the inverse of their frequency.

    Raises:
        OptionError: penalty is not positive.
    """
    from sklearn.linear_model import LogisticRegression

    if penalty <= 0:
        raise OptionError(f"penalty is {penalty}", where="model 'logistic'", fix="a number above 0, e.g. 1.0")
    model: Estimator = LogisticRegression(
        C=1 / penalty, class_weight=class_weight, max_iter=1000, random_state=task.seed
    )
    return model


def ridge(task: Task, *, penalty: float = 1.0) -> Estimator:
    """Ridge regression (scikit-learn): the linear reference of forecasts. Nothing of it is random.

    Args:
        task: what the framework gives.
        penalty: strength of the L2 penalty on the coefficients.

    Raises:
        OptionError: penalty is not positive.
    """
    from sklearn.linear_model import Ridge

    if penalty <= 0:
        raise OptionError(f"penalty is {penalty}", where="model 'ridge'", fix="a number above 0, e.g. 1.0")
    model: Estimator = Ridge(alpha=penalty)
    return model


def decision_tree(
    task: Task, *, max_depth: Annotated[int, Choices(2, 3, 4, 6, 8, 10, 12, size=True)] = 5, min_samples_leaf: int = 20
) -> Estimator:
    """One decision tree (scikit-learn), which a person can read while it is small; its rules are kept as ``rules.txt``
    beside it.

    It is a regression tree also where it classifies, on the probabilities of the classes: its splits are those of the
    Gini index, and it learns frequencies from labels and a teacher's probabilities from a teacher.

    Args:
        task: gives the kind of the prediction and the seed.
        max_depth: greatest depth.
        min_samples_leaf: fewest training rows in a leaf.
    """
    from sklearn.tree import DecisionTreeRegressor

    tree: Estimator = DecisionTreeRegressor(
        max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=task.seed
    )
    return tree
