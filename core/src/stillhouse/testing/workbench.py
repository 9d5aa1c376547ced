"""What the checks of one plugin work on: its datasets made once, and for each model and head rows that suit it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.data import data_root
from stillhouse.plugins.checks import Check, Planned, Pointless, Skipped, label
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.options import options_of, validate_options
from stillhouse.plugins.records import PluginRecord
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import DatasetSpec, HeadSpec, ModelSpec
from stillhouse.recipe.check import resolve
from stillhouse.recipe.resolved import Bound, ResolvedRecipe
from stillhouse.storage import digest
from stillhouse.testing.isolation import offline
from stillhouse.types import DataContext, Head, Splits

Options = Mapping[str, Any]
SYNTHETIC = "core/synthetic"
"""The dataset that has rows for every output kind."""


@dataclass(frozen=True)
class Setting:
    """Rows and a head for a model; ``own`` when the plugin's own recipe puts the three together."""

    dataset: Component
    dataset_options: Options
    head: Component
    head_options: Options
    model_options: Options
    own: bool = False


@dataclass
class Workbench:
    """The plugin under test.

    Attributes:
        manager: where its components are.
        record: the plugin.
        options: options that stand for the defaults, by component id (``law/cases``, or ``dataset:law/cases``), e.g. of
            a dataset that needs a path.
        planned: all checks by id.
    """

    manager: Manager
    record: PluginRecord
    options: Mapping[str, Options] = field(default_factory=dict)
    planned: dict[str, Planned] = field(default_factory=dict)
    _splits: dict[str, Splits] = field(default_factory=dict)
    _outcomes: dict[str, Check] = field(default_factory=dict)

    def run(self, check_id: str) -> Check:
        """The outcome of a check; each runs once."""
        if check_id not in self._outcomes:
            self._outcomes[check_id] = self.planned[check_id].run()
        return self._outcomes[check_id]

    def require(self, component: Component, *names: str) -> None:
        """Go on only if these checks of a component hold, so that one fault is reported once.

        Raises:
            Skipped: one failed, or could not run.
        """
        for name in names:
            check_id = f"{name}[{label(component)}]"
            if check_id not in self.planned:
                continue
            found = self.run(check_id)
            if found.outcome == "failed":
                raise Pointless(check_id)
            if found.outcome == "skipped" and found.cause:
                raise Pointless(found.cause)
            if found.outcome == "skipped":
                raise Skipped(found.problem, found.fix)

    def holds(self, component: Component, *names: str) -> bool:
        """Whether none of these checks of a component failed or was skipped."""
        try:
            self.require(component, *names)
        except Skipped:
            return False
        return True

    def components(self, kind: str) -> list[Component]:
        """The plugin's own components of one kind."""
        return [each for each in self.manager.components_of(self.record) if each.kind == kind]

    def component_options(self, component: Component) -> dict[str, Any]:
        """Options of a component: those given to the workbench, the others at their defaults."""
        return validate_options(component, self.given(component) or {})

    def given(self, component: Component) -> Options | None:
        """The options that stand for a component's defaults; None when it was not named.

        It is named by its id, or by kind and id where components of two kinds share one.
        """
        by_kind = self.options.get(label(component))
        return by_kind if by_kind is not None else self.options.get(component.id)

    def require_service(self, component: Component) -> None:
        """The options without which a component that asks a service cannot ask.

        Raises:
            Skipped: they were not given.
        """
        given = self.given(component) or {}
        missing = [each.name for each in options_of(component.load()) if each.required and each.name not in given]
        if missing:
            raise Skipped(
                f"it needs the option '{missing[0]}'",
                f"contract(..., options={{'{component.id}': {{...}}}}) can name a service that runs",
            )

    def make(self, component: Component, options: Options, *, seed: int = 0, again: bool = False) -> Splits:
        """A dataset, offline; made once for the same options unless ``again``.

        Raises:
            Exception: whatever its target raises.
        """
        key = digest([component.id, {name: str(value) for name, value in options.items()}, seed])
        if again:
            return self._make(component, options, seed)
        if key not in self._splits:
            self._splits[key] = self._make(component, options, seed)
        return self._splits[key]

    def _make(self, component: Component, options: Options, seed: int) -> Splits:
        with offline():
            made: Splits = component.load()(self.context(component, seed=seed), **options)
        return made

    def context(self, component: Component, *, seed: int = 0) -> DataContext:
        """What a dataset is given here."""
        plugin, _, name = component.id.partition("/")
        root = (data_root() / plugin / name).resolve()
        return DataContext(root=root, base=Path.cwd(), seed=seed, download=False)

    def usable(self, dataset: Component) -> dict[str, Any]:
        """Options with which a dataset can be made here.

        Raises:
            Skipped: it needs files that are not there, or options that only a user can give.
        """
        spec = dataset.spec
        assert isinstance(spec, DatasetSpec)
        given = self.given(dataset)
        self.require(dataset, "target", "shape", "options")
        hint = (
            f"contract(..., options={{'{dataset.id}': {{...}}}}) can point it to a small sample; name it without "
            "options when STILLHOUSE_DATA holds one"
        )
        required = [
            each.name for each in options_of(dataset.load()) if each.required and each.name not in (given or {})
        ]
        if required:
            raise Skipped(f"it needs the option '{required[0]}'", hint)
        if not spec.offline and given is None:
            raise Skipped("the dataset needs files (its spec says offline=False)", hint)
        return self.component_options(dataset)

    def resolved(self) -> Iterator[ResolvedRecipe]:
        """The plugin's recipes that are valid."""
        for component in self.components("recipe"):
            try:
                yield resolve(component.id, self.manager.registry)
            except StillhouseError:
                continue  # what is wrong with it is reported by the recipe's own check

    def settings(self, component: Component) -> Iterator[Setting]:
        """Settings for a model or a head: those of the plugin's recipes first, then its own datasets and heads, then
        the core's, all that fit by their specs and can be made here.

        Raises:
            Pointless: the rows that it is meant for are not right, and on others it would fail for no fault of its own.
        """
        for recipe in self.resolved():
            for bound in (*recipe.teachers, recipe.student, *recipe.controls, recipe.head):
                if (bound.component.kind, bound.id) == (component.kind, component.id) and self._is_usable(
                    recipe.dataset.component
                ):
                    yield Setting(
                        recipe.dataset.component,
                        self._standing_in(recipe.dataset),
                        recipe.head.component,
                        recipe.head.options,
                        bound.options,
                        own=True,
                    )
        options = self.component_options(component)
        registry = self.manager.registry
        own = [each for each in self.components("dataset") if each.id != SYNTHETIC]
        if not any(self._is_usable(each) for each in own):
            for dataset in own:
                if bad := self._first_failed(dataset):
                    raise Pointless(bad)
        for dataset in (*own, registry.get("dataset", SYNTHETIC)):
            if not self._is_usable(dataset):
                continue
            spec = dataset.spec
            assert isinstance(spec, DatasetSpec)
            for head in [component] if component.kind == "head" else self._heads(component):
                head_spec = head.spec
                assert isinstance(head_spec, HeadSpec)
                if spec.kinds and head_spec.output not in spec.kinds:
                    continue
                data_options = self.component_options(dataset)
                if dataset.id == SYNTHETIC:
                    data_options |= {"kind": str(head_spec.output), "rows": 240}
                head_options = options if head is component else self.component_options(head)
                yield Setting(dataset, data_options, head, head_options, options)

    def _standing_in(self, dataset: Bound) -> dict[str, Any]:
        """A recipe's options of its dataset, with those of the sample that stands in for its files."""
        given, valid = self.given(dataset.component) or {}, self.component_options(dataset.component)
        return {**dataset.options, **{name: valid[name] for name in given}}

    def _heads(self, model: Component) -> list[Component]:
        spec = model.spec
        assert isinstance(spec, ModelSpec)
        core = [each for each in self.manager.registry.components("head") if each.plugin.name == "core"]
        heads = [each for each in (*self.components("head"), *core) if isinstance(each.spec, HeadSpec)]
        kinds = spec.kinds or tuple(OutputKind)
        unique = {each.id: each for each in heads}
        return [each for each in unique.values() if each.spec.output in kinds]  # type: ignore[attr-defined]

    def _first_failed(self, dataset: Component) -> str:
        """The check of a dataset that fails, and without which its rows cannot be used; empty when none does."""
        for name in ("target", "shape", "options", "data", "disjoint"):
            check_id = f"{name}[{label(dataset)}]"
            if check_id in self.planned and self.run(check_id).outcome == "failed":
                return check_id
        return ""

    def _is_usable(self, dataset: Component) -> bool:
        try:
            self.usable(dataset)
        except (Skipped, StillhouseError):
            return False
        return self.holds(dataset, "data", "disjoint")

    def head(self, setting: Setting) -> tuple[Splits, Head]:
        """The rows and the head of a setting.

        Raises:
            Exception: whatever the two targets raise.
        """
        splits = self.make(setting.dataset, setting.dataset_options)
        head: Head = setting.head.load()(splits.info, **setting.head_options)
        return splits, head
