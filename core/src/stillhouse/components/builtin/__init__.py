"""The core's own components, registered through the same hooks as those of any plugin."""

from stillhouse.components.builtin.data import stillhouse_augmenters, stillhouse_datasets, stillhouse_recipes
from stillhouse.components.builtin.heads import stillhouse_heads, stillhouse_metrics
from stillhouse.components.builtin.methods import stillhouse_methods
from stillhouse.components.builtin.models import stillhouse_students, stillhouse_teachers
from stillhouse.components.builtin.objectives import stillhouse_objectives

__all__ = [
    "stillhouse_augmenters",
    "stillhouse_datasets",
    "stillhouse_heads",
    "stillhouse_methods",
    "stillhouse_metrics",
    "stillhouse_objectives",
    "stillhouse_recipes",
    "stillhouse_students",
    "stillhouse_teachers",
]
