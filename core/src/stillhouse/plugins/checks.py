"""Checks that a plugin keeps the contract, as ``stillhouse plugins check`` prints them.

They look at what a plugin declares; running its components on data is the business of ``stillhouse.testing``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stillhouse.errors import MissingDependencyError, PluginError, StillhouseError, UnknownComponentError
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.options import options_model, options_of
from stillhouse.plugins.records import PluginRecord, Status
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import load_target

GIVEN = {"dataset": 1, "teacher": 1, "student": 1, "head": 1, "objective": 0, "metric": 0}
"""How many positional arguments the framework gives to a target of each kind."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: its id (stable, e.g. ``options[student:law/cnn]``), its outcome, and what is wrong."""

    id: str
    outcome: Literal["passed", "failed", "skipped"]
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The checks of one plugin."""

    record: PluginRecord
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """No check failed."""
        return not any(each.outcome == "failed" for each in self.checks)

    @property
    def summary(self) -> str:
        """How many checks ran on how many components."""
        counts = {
            outcome: sum(each.outcome == outcome for each in self.checks)
            for outcome in ("passed", "failed", "skipped")
        }
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        checks, components = len(self.checks), len(self.record.components)
        return f"{_counted(checks, 'check')} on {_counted(components, 'component')}: {told}"

    def describe(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "name": self.record.name,
            "distribution": self.record.distribution,
            "version": self.record.version,
            "status": str(self.record.status),
            "passed": self.passed,
            "checks": [vars(each) for each in self.checks],
        }


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def check_all(manager: Manager, name: str | None = None) -> list[Report]:
    """Check the plugin ``name`` (or the one whose source is at that path), or all that are not disabled.

    Raises:
        UnknownComponentError: there is no such plugin.
    """
    records = (
        _chosen(manager, name) if name else [r for r in manager.records if r.status is not Status.DISABLED]
    )
    return [check(manager, each) for each in records]


def check(manager: Manager, record: PluginRecord) -> Report:
    """All checks of one plugin."""
    checks = [_loads(record)]
    if record.status is Status.ACTIVE:
        for warning in record.warnings:
            checks.append(Check(id="metadata", outcome="failed", problem=warning, fix=_warning_fix(record)))
        for component in manager.components_of(record):
            checks += _component_checks(component)
    return Report(record=record, checks=tuple(checks))


def _chosen(manager: Manager, name: str) -> list[PluginRecord]:
    path = Path(name).expanduser()
    if not path.exists() or any(each.name == name for each in manager.records):
        return manager.plugin(name)
    path = path.resolve()
    if path.is_file():
        known = [each for each in manager.records if each.location == str(path)]
        return known or [manager.add_file(path)]
    inside = [
        each
        for each in manager.records
        if each.editable
        and (Path(each.location).resolve() == path or path in Path(each.location).resolve().parents)
    ]
    if not inside:
        raise UnknownComponentError(
            f"no plugin is installed from '{name}'", fix=f"pip install -e {name}, then check again"
        )
    return inside


def _loads(record: PluginRecord) -> Check:
    if record.status is Status.ACTIVE:
        return Check(id="loads", outcome="passed")
    return Check(id="loads", outcome="failed", problem=f"{record.status}: {record.error}", fix=record.fix)


def _warning_fix(record: PluginRecord) -> str:
    if record.components:
        return "add a bounded requirement on the core to the dependencies, e.g. 'stillhouse>=0.1,<0.2'"
    return "give at least one spec from a hook"


def _component_checks(component: Component) -> Iterator[Check]:
    label = f"{component.kind}:{component.id}"
    try:
        target = component.load()
        for field in ("reader", "features"):
            if other := getattr(component.spec, field, ""):
                load_target(other, who=f"{component.kind} '{component.id}', {field}")
    except MissingDependencyError as error:
        if component.spec.requires:  # an optional package that is not here
            yield Check(id=f"target[{label}]", outcome="skipped", problem=error.what, fix=error.fix)
        else:
            fix = "add it to the distribution's dependencies, or to the spec's 'requires' and an extra"
            yield Check(id=f"target[{label}]", outcome="failed", problem=error.what, fix=fix)
        return
    except StillhouseError as error:
        yield Check(id=f"target[{label}]", outcome="failed", problem=error.what, fix=error.fix)
        return
    yield Check(id=f"target[{label}]", outcome="passed")
    yield _outcome(
        f"shape[{label}]", _recipe_shape if component.kind == "recipe" else _shape, component, target
    )
    if component.kind != "recipe" and callable(target):
        yield _outcome(f"options[{label}]", _options, component, target)


def _outcome(
    check_id: str, verify: Callable[[Component, Any], None], component: Component, target: Any
) -> Check:
    try:
        verify(component, target)
    except StillhouseError as error:
        return Check(id=check_id, outcome="failed", problem=error.what, fix=error.fix)
    return Check(id=check_id, outcome="passed")


def _recipe_shape(component: Component, text: Any) -> None:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PluginError(
            f"'{component.spec.target}' is not YAML: {error}", fix="correct the file"
        ) from error
    if not isinstance(content, dict):
        raise PluginError(
            f"'{component.spec.target}' is not a mapping", fix="write 'field: value' lines at its top level"
        )


def _shape(component: Component, target: Any) -> None:
    if not callable(target):
        raise PluginError(
            f"'{component.spec.target}' is a {type(target).__name__}, not a class or function",
            fix="let the target name what makes the component",
        )
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(target).parameters.values()
    count = sum(each.kind in positional for each in parameters)
    wanted = GIVEN[component.kind]
    if count != wanted:
        raise PluginError(
            f"'{component.spec.target}' has {_counted(count, 'positional parameter')}, "
            f"and a {component.kind} is given {wanted}",
            fix="make every option keyword-only: put '*' before the first one",
        )
    inherited = isinstance(target, type) and "__init__" not in vars(target)  # e.g. that of torch.nn.Module
    if not inherited and any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        raise PluginError(
            f"'{component.spec.target}' takes **keywords, so that a misspelt option could not be refused",
            fix="name each option in the signature",
        )


def _options(component: Component, target: Any) -> None:
    for each in options_of(target):
        # A dataset may require one: the path of the user's own file has no sensible default.
        for missing, what, fix in (
            (each.annotation is inspect.Parameter.empty, "type", f"annotate it: {each.name}: int = 1"),
            (each.required and component.kind != "dataset", "default", "give it one"),
            (not each.help, "help", "describe it in the 'Args:' section of the docstring"),
        ):
            if missing:
                raise PluginError(f"option '{each.name}' of '{component.spec.target}' has no {what}", fix=fix)
    options_model(target)
