"""JSON Schema of recipes, with the options of every installed component, for editors."""

from __future__ import annotations

from typing import Any

from stillhouse.errors import StillhouseError
from stillhouse.plugins.component_kinds import KINDS, NAMED_KINDS
from stillhouse.plugins.options import options_model
from stillhouse.plugins.registry import Registry
from stillhouse.plugins.spec import TARGET
from stillhouse.recipe.model import Recipe


def recipe_schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema (2020-12) of a recipe; fields that name components (``head``, ``teacher``, soft terms, ...) list the
    installed ones by id, each with its options. Components whose package is missing are listed without
    options."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    definitions = schema["$defs"]
    for kind in KINDS.values():
        for field in kind.fields:
            entry = schema["properties"][field]
            if "anyOf" in entry:  # it may be none, and has fields of its own: see below
                continue
            definitions[f"{kind.name}-ref"] = _reference(registry, (kind.name,), definitions["ComponentRef"])
            entry.get("items", entry)["$ref"] = f"#/$defs/{kind.name}-ref"
    definitions["ExtraRows"] = _reference(registry, ("augmenter",), definitions["ExtraRows"])
    definitions["TeacherMember"] = _reference(registry, ("teacher", "student"), definitions["TeacherMember"])
    definitions["TeacherConfig"] = _reference(
        registry, ("teacher", "student"), definitions["TeacherConfig"], required=False
    )
    definitions["SoftTerm"] = _reference(registry, ("objective",), definitions["SoftTerm"], also=("soft",))
    return schema


def _reference(
    registry: Registry,
    kinds: tuple[str, ...],
    plain: dict[str, Any],
    *,
    also: tuple[str, ...] = (),
    required: bool = True,
) -> dict[str, Any]:
    ids: list[str] = list(also)
    cases = []
    for kind in kinds:
        for component in registry.components(kind):
            if component.id in ids:
                continue
            ids.append(component.id)
            try:
                options = options_model(component.load()).model_json_schema()
            except StillhouseError:
                continue
            properties = dict(options.get("properties", {}))
            then: dict[str, Any] = {
                "properties": {**dict.fromkeys(plain["properties"], True), **properties},
                "additionalProperties": False,
            }
            if "$defs" in options:
                then["$defs"] = options["$defs"]
            cases.append({"if": {"properties": {"use": {"const": component.id}}, "required": ["use"]}, "then": then})
    known: dict[str, Any] = {"enum": ids}
    if set(kinds) & set(NAMED_KINDS):  # somebody's own, of which nothing is known before it is imported
        known = {"anyOf": [known, {"type": "string", "pattern": f"^{TARGET.pattern}$"}]}
    mapping = {
        **{key: value for key, value in plain.items() if key not in ("additionalProperties", "properties")},
        "type": "object",
        "properties": {**plain["properties"], "use": known},
        "allOf": cases,
    }
    if required:
        mapping["required"] = ["use"]
    return {"anyOf": [known, mapping], "description": plain.get("description", "")}
