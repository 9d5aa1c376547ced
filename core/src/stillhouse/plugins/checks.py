"""Checks that a plugin keeps the contract: what a check is, and those on what a plugin declares.

They import a plugin's targets and run none of them on data; `stillhouse.testing.plan` adds the checks that do. Both
``stillhouse plugins check`` and `stillhouse.testing.contract` run the same ones.
"""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.specifiers import SpecifierSet

from stillhouse.errors import MissingDependencyError, PluginError, StillhouseError, UnknownComponentError
from stillhouse.plugins.blame import origin
from stillhouse.plugins.component_kinds import KINDS
from stillhouse.plugins.loading import Rejected, specs_of
from stillhouse.plugins.manager import CORE, Manager
from stillhouse.plugins.metadata import bounded_requirement
from stillhouse.plugins.options import options_model, options_of
from stillhouse.plugins.reading import ReadComponent, read_component, read_target
from stillhouse.plugins.records import PluginRecord, Status
from stillhouse.plugins.registry import Component
from stillhouse.plugins.source import stale_metadata
from stillhouse.plugins.spec import load_target

Outcome = Literal["passed", "failed", "skipped"]


class Skipped(Exception):
    """A check cannot run here: why, and what would let it run."""

    def __init__(self, why: str, fix: str = "") -> None:
        super().__init__(why)
        self.why, self.fix = why, fix


class Pointless(Skipped):
    """A check would only repeat what another one found: the other fails, and is named."""

    def __init__(self, check_id: str) -> None:
        super().__init__(f"pointless while {check_id} fails")
        self.cause = check_id


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check that ran: its id (stable, e.g. ``options[student:law/cnn]``), its outcome, what is wrong and how to
    fix it, and what else it found (a number, say); when it was skipped since another check fails, the id of that."""

    id: str
    outcome: Outcome
    problem: str = ""
    fix: str = ""
    note: str = ""
    cause: str = ""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One check that can run.

    Args:
        id: stable, e.g. ``options[student:law/cnn]``.
        verify: raises when the plugin does not keep the contract; may return a note.
    """

    id: str
    verify: Callable[[], str | None]

    def run(self) -> Check:
        """Run it; whatever the plugin's code raises is its outcome."""
        try:
            return Check(id=self.id, outcome="passed", note=self.verify() or "")
        except Skipped as skipped:
            cause = skipped.cause if isinstance(skipped, Pointless) else ""
            return Check(id=self.id, outcome="skipped", problem=skipped.why, fix=skipped.fix, cause=cause)
        except StillhouseError as error:
            place = f" (where: {error.where})" if error.where else ""
            return Check(id=self.id, outcome="failed", problem=f"{error.what}{place}", fix=error.fix)
        except Exception as error:
            problem, found = f"{type(error).__name__}: {error}", origin(error)
            if found is None:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                problem += f" (at {frame.filename}:{frame.lineno}, which is not the plugin's code)"
                fix = "look at what the plugin gives to that code; where it is right, report a defect of Stillhouse"
            else:
                problem, fix = f"{problem} (at {found.where})", found.fix
            return Check(id=self.id, outcome="failed", problem=problem, fix=fix)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The checks of one plugin, and how many components it has."""

    record: PluginRecord
    components: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """No check failed."""
        return not any(each.outcome == "failed" for each in self.checks)

    @property
    def summary(self) -> str:
        """How many checks ran on how many components."""
        outcomes = [each.outcome for each in self.checks]
        return summary(outcomes, self.components)

    def describe(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "name": self.record.name,
            "distribution": self.record.distribution,
            "version": self.record.version,
            "status": str(self.record.status),
            "passed": self.passed,
            "components": self.components,
            "checks": [vars(each) for each in self.checks],
        }


def summary(outcomes: Sequence[str], components: int) -> str:
    """``12 checks on 3 components: 11 passed, 1 skipped``."""
    counts = {
        outcome: list(outcomes).count(outcome) for outcome in dict.fromkeys(("passed", "failed", "skipped", *outcomes))
    }
    counted_outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    return f"{counted(len(outcomes), 'check')} on {counted(components, 'component')}: {counted_outcomes}"


def counted(count: int, word: str) -> str:
    """``1 check``, ``2 checks``."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def label(component: Component) -> str:
    """A component inside the id of a check."""
    return f"{component.kind}:{component.id}"


def plan_declared(manager: Manager, record: PluginRecord, *, read: bool = False) -> list[Planned]:
    """The checks on what a plugin declares, in the order in which they make sense; with ``read``, targets are read and
    not imported."""
    planned = [Planned(id="loads", verify=lambda: _loads(record))]
    if record.status is not Status.ACTIVE:
        return planned
    planned.append(Planned(id="components", verify=lambda: _components(record)))
    if record.distribution:
        planned.append(Planned(id="metadata", verify=lambda: _metadata(record)))
        if record.name != CORE:
            planned.append(Planned(id="requirement", verify=lambda: _requirement(record)))
    planned.append(Planned(id="hooks", verify=lambda: _hooks(manager, record)))
    for component in manager.components_of(record):
        planned += _of_component(read_component(component) if read else component)
    return planned


def chosen(manager: Manager, name: str | None) -> list[PluginRecord]:
    """Records of the plugin ``name`` (or of the one whose source is at that path), or of all that are not disabled.

    Raises:
        UnknownComponentError: there is no such plugin.
    """
    if name is None:
        return [each for each in manager.records if each.status is not Status.DISABLED]
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
        if each.editable and (Path(each.location).resolve() == path or path in Path(each.location).resolve().parents)
    ]
    if not inside:
        raise UnknownComponentError(
            f"no plugin is installed from '{name}'", fix=f"pip install -e {name}, then check again"
        )
    return inside


def _loads(record: PluginRecord) -> str:
    if record.status is not Status.ACTIVE:
        raise PluginError(f"{record.status}: {record.error}", fix=record.fix)
    return "" if record.load_ms is None else f"{record.load_ms:.1f} ms"


def _components(record: PluginRecord) -> None:
    if not record.components:
        raise PluginError("it brings no components", fix="give at least one spec from a hook")


def _metadata(record: PluginRecord) -> None:
    if not record.editable:
        raise Skipped("not an editable install: there is no source to compare the installed metadata with")
    differences = stale_metadata(record)
    if differences:
        raise PluginError(
            f"pyproject.toml and the installed metadata of {record.distribution} disagree: {'; '.join(differences)}",
            where=record.location,
            fix=f"pip install -e {record.location}",
        )


def _requirement(record: PluginRecord) -> None:
    example = f"write '{bounded_requirement()}' in the dependencies, and install again"
    if not record.requires_core:
        raise PluginError(f"{record.distribution} does not say which versions of stillhouse it works with", fix=example)
    operators = {each.operator for each in SpecifierSet(record.requires_core) if not each.version.endswith(".*")}
    wild = any(each.version.endswith(".*") and each.operator == "==" for each in SpecifierSet(record.requires_core))
    what = f"{record.distribution} requires stillhouse{record.requires_core}, which"
    if operators & {"==", "==="}:
        raise PluginError(f"{what} pins one version: no two such plugins can be installed together", fix=example)
    if not (wild or operators & {"~=", "<", "<="}):
        raise PluginError(f"{what} has no upper bound: it would be used with a core that breaks it", fix=example)
    if not (wild or operators & {"~=", ">", ">="}):
        raise PluginError(f"{what} has no lower bound: it would be used with a core that is too old", fix=example)


def _hooks(manager: Manager, record: PluginRecord) -> None:
    first = [component.spec for component in manager.components_of(record)]
    try:
        again = specs_of(manager.implementations(record), record.source)
    except Rejected as rejected:
        raise PluginError(f"called a second time, {rejected.error}", fix=rejected.fix) from rejected
    if first != again:
        changed = [spec.name for spec in first if spec not in again] + [s.name for s in again if s not in first]
        raise PluginError(
            f"the hooks give other specs when they are called again: {', '.join(dict.fromkeys(changed)) or 'order'}",
            fix="build the specs anew in each call, from constants only",
        )


def _of_component(component: Component) -> Iterator[Planned]:
    where = label(component)
    yield Planned(id=f"spec[{where}]", verify=lambda: _spec(component))
    yield Planned(id=f"target[{where}]", verify=lambda: _target(component))
    is_file = KINDS[component.kind].given is None
    verify = _recipe_shape if is_file else check_shape
    yield Planned(id=f"shape[{where}]", verify=lambda: verify(component, _loaded(component)))
    if not is_file:
        yield Planned(id=f"options[{where}]", verify=lambda: _options(component, _loaded(component)))


def _spec(component: Component) -> None:
    spec = component.spec
    who = f"{type(spec).__name__}(name={spec.name!r})"
    try:
        again = KINDS[component.kind].spec(**json.loads(json.dumps(spec.describe())))
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"the spec cannot be written as JSON and read again: {error}",
            where=who,
            fix="use strings, numbers, booleans and tuples of strings",
        ) from error
    if again != spec:
        fields = [name for name, value in vars(spec).items() if getattr(again, name) != value]
        raise PluginError(
            f"the spec is another one after a trip through JSON: {', '.join(fields)}",
            where=who,
            fix="use strings, numbers, booleans and tuples of strings",
        )


def _target(component: Component) -> None:
    try:
        component.load()
        if isinstance(component, ReadComponent):
            for field in ("reader", "sample", "features", "rules"):
                if other := getattr(component.spec, field, ""):
                    read_target(other, who=f"{component.kind} '{component.id}', {field}")
            return
        for field in ("reader", "sample", "features", "rules"):
            if other := getattr(component.spec, field, ""):
                load_target(other, who=f"{component.kind} '{component.id}', {field}")
    except MissingDependencyError as error:
        if component.spec.requires:  # an optional package that is not here
            raise Skipped(error.what, error.fix) from error
        fix = "add it to the distribution's dependencies, or to the spec's 'requires' and an extra"
        raise MissingDependencyError(error.what, fix=fix) from error


def _loaded(component: Component) -> Any:
    """The target, for a check that is pointless without it."""
    try:
        return component.load()
    except StillhouseError as error:
        raise Skipped(f"the target cannot be loaded: see target[{label(component)}]") from error


def _recipe_shape(component: Component, text: Any) -> None:
    from ruamel.yaml import YAML  # only recipes need it
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise PluginError(f"'{component.spec.target}' is not YAML: {error}", fix="correct the file") from error
    if not isinstance(content, dict):
        raise PluginError(
            f"'{component.spec.target}' is not a mapping", fix="write 'field: value' lines at its top level"
        )


def check_shape(component: Component, target: Any) -> None:
    """Hold the signature of a target against its kind.

    Raises:
        PluginError: it cannot be called as targets of that kind are.
    """
    if not callable(target):
        raise PluginError(
            f"'{component.spec.target}' is a {type(target).__name__}, not a class or function",
            fix="let the target name what makes the component",
        )
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(target).parameters.values()
    count = sum(each.kind in positional for each in parameters)
    wanted = KINDS[component.kind].given
    if count != wanted:
        raise PluginError(
            f"'{component.spec.target}' has {counted(count, 'positional parameter')}, "
            f"and a {component.kind} is given {wanted}",
            fix="make every option keyword-only: put '*' before the first one",
        )
    inherited = isinstance(target, type) and "__init__" not in vars(target)  # e.g. that of torch.nn.Module
    if not inherited and any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        raise PluginError(
            f"'{component.spec.target}' takes **keywords, so that a misspelt option would be ignored",
            fix="name each option in the signature",
        )


def _options(component: Component, target: Any) -> None:
    if not callable(target):
        raise Skipped(f"the target is not callable: see shape[{label(component)}]")
    for each in options_of(target):
        # The path of the user's own file, the address of a service, the students of a method have no sensible default.
        may_require = component.kind == "dataset" or getattr(component.spec, "asked", False)
        may_require = may_require or each.name in getattr(component.spec, "students", ())
        for missing, what, fix in (
            (each.annotation is inspect.Parameter.empty, "type", f"annotate it: {each.name}: int = 1"),
            (each.required and not may_require, "default", "give it one"),
            (not each.help, "help", "describe it in the 'Args:' section of the docstring"),
        ):
            if missing:
                raise PluginError(f"option '{each.name}' of '{component.spec.target}' has no {what}", fix=fix)
    options_model(target)
