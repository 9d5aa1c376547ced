"""The contract on distributions as a user meets them: installed into a folder on the path, good and bad."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

import stillhouse
from stillhouse.cli import main
from stillhouse.errors import PluginError, UnknownComponentError
from stillhouse.plugins import Manager, PluginRecord, Status, default_manager

PREAMBLE = """
from stillhouse import hookimpl
from stillhouse.plugins.specs import DatasetSpec, MetricSpec, RecipeSpec
"""
GOOD = """
@hookimpl
def stillhouse_datasets():
    yield DatasetSpec(name="cases", target="{module}:cases", summary="Cases for the tests", tags=("text",))

@hookimpl
def stillhouse_recipes():
    return [RecipeSpec(name="first", target="{module}:first.yaml", summary="A first run")]

def cases(context, *, size: int = 8, mode: str = "short"):
    '''Cases.

    Args:
        context: from the framework.
        size: how many rows.
        mode: which of the texts.
    '''
"""


@dataclass
class Site:
    """A folder to install into."""

    folder: Path

    def install(
        self,
        name: str,
        code: str,
        *,
        distribution: str = "",
        requires: tuple[str, ...] = ("stillhouse>=0.1",),
        value: str = "",
        files: dict[str, str] | None = None,
    ) -> str:
        """Install a distribution with one plugin, and return the name of the plugin's module."""
        distribution = distribution or f"stillhouse-{name}"
        module = f"site_{distribution}_plugin".replace("-", "_")
        (self.folder / f"{module}.py").write_text(PREAMBLE + dedent(code).replace("{module}", module))
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", "Version: 1.2"]
        (info / "METADATA").write_text("\n".join(lines + [f"Requires-Dist: {each}" for each in requires]) + "\n")
        (info / "entry_points.txt").write_text(f"[stillhouse.plugins]\n{name} = {value or module}\n")
        (info / "RECORD").write_text(f"{module}.py,,\n{info.name}/METADATA,,\n{info.name}/entry_points.txt,,\n")
        for file, text in (files or {}).items():
            (info / file).write_text(text)
        return module

    def manager(self, **options: object) -> Manager:
        return Manager(path=[str(self.folder)], **options)  # type: ignore[arg-type]

    def record(self, name: str, **options: object) -> PluginRecord:
        (found,) = self.manager(**options).plugin(name)
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield Site(folder)
    for name in [name for name in sys.modules if name.startswith("site_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good plugin among every kind of bad one, with the folder that they are installed in."""
    folder = tmp_path_factory.mktemp("crowd")
    site = Site(folder)
    site.install("good", GOOD)
    site.install("missing", "import package_that_nobody_has\n")
    site.install("exits", "import sys\nsys.exit(3)\n")
    site.install(
        "future",
        "raise RuntimeError('imported in spite of its requirement')\n",
        requires=("stillhouse>=99,<100",),
    )
    site.install("misspelt", "@hookimpl\ndef stillhouse_dataset():\n    return []\n")
    site.install("wrongitem", "@hookimpl\ndef stillhouse_datasets():\n    return ['cases']\n")
    site.install(
        "halfway",
        """
        @hookimpl
        def stillhouse_datasets():
            yield DatasetSpec(name="early", target="a:b", summary="Given before the failure")
            raise RuntimeError("the second half is missing")
        """,
    )
    site.install("twin", GOOD, distribution="stillhouse-twin-a")
    site.install("twin", GOOD, distribution="stillhouse-twin-b")
    marker = folder / "slow-was-imported"
    site.install("slow", f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(2)\n")
    return folder


def run(folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with ``folder`` on the path."""
    paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return subprocess.run(
        [sys.executable, "-m", "stillhouse", *args],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | environment,
        timeout=60,
        check=False,
    )


EXPECTED = [
    ("good", "active", "stillhouse-good", "", ""),
    ("missing", "broken", "stillhouse-missing", "package_that_nobody_has", "install what brings"),
    ("exits", "broken", "stillhouse-exits", "SystemExit: 3", "stillhouse-exits"),
    ("future", "incompatible", "stillhouse-future", "<100,>=99", "pip install --upgrade stillhouse-future"),
    (
        "misspelt",
        "invalid",
        "stillhouse-misspelt",
        "'stillhouse_dataset' is not a hook",
        "'stillhouse_datasets'",
    ),
    ("wrongitem", "invalid", "stillhouse-wrongitem", "str 'cases' as item 0", "DatasetSpec(...)"),
    ("halfway", "broken", "stillhouse-halfway", "the second half is missing", "stillhouse-halfway"),
    ("slow", "disabled", "stillhouse-slow", "--disable-plugin slow", "leave out"),
]


@pytest.fixture(scope="module")
def listed(crowd: Path) -> dict[str, list[dict[str, object]]]:
    """``plugins list --json`` of the crowd, by plugin name."""
    result = run(crowd, "plugins", "list", "--json", "--disable-plugin", "slow")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    by_name: dict[str, list[dict[str, object]]] = {}
    for each in document["plugins"]:
        by_name.setdefault(each["name"], []).append(each)
    return by_name


@pytest.mark.parametrize(("name", "status", "distribution", "cause", "fix"), EXPECTED, ids=[e[0] for e in EXPECTED])
def test_each_plugin_of_a_crowd_has_its_status_cause_and_fix(
    listed: dict[str, list[dict[str, object]]],
    name: str,
    status: str,
    distribution: str,
    cause: str,
    fix: str,
) -> None:
    (record,) = listed[name]
    assert (record["status"], record["distribution"], record["version"]) == (status, distribution, "1.2")
    assert cause in str(record["error"])
    assert fix in str(record["fix"])
    assert bool(record["error"]) == bool(record["fix"]) == (status != "active")


def test_list_has_the_promised_fields(listed: dict[str, list[dict[str, object]]], crowd: Path) -> None:
    (record,) = listed["good"]
    assert set(record) == {
        "name",
        "distribution",
        "version",
        "location",
        "editable",
        "status",
        "error",
        "fix",
        "components",
        "load_ms",
    }
    assert record["location"] == str(crowd)
    assert record["editable"] is False
    assert record["components"] == ["good/cases", "good/first"]
    assert isinstance(record["load_ms"], float)
    assert next(iter(listed)) == "core"


def test_two_distributions_with_one_name_are_both_in_conflict(
    listed: dict[str, list[dict[str, object]]],
) -> None:
    twins = listed["twin"]
    assert [each["distribution"] for each in twins] == ["stillhouse-twin-a", "stillhouse-twin-b"]
    for each in twins:
        assert each["status"] == "conflict"
        assert "stillhouse-twin-a 1.2 and stillhouse-twin-b 1.2" in str(each["error"])
        assert "pip uninstall stillhouse-twin-a or pip uninstall stillhouse-twin-b" in str(each["fix"])
        assert each["components"] == []
        assert each["load_ms"] is None


def test_what_is_not_active_is_not_imported(listed: dict[str, list[dict[str, object]]], crowd: Path) -> None:
    assert listed["slow"][0]["load_ms"] is None
    assert not (crowd / "slow-was-imported").exists()
    assert "imported in spite" not in str(listed["future"])


@pytest.mark.parametrize(
    "args",
    [
        ("plugins", "list"),
        ("plugins", "show", "misspelt"),
        ("plugins", "show", "twin"),
        ("components",),
        ("components", "--kind", "dataset"),
        ("recipes",),
        ("show", "good/cases"),
        ("--help",),
    ],
    ids=" ".join,
)
def test_every_command_works_among_broken_plugins(crowd: Path, args: tuple[str, ...]) -> None:
    result = run(crowd, *args, "--disable-plugin", "slow")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    if args[0] in ("components", "recipes", "show"):
        assert "good/" in result.stdout
        assert "halfway/" not in result.stdout  # what the generator gave before it raised


def test_check_says_what_is_wrong_with_each_plugin(crowd: Path) -> None:
    result = run(crowd, "plugins", "check", "--quick", "--json", "--disable-plugin", "slow")
    assert result.returncode == 1
    reports = {each["name"]: each for each in json.loads(result.stdout)["plugins"]}
    for name, status, distribution, cause, fix in EXPECTED:
        if status not in ("active", "disabled"):
            (loads,) = reports[name]["checks"]
            assert reports[name]["distribution"] == distribution
            assert (loads["id"], loads["outcome"]) == ("loads", "failed")
            assert cause in loads["problem"]
            assert fix in loads["fix"]


def test_strict_refuses_every_command_but_the_plugins_ones(crowd: Path) -> None:
    refused = run(crowd, "components", "--disable-plugin", "slow", STILLHOUSE_STRICT_PLUGINS="1")
    assert refused.returncode == 2
    assert refused.stdout == ""
    for name, status, distribution, cause, _ in EXPECTED:
        if status not in ("active", "disabled"):
            assert f"{name} ({distribution} 1.2) is {status}" in refused.stderr
            assert cause in refused.stderr
    listed = run(crowd, "plugins", "list", "--disable-plugin", "slow", STILLHOUSE_STRICT_PLUGINS="1")
    assert listed.returncode == 0
    allowed = run(crowd, "components", STILLHOUSE_STRICT_PLUGINS="1", STILLHOUSE_PLUGINS="good")
    assert allowed.returncode == 0, allowed.stderr


@pytest.mark.parametrize(
    ("environment", "args", "active"),
    [
        ({"STILLHOUSE_PLUGINS": "good"}, (), {"core", "good"}),
        ({"STILLHOUSE_PLUGINS": ""}, (), {"core"}),
        ({}, ("--no-plugins",), {"core"}),
        ({"STILLHOUSE_PLUGINS": "good"}, ("--disable-plugin", "good"), {"core"}),
    ],
)
def test_allow_list_and_switches(
    crowd: Path, environment: dict[str, str], args: tuple[str, ...], active: set[str]
) -> None:
    result = run(crowd, "plugins", "list", "--json", *args, **environment)
    records = json.loads(result.stdout)["plugins"]
    assert {each["name"] for each in records if each["status"] == "active"} == active
    assert not (crowd / "slow-was-imported").exists()


def test_unknown_names_in_switches_are_said(crowd: Path) -> None:
    result = run(crowd, "plugins", "list", "--disable-plugin", "god", STILLHOUSE_PLUGINS="good,lw")
    assert "--disable-plugin names 'god', which is not installed, did you mean 'good'?" in result.stderr
    assert "STILLHOUSE_PLUGINS names 'lw', which is not installed" in result.stderr


# One bad thing at a time, in this process.

HOOK = "@hookimpl\ndef stillhouse_datasets"
CASE = "DatasetSpec(name='a', target='a:b', summary='A')"
INVALID: list[tuple[str, str, str, str]] = [
    (
        "argument",
        f"{HOOK}(config):\n    return []\n",
        "has parameters",
        "no arguments",
    ),
    (
        "wrapper",
        "@hookimpl(wrapper=True)\ndef stillhouse_datasets():\n    return (yield)\n",
        "wrapper",
        "@hookimpl",
    ),
    (
        "order",
        "@hookimpl(tryfirst=True)\ndef stillhouse_datasets():\n    return []\n",
        "tryfirst",
        "@hookimpl",
    ),
    (
        "renamed",
        "@hookimpl(specname='stillhouse_heads')\ndef stillhouse_datasets():\n    return []\n",
        "specname",
        "",
    ),
    ("unmarked", "def stillhouse_datasets():\n    return []\n", "not marked", "put @hookimpl above"),
    (
        "unmarked-misspelt",
        "def stillhouse_recipies():\n    return []\n",
        "not a hook",
        "'stillhouse_recipes'",
    ),
    (
        "prefixless",
        "@hookimpl\ndef datasets():\n    return []\n",
        "'datasets' is not a hook",
        "'stillhouse_datasets'",
    ),
    (
        "asynchronous",
        "@hookimpl\nasync def stillhouse_datasets():\n    return []\n",
        "async",
        "def stillhouse_datasets",
    ),
    (
        "nothing",
        "@hookimpl\ndef stillhouse_datasets():\n    pass\n",
        "returned None",
        "return [DatasetSpec(...)]",
    ),
    (
        "single",
        f"{HOOK}():\n    return {CASE}\n",
        "not an iterable of DatasetSpec",
        "return [DatasetSpec(...)]",
    ),
    (
        "misplaced",
        f"@hookimpl\ndef stillhouse_metrics():\n    return [{CASE}]\n",
        "not a MetricSpec",
        "give it from 'stillhouse_datasets'",
    ),
    (
        "repeated",
        f"{HOOK}():\n    return [{CASE}] * 2\n",
        "two components of kind dataset are called 'a'",
        "name of its own",
    ),
    (
        "badspec",
        f"{HOOK}():\n    return [{CASE}]\n".replace("name='a'", "name='A B'"),
        "'A B' is not a component name",
        "lower-case",
    ),
]


@pytest.mark.parametrize(("case", "code", "cause", "fix"), INVALID, ids=[each[0] for each in INVALID])
def test_what_breaks_the_contract_is_invalid(
    site: Site, capsys: pytest.CaptureFixture[str], case: str, code: str, cause: str, fix: str
) -> None:
    site.install("bad", code)
    manager = site.manager()
    (record,) = manager.plugin("bad")
    assert record.status is Status.INVALID
    assert cause in record.error
    assert fix in record.fix
    assert manager.components_of(record) == []
    assert main(["plugins", "check", "bad"]) == 1  # the same, with who brings it, for whoever asks for a check
    shown = capsys.readouterr().out
    assert "bad  stillhouse-bad 1.2" in shown
    assert "FAILED  loads: invalid: " in shown
    assert record.error in shown
    assert record.fix in shown


def test_failure_names_the_line_of_the_plugin(site: Site) -> None:
    module = site.install("bad", "\n\nraise ValueError('boom')\n")
    assert f"ValueError: boom at {module}.py:6" in site.record("bad").error


def test_failed_plugin_leaves_nothing_behind(site: Site) -> None:
    site.install(
        "half",
        """
        @hookimpl
        def stillhouse_datasets():
            return [DatasetSpec(name="whole", target="a:b", summary="From a hook that works")]

        @hookimpl
        def stillhouse_metrics():
            raise KeyError("later hook")
        """,
    )
    manager = site.manager()
    assert manager.plugin("half")[0].status is Status.BROKEN
    assert not [each for each in manager.registry.components() if each.plugin.name != "core"]
    # Its name is free: a sound module may take it.
    assert manager.add("half", _Empty()).status is Status.ACTIVE


class _Empty:
    """A plugin without hooks."""


def test_keyboard_interrupt_passes(site: Site) -> None:
    site.install("stop", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        site.manager()


def test_names_that_no_plugin_may_have(site: Site) -> None:
    site.install("core", GOOD, distribution="stillhouse-impostor")
    site.install("Law Court", GOOD, distribution="stillhouse-law")
    records = {each.distribution: each for each in site.manager().records}
    assert records["stillhouse"].status is Status.ACTIVE
    assert records["stillhouse-impostor"].status is Status.INVALID
    assert "reserved" in records["stillhouse-impostor"].error
    assert records["stillhouse-law"].status is Status.INVALID
    assert "'Law Court' is not a plugin name" in records["stillhouse-law"].error


def test_missing_requirement_on_the_core_is_a_warning(site: Site) -> None:
    site.install("loose", GOOD, requires=("numpy",))
    record = site.record("loose")
    assert record.status is Status.ACTIVE
    assert "does not say which versions of stillhouse" in record.warnings[0]


def test_requirement_counts_only_where_its_marker_holds(site: Site) -> None:
    site.install("marked", GOOD, requires=("stillhouse>=0.1", "stillhouse>=99; python_version < '3'"))
    site.install("extra", GOOD, requires=("Stillhouse>=0.1", "stillhouse[onnx]>=99; extra == 'onnx'"))
    assert site.record("marked").status is Status.ACTIVE
    assert site.record("extra").status is Status.ACTIVE


def test_prerelease_of_the_core_satisfies_its_range(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stillhouse, "__version__", "0.1.1rc1")
    site.install("early", GOOD, requires=("stillhouse>=0.1,<0.2",))
    assert site.record("early").status is Status.ACTIVE


def test_editable_install_is_located_at_its_source(site: Site, tmp_path: Path) -> None:
    direct = {"url": (tmp_path / "my source").as_uri(), "dir_info": {"editable": True}}
    site.install("edited", GOOD, files={"direct_url.json": json.dumps(direct)})
    record = site.record("edited")
    assert record.editable
    assert record.location == str(tmp_path / "my source")


def test_malformed_metadata_do_not_hide_other_plugins(site: Site) -> None:
    site.install("garbled", GOOD, files={"entry_points.txt": "[stillhouse.plugins\nno equals sign", "METADATA": "\x00"})
    site.install("odd", GOOD, files={"direct_url.json": "{not json"})
    site.install("good", GOOD)
    statuses = {each.name: each.status for each in site.manager().records}
    assert statuses["good"] is Status.ACTIVE
    assert statuses["odd"] is Status.ACTIVE


@pytest.mark.parametrize(
    ("value", "cause"),
    [("no_such_module_here", "'no_such_module_here', and there is none"), ("{module}:gone", "gone")],
)
def test_entry_point_to_nothing_is_broken(site: Site, value: str, cause: str) -> None:
    module = "site_stillhouse_void_plugin"
    site.install("void", GOOD, value=value.format(module=module))
    record = site.record("void")
    assert record.status is Status.BROKEN
    assert cause in record.error


def test_first_copy_of_a_distribution_counts(site: Site, tmp_path: Path) -> None:
    site.install("twice", GOOD)
    other = Site(tmp_path / "other")
    other.folder.mkdir()
    other.install("twice", "raise RuntimeError('the second copy')\n")
    (record,) = Manager(path=[str(site.folder), str(other.folder)]).plugin("twice")
    assert (record.status, record.location) == (Status.ACTIVE, str(site.folder))


def test_printing_at_import_does_not_spoil_json(site: Site) -> None:
    site.install("chatty", "print('hello from the plugin')\n" + GOOD)
    result = run(site.folder, "plugins", "list", "--json")
    assert "chatty" in {each["name"] for each in json.loads(result.stdout)["plugins"]}
    assert "hello from the plugin" in result.stderr


def test_component_of_a_plugin_that_cannot_be_used_says_why(site: Site) -> None:
    site.install("law", "import package_that_nobody_has\n")
    with pytest.raises(UnknownComponentError) as caught:
        site.manager().registry.get("dataset", "law/cases")
    assert "plugin 'law' is installed but broken" in caught.value.what
    assert "package_that_nobody_has" in caught.value.what
    assert "stillhouse-law 1.2" in caught.value.where
    assert "install what brings" in caught.value.fix


def test_python_api_heeds_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("bad", "raise ValueError\n")
    try:
        default_manager.cache_clear()
        monkeypatch.setenv("STILLHOUSE_PLUGINS", "bad")
        assert default_manager() is default_manager()
        assert default_manager().plugin("bad")[0].status is Status.BROKEN
        default_manager.cache_clear()
        monkeypatch.setenv("STILLHOUSE_STRICT_PLUGINS", "1")
        with pytest.raises(PluginError, match="bad"):
            default_manager()
    finally:
        default_manager.cache_clear()


def test_strict_without_a_fault_passes(site: Site) -> None:
    site.install("good", GOOD)
    site.manager(disable=["good"]).require_all()
    site.install("bad", "raise ValueError\n")
    with pytest.raises(PluginError, match=r"bad \(stillhouse-bad 1\.2\) is broken"):
        site.manager().require_all()


LIGHT: list[tuple[str, ...]] = [
    ("--help",),
    ("plugins", "list"),
    ("components",),
    ("recipes",),
    ("--version",),
]


@pytest.mark.parametrize("args", LIGHT, ids=" ".join)
def test_commands_import_nothing_heavy(args: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom stillhouse.cli import main\n"
        f"status = main({list(args)!r})\n"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy or status else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout
