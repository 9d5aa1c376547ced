"""What is deprecated still works, and says who brings it and what to write instead."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from stillhouse import hookimpl
from stillhouse.errors import OptionError
from stillhouse.plugins import Deprecated, MetricSpec, Renamed, StudentSpec, hookspecs, using
from stillhouse.plugins.deprecation import deprecated_field
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.options import describe_options, validate_options


def model(
    task: Any,
    *,
    width: Annotated[int, Renamed("hidden", removed_in="2.0")] = 8,
    depth: Annotated[int, Deprecated("leave it out", removed_in="2.0")] = 1,
) -> None:
    """A model.

    Args:
        task: what the framework gives.
        width: units.
        depth: layers.
    """


def plugin(*specs: StudentSpec, hook: str = "stillhouse_students") -> Any:
    return SimpleNamespace(**{hook: hookimpl(lambda: list(specs))})


@pytest.fixture
def component(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = StudentSpec(name="cnn", target="deprecation_targets:model", summary="A model")
    monkeypatch.setitem(__import__("sys").modules, "deprecation_targets", SimpleNamespace(model=model))
    with using(plugin(spec), "law") as manager:
        yield manager.registry.get("student", "law/cnn")


def test_old_name_of_an_option_works_and_warns(component: Any) -> None:
    with pytest.warns(
        FutureWarning,
        match=r"option 'hidden' of student 'law/cnn' of plugin 'law' .* and goes in 2\.0: write 'width' instead",
    ):
        assert validate_options(component, {"hidden": 3})["width"] == 3
    with pytest.raises(OptionError, match="'width' and its old name 'hidden' are both given"):
        validate_options(component, {"hidden": 3, "width": 4})


def test_option_that_will_go_warns_only_who_writes_it(component: Any, recwarn: pytest.WarningsRecorder) -> None:
    assert validate_options(component, {"width": 3}) == {"width": 3, "depth": 1}
    assert not recwarn.list
    with pytest.warns(FutureWarning, match=r"'depth' of student 'law/cnn' .* goes in 2\.0: leave it out"):
        validate_options(component, {"depth": 2})
    helps = {each["name"]: each["help"] for each in describe_options(component)}
    assert helps == {"width": "units.", "depth": "layers. (it is deprecated and goes in 2.0: leave it out)"}


def test_renamed_hook_works_and_its_author_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = hookspecs.RenamedHook("stillhouse_students", removed_in="0.3")
    monkeypatch.setitem(hookspecs.RENAMED_HOOKS, "stillhouse_pupils", renamed)
    spec = StudentSpec(name="cnn", target="a:b", summary="A model")
    manager = Manager(installed=False)
    with pytest.warns(
        FutureWarning, match=r"plugin 'law' .*hook 'stillhouse_pupils' .* stillhouse 0\.3: write 'stillhou"
    ):
        record = manager.add("law", plugin(spec, hook="stillhouse_pupils"))
    assert record.components == ("law/cnn",)
    assert "stillhouse_pupils" in record.warnings[0]


def test_deprecated_field_of_a_spec_works_and_its_author_is_told() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Spec(StudentSpec):
        speed: str = field(default="", metadata=deprecated_field("write it in summary", removed_in="stillhouse 0.3"))

    spec = Spec(name="cnn", target="a:b", summary="A model", speed="fast")
    manager = Manager(installed=False)
    with pytest.warns(FutureWarning, match=r"plugin 'law' .*field 'speed' .*name='cnn'.* goes in stillhouse 0\.3"):
        manager.add("law", plugin(spec))
    quiet = Manager(installed=False)
    assert quiet.add("law", plugin(dataclasses.replace(spec, speed=""))).warnings == ()


def test_deprecated_component_is_marked_where_components_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    spec = MetricSpec(name="old", target="a:b", summary="Old", higher_is_better=True, deprecated="core/ece")
    with using(plugin(spec, hook="stillhouse_metrics"), "law") as manager:
        (found,) = [each for each in manager.registry.components() if each.plugin.name == "law"]
        assert found.describe()["deprecated"] == "core/ece"
