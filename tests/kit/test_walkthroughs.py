"""The page 'Write a plugin, piece by piece': every file keeps the contract, every command runs."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.cli import main
from stillhouse.plugins.manager import Manager
from stillhouse.testing.plan import Plan
from stillhouse.types import DataContext

PAGE = Path(__file__).parents[2] / "docs" / "plugins" / "walkthroughs.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", TEXT, flags=re.DOTALL))
COMMANDS = [shlex.split(each) for each in re.findall(r"^\$ stillhouse (.*)$", TEXT, flags=re.MULTILINE)]
SLOW = ("import-order", "non-interference")
"""Checks that start a process for some seconds; one file of the page gets them."""
FEW = ["evaluate.throughput_batch=8", "train.teacher.epochs=1", "train.student.epochs=1", "evaluate.latency_samples=5"]


@pytest.fixture(autouse=True)
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's files, and what its commands read."""
    for name, code in FILES.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "")
    yield
    for name in FILES:
        sys.modules.pop(name, None)


def answers(path: Path, rows: int) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["index", *(f"class-{each}" for each in range(4))], *([row, 0.7, 0.1, 0.1, 0.1] for row in range(rows))]
        )


def test_page_has_five_short_files() -> None:
    assert list(FILES) == ["scans", "agreement", "experts", "demand", "jitter"]
    for name, code in FILES.items():
        lines = [each for each in code.splitlines() if each.strip()]
        assert len(lines) <= 56, name


@pytest.mark.parametrize("name", FILES)
def test_components_keep_the_contract(name: str, tmp_path: Path) -> None:
    manager = Manager(installed=False)
    record = manager.add_file(tmp_path / f"{name}.py")
    options = {}
    if name == "experts":
        answers(tmp_path / "answers.csv", 12000)
        options = {"experts/file": {"path": str(tmp_path / "answers.csv")}}
    plan = Plan(manager, record, options=options)
    assert "light-import" not in plan.ids, "a file is imported only by commands that name it"
    found = [plan.run(each) for each in plan.ids if each not in SLOW or name == "scans"]
    assert {each.id: each.problem for each in found if each.outcome == "failed"} == {}
    skipped = {each.id.partition("[")[0] for each in found if each.outcome == "skipped"}
    assert skipped <= {"reader-rows"} if name == "demand" else not skipped  # it has no sample, the columns are plain


def few(command: list[str]) -> list[str]:
    """The command, with little training."""
    rows = [] if any("dataset=" in word for word in command) else ["dataset.rows=300", "dataset.unlabelled=0"]
    return [*command, *(word for each in FEW + rows for word in ("--set", each)), "--seeds", "0", "--quiet", "--json"]


@pytest.mark.parametrize(
    "command", [each for each in COMMANDS if each[0] == "run" and "./scans.py" not in each], ids=lambda each: each[-1]
)
def test_command_runs(command: list[str], tmp_path: Path, capsys: Any) -> None:
    answers(tmp_path / "answers.csv", 300)
    assert main(few(command)) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["student"]["parameters"] > 0


def test_new_files_are_predicted_by_the_reader(tmp_path: Path, capsys: Any) -> None:
    run, predict = (each for each in COMMANDS if "./scans.py" in each)
    assert main(few(run)) == 0
    (tmp_path / "new-scans").mkdir()
    sys.path.insert(0, str(tmp_path))
    import scans

    scans.sample(DataContext(root=tmp_path, base=tmp_path), tmp_path / "new-scans")
    capsys.readouterr()
    assert main(predict) == 0
    header, *rows = capsys.readouterr().out.split()
    assert header.startswith("file,label,")
    assert [row.partition(",")[0] for row in rows] == ["0.png", "1.png"]
    (tmp_path / "empty").mkdir()
    assert main([*predict[:2], "empty", *predict[3:]]) == 2


def test_the_objective_does_what_its_text_says(tmp_path: Path) -> None:
    sys.path.insert(0, str(tmp_path))
    import agreement

    loss, generator = agreement.Correlation(), torch.Generator().manual_seed(0)
    student = torch.randn(5, 3, generator=generator, requires_grad=True)
    teacher = torch.randn(5, 3, generator=generator, requires_grad=True)
    assert float(loss(2 * teacher.detach() + 1, teacher)) == pytest.approx(0, abs=1e-6)
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    alone = loss(student[:1], teacher[:1])
    assert alone.item() == 0
    alone.backward()
    rows = torch.randn(2, 4, 3, generator=generator)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    other = torch.where(mask.bool().unsqueeze(2), rows, 99.0)
    against = torch.randn(2, 4, 3, generator=generator)
    assert float(loss(rows, against, mask=mask)) == float(loss(other, against, mask=mask))


def test_no_target_of_the_split_by_time_is_of_a_later_split(tmp_path: Path) -> None:
    sys.path.insert(0, str(tmp_path))
    import demand

    splits = demand.hourly(DataContext(root=tmp_path, base=tmp_path), ahead=20)
    assert max(splits.train.until) < min(splits.val.times)
    assert max(splits.val.until) < min(splits.test.times)


def test_what_a_file_itself_changes_at_import_is_told(tmp_path: Path) -> None:
    code = FILES["agreement"].replace("import torch.nn", "import os\n\nimport torch.nn", 1)
    changing = tmp_path / "changing.py"
    changing.write_text(
        code.replace("agreement:", "changing:") + '\n\nos.environ["CHANGED"] = "yes"\n', encoding="utf-8"
    )
    manager = Manager(installed=False)
    plan = Plan(manager, manager.add_file(changing))
    sys.modules.pop("changing", None)
    del os.environ["CHANGED"]  # the check looks in a fresh process, which inherits this one's environment
    found = plan.run("unregister")
    assert found.outcome == "failed"
    assert "is not what it was: os.environ['CHANGED'] (where:" in found.problem
