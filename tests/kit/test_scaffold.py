"""``stillhouse plugins new``: names, files, and the shape that our own plugins have too."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stillhouse.cli import main
from stillhouse.errors import StillhouseError
from stillhouse.plugins.hookspecs import HOOKS
from stillhouse.plugins.manager import NAME, Manager
from stillhouse.plugins.metadata import bounded_requirement
from stillhouse.scaffold import DEFAULT_KINDS, KINDS, TASKS, Names, check_kinds, check_name, check_task, write_plugin
from stillhouse.scaffold.tasks import OF_EVERY_TASK
from stillhouse.testing.plan import Plan

ROOT = Path(__file__).parents[2]
OURS = sorted(each for each in (ROOT / "plugins").iterdir() if (each / "pyproject.toml").exists())
EXAMPLE = ROOT / "examples" / "stillhouse-law"


def check_shape(folder: Path) -> None:
    """What every plugin distribution looks like, whoever wrote it."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    ((name, module),) = project["project"]["entry-points"]["stillhouse.plugins"].items()
    package = module.removesuffix(".plugin")
    assert NAME.fullmatch(name)
    assert (package, project["project"]["name"]) == (Names(name).package, Names(name).distribution)
    assert project["build-system"]["build-backend"] == "hatchling.build"
    assert project["project"]["requires-python"] == ">=3.11"
    (core,) = [each for each in project["project"]["dependencies"] if Requirement(each).name == "stillhouse"]
    assert core.replace("[text]", "") == bounded_requirement()
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"src/{package}"]
    assert (
        canonicalize_name((folder / "README.md").read_text().partition("\n")[0].lstrip("# "))
        == Names(name).distribution
    )
    source = folder / "src" / package
    assert {"__init__.py", "plugin.py", "py.typed"} <= {each.name for each in source.iterdir()}
    hooks = runpy.run_path(str(source / "plugin.py"))
    specs = [spec for hook in HOOKS if hook in hooks for spec in hooks[hook]()]
    assert specs
    for spec in specs:  # each in a room of its own
        rooms = {"teachers", "students"} if spec.kind in ("teacher", "student") else {f"{spec.kind}s"}
        places = ["recipes/"] if spec.kind == "recipe" else [f"{package}.{room}" for room in rooms]
        place = spec.target.partition(":")[2 if spec.kind == "recipe" else 0]
        assert place.startswith(tuple(places)), spec.target


@pytest.mark.parametrize("folder", [*OURS, EXAMPLE], ids=lambda folder: folder.name)
def test_our_own_plugins_have_the_shape(folder: Path) -> None:
    check_shape(folder)
    assert len(OURS) == 4


@pytest.mark.parametrize("kinds", [DEFAULT_KINDS, KINDS, ("student",)], ids=len)
def test_what_is_written_has_the_shape(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    written = write_plugin(Names("court-cases"), tmp_path / "new", kinds)
    check_shape(tmp_path / "new")
    assert sorted(written) == sorted(
        each.relative_to(tmp_path / "new") for each in (tmp_path / "new").rglob("*") if each.is_file()
    )
    workflow = yaml.safe_load((tmp_path / "new/.github/workflows/tests.yml").read_text())
    assert "pytest" in [step.get("run") for step in workflow["jobs"]["tests"]["steps"]]
    assert "${{ matrix.python }}" in (tmp_path / "new/.github/workflows/tests.yml").read_text()
    assert 'stillhouse.testing.contract("court-cases")' in (tmp_path / "new/tests/test_contract.py").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone_keeps_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    name = f"only-{kind}"
    write_plugin(Names(name), tmp_path, [kind])
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    module = __import__(f"stillhouse_only_{kind}.plugin", fromlist=["plugin"])
    manager = Manager(installed=False)
    record = manager.add(name, module)
    checks = Plan(manager, record, quick=True).report().checks
    assert {each.outcome for each in checks} == {"passed"}
    assert [each.kind for each in manager.components_of(record)] == [kind]
    if kind == "recipe":
        from stillhouse.recipe import resolve

        assert resolve(f"{name}/example", manager.registry).recipe.seeds == [0, 1, 2]


def test_every_choice_of_kinds_is_python(tmp_path: Path) -> None:
    """Each kind with and without each other one, alone and among all."""
    sizes = (1, 2, len(KINDS) - 1, len(KINDS))
    choices = [choice for size in sizes for choice in itertools.combinations(KINDS, size)]
    for number, kinds in enumerate(choices):
        for path in write_plugin(Names("law"), tmp_path / str(number), kinds):
            text = (tmp_path / str(number) / path).read_text()
            assert "<<" not in text
            assert "<%" not in text
            if path.suffix == ".py":
                compile(text, str(path), "exec")
    assert len(choices) == len(set(choices)) > len(KINDS) ** 2 // 2


def test_tests_of_every_kind_are_green(distribution: Any) -> None:
    """What is written about components, run where the plugin is installed."""
    places = [str(distribution.source / "src"), str(distribution.folder / "site"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "STILLHOUSE_PLUGINS": "proof"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_components.py"],
        cwd=distribution.source,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


OTHERS = [name for name in TASKS if name != "multiclass"]


def require_packages_of(task: str) -> None:
    """Skip the test where the extra that a task's example is for is not installed."""
    if task == "text":
        pytest.importorskip("transformers")


def project(folder: Path) -> dict[str, Any]:
    """The table ``project`` of the folder's ``pyproject.toml``."""
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


def third_parties(source: Path) -> set[str]:
    """Packages that modules import, their own and Python's left out."""
    imported = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r"^(?:from|import) (\w+)", path.read_text(), flags=re.MULTILINE)
    }
    return {each for each in imported if each not in sys.stdlib_module_names and not each.startswith("stillhouse_")}


def test_every_choice_of_kinds_of_a_task_is_python(tmp_path: Path) -> None:
    choices = [list(each) for size in (1, 2, 5) for each in itertools.combinations(OF_EVERY_TASK, size)]
    for (number, kinds), task in itertools.product(enumerate(choices), ("binary", "forecast", "text")):
        folder = tmp_path / task / str(number)
        for path in write_plugin(Names("law"), folder, kinds, TASKS[task]):
            text = (folder / path).read_text()
            assert "<<" not in text
            assert "<%" not in text
            if path.suffix == ".py":
                compile(text, str(path), "exec")


@pytest.mark.parametrize("task", OTHERS)
def test_plugin_of_each_task_has_the_shape_and_keeps_the_contract(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_packages_of(task)
    name = f"task-{task}"
    write_plugin(Names(name), tmp_path, OF_EVERY_TASK, TASKS[task])
    check_shape(tmp_path)
    assert "Apache License" in (tmp_path / "LICENSE").read_text()
    needed = {Requirement(each).name for each in project(tmp_path)["dependencies"]}
    assert third_parties(tmp_path / "src") <= needed, "a package that is imported is required"
    assert "new" in (readme := (tmp_path / "README.md").read_text()) or "history" in readme
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    manager = Manager(installed=False)
    record = manager.add(name, importlib.import_module(f"stillhouse_task_{task}.plugin"))
    plan = Plan(manager, record)
    of_processes = ("light-import", "import-order", "unregister", "non-interference")
    found = [plan.run(each) for each in plan.ids if each not in of_processes]
    assert [(each.id, each.problem) for each in found if each.outcome != "passed"] == []
    assert len(found) > 30


@pytest.mark.parametrize("task", OTHERS)
def test_models_of_a_task_stand_alone(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a dataset of its own the recipe takes rows and models of the core."""
    require_packages_of(task)
    name = f"alone-{task}"
    write_plugin(Names(name), tmp_path, ["recipe"], TASKS[task])
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    manager = Manager(installed=False)
    manager.add(name, importlib.import_module(f"stillhouse_alone_{task}.plugin"))
    from stillhouse.recipe import resolve

    assert resolve(f"{name}/example", manager.registry).recipe.name == f"{name}-example"


def test_kinds_without_an_example_of_a_task_are_refused() -> None:
    with pytest.raises(StillhouseError, match="no task 'forcast'") as caught:
        check_task("forcast", ())
    assert caught.value.fix == "did you mean 'forecast'?"
    with pytest.raises(StillhouseError, match="'method' has no example for the task 'text'"):
        check_task("text", ("dataset", "method"))


def test_command_writes_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "")
    assert main(["plugins", "new", "demand", "--task", "forecast", "--json"]) == 0
    source = tmp_path / "stillhouse-demand/src/stillhouse_demand"
    assert {each.stem for each in source.glob("*.py")} == {
        "__init__",
        "datasets",
        "plugin",
        "readers",
        "students",
        "teachers",
    }
    assert main(["plugins", "new", "demands", "--task", "forecast", "--kind", "dataset,method"]) == 2


@pytest.mark.slow
def test_own_tests_and_types_of_each_task_are_green(tmp_path: Path) -> None:
    for task in TASKS:
        kinds = OF_EVERY_TASK if task != "multiclass" else KINDS
        write_plugin(Names(f"typed-{task}"), tmp_path / task, kinds, TASKS[task])
    sources = os.pathsep.join([*(str(tmp_path / task / "src") for task in TASKS), os.environ.get("PYTHONPATH", "")])
    packages = [argument for task in TASKS for argument in ("-p", f"stillhouse_typed_{task}")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", *packages],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": sources, "PYTHONPATH": sources},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    for task in OTHERS:
        files = os.pathsep.join([f"{tmp_path / task / 'src'}", os.environ.get("PYTHONPATH", "")])
        # As it would be installed: an entry point.
        info = tmp_path / task / "src" / f"stillhouse_typed_{task}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stillhouse-typed-{task}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(f"[stillhouse.plugins]\ntyped-{task} = stillhouse_typed_{task}.plugin\n")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_components.py"],
            cwd=tmp_path / task,
            env={**os.environ, "PYTHONPATH": files, "STILLHOUSE_PLUGINS": f"typed-{task}"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


BARE = Manager(installed=False)


@pytest.mark.parametrize(
    ("name", "what", "suggested"),
    [
        ("Law", "is not a plugin name", "'law'"),
        ("Law Court", "is not a plugin name", "'law-court'"),
        ("stillhouse-law", "is not a plugin name", "'law'"),
        ("9lives", "is not a plugin name", "'lives'"),
        ("law_", "is not a plugin name", "'law'"),
        ("", "is not a plugin name", "'my-domain'"),
        ("法", "is not a plugin name", "'my-domain'"),
        ("core", "is taken: it is the core's own", "'my-core'"),
        ("finance", "is taken: it is that of the project's own stillhouse-finance", "'my-finance'"),
        ("audio-vision", "is taken", "'my-audio-vision'"),
        ("Core", "is not a plugin name", "'my-core'"),
    ],
)
def test_bad_name_is_refused_with_one_that_is_free(name: str, what: str, suggested: str) -> None:
    with pytest.raises(StillhouseError) as caught:
        check_name(name, BARE)
    assert what in caught.value.what
    assert suggested in caught.value.fix


@given(st.text(max_size=30))
def test_name_is_taken_as_it_is_or_refused_with_one_that_will_do(name: str) -> None:
    try:
        assert check_name(name, BARE).plugin == name
    except StillhouseError as error:
        (suggested,) = re.findall(r"for example '([^']+)'", error.fix)
        assert check_name(suggested, BARE).package.isidentifier()


def test_name_of_an_installed_plugin_or_package_is_taken(distribution: object, monkeypatch: pytest.MonkeyPatch) -> None:
    manager, _ = distribution.load()  # type: ignore[attr-defined]
    with pytest.raises(StillhouseError, match=r"that of plugin 'proof' \(stillhouse-proof 0.1.0\)"):
        check_name("proof", manager)
    with pytest.raises(StillhouseError, match="'stillhouse_proof', which can be imported already"):
        check_name("proof", BARE)


def test_kinds_are_checked() -> None:
    assert check_kinds("head, dataset") == ("dataset", "head")
    with pytest.raises(StillhouseError, match="no component kind 'heads'") as caught:
        check_kinds("heads")
    assert caught.value.fix == "did you mean 'head'?"
    with pytest.raises(StillhouseError, match="no component kind is given"):
        check_kinds(" ,")


def test_command_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "")
    assert main(["plugins", "new", "court"]) == 0
    assert "pip install -e '.[test]'" in (shown := capsys.readouterr().out)
    assert "stillhouse run court/example" in shown
    assert (tmp_path / "stillhouse-court/src/stillhouse_court/plugin.py").exists()
    assert main(["plugins", "new", "court"]) == 2  # nothing is overwritten
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["plugins", "new", "court", "--output", "other", "--kind", "metric", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["plugin"], document["folder"]) == ("court", "other")
    assert sorted(document["files"]) == sorted(
        each.relative_to(tmp_path / "other").as_posix() for each in (tmp_path / "other").rglob("*") if each.is_file()
    )


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StillhouseError, match="is not an empty folder"):
        write_plugin(Names("court"), tmp_path / "file")
    with pytest.raises(StillhouseError, match="cannot be written"):
        write_plugin(Names("court"), tmp_path / "file" / "below")
