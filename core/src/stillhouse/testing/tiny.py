"""A recipe on a tiny budget: a few rows, two steps, one seed; for tests, not for results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from stillhouse.pipeline import run
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.plugins.registry import Component, Registry
from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import Recipe
from stillhouse.testing.isolation import offline, private_store
from stillhouse.testing.rows import few_of_each
from stillhouse.types import Splits

BATCH = 32
STEPS = 2
TOKENS = 8


def run_tiny(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    manager: Manager | None = None,
    out: str | Path | None = None,
    network: bool = False,
    **overrides: Any,
) -> dict[str, Any]:
    """Run a recipe to its report within seconds and return its summary: 64 training rows (two steps of 32), one epoch,
    one seed, 64 validation and test rows, texts of up to 8 tokens, no network, no store of earlier teachers.

    Rows are chosen so that every class is among them. The numbers mean nothing; that there are some means that
    dataset, models, head, objectives and report work together.

    Args:
        recipe: a recipe's id, a YAML file, a mapping, or a `Recipe`.
        manager: plugins to use, the installed ones by default.
        out: run folder; by default a temporary one that is removed.
        network: leave the network on.
        **overrides: changes to the recipe by path, with two underscores for each dot, e.g. ``student__width=16``.

    Returns:
        ``summary.json``.

    Raises:
        StillhouseError: whatever is wrong with the recipe, the data or the training.
        stillhouse.testing.isolation.Unreachable: something tried to reach the network.
    """
    given = manager or default_manager()
    changes = [f"{path.replace('__', '.')}={json.dumps(value)}" for path, value in overrides.items()]
    resolved = resolve(recipe, given.registry, overrides=changes)
    budget: dict[str, Any] = {
        "train.teacher.epochs": 1,
        "train.student.epochs": 1,
        "train.teacher.batch_size": BATCH,
        "train.student.batch_size": BATCH,
        "train.teacher.workers": 0,
        "train.student.workers": 0,
        "evaluate.latency_samples": 5,
        "evaluate.throughput_batch": 8,
        "seeds": [0],
        "device": "cpu",
    }
    if resolved.recipe.teacher.out_of_fold > 2:
        budget["teacher.out_of_fold"] = 2
    chosen = {path.replace("__", ".") for path in overrides}
    for part in ("head", "method"):  # models that have learnt nothing write on and on
        bound = getattr(resolved, part)
        if bound.options.get("max_tokens", 0) is None and part not in {path.partition(".")[0] for path in chosen}:
            budget[part] = json.dumps({**bound.to_recipe(), "max_tokens": TOKENS})
    changes += [f"{path}={value}" for path, value in budget.items() if path not in chosen]
    with private_store() as folder:
        where = Path(out) if out is not None else folder / "run"
        few = _FewRows(given, resolved.dataset.component)
        if network:
            return run(recipe, out=where, overrides=changes, manager=few).summary
        with offline():
            return run(recipe, out=where, overrides=changes, manager=few, download=False).summary


class _FewRows(Manager):
    """The plugins of another manager, with few rows of one dataset."""

    def __init__(self, whole: Manager, dataset: Component) -> None:
        # Everything is the other manager's; a run looks at the registry, and gives the arguments to other processes.
        self._whole, self._dataset, self.arguments = whole, dataset, whole.arguments

    @property
    def registry(self) -> Registry:
        """The other manager's components, the dataset replaced."""
        found = self._whole.registry
        few = _FewRowsOf(
            id=self._dataset.id, kind=self._dataset.kind, spec=self._dataset.spec, plugin=self._dataset.plugin
        )
        return Registry([few if each == self._dataset else each for each in found.components()], self._whole.records)


@dataclass(frozen=True, kw_only=True)
class _FewRowsOf(Component):
    def load(self) -> Any:
        target = super().load()

        @wraps(target)
        def limited(*args: Any, **options: Any) -> Any:
            splits = target(*args, **options)
            return few_of_each(splits, BATCH * STEPS, BATCH * 2) if isinstance(splits, Splits) else splits

        return limited
