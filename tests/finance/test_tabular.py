"""Any table: columns, targets, splits, encoding, new files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import DataError
from stillhouse.pipeline.data import check_splits
from stillhouse_finance.datasets.encoding import Categorical, Encoder, Numeric, as_levels
from stillhouse_finance.datasets.tabular import TableReader, tabular

LOANS = {"path": "loans.csv", "target": "defaulted", "ignore": ("id",)}
CLEAN = {**LOANS, "ignore": ("id", "opened")}


@pytest.fixture
def table(context, make):
    loans = make.loans()
    loans.to_csv(context.base / "loans.csv", index=False)
    return loans


@pytest.fixture
def write(context):
    """Write another table in the place of the loans."""

    def to(changed: pd.DataFrame) -> None:
        changed.to_csv(context.base / "loans.csv", index=False)

    return to


def test_columns_are_found_by_what_they_hold_and_encoded_on_training_rows(context, table):
    splits = tabular(context, **CLEAN)
    check_splits(splits, name="loans")
    names = splits.info.meta["feature_names"]
    assert names[:4] == ["branch", "income", "income = (missing)", "age"]
    assert {"purpose = car", "purpose = (missing)", "purpose = (other)", "member = True"} <= set(names)
    assert sum(splits.info.meta["column_widths"]) == len(names) == splits.info.inputs["x"].shape[0]
    train = splits.train.columns()
    incomes = table["income"][train["index"].numpy()]
    known = incomes.notna().to_numpy()
    x = train["x"].double().numpy()
    np.testing.assert_allclose(x[known, 1], ((incomes - incomes.mean()) / incomes.std(ddof=0))[known], atol=1e-5)
    assert (x[~known, 1] == 0).all()
    assert x[:, 2].tolist() == (~known).astype(float).tolist()
    for start, width in ((4, 0), (len(names) - 3, 3)):
        assert (x[:, start : start + width].sum(axis=1) == (1 if width else 0)).all()


def test_dates_are_left_out_with_a_warning_and_ids_are_told_all_at_once(context, table, write):
    """Twelve dates became twelve levels without a word, and the second id was told only after the first was gone."""
    write(table.assign(opened=[f"2026-{1 + number % 12:02}-01" for number in range(len(table))]))
    with pytest.warns(UserWarning, match="column 'opened' is of dates, and left out"):
        names = tabular(context, path="loans.csv", target="defaulted", ignore=("id",)).info.meta["feature_names"]
    assert not [name for name in names if name.startswith("opened")]
    named = tabular(context, **{**CLEAN, "ignore": ("id",), "categorical": ("opened",)})
    assert "opened = 2026-01-01" in named.info.meta["feature_names"]
    write(table.drop(columns="opened").assign(visit=[f"visit {number}" for number in range(len(table))]))
    with pytest.raises(DataError, match="columns 'id', 'visit' are of mostly different values") as refused:
        tabular(context, path="loans.csv", target="defaulted")
    assert "ignore: [id, visit]" in str(refused.value.fix)


def test_a_random_split_is_stratified_seeded_and_complete(context, table):
    splits, again, other = (tabular(replace(context, seed=seed), **CLEAN) for seed in (0, 0, 1))
    index = torch.cat([split.index() for split in splits.named().values()])
    assert sorted(index.tolist()) == list(range(400))
    assert [len(split) for split in splits.named().values()] == [240, 80, 80]
    shares = [float(split.columns()["target"].mean()) for split in splits.named().values()]
    assert max(shares) - min(shares) < 0.02
    assert splits.train.fingerprint() == again.train.fingerprint() != other.train.fingerprint()
    assert splits.info.class_counts == tuple(np.bincount(splits.train.columns()["target"].int()).tolist())


def test_a_split_by_time_is_ordered_and_divides_no_day(context, table):
    splits = tabular(context, **LOANS, time="opened")
    check_splits(splits, name="loans")
    assert max(splits.train.times) < min(splits.val.times)
    assert max(splits.val.times) < min(splits.test.times)
    assert len(splits.test) == pytest.approx(80, abs=5)
    assert "opened" not in " ".join(splits.info.meta["feature_names"])
    opened = pd.to_datetime(table["opened"])
    at = splits.test.index().numpy()
    assert opened[at].min() > opened.drop(index=at).max()


def test_a_split_by_group_keeps_groups_together(context, table):
    splits = tabular(context, **CLEAN, group="branch")
    check_splits(splits, name="loans")
    groups = [set(split.groups) for split in splits.named().values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    assert [len(each) for each in groups] == [12, 4, 4]
    assert "branch" not in splits.info.meta["feature_names"]


def test_kinds_of_target(context, table, write):
    words = table.assign(defaulted=np.where(table["defaulted"] == 1, "late", "fine"))
    write(words)
    with pytest.raises(DataError, match="which of 'fine' and 'late'"):
        tabular(context, **CLEAN)
    splits = tabular(context, **CLEAN, classes=("fine", "late"))
    assert splits.info.classes == ("fine", "late")
    write(words.assign(defaulted=" " + words["defaulted"]))  # as in UCI's files
    assert tabular(context, **CLEAN, classes=(" fine", "late")).info.classes == ("fine", "late")
    rows = splits.train.columns()
    assert torch.equal(rows["target"], torch.tensor(table["defaulted"].to_numpy()[rows["index"]]).float())
    several = tabular(context, path="loans.csv", target="branch", ignore=("id", "opened"), kind="multiclass")
    assert several.info.classes == tuple(str(number) for number in range(20))
    rows = several.train.columns()
    assert rows["target"].dtype == torch.int64
    assert rows["target"].tolist() == table["branch"].to_numpy()[rows["index"]].tolist()
    value = tabular(context, path="loans.csv", target="age", ignore=("id", "opened"), kind="regression", unit="years")
    ages = value.train.columns()["target"]
    assert value.info.classes is None
    assert value.info.target_mean == pytest.approx(float(ages.mean()), rel=1e-5)
    assert value.info.target_std == pytest.approx(float(ages.std(correction=0)), rel=1e-5)


def test_labels_outside_the_declared_set_are_refused_with_the_row(context, table, write):
    write(table.assign(defaulted=[*table["defaulted"][:7], 2, *table["defaulted"][8:]]))
    with pytest.raises(DataError, match=r"row 9, column 'defaulted': .*2.* is not one of the declared classes"):
        tabular(context, **CLEAN, classes=("0", "1"))
    with pytest.raises(DataError, match="has 3 labels"):
        tabular(context, **CLEAN)
    write(table.assign(defaulted=[None, *table["defaulted"][1:]]))
    with pytest.raises(DataError, match="row 2, column 'defaulted': an empty cell is not a label"):
        tabular(context, **CLEAN)
    write(table.assign(defaulted=[" ", *table["defaulted"][1:]]))
    with pytest.raises(DataError, match="row 2, column 'defaulted': ' ' is not a label"):
        tabular(context, **CLEAN)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"target": "default"}, "no column 'default'"),
        ({"ignore": ()}, "column 'id' is of mostly different values \\(400 in 400 rows\\)"),
        ({"numeric": ("age", "defaulted")}, "'defaulted' has two roles"),
        ({"numeric": ("age",), "categorical": ("age",)}, "'age' has two roles"),
        ({"numeric": (), "categorical": ()}, "no column is left"),
        ({"numeric": ("purpose",)}, "row 3, column 'purpose': 'house' is not a finite number"),
        ({"time": "opened", "group": "branch"}, "by time or by group"),
        ({"time": "purpose"}, "row 2, column 'purpose': an empty cell is not a date"),
        ({"val_fraction": 0.0}, "val_fraction 0.0"),
        ({"test_fraction": 0.9}, "no usable rows"),
        ({"levels": 0}, "levels 0"),
        ({"path": "nothing.csv"}, "does not exist"),
    ],
)
def test_what_cannot_be_meant_is_refused(context, table, options, what):
    with pytest.raises(DataError, match=what) as told:
        tabular(context, **{**CLEAN, **options})
    assert told.value.fix
    assert told.value.where


def test_empty_splits_and_missing_classes_are_refused(context, table, write):
    write(table.sort_values("defaulted").assign(number=range(len(table))))
    with pytest.raises(DataError, match="split 'train' has no row of class '1'"):
        tabular(context, **CLEAN, time="number", val_fraction=0.45, test_fraction=0.45)
    write(table.assign(branch=1))
    with pytest.raises(DataError, match="1 group cannot be split"):
        tabular(context, **CLEAN, group="branch")
    write(table[:2].assign(defaulted=[0, 1]))
    with pytest.raises(DataError, match="cannot be split"):
        tabular(context, **CLEAN)


def test_new_files_are_read_like_training_rows(context, table, tmp_path):
    splits = tabular(context, **CLEAN)
    reader = TableReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, told = reader.read(tmp_path / "loans.csv")
    assert told["row"] == list(range(2, 402))
    test = splits.test.columns()
    assert torch.equal(rows.columns()["x"][test["index"]], test["x"])
    new = table.drop(columns=["defaulted", "id", "opened"])[:3].assign(
        purpose=["boat", "car", None], age=[np.nan, 20, 30]
    )
    new.to_parquet(tmp_path / "new.parquet")
    found, told = reader.read(tmp_path / "new.parquet")
    names = splits.info.meta["feature_names"]
    x = found.columns()["x"]
    assert told["row"] == [1, 2, 3]
    assert x[:, names.index("purpose = (other)")].tolist() == [1, 0, 0]
    assert x[:, names.index("purpose = car")].tolist() == [0, 1, 0]
    assert x[:, names.index("purpose = (missing)")].tolist() == [0, 0, 1]
    assert x[0, names.index("age")] == 0
    unknown = new.assign(purpose=["Boat", "plane", "car"])
    unknown.to_parquet(tmp_path / "unknown.parquet")
    with pytest.warns(UserWarning, match="column 'purpose': 2 of 3 rows have a value .* such as 'Boat'"):
        reader.read(tmp_path / "unknown.parquet")
    new.drop(columns="age").to_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match="no column 'age'"):
        reader.read(tmp_path / "bad.parquet")


def test_levels_read_alike_with_and_without_gaps():
    assert as_levels(pd.Series([1, 2, 3])).tolist() == ["1", "2", "3"]
    assert as_levels(pd.Series([1.0, None, 2.5])).tolist() == ["1", "(missing)", "2.5"]
    assert as_levels(pd.Series([True, False])).tolist() == ["True", "False"]
    assert as_levels(pd.Series(["a", None, 3])).tolist() == ["a", "(missing)", "3"]
    assert as_levels(pd.Series([" Z\u00fcrich", "Zu\u0308rich ", " "])).tolist() == ["Z\u00fcrich"] * 2 + ["(missing)"]


@given(
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1),
    st.lists(st.sampled_from(["a", "d", "e"])),
    st.integers(1, 5),
)
def test_every_row_has_exactly_one_level_and_frequent_ones_are_kept(train, new, most):
    column = Categorical.fit("c", pd.Series(train), most)
    counts = {level: train.count(level) for level in set(train)}
    assert len(column.levels) == min(most, len(counts))
    dropped = set(counts) - set(column.levels)
    assert all(counts[kept] >= counts[gone] for kept in column.levels for gone in dropped)
    found = column(pd.Series(new, dtype=object))
    assert found.shape == (len(new), len(column.features))
    for level, row in zip(new, found, strict=True):
        expected = column.levels.index(level) if level in column.levels else len(column.levels)
        assert row.tolist() == [float(position == expected) for position in range(len(row))]


def test_a_numeric_column_without_values_or_spread_is_harmless():
    empty = Numeric.fit("n", np.array([np.nan, np.nan]))
    assert empty(np.array([np.nan, 5.0])).tolist() == [[0, 1], [5, 0]]
    constant = Numeric.fit("n", np.array([3.0, 3.0]))
    assert constant(np.array([3.0, 4.0, np.nan])).tolist() == [[0], [1], [0]]
    encoder = Encoder((constant,), (Categorical("c", ("a",)),))
    assert Encoder.from_state(json.loads(json.dumps(encoder.state()))) == encoder


def test_a_target_that_nobody_named_is_asked_for(context, tmp_path):
    pd.DataFrame({"age": [30, 40], "defaulted": [0, 1]}).to_csv(tmp_path / "loans.csv", index=False)
    with pytest.raises(DataError) as caught:
        tabular(context, path=str(tmp_path / "loans.csv"), target="target")
    assert "dataset.target; there are age, defaulted" in caught.value.fix
