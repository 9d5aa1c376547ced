"""Stillhouse: knowledge distillation for vertical domains.

A small core defines the contract; domain plugins, separate distributions found by entry points, bring the datasets,
teachers, students and heads of their field. Importing this package is cheap: what needs torch is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
API = 1
"""Version of the plugin contract; it changes only when a plugin written for the previous one would stop working."""

_LAZY = {
    "hookimpl": "stillhouse.plugins.hookspecs",
    "run": "stillhouse.pipeline",
    "label": "stillhouse.pipeline.label",
    "distill": "stillhouse.training.distill",
    "Recipe": "stillhouse.recipe",
    "predict": "stillhouse.deploy.predicting",
    "export": "stillhouse.deploy.exporting",
}

if TYPE_CHECKING:
    from stillhouse.deploy.exporting import export
    from stillhouse.deploy.predicting import predict
    from stillhouse.pipeline import run
    from stillhouse.pipeline.label import label
    from stillhouse.plugins.hookspecs import hookimpl
    from stillhouse.recipe import Recipe
    from stillhouse.training.distill import distill

__all__ = ["API", "Recipe", "__version__", "distill", "export", "hookimpl", "label", "predict", "run"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'stillhouse' has no attribute '{name}'")
