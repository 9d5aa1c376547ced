"""Models that a person can read, as text, in the units of the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillhouse.kinds import OutputKind
from stillhouse.types import SOFTENED, Task, at_one


@dataclass(frozen=True)
class _Columns:
    """What the columns of ``x`` are called, and how to undo their scaling; see `Scaler.meta`."""

    names: list[str]
    mean: np.ndarray
    std: np.ndarray
    yes_no: list[bool]

    @classmethod
    def of(cls, task: Task) -> _Columns:
        meta, many = task.info.meta, task.inputs["x"].shape[0]
        return cls(
            list(meta.get("feature_names") or [f"x{number}" for number in range(many)]),
            np.array(meta.get("feature_mean") or [0.0] * many),
            np.array(meta.get("feature_std") or [1.0] * many),
            list(meta.get("feature_yes_no") or [False] * many),
        )

    def sides(self, column: int, threshold: float) -> tuple[str, str]:
        """The conditions ``x <= threshold`` and ``x > threshold`` in words."""
        name = self.names[column]
        if self.yes_no[column] and " = " in name:  # one level of a column
            return name.replace(" = ", " != ", 1), name
        if self.yes_no[column]:
            return f"{name}: no", f"{name}: yes"
        value = threshold * self.std[column] + self.mean[column]
        return f"{name} <= {value:.6g}", f"{name} > {value:.6g}"


def tree_rules(model: Any, task: Task) -> str:
    """The tree, a line for each condition; at its leaves the prediction and the number of rows it was fitted on.

    Args:
        model: a fitted decision tree of scikit-learn.
        task: gives names and scaling of the columns, classes and unit.
    """
    columns, tree = _Columns.of(task), model.tree_

    def lines(node: int, depth: int) -> Iterator[str]:
        for child, condition in zip(
            (tree.children_left[node], tree.children_right[node]),
            columns.sides(tree.feature[node], tree.threshold[node]),
            strict=True,
        ):
            leaf = tree.children_left[child] < 0
            said = f"  ->  {_leaf(model, child, task)}" if leaf else ""
            rows = f"  ({tree.weighted_n_node_samples[child]:,.0f} rows)" if leaf else ""
            yield f"{'|   ' * depth}{condition}{said}{rows}"
            if not leaf:
                yield from lines(child, depth + 1)

    if tree.node_count == 1:
        return f"always  ->  {_leaf(model, 0, task)}\n"
    return "\n".join(lines(0, 0)) + "\n"


def _leaf(model: Any, node: int, task: Task) -> str:
    value = model.tree_.value[node].ravel()
    if task.kind is OutputKind.REGRESSION:
        return ", ".join(f"{each:.6g}" for each in value) + (f" {task.info.unit}" if task.info.unit else "")
    classes = task.info.classes or ("no", "yes")
    if task.kind is OutputKind.BINARY:  # a regression tree on the probability
        yes = np.clip(value[-1], 0, 1)
        return f"{classes[1]} {at_one(model, np.array([1 - yes, yes]))[1]:.2%}"
    share = at_one(model, value)
    best = int(share.argmax())
    return f"{classes[best]} {share[best]:.1%}"


def logistic_rules(model: Any, task: Task) -> str:
    """The log-odds as a sum over columns in their own units, the strongest first (by weight times spread).

    Args:
        model: a fitted logistic regression of scikit-learn.
        task: gives names and scaling of the columns, and classes.
    """
    columns, classes = _Columns.of(task), task.info.classes or ("no", "yes")
    many, temperature = len(model.coef_), getattr(model, SOFTENED, 1.0)
    texts = []
    for number, (weights, constant) in enumerate(
        zip(temperature * model.coef_, temperature * model.intercept_, strict=True)
    ):
        own = weights / columns.std
        name = classes[int(model.classes_[-1])] if many == 1 else classes[int(model.classes_[number])]
        first = "log-odds" if many == 1 else "score"
        lines = [f"{first} of {name} = {constant - float(own @ columns.mean):+.6g}"]
        order = np.argsort(-np.abs(weights), kind="stable")
        lines += [f"    {own[each]:+.6g} * {columns.names[each]}" for each in order]
        texts.append("\n".join(lines))
    return "\n\n".join(texts) + "\n"
