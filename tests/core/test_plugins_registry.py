"""Components by id: what is found, what is refused with which hint, and how targets are loaded."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import stillhouse
from stillhouse import hookimpl
from stillhouse.errors import (
    AmbiguousComponentError,
    MissingDependencyError,
    PluginError,
    SpecError,
    UnknownComponentError,
)
from stillhouse.plugins import Manager, Status, using
from stillhouse.plugins.component_kinds import KINDS
from stillhouse.plugins.hookspecs import HOOKS
from stillhouse.plugins.specs import DatasetSpec, StudentSpec, TeacherSpec


def plugin(**hooks: Any) -> SimpleNamespace:
    """An object with one hook implementation per keyword, e.g. ``datasets=[DatasetSpec(...)]``."""
    made = SimpleNamespace()
    for kind, specs in hooks.items():
        implementation = _closed(specs)
        implementation.__name__ = f"stillhouse_{kind}"
        setattr(made, f"stillhouse_{kind}", hookimpl(implementation))
    return made


def _closed(specs: Any) -> Any:
    def implementation() -> Any:
        return specs

    return implementation


def dataset(name: str, **fields: Any) -> DatasetSpec:
    return DatasetSpec(**({"name": name, "target": "law_targets:rows", "summary": "Rows"} | fields))


@pytest.fixture
def law_targets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("law_targets")
    module.rows = lambda context: "rows"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "law_targets", module)
    return module


def test_full_and_bare_names_find_the_same_component() -> None:
    with using(plugin(datasets=[dataset("cases")]), name="law") as manager:
        by_id = manager.registry.get("dataset", "law/cases")
        assert manager.registry.get("dataset", "cases") is by_id
        assert (by_id.id, by_id.kind, by_id.plugin.name) == ("law/cases", "dataset", "law")


def test_bare_name_of_several_plugins_is_ambiguous() -> None:
    with using(plugin(datasets=[dataset("synthetic")]), name="law") as manager:
        with pytest.raises(AmbiguousComponentError) as caught:
            manager.registry.get("dataset", "synthetic")
        assert "core/synthetic, law/synthetic" in caught.value.fix
        assert manager.registry.get("dataset", "law/synthetic").plugin.name == "law"


def test_first_kind_wins_and_find_gives_all() -> None:
    specs = {
        "teachers": [TeacherSpec(name="net", target="law_targets:rows", summary="Large")],
        "students": [StudentSpec(name="net", target="law_targets:rows", summary="Small")],
    }
    with using(plugin(**specs), name="law") as manager:
        assert manager.registry.get(("teacher", "student"), "law/net").kind == "teacher"
        assert manager.registry.get(("student", "teacher"), "net").kind == "student"
        assert [each.kind for each in manager.registry.find("net")] == ["student", "teacher"]
        (record,) = manager.plugin("law")
        assert record.components == ("law/net",)


@pytest.mark.parametrize(
    ("kind", "name", "what", "fix"),
    [
        (
            "objective",
            "core/soft-target",
            "no objective 'core/soft-target'",
            "did you mean 'core/soft-targets'?",
        ),
        ("objective", "soft-target", "no objective 'soft-target'", "did you mean 'core/soft-targets'?"),
        ("dataset", "core/mlp", "'core/mlp' is a", ""),
        ("dataset", "law/text-cases", "no dataset 'law/text-cases'", "did you mean 'law/cases'?"),
        ("dataset", "law/synthetic", "no dataset 'law/synthetic'", "did you mean 'core/synthetic'?"),
        ("dataset", "law/x", "no dataset 'law/x'", "stillhouse components --kind dataset"),
        ("dataset", "laww/cases", "no plugin 'laww' is installed", "did you mean 'law/cases'?"),
        ("dataset", "biology/cells", "plugin 'biology' is not installed", "pip install stillhouse-biology"),
        ("dataset", "earth_science/rain", "is not installed", "pip install stillhouse-earth-science"),
        ("objective", "zzzzzz", "no objective 'zzzzzz'", "stillhouse components --kind objective"),
    ],
)
def test_unknown_names_have_the_right_hint(kind: str, name: str, what: str, fix: str) -> None:
    with using(plugin(datasets=[dataset("cases")]), name="law") as manager:
        with pytest.raises(UnknownComponentError) as caught:
            manager.registry.get(kind, name)
        assert what in caught.value.what
        assert fix in caught.value.fix


def test_component_of_an_invalid_plugin_says_why() -> None:
    manager = Manager(installed=False)
    manager.add("law", plugin(nonsense=[]))
    with pytest.raises(UnknownComponentError) as caught:
        manager.registry.get("dataset", "law/cases")
    assert "installed but invalid: 'stillhouse_nonsense' is not a hook" in caught.value.what


def test_load_returns_the_target(law_targets: ModuleType) -> None:
    with using(plugin(datasets=[dataset("cases")]), name="law") as manager:
        assert manager.registry.get("dataset", "cases").load() is law_targets.rows


def test_missing_package_names_the_extra_of_the_real_distribution() -> None:
    manager = Manager(installed=False)
    spec = dataset("cases", requires=("package_that_nobody_has",), extra="pdf")
    manager.add("law", plugin(datasets=[spec]), distribution="stillhouse-law", version="2.0")
    with pytest.raises(MissingDependencyError) as caught:
        manager.registry.get("dataset", "cases").load()
    assert "package_that_nobody_has" in caught.value.what
    assert caught.value.fix == "pip install 'stillhouse-law[pdf]'"
    assert "plugin 'law' (stillhouse-law 2.0)" in caught.value.where


@pytest.mark.parametrize(
    ("target", "code", "error", "what"),
    [
        ("law_bad:gone", "", SpecError, "has no 'gone'"),
        ("law_nowhere:gone", "", SpecError, "there is no module 'law_nowhere'"),
        ("law_bad:rows", "import package_that_nobody_has", MissingDependencyError, "package_that_nobody_has"),
        ("law_bad:rows", "1 / 0", PluginError, "ZeroDivisionError"),
        ("law_bad:rows", "raise SystemExit(2)", PluginError, "SystemExit: 2"),
    ],
)
def test_failure_of_a_target_names_plugin_and_distribution(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    code: str,
    error: type[Exception],
    what: str,
) -> None:
    (tmp_path / "law_bad.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "law_bad", raising=False)
    manager = Manager(installed=False)
    manager.add("law", plugin(datasets=[dataset("cases", target=target)]), distribution="stillhouse-law", version="2")
    with pytest.raises(error) as caught:
        manager.registry.get("dataset", "cases").load()
    sys.modules.pop("law_bad", None)
    assert what in caught.value.what  # type: ignore[attr-defined]
    assert "plugin 'law' (stillhouse-law 2)" in caught.value.where  # type: ignore[attr-defined]


def test_deprecated_component_warns_when_loaded(law_targets: ModuleType) -> None:
    specs = [dataset("old", deprecated="law/cases"), dataset("cases")]
    with using(plugin(datasets=specs), name="law") as manager:
        with pytest.warns(FutureWarning, match=r"'law/old' of plugin 'law' .* is deprecated: write law/cases instead"):
            manager.registry.get("dataset", "old").load()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert manager.registry.get("dataset", "cases").load() is law_targets.rows


def test_using_is_isolated_and_refuses_a_bad_plugin() -> None:
    with using(plugin(datasets=[dataset("cases")]), name="law") as manager:
        assert {each.plugin.name for each in manager.registry.components()} == {"core", "law"}
    assert {each.plugin.name for each in manager.registry.components()} == {"core"}
    with pytest.raises(PluginError, match="plugin 'law' is invalid"), using(plugin(dataset=[]), name="law"):
        pass


def test_second_plugin_of_a_name_is_a_conflict_and_the_first_stays() -> None:
    with using(plugin(datasets=[dataset("cases")]), name="law") as manager:
        second = manager.add("law", plugin(datasets=[dataset("other")]))
        assert second.status is Status.CONFLICT
        found = [each.id for each in manager.registry.components("dataset")]
        assert [name for name in found if name.startswith("law/")] == ["law/cases"]


def test_core_comes_through_the_same_door() -> None:
    manager = Manager(installed=False)
    (core,) = manager.records
    assert (core.name, core.distribution, core.version) == ("core", "stillhouse", stillhouse.__version__)
    assert {each.kind for each in manager.registry.components()} == set(KINDS)


def test_every_kind_has_a_hook() -> None:
    assert set(HOOKS.values()) == {kind.spec for kind in KINDS.values()}


@pytest.mark.parametrize("hook", list(HOOKS))
def test_every_hook_brings_its_kind(hook: str) -> None:
    """stillhouse_datasets, stillhouse_teachers, stillhouse_students, stillhouse_heads, stillhouse_objectives,
    stillhouse_methods, stillhouse_metrics, stillhouse_recipes."""
    spec_type = HOOKS[hook]
    extra: dict[str, Any] = {
        "head": {"output": "regression", "primary": "rmse", "higher_is_better": False},
        "metric": {"higher_is_better": True},
        "recipe": {"target": "law:recipes/one.yaml"},
    }.get(spec_type.kind, {})  # type: ignore[attr-defined]
    spec = spec_type(**({"name": "one", "target": "law_targets:rows", "summary": "One"} | extra))
    with using(plugin(**{hook.removeprefix("stillhouse_"): [spec]}), name="law") as manager:
        found = manager.registry.get(spec.kind, "law/one")
        assert found.spec is spec


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Upper"},
        {"name": "a b"},
        {"name": ""},
        {"target": "no_colon"},
        {"target": "a:b()"},
        {"summary": ""},
        {"summary": "two\nlines"},
        {"tags": "word"},
        {"kinds": ("nonsense",)},
        {"reader": "nowhere"},
    ],
    ids=str,
)
def test_malformed_spec_raises_where_it_is_made(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        dataset(**({"name": "cases"} | fields))
    assert caught.value.fix


def test_lists_in_a_spec_are_frozen_and_it_is_json_ready() -> None:
    spec = dataset("cases", tags=["a", "b"], kinds=["binary"])
    assert spec.tags == ("a", "b")
    assert spec.describe()["kinds"] == ["binary"]
