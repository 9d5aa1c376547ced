"""Tables of users, and the reader of columns that plugins share."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stillhouse.data import tables
from stillhouse.data.readers import ColumnsReader
from stillhouse.errors import DataError, MissingDependencyError

finite = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: round(value, 6))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_are_read_whatever_separates_their_columns(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"a{separator}b\n1{separator}x\n2{separator}y\n", encoding="utf-8")
    table = tables.read_table(path)
    assert table["a"].tolist() == [1, 2]
    assert table["b"].tolist() == ["x", "y"]
    assert tables.first_row(path) == 2


def test_empty_cells_texts_of_several_lines_and_blank_lines_at_the_end_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('\ufeffa,b\r\n1,\r\n,\r\n"x\r\ny, z",3\r\n\r\n\r\n', encoding="utf-8")
    table = tables.read_table(path, texts=["a"])
    assert table["a"].tolist() == ["1", "", "x\r\ny, z"]
    assert table["b"].isna().tolist() == [True, True, False]


@pytest.mark.plugins
def test_parquet_files_are_the_same_tables(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1.5, 2.5], "b": ["x", None]}, index=[7, 8])
    table.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(tables.read_table(tmp_path / "t.parquet"), table.reset_index(drop=True))
    assert tables.first_row(tmp_path / "t.parquet") == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.xlsx", b"a", "'.xlsx' files cannot be read here"),
        ("none.csv", None, "does not exist"),
        pytest.param(f"{'n' * 300}.csv", None, "does not exist", id="longer than a file system takes names"),
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,b\n", "has no rows"),
        ("t.csv", b"a,b\n1,2\n", "there is no column 'c'"),
        ("t.csv", b"a,b\n1,2,\n3,4,\n", "row 2 has 3 fields, and the header 2"),
        ("t.csv", b"a,b\n9,1,2\n9,3,4\n", "row 2 has 3 fields, and the header 2"),
        ("t.csv", b"a,b\n1,2,3,4\n1\n", "row 2 has 4 fields, and the header 2"),
        ("t.csv", b"a;b;c\n1;2;3\n1;\n", "row 3 has 2 of 3 fields"),
        ("t.csv", b"a,b\n1,2\n1", "row 3 has 1 of 2 fields"),
        ("t.csv", b'a,b\n"1\n1",2\n\n\n3,4\n', "row 3 is a blank line"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "cannot be parsed"),
        ("t.csv", b"a,b\n\xff\xfe,2\n", "not UTF-8"),
        pytest.param("t.parquet", b"PAR1 and nothing more", "cannot be parsed", marks=pytest.mark.plugins),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        tables.require_columns(tables.read_table(path), ["a", "c"], str(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_parquet_without_a_package_that_reads_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingDependencyError, match="need the package 'pyarrow'") as caught:
        tables.read_table(tmp_path / "t.parquet")
    assert caught.value.where == str(tmp_path / "t.parquet")
    assert caught.value.fix == "pip install pyarrow"


def test_a_missing_column_is_told_with_the_nearest_and_several_at_once() -> None:
    table = pd.DataFrame({"sensor_1": [1.0], "unit": [1]})
    with pytest.raises(DataError, match="there is no column 'sensor1'") as caught:
        tables.require_columns(table, ["unit", "sensor1"], "t.csv")
    assert "sensor_1" in caught.value.fix
    with pytest.raises(DataError, match="there are no columns 'x', 'y'"):
        tables.require_columns(table, ["x", "unit", "y"], "t.csv")


@pytest.mark.parametrize(
    ("read", "values", "words", "fix"),
    [
        (tables.numbers, [1, None, None], r"row 3, column 'c': an empty cell is not a finite number \(2 such", "gap"),
        (tables.numbers, ["1.5", "2,5", "3"], "row 3, column 'c': '2,5' is not a finite number", "a point"),
        (tables.numbers, ["1", "n/a", "3"], "row 3, column 'c': 'n/a' is not a finite number", "correct the value"),
        (tables.numbers, [1, float("inf"), 2], "'inf' is not a finite number", "correct the value"),
        (tables.ids, ["a", None], "row 3, column 'c': an empty cell is not an id", "each row"),
        (tables.words, ["a", "  "], "row 3, column 'c': an empty cell is not a text", "fill it"),
    ],
)
def test_a_value_that_is_not_what_it_should_be_is_told_with_row_and_column(read, values, words, fix) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read(pd.Series(values, name="c"), where="t.csv", first=2)
    assert fix in caught.value.fix
    assert "t.csv" in str(caught.value)


@given(values=st.lists(st.one_of(st.integers(-3, 9), st.sampled_from([0.5, float("nan"), float("inf")])), min_size=1))
def test_whole_numbers_within_their_range_pass_and_the_first_other_is_told(values: list[float]) -> None:
    column = pd.Series(values, name="c", dtype=float)
    wrong = [at for at, value in enumerate(values) if value not in range(6)]
    if not wrong:
        assert tables.whole_numbers(column, low=0, high=5, where="f", first=1).tolist() == values
        return
    with pytest.raises(DataError, match=f"row {wrong[0] + 1}, column 'c'"):
        tables.whole_numbers(column, low=0, high=5, where="f", first=1)


@given(rows=arrays(np.float64, st.tuples(st.integers(1, 5), st.just(3)), elements=finite))
def test_a_reader_of_columns_standardises_them_and_survives_json(tmp_path_factory, rows: np.ndarray) -> None:
    folder = tmp_path_factory.mktemp("reader")
    reader = ColumnsReader(columns=("c", "a", "b"), mean=(1.0, 2.0, 3.0), std=(0.5, 1.0, 2.0), input="signals")
    again = ColumnsReader.from_state(json.loads(json.dumps(reader.state())))
    assert again == reader
    table = pd.DataFrame(rows, columns=["a", "b", "c"]).assign(other="text")
    table.to_csv(folder / "new.csv", index=False)
    split, identity = again.read(folder / "new.csv")
    expected = (rows[:, [2, 0, 1]] - [1.0, 2.0, 3.0]) / [0.5, 1.0, 2.0]
    found = split.columns()
    torch.testing.assert_close(found["signals"], torch.from_numpy(expected).float())
    assert identity == {"row": list(range(2, 2 + len(rows)))}
    assert found["index"].tolist() == list(range(len(rows)))


def test_a_reader_of_columns_refuses_other_files_and_other_counts(tmp_path: Path) -> None:
    reader = ColumnsReader(columns=("a", "b"), mean=(0.0, 0.0), std=(1.0, 1.0))
    (tmp_path / "new.csv").write_text("a,c\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="there is no column 'b'"):
        reader.read(tmp_path / "new.csv")
    (tmp_path / "new.csv").write_text("a,b\n1,2\n1,x\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 3, column 'b': 'x' is not a finite number"):
        reader.read(tmp_path / "new.csv")
    with pytest.raises(ValueError, match="2 columns, 1 means"):
        ColumnsReader(columns=("a", "b"), mean=(0.0,), std=(1.0, 1.0))


def test_columns_that_differ_in_case_alone_are_told_as_such() -> None:
    table = pd.DataFrame({"AGE": [1], "INCOME": [2]})
    with pytest.raises(DataError) as caught:
        tables.require_columns(table, ["age", "income"], "x.csv")
    assert caught.value.fix == "upper and lower case count: rename 'AGE' to 'age', and so on"


def test_a_column_that_is_wanted_is_no_hint_for_another() -> None:
    table = pd.DataFrame({"mean radius": [1]})
    with pytest.raises(DataError) as caught:
        tables.require_columns(table, ["mean radius", "mean area"], "x.csv")
    assert caught.value.fix == "add it to the file"


def test_missing_columns_are_not_taken_for_one_that_nobody_asked_for() -> None:
    """'known: patient id, visit', the columns that are ignored, was the fix for a missing bmi."""
    table = pd.DataFrame({"age": [1], "patient id": [2], "visit": [3]})
    fixes = {
        ("age", "bmi"): "add it to the file; beside others it has patient id, visit",
        ("age", "visits"): "did you mean 'visit'?",
        ("bmi", "bp", "visits"): "add them to the file; beside others it has age, patient id, visit",
    }
    for names, fix in fixes.items():
        with pytest.raises(DataError) as caught:
            tables.require_columns(table, names, "x.csv")
        assert caught.value.fix == fix


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder, not a file"):
        tables.read_table(tmp_path)
