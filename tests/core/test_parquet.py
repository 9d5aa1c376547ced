"""`core/parquet`: tables in Parquet files are read piece by piece, and their rows are those of the files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import stillhouse
from stillhouse.cli import main
from stillhouse.data.parquet import parquet
from stillhouse.data.readers import ColumnsReader
from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits

pytest.importorskip("pyarrow")

COLUMNS = ("amount", "age", "count")


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    found = pd.DataFrame(
        {
            "amount": random.gamma(2.0, 40.0, rows),
            "age": random.normal(50.0, 12.0, rows).astype(np.float32),
            "count": random.integers(0, 9, rows),
            "customer": [f"c{number}" for number in random.integers(0, 20, rows)],
        }
    )
    found["fraud"] = ((found["amount"] > 90) & (found["count"] > 3)).astype(int)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.parquet").mkdir()
    for number, rows in enumerate((90, 70, 41)):  # a split of several files
        table(rows, number).to_parquet(tmp_path / "train.parquet" / f"part-{number}.parquet")
    table(60, 10).to_parquet(tmp_path / "val.parquet")
    table(80, 11).to_parquet(tmp_path / "test.parquet")
    return tmp_path


def opened(folder: Path, **options: Any) -> Splits:
    return parquet(DataContext(root=folder, base=folder), path=Path("."), **{"target": "fraud", **options})


def test_rows_are_those_of_the_files_standardised_by_training_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.data.parquet.ROWS", 32)
    splits = opened(folder, groups="customer")
    train = pd.concat([table(rows, number) for number, rows in enumerate((90, 70, 41))])
    reader = ColumnsReader.fit(COLUMNS, train[[*COLUMNS]].to_numpy())
    for split, values in ((splits.train, train), (splits.val, table(60, 10)), (splits.test, table(80, 11))):
        columns = split.columns()
        assert torch.allclose(columns["x"], reader.transform(values[[*COLUMNS]].to_numpy()), atol=1e-5)
        assert columns["target"].tolist() == values["fraud"].tolist()
        assert split.groups == values["customer"].tolist()
    ids = torch.cat([split.index() for split in (splits.train, splits.val, splits.test)])
    assert ids.tolist() == list(range(201 + 60 + 80))
    assert splits.info.classes == ("0", "1")


def test_unlabelled_rows_need_no_target(folder: Path) -> None:
    rows = table(30, 20)
    rows.drop(columns="fraud").to_parquet(folder / "unlabelled.parquet")
    splits = opened(folder, groups="customer")
    assert splits.unlabelled is not None
    assert splits.unlabelled.groups == rows["customer"].tolist()
    assert splits.reader is not None
    expected = ColumnsReader.from_state(splits.reader.state()).transform(rows[[*COLUMNS]].to_numpy())
    assert torch.allclose(splits.unlabelled.columns()["x"], expected)
    assert splits.unlabelled.index().tolist() == list(range(341, 371))


def test_targets_may_be_texts_or_values(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        if path.is_file():
            frame = pd.read_parquet(path)
            frame["kind"] = np.where(frame["fraud"] == 1, "yes", "no")
            frame["loss"] = frame["amount"] * frame["fraud"]
            frame.to_parquet(path)
    texts = opened(folder, target="kind", columns=[*COLUMNS])
    assert texts.info.classes == ("no", "yes")
    assert texts.val.columns()["target"].tolist() == table(60, 10)["fraud"].tolist()
    values = opened(folder, target="loss", columns=["age", "count"])
    assert values.info.classes is None
    expected = (table(80, 11)["amount"] * table(80, 11)["fraud"]).to_numpy(dtype=np.float32)
    assert np.allclose(values.test.columns()["target"].numpy(), expected)


def test_the_cache_lists_a_table_by_its_folder_and_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened(folder)
    assert main(["cache", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert entry["kept"] == "tables"
    assert entry["what"].startswith(f"{folder.resolve()}, target fraud (")


def test_the_cache_lists_a_table_of_an_earlier_version_by_its_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(folder)
    (plan,) = (folder / "cache").rglob("plan.json")
    kept = json.loads(plan.read_text())
    plan.write_text(json.dumps({"classes": kept["classes"], "reader": kept["reader"]}))
    assert main(["cache", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert entry["what"] == plan.parent.name


def test_files_are_turned_into_columns_once_and_again_when_they_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*.npy")}

    before = opened(folder)
    first = made()
    monkeypatch.setattr("stillhouse.data.parquet._pieces", None)  # nothing is read again
    again = opened(folder)
    monkeypatch.undo()
    monkeypatch.setenv("STILLHOUSE_CACHE", str(folder / "cache"))
    assert made() == first
    assert again.info == before.info
    assert again.reader == before.reader
    table(80, 12).to_parquet(folder / "test.parquet")
    opened(folder)
    assert len(made()) == 2 * len(first)


def test_a_recipe_runs_on_them_and_the_student_predicts_new_rows(folder: Path) -> None:
    recipe = {
        "name": "table",
        "head": "core/binary",
        "dataset": {"use": "core/parquet", "path": str(folder), "target": "fraud"},
        "teacher": {"use": "core/mlp", "hidden": [16]},
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {each: {"epochs": 20, "batch_size": 32, "lr": 0.01} for each in ("teacher", "student")},
        "evaluate": {"latency_samples": 5},
        "seeds": [0],
    }
    result = stillhouse.run(recipe, out=folder / "run", stop_after="evaluate")
    assert result.summary["student"]["metrics"]["test"]["roc_auc"] > 0.8
    table(5, 13).to_parquet(folder / "new.parquet")
    found = stillhouse.predict(folder / "run", folder / "new.parquet")
    assert found["row"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "what", "where"),
    [
        ({"target": "fraudd"}, "no column 'fraudd'", "part-0.parquet"),
        ({"columns": ["amount", "customer"]}, "'customer' has", "part-0.parquet"),
        ({"columns": ["fraud"]}, "is the target", "part-0.parquet"),
        ({"times": "customer"}, "is not a finite number", "train.parquet"),
    ],
)
def test_a_wrong_option_is_told_with_its_file(change: dict[str, Any], what: str, where: str, folder: Path) -> None:
    with pytest.raises(DataError, match=what) as caught:
        opened(folder, **change)
    assert where in (caught.value.where or "")
    assert caught.value.fix


def test_a_wrong_value_is_told_with_file_row_and_column(folder: Path) -> None:
    frame = table(70, 1)
    frame.loc[36, "age"] = np.nan
    frame.to_parquet(folder / "train.parquet" / "part-1.parquet")
    with pytest.raises(DataError, match="row 37, column 'age'") as caught:
        opened(folder)
    assert (caught.value.where or "").endswith("part-1.parquet")
    table(70, 1).to_parquet(folder / "train.parquet" / "part-1.parquet")
    unseen = table(80, 11)
    unseen.loc[4, "fraud"] = 7
    unseen.to_parquet(folder / "test.parquet")
    with pytest.raises(DataError, match="row 5, column 'fraud': '7' is not a class of the training rows"):
        opened(folder)
    assert not list((folder / "cache").rglob("*.npy")), "nothing half-made is left"


def test_missing_and_damaged_files_are_told(folder: Path) -> None:
    (folder / "val.parquet").unlink()
    with pytest.raises(DataError, match=r"there is no 'val\.parquet'"):
        opened(folder)
    (folder / "val.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not Parquet"):
        opened(folder)
    table(60, 10).drop(columns="age").to_parquet(folder / "val.parquet")
    with pytest.raises(DataError, match="no column 'age'"):
        opened(folder)


CHILD = """
import resource, sys
from pathlib import Path
from stillhouse.data.parquet import parquet
from stillhouse.types import DataContext
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
found = []
for folder in map(Path, sys.argv[1:]):
    parquet(DataContext(root=folder, base=folder), path=Path("."), target="y")
    found.append(peak())
print(found[1] - found[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux counts it")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(0)
    for size, groups in (("small", 2), ("large", 12)):
        (tmp_path / size).mkdir()
        for name in ("train", "val", "test"):
            with pq.ParquetWriter(
                tmp_path / size / f"{name}.parquet",
                pa.schema([*((f"x{number}", pa.float32()) for number in range(40)), ("y", pa.int64())]),
            ) as writer:
                for _ in range(groups if name == "train" else 1):
                    values = random.standard_normal((65_536, 40), dtype=np.float32)
                    frame = pd.DataFrame(values, columns=[f"x{number}" for number in range(40)])
                    writer.write_table(pa.Table.from_pandas(frame.assign(y=(values[:, 0] > 0).astype(int))))
    environment = {**os.environ, "STILLHOUSE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # 655,360 rows more have 105 MB as they are written; pages of the written file count until the system takes them.
    assert int(done.stdout.split()[-1]) < 160
