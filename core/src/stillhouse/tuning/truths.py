"""The cheap truths before any distillation: what the student reaches on labels alone, and how results are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stillhouse.errors import StillhouseError
from stillhouse.ranges import Choices
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.storage import read_json, write_json
from stillhouse.tuning.bench import Bench, Result, Work
from stillhouse.tuning.budget import Budget
from stillhouse.tuning.candidates import Candidate
from stillhouse.tuning.pool import Pool
from stillhouse.tuning.space import OWN, Changes, changed, declared, is_estimator

STILL_LEARNING = 0.85
"""Share of the epochs from which the best epoch is called late: more of them may help."""
BASELINE_SHARE = 0.15
"""Share of the time after which nothing more is tried for the student alone."""


@dataclass(frozen=True)
class Scores:
    """Results of one thing on several views and seeds, in the same order for whatever it is compared with."""

    results: tuple[Result, ...]

    @property
    def values(self) -> np.ndarray:
        """The held-out metric of each."""
        return np.array([result.value for result in self.results], dtype=float)

    @property
    def failed(self) -> str:
        """Why it cannot be used; empty when it can."""
        return next(
            (result.error for result in self.results if result.value is None), "" if self.results else "not tried"
        )

    @property
    def mean(self) -> float:
        """Mean of the held-out metric."""
        return float(self.values.mean())

    @property
    def seconds(self) -> float:
        """Of training and judging, together."""
        return sum(result.seconds for result in self.results)


def gains(scores: Scores, other: Scores, higher_is_better: bool) -> np.ndarray:
    """Paired differences to something else, positive where ``scores`` are better."""
    return np.asarray((scores.values - other.values) * (1.0 if higher_is_better else -1.0))


def better(scores: Scores, other: Scores, higher_is_better: bool) -> bool:
    """Better on the mean, and on at least half of the views: of two halves of validation, one must not forbid what
    the mean says."""
    if scores.failed:
        return False
    found = gains(scores, other, higher_is_better)
    return bool(found.mean() > 0 and (found > 0).sum() * 2 >= len(found))


@dataclass
class Truths:
    """What was found before any distillation.

    Attributes:
        training: changes of the student's training that made it better on labels alone.
        baseline: its scores.
        teachers: candidates better than it, best first, with their scores.
        tried: one row for each thing that was tried, for the report.
        overfit: the best teacher's loss on held-out rows over that on its training rows.
    """

    baseline: Scores
    training: Changes = field(default_factory=dict)
    teachers: list[tuple[Candidate, Scores]] = field(default_factory=list)
    tried: list[dict[str, Any]] = field(default_factory=list)
    overfit: float | None = None


def measure_all(
    pool: Pool, bench: Bench, part: Any, recipes: Sequence[Mapping[str, Any]], *, round_: int = 0
) -> list[Scores]:
    """Scores of several recipes on all views; each view has a seed of its own."""
    futures = [
        [pool.submit(Work(part, recipe, view, seed_of(view, round_))) for view in range(len(bench.views))]
        for recipe in recipes
    ]
    return [Scores(tuple(future.result() for future in each)) for each in futures]


def seed_of(view: int, round_: int) -> int:
    """Seed of a view's models; other rounds have other seeds."""
    return view + 100 * round_


def fit_views(bench: Bench, pool: Pool, recipe: Mapping[str, Any], budget: Budget) -> None:
    """Leave it at one draw of the folds where the student alone, trained once, would take more than its share of the
    time on two: the time is better spent on teachers and settings. A search that goes on keeps to what it began with,
    whatever its limit is now, so that its trials compare."""
    if not any(view.draw for view in bench.views):
        return
    path = bench.folder / "draws.json"
    if not path.exists():
        enough = True
        if budget.limited:
            first = pool.submit(Work("baseline", recipe, 0, seed_of(0, 0))).result()
            enough = budget.share(first.seconds * len(bench.views) / pool.jobs) <= BASELINE_SHARE
        write_json(path, {"draws": 2 if enough else 1})
    if read_json(path)["draws"] == 1:
        bench.keep_first_draw()


def tune_baseline(bench: Bench, pool: Pool, recipe: Mapping[str, Any], budget: Budget) -> Truths:
    """Give the student that learns from labels alone the training it needs, so that distillation is not measured
    against a weak one: more epochs while the best one comes late, then a larger and a smaller rate. An estimator, which
    overfits by its size, gets the size that suits labels.

    Raises:
        StillhouseError: it cannot be trained with the recipe's settings.
    """
    higher = bench.head.higher_is_better
    scores = measure_all(pool, bench, "baseline", [recipe])[0]
    if scores.failed:
        raise StillhouseError(
            f"the student cannot be trained on labels alone: {scores.failed}",
            where="search, baseline",
            fix="correct the recipe until `stillhouse run` finishes with it",
        )
    found = Truths(scores)
    found.tried.append(row_of("student alone", OWN, scores, {}))
    if is_estimator(bench.resolved.student.component):
        sizes = [{path: value} for path, space in estimator_sizes(bench.resolved).items() for value in space.values]
        for changes, tried in zip(
            sizes, measure_all(pool, bench, "baseline", [changed(recipe, each) for each in sizes]), strict=True
        ):
            label = ", ".join(f"{path.rpartition('.')[2]}: {value}" for path, value in changes.items())
            taken = better(tried, found.baseline, higher)
            found.tried.append(row_of("student alone", label, tried, changes, taken=taken))
            if taken:
                found.training, found.baseline = changes, tried
        return found
    train = dict(recipe["train"]["student"])
    for name, factor in (("epochs", 3), ("epochs", 3), ("lr", 3), ("lr", 1 / 3), ("epochs", 2)):
        if budget.spent_share() > BASELINE_SHARE:
            break
        if name == "epochs" and not came_late(found.baseline.results):
            continue
        path = f"train.student.{name}"
        value = int(train[name] * factor) if name == "epochs" else float(f"{train[name] * factor:.3g}")
        changes = {**found.training, path: value}
        tried = measure_all(pool, bench, "baseline", [changed(recipe, changes)])[0]
        taken = better(tried, found.baseline, higher)
        label = ", ".join(f"{each.rpartition('.')[2]}: {of}" for each, of in changes.items())
        found.tried.append(row_of("student alone", label, tried, changes, taken=taken))
        if taken:
            found.training, found.baseline, train[name] = changes, tried, value
    return found


def estimator_sizes(resolved: ResolvedRecipe) -> dict[str, Choices]:
    """The declared sizes of a student that is an estimator, by path: what a network's early stopping does, its size
    does, so that a search varies it. Not those that the recipe's ``search`` has already; none of a network."""
    if not is_estimator(resolved.student.component):
        return {}
    found = {f"student.{name}": space for name, space in declared(resolved.student.component).items() if space.size}
    asked = resolved.recipe.search
    return {path: space for path, space in found.items() if isinstance(space, Choices) and path not in asked}


def came_late(results: Iterable[Result]) -> bool:
    """The best epoch came late: more of them may help."""
    return float(np.median([result.chosen_epoch or 0.0 for result in results])) >= STILL_LEARNING


def row_of(what: str, label: str, scores: Scores, changes: Changes, *, taken: bool = True) -> dict[str, Any]:
    """What was tried, as a row of the report."""
    return {
        "what": what,
        "label": label,
        "mean": None if scores.failed else scores.mean,
        "values": [result.value for result in scores.results],
        "taken": taken and not scores.failed,
        "seconds": round(scores.seconds, 1),
        "error": scores.failed,
        "changes": dict(changes),
    }
