"""`stillhouse label`: a teacher's outputs ahead of the run, in shards; whatever happens between, the same numbers."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import stillhouse
from stillhouse.cli import main
from stillhouse.errors import IncompatibleError, RunFolderError, StillhouseError, TrainingError
from stillhouse.pipeline.label import label
from stillhouse.plugins.manager import Manager
from stillhouse.teachers import LiveTeacher
from stillhouse.types import Batch, Outputs

SMALL = (
    "dataset.rows=1600",
    "dataset.unlabelled=700",
    "teacher.hidden=[16]",
    "student.hidden=[8]",
    "train.teacher.epochs=1",
    "train.student.epochs=2",
    "evaluate.latency_samples=10",
    "seeds=[0]",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))


def outputs(folder: Path) -> dict[str, bytes]:
    """What is stored, without times."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.glob("teacher/signal-*/shard-*/*.npy"))
    }


def student(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "seed-0" / "model.safetensors")


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, no network teaches."""

    def ask(self: LiveTeacher, batch: Batch) -> Outputs:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(LiveTeacher, "__call__", ask)


def test_a_run_learns_from_what_was_labelled_and_has_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stillhouse.run("core/quickstart", overrides=SMALL, out=tmp_path / "alone", stop_after="student")
    found = label("core/quickstart", overrides=SMALL, out=tmp_path / "run", shard_rows=100)
    assert (found.rows["unlabelled"], found.entries) == (700, ("prediction",))
    assert found.shards == found.made == 4, "a batch has 512 rows, and a shard whole batches"
    assert found.bytes == sum(path.stat().st_size for path in tmp_path.glob("run/teacher/signal-*/shard-*/*.npy"))
    assert found.rows_per_second
    again = label("core/quickstart", overrides=SMALL, out=tmp_path / "run")
    assert (again.made, again.rows_per_second, again.shards) == (0, None, 4)
    forbid(monkeypatch)
    stillhouse.run("core/quickstart", overrides=SMALL, out=tmp_path / "run", stop_after="student")
    one, two = student(tmp_path / "alone"), student(tmp_path / "run")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_half_precision_is_an_option_of_the_recipe_and_changes_a_student_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stillhouse.run("core/quickstart", overrides=SMALL, out=tmp_path / "alone", stop_after="student")
    found = label("core/quickstart", overrides=SMALL, out=tmp_path / "run", precision="float16")
    with pytest.raises(RunFolderError, match="labelled outputs are float16") as caught:
        stillhouse.run("core/quickstart", overrides=SMALL, out=tmp_path / "run", stop_after="student")
    assert "teacher is then asked again" in caught.value.fix
    forbid(monkeypatch)
    recipe = tmp_path / "half.yaml"
    changes = [*SMALL, "teacher.cache_precision=float16"]
    assert main(["init", "core/quickstart", "--out", str(recipe)]) == 0
    stillhouse.run("core/quickstart", overrides=changes, out=found.folder, stop_after="student")
    one, two = student(tmp_path / "alone"), student(tmp_path / "run")
    assert any(not torch.equal(one[name], two[name]) for name in one)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=2e-3)


def test_other_rows_or_another_teacher_are_refused_and_features_are_stored_where_losses_want_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tapped = [
        *SMALL,
        "objectives.soft=[soft, {use: core/hints, student: backbone.0, teacher: backbone.0}]",
    ]
    found = label("core/quickstart", overrides=tapped, out=tmp_path / "run")
    assert found.entries == ("prediction", "feature backbone.0")
    for change in ("data_seed=3", "teacher.seed=5"):
        with pytest.raises(RunFolderError, match=r"labelled outputs are .* and this run needs"):
            stillhouse.run("core/quickstart", overrides=[*tapped, change], out=tmp_path / "run")
    forbid(monkeypatch)
    for changes in (tapped, SMALL):  # what has more than is wanted will do
        stillhouse.run("core/quickstart", overrides=changes, out=tmp_path / "run", stop_after="student")


def test_what_is_not_stored_by_a_run_is_not_labelled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(IncompatibleError, match="asks the teacher in every step"):
        label("core/quickstart", overrides=[*SMALL, "teacher.cache=false"], out=tmp_path / "one")
    for given, said in (
        (["--engine", "slurm"], "engine"),
        (["--precision", "int8"], "precision"),
        (["--shard-rows", "0"], "shard-rows"),
    ):
        assert main(["label", "core/quickstart", "--out", str(tmp_path / "two"), *given]) == 2
        assert said in capsys.readouterr().err


PLUGIN = """
import os, time
from pathlib import Path
import torch
from stillhouse import hookimpl
from stillhouse.plugins import TeacherSpec
from stillhouse.types import Outputs

LOG = Path(os.environ["LABEL_LOG"])
SLOW = float(os.environ.get("LABEL_SLOW", "0"))


class Rule:
    revision = "1"

    def __init__(self, outputs):
        self.outputs = outputs

    def __call__(self, batch):
        index = batch["index"]
        if len(index) == 512 and SLOW:
            with LOG.open("a") as file:
                file.write(f"{os.getpid()} {int(index[0])}\\n")
            time.sleep(SLOW)
        if (LOG.parent / "broken").exists() and bool((index == 700).any()):
            raise OSError("disk on fire")
        return Outputs(torch.sin(batch["x"].flatten(1).sum(1, keepdim=True) * torch.arange(1, self.outputs + 1)))


def rule(task):
    return Rule(task.outputs)


@hookimpl
def stillhouse_teachers():
    return [TeacherSpec(name="rule", target=f"{__name__}:rule", summary="a rule", asked=True)]
"""
RULE = (*SMALL[:2], *SMALL[3:], "dataset.rows=6000", "teacher={use: rules/rule}", "dataset.unlabelled=2000")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    (tmp_path / "rules.py").write_text(PLUGIN)
    monkeypatch.setenv("LABEL_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(sys, "path", [*sys.path])  # the file's folder is put there
    sys.modules.pop("rules", None)  # that of another test is another file
    return Manager(files=[tmp_path / "rules.py"])


def test_a_shard_that_fails_names_its_rows_and_keeps_none_of_the_others_from_being_made(
    tmp_path: Path, manager: Manager
) -> None:
    (tmp_path / "broken").touch()
    given: dict[str, Any] = {"overrides": RULE, "out": tmp_path / "run", "shard_rows": 512, "manager": manager}
    with pytest.raises(TrainingError, match=r"1 of .* shards could not be made.*disk on fire") as caught:
        label("core/quickstart", **given)
    assert caught.value.where.startswith("'train', rows 0 to 511 (ids 0 to 885)"), "ids are not in the order of rows"
    assert "same command" in caught.value.fix
    kept = outputs(tmp_path / "run")
    (tmp_path / "broken").unlink()
    found = label("core/quickstart", **given)
    assert found.made == 1
    assert kept.items() < outputs(tmp_path / "run").items()


def killed_while_labelling(folder: Path, log: Path, manager: Manager, engine: str) -> Sequence[str]:
    """Label with two workers, one of which is killed in the middle of a shard; which shards were begun."""

    ended = threading.Event()

    def kill() -> None:
        while not ended.is_set():
            lines = log.read_text().splitlines() if log.exists() else []
            if len(lines) >= 3:
                os.kill(int(lines[-1].split()[0]), signal.SIGKILL)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    given: dict[str, Any] = {"overrides": RULE, "out": folder, "manager": manager}
    try:
        found = label("core/quickstart", shard_rows=512, jobs=2, engine=engine, **given)
    finally:
        ended.set()
        thread.join()
    assert found.made == found.shards
    return [line.split()[1] for line in log.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_worker_that_is_killed_loses_and_repeats_nothing_but_its_shard(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    label("core/quickstart", overrides=RULE, out=tmp_path / "alone", manager=manager)
    monkeypatch.setenv("LABEL_SLOW", "0.5")
    begun = killed_while_labelling(tmp_path / "run", tmp_path / "log", manager, engine)
    times = Counter(begun)
    assert sorted(times.values())[-2:] == [1, 2], "one shard was begun twice, all others once"

    def joined(folder: Path, name: str) -> bytes:
        import numpy as np

        parts = sorted((folder / "teacher" / f"signal-{name}").glob("shard-*"))
        return b"".join(np.load(part / "0.npy").tobytes() for part in parts)

    for name in ("train", "unlabelled"):
        assert joined(tmp_path / "run", name) == joined(tmp_path / "alone", name)
    assert not list((tmp_path / "run").rglob(".partial-*"))
    records = [json.loads(path.read_text()) for path in (tmp_path / "run").glob("teacher/signal-*/cache.json")]
    assert len(records) == 2


@pytest.mark.slow
def test_models_made_on_ray_are_those_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    changes = [*SMALL, "seeds=[0, 1]"]
    stillhouse.run("core/quickstart", overrides=changes, out=tmp_path / "here", stop_after="student")
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "other"))
    stillhouse.run(
        "core/quickstart", overrides=changes, out=tmp_path / "ray", stop_after="student", jobs=2, engine="ray"
    )
    files = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.safetensors"))
    assert any("student" in str(path) for path in files)
    for path in files:
        assert (tmp_path / "here" / path).read_bytes() == (tmp_path / "ray" / path).read_bytes()


def test_without_ray_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(StillhouseError, match="needs the package 'ray'") as caught:
        label("core/quickstart", overrides=SMALL, out=tmp_path / "run", engine="ray")
    assert "stillhouse[ray]" in caught.value.fix


def test_a_run_of_a_version_that_did_not_know_of_precision_is_the_same_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stillhouse.run("core/quickstart", overrides=SMALL, out=folder)
    saved = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(
        "".join(line for line in saved.splitlines(True) if "cache_precision" not in line)
    )
    assert "cache_precision" in saved
    stillhouse.run("core/quickstart", overrides=SMALL, out=folder)
