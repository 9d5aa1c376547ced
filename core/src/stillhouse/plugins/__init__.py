"""The contract between the core and its plugins.

A plugin is a distribution with an entry point in the group ``stillhouse.plugins``. The entry point's name is
the plugin's id and the prefix of its components' ids; its value is a light module of hook implementations::

    # pyproject.toml
    [project]
    name = "stillhouse-law"
    dependencies = ["stillhouse>=0.1,<0.2"]

    [project.entry-points."stillhouse.plugins"]
    law = "stillhouse_law.plugin"

    # src/stillhouse_law/plugin.py
    from stillhouse import hookimpl
    from stillhouse.plugins import DatasetSpec

    @hookimpl
    def stillhouse_datasets():
        yield DatasetSpec(
            name="judgments",
            target="stillhouse_law.data:judgments",
            summary="court decisions with their outcome",
            licence="CC-BY-4.0",
        )

    # src/stillhouse_law/data.py
    def judgments(context, *, max_length: int = 256):
        '''Court decisions.

        Args:
            context: where the files are, and the seed.
            max_length: tokens kept of each decision.
        '''
        ...

After ``pip install -e .`` the dataset is ``law/judgments``. ``stillhouse show law/judgments`` prints its
options, which are the keyword-only parameters of the target, and a recipe names it in ``dataset``::

    dataset: {use: law/judgments, max_length: 128}

The rules, which ``stillhouse plugins check`` verifies:

- `hookspecs` lists the hooks: one per kind, no arguments, each giving specs. There is no order, no wrappers.
- `specs` lists the specs. A spec is metadata: its target is imported on first use, so ``plugin.py`` must not
  import torch, numpy or anything else that is slow.
- Nothing overrides anything: names are unique within a plugin and kind, and so ids are, as plugin names are.
  Installing a plugin never changes a run that does not name it.
- A plugin is active as a whole or not at all. `manager` records why: `records.Status`.
- ``Requires-Dist`` must bound the core; a plugin that excludes this core is not imported.

For one's own model or data without a distribution, the same hook implementations in a single file will do:
``stillhouse run recipe.yaml --plugin my_domain.py`` makes its components ``my_domain/...`` for that command.

In tests, ``with using(module, name="law") as manager:`` gives a manager with the core and that module only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stillhouse.plugins.deprecation import Deprecated, Renamed
from stillhouse.plugins.records import PluginRecord, Status
from stillhouse.plugins.spec import Spec
from stillhouse.plugins.specs import (
    AugmenterSpec,
    DatasetSpec,
    HeadSpec,
    MethodSpec,
    MetricSpec,
    ModelSpec,
    ObjectiveSpec,
    RecipeSpec,
    StudentSpec,
    TeacherSpec,
)

if TYPE_CHECKING:
    from stillhouse.plugins.manager import Manager, default_manager, using
    from stillhouse.plugins.registry import Component, Registry

__all__ = [
    "AugmenterSpec",
    "Component",
    "DatasetSpec",
    "Deprecated",
    "HeadSpec",
    "Manager",
    "MethodSpec",
    "MetricSpec",
    "ModelSpec",
    "ObjectiveSpec",
    "PluginRecord",
    "RecipeSpec",
    "Registry",
    "Renamed",
    "Spec",
    "Status",
    "StudentSpec",
    "TeacherSpec",
    "default_manager",
    "using",
]

_HOMES = {
    "Component": "registry",
    "Registry": "registry",
    "Manager": "manager",
    "default_manager": "manager",
    "using": "manager",
}


def __getattr__(name: str) -> Any:
    # On first use: the manager needs `stillhouse.__version__`, and `stillhouse` needs `hookimpl` from here.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"stillhouse.plugins.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'stillhouse.plugins' has no attribute '{name}'")
