"""Runs with several sizes of the student: folders, records, going on, what may be added, mistakes, report, output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import stillhouse
from stillhouse.cli import main
from stillhouse.errors import RecipeError, RunFolderError, StillhouseError
from stillhouse.progress import Silent

TWO = {"field": "student.hidden.0", "values": [2, 4, 8]}
OWN = 4


def recipe(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "tiny",
        "head": "core/multiclass",
        "dataset": {"use": "core/synthetic", "rows": 160},
        "teacher": {"use": "core/mlp", "hidden": [16]},
        "student": {"use": "core/mlp", "hidden": [OWN]},
        "train": {"teacher": {"epochs": 2, "batch_size": 32}, "student": {"epochs": 2, "batch_size": 32}},
        "evaluate": {"latency_samples": 20, "throughput_batch": 32},
        "seeds": [0, 1],
    }
    return {**values, **changes}


class Log(Silent):
    def __init__(self) -> None:
        self.models: list[str] = []

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        self.models.append(label)


def same(one: Path, other: Path) -> None:
    """The weights below two folders are equal to the bit."""
    names = sorted(path.relative_to(one) for path in one.rglob("model.safetensors"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("model.safetensors")) != []
    for name in names:
        first, second = load_file(one / name), load_file(other / name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stillhouse.run(recipe(), out=tmp_path_factory.mktemp("sizes") / "run", sizes=TWO).folder


def test_each_size_has_its_folder_and_every_number_of_worth_comes_from_it(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    found = summary["worth"]
    assert (found["field"], found["measure"], found["value"], found["paired_seeds"]) == (
        "student.hidden.0",
        "parameters",
        OWN,
        2,
    )
    assert sorted(path.name for path in (finished / "sizes").iterdir()) == ["student.hidden.0=2", "student.hidden.0=8"]
    assert [(each["value"], each["own"]) for each in found["sizes"]] == [(2, False), (4, True), (8, False)]
    for each in found["sizes"]:
        for role in ("baseline", "student"):
            folder = finished / role if each["own"] else finished / "sizes" / f"student.hidden.0={each['value']}" / role
            per_seed = []
            for seed in (0, 1):
                kept = load_file(folder / f"seed-{seed}" / "predictions" / "test.safetensors")
                per_seed.append(float((kept["prediction"].argmax(1) == kept["target"]).float().mean()))
                state = load_file(folder / f"seed-{seed}" / "model.safetensors")
                assert each[role]["size"] == sum(tensor.numel() for tensor in state.values())
            assert each[role]["per_seed"] == pytest.approx(per_seed)
            assert each[role]["mean"] == pytest.approx(np.mean(per_seed))
    assert found["equal_size"] == pytest.approx(found["size_factor"] * found["size"])
    assert found["size"] == summary["student"]["parameters"]
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    of_sizes = [line for line in lines if line["stage"] == "sizes"]
    assert {(line["size"], line["model"], line["seed"]) for line in of_sizes} == {
        (f"student.hidden.0={width}", role, seed)
        for width in (2, 8)
        for role in ("baseline", "student")
        for seed in (0, 1)
    }
    assert len(lines) - len(of_sizes) == 2 + 2 * 2 * 2
    assert summary["seconds"].keys() == {"teacher", "baseline", "student", "sizes"}


def test_other_sizes_change_nothing_at_the_recipes_own(finished: Path, tmp_path: Path) -> None:
    plain = stillhouse.run(recipe(), out=tmp_path / "plain")
    assert plain.summary["worth"] is None
    for role in ("teacher", "baseline", "student"):
        same(plain.folder / role, finished / role)
    summary = json.loads((finished / "summary.json").read_text())
    assert plain.summary["student"]["per_seed"] == summary["student"]["per_seed"]
    assert plain.summary["verdict"]["gain"] == summary["verdict"]["gain"]


def test_the_report_shows_both_curves_and_the_sentence(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    sentence = json.loads((finished / "summary.json").read_text())["worth"]["sentence"]
    assert "What distillation is worth in size" in page
    assert sentence.replace("'", "&#39;") in page
    assert "4 (the recipe)" in page
    assert page.count('id="worth-') > 0


def test_sizes_are_added_to_a_finished_run_and_never_taken_from_it_unasked(tmp_path: Path) -> None:
    stillhouse.run(recipe(), out=tmp_path / "run", seeds=[0])
    log = Log()
    stillhouse.run(recipe(), out=tmp_path / "run", seeds=[0], sizes={**TWO, "values": [2, 4]}, reporter=log)
    assert log.models == ["baseline, student.hidden.0=2, seed 0", "student, student.hidden.0=2, seed 0"]
    log = Log()
    result = stillhouse.run(recipe(), out=tmp_path / "run", seeds=[0], sizes=TWO, reporter=log)
    assert log.models == ["baseline, student.hidden.0=8, seed 0", "student, student.hidden.0=8, seed 0"]
    assert result.summary["worth"]["ci95"] is None
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["sizes"] == TWO
    log = Log()
    again = stillhouse.run(tmp_path / "run" / "recipe.yaml", out=tmp_path / "run", reporter=log)
    assert (log.models, again.summary) == ([], result.summary)
    fewer = {"out": tmp_path / "run", "seeds": [0], "sizes": {**TWO, "values": [4, 8]}}
    with pytest.raises(RunFolderError, match="sizes"):
        stillhouse.run(recipe(), **fewer)
    with pytest.raises(RunFolderError, match="sizes"):
        stillhouse.run(recipe(), out=tmp_path / "run", seeds=[0])
    stillhouse.run(recipe(), **fewer, overwrite=True)
    assert [path.name for path in (tmp_path / "run" / "sizes").iterdir()] == ["student.hidden.0=8"]


def test_a_stopped_run_goes_on_with_its_sizes(finished: Path, tmp_path: Path) -> None:
    for stage in ("teacher", "baseline", "student"):
        stillhouse.run(recipe(), out=tmp_path / "run", sizes=TWO, stop_after=stage)
    parts = stillhouse.run(recipe(), out=tmp_path / "run", sizes=TWO)
    same(finished, tmp_path / "run")
    assert parts.summary["worth"] == json.loads((finished / "summary.json").read_text())["worth"]


def test_trees_are_students_of_several_sizes_too(tmp_path: Path) -> None:
    values = recipe(
        student={"use": "core/decision-tree", "max_depth": 3}, sizes={"field": "student.max_depth", "values": [1, 6]}
    )
    found = stillhouse.run(values, out=tmp_path / "run").summary["worth"]
    assert found["measure"] == "parameters"
    sizes = [each["student"]["size"] for each in found["sizes"]]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for each in found["sizes"]:
        told = f"{each['baseline']['size']} alone</small>"
        assert (told in page) == (each["baseline"]["size"] != each["student"]["size"]), "of trees each has its own"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("student.hiden=2,4", "hidden"),
        ("student.hidden.7=2,4", "not a position"),
        ("student.hidden.0=wide,4", "hidden"),
        ("studnet.hidden=2,4", "option of the student"),
        ("student.use=core/mlp,core/linear", "option of the student"),
        ("student.hidden.0=8", "at least 2"),
        ("student.hidden.0=8,8", "make the same student"),
        ("student.hidden.0=-3,8", "hidden is [-3]"),
        ("student.dropout=0.1,0.2", "same size"),
        ("student.hidden.0", "is not a field and its values"),
        ("student.hidden.0=[8,16", "--sizes"),
    ],
)
def test_mistakes_give_one_clear_error_before_anything_is_trained(
    given: str, said: str, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe()))
    assert main(["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run"), "--sizes", given]) == 2
    output = capsys.readouterr()
    assert said in output.err
    assert "Traceback" not in output.err
    assert output.out == ""
    assert not (tmp_path / "run" / "teacher").exists()


def test_the_command_line_prints_what_distillation_is_worth(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe()))
    arguments = ["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run"), "--seeds", "0", "--quiet"]
    assert main([*arguments, "--sizes", "student.hidden=[2],[8, 4],[16]"]) == 0
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["worth"]
    assert found["sentence"] in capsys.readouterr().out
    assert [each["value"] for each in found["sizes"]] == [[2], [4], [8, 4], [16]]
    assert (tmp_path / "run" / "sizes" / "student.hidden=8,4" / "student" / "seed-0").is_dir()


def test_a_recipe_tells_the_line_of_a_wrong_size(tmp_path: Path) -> None:
    text = yaml.safe_dump(recipe()) + "sizes:\n  field: student.hidden\n  values:\n    - [4]\n    - 7\n"
    (tmp_path / "tiny.yaml").write_text(text)
    with pytest.raises(StillhouseError) as caught:
        stillhouse.run(tmp_path / "tiny.yaml", out=tmp_path / "run")
    assert f"line {len(text.splitlines())}" in caught.value.where
    with pytest.raises(RecipeError, match="at least 2"):
        stillhouse.run(recipe(), out=tmp_path / "run", sizes={"field": "student.hidden", "values": [[3]]})
