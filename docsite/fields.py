"""Write docs/reference/recipe.md, every field of a recipe with type, default and help: ``python -m docsite.fields``."""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stillhouse.recipe.model import ComponentRef, Recipe, Scheduled

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "recipe.md"
INTRODUCTION = """# Fields of a recipe

Every field with its type, its default and what it means; [Recipes](../recipes.md) explains them by example.
A field is changed for one run by `--set`, as in `--set train.student.epochs=30` or
`--set objectives.soft.0.weight=2`. An unknown field is refused with the nearest right name.

A *component* is an id, `plugin/name` (or `package.module:Attribute`), or a mapping with `use` and the
component's own options: `{use: industrial/gru, width: 16}`; `stillhouse show ID` lists these. A *schedule* is a
mapping such as `{schedule: linear, start: 8, end: 1}`.

This page is written by `python -m docsite.fields` from the models that check a recipe; `stillhouse schema`
prints them as JSON Schema, with the options of all installed components.
"""
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "anything"}
SIGNS = {annotated_types.Ge: "≥", annotated_types.Gt: ">", annotated_types.Le: "≤", annotated_types.Lt: "<"}


def type_of(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The type in words, with its bounds."""
    inner = get_args(annotation)
    if type(None) in inner:  # bounds are of the value, where there is one
        (value,) = [each for each in inner if each is not type(None)]
        return f"{type_of(value, metadata)}, or none"
    bounds = [
        f"{sign} {getattr(each, kind.__name__.lower())}"
        for each in metadata
        for kind, sign in SIGNS.items()
        if isinstance(each, kind)
    ]
    return ", ".join([_named(annotation), *bounds])


def _named(annotation: Any) -> str:
    if annotation == Scheduled:
        return "number or schedule"
    if annotation in WORDS:
        return WORDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _named(inner[0])
    if origin is Literal:
        return " or ".join(f"`{_yaml(each)}`" for each in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(each) for each in inner)
    if origin is list:
        return f"list of {_named(inner[0])}s" if inner[0] is not Any else "list"
    if origin is dict:
        return "mapping"
    if issubclass(annotation, BaseModel):
        return "component" if "use" in annotation.model_fields else "mapping"
    raise TypeError(f"no words for {annotation}")


def _yaml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_of(field: FieldInfo) -> str:
    """The default as a recipe would say it."""
    default = field.default
    if default is PydanticUndefined:
        return "**required**"
    if isinstance(default, ComponentRef):
        return f"`{default.use}`"
    if isinstance(default, BaseModel):
        return "see below"
    if isinstance(default, list) and default and isinstance(default[0], BaseModel):
        return f"`[{', '.join(each.use for each in default)}]`"  # type: ignore[attr-defined]
    return "empty" if default == "" else f"`{_yaml(default)}`" if default is not None else "none"


def nested(annotation: Any) -> type[BaseModel] | None:
    """The model whose fields stand below this one; None for values, and components without fields of their own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if annotation is ComponentRef else annotation
    return next((found for each in get_args(annotation) if (found := nested(each))), None)


def tables(model: type[BaseModel], path: str = "") -> dict[type[BaseModel], list[str]]:
    """Paths of each model in a recipe, from the outside in."""
    found = {model: [path]}
    for name, field in model.model_fields.items():
        inner = nested(field.annotation)
        if inner is not None:
            for each, paths in tables(inner, f"{path}.{name}".lstrip(".")).items():
                found[each] = [*found.get(each, []), *paths]
    return found


def page() -> str:
    """The page's text."""
    lines = [INTRODUCTION]
    for model, paths in tables(Recipe).items():
        lines.append("## " + (", ".join(f"`{path}`" for path in paths) if paths != [""] else "The recipe"))
        lines += ["", (model.__doc__ or "").strip().replace("``", "`"), ""]
        lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            kind = type_of(field.annotation, field.metadata)
            cells = [f"`{name}`", kind, default_of(field), field.description or ""]
            lines.append(f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |")
        if model.model_config.get("extra") == "allow":
            lines += ["", "Further fields are options of the component."]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
