"""The Optuna study of a search: which settings are tried, on which views, and what is given up early."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from stillhouse.tuning.bench import Bench, Result, Work
from stillhouse.tuning.budget import Budget
from stillhouse.tuning.pool import Pool
from stillhouse.tuning.space import Dimension, SearchSpace
from stillhouse.tuning.truths import seed_of

REPEATS = 30
"""Draws in a row of settings that were tried before or do not suit each other, after which the space has nothing new;
half of them at random."""
ALWAYS = 2
"""Trials that are made whatever the time: the recipe's own settings, and those that suit the student alone."""
STARTUP = 8
"""Trials drawn at random, or given, before the sampler models what is good."""


@dataclass
class _Running:
    trial: Trial
    recipe: Mapping[str, Any]
    values: list[float]


class Study:
    """Trials of a search space, in an SQLite file; a search that was killed goes on with what the file has.

    Args:
        path: the file.
        space: what varies.
        bench: what measures.
        seed: of the sampler; with one process the same search makes the same trials.
    """

    def __init__(self, path: Path, space: SearchSpace, bench: Bench, *, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._bench, self._seed = space, bench, seed
        self._tried: list[Mapping[str, Any]] = []
        self._study = optuna.create_study(
            storage=f"sqlite:///{path}",
            study_name="tune",
            direction="maximize" if bench.head.higher_is_better else "minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=0),
        )
        # A trial that was running when the search was killed is tried again; what it measured is known.
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        self._tried += [space.apply(trial.params) for trial in self.trials]

    @property
    def trials(self) -> list[FrozenTrial]:
        """The finished trials, pruned and failed ones included; not those that are tried again, repeat others, or have
        settings that do not suit each other."""
        every = self._study.get_trials(deepcopy=False)
        left_out = {trial.user_attrs["again"] for trial in every if "again" in trial.user_attrs}
        left_out |= {trial.number for trial in every if "left_out" in trial.user_attrs}
        return [trial for trial in every if trial.state.is_finished() and trial.number not in left_out]

    def suggest(self, starts: Sequence[Mapping[str, Any]]) -> None:
        """Settings to try first, in a study that has no trials yet."""
        if not self._study.get_trials(deepcopy=False):
            for values in starts:
                self._study.enqueue_trial(dict(values))

    def run(self, pool: Pool, budget: Budget, trials: int, done: Callable[[FrozenTrial], None]) -> None:
        """Try settings until there are ``trials`` of them or the time is over; several side by side where the pool has
        several processes.

        Args:
            pool: where measurements are made.
            budget: no trial begins after it, but for the first `ALWAYS`.
            trials: all in all, with those of earlier starts.
            done: called with each finished trial.
        """
        running: dict[Future[Result], _Running] = {}
        begun = len(self.trials)
        seconds = self._usual_seconds()
        while True:
            while len(running) < pool.jobs and begun < trials and (begun < ALWAYS or budget.open(seconds)):
                each = self._ask([other.recipe for other in running.values()], parallel=pool.jobs > 1)
                if each is None:
                    trials = begun  # the space has nothing new
                    break
                running[self._submit(pool, each)] = each
                begun += 1
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                each = running.pop(future)
                if self._take(each, future.result()):
                    running[self._submit(pool, each)] = each
                else:
                    done(self._study.trials[each.trial.number])
                    budget.save()
                    seconds = self._usual_seconds()

    def _ask(self, running: Sequence[Mapping[str, Any]], *, parallel: bool) -> _Running | None:
        """The next trial with settings that no other has and that suit each other; None when there seem to be none."""
        for attempt in range(REPEATS):
            # A sampler of its own for each trial: a search that goes on draws what it would have drawn without a stop.
            seed = self._seed + len(self._study.get_trials(deepcopy=False))
            if attempt < REPEATS // 2:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # multivariate, in groups
                    self._study.sampler = optuna.samplers.TPESampler(
                        seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=parallel
                    )
            else:
                self._study.sampler = optuna.samplers.RandomSampler(seed=seed)
            trial = self._study.ask()
            chosen = self._space.choose(partial(_suggest, trial))
            recipe = self._space.apply(chosen)
            if recipe not in running and recipe not in self._tried:
                self._tried.append(recipe)
                unsuitable = self._bench.unsuitable(recipe)
                if not unsuitable:
                    return _Running(trial, recipe, [])
                trial.set_user_attr("error", unsuitable)
            trial.set_user_attr("left_out", True)
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def _submit(self, pool: Pool, each: _Running) -> Future[Result]:
        view = len(each.values)
        return pool.submit(Work("student", each.recipe, view, seed_of(view, 0)))

    def _take(self, each: _Running, result: Result) -> bool:
        """Note a view's result; whether the next view is wanted."""
        spent = each.trial.user_attrs.get("seconds", 0.0)
        each.trial.set_user_attr("seconds", round(spent + result.seconds, 3))
        if result.value is None:
            each.trial.set_user_attr("error", result.error)
            self._study.tell(each.trial, state=TrialState.FAIL)
            return False
        each.trial.report(result.value, step=len(each.values))
        each.values.append(result.value)
        each.trial.set_user_attr("values", each.values)
        if len(each.values) == len(self._bench.views):
            self._study.tell(each.trial, sum(each.values) / len(each.values))
            return False
        if each.trial.should_prune():
            self._study.tell(each.trial, state=TrialState.PRUNED)
            return False
        return True

    def _usual_seconds(self) -> float:
        spent = [trial.user_attrs.get("seconds", 0.0) for trial in self.trials[-5:]]
        return median(spent) if spent else 0.0

    def best(self, count: int) -> list[FrozenTrial]:
        """The best complete trials, no two with the same settings."""
        complete = [trial for trial in self.trials if trial.state is TrialState.COMPLETE]
        sign = -1 if self._bench.head.higher_is_better else 1
        found: dict[str, FrozenTrial] = {}
        for trial in sorted(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number)):
            found.setdefault(str(sorted(trial.params.items())), trial)
        return list(found.values())[:count]

    def importance(self) -> dict[str, float]:
        """Share of what each dimension explains of the differences between trials (PED-ANOVA, Watanabe, Bansal and
        Hutter 2023), largest first; empty with too few trials to tell."""
        complete = [trial for trial in self.trials if trial.state is TrialState.COMPLETE]
        if len({trial.value for trial in complete}) < 4:
            return {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of dimensions that few trials have
                evaluator = optuna.importance.PedAnovaImportanceEvaluator()
                return dict(optuna.importance.get_param_importances(self._study, evaluator=evaluator))
        except (ValueError, RuntimeError):
            return {}  # no dimension is in every trial


def _suggest(trial: Trial, dimension: Dimension) -> Any:
    if dimension.range is None:
        return trial.suggest_categorical(dimension.name, list(dimension.labels))
    low, high, log = dimension.range.low, dimension.range.high, dimension.range.log
    if dimension.range.whole:
        return trial.suggest_int(dimension.name, int(low), int(high), log=log)
    return trial.suggest_float(dimension.name, low, high, log=log)
