"""The cheap truths before any distillation: does the student still learn, and which teacher is better than it on rows
that neither has seen?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stillhouse.errors import RecipeError, StillhouseError
from stillhouse.plugins.registry import Registry
from stillhouse.plugins.specs import TeacherSpec
from stillhouse.ranges import Choices, Range
from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import TeacherConfig
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.tuning.bench import Bench, Pool, Result, Work
from stillhouse.tuning.budget import Budget
from stillhouse.tuning.space import OWN, Changes, changed, declared, fits_kind, is_estimator

STILL_LEARNING = 0.85
"""Share of the epochs from which the best epoch is called late: more of them may help."""
LONGER = 2
"""How often the epochs of a teacher are tripled while its best one comes late."""
KEPT = 5
"""Teachers that are measured on all views, after all were on one."""
BASELINE_SHARE, TEACHER_SHARE = 0.15, 0.4
"""Shares of the time after which nothing more is tried for the student alone, and for teachers."""
PREDICTIONS = {"objectives.soft": [{"use": "soft"}]}
"""Changes a recipe to losses that name no module, so that any teacher suits."""
ONE_TEACHER = 0.15
"""Largest share of the time that one teacher may take on all views."""
ENSEMBLE = 5
"""Members of an ensemble of one model."""
VARIANTS, VARIANTS_KEPT = 6, 2
"""Draws of a teacher's declared options that are tried, and those that are measured on all views."""
LARGER = 4
"""How many times the student's declared width a larger student has, as teacher."""


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


@dataclass(frozen=True)
class Candidate:
    """A teacher to try: a label, and what it changes in the recipe."""

    label: str
    changes: Changes


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


# The student on labels alone -----------------------------------------------------------------------------------------


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
    found.tried.append(_row("student alone", OWN, scores, {}))
    if is_estimator(bench.resolved.student.component):
        sizes = [{path: value} for path, space in estimator_sizes(bench.resolved).items() for value in space.values]
        for changes, tried in zip(
            sizes, measure_all(pool, bench, "baseline", [changed(recipe, each) for each in sizes]), strict=True
        ):
            label = ", ".join(f"{path.rpartition('.')[2]}: {value}" for path, value in changes.items())
            taken = better(tried, found.baseline, higher)
            found.tried.append(_row("student alone", label, tried, changes, taken=taken))
            if taken:
                found.training, found.baseline = changes, tried
        return found
    train = dict(recipe["train"]["student"])
    for name, factor in (("epochs", 3), ("epochs", 3), ("lr", 3), ("lr", 1 / 3), ("epochs", 2)):
        if budget.spent_share() > BASELINE_SHARE:
            break
        if name == "epochs" and not _late(found.baseline.results):
            continue
        path = f"train.student.{name}"
        value = int(train[name] * factor) if name == "epochs" else float(f"{train[name] * factor:.3g}")
        changes = {**found.training, path: value}
        tried = measure_all(pool, bench, "baseline", [changed(recipe, changes)])[0]
        taken = better(tried, found.baseline, higher)
        label = ", ".join(f"{each.rpartition('.')[2]}: {of}" for each, of in changes.items())
        found.tried.append(_row("student alone", label, tried, changes, taken=taken))
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


def _late(results: Iterable[Result]) -> bool:
    """The best epoch came late: more of them may help."""
    return float(np.median([result.chosen_epoch or 0.0 for result in results])) >= STILL_LEARNING


# Teachers ------------------------------------------------------------------------------------------------------------


class TeacherComparison:
    """Teachers on held-out rows, best first.

    Args:
        bench: rows and head.
        pool: where they are measured.
        recipe: what candidates change.
        truths: the student alone, with which they are compared; each that is tried gets a row.
        budget: one that takes too much of it on all views is left out.
    """

    def __init__(self, bench: Bench, pool: Pool, recipe: Mapping[str, Any], truths: Truths, budget: Budget) -> None:
        self._bench, self._pool, self._recipe, self._truths, self._budget = bench, pool, recipe, truths, budget
        self._higher = bench.head.higher_is_better
        self.found: list[tuple[Candidate, Scores]] = []

    @property
    def better(self) -> list[tuple[Candidate, Scores]]:
        """Those that are better than the student alone."""
        return [pair for pair in self.found if better(pair[1], self._truths.baseline, self._higher)]

    def compare(self, candidates: Sequence[Candidate]) -> None:
        """Measure on all views."""
        recipes = [changed(self._recipe, candidate.changes) for candidate in candidates]
        scores = measure_all(self._pool, self._bench, "teacher", recipes)
        for pair in zip(candidates, scores, strict=True):
            self._note(*pair)
            if not pair[1].failed:
                self.found.append(pair)
        self.found = self._sorted(self.found)

    def shortlist(self, candidates: Sequence[Candidate], count: int = KEPT) -> list[Candidate]:
        """Those worth all views, by the first one: networks train for longer while their best epoch comes late. The
        recipe's own teacher is always among them."""
        tried = list(zip(candidates, self._first_views(candidates), strict=True))
        for _ in range(LONGER):
            if self._budget.spent_share() > TEACHER_SHARE / 2:
                break
            late = [
                at
                for at, (_, scores) in enumerate(tried)
                if not scores.failed and _late(scores.results) and self._affordable(scores, times=3)
            ]
            longer = [_longer(self._recipe, tried[at][0]) for at in late]
            for at, candidate, scores in zip(late, longer, self._first_views(longer), strict=True):
                if better(scores, tried[at][1], self._higher):
                    tried[at] = (candidate, scores)
        usable = self._sorted(pair for pair in tried if not pair[1].failed and self._affordable(pair[1]))
        kept = [candidate for candidate, _ in usable[:count]]
        own = [candidate for candidate, scores in tried if candidate.label.startswith(OWN) and not scores.failed]
        kept += [candidate for candidate in own if candidate not in kept]
        for candidate, scores in tried:
            if candidate not in kept:
                slow = "" if self._affordable(scores) else "it takes too much of the time on all parts"
                better_ones = "others are better on the first part"
                self._note(candidate, scores, scores.failed or f"{slow or better_ones}: not tried further")
        return kept

    def _affordable(self, first: Scores, *, times: int = 1) -> bool:
        """Whether all views of what took so long on the first one leave time for the rest."""
        return self._budget.share(times * first.seconds * len(self._bench.views) / self._pool.jobs) <= ONE_TEACHER

    def _first_views(self, candidates: Sequence[Candidate]) -> list[Scores]:
        share = self._budget.seconds_of(ONE_TEACHER)
        limit = None if share is None else share * self._pool.jobs / len(self._bench.views)
        futures = []
        for candidate in candidates:
            work = Work("teacher", changed(self._recipe, candidate.changes), 0, seed_of(0, 0))
            futures.append(self._pool.submit(work, limit=None if candidate.label.startswith(OWN) else limit))
        return [Scores((future.result(),)) for future in futures]

    def _sorted(self, pairs: Iterable[tuple[Candidate, Scores]]) -> list[tuple[Candidate, Scores]]:
        return sorted(pairs, key=lambda pair: -pair[1].mean if self._higher else pair[1].mean)

    def _note(self, candidate: Candidate, scores: Scores, error: str = "") -> None:
        taken = not error and better(scores, self._truths.baseline, self._higher)
        row = _row("teacher", candidate.label, scores, candidate.changes, taken=taken)
        self._truths.tried.append({**row, "error": error or row["error"]})


def find_teachers(
    bench: Bench, pool: Pool, recipe: Mapping[str, Any], truths: Truths, budget: Budget, seed: int
) -> None:
    """Compare teachers with the student alone, on held-out rows, and fill ``truths``.

    Those that the recipe's ``search`` lists beside its own; else the other models of its plugin and of the core that
    suit, and larger students; then variants of the best one, and ensembles.
    """
    comparison = TeacherComparison(bench, pool, recipe, truths, budget)
    if given := bench.resolved.recipe.search.get("teacher"):
        listed = given_teachers(given, recipe, bench.registry)
        comparison.compare(comparison.shortlist([own_teacher(bench.resolved), *listed], count=1 + len(listed)))
        truths.teachers = comparison.better
    else:
        suitable = candidates(bench.resolved, bench.registry, truths.training, recipe)
        comparison.compare(comparison.shortlist(suitable))
        if comparison.found and budget.spent_share() < TEACHER_SHARE / 2:
            drawn = variants(bench.registry, comparison.found[0][0], seed=seed)
            comparison.compare(comparison.shortlist(drawn, count=VARIANTS_KEPT))
        if comparison.found and budget.spent_share() < TEACHER_SHARE:
            comparison.compare(ensembles([candidate for candidate, _ in comparison.found]))
        truths.teachers = unlike(comparison.better)
    if truths.teachers:
        truths.overfit = max((result.overfit or 0 for result in truths.teachers[0][1].results), default=None)


def _longer(recipe: Mapping[str, Any], candidate: Candidate) -> Candidate:
    """The candidate with three times the epochs."""
    train = {**recipe["train"]["teacher"], **candidate.changes.get("train.teacher", {})}
    train["epochs"] *= 3
    label = f"{candidate.label.partition(', epochs')[0]}, epochs: {train['epochs']}"
    return Candidate(label, {**candidate.changes, "train.teacher": train})


def unlike(ranked: Sequence[tuple[Candidate, Scores]]) -> list[tuple[Candidate, Scores]]:
    """The best of each kind of teacher, by the components that it is made of: variants of one model differ little in
    what they teach. An ensemble that predicts what its one member does is none."""
    found: dict[tuple[str, ...], tuple[Candidate, Scores]] = {}
    values: set[tuple[float, ...]] = set()
    for candidate, scores in ranked:
        teacher = candidate.changes["teacher"]
        members = teacher.get("members") or [teacher]
        kind = tuple(sorted(f"{member['use']} x {member.get('count', 1)}" for member in members))
        if kind not in found and tuple(scores.values) not in values:
            found[kind] = (candidate, scores)
            values.add(tuple(scores.values))
    return list(found.values())


def own_teacher(resolved: ResolvedRecipe) -> Candidate:
    """The recipe's own; out-of-fold copies of it are a matter of the trials."""
    return Candidate(OWN, {"teacher": {**resolved.to_recipe()["teacher"], "out_of_fold": 0}})


def given_teachers(given: Any, recipe: Mapping[str, Any], registry: Registry) -> list[Candidate]:
    """The teachers that the recipe's ``search`` lists.

    Raises:
        RecipeError: it is no list, or one of them does not suit the recipe.
    """
    where = "search, 'teacher'"
    if not isinstance(given, list):
        raise RecipeError(f"{given!r} is no list of teachers", where=where, fix="search: {teacher: [{use: ...}, ...]}")
    found = []
    for each in given:
        teacher = {"use": each} if isinstance(each, str) else dict(each)
        label = ", ".join(f"{name}={value}" for name, value in teacher.items() if name != "use")
        candidate = Candidate(f"{teacher.get('use', 'members')}{f' ({label})' if label else ''}", {"teacher": teacher})
        try:
            resolve(changed(recipe, {**candidate.changes, **PREDICTIONS}), registry)
        except StillhouseError as error:
            raise RecipeError(f"teacher {each!r}: {error.what}", where=where, fix=error.fix) from error
        found.append(candidate)
    return found


def candidates(
    resolved: ResolvedRecipe, registry: Registry, training: Changes, recipe: Mapping[str, Any]
) -> list[Candidate]:
    """The recipe's own teacher, the other models that suit the head, and the student larger or several times."""
    own = resolved.to_recipe()
    found = [own_teacher(resolved)]
    plugin = resolved.teachers[0].id.partition("/")[0]
    names = {resolved.teachers[0].id} if len(resolved.teachers) == 1 else set()
    student = resolved.student
    for component in [*registry.components("teacher"), *registry.components("student")]:
        home = component.id.partition("/")[0]
        asked = isinstance(component.spec, TeacherSpec) and component.spec.asked
        known = component.id in names or component.id == student.id
        if home in ("core", plugin) and not asked and not known and fits_kind(component, resolved):
            if component.spec.requires or component.spec.deprecated:
                continue
            names.add(component.id)
            found.append(Candidate(component.id, {"teacher": {"use": component.id}}))
    if not is_estimator(student.component):
        # A student as teacher is trained as the student is.
        train = {**own["train"]["student"], **{path.rpartition(".")[2]: value for path, value in training.items()}}
        sizes = [name for name, space in declared(student.component).items() if space.size]
        if wide := {name: larger for name in sizes if (larger := _times(student.options[name])) is not None}:
            label = f"{student.id} ({', '.join(f'{name}={value}' for name, value in wide.items())})"
            found.append(Candidate(label, {"teacher": {**student.to_recipe(), **wide}, "train.teacher": train}))
        members = {"members": [{**student.to_recipe(), "count": ENSEMBLE}]}
        found.append(Candidate(f"{ENSEMBLE} x {student.id}", {"teacher": members, "train.teacher": train}))
    return [each for each in found if _resolves(recipe, each, registry)]


def _times(value: Any) -> Any:
    """A width, or several, ``LARGER`` times; None for what is no width."""
    if isinstance(value, list | tuple) and value:
        return [LARGER * each for each in value]
    return LARGER * value if isinstance(value, int | float) and not isinstance(value, bool) else None


def variants(registry: Registry, best: Candidate, *, seed: int) -> list[Candidate]:
    """The best teacher with draws of the options whose useful values it declares."""
    teacher = best.changes["teacher"]
    if "use" not in teacher:
        return []
    component = registry.get(("teacher", "student"), teacher["use"])
    spaces = declared(component)
    random = np.random.default_rng(seed)
    found: dict[str, Candidate] = {}
    for _ in range(VARIANTS if spaces else 0):
        drawn = {name: _draw(space, random) for name, space in spaces.items()}
        label = f"{component.id} ({', '.join(f'{name}={value}' for name, value in drawn.items())})"
        found[label] = Candidate(label, {**best.changes, "teacher": {**teacher, **drawn}})
    return list(found.values())


def _draw(space: Range | Choices, random: np.random.Generator) -> Any:
    if isinstance(space, Choices):
        return space.values[random.integers(len(space.values))]
    low, high = (np.log(space.low), np.log(space.high)) if space.log else (space.low, space.high)
    value = random.uniform(low, high)
    value = float(np.exp(value)) if space.log else float(value)
    return round(value) if space.whole else float(f"{value:.3g}")


def ensembles(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The best single teacher several times with other seeds, and the mean of the two best of unlike kinds."""
    single = [each for each in ranked if "use" in each.changes["teacher"]]
    if not single:
        return []
    best = single[0]
    found = [
        Candidate(
            f"{ENSEMBLE} x {best.label}",
            {**best.changes, "teacher": {"members": [{**_member(best), "count": ENSEMBLE}]}},
        )
    ]
    others = [each for each in single[1:] if _member(each)["use"] != _member(best)["use"]]
    # All members of an ensemble that are networks are trained with the same settings.
    alike = [each for each in others if each.changes.get("train.teacher") == best.changes.get("train.teacher")]
    if alike:
        members = {"members": [_member(best), _member(alike[0])]}
        found.append(Candidate(f"{best.label} + {alike[0].label}", {**best.changes, "teacher": members}))
    return found


def _member(candidate: Candidate) -> dict[str, Any]:
    """A single teacher as a member of an ensemble: its id and options alone."""
    own = set(TeacherConfig.model_fields) - {"use"}
    return {name: value for name, value in candidate.changes["teacher"].items() if name not in own}


def _resolves(recipe: Mapping[str, Any], candidate: Candidate, registry: Registry) -> bool:
    try:
        # Taps name modules of the recipe's own teacher; whether another one fits is asked without them.
        resolve(changed(recipe, {**candidate.changes, **PREDICTIONS}), registry)
    except StillhouseError:
        return False
    return True


def _row(what: str, label: str, scores: Scores, changes: Changes, *, taken: bool = True) -> dict[str, Any]:
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
