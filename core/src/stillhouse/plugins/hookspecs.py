"""The hooks a plugin may implement: one per component kind, no arguments, each giving several specs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

from stillhouse.plugins.component_kinds import KINDS
from stillhouse.plugins.spec import Spec
from stillhouse.plugins.specs import (
    AugmenterSpec,
    DatasetSpec,
    HeadSpec,
    MethodSpec,
    MetricSpec,
    ObjectiveSpec,
    RecipeSpec,
    StudentSpec,
    TeacherSpec,
)

PROJECT = "stillhouse"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as an implementation of the hook with its name."""


@hookspec
def stillhouse_datasets() -> Iterable[DatasetSpec]:
    """Datasets: where rows come from and how they are split."""
    raise NotImplementedError


@hookspec
def stillhouse_augmenters() -> Iterable[AugmenterSpec]:
    """Augmenters: rows without labels, made from training rows, of which only the teacher speaks."""
    raise NotImplementedError


@hookspec
def stillhouse_teachers() -> Iterable[TeacherSpec]:
    """Teachers: large models that others learn from."""
    raise NotImplementedError


@hookspec
def stillhouse_students() -> Iterable[StudentSpec]:
    """Students: small models to deploy."""
    raise NotImplementedError


@hookspec
def stillhouse_heads() -> Iterable[HeadSpec]:
    """Heads: what a task means, its hard loss, metrics and decoding."""
    raise NotImplementedError


@hookspec
def stillhouse_objectives() -> Iterable[ObjectiveSpec]:
    """Objectives: distillation losses between what a student and a teacher say."""
    raise NotImplementedError


@hookspec
def stillhouse_methods() -> Iterable[MethodSpec]:
    """Methods: how a student learns: one fit or several, peers, stages, perturbed inputs."""
    raise NotImplementedError


@hookspec
def stillhouse_metrics() -> Iterable[MetricSpec]:
    """Metrics: numbers of a whole split beyond those of the head."""
    raise NotImplementedError


@hookspec
def stillhouse_recipes() -> Iterable[RecipeSpec]:
    """Recipes: complete runs that a user starts by name."""
    raise NotImplementedError


HOOKS: dict[str, type[Spec]] = {kind.hook: kind.spec for kind in KINDS.values()}
"""Spec class that each hook's items must have."""


@dataclass(frozen=True)
class RenamedHook:
    """Where a hook of an earlier contract went.

    Args:
        hook: its present name; an implementation under the old name counts as one of this.
        removed_in: version of the core that no longer knows the old name.
    """

    hook: str
    removed_in: str


RENAMED_HOOKS: dict[str, RenamedHook] = {}
"""Hooks of earlier contracts that still work, by their old name; their authors get a notice."""
