"""``test_contract = stillhouse.testing.contract(...)`` as pytest sees it, and the helpers for tests of one's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import stillhouse
from stillhouse.errors import PluginError, StillhouseError
from stillhouse.plugins import StudentSpec
from stillhouse.testing import contract, run_tiny
from stillhouse.testing.fixtures import stillhouse_plugins  # noqa: F401  a fixture, as authors import it
from stillhouse.testing.isolation import Unreachable, offline

FILE = """
from stillhouse import hookimpl
from stillhouse.plugins import MetricSpec, ObjectiveSpec


@hookimpl
def stillhouse_metrics():
    return [MetricSpec(name="right", target="item_parts:right", summary="Right", kinds=("multiclass",),
                       higher_is_better=True)]


@hookimpl
def stillhouse_objectives():
    return [ObjectiveSpec(name="still", target="item_parts:Still", summary="Still", kinds=("multiclass",))]
"""
PARTS = """
from torch import nn

from stillhouse.heads.checks import judged


def right():
    def metric(prediction, rows):
        judged(prediction, rows, head="right")
        return float((prediction.argmax(1) == rows["target"]).float().mean())

    return metric


class Still(nn.Module):
    def forward(self, student, teacher):
        return teacher.mean() * 0 + 1
"""
TESTS = """
import stillhouse.testing

FILE = {file!r}
PROCESS = ("light-import", "import-order", "unregister", "non-interference")
LOSS = "loss[objective:item_plugin/still]"

test_as_it_is = stillhouse.testing.contract(FILE)
test_expected = stillhouse.testing.contract(FILE, expected_failures={{LOSS: "it is a joke"}})
test_unknown = stillhouse.testing.contract(FILE, expected_failures={{LOSS + "x": "a slip"}})
test_no_reason = stillhouse.testing.contract(FILE, expected_failures={{LOSS: " "}})
test_passes = stillhouse.testing.contract(FILE, expected_failures={{LOSS: "a joke", "hooks": "they are bad"}})
test_missing = stillhouse.testing.contract("lwa")
test_no_such_options = stillhouse.testing.contract(FILE, options={{"item_plugin/rows": {{}}}})
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
    """Outcome of each item, and what pytest printed."""
    folder = tmp_path_factory.mktemp("items")
    (folder / "item_plugin.py").write_text(FILE)
    (folder / "item_parts.py").write_text(PARTS)
    (folder / "test_items.py").write_text(TESTS.format(file=str(folder / "item_plugin.py")))
    # What starts processes has its own tests.
    chosen = ["-k", "not (light-import or import-order or unregister or non-interference)"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *chosen, str(folder)],
        cwd=folder,
        env=os.environ | {"COLUMNS": "400"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = re.findall(r"^(PASSED|FAILED|XFAIL|SKIPPED|ERROR) \S*::(\S+)", done.stdout, flags=re.MULTILINE)
    return {item: outcome for outcome, item in found}, done.stdout


def items(outcomes: tuple[dict[str, str], str], test: str) -> dict[str, str]:
    found = {item: outcome for item, outcome in outcomes[0].items() if item.startswith(f"{test}[")}
    return {item[len(test) + 1 : -1]: outcome for item, outcome in found.items()}


def test_one_item_per_check_and_component_with_a_stable_id(outcomes: tuple[dict[str, str], str]) -> None:
    assert items(outcomes, "test_as_it_is") == {
        "loads": "PASSED",
        "components": "PASSED",
        "hooks": "PASSED",
        "spec[objective:item_plugin/still]": "PASSED",
        "target[objective:item_plugin/still]": "PASSED",
        "shape[objective:item_plugin/still]": "PASSED",
        "options[objective:item_plugin/still]": "PASSED",
        "spec[metric:item_plugin/right]": "PASSED",
        "target[metric:item_plugin/right]": "PASSED",
        "shape[metric:item_plugin/right]": "PASSED",
        "options[metric:item_plugin/right]": "PASSED",
        "loss[objective:item_plugin/still]": "FAILED",
        "metrics[metric:item_plugin/right]": "PASSED",
        "edges[metric:item_plugin/right]": "PASSED",
    }


def test_expected_failure_is_reported_as_such(outcomes: tuple[dict[str, str], str]) -> None:
    found = items(outcomes, "test_expected")
    assert found.pop("loss[objective:item_plugin/still]") == "XFAIL"
    assert found.pop("expected-failures") == "PASSED"
    assert set(found.values()) == {"PASSED"}
    told = r"it is a joke \(for multiclass predictions \[\d+, \d+\] no finite gradient reaches the student"
    assert re.search(told, outcomes[1])


@pytest.mark.parametrize(
    ("test", "item", "says"),
    [
        ("test_unknown", "expected-failures", "which is no check: did you mean 'loss[objective:item_plugin/still]'?"),
        ("test_no_reason", "expected-failures", "gives no reason for 'loss[objective:item_plugin/still]'"),
        ("test_passes", "hooks", "hooks is expected to fail (they are bad) and passed: take it off the list"),
        ("test_missing", "loads", "no plugin 'lwa' is installed"),
        ("test_no_such_options", "loads", "options are given for 'item_plugin/rows'"),
    ],
)
def test_list_of_expected_failures_must_be_true(
    outcomes: tuple[dict[str, str], str], test: str, item: str, says: str
) -> None:
    assert items(outcomes, test)[item] == "FAILED"
    assert says in outcomes[1]


def test_summary_counts_checks_and_components(outcomes: tuple[dict[str, str], str]) -> None:
    (line,) = [each for each in outcomes[1].splitlines() if each.startswith("contract of plugin 'item_plugin': ")]
    counts = re.fullmatch(r".*: (\d+) checks on 2 components: (\d+) passed, (\d+) failed, (\d+) expected to fail", line)
    assert counts, line
    total, *parts = map(int, counts.groups())
    assert total == sum(parts)
    assert (parts[1], parts[2]) == (3, 3)  # what passes in spite of the list counts as failed


def test_plugin_without_components_fails(tmp_path: Path) -> None:
    (tmp_path / "nothing_at_all.py").write_text("")
    test = contract(tmp_path / "nothing_at_all.py")
    recorded: list[Any] = []
    request = SimpleNamespace(config=SimpleNamespace(pluginmanager=SimpleNamespace(has_plugin=lambda _: True)))
    with pytest.raises(pytest.fail.Exception, match="components: it brings no components"):
        test("components", request, lambda name, value: recorded.append(value))
    assert recorded == [["nothing_at_all", 0, "failed", ""]]


class Hooks:
    """Hook implementations without a module."""

    @stillhouse.hookimpl
    def stillhouse_students(self) -> list[StudentSpec]:
        return [StudentSpec(name="thin", target="stillhouse.components.models:mlp", summary="A thin network")]


class Misspelt:
    """Hook implementations with a slip."""

    @stillhouse.hookimpl
    def stillhouse_student(self) -> list[StudentSpec]:
        return []


def test_fixture_gives_a_manager_with_that_module_only(stillhouse_plugins: Any) -> None:  # noqa: F811
    with stillhouse_plugins.using(Hooks(), "mine") as manager:
        assert {each.name for each in manager.records} == {"core", "mine"}
        summary = run_tiny("core/quickstart", manager=manager, student={"use": "mine/thin", "hidden": [4]})
    assert "mine/thin" not in [each.id for each in manager.registry.components()]
    assert summary["student"]["component"] == "mine/thin"
    assert summary["dataset"]["rows"] == {"train": 64, "val": 64, "test": 64, "unlabelled": 64}
    assert summary["student"]["seeds"] == [0]
    with (
        pytest.raises(PluginError, match="is invalid"),
        stillhouse_plugins.using(Misspelt(), "bad"),
    ):
        pass


def test_tiny_run_takes_changes_and_keeps_its_folder_when_asked(tmp_path: Path) -> None:
    summary = run_tiny("core/quickstart", out=tmp_path / "run", seeds=[3], student__hidden=[2])
    assert summary["student"]["seeds"] == [3]
    assert (tmp_path / "run" / "report.html").exists()
    with pytest.raises(StillhouseError, match="no option 'hiden'"):
        run_tiny("core/quickstart", student__hiden=[2])


def test_tiny_run_and_checks_reach_no_other_machine() -> None:
    import socket

    with offline():
        with pytest.raises(Unreachable, match=r"example\.org"):
            socket.getaddrinfo("example.org", 80)
        with pytest.raises(Unreachable, match=r"192\.0\.2\.1"):
            socket.create_connection(("192.0.2.1", 80), timeout=1)
        assert socket.getaddrinfo("localhost", 80)
    assert socket.getaddrinfo.__module__ == "socket"
