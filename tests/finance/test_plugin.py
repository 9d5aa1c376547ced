"""The plugin as a whole: its components, its recipes, and runs from transactions to predictions on new files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

import stillhouse
from stillhouse.errors import DataError
from stillhouse.pipeline.checking import check
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.options import describe_options
from stillhouse.plugins.registry import Registry
from stillhouse.recipe import resolve
from stillhouse.testing import run_tiny
from stillhouse.testing.plan import Plan

NEWS = ("news-demo", "news-mobilebert", "news-sentiment", "news-small", "news-tinybert")
SERIES = ("forecast", "forecast-demo", "movement", "volume", "volume-demo")
STREAMS = ("fraud-stream", "vix-stream", "etth1-stream")
FRAUD = ("fraud-demo", "fraud-born-again", "fraud-federated", "fraud-handbook", "fraud-rules")
RECIPES = (*FRAUD, "tabular", "vix", *NEWS, *SERIES, *STREAMS)
QUICK = ["evaluate.latency_samples=5", "evaluate.throughput_batch=8"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Manager.from_environment().registry


def test_every_component_loads_and_explains_its_options(registry):
    mine = [each for each in registry.components() if each.id.startswith("finance/") and each.kind != "recipe"]
    assert {each.kind for each in mine} == {"dataset", "teacher", "student", "head"}
    for component in mine:
        component.load()
        for option in describe_options(component):
            assert option["help"], (component.id, option["name"])


def test_every_recipe_resolves(registry):
    found = {each.id for each in registry.components() if each.kind == "recipe" and each.id.startswith("finance/")}
    assert found == {f"finance/{name}" for name in RECIPES}
    for name in RECIPES:
        resolved = resolve(f"finance/{name}", registry)
        assert resolved.recipe.summary
        tree = resolved.student.id == "finance/decision-tree"  # nothing random in it
        assert len(resolved.recipe.seeds) >= (1 if tree else 3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A short run of the demo."""
    out = tmp_path_factory.mktemp("run") / "demo"
    few = ["dataset.customers=200", "dataset.terminals=150", "dataset.days=50", "dataset.terminal_rate=0.002"]
    short = ["train.student.epochs=2", "teacher.members.0.max_iter=10", "teacher.members.1.n_estimators=10"]
    stillhouse.run("finance/fraud-demo", out=out, overrides=[*few, *short, *QUICK], seeds=[0, 1])
    return out


def test_a_run_ends_with_a_summary_that_says_simulated(finished):
    summary = json.loads((finished / "summary.json").read_text(encoding="utf-8"))
    assert summary["primary_metric"] == {"name": "average_precision", "higher_is_better": True}
    assert summary["dataset"]["simulated"]
    assert set(summary["dataset"]["rows"]) == {"train", "val", "test", "unlabelled"}
    for model in ("teacher", "baseline", "student"):
        metrics = summary[model]["metrics"]["test"]
        assert 0 < metrics["average_precision"] <= 1
        assert {"roc_auc", "card_precision_100", "recall_at_fpr", "ece"} <= set(metrics)
    assert "simulated" in (finished / "report.html").read_text(encoding="utf-8").lower()


def test_the_student_of_a_run_scores_new_transactions(finished, make, tmp_path):
    table = make.transactions(days=3)
    table.to_csv(tmp_path / "new.csv", index=False)
    told = stillhouse.predict(finished, tmp_path / "new.csv")
    assert told["row"] == list(range(2, len(table) + 2))
    assert told["amount"] == pytest.approx(table["amount"].tolist())
    assert all(0 <= each <= 1 for each in told["probability"])


def test_a_model_of_tables_is_refused_where_there_is_no_table():
    found = check("finance/news-demo", overrides=["student=finance/logistic"])
    assert str(found.problems[0]).startswith("'finance/logistic' needs the input 'x', and the dataset has ")


def test_rules_of_a_tree_are_in_the_run_folder_and_in_the_report(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make.loans().drop(columns="opened").to_csv(tmp_path / "loans.csv", index=False)
    own = ["dataset.path=loans.csv", "dataset.target=defaulted", "dataset.ignore=[id]", "teacher.out_of_fold=2"]
    small = ["teacher.members.0.max_iter=10", "teacher.members.1.n_estimators=10"]
    found = stillhouse.run("finance/tabular", out=tmp_path / "run", overrides=[*own, *small, *QUICK], seeds=[0])
    rules = (found.folder / "student" / "seed-0" / "rules.txt").read_text(encoding="utf-8")
    assert "income" in rules
    assert " rows)" in rules
    report = (found.folder / "report.html").read_text(encoding="utf-8")
    assert "Rules of the student" in report
    assert rules.splitlines()[0].split(" <=")[0] in report
    told = stillhouse.predict(found.folder, tmp_path / "loans.csv")
    assert len(told["row"]) == 400


@pytest.mark.parametrize(("kind", "target"), [("regression", "age"), ("multiclass", "branch")])
def test_the_recipe_of_an_own_table_suits_every_kind(kind, target, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make.loans().drop(columns="opened").to_csv(tmp_path / "loans.csv", index=False)
    own = ["dataset.path=loans.csv", f"dataset.target={target}", "dataset.ignore=[id]", f"dataset.kind={kind}"]
    small = ["teacher.members.0.max_iter=5", "teacher.members.1.n_estimators=5", "teacher.out_of_fold=2"]
    changes = [*own, f"head=core/{kind}", *small, "extra_rows.per_row=1", *QUICK]
    found = stillhouse.run("finance/tabular", out=tmp_path / "run", overrides=changes).summary
    assert set(found["controls"]) == {"finance/decision-tree", "core/pca-linear"}


def test_the_recipe_of_an_own_table_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="does not exist") as told:
        stillhouse.run("finance/tabular", out=tmp_path / "run")
    assert told.value.where.endswith("table.csv")


def test_quantiles_are_distilled_and_read_against_persistence(make, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "finance" / "vix"
    folder.mkdir(parents=True)
    make.days(900).to_csv(folder / "VIX_History.csv", index=False)
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path / "data"))
    dates = {"dataset__val_start": "2017-01-01", "dataset__test_start": "2017-09-01"}
    summary = run_tiny("finance/vix", **dates)
    assert set(summary["references"]) == {"persistence", "persistence with past quantiles"}
    for metrics in (*summary["references"].values(), summary["student"]["metrics"]["test"]):
        assert set(metrics) == {"pinball", "rmse", "mae", "coverage"}
        assert all(math.isfinite(each) for each in metrics.values())


@pytest.mark.parametrize("name", ["fraud-handbook", "fraud-rules"])
def test_recipes_of_the_handbook_run_on_its_layout(make, name, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "finance" / "fraud-handbook"
    make.write_handbook(folder, make.transactions(days=31, per_day=30))
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path / "data"))
    days = {"dataset__start": "2018-06-10", "dataset__drop_known_cards": False}
    trees = {"teacher__members__0__max_iter": 5, "teacher__members__1__n_estimators": 5}
    summary = run_tiny(f"finance/{name}", **days, **trees)
    assert summary["dataset"]["rows"]["train"] == 64
    assert summary["teacher"]["component"] == "finance/gradient-boosting + core/random-forest"


def test_the_contract_holds_for_the_datasets_that_need_files(make, tmp_path):
    make.days().to_csv(tmp_path / "days.csv", index=False)
    make.loans().drop(columns="opened").to_csv(tmp_path / "loans.csv", index=False)
    options = {
        "dataset:finance/volatility": {
            "path": str(tmp_path / "days.csv"),
            "val_start": "2016-09-01",
            "test_start": "2017-02-01",
        },
        "finance/tabular": {"path": str(tmp_path / "loans.csv"), "target": "defaulted", "ignore": ("id",)},
    }
    manager = Manager.from_environment()
    record = next(each for each in manager.records if each.name == "finance")
    plan = Plan(manager, record, options=options)
    named = ("finance/volatility", "finance/tabular", "finance/quantile-boosting", "finance/vix")
    checks = [plan.run(each) for each in plan.ids if any(f":{name}]" in each for name in named)]
    assert len(checks) > 20
    assert [(each.id, each.problem) for each in checks if each.outcome != "passed"] == []


def test_real_files_train_in_seconds(data_folder):
    if not (data_folder / "finance" / "fraud-handbook").is_dir():
        pytest.skip("no files of the handbook")
    summary = run_tiny("finance/fraud-handbook", teacher__members__0__max_iter=5, teacher__members__1__n_estimators=5)
    assert 0 < summary["student"]["metrics"]["test"]["average_precision"] <= 1


@pytest.mark.slow
def test_distillation_helps_by_the_protocol_of_the_handbook(data_folder, tmp_path):
    if not (data_folder / "finance" / "fraud-handbook").is_dir():
        pytest.skip("no files of the handbook")
    found = stillhouse.run("finance/fraud-handbook", out=tmp_path / "run").summary
    assert found["teacher"]["metrics"]["test"]["average_precision"] > 0.665
    assert found["student"]["mean"] > 0.66
    assert found["verdict"]["helped"] is True


def test_own_transactions_run_end_to_end(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = make.transactions(days=31, per_day=30).rename(columns={"card": "pan"})
    table.to_parquet(tmp_path / "mine.parquet")
    summary = run_tiny(
        {
            "name": "mine",
            "head": {"use": "finance/fraud", "pos_weight": "balanced"},
            "dataset": {
                "use": "finance/transactions",
                "path": "mine.parquet",
                "card": "pan",
                "drop_known_cards": False,
            },
            "teacher": {"use": "finance/ft-transformer", "width": 8, "heads": 2},
            "student": {"use": "finance/mlp", "hidden": [4]},
            "controls": ["finance/logistic"],
        }
    )
    assert not summary["dataset"]["simulated"]
    assert math.isfinite(summary["controls"]["finance/logistic"]["mean"])
    assert pd.read_parquet(tmp_path / "mine.parquet")["pan"].nunique() == 20
