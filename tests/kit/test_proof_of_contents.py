"""The kit is proven, part two: what the checks of a dataset's contents find in series, and in files of a user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillhouse.plugins.manager import Manager
from stillhouse.testing.plan import Plan

PLUGIN = '''
from pathlib import Path

import numpy as np
import torch
from stillhouse import hookimpl
from stillhouse.data.readers import ColumnsReader
from stillhouse.data.tables import read_table
from stillhouse.plugins import DatasetSpec
from stillhouse.types import DataInfo, Splits, TensorSpec, TensorSplit

WINDOW, HORIZON, GAP = 8, 5, 4
COLUMNS = ("a", "b")


@hookimpl
def stillhouse_datasets():
    yield DatasetSpec(name="ahead", target=f"{__name__}:ahead", summary="A series", offline=True, kinds=("regression",))
    yield DatasetSpec(
        name="table",
        target=f"{__name__}:table",
        summary="A table",
        kinds=("regression",),
        reader="stillhouse.data.readers:ColumnsReader",
    )


def ahead(context):
    """A value some steps ahead of a window."""
    value = np.random.default_rng(context.seed).normal(size=400).cumsum()
    now = np.arange(WINDOW - 1, len(value) - HORIZON)
    scaled = (value - value[:240].mean()) / value[:240].std()
    x = np.stack([scaled[each - WINDOW + 1 : each + 1] for each in now])
    y = value[now + HORIZON]
    parts = {"train": np.arange(240 - GAP), "val": np.arange(240, 300 - GAP), "test": np.arange(300, len(now))}
    splits = {
        name: TensorSplit(
            {
                "x": torch.tensor(x[at], dtype=torch.float32),
                "target": torch.tensor(y[at], dtype=torch.float32),
                "index": torch.tensor(at),
            },
            times=(60.0 * now[at]).tolist(),
            until=None,
        )
        for name, at in parts.items()
    }
    return Splits(info=DataInfo(inputs={"x": TensorSpec((WINDOW,))}), **splits)


def table(context, *, path: str):
    """Rows of a file.

    Args:
        path: the file.
    """
    found = read_table(Path(path))
    values, target = found[list(COLUMNS)].to_numpy(), found["y"].to_numpy()
    order = np.random.default_rng(0).permutation(len(values))
    parts = {"train": order[:120], "val": order[120:160], "test": order[160:]}
    reader = ColumnsReader.fit(COLUMNS, values[parts["train"]])
    splits = {
        name: TensorSplit(
            {
                "x": reader.transform(values[at]),
                "target": torch.tensor(target[at], dtype=torch.float32),
                "index": torch.tensor(at),
            }
        )
        for name, at in parts.items()
    }
    return Splits(info=DataInfo(inputs={"x": TensorSpec((2,))}), reader=reader, **splits)
'''


def outcomes(folder: Path, dataset: str, changes: list[tuple[str, str]]) -> dict[str, Any]:
    """Outcomes of the checks of one dataset of `PLUGIN`, changed."""
    name = folder.name.replace("-", "_")
    text = PLUGIN
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / f"{name}.py").write_text(text)
    lines = np.random.default_rng(5).normal(size=(200, 3)).round(3)
    (folder / "rows.csv").write_text("a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in lines))
    manager = Manager(installed=False)
    record = manager.add_file(folder / f"{name}.py")
    plan = Plan(manager, record, options={f"{record.name}/table": {"path": str(folder / "rows.csv")}})
    chosen = [each for each in plan.ids if each.endswith(f"[dataset:{record.name}/{dataset}]")]
    return {each.partition("[")[0]: plan.run(each) for each in chosen}


@pytest.mark.parametrize(
    ("dataset", "fails", "says", "changes"),
    [
        pytest.param("ahead", "", "", [], id="good series"),
        pytest.param(
            "ahead",
            "time-gap",
            "the target of a row is an input 5 rows later: that of the last row of split 'train'",
            [("GAP = 8, 5, 4", "GAP = 8, 5, 0")],
            id="no gap",
        ),
        pytest.param(
            "ahead",
            "time-gap",
            "of the last row of split 'val' is of 18660, and split 'test' begins at 18420",
            [("np.arange(240, 300 - GAP)", "np.arange(240, 300)")],
            id="no gap before the test",
        ),
        pytest.param(
            "ahead",
            "disjoint",
            "a row of split 'val' of",
            [("until=None", "until=(60.0 * (now[at] + HORIZON)).tolist()"), ("300 - GAP)", "300)")],
            id="no gap, and the time of targets is declared",
        ),
        pytest.param("table", "", "", [], id="good table"),
        pytest.param(
            "table",
            "statistics",
            "the training rows are others when numbers of test rows are changed",
            # Over all rows but one, so that no mean over whole splits is 0.
            [('values[parts["train"]]', "values[1:]")],
            id="statistics of other rows",
        ),
        pytest.param(
            "table",
            "reader-rows",
            "that the reader makes of rows.csv, 0 are rows of the dataset",
            [("reader=reader, **", "reader=ColumnsReader(columns=COLUMNS, mean=(0.5, 0.0), std=(2.0, 1.0)), **")],
            id="reader that scales in another way",
        ),
    ],
)
def test_series_and_files_are_looked_through(
    dataset: str, fails: str, says: str, changes: list[tuple[str, str]], tmp_path: Path
) -> None:
    found = outcomes(tmp_path, dataset, changes)
    failed = {name: each for name, each in found.items() if each.outcome == "failed"}
    assert list(failed) == ([fails] if fails else []), {name: each.problem for name, each in failed.items()}
    if fails:
        assert says in failed[fails].problem
        assert failed[fails].fix
    elif dataset == "table":
        assert "made again with other test rows" in found["statistics"].note
        assert found["reader-rows"].note == "200 rows of rows.csv"
    else:
        assert found["time-gap"].note == "targets are known 5 rows later"
