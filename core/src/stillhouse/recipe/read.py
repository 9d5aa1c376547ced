"""Reading recipes: YAML text or a mapping to a `Recipe`, with errors that name file, line, field and the nearest
name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stillhouse.errors import RecipeError, UnknownComponentError, nearest
from stillhouse.plugins.registry import Component, Registry
from stillhouse.recipe.model import DEFAULT_METHOD, ComponentRef, ExtraRows, Recipe, TeacherConfig
from stillhouse.recipe.text import Path_, parse_value, parse_yaml
from stillhouse.storage import read_object

SHORT = [
    name
    for name, field in Recipe.model_fields.items()
    if field.annotation in (ComponentRef, TeacherConfig, ExtraRows | None)
]
"""Fields that may be a component's id alone, short for a mapping with ``use``."""


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> None:
    """Apply ``path=value`` overrides (``--set``) in place; values are YAML, list items are addressed by number.

    Raises:
        RecipeError: no ``=``, or the path leads through something that is not a mapping or a list.
    """
    for override in overrides:
        path, equals, text = override.partition("=")
        where = f"--set {override}"
        if not equals or not path.strip():
            raise RecipeError(
                "an override has the form path=value", where=where, fix="for example --set student.width=16"
            )
        try:
            value = parse_value(text, source=where)
        except RecipeError as error:
            raise RecipeError(
                f"'{text[:80]}' is not a YAML value: {error.what}",
                where=where,
                fix="quote it, for example --set 'seeds=[0, 1]'",
            ) from error
        set_field(values, path.strip(), value, where=where)


def set_field(values: dict[str, Any], path: str, value: Any, *, where: str) -> None:
    """Set the field at a dotted ``path`` in place; list items are addressed by number.

    Raises:
        RecipeError: the path leads through something that is not a mapping or a list.
    """
    *parents, last = path.split(".")
    place: Any = values
    for step in parents:
        place = _descend(place, step, where)
    if isinstance(place, list):
        place[_position(place, last, where)] = value
    else:
        if isinstance(place.get(last), str) and last in SHORT and isinstance(value, dict):
            value = {"use": place[last], **value}
        place[last] = value


def _descend(place: Any, step: str, where: str) -> Any:
    if isinstance(place, list):
        position = _position(place, step, where)
        if isinstance(place[position], str):  # "- soft" is short for "- use: soft"
            place[position] = {"use": place[position]}
        return place[position]
    if isinstance(place.get(step), str):  # "student: core/mlp" is short for "student: {use: core/mlp}"
        place[step] = {"use": place[step]}
    if step == "method" and step not in place:
        place[step] = {"use": DEFAULT_METHOD}
    if step not in place and step in ("soft", "metrics", "controls", "members"):
        raise RecipeError(
            f"the recipe does not write '{step}' out, so that no item of it can be set",
            where=where,
            fix="write it into the recipe, or set the whole list, e.g. "
            "--set 'objectives.soft=[{use: soft, weight: 2}]'",
        )
    if place.get(step) is None:  # absent, or written as null
        place[step] = {}
    below = place[step]
    if not isinstance(below, dict | list):
        raise RecipeError(f"'{step}' is {below!r}, it has no fields to set", where=where, fix="set the field itself")
    return below


def _position(items: list[Any], step: str, where: str) -> int:
    if not step.isdigit() or int(step) >= len(items):
        raise RecipeError(f"'{step}' is not a position in a list of {len(items)}", where=where, fix="count from 0")
    return int(step)


def read_recipe(
    values: Mapping[str, Any], *, source: str, name: str = "", lines: Mapping[Path_, int | str] | None = None
) -> Recipe:
    """A `Recipe` from plain values.

    Args:
        values: fields as YAML gives them.
        source: what to call the origin in errors (a file name, ``"recipe"``).
        name: name of the run when the recipe does not say.
        lines: line of each field in the source, for errors.

    Raises:
        RecipeError: the first thing that is wrong, with all others listed behind it.
    """
    try:
        recipe = Recipe.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(error, source, lines or {}) from error
    return recipe if recipe.name else recipe.model_copy(update={"name": name or "run"})


def locate(path: Sequence[str | int], source: str, lines: Mapping[Path_, int | str]) -> str:
    """ "file, line 3, field 'train.student.lr'" for a field's path, or the override that it is from."""
    above = [tuple(path[:end]) for end in range(len(path), 0, -1)]
    overrides = [lines[each] for each in above if isinstance(lines.get(each), str)]
    in_file = [f"{source}, line {lines[each]}" for each in above if each in lines]
    return f"{[*overrides, *in_file, source][0]}, field '{'.'.join(map(str, path))}'"


def _places(overrides: Iterable[str]) -> dict[Path_, int | str]:
    """The fields that overrides set, each with what to call its place in errors."""
    given = [override.partition("=")[0].strip() for override in overrides]
    return {tuple(int(step) if step.isdigit() else step for step in path.split(".")): f"--set {path}" for path in given}


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list, e.g. [0, 1]",
    "tuple": "a list, e.g. [0, 1]",
    "dict": "fields with their values, e.g. {name: value}",
    "model": "fields with their values, e.g. {name: value}",
    "auto": "a whole number of at least 1, or auto",
    "finite": "a finite number",
}
"""What a field takes, by the first word of pydantic's type of error."""
_BOUNDS = {
    "greater_than_equal": ("from {:.10g} upwards", "ge"),
    "greater_than": ("above {:.10g}", "gt"),
    "less_than_equal": ("up to {:.10g}", "le"),
    "less_than": ("below {:.10g}", "lt"),
}
"""What a number may be, by pydantic's type of error, and the name of the bound in its context."""


def _shown(value: Any) -> str:
    """A value in an error; what has parts is not written out."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "a set of fields"
    return "empty" if value is None else repr(value)


def _called(path: Path_) -> str:
    """A field in an error, ``'epochs'``; an item with its list, ``'seeds.0'``."""
    named = next((at for at in reversed(range(len(path))) if isinstance(path[at], str)), 0)
    return f"'{'.'.join(map(str, path[named:]))}'"


def _explain(error: ValidationError, source: str, lines: Mapping[Path_, int | str]) -> RecipeError:
    messages = []
    for each in error.errors():
        path = tuple(
            part
            for part in each["loc"]
            if not (isinstance(part, str) and re.fullmatch(r"(float|dict|literal|function|union|tagged)\b.*", part))
        )
        what, fix = each["msg"].removeprefix("Value error, "), ""
        if each["type"] == "extra_forbidden":
            what, fix = f"unknown field '{path[-1]}'", nearest(str(path[-1]), _fields_at(path[:-1]))
        elif each["type"] == "missing":
            what, fix = (
                f"the field '{path[-1]}' is missing",
                "add it; `stillhouse init core/quickstart` writes a complete example",
            )
        elif each["type"] == "literal_error":
            what = f"{each['input']!r} is not a value of '{path[-1]}'"
            fix = f"one of {each['ctx']['expected']}"
        elif each["type"].partition("_")[0] in _WANTED:
            fix = f"write {_WANTED[each['type'].partition('_')[0]]}"
            what = f"{_called(path)} is {_shown(each['input'])}"
        elif each["type"] == "too_short":
            least = each["ctx"]["min_length"]
            what = f"{_called(path)} is empty" if least == 1 else f"{_called(path)} has {len(each['input'])} items"
            fix = f"write at least {least}"
        elif each["type"] in _BOUNDS:
            name, bound = _BOUNDS[each["type"]]
            what, fix = f"{_called(path)} is {_shown(each['input'])}", f"a number {name.format(each['ctx'][bound])}"
        else:
            what = f"{what} (got {each['input']!r})" if not isinstance(each["input"], dict | list) else what
        messages.append(
            (what, locate(path, source, lines), fix or "correct it; `stillhouse schema` has what fields take")
        )
    what, where, fix = messages[0]
    more = "".join(f"\n  also:  {also} ({place})" for also, place, _ in messages[1:4])
    return RecipeError(what + more, where=where, fix=fix)


def _fields_at(path: Path_) -> list[str]:
    model: Any = Recipe
    for part in path:
        if isinstance(part, int):
            continue
        model = model.model_fields[part].annotation if part in model.model_fields else None
        while model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            args = getattr(model, "__args__", ())
            model = args[0] if args else None
        if model is None:
            return []
    return list(model.model_fields)


def _base(path: Path) -> Path:
    """The folder that a recipe's paths are relative to: its own, or where that of a run folder came from."""
    manifest = path.with_name("manifest.json")
    if path.name == "recipe.yaml" and manifest.exists():
        given = read_object(manifest).get("base")
        if given:
            return (path.parent / str(given)).resolve()
    return path.parent


def _component(given: str | Path, registry: Registry) -> Component:
    """The recipe of that id; a folder that was meant to be one is told."""
    try:
        return registry.get("recipe", str(given))
    except UnknownComponentError:
        if not Path(given).is_dir():
            raise
        inside = sorted(Path(given).glob("*.y*ml"))
        raise RecipeError(
            f"'{given}' is a folder, not a recipe",
            where=str(Path(given).resolve()),
            fix=f"name a file in it, such as {inside[0]}"
            if inside
            else "name a .yaml file, or see `stillhouse recipes`",
        ) from None


def load_recipe(
    given: str | Path | Mapping[str, Any] | Recipe,
    registry: Registry,
    *,
    overrides: Iterable[str] = (),
) -> tuple[Recipe, str, dict[Path_, int | str], Path]:
    """A recipe from an id (``industrial/rul-fd001``), a YAML file, a mapping or a `Recipe`.

    Returns:
        the recipe, what to call its source in errors, the line or override that each field is from, and the folder
        that its paths are relative to.

    Raises:
        RecipeError: unreadable, or a field is wrong.
        UnknownComponentError: no file and no recipe has that name.
    """
    base = Path.cwd()
    lines: dict[Path_, int | str] = {}
    name = ""
    if isinstance(given, Recipe):
        values: dict[str, Any] = given.model_dump(mode="json", exclude_unset=True)
        source, name = "recipe", given.name
    elif isinstance(given, Mapping):
        values, source = dict(given), "recipe"
    else:
        path = Path(given)
        if path.suffix in (".yaml", ".yml"):
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError as error:
                others = [each.name for each in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
                hint = nearest(path.name, others) if others else "check the path"
                raise RecipeError(
                    f"there is no file '{path}'",
                    where=str(path.resolve().parent),
                    fix=f"{hint} (`stillhouse recipes` lists those that need no file)",
                ) from error
            except (OSError, UnicodeDecodeError) as error:
                raise RecipeError(
                    f"cannot read '{path}': {error}",
                    where=str(path),
                    fix="check the path, or name a recipe of `stillhouse recipes`",
                ) from error
            whole = path.resolve()
            # A file that is called what all of them are is told apart by its folder.
            name = whole.parent.name if path.stem == "recipe" and whole.parent.name else path.stem
            source, base = str(path), _base(whole)
        elif path.is_file():
            raise RecipeError(
                f"'{path}' is not a YAML file by its name",
                where=str(path),
                fix="give a recipe whose name ends in .yaml",
            )
        else:
            component = _component(given, registry)
            text, source, name = component.load(), component.id, component.id
        values, in_file = parse_yaml(text, source=source)
        lines |= in_file
    overrides = list(overrides)
    apply_overrides(values, overrides)
    lines |= _places(overrides)
    return read_recipe(values, source=source, name=name, lines=lines), source, lines, base
