"""`stillhouse tune`: what it may look at, what it decides, and that it goes on where it was."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("optuna")

from stillhouse.cli import main
from stillhouse.data.splitting import fold_positions
from stillhouse.deploy.predicting import open_run
from stillhouse.errors import IncompatibleError, LeakageError, RecipeError, RunFolderError, StillhouseError
from stillhouse.evaluation.comparing import compare_runs
from stillhouse.evaluation.runs import find_runs
from stillhouse.evaluation.statistics import ci95_over_rows
from stillhouse.kinds import OutputKind
from stillhouse.pipeline import run
from stillhouse.plugins.manager import Manager
from stillhouse.progress import Silent
from stillhouse.ranges import Choices, Range, parse_space
from stillhouse.recipe.check import resolve
from stillhouse.recipe.text import parse_value
from stillhouse.storage import read_object
from stillhouse.tuning import TuneResult, tune
from stillhouse.tuning.bench import Bench, Result, Work, make_bench
from stillhouse.tuning.budget import Budget
from stillhouse.tuning.candidates import Candidate
from stillhouse.tuning.pool import Here
from stillhouse.tuning.report import sentence, write_tune_report
from stillhouse.tuning.teachers import TeacherComparison, find_teachers
from stillhouse.tuning.truths import Scores, Truths, better, fit_views
from stillhouse.tuning.views import check_untouched, make_views
from stillhouse.types import Batch, DataInfo, Splits, SubsetSplit, TensorSpec, TensorSplit

PLUGIN = """
import torch
from stillhouse import hookimpl
from stillhouse.plugins import DatasetSpec
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit


def rows(context: DataContext, *, count: int = 240, shuffled_test: bool = False, noise: bool = False) -> Splits:
    \"\"\"Rows of two numbers whose product gives the class.\"\"\"
    made = torch.Generator().manual_seed(context.seed)
    x = torch.randn(count, 4, generator=made)
    target = (x[:, 0] * x[:, 1] > 0).long()
    if noise:
        target = torch.randint(0, 2, (count,), generator=made)
    bounds = {"train": (0, count // 2), "val": (count // 2, 3 * count // 4), "test": (3 * count // 4, count)}
    splits = {}
    for name, (low, high) in bounds.items():
        label = target[low:high]
        if shuffled_test and name == "test":
            label = 1 - label
        splits[name] = TensorSplit({"x": x[low:high], "target": label, "index": torch.arange(low, high)})
    return Splits(info=DataInfo(inputs={"x": TensorSpec((4,))}, classes=("no", "yes")), **splits)


@hookimpl
def stillhouse_datasets():
    yield DatasetSpec(name="rows", target=f"{__name__}:rows", summary="Rows for tests", offline=True)
"""


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Manager:
    path = tmp_path_factory.mktemp("plugin") / "tiny_rows.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return Manager(installed=False, files=[path])


def recipe(search: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "head": "core/multiclass",
        "dataset": {"use": "tiny_rows/rows"},
        "teacher": {"use": "core/mlp", "hidden": [32]},
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {
            "teacher": {"epochs": 8, "batch_size": 32, "lr": 0.02},
            "student": {"epochs": 4, "batch_size": 32, "lr": 0.02},
        },
        "evaluate": {"latency_samples": 5, "throughput_batch": 8},
        "search": {"teacher": [{"use": "core/mlp", "hidden": [64]}], **(search or {})},
        **changes,
    }


@pytest.fixture(scope="module")
def finished(manager: Manager, tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    return tune(recipe(), out=tmp_path_factory.mktemp("search") / "s", trials=3, folds=2, manager=manager)


class Stop(Exception):
    """Raised where a search is killed."""


class Stopping(Silent):
    def __init__(self, at: str) -> None:
        self.at = at

    def stage(self, name: str, note: str = "") -> None:
        if name == self.at:
            raise Stop


def without_times(record: Any) -> Any:
    if isinstance(record, dict):
        return {name: without_times(value) for name, value in record.items() if name not in ("seconds", "speedup")}
    if isinstance(record, list):
        return [without_times(value) for value in record]
    return None if isinstance(record, str) and "latency" in record else record


# Useful values -------------------------------------------------------------------------------------------------------


@given(low=st.floats(1e-3, 1e3), factor=st.floats(1.01, 100))
def test_a_range_is_read_as_it_is_written(low: float, factor: float) -> None:
    assert parse_space({"low": low, "high": low * factor, "log": True}) == Range(low, low * factor, log=True)


@pytest.mark.parametrize(
    ("given_space", "words"),
    [
        ([1], "two values"),
        ({"low": 2, "high": 1}, "in order"),
        ({"low": 0, "high": 1, "log": True}, "above 0"),
        ({"low": "a", "high": 1}, "must be numbers"),
        ({"low": 1}, "neither"),
        (3, "neither"),
        ({"low": 1, "high": float("inf")}, "finite"),
    ],
)
def test_what_is_no_space_is_named(given_space: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_space(given_space)


def test_whole_bounds_make_whole_numbers() -> None:
    assert Range(1, 8).whole
    assert not Range(1.0, 8.0).whole
    assert parse_space([1, 2]) == Choices(1, 2)


# Rows ----------------------------------------------------------------------------------------------------------------


def splits(rows: int = 120, *, groups: int = 0, times: bool = False) -> Splits:
    made = {}
    for number, (name, share) in enumerate({"train": 0.6, "val": 0.2, "test": 0.2}.items()):
        count = int(rows * share)
        made[name] = TensorSplit(
            {
                "x": torch.randn(count, 2),
                "target": torch.arange(count) % 2,
                "index": torch.arange(count) + 1000 * number,
            },
            groups=[f"{name}-{position % groups}" for position in range(count)] if groups else None,
            times=[1000.0 * number + position for position in range(count)] if times else None,
        )
    return Splits(info=DataInfo(inputs={"x": TensorSpec((2,))}), **made)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(60, 200), groups=st.sampled_from([0, 1, 6, 9]), times=st.booleans(), seed=st.integers(0, 5))
def test_no_view_has_a_test_row_and_its_parts_are_disjoint(rows: int, groups: int, times: bool, seed: int) -> None:
    given_splits = splits(rows, groups=groups, times=times)
    views = make_views(given_splits, OutputKind.MULTICLASS, seed=seed)
    assert "no row id" in check_untouched(views, given_splits.test)
    for view in views:
        parts = {name: set(split.index().tolist()) for name, split in view.splits.named().items()}
        assert all(parts.values())
        assert len(parts["train"] | parts["val"] | parts["test"]) == sum(map(len, parts.values()))
        if groups:
            named = {name: set(split.groups or ()) for name, split in view.splits.named().items()}
            assert groups > 1 or named["val"] == named["test"] == {"val-0"}  # its rows are halved
            assert not named["train"] & named["test"]
            assert not named["train"] & named["val"] or groups == 1
        if times:
            assert max(view.splits.train.times or ()) < min(view.splits.test.times or ())


@pytest.mark.parametrize("groups", [0, 9])
def test_auxiliary_rows_teach_and_never_judge(groups: int) -> None:
    """VQA-RAD's questions about organs were a quarter of the rows by which a search chose."""
    given_splits = splits(groups=groups)
    train = given_splits.train
    marks = [position % 2 == 0 for position in range(len(train))]
    marked = TensorSplit(train.columns(), groups=train.groups, auxiliary=marks)
    views = make_views(replace(given_splits, train=marked), OutputKind.MULTICLASS)
    made = set(train.index()[torch.tensor(marks)].tolist())
    judged = [set(view.splits.test.index().tolist()) for view in views if view.draw == 0]
    of_dataset = set(train.index().tolist()) - made | set(given_splits.val.index().tolist())
    assert set.union(*judged) == of_dataset
    for view in views:
        assert not made & set(view.splits.val.index().tolist())
        assert made & set(view.splits.train.index().tolist())
        if groups:
            assert not set(view.splits.train.groups or ()) & set(view.splits.test.groups or ())


def test_a_tree_gets_the_size_that_suits_labels_before_it_gets_a_teacher(tmp_path: Path, manager: Manager) -> None:
    values = recipe(
        student={"use": "core/decision-tree", "max_depth": 12, "min_samples_leaf": 1},
        teacher={"use": "core/random-forest", "n_estimators": 20},
        search={"teacher": ["core/hist-gradient-boosting"]},
    )
    found = tune(values, out=tmp_path / "s", trials=5, folds=2, manager=manager)
    sizes = [row for row in found.record["truths"] if row["what"] == "student alone"]
    assert [row["label"] for row in sizes[1:]] == [f"max_depth: {depth}" for depth in (2, 3, 4, 6, 8, 10, 12)]
    best = max(row["mean"] for row in sizes)
    assert found.record["baseline"]["mean"] == best
    chosen = found.record["baseline"]["changes"].get("student.max_depth", 12)
    assert any(dimension["name"] == "student.max_depth" for dimension in found.record["space"])
    tried = [trial["settings"]["student.max_depth"] for trial in found.record["trials"]]
    assert tried[:2] == ["12", str(chosen)] or tried[0] == str(chosen) == "12", "the recipe's own size comes first"
    _chosen_by_the_rule(found.record["confirmation"])
    final = parse_value((found.folder / "recipe.yaml").read_text(encoding="utf-8"), source="recipe")
    if final["student"]["max_depth"] != chosen:
        assert {"use": "core/decision-tree", "max_depth": chosen, "min_samples_leaf": 1} in final["controls"]
    assert find_runs(tmp_path) == [found.folder / "final"], "the run of a search is inside it"
    for use in (
        lambda: open_run(found.folder, manager),
        lambda: compare_runs([found.folder / "final", found.folder]),
        lambda: run(found.folder / "recipe.yaml", out=found.folder, manager=manager),
    ):
        with pytest.raises(RunFolderError, match="is a search, not a run"):
            use()
    said = sentence(found.record)
    if final["student"]["max_depth"] == chosen:
        assert found.record["final"]["alone"] is None
        assert "Labels alone suit another size" not in said
    else:
        results = read_object(found.folder / "final" / "summary.json")
        (alone,) = (each["mean"] for name, each in results["controls"].items() if name == "core/decision-tree")
        assert found.record["final"]["alone"] == alone
        assert "Labels alone suit another size (student.max_depth: " in said
        worse = "better" if alone > found.record["final"]["student"] else "worse"
        assert f" {worse} than the distilled one." in said
    page = found.report.read_text(encoding="utf-8")
    assert ("Student alone, of the same size" in page) == (chosen != 12), "the chart has the student alone at its best"


def _chosen_by_the_rule(confirmation: dict[str, Any]) -> None:
    """The recipe's own settings, trial 0, unless another is better by more than a standard error; else the best."""
    values = {each["trial"]: np.array(each["values"]) for each in confirmation["candidates"]}
    top = max(values, key=lambda trial: values[trial].mean())
    worse = values[top] - values[0]
    kept = worse.mean() <= worse.std(ddof=1) / len(worse) ** 0.5
    assert confirmation["trial"] == (0 if kept else top)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_recipes_own_settings_stay_where_nothing_is_better(alpha: float, tmp_path: Path, manager: Manager) -> None:
    """With labels alone (alpha 1) the teacher's predictions are better than the recipe's own settings; else rarely."""
    values = recipe(
        student={"use": "core/decision-tree", "max_depth": 6},
        teacher={"use": "core/random-forest", "n_estimators": 20},
        search={"teacher": ["core/hist-gradient-boosting"]},
    )
    values["objectives"] = {"alpha": alpha}
    found = tune(values, out=tmp_path / "s", trials=6, folds=2, manager=manager).record
    assert found["trials"][0]["settings"]["student.max_depth"] == "6"
    _chosen_by_the_rule(found["confirmation"])


class Stages(Silent):
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def stage(self, name: str, note: str = "") -> None:
        self.told.append((name, note))


def test_a_search_whose_time_is_gone_still_tries_the_recipes_own_settings(tmp_path: Path, manager: Manager) -> None:
    log = Stages()
    found = tune(recipe(), out=tmp_path / "s", trials=5, minutes=0.001, folds=2, manager=manager, reporter=log).record
    # Told after the first part, before the time of all of them is gone.
    names = [name for name, _ in log.told]
    assert names.index("time") < names.index("student alone")
    assert re.search(r"two settings and the final run end after about \d+ minutes?;", dict(log.told)["time"])
    assert found["teacher_found"]
    assert [trial["state"] for trial in found["trials"]] == ["complete", "complete"]
    assert found["final"] is not None


@pytest.mark.parametrize("extra", [None, {"use": "core/mixup", "per_row": 3}])
@pytest.mark.parametrize("out_of_fold", [0, 3])
def test_a_teacher_that_stays_in_memory_teaches_what_one_read_anew_does(
    extra: dict[str, Any] | None, out_of_fold: int, tmp_path: Path, manager: Manager
) -> None:
    teacher = {"use": "core/random-forest", "n_estimators": 5, "out_of_fold": out_of_fold}
    resolved = resolve(recipe(student={"use": "core/decision-tree"}, teacher=teacher), manager.registry)
    found = {}
    for name in ("one", "each"):
        bench = make_bench(resolved, manager.registry, tmp_path / name, folds=2, seed=0)
        for alpha in (0.2, 0.4, 0.6):
            if name == "each":
                bench = make_bench(resolved, manager.registry, tmp_path / name, folds=2, seed=0)
            values = {**resolved.to_recipe(), "extra_rows": extra}
            values["objectives"] = {**values["objectives"], "alpha": alpha}
            result = bench.measure(Work("student", values, 0, 0))
            assert not result.error
            found[name, alpha] = result.metrics
    assert all(found["one", alpha] == found["each", alpha] for alpha in (0.2, 0.4, 0.6))


class _Clock:
    """Measures teachers by what the test says they take and reach."""

    jobs = 1

    def __init__(self, takes: dict[str, tuple[float, float]]) -> None:
        self.takes, self.asked = takes, []

    def submit(self, work: Work, *, limit: float | None = None) -> Future[Result]:
        seconds, value = self.takes[work.recipe["teacher"]["use"]]
        self.asked.append((work.recipe["teacher"]["use"], work.view))
        done: Future[Result] = Future()
        done.set_result(Result(value, seconds=seconds))
        return done

    def close(self) -> None:
        """Nothing to end."""


def test_teachers_for_which_the_time_does_not_suffice_are_left_out(tmp_path: Path, manager: Manager) -> None:
    """Two fifths of ten minutes are 240 s. The recipe's own takes 160 s of them for the other five parts, so that one
    of two that take 60 s has time, the better one, then what takes 10 s; none that takes more than 15 %, 90 s."""
    resolved = resolve(recipe(), manager.registry)
    bench = make_bench(resolved, manager.registry, tmp_path, folds=3, seed=0)
    takes = {
        "core/mlp": (32.0, 0.6),
        "good": (12.0, 0.9),
        "fair": (12.0, 0.8),
        "slow": (15.5, 1.0),
        "cheap": (2.0, 0.7),
    }
    assert len(bench.views) == 6
    candidates = [Candidate("as in the recipe", {"teacher": {"use": "core/mlp"}})]
    candidates += [Candidate(name, {"teacher": {"use": name}}) for name in takes if name != "core/mlp"]
    baseline = Scores(tuple(Result(0.5) for _ in bench.views))
    for minutes, wanted in ((10, ["core/mlp", "good", "cheap"]), (None, ["core/mlp", "slow", "good", "fair", "cheap"])):
        truths = Truths(baseline)
        pool = _Clock(takes)
        budget = Budget(tmp_path / "seconds.json", minutes)
        comparison = TeacherComparison(bench, pool, resolved.to_recipe(), truths, budget)
        kept = comparison.shortlist(candidates)
        assert [candidate.changes["teacher"]["use"] for candidate in kept] == wanted
        told = {row["label"]: row["error"] for row in truths.tried}
        assert all("too much of the time" in told[name] for name in takes if name not in (*wanted, "core/mlp"))


@pytest.mark.parametrize("own", [0.45, 0.95])
def test_other_teachers_have_time_where_the_recipes_own_takes_all_of_it(
    own: float, tmp_path: Path, manager: Manager
) -> None:
    """VQA-RAD's own teacher took all but seconds, and TF-IDF, six seconds a part and better, was left out; the search
    ended with 'no teacher is better', and with its higher figure as the best. The others have 15 % of the time, 90 s,
    whether or not the recipe's own is the best on the first part."""
    resolved = resolve(recipe(), manager.registry)
    bench = make_bench(resolved, manager.registry, tmp_path, folds=3, seed=0)
    takes = {"core/mlp": (60.0, own), "good": (12.0, 0.9), "fair": (12.0, 0.8), "cheap": (2.0, 0.7)}
    candidates = [Candidate("as in the recipe", {"teacher": {"use": "core/mlp"}})]
    candidates += [Candidate(name, {"teacher": {"use": name}}) for name in takes if name != "core/mlp"]
    truths = Truths(Scores(tuple(Result(0.5) for _ in bench.views)))
    budget = Budget(tmp_path / "seconds.json", 10)
    comparison = TeacherComparison(bench, _Clock(takes), resolved.to_recipe(), truths, budget)
    kept = comparison.shortlist(candidates)
    assert [candidate.changes["teacher"]["use"] for candidate in kept] == ["core/mlp", "good", "cheap"]


def test_ensembles_are_measured_where_the_recipe_names_modules_of_its_teacher(tmp_path: Path, manager: Manager) -> None:
    """VQA-RAD's recipe taps its teacher, and every ensemble failed: 'an ensemble cannot be tapped'."""
    hints = {"use": "core/hints", "student": "backbone", "teacher": "backbone"}
    several = {"members": [{"use": "core/mlp", "hidden": [8], "count": 2}]}
    resolved = resolve(recipe({"teacher": [several]}, objectives={"soft": [hints, "soft"]}), manager.registry)
    bench = make_bench(resolved, manager.registry, tmp_path, folds=2, seed=0)
    truths = Truths(Scores(tuple(Result(0.0) for _ in bench.views)))
    find_teachers(bench, Here(bench), resolved.to_recipe(), truths, Budget(tmp_path / "seconds.json", None), 0)
    assert not [row["error"] for row in truths.tried if row["error"]]
    assert {len(candidate.changes["teacher"].get("members", [])) for candidate, _ in truths.teachers} == {0, 1}


@pytest.mark.parametrize(("own", "place"), [(0.4, None), (0.6, 3), (0.95, 0)])
def test_trials_begin_with_the_recipes_own_teacher_where_it_is_better_than_the_student_alone(
    own: float, place: int | None, tmp_path: Path, manager: Manager
) -> None:
    others = ["core/random-forest", "core/linear", "core/pca-linear", "core/decision-tree"]
    resolved = resolve(recipe({"teacher": others}), manager.registry)
    bench = make_bench(resolved, manager.registry, tmp_path, folds=2, seed=0)
    truths = Truths(Scores(tuple(Result(0.5) for _ in bench.views)))
    pool = _Clock({"core/mlp": (1.0, own), **{name: (1.0, 0.9 - at / 100) for at, name in enumerate(others)}})
    find_teachers(bench, pool, resolved.to_recipe(), truths, Budget(tmp_path / "seconds.json", None), 0)
    labels = [candidate.label for candidate, _ in truths.teachers]
    assert len(labels) == len(others) + (place is not None)
    assert place is None or labels.index("as in the recipe") == place


@pytest.mark.parametrize(("seconds", "minutes", "draws"), [(15.0, 10, 2), (15.5, 10, 1), (1e6, None, 2)])
def test_folds_are_drawn_once_where_the_student_alone_takes_too_long(
    seconds: float, minutes: float | None, draws: int, tmp_path: Path, manager: Manager
) -> None:
    """15 % of ten minutes are 90 s, for six parts of 15 s."""
    resolved = resolve(recipe(), manager.registry)
    bench = make_bench(resolved, manager.registry, tmp_path, folds=3, seed=0)
    budget = Budget(tmp_path / "seconds.json", minutes)
    fit_views(bench, _Clock({"core/mlp": (seconds, 0.6)}), resolved.to_recipe(), budget)
    assert [view.name for view in bench.views] == [f"fold-{number}" for number in range(3 * draws)]
    again = make_bench(resolved, manager.registry, tmp_path, folds=3, seed=0)
    other = Budget(tmp_path / "seconds.json", None if minutes else 1)
    fit_views(again, _Clock({"core/mlp": (100.0, 0.6)}), resolved.to_recipe(), other)
    assert len(again.views) == 3 * draws, "a search that goes on with another limit has the views of its trials"


def test_what_a_search_does_not_vary_is_in_the_end_what_the_recipe_says(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.tuning.settings.OVERFIT", float("inf"))  # no trial has out-of-fold targets
    values = recipe(
        student={"use": "core/decision-tree", "max_depth": 4},
        teacher={"use": "core/random-forest", "n_estimators": 20, "out_of_fold": 3},
        search={"teacher": ["core/hist-gradient-boosting"], "student.max_depth": [3, 4]},
    )
    found = tune(values, out=tmp_path / "s", trials=1, folds=2, manager=manager)
    assert [row["label"] for row in found.record["truths"] if row["what"] == "student alone"] == ["as in the recipe"]
    assert "out of fold" not in [dimension["name"] for dimension in found.record["space"]]
    final = parse_value((found.folder / "recipe.yaml").read_text(encoding="utf-8"), source="recipe")
    assert final["teacher"]["out_of_fold"] == 3


def test_a_test_row_in_a_view_is_an_error() -> None:
    given_splits = splits()
    views = make_views(given_splits, OutputKind.MULTICLASS)
    with pytest.raises(LeakageError, match="in the train rows of the search's fold-0"):
        check_untouched(views, views[0].splits.train)


def test_folds_of_a_class_with_few_rows_are_drawn_without_a_word() -> None:
    """scikit-learn's warning, which names its own file, is none of the user's business."""
    rare = torch.zeros(40, dtype=torch.long)
    rare[:2] = 1
    split = TensorSplit({"x": torch.randn(40, 2), "target": rare, "index": torch.arange(40)})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        folds = fold_positions(split, 4, OutputKind.MULTICLASS, 0)
    assert sorted(row for _, held in folds for row in held) == list(range(40))


def test_each_pooled_row_judges_once_a_draw() -> None:
    given_splits = splits(120)
    judged = [
        row for view in make_views(given_splits, OutputKind.MULTICLASS) for row in view.splits.test.index().tolist()
    ]
    pool = given_splits.train.index().tolist() + given_splits.val.index().tolist()
    assert sorted(judged) == sorted(2 * pool)


def test_many_rows_are_held_out_in_folds_where_few_are_of_validation() -> None:
    few = splits(12_000)
    few = replace(few, val=SubsetSplit(few.val, range(900)))
    views = make_views(few, OutputKind.MULTICLASS)
    judged = sorted(row for view in views for row in view.splits.test.index().tolist())
    assert judged == sorted(few.train.index().tolist() + few.val.index().tolist())
    many = make_views(splits(12_000), OutputKind.MULTICLASS)
    assert (
        sorted(row for view in many for row in view.splits.test.index().tolist()) == splits(12_000).val.index().tolist()
    )


def test_a_class_of_one_group_is_held_out_in_no_fold_and_is_in_both_halves() -> None:
    made = {}
    for name, first in {"train": 0, "val": 1000, "test": 2000}.items():
        target = torch.arange(60) // 20
        groups = [f"run of class {label}, {name}" for label in target.tolist()]
        made[name] = TensorSplit(
            {"x": torch.randn(60, 2), "target": target, "index": torch.arange(60) + first}, groups=groups
        )
    given_splits = Splits(info=DataInfo(inputs={"x": TensorSpec((2,))}), **made)
    views = make_views(given_splits, OutputKind.MULTICLASS)
    assert [view.name for view in views] == ["half-0", "half-1"]
    for view in views:
        assert set(view.splits.test.columns(["target"])["target"].tolist()) == {0, 1, 2}
    with pytest.raises(IncompatibleError, match="100% of the rows are of classes that have a single group"):
        fold_positions(given_splits.train, 3, OutputKind.MULTICLASS, 0)


def test_rare_classes_of_one_group_do_not_keep_the_others_from_being_held_out() -> None:
    whole = splits(300, groups=9)
    columns = whole.train.columns()
    columns["target"] = columns["target"].clone()
    columns["target"][:3] = torch.tensor([2, 3, 4])  # answers that occur once
    rare = replace(whole, train=TensorSplit(columns, groups=whole.train.groups))
    assert {view.name for view in make_views(rare, OutputKind.MULTICLASS)} >= {"fold-0", "fold-1"}
    assert len(fold_positions(rare.train, 3, OutputKind.MULTICLASS, 0)) == 3


class Shifted(TensorSplit):
    """Rows that are augmented at random, as far as a search can tell."""

    stochastic = True

    def plain(self) -> TensorSplit:
        return TensorSplit(self._columns)

    def batch(self, positions: Sequence[int]) -> Batch:
        found = super().batch(positions)
        return {**found, "x": found["x"] + 1000}


def test_augmented_rows_are_learned_from_and_held_out_as_they_are() -> None:
    whole = splits(120)
    augmented = replace(whole, train=Shifted(whole.train.columns()))
    views = make_views(augmented, OutputKind.MULTICLASS)
    for view in views:
        assert float(view.splits.train.columns(["x"])["x"].min()) > 500
        assert all(float(split.columns(["x"])["x"].max()) < 500 for split in (view.splits.val, view.splits.test))
        assert set(view.splits.train.index().tolist()) <= set(whole.train.index().tolist())
    assert len({row for view in views for row in view.splits.test.index().tolist()}) == len(whole.train) + len(
        whole.val
    )


# The search ----------------------------------------------------------------------------------------------------------


def test_the_student_is_tried_with_its_own_training_and_with_that_of_the_student_alone(
    tmp_path: Path, manager: Manager
) -> None:
    slow = {
        "teacher": {"epochs": 8, "batch_size": 32, "lr": 0.02},
        "student": {"epochs": 1, "batch_size": 32, "lr": 0.003},
    }
    values = recipe(
        train=slow, dataset={"use": "core/synthetic", "rows": 400}, student={"use": "core/mlp", "hidden": [32]}
    )
    found = tune(values, out=tmp_path / "s", trials=2, folds=2, manager=manager)
    alone = found.record["baseline"]["changes"]
    assert alone, "a rate that hardly learns is raised"
    tried = [trial["settings"]["training"] for trial in found.record["trials"]]
    assert tried == ["as in the recipe", "as for the student alone"]
    final = parse_value((found.folder / "recipe.yaml").read_text(encoding="utf-8"), source="recipe")
    baseline = final["train"].get("baseline", final["train"]["student"])
    assert {path: baseline[path.rpartition(".")[2]] for path in alone} == alone


def test_settings_that_do_not_suit_each_other_are_no_trials(tmp_path: Path, manager: Manager) -> None:
    values = recipe({"method": ["core/offline", "core/adaptive"]}, objectives={"soft": [{"use": "core/dkd"}]})
    found = tune(values, out=tmp_path / "s", trials=12, folds=2, manager=manager).record
    assert {trial["state"] for trial in found["trials"]} <= {"complete", "pruned"}
    pairs = {(trial["settings"]["method"], trial["settings"]["objective"]) for trial in found["trials"]}
    assert ("core/adaptive", "as in the recipe") not in pairs


def test_a_search_ends_with_a_recipe_and_a_final_run_of_five_seeds(
    finished: TuneResult, tmp_path: Path, manager: Manager
) -> None:
    record = finished.record
    assert len(record["trials"]) == 3
    assert {row["what"] for row in record["truths"]} == {"student alone", "teacher"}
    assert finished.report.read_text(encoding="utf-8").count("<h2>") >= 4
    summary = json.loads((finished.folder / "final/summary.json").read_text(encoding="utf-8"))
    assert summary["student"]["seeds"] == [0, 1, 2, 3, 4]
    assert record["final"]["student"] == summary["student"]["mean"]
    # The written recipe is one that anybody can run.
    again = run(finished.folder / "recipe.yaml", out=tmp_path / "again", seeds=[0], manager=manager)
    assert again.summary["student"]["per_seed"]["accuracy"][0] == summary["student"]["per_seed"]["accuracy"][0]


def test_trials_that_failed_are_told_with_their_reason(finished: TuneResult, tmp_path: Path) -> None:
    record = json.loads((finished.folder / "tune.json").read_text(encoding="utf-8"))
    assert "failed" not in sentence(record)
    record["trials"][-1] |= {"state": "fail", "value": None, "values": [], "error": "the loss <was> never finite"}
    assert f"tried {len(record['trials'])} settings (1 of them failed, see the report)" in sentence(record)
    page = write_tune_report(tmp_path, record).read_text(encoding="utf-8")
    assert "the loss &lt;was&gt; never finite" in page


def test_what_is_chosen_does_not_depend_on_the_test_rows(
    finished: TuneResult, tmp_path: Path, manager: Manager
) -> None:
    first = finished.record
    wrong = recipe(dataset={"use": "tiny_rows/rows", "shuffled_test": True})
    second = tune(wrong, out=tmp_path / "b", trials=3, folds=2, manager=manager).record
    for name in ("baseline", "truths", "trials", "confirmation", "importance"):
        assert without_times(first[name]) == without_times(second[name])
    assert first["final"]["student"] != second["final"]["student"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((11.46, 12.13), True),  # the larger half of the gain is worth more than the small loss of the other
        ((12.0, 12.2), False),  # worse on the mean
        ((9.0, 12.2, 12.2), False),  # better by one part of three alone
        ((11.0, 11.0, 12.2), True),
    ],
)
def test_a_teacher_is_better_by_its_mean_and_not_by_one_part_of_many(values: tuple[float, ...], expected: bool) -> None:
    alone = Scores(tuple(Result(12.08) for _ in values))
    assert better(Scores(tuple(Result(value) for value in values)), alone, higher_is_better=False) is expected


def test_without_a_better_teacher_nothing_is_distilled(tmp_path: Path, manager: Manager) -> None:
    noise = recipe(
        dataset={"use": "tiny_rows/rows", "noise": True, "count": 2000},
        teacher={"use": "core/linear"},
        student="core/linear",
    )
    noise["train"]["teacher"]["epochs"] = noise["train"]["student"]["epochs"] = 1
    # Labels are drawn at random: whatever a teacher has on held-out rows is luck, and two folds must agree on it.
    found = tune(noise, out=tmp_path / "s", trials=3, folds=2, manager=manager)
    if not found.record["teacher_found"]:
        assert found.record["final"] is None
        assert "no teacher is better" in found.record["stopped"]
        assert not (tmp_path / "s/final").exists()
    else:
        assert found.record["final"]["verdict"]["helped"] is not True


def test_a_search_that_was_stopped_ends_with_the_same_record(
    finished: TuneResult, tmp_path: Path, manager: Manager
) -> None:
    whole = finished.record
    for at in ("teachers", "trial 2", "final run"):
        with pytest.raises(Stop):
            tune(recipe(), out=tmp_path / "parts", trials=3, folds=2, manager=manager, reporter=Stopping(at))
    parts = tune(recipe(), out=tmp_path / "parts", trials=3, folds=2, manager=manager).record
    assert without_times(parts) == without_times(whole)


def test_after_the_test_rows_were_met_nothing_more_is_chosen(finished: TuneResult, manager: Manager) -> None:
    again = tune(recipe(), out=finished.folder, trials=3, folds=2, manager=manager)
    assert again.record == finished.record
    with pytest.raises(RunFolderError, match="has met the test rows"):
        tune(recipe(), out=finished.folder, trials=5, folds=2, manager=manager)
    with pytest.raises(RunFolderError, match="another recipe"):
        tune(recipe(data_seed=1), out=finished.folder, trials=3, folds=2, manager=manager)


def test_a_search_does_not_go_on_with_other_rows(
    finished: TuneResult, tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*given: Any, **options: Any) -> Bench:
        made = make_bench(*given, **options)
        made.data = "other rows"
        return made

    with pytest.raises(Stop):
        tune(recipe(), out=tmp_path / "stopped", trials=3, folds=2, manager=manager, reporter=Stopping("trial 2"))
    monkeypatch.setattr("stillhouse.tuning.search.make_bench", other)
    for folder in (finished.folder, tmp_path / "stopped"):
        with pytest.raises(RunFolderError, match="the data have changed since"):
            tune(recipe(), out=folder, trials=3, folds=2, manager=manager)


def test_a_recipe_says_what_varies(tmp_path: Path, manager: Manager) -> None:
    asked = recipe(
        search={"objectives.alpha": [0.2, 0.4], "train.student.lr": {"low": 0.01, "high": 0.05, "log": True}}
    )
    record = tune(asked, out=tmp_path / "s", trials=3, folds=2, manager=manager, vary=["student.hidden"]).record
    for trial in record["trials"]:
        assert trial["settings"]["objectives.alpha"] in ("0.2", "0.4")
        assert 0.01 <= trial["settings"]["train.student.lr"] <= 0.05
        assert trial["settings"]["student.hidden"] in ("(16,)", "(32,)", "(64,)", "(128,)", "(256, 256)")
        assert "alpha" not in trial["settings"]


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"objectives.alhpa": [0.1, 0.2]}, "alhpa"),
        ({"objectives.alpha": [0.1, 2]}, "not a value of 'objectives.alpha'"),
        ({"dataset.count": [100, 200]}, "the same for every trial"),
        ({"nothing.at": [1, 2]}, "not a field"),
        ({"objectives.alpha": [1]}, "two values"),
    ],
)
def test_a_search_field_that_cannot_be_is_named(
    tmp_path: Path, manager: Manager, search: dict[str, Any], words: str
) -> None:
    with pytest.raises(StillhouseError, match=words):
        tune(recipe(search=search), out=tmp_path / "s", manager=manager)


def test_an_option_without_useful_values_is_named(tmp_path: Path, manager: Manager) -> None:
    with pytest.raises(RecipeError, match="does not say which values of 'nothing'"):
        tune(recipe(), out=tmp_path / "s", manager=manager, vary=["student.nothing"])


@pytest.mark.slow
def test_processes_measure_what_one_process_does(tmp_path: Path, manager: Manager) -> None:
    one = tune(recipe(), out=tmp_path / "one", trials=2, folds=2, manager=manager)
    two = tune(recipe(), out=tmp_path / "two", trials=2, folds=2, manager=manager, jobs=2)
    kept = {}
    for name in ("one", "two"):
        found = [json.loads(path.read_text()) for path in sorted((tmp_path / name / "measured").glob("*.json"))]
        kept[name] = {
            path.name: without_times(value)
            for path, value in zip(sorted((tmp_path / name / "measured").glob("*.json")), found, strict=True)
        }
    shared = kept["one"].keys() & kept["two"].keys()
    assert len(shared) > 10
    assert all(kept["one"][name] == kept["two"][name] for name in shared)
    assert one.record["baseline"] == two.record["baseline"]


# Command line --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [["--trials", "0"], ["--minutes", "0"], ["--jobs", "0"], ["--folds", "-1"]])
def test_numbers_that_make_no_sense_are_named(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "quickstart", *flags]) == 2
    assert flags[0] in capsys.readouterr().err


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["tune", "quickstart"]) == 2
    assert "stillhouse[tune]" in capsys.readouterr().err


def test_useful_values_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "core/soft-targets", "--json"]) == 0
    options = json.loads(capsys.readouterr().out)
    assert "1 to 10, log" in json.dumps(options)


# Intervals over test rows --------------------------------------------------------------------------------------------


def test_an_interval_over_rows_holds_the_gain_and_shrinks_with_rows() -> None:
    random = np.random.default_rng(0)

    def width(rows: int) -> float:
        gains = random.normal(0.3, 1.0, rows)
        low, high = ci95_over_rows(lambda drawn: float(gains[drawn].mean()), rows) or (0.0, 0.0)
        assert low < gains.mean() < high
        # Half the width of the normal interval of a mean, within a tenth.
        assert high - low == pytest.approx(2 * 1.96 * gains.std() / np.sqrt(rows), rel=0.1)
        return high - low

    assert width(1600) < width(100)


def test_groups_are_drawn_whole() -> None:
    groups = [f"g{position // 10}" for position in range(100)]
    gains = np.repeat(np.random.default_rng(0).normal(size=10), 10)
    by_row = ci95_over_rows(lambda drawn: float(gains[drawn].mean()), 100)
    by_group = ci95_over_rows(lambda drawn: float(gains[drawn].mean()), 100, groups=groups)
    assert by_row is not None
    assert by_group is not None
    assert by_group[1] - by_group[0] > 2 * (by_row[1] - by_row[0])


def test_a_gain_that_mostly_has_no_value_has_no_interval() -> None:
    assert ci95_over_rows(lambda drawn: float("nan"), 10) is None
