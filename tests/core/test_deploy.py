"""Predictions of new files by readers that misbehave, and what an export says of its inputs."""

from __future__ import annotations

import csv
import errno
import json
import os
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import stillhouse
from stillhouse import hookimpl
from stillhouse.cli import main
from stillhouse.components.datasets import synthetic
from stillhouse.data.readers import ColumnsReader
from stillhouse.errors import DataError, PluginError, UnknownComponentError
from stillhouse.plugins.manager import using
from stillhouse.plugins.specs import DatasetSpec
from stillhouse.types import Splits


class Careless(ColumnsReader):
    """Reads by hand, and checks nothing."""

    def read(self, path: Path) -> Any:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]
        values = torch.tensor([[float(cell or "nan") for cell in row] for row in rows])
        from stillhouse.types import TensorSplit

        return TensorSplit({"x": values, "index": torch.arange(len(values))}), {"row": list(range(2, 2 + len(values)))}


def readable(context: Any) -> Splits:
    splits = synthetic(context, kind="regression", rows=160)
    width = splits.info.inputs["x"].shape[0]
    names = tuple(f"x{number}" for number in range(width))
    reader = Careless(columns=names, mean=(0.0,) * width, std=(1.0,) * width)
    return Splits(info=splits.info, train=splits.train, val=splits.val, test=splits.test, reader=reader)


def specs() -> Any:
    return [
        DatasetSpec(
            name="read", target=f"{__name__}:readable", summary="Rows with a reader", reader=f"{__name__}:Careless"
        )
    ]


@pytest.fixture
def manager() -> Any:
    with using(types.SimpleNamespace(stillhouse_datasets=hookimpl(specs)), name="mine") as manager:
        yield manager


@pytest.fixture
def run(manager: Any, tmp_path: Path) -> Path:
    recipe = {
        "head": "core/regression",
        "dataset": "mine/read",
        "teacher": {"use": "core/mlp", "hidden": [8]},
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {"teacher": {"epochs": 1}, "student": {"epochs": 1}},
        "seeds": [0],
    }
    return stillhouse.run(recipe, out=tmp_path / "run", manager=manager).folder


def table(run: Path, cell: str) -> Path:
    width = json.loads((run / "data" / "info.json").read_text())["inputs"]["x"]["shape"][0]
    path = run.parent / "new.csv"
    path.write_text(",".join(["x"] * width) + "\n" + ",".join(["1"] * width) + "\n" + ",".join([cell] * width) + "\n")
    return path


def test_a_reader_that_fails_is_named_and_a_prediction_that_is_no_number_refused(run: Path, manager: Any) -> None:
    assert len(stillhouse.predict(run, table(run, "0.5"), manager=manager)["row"]) == 2
    with pytest.raises(PluginError, match=r"the reader of dataset 'mine/read' failed: ValueError.*'abc'"):
        stillhouse.predict(run, table(run, "abc"), manager=manager)
    with pytest.raises(DataError, match="the prediction of row 3 is not a number"):
        stillhouse.predict(run, table(run, ""), manager=manager)


def test_an_export_says_how_its_inputs_are_prepared_and_what_comes_out(run: Path, manager: Any) -> None:
    path = stillhouse.export(run, format="torch", manager=manager)
    said = json.loads(path.with_name(path.name + ".json").read_text())
    assert said["reader"] == json.loads((run / "data" / "reader.json").read_text())
    assert said["reader"]["columns"][0] == "x0"
    assert said["output"]["meaning"] == "values, in the unit"
    assert said["output"]["decoding"].startswith("``prediction``")
    assert all(isinstance(value, int | float | str) for value in said["facts"].values())


def test_weights_in_code_that_has_changed_are_told(run: Path, manager: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        stillhouse.predict(run, table(run, "0.5"), manager=manager)
    for place, role, name in (("student/seed-0", "model", "core/mlp"), ("data", "dataset", "mine/read")):
        done = run / place / "done.json"
        before = done.read_text()
        record = json.loads(before)
        record["inputs"][role]["source"] = "of before"
        done.write_text(json.dumps(record))
        with pytest.warns(UserWarning, match=f"the code of '{name}' has changed since") as caught:
            stillhouse.predict(run, table(run, "0.5"), manager=manager)
        assert len([each for each in caught if each.category is UserWarning]) == 1
        done.write_text(before)


def test_the_command_line_tells_what_a_reader_warns_of_before_an_error_too(
    run: Path, manager: Any, monkeypatch: Any, capsys: Any
) -> None:
    genuine = Careless.read

    def warning(self: Careless, path: Path) -> Any:
        warnings.warn("half of the rows are new", stacklevel=2)
        return genuine(self, path)

    monkeypatch.setattr(Careless, "read", warning)
    monkeypatch.setattr("stillhouse.cli.deploy_cmd.get_manager", lambda _: manager)
    for cell, status in (("0.5", 0), ("", 2)):
        assert main(["predict", str(run), str(table(run, cell))]) == status
        said = capsys.readouterr().err
        assert "warning: half of the rows are new" in said
        assert ("is not a number" in said) is (status == 2)


def test_a_run_of_a_plugin_in_a_file_says_which(run: Path) -> None:
    manifest = run / "manifest.json"
    command = ["stillhouse", "run", "recipe.yaml", "--plugin=other.py", "--plugin", "my/domain.py"]
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "command": command}))
    with pytest.raises(UnknownComponentError, match="mine") as caught:
        stillhouse.predict(run, table(run, "0.5"))
    assert caught.value.fix == "give --plugin my/domain.py --plugin other.py, as the run was given"


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 2), (errno.EROFS, 2), (errno.EIO, 1)])
def test_a_full_disk_is_no_defect(number: int, status: int, monkeypatch: Any, capsys: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("stillhouse.pipeline.run", full)
    assert main(["run", "core/quickstart"]) == status
    said = capsys.readouterr().err
    assert ("defect" in said) is (status == 1)
    assert os.strerror(number) in said
    assert "some/file" in said


def test_an_interrupt_says_how_to_go_on(monkeypatch: Any, capsys: Any) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stillhouse.pipeline.run", interrupted)
    assert main(["run", "core/quickstart"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
