"""A search from start to end: rows, cheap truths, trials, confirmation, a written recipe, and one final run that meets
the test rows for the first time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from stillhouse.engines.base import check_engine
from stillhouse.errors import StillhouseError
from stillhouse.pipeline import run
from stillhouse.pipeline.folder import resolved_yaml
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.plugins.specs import MethodSpec
from stillhouse.progress import Reporter, Silent, collect_warnings
from stillhouse.recipe.check import resolve
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.storage import SEARCH, write_json, write_text
from stillhouse.tuning.bench import Bench, Work, make_bench
from stillhouse.tuning.budget import Budget
from stillhouse.tuning.confirm import CONFIRMED, confirm
from stillhouse.tuning.folder import claimed, ended, require_same_rows
from stillhouse.tuning.pool import Here, Pool, Processes
from stillhouse.tuning.report import write_tune_report
from stillhouse.tuning.settings import OUT_OF_FOLD, all_asked, search_space, starts
from stillhouse.tuning.space import Dimension, SearchSpace, changed, is_estimator
from stillhouse.tuning.study import ALWAYS, Study
from stillhouse.tuning.teachers import find_teachers
from stillhouse.tuning.truths import Truths, fit_views, seed_of, tune_baseline

FINAL_SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class TuneResult:
    """A finished search.

    Attributes:
        folder: of the search, with ``recipe.yaml``, ``tune.json``, ``tune.html``, ``study.db`` and ``final/``.
        record: ``tune.json``.
        report: ``tune.html``.
    """

    folder: Path
    record: dict[str, Any]
    report: Path


def tune(
    recipe: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    vary: Iterable[str] = (),
    trials: int = 40,
    minutes: float | None = None,
    jobs: int = 1,
    engine: str = "local",
    folds: int | Literal["auto"] = "auto",
    seed: int = 0,
    download: bool = True,
    manager: Manager | None = None,
    reporter: Reporter | None = None,
) -> TuneResult:
    """Search for a distillation that helps, on validation rows only, and run what was found with five seeds.

    A search that was stopped at any point goes on with the same folder: what was measured is kept. It ends when its
    final run has met the test rows.

    Args:
        recipe: a recipe's id, a YAML file or a mapping; its ``search`` field adds to what is varied.
        out: folder of the search, ``runs/<name>-tune`` by default.
        overrides: ``path=value`` changes to the recipe.
        vary: fields whose declared useful values are tried, too, e.g. ``"student.width"``.
        trials: settings of the distillation that are tried.
        minutes: for all of it, the final run included as estimated; no limit when None. Fewer trials then.
        jobs: processes side by side.
        engine: where they are: "local" or "ray", see `stillhouse.run`.
        folds: see `stillhouse.tuning.views.make_views`.
        seed: of the search.
        download: missing datasets may be downloaded.
        manager: plugins to use, the installed ones by default.
        reporter: told what happens.

    Returns:
        the folder, the record and the report.

    Raises:
        StillhouseError: whatever is wrong with the recipe, the rows or the folder.
    """
    check_engine(engine)
    manager, reporter = manager or default_manager(), reporter or Silent()
    registry = manager.registry
    resolved = resolve(recipe, registry, overrides=overrides)
    _check_method(resolved)
    folder = Path(out) if out is not None else Path("runs") / f"{resolved.recipe.name.rpartition('/')[2]}-tune"
    with claimed(folder, resolved):
        budget = Budget(folder / "seconds.json", minutes)
        reporter.stage("data", resolved.dataset.id)
        with collect_warnings() as messages:
            bench = make_bench(resolved, registry, folder, folds=folds, seed=seed, download=download)
        for message in messages:
            reporter.warn(message)
        require_same_rows(folder, bench.data)
        if (kept := ended(folder, trials)) is not None:
            return TuneResult(folder, kept, write_tune_report(folder, kept))
        setup = {
            "manager": manager.arguments,
            "recipe": resolved.to_recipe(),
            "base": str(resolved.base),
            "folder": str(folder.resolve()),
            "folds": folds,
            "seed": seed,
        }
        # Within a limit of time, what takes too long has to be ended, and that takes a process.
        here = jobs == 1 and minutes is None and engine == "local"
        pool: Pool = Here(bench) if here else Processes(jobs, setup, engine)
        try:
            record, chosen = _search(bench, pool, budget, reporter, tuple(vary), trials, seed)
        finally:
            pool.close()
            budget.save()
        return _finish(bench, budget, reporter, manager, record, chosen)


def _check_method(resolved: ResolvedRecipe) -> None:
    spec = resolved.method.component.spec
    assert isinstance(spec, MethodSpec)
    if not spec.uses_teacher:
        raise StillhouseError(
            f"method '{resolved.method.id}' learns from no teacher, which is what a search looks for",
            where="method",
            fix="--set method=core/offline",
        )


def _search(
    bench: Bench, pool: Pool, budget: Budget, reporter: Reporter, vary: Sequence[str], trials: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that is found out on validation rows: the record, and the recipe that was chosen."""
    resolved, head = bench.resolved, bench.head
    base = {**resolved.to_recipe(), "search": {}, "sizes": None}
    base["train"].pop("baseline", None)  # what suits labels alone is found out here
    asked = all_asked(bench, base, vary)
    fit_views(bench, pool, base, budget)
    if budget.limited:
        # The first of what comes now tells whether the time can suffice at all, before all of it is gone.
        seconds = pool.submit(Work("baseline", base, 0, seed_of(0, 0))).result().seconds
        _tell_of_short_time(bench, pool, seconds, budget, reporter, after=len(bench.views) * seconds)
    reporter.stage("student alone", f"{resolved.student.id} on {len(bench.views)} held-out parts")
    truths = tune_baseline(bench, pool, base, budget)
    budget.save()
    reporter.stage("teachers", f"the student alone has {head.primary} {truths.baseline.mean:.4g} on held-out rows")
    find_teachers(bench, pool, base, truths, budget, seed)
    budget.save()
    trained = changed(base, truths.training)
    record: dict[str, Any] = {
        "schema": 1,
        "recipe": resolved.recipe.name,
        "metric": {"name": head.primary, "higher_is_better": head.higher_is_better, "unit": bench.unit},
        "rows": [
            {"view": view.name, **{name: len(split) for name, split in view.splits.named().items()}}
            for view in bench.views
        ],
        "guard": bench.guard,
        "wanted": trials,
        "baseline": {"mean": truths.baseline.mean, "changes": dict(truths.training)},
        "truths": truths.tried,
        "teacher_found": bool(truths.teachers),
        "overfit": truths.overfit,
    }
    if not truths.teachers:
        teachers = [row for row in truths.tried if row["what"] == "teacher"]
        judged = [row for row in teachers if not row["error"]]  # on all parts
        best = next(iter(_ranked(judged, head.higher_is_better)), None)
        stopped = _no_teacher(best, truths, len(teachers) - len(judged))
        return {**record, "trials": [], "importance": {}, "stopped": stopped}, trained

    found, chosen = _trials(bench, pool, budget, reporter, base, asked, truths, trials, seed)
    return record | found, chosen


def _trials(
    bench: Bench,
    pool: Pool,
    budget: Budget,
    reporter: Reporter,
    base: dict[str, Any],
    asked: Sequence[Dimension],
    truths: Truths,
    trials: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trials and confirmation, where there is a teacher: what the record says of them, and the recipe chosen."""
    count = len(truths.teachers)
    reporter.stage("trials", f"{count} teacher{' is' if count == 1 else 's are'} better than the student alone")
    part = truths.baseline.seconds / len(bench.views)
    teacher = truths.teachers[0][1].seconds / len(bench.views) * (1 + bench.resolved.recipe.teacher.out_of_fold)
    budget.reserve(_final_seconds(bench, part) + 1.3 * teacher)
    _tell_of_short_time(bench, pool, part, budget, reporter)
    space = search_space(bench, base, asked, truths, budget)
    study = Study(bench.folder / "study.db", space, bench, seed=seed)
    first = starts(space, truths.training)
    study.suggest(first)
    study.run(
        pool,
        budget,
        trials,
        lambda trial: reporter.stage(f"trial {trial.number + 1}", _said(trial, bench.head.primary)),
    )
    chosen, confirmation = confirm(bench, pool, study, space, first[0])
    found = {
        "space": [dimension.describe() for dimension in space.dimensions],
        "trials": [_trial_row(trial) for trial in study.trials],
        "importance": study.importance(),
        "confirmation": confirmation,
    }
    return found, _to_write(chosen, space, bench.resolved)


def _tell_of_short_time(
    bench: Bench, pool: Pool, part: float, budget: Budget, reporter: Reporter, *, after: float = 0.0
) -> None:
    """Say when the search ends at the earliest, where that is after its time.

    Args:
        part: seconds of the student alone on one part.
        after: seconds of what comes before the trials.
    """
    least = after / pool.jobs + ALWAYS * 1.5 * part * len(bench.views) / pool.jobs
    least += budget.reserved or _final_seconds(bench, part)
    ends = budget.spent() + least
    if budget.limited and budget.share(ends) > 1:
        minutes = max(round(ends / 60), 1)
        reporter.stage(
            "time",
            f"it is short: two settings and the final run end after about {minutes} minute{'s' * (minutes > 1)}; fewer "
            "epochs, or a higher --minutes, help (what was measured is kept)",
        )


def _to_write(chosen: Mapping[str, Any], space: SearchSpace, resolved: ResolvedRecipe) -> dict[str, Any]:
    """The chosen recipe as a user would write it."""
    written = dict(chosen)
    if not any(dimension.name == OUT_OF_FOLD for dimension in space.dimensions):
        # Trials did without, for their time; what is not searched is in the end what the recipe says.
        written = changed(written, {"teacher.out_of_fold": resolved.recipe.teacher.out_of_fold})
    if (baseline := written["train"].get("baseline")) is not None:
        student = written["train"]["student"]
        if baseline == {**student, "unlabelled_ratio": baseline["unlabelled_ratio"]}:
            del written["train"]["baseline"]
    return written


def _no_teacher(best: Mapping[str, Any] | None, truths: Truths, left: int) -> str:
    found = f"the best, {best['label']}, has {best['mean']:.4g}" if best else "none could be trained"
    return (
        f"no teacher is better than the student alone on held-out rows ({truths.baseline.mean:.4g}; {found}): it has "
        "nothing to teach, and no distillation was tried. Look for a better teacher first: more rows, other inputs, a "
        "larger or pre-trained model"
        + (f" ({left} others were not judged on all parts, as the report says)" if left else "")
    )


def _ranked(rows: Sequence[Mapping[str, Any]], higher_is_better: bool) -> list[Mapping[str, Any]]:
    known = [row for row in rows if row["mean"] is not None]
    return sorted(known, key=lambda row: -row["mean"] if higher_is_better else row["mean"])


def _said(trial: FrozenTrial, metric: str) -> str:
    if trial.state is TrialState.FAIL:
        return f"failed: {trial.user_attrs.get('error', '')}"
    values = trial.user_attrs["values"]
    mean = f"{metric} {sum(values) / len(values):.4g}"
    parts = "one part" if len(values) == 1 else f"{len(values)} parts"
    return f"{mean}, given up after {parts}" if trial.state is TrialState.PRUNED else mean


def _trial_row(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "values": trial.user_attrs.get("values", []),
        "settings": dict(trial.params),
        "seconds": trial.user_attrs.get("seconds", 0.0),
        "error": trial.user_attrs.get("error", ""),
    }


def _final_seconds(bench: Bench, part: float) -> float:
    """About what confirmation and final run take without the teacher: baseline and student for each seed, of which the
    baseline takes so many seconds on one part."""
    return len(FINAL_SEEDS) * 2.5 * part + len(bench.views) * (2 + CONFIRMED) * 1.5 * part


def _finish(
    bench: Bench, budget: Budget, reporter: Reporter, manager: Manager, record: dict[str, Any], chosen: dict[str, Any]
) -> TuneResult:
    """Write the recipe and run it with five seeds: the test rows are read here for the first time."""
    folder = bench.folder
    chosen = {**chosen, "seeds": list(FINAL_SEEDS), "search": {}, "controls": _controls(bench.resolved, record, chosen)}
    chosen["metrics"] = bench.resolved.to_recipe()["metrics"]
    written = replace(resolve(chosen, bench.registry), base=bench.resolved.base)
    write_text(folder / "recipe.yaml", resolved_yaml(written))
    # Where the recipe's relative paths lead from its new place.
    write_json(folder / "manifest.json", {"base": os.path.relpath(bench.resolved.base, folder.resolve())})
    if not record["teacher_found"]:
        final: dict[str, Any] | None = None
    else:
        reporter.stage("final run", "five seeds, and the test rows for the first time")
        final = run(folder / "recipe.yaml", out=folder / "final", manager=manager, reporter=reporter).summary
    record = {
        **record,
        "final": None if final is None else _final(final, chosen["controls"] != bench.resolved.to_recipe()["controls"]),
        "seconds": round(budget.spent(), 1),
    }
    write_json(folder / SEARCH, record)
    return TuneResult(folder, record, write_tune_report(folder, record))


def _controls(resolved: ResolvedRecipe, record: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[Any]:
    """The recipe's own, and an estimator at the size that suits labels: the baseline has the size that suits the
    teacher, and overfits more than it has to."""
    recipe = resolved.to_recipe()
    alone = changed(recipe, record["baseline"]["changes"])["student"]
    if not is_estimator(resolved.student.component) or alone == chosen["student"]:
        return list(recipe["controls"])
    return [*(each for each in recipe["controls"] if each["use"] != alone["use"]), alone]


def _final(summary: Mapping[str, Any], sized: bool) -> dict[str, Any]:
    """Test results of the final run; ``alone`` is that of the student alone at the size that suits labels, the last of
    the controls where it is ``sized``."""
    metric = summary["primary_metric"]["name"]
    return {
        "alone": [*summary["controls"].values()][-1]["mean"] if sized else None,
        "teacher": summary["teacher"]["metrics"]["test"][metric],
        "baseline": summary["baseline"]["mean"],
        "student": summary["student"]["mean"],
        "verdict": summary["verdict"],
    }
