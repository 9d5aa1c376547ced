"""`--jobs`: models made side by side are those made one after the other, to the bit, whatever stops the run between."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import stillhouse
from stillhouse.cli import main
from stillhouse.cli.progress import Whole
from stillhouse.errors import OptionError, StillhouseError
from stillhouse.pipeline.workers import number_of_jobs
from stillhouse.progress import Silent

SMALL = [
    "dataset.rows=240",
    "dataset.unlabelled=60",
    "teacher={members: [{use: core/mlp, hidden: [16], count: 2}, {use: core/random-forest, n_estimators: 5}]}",
    "student.hidden=[8]",
    "controls=[core/pca-linear]",
    "train.teacher.epochs=2",
    "train.student.epochs=3",
    "evaluate.latency_samples=10",
    "seeds=[0, 1]",
]
VOLATILE = ("latency_ms", "throughput_per_s", "latency", "seconds", "speedup", "sentence", "making_seconds")


class Recording(Silent):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.planned: list[tuple[str, str, int]] = []
        self._label = ""

    def plan(self, trainings: list[tuple[str, str, int]]) -> None:
        self.planned = list(trainings)

    def model(self, label: str, epochs: int, done: int = 0) -> None:
        self._label = label
        self.events.append(("model", label))

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.events.append(("epoch", self._label))

    def model_done(self, note: str = "") -> None:
        self.events.append(("done", self._label))


def same(one: Path, two: Path) -> None:
    files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(two) for path in two.rglob("*.safetensors"))
    assert files
    for path in files:
        assert (one / path).read_bytes() == (two / path).read_bytes(), path
    assert plain(one) == plain(two)


def plain(folder: Path) -> Any:
    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(each) for name, each in value.items() if name not in VOLATILE}
        return [without(each) for each in value] if isinstance(value, list) else value

    return without(json.loads((folder / "summary.json").read_text()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, one model after the other."""
    folder = tmp_path_factory.mktemp("jobs") / "one"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STILLHOUSE_CACHE", str(folder.parent / "cache"))
        patched.setenv("STILLHOUSE_PLUGINS", "")
        stillhouse.run("core/quickstart", overrides=SMALL, out=folder)
    return folder


def test_side_by_side_gives_the_same_bits_and_tells_of_every_model_once(whole: Path, tmp_path: Path) -> None:
    heard = Recording()
    folder = tmp_path / "two"
    stillhouse.run("core/quickstart", overrides=SMALL, out=folder, jobs=2, reporter=heard)
    same(whole, folder)
    assert not multiprocessing.active_children()
    labels = [label for label, _, _ in heard.planned]
    assert len(labels) == 3 + 2 + 2 + 2
    assert sorted(label for kind, label in heard.events if kind == "done") == sorted(labels)
    # Events of one model stay together for a reporter without lanes.
    students = [event for event in heard.events if event[1] == "student, seed 1"]
    assert students == [("model", "student, seed 1"), *[("epoch", "student, seed 1")] * 3, ("done", "student, seed 1")]
    assert not list(folder.glob("run.*")), "no lock is left behind"


def test_a_script_needs_no_guard(whole: Path, tmp_path: Path) -> None:
    """Processes do not import the script, which would begin the run again in each of them."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import stillhouse\nprint('begun')\nstillhouse.run('core/quickstart', overrides={SMALL}, out='run', jobs=2)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "begun\n"), done.stderr
    same(whole, tmp_path / "run")


def test_a_component_of_the_script_is_found_by_processes(tmp_path: Path) -> None:
    """The script is imported where the recipe names something of it; then it needs its guard."""
    script = tmp_path / "script.py"
    changes = ["dataset.rows=240", "student=__main__:Tiny", "train.teacher.epochs=1", "train.student.epochs=1"]
    changes += ["evaluate.latency_samples=5", "seeds=[0]"]
    script.write_text(
        "import torch\nimport stillhouse\n\n\n"
        "class Tiny(torch.nn.Module):\n"
        "    def __init__(self, task):\n"
        "        super().__init__()\n"
        "        (spec,) = task.inputs.values()\n"
        "        self.layer = torch.nn.Linear(spec.shape[0], task.outputs)\n\n"
        "    def forward(self, x):\n"
        "        return self.layer(x)\n\n\n"
        "if __name__ == '__main__':\n"
        "    print('begun')\n"
        f"    stillhouse.run('core/quickstart', overrides={changes}, out='run', jobs=2)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "begun\n"), done.stderr


class Interrupting(Recording):
    """Ctrl-C as soon as a student is finished."""

    def model_done(self, note: str = "") -> None:
        super().model_done(note)
        if self._label.startswith("student"):
            raise KeyboardInterrupt


def test_a_stopped_run_goes_on_with_any_number_of_processes(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        stillhouse.run("core/quickstart", overrides=SMALL, out=folder, jobs=2, reporter=Interrupting())
    assert not multiprocessing.active_children()
    assert not (folder / "summary.json").exists()
    finished = [path.parent.name for path in folder.glob("baseline/*/done.json")]
    assert sorted(finished) == ["seed-0", "seed-1"]
    heard = Recording()
    stillhouse.run("core/quickstart", overrides=SMALL, out=folder, reporter=heard)
    assert not any(label.startswith(("teacher", "baseline")) for _, label in heard.events), "not made again"
    same(whole, folder)


def test_an_error_in_a_process_is_that_of_the_run(tmp_path: Path) -> None:
    changes = [*SMALL, "train.student.lr=1e30", "train.student.optimizer=sgd", "train.student.grad_clip=null"]
    with pytest.raises(StillhouseError, match=r"not finite|never a finite") as one:
        stillhouse.run("core/quickstart", overrides=changes, out=tmp_path / "run", jobs=2)
    assert one.value.fix
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5", ""])
def test_what_is_no_number_of_processes_is_told(jobs: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["run", "core/quickstart", "--out", str(tmp_path / "run"), "--jobs", jobs]) == 2
    assert "auto" in capsys.readouterr().err


def test_auto_is_the_number_of_cores_and_a_launcher_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from stillhouse.training.threads import available_cores

    assert number_of_jobs("auto") == available_cores()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert number_of_jobs(1) == 1
    with pytest.raises(OptionError, match="side by side"):
        number_of_jobs(2)


def test_the_time_left_follows_from_the_epochs_that_were_seen() -> None:
    now = [0.0]
    found = Whole(clock=lambda: now[0])
    found.plan([("teacher", "teacher", 2), ("baseline, seed 0", "baseline", 10), ("student, seed 0", "student", 10)])
    assert found.left is None
    assert found.note() == "0 of 3 models"
    found.epoch("teacher", {"seconds": 3.0})
    assert found.left is None  # a teacher's epochs say nothing of a student's
    assert found.note() == "0 of 3 models, about 3 s left of the teacher"
    found.epoch("teacher", {"seconds": 3.0})
    found.done("teacher")
    assert found.note() == "1 of 3 models"
    found.epoch("baseline, seed 0", {"seconds": 1.0})
    assert found.left == 9 * 1.0 + 10 * 1.0  # the student is taken to be like the baseline
    found.epoch("student, seed 0, stage-1", {"seconds": 2.0})
    found.done("student, seed 0, stage-1")
    assert found.left == 9 * 1.0 + 9 * 2.0
    found.lanes = 2
    assert found.left == (9 * 1.0 + 9 * 2.0) / 2
    assert found.note() == "1 of 3 models, about 14 s left"
    now[0] = 65.0
    assert found.taken == 65.0
