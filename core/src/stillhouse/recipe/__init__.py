"""Recipes: the typed description of a run, how it is read, and what is checked before anything heavy starts."""

from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import (
    ComponentRef,
    EvaluateConfig,
    Recipe,
    SizesConfig,
    SoftTerm,
    TeacherConfig,
    TrainConfig,
)
from stillhouse.recipe.read import load_recipe, read_recipe
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.recipe.schema import recipe_schema

__all__ = [
    "ComponentRef",
    "EvaluateConfig",
    "Recipe",
    "ResolvedRecipe",
    "SizesConfig",
    "SoftTerm",
    "TeacherConfig",
    "TrainConfig",
    "load_recipe",
    "read_recipe",
    "recipe_schema",
    "resolve",
]
