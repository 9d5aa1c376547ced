"""``--plugin FILE``: one file of hook implementations, for one command, and only when it is named."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stillhouse.cli import main
from stillhouse.errors import PluginError
from stillhouse.plugins import Manager, Status
from stillhouse.plugins.specs import DatasetSpec

CODE = '''
from stillhouse import hookimpl
from stillhouse.plugins.specs import DatasetSpec


@hookimpl
def stillhouse_datasets():
    yield DatasetSpec(name="rows", target="file_domain:rows", summary="Rows of one's own", tags=("mine",))


def rows(context, *, size: int = 8):
    """Rows.

    Args:
        context: from the framework.
        size: how many rows.
    """
    import file_domain_helper

    return file_domain_helper.VALUE * size
'''


@pytest.fixture(autouse=True)
def _forget_files() -> Iterator[None]:
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("file_domain")]:
        del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file_domain_helper.py").write_text("VALUE = 2\n")
    path = tmp_path / "file_domain.py"
    path.write_text(CODE)
    return path


def test_components_have_the_name_of_the_file(file: Path) -> None:
    manager = Manager(installed=False, files=[file])
    component = manager.registry.get("dataset", "file_domain/rows")
    assert component.load()(None, size=3) == 6  # a module beside the file can be imported, too
    (record,) = manager.plugin("file_domain")
    assert record.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record.location, record.distribution, record.source) == (str(file), "", str(file))


def test_only_the_command_that_names_the_file_has_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", "--json", "--plugin", str(file)]) == 0
    assert "file_domain/rows" in {each["id"] for each in json.loads(capsys.readouterr().out)["components"]}
    assert main(["components", "--json"]) == 0
    assert "file_domain/rows" not in {each["id"] for each in json.loads(capsys.readouterr().out)["components"]}


def test_named_file_is_loaded_whatever_the_allow_list_says(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--no-plugins", "components", "--tag", "mine", "--plugin", str(file)]) == 0
    assert "file_domain/rows" in capsys.readouterr().out


def test_target_resolves_in_a_spawned_process(file: Path) -> None:
    code = (
        "import multiprocessing, sys\n"
        "from stillhouse.plugins import Manager\n"
        "if __name__ == '__main__':\n"
        f"    load = Manager(installed=False, files=[{str(file)!r}]).registry.get('dataset', 'rows').load()\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(load, (None,), {'size': 4}))\n"
    )
    script = file.parent / "script.py"
    script.write_text(code)
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.strip() == "8", result.stderr


@pytest.mark.parametrize(
    ("name", "code", "status", "cause", "fix"),
    [
        (
            "file_domain.py",
            "raise ValueError('boom')",
            Status.BROKEN,
            "ValueError: boom at file_domain.py:1",
            "correct /",
        ),
        (
            "file_domain.py",
            "def stillhouse_dataset(): ...",
            Status.INVALID,
            "is not a hook",
            "stillhouse_datasets",
        ),
        (
            "file_domain.py",
            "import package_that_nobody_has",
            Status.BROKEN,
            "No module named 'package_that_nobody_has'",
            "brings the module 'package_that_nobody_has', or correct /",
        ),
        ("My Domain.py", "", Status.INVALID, "cannot name a plugin", "my_domain.py"),
        ("domain.txt", "", Status.INVALID, "cannot name a plugin", "my_domain.py"),
        ("core.py", "", Status.CONFLICT, "the name 'core' is taken", "rename the file"),
        ("json.py", "", Status.INVALID, "has the name of another module", "rename the file"),
        ("missing.py", None, Status.BROKEN, "cannot be read", "give the path"),
    ],
)
def test_file_that_cannot_be_used(
    tmp_path: Path, name: str, code: str | None, status: Status, cause: str, fix: str
) -> None:
    path = tmp_path / name
    if code is not None:
        path.write_text(code)
    manager = Manager(installed=False, files=[path])
    (record,) = [each for each in manager.records if each.location == str(path)]
    assert record.status is status
    assert cause in record.error
    assert fix in record.fix
    with pytest.raises(PluginError) as caught:
        manager.require_requested()
    assert str(path) in caught.value.what
    assert [each.plugin.name for each in manager.registry.components()] == ["core"] * len(manager.registry.components())


def test_broken_file_stops_the_command_but_not_the_plugins_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file_domain.py"
    path.write_text("import package_that_nobody_has\n")
    assert main(["components", "--plugin", str(path)]) == 2
    assert "package_that_nobody_has" in capsys.readouterr().err
    assert main(["plugins", "list", "--json", "--plugin", str(path)]) == 0
    records = {each["name"]: each["status"] for each in json.loads(capsys.readouterr().out)["plugins"]}
    assert records["file_domain"] == "broken"


def test_check_takes_a_path(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "check", str(file), "--quick", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["plugins"]
    assert (report["name"], report["passed"]) == ("file_domain", True)
    assert [each["id"] for each in report["checks"]] == [
        "loads",
        "components",
        "hooks",
        "spec[dataset:file_domain/rows]",
        "target[dataset:file_domain/rows]",
        "shape[dataset:file_domain/rows]",
        "options[dataset:file_domain/rows]",
    ]


def test_check_takes_the_source_folder_of_an_editable_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "stillhouse-file"
    source.mkdir()
    site = tmp_path / "site"
    info = site / "stillhouse_file-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: stillhouse-file\nVersion: 1.0\nRequires-Dist: stillhouse>=0.1,<0.2\n"
    )
    (info / "entry_points.txt").write_text("[stillhouse.plugins]\nfiled = file_domain\n")
    (info / "direct_url.json").write_text(json.dumps({"url": source.as_uri(), "dir_info": {"editable": True}}))
    (source / "file_domain.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(source))
    assert main(["plugins", "check", str(source), "--quick", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["plugins"]
    assert (report["name"], report["distribution"], report["passed"]) == ("filed", "stillhouse-file", True)
    assert main(["plugins", "check", str(tmp_path / "site")]) == 2
    assert "no plugin is installed from" in capsys.readouterr().err


BAD_TARGETS = [
    ("target", "other = 1", "has no 'rows'"),
    ("shape", "rows = 3", "is a int, not a class or function"),
    ("shape", "def rows(): ...", "0 positional parameters, and a dataset is given 1"),
    ("shape", "def rows(context, size=1): ...", "2 positional parameters"),
    ("shape", "def rows(context, **options): ...", "takes **keywords"),
    ("options", "def rows(context, *, size=1): ...", "option 'size' of 'file_domain:rows' has no type"),
    ("options", "def rows(context, *, size: int = 1): ...", "has no help"),
    (
        "options",
        'def rows(context, *, size: object() = 1):\n    """Rows.\n\n    Args:\n        size: a.\n    """',
        "",
    ),
]


@pytest.mark.parametrize(("check", "target", "problem"), BAD_TARGETS)
def test_each_check_fails_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], check: str, target: str, problem: str
) -> None:
    path = tmp_path / "file_domain.py"
    path.write_text(CODE.partition("def rows")[0] + target + "\n")
    assert main(["plugins", "check", str(path), "--quick", "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)["plugins"]
    failed = [each for each in report["checks"] if each["outcome"] == "failed"]
    assert [each["id"] for each in failed] == [f"{check}[dataset:file_domain/rows]"]
    assert problem in failed[0]["problem"]
    assert failed[0]["fix"]


def test_optional_package_that_is_missing_is_skipped_not_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file_domain.py"
    path.write_text(CODE.replace("tags=", "requires=('package_that_nobody_has',), tags="))
    assert main(["plugins", "check", str(path), "--quick", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["plugins"]
    skipped = {each["id"]: each["problem"] for each in report["checks"] if each["outcome"] == "skipped"}
    assert "package_that_nobody_has" in skipped["target[dataset:file_domain/rows]"]
    assert set(skipped) == {f"{check}[dataset:file_domain/rows]" for check in ("target", "shape", "options")}


def test_undeclared_package_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file_domain.py"
    path.write_text(CODE.replace("file_domain:rows", "file_domain_lazy:rows"))
    (tmp_path / "file_domain_lazy.py").write_text("import package_that_nobody_has\n")
    assert main(["plugins", "check", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "needs the package 'package_that_nobody_has'" in shown
    assert "add it to the distribution's dependencies" in shown


@pytest.mark.parametrize(
    ("text", "problem"), [("a: [", "is not YAML"), ("- a\n", "is not a mapping"), (None, "has no file")]
)
def test_recipe_of_a_plugin_must_be_a_yaml_mapping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, problem: str
) -> None:
    package = tmp_path / "file_domain_recipes"
    package.mkdir()
    (package / "__init__.py").write_text("")
    if text is not None:
        (package / "one.yaml").write_text(text)
    path = tmp_path / "file_domain.py"
    path.write_text(
        "from stillhouse import hookimpl\nfrom stillhouse.plugins.specs import RecipeSpec\n\n@hookimpl\n"
        "def stillhouse_recipes():\n"
        "    return [RecipeSpec(name='one', target='file_domain_recipes:one.yaml', summary='One')]\n"
    )
    assert main(["plugins", "check", str(path), "--quick"]) == 1
    assert problem in capsys.readouterr().out


def test_spec_written_in_a_file_fails_at_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "file_domain.py"
    path.write_text(CODE.replace('name="rows"', 'name="Rows!"'))
    (record,) = Manager(installed=False, files=[path]).plugin("file_domain")
    assert record.status is Status.INVALID
    assert "at file_domain.py:8" in record.error
    assert DatasetSpec.kind == "dataset"
