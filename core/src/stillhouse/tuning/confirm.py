"""The best trials once more, and which of them is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import TrialState

from stillhouse.errors import StillhouseError
from stillhouse.tuning.bench import Bench
from stillhouse.tuning.pool import Pool
from stillhouse.tuning.space import SearchSpace
from stillhouse.tuning.study import Study
from stillhouse.tuning.truths import Scores, measure_all

CONFIRMED = 3
"""Best trials that are measured again with other seeds."""


def confirm(
    bench: Bench, pool: Pool, study: Study, space: SearchSpace, own: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best trials and the recipe's own settings once more with other seeds, so that the winner is not the luckiest;
    and the student alone with the same seeds.

    Of those that are worse than the best mean of both rounds by no more than one standard error of the paired
    difference (after Breiman, Friedman, Olshen and Stone 1984) the smallest model is chosen where a search of sizes was
    asked for, then the recipe's own settings, then the best.

    Args:
        bench: what measures.
        pool: where.
        study: the trials.
        space: what they varied.
        own: the recipe's own settings in it.

    Returns:
        The recipe that was chosen, and what was found, for the record.

    Raises:
        StillhouseError: no trial was finished, or the best ones fail with other seeds.
    """
    sign = 1 if bench.head.higher_is_better else -1
    best = study.best(10 * CONFIRMED)
    if not best:
        raise StillhouseError(
            "no trial could be finished",
            where=str(bench.folder),
            fix="give more --minutes or --trials; `study.db` has the errors of the trials",
        )
    least = sign * float(best[0].value or 0.0) - _standard_error(best[0].user_attrs["values"])
    near = [trial for trial in best[CONFIRMED:] if sign * float(trial.value or 0.0) >= least]
    smaller = [trial for trial in near if space.size_of(trial.params) < space.size_of(best[0].params)]
    best = best[:CONFIRMED] + sorted(smaller, key=lambda trial: space.size_of(trial.params))[:1]
    finished = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    best += [trial for trial in finished if trial.params == own and trial not in best][:1]

    recipes = [space.apply(trial.params) for trial in best]
    again = measure_all(pool, bench, "student", recipes, round_=1)
    values = {
        at: np.array([*trial.user_attrs["values"], *scores.values])
        for at, (trial, scores) in enumerate(zip(best, again, strict=True))
        if not scores.failed
    }
    if not values:
        raise StillhouseError(
            f"the best trials failed with other seeds: {again[0].failed}", where=str(bench.folder), fix="search again"
        )
    top = max(values, key=lambda at: sign * values[at].mean())
    worse = {at: sign * (values[top] - found) for at, found in values.items()}
    within = [at for at, by in worse.items() if by.mean() <= _standard_error(by)]
    chosen = min(
        within, key=lambda at: (space.size_of(best[at].params), best[at].params != own, -sign * values[at].mean())
    )
    # The student alone as it was chosen: another size is another baseline.
    alone = [measure_all(pool, bench, "baseline", [recipes[chosen]], round_=round_)[0] for round_ in (0, 1)]
    both = Scores(tuple(result for scores in alone for result in scores.results))
    gain = sign * (values[chosen] - both.values)
    return recipes[chosen], {
        "trial": best[chosen].number,
        "settings": dict(best[chosen].params),
        "candidates": [
            {"trial": best[at].number, "mean": float(found.mean()), "values": found.tolist()}
            for at, found in values.items()
        ],
        "student": float(values[chosen].mean()),
        "baseline": both.mean,
        "gain": float(gain.mean()),
        "gains": gain.tolist(),
    }


def _standard_error(values: Sequence[float] | np.ndarray) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
