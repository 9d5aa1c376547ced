"""Which teacher is better than the student alone on rows that neither has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stillhouse.tuning.bench import Bench, Work
from stillhouse.tuning.budget import Budget
from stillhouse.tuning.candidates import (
    PREDICTIONS,
    Candidate,
    candidates,
    ensembles,
    given_teachers,
    own_teacher,
    variants,
)
from stillhouse.tuning.pool import Pool
from stillhouse.tuning.space import OWN, changed
from stillhouse.tuning.truths import Scores, Truths, better, came_late, measure_all, row_of, seed_of

LONGER = 2
"""How often the epochs of a teacher are tripled while its best one comes late."""
TEACHERS = 4
"""Most teachers that trials choose from."""
KEPT = 5
"""Teachers that are measured on all views, after all were on one."""
VARIANTS_KEPT = 2
"""Variants of one that are measured on all views."""
TEACHER_SHARE = 0.4
"""Share of the time after which no further teacher is tried."""
ONE_TEACHER = 0.15
"""Largest share of the time that one teacher may take on all views."""


SHORTEST = 3.0
"""Seconds that a teacher has in any case: the first one of a kind imports what it needs."""


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
        recipes = [self._with(candidate) for candidate in candidates]
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
                if not scores.failed and came_late(scores.results) and self._affordable(scores, times=3)
            ]
            longer = [_longer(self._recipe, tried[at][0]) for at in late]
            for at, candidate, scores in zip(late, longer, self._first_views(longer), strict=True):
                if better(scores, tried[at][1], self._higher):
                    tried[at] = (candidate, scores)
        usable = self._sorted(pair for pair in tried if not pair[1].failed and self._affordable(pair[1]))
        own = [pair for pair in tried if pair[0].label.startswith(OWN) and not pair[1].failed]
        kept = [candidate for candidate, _ in own]
        left = self._budget.left(TEACHER_SHARE) - sum(self._seconds_to_come(scores) for _, scores in own)
        left = max(left, self._budget.seconds_of(ONE_TEACHER) or 0.0)  # whatever the recipe's own takes
        for candidate, scores in usable[:count]:
            seconds = self._seconds_to_come(scores)
            if candidate not in kept and (not kept or seconds <= left):
                kept.append(candidate)
                left -= seconds
        best = [candidate for candidate, _ in usable[:count]]
        for candidate, scores in tried:
            if candidate not in kept:
                slow = candidate in best or not self._affordable(scores)
                why = "it takes too much of the time on all parts" if slow else "others are better on the first part"
                self._note(candidate, scores, scores.failed or f"{why}: not tried further")
        return kept

    def _with(self, candidate: Candidate) -> dict[str, Any]:
        """The recipe with a teacher, and losses that name no module of it: how good it is does not depend on them, and
        an ensemble has no modules to name."""
        return changed(self._recipe, {**candidate.changes, **PREDICTIONS})

    def _seconds_to_come(self, first: Scores) -> float:
        """About what the other views take of what took so long on the first one."""
        return first.seconds * (len(self._bench.views) - 1) / self._pool.jobs

    def _affordable(self, first: Scores, *, times: int = 1) -> bool:
        """Whether all views of what took so long on the first one leave time for the rest."""
        return self._budget.share(times * first.seconds * len(self._bench.views) / self._pool.jobs) <= ONE_TEACHER

    def _first_views(self, candidates: Sequence[Candidate]) -> list[Scores]:
        share = self._budget.seconds_of(ONE_TEACHER)
        limit = None if share is None else max(SHORTEST, share * self._pool.jobs / len(self._bench.views))
        futures = []
        for candidate in candidates:
            work = Work("teacher", self._with(candidate), 0, seed_of(0, 0))
            futures.append(self._pool.submit(work, limit=None if candidate.label.startswith(OWN) else limit))
        return [Scores((future.result(),)) for future in futures]

    def _sorted(self, pairs: Iterable[tuple[Candidate, Scores]]) -> list[tuple[Candidate, Scores]]:
        return sorted(pairs, key=lambda pair: -pair[1].mean if self._higher else pair[1].mean)

    def _note(self, candidate: Candidate, scores: Scores, error: str = "") -> None:
        taken = not error and better(scores, self._truths.baseline, self._higher)
        row = row_of("teacher", candidate.label, scores, candidate.changes, taken=taken)
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
        truths.teachers = _with_own(comparison.better, comparison.better)
    else:
        suitable = candidates(bench.resolved, bench.registry, truths.training, recipe)
        comparison.compare(comparison.shortlist(suitable))
        if comparison.found and budget.spent_share() < TEACHER_SHARE / 2:
            drawn = variants(bench.registry, comparison.found[0][0], seed=seed)
            comparison.compare(comparison.shortlist(drawn, count=VARIANTS_KEPT))
        if comparison.found and budget.spent_share() < TEACHER_SHARE:
            comparison.compare(ensembles([candidate for candidate, _ in comparison.found]))
        truths.teachers = _with_own(unlike(comparison.better), comparison.better)
    if truths.teachers:
        truths.overfit = max((result.overfit or 0 for result in truths.teachers[0][1].results), default=None)


def _longer(recipe: Mapping[str, Any], candidate: Candidate) -> Candidate:
    """The candidate with three times the epochs."""
    train = {**recipe["train"]["teacher"], **candidate.changes.get("train.teacher", {})}
    train["epochs"] *= 3
    label = f"{candidate.label.partition(', epochs')[0]}, epochs: {train['epochs']}"
    return Candidate(label, {**candidate.changes, "train.teacher": train})


def _with_own(
    chosen: Sequence[tuple[Candidate, Scores]], better: Sequence[tuple[Candidate, Scores]]
) -> list[tuple[Candidate, Scores]]:
    """The teachers with the recipe's own among the first, with which trials begin, where it is better than the student
    alone at all."""
    own = [pair for pair in better if pair[0].label.startswith(OWN) and pair not in chosen[:TEACHERS]]
    others = [pair for pair in chosen if pair not in own]
    return [*others[: TEACHERS - len(own)], *own, *others[TEACHERS - len(own) :]]


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
