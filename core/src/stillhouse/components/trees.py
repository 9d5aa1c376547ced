"""Trees of scikit-learn, with its own option names. Public: plugins set other defaults or steps around them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.ranges import Choices, Range
from stillhouse.types import Estimator, Task

_CLASSIFICATION = (OutputKind.MULTICLASS, OutputKind.BINARY, OutputKind.MULTILABEL)


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
    if task.kind not in (*_CLASSIFICATION, OutputKind.REGRESSION) or (wide and not several):
        raise IncompatibleError(
            f"model '{model}' cannot predict {task.kind} with {task.outputs} outputs",
            where="models of core",
            fix="use 'core/mlp'" + (", or 'core/random-forest', which takes several targets" if wide else ""),
        )
    return task.kind in _CLASSIFICATION


def random_forest(
    task: Task,
    *,
    n_estimators: int = 200,
    max_depth: int | None = None,
    min_samples_leaf: Annotated[int, Choices(1, 2, 5, 10)] = 1,
    max_features: Annotated[float | str, Choices("sqrt", 0.3, 0.6, 1.0)] = "sqrt",
    class_weight: Literal["balanced"] | None = None,
    extra_trees: bool = False,
) -> Estimator:
    """Random forest, or extremely randomised trees (scikit-learn).

    Args:
        task: what the framework gives.
        n_estimators: number of trees.
        max_depth: greatest depth of a tree; unlimited when left out.
        min_samples_leaf: fewest training rows in a leaf.
        max_features: features tried at each split: "sqrt", "log2", or a share of them.
        class_weight: "balanced" weighs classes by the inverse of their frequency; not for regression.
        extra_trees: draw thresholds at random instead of searching them (Geurts, Ernst and Wehenkel 2006): smoother
            probabilities in less time.

    Raises:
        IncompatibleError: the task is neither classification nor regression of values.
    """
    from sklearn import ensemble

    classifies = _classifies(task, "random-forest", several=True)
    name = ("ExtraTrees" if extra_trees else "RandomForest") + ("Classifier" if classifies else "Regressor")
    make: Any = getattr(ensemble, name)
    forest: Estimator = make(
        n_estimators=n_estimators,
        max_depth=max_depth,
        min_samples_leaf=min_samples_leaf,
        max_features=max_features,
        random_state=task.seed,
        n_jobs=1,
        **({"class_weight": class_weight} if classifies else {}),
    )
    return forest


def hist_gradient_boosting(
    task: Task,
    *,
    max_iter: Annotated[int, Range(50, 600, log=True)] = 200,
    learning_rate: Annotated[float, Range(0.02, 0.2, log=True)] = 0.1,
    max_leaf_nodes: Annotated[int, Choices(7, 15, 31, 63)] = 31,
    min_samples_leaf: Annotated[int, Choices(5, 20, 50)] = 20,
    l2_regularization: float = 0.0,
    max_features: float = 1.0,
    class_weight: Literal["balanced"] | None = None,
) -> Estimator:
    """Histogram-based gradient boosting (scikit-learn).

    Args:
        task: what the framework gives.
        max_iter: boosting rounds.
        learning_rate: shrinkage of each round.
        max_leaf_nodes: most leaves of a tree.
        min_samples_leaf: fewest training rows in a leaf.
        l2_regularization: L2 penalty on leaf values.
        max_features: share of the features that each split may choose from.
        class_weight: "balanced" weighs classes by the inverse of their frequency; not for regression.

    Raises:
        IncompatibleError: the task is neither classification nor regression of one value, or it is
            multilabel.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    classifies = _classifies(task, "hist-gradient-boosting", several=False)
    make: Any = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
    boosting: Estimator = make(
        max_iter=max_iter,
        learning_rate=learning_rate,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=min_samples_leaf,
        l2_regularization=l2_regularization,
        max_features=max_features,
        early_stopping=False,
        random_state=task.seed,
        **({"class_weight": class_weight} if classifies else {}),
    )
    return boosting


def decision_tree(
    task: Task, *, max_depth: Annotated[int, Choices(2, 3, 4, 6, 8, 10, 12, size=True)] = 4, min_samples_leaf: int = 10
) -> Estimator:
    """One decision tree (scikit-learn), which a person can read while it is small.

    It is a regression tree also where it classifies, on the probabilities of the classes: its splits are those of the
    Gini index, and it learns frequencies from labels and a teacher's probabilities from a teacher.

    Args:
        task: what the framework gives.
        max_depth: greatest depth.
        min_samples_leaf: fewest training rows in a leaf.

    Raises:
        IncompatibleError: the task is neither classification nor regression of values.
    """
    from sklearn.tree import DecisionTreeRegressor

    _classifies(task, "decision-tree", several=True)
    tree: Estimator = DecisionTreeRegressor(
        max_depth=max_depth, min_samples_leaf=min_samples_leaf, random_state=task.seed
    )
    return tree
