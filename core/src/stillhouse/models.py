"""Core's own models: networks on flattened inputs, and scikit-learn estimators. Each can be a teacher or a
student."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.kinds import OutputKind
from stillhouse.types import Estimator, Task
from stillhouse.units import output_layer


class Flat(nn.Module):
    """A network on all float inputs of a batch, flattened and concatenated in the dataset's order.

    ``forward(**inputs)`` takes the batch's inputs by name, ignores those that are not float, and returns
    ``[B, outputs]``; for segmentation ``[B, C, H, W]`` and for sequence ``[B, T, V]``, with the sizes of the
    first input.

    Args:
        task: the inputs, and the width and kind of the prediction.
        hidden: widths of the hidden layers; none makes a linear model.
        dropout: probability of dropping a hidden unit during training.

    Raises:
        IncompatibleError: there is no float input, or one has no fixed size.
    """

    def __init__(self, task: Task, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.names = tuple(name for name, spec in task.inputs.items() if spec.dtype.startswith(("float", "bfloat")))
        if not self.names:
            raise IncompatibleError(
                f"none of the inputs ({', '.join(task.inputs) or 'none'}) is float",
                where="models of core",
                fix="choose a model that takes the dataset's inputs",
            )
        shapes = [task.inputs[name].shape for name in self.names]
        for name, shape in zip(self.names, shapes, strict=True):
            if any(size < 0 for size in shape):
                raise IncompatibleError(
                    f"input '{name}' has no fixed size: {list(shape)}",
                    where="models of core",
                    fix="choose a dataset option that fixes the length, or a model for sequences",
                )
        self.positions = _positions(task.kind, shapes[0])
        self.channels_first = task.kind is OutputKind.SEGMENTATION
        self.outputs = task.outputs
        layers: list[nn.Module] = []
        width = sum(math.prod(shape) for shape in shapes)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            width = size
        self.backbone = nn.Sequential(*layers)
        self.output = output_layer(task.kind, width, task.outputs * math.prod(self.positions), task.info)

    def forward(self, **inputs: Tensor) -> Tensor:
        """See the class."""
        flat = [inputs[name].reshape(inputs[name].shape[0], -1) for name in self.names]
        prediction: Tensor = self.output(self.backbone(torch.cat(flat, dim=1)))
        if not self.positions:
            return prediction
        shape = (self.outputs, *self.positions) if self.channels_first else (*self.positions, self.outputs)
        return prediction.reshape(-1, *shape)


def _positions(kind: OutputKind, shape: tuple[int, ...]) -> tuple[int, ...]:
    wanted = {OutputKind.SEGMENTATION: slice(-2, None), OutputKind.SEQUENCE: slice(0, 1)}.get(kind)
    if wanted is None:
        return ()
    found = shape[wanted]
    if len(found) < (2 if kind is OutputKind.SEGMENTATION else 1):
        raise IncompatibleError(
            f"a model for {kind} needs an input with positions, and the first has shape {list(shape)}",
            where="models of core",
            fix="choose a dataset of images ([C, H, W]) or sequences ([T, F])",
        )
    return found


def mlp(task: Task, *, hidden: tuple[int, ...] = (256, 256), dropout: float = 0.0) -> nn.Module:
    """Multi-layer perceptron with ReLU on all float inputs, flattened.

    Args:
        task: what the framework gives.
        hidden: widths of the hidden layers, e.g. [256, 256].
        dropout: probability of dropping a hidden unit during training.

    Raises:
        OptionError: a width is below one, or dropout is outside [0, 1).
        IncompatibleError: the inputs do not suit.
    """
    if any(width < 1 for width in hidden):
        raise OptionError(
            f"hidden is {list(hidden)}", where="model 'mlp'", fix="widths from 1 upwards, e.g. [256, 256]"
        )
    if not 0 <= dropout < 1:
        raise OptionError(f"dropout is {dropout}", where="model 'mlp'", fix="a number from 0 to below 1")
    return Flat(task, tuple(hidden), dropout)


def linear(task: Task) -> nn.Module:
    """Linear (for classes: logistic) regression on all float inputs, flattened.

    Raises:
        IncompatibleError: the inputs do not suit.
    """
    return Flat(task, (), 0.0)


CLASSIFICATION = (OutputKind.MULTICLASS, OutputKind.BINARY, OutputKind.MULTILABEL)


def _classifies(task: Task, model: str, *, several: bool) -> bool:
    """Whether to make a classifier (True) or a regressor (False).

    Args:
        task: what the framework gives.
        model: name of the model, for the error.
        several: the estimator takes several targets at once.

    Raises:
        IncompatibleError: the estimator has no form for the task.
    """
    wide = task.kind is OutputKind.MULTILABEL or (task.kind is OutputKind.REGRESSION and task.outputs > 1)
    if task.kind not in (*CLASSIFICATION, OutputKind.REGRESSION) or (wide and not several):
        raise IncompatibleError(
            f"model '{model}' cannot predict {task.kind} with {task.outputs} outputs",
            where="models of core",
            fix="use 'core/mlp'" + (", or 'core/random-forest', which takes several targets" if wide else ""),
        )
    return task.kind in CLASSIFICATION


def random_forest(
    task: Task,
    *,
    trees: int = 200,
    depth: int | None = None,
    min_leaf: int = 1,
    max_features: float | str = "sqrt",
) -> Estimator:
    """Random forest (scikit-learn).

    Args:
        task: what the framework gives.
        trees: number of trees.
        depth: greatest depth of a tree; unlimited when left out.
        min_leaf: fewest training rows in a leaf.
        max_features: features tried at each split: "sqrt", "log2", or a share of them.

    Raises:
        IncompatibleError: the task is neither classification nor regression of values.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    make: Any = RandomForestClassifier if _classifies(task, "random-forest", several=True) else RandomForestRegressor
    forest: Estimator = make(
        n_estimators=trees,
        max_depth=depth,
        min_samples_leaf=min_leaf,
        max_features=max_features,
        random_state=task.seed,
        n_jobs=1,
    )
    return forest


def hist_gradient_boosting(
    task: Task, *, iterations: int = 200, learning_rate: float = 0.1, leaves: int = 31, l2: float = 0.0
) -> Estimator:
    """Histogram-based gradient boosting (scikit-learn).

    Args:
        task: what the framework gives.
        iterations: boosting rounds.
        learning_rate: shrinkage of each round.
        leaves: most leaves of a tree.
        l2: L2 penalty on leaf values.

    Raises:
        IncompatibleError: the task is neither classification nor regression of one value, or it is
            multilabel.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    classifies = _classifies(task, "hist-gradient-boosting", several=False)
    make: Any = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
    boosting: Estimator = make(
        max_iter=iterations,
        learning_rate=learning_rate,
        max_leaf_nodes=leaves,
        l2_regularization=l2,
        early_stopping=False,
        random_state=task.seed,
    )
    return boosting


def decision_tree(task: Task, *, depth: int = 4, min_leaf: int = 10) -> Estimator:
    """One decision tree that a person can read (scikit-learn).

    Args:
        task: what the framework gives.
        depth: greatest depth.
        min_leaf: fewest training rows in a leaf.

    Raises:
        IncompatibleError: the task is neither classification nor regression of values.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    make: Any = DecisionTreeClassifier if _classifies(task, "decision-tree", several=True) else DecisionTreeRegressor
    tree: Estimator = make(max_depth=depth, min_samples_leaf=min_leaf, random_state=task.seed)
    return tree
