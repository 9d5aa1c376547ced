"""Options of a component: the keyword-only parameters of its target, as a pydantic model.

Positional parameters are what the framework gives, so that nothing else has to be said to tell the two apart.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import docstring_parser
import pydantic
from pydantic_core import PydanticUndefined, to_jsonable_python

from stillhouse.errors import OptionError, PluginError, nearest
from stillhouse.plugins.deprecation import Deprecated, Renamed, notice, warn
from stillhouse.plugins.registry import Component
from stillhouse.ranges import Choices, Range


@dataclass(frozen=True, kw_only=True)
class Option:
    """One keyword-only parameter of a target.

    Args:
        name: the parameter's name.
        annotation: its resolved annotation; ``inspect.Parameter.empty`` when it has none.
        default: its default; ``inspect.Parameter.empty`` when it must be given.
        help: what the docstring's ``Args`` section says of it.
    """

    name: str
    annotation: Any
    default: Any
    help: str

    @property
    def required(self) -> bool:
        """It has no default."""
        return self.default is inspect.Parameter.empty


def options_of(target: Any) -> list[Option]:
    """The options of a function or class, in the order of its signature.

    Raises:
        PluginError: it has no signature, or an annotation names something that does not exist.
    """
    name = getattr(target, "__qualname__", repr(target))
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"the options of {name} are not known: {error}", fix="give it a plain Python signature"
        ) from error
    wanted = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    hints = _resolved(target, wanted, name)
    helps = _helps(target)
    return [
        Option(name=each.name, annotation=hints[each.name], default=each.default, help=helps.get(each.name, ""))
        for each in wanted
    ]


def options_model(target: Any) -> type[pydantic.BaseModel]:
    """A pydantic model whose fields are the options of ``target``; unknown fields are refused.

    Raises:
        PluginError: as `options_of`, or a type that cannot be written in a recipe.
    """
    fields: dict[str, Any] = {}
    for each in options_of(target):
        annotation = Any if each.annotation is inspect.Parameter.empty else each.annotation
        default = ... if each.required else each.default
        fields[each.name] = (annotation, pydantic.Field(default, description=each.help or None))
    name = getattr(target, "__name__", "Target")
    try:
        with warnings.catch_warnings():  # an option may well be called "copy" or "schema"
            warnings.filterwarnings("ignore", message="Field name .* shadows", category=UserWarning)
            model: type[pydantic.BaseModel] = pydantic.create_model(
                f"{name}Options",
                __config__=pydantic.ConfigDict(extra="forbid", protected_namespaces=()),
                **fields,
            )
            return model
    except (pydantic.PydanticUserError, NameError) as error:
        reason = str(error).partition("\n")[0]
        raise PluginError(
            f"an option of {name} cannot be written in a recipe: {reason}",
            fix="use int, float, str, bool, None, Literal, Path, lists, tuples, dicts or pydantic models",
        ) from error


@functools.lru_cache(maxsize=512)
def _model_of(component_id: str, target: Any) -> type[pydantic.BaseModel]:
    return options_model(target)


def validate_options(
    component: Component, given: Mapping[str, Any], *, where: str = "", fields: Collection[str] = ()
) -> dict[str, Any]:
    """All options of the component: those ``given`` converted to their types, the others at their defaults.

    Args:
        component: whose options.
        given: what the recipe says.
        where: place of the options, e.g. ``"rul.yaml, student"``; put before the option's name in an error.
        fields: what else may stand beside the options in a recipe, such as a weight; for hints.

    Raises:
        OptionError: an unknown option (with the nearest name), a wrong value or a missing one.
        MissingDependencyError, PluginError: the target cannot be imported.
    """
    model = _located(component)
    try:
        values = model.model_validate(_current(component, model, given, where))
    except pydantic.ValidationError as error:
        raise _option_error(component, model, error, where, fields) from error
    return {name: values.__dict__[name] for name in model.model_fields}


def _current(
    component: Component, model: type[pydantic.BaseModel], given: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """``given`` under the present names; deprecated options give a warning.

    Raises:
        OptionError: an option is given under its old and its new name.
    """
    current = dict(given)
    for name, field in model.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Renamed) and mark.old in current:
                if name in current:
                    raise OptionError(
                        f"'{name}' and its old name '{mark.old}' are both given",
                        where=", ".join(filter(None, (where, name))),
                        fix=f"keep '{name}'",
                    )
                current[name] = current.pop(mark.old)
                renamed = Deprecated(f"write '{name}' instead", mark.removed_in)
                warn(notice(f"option '{mark.old}' of {component.label}", renamed))
            elif isinstance(mark, Deprecated) and name in current:
                warn(notice(f"option '{name}' of {component.label}", mark))
    return current


def describe_options(component: Component) -> list[dict[str, Any]]:
    """JSON-ready rows for ``stillhouse show``: name, type, default, required, help.

    Raises:
        MissingDependencyError, PluginError: the target cannot be imported.
    """
    model = _located(component)
    return [
        {
            "name": name,
            "type": type_name(field.annotation if not field.metadata else _with_bounds(field)),
            "default": None if field.default is PydanticUndefined else to_jsonable_python(field.default, fallback=str),
            "required": field.is_required(),
            "help": " ".join(filter(None, (field.description, _fate(field)))),
            "search": next((str(mark) for mark in field.metadata if isinstance(mark, Range | Choices)), ""),
        }
        for name, field in model.model_fields.items()
    ]


def options_schema(component: Component) -> dict[str, Any]:
    """JSON Schema of the component's options.

    Raises:
        MissingDependencyError, PluginError: the target cannot be imported.
    """
    return _located(component).model_json_schema()


def type_name(annotation: Any) -> str:
    """An annotation as a user reads it: ``int``, ``path``, ``'gelu' | 'relu'``, ``list[int] | None``."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Any or annotation is inspect.Parameter.empty:
        return "any"
    if annotation is Ellipsis:
        return "..."
    if origin is typing.Annotated:
        return type_name(args[0])
    if origin is Literal:
        return " | ".join(repr(each) for each in args)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(each) for each in args)
    if isinstance(annotation, type) and issubclass(annotation, Path) and not args:
        return "path"
    name = getattr(origin or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(type_name(each) for each in args)}]" if args else name


def _fate(field: pydantic.fields.FieldInfo) -> str:
    """What a deprecated option's help ends with."""
    return " ".join(f"({notice('it', mark)})" for mark in field.metadata if isinstance(mark, Deprecated))


def _with_bounds(field: pydantic.fields.FieldInfo) -> str:
    """The field's type with its constraints, e.g. ``int (ge=1)``."""
    bounds = ", ".join(
        f"{key}={value}"
        for each in field.metadata
        if not isinstance(each, Deprecated | Renamed | Range | Choices)
        for key, value in (vars(each) if hasattr(each, "__dict__") else _slots(each)).items()
        if value is not None
    )
    base = type_name(field.annotation)
    return f"{base} ({bounds})" if bounds else base


def _slots(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in getattr(value, "__slots__", ())}


def _located(component: Component) -> type[pydantic.BaseModel]:
    """The component's model; an error in deriving it names the component and its plugin."""
    target = component.load()
    try:
        return _model_of(component.id, target)
    except PluginError as error:
        raise PluginError(error.what, where=component.label, fix=error.fix) from error


def _option_error(
    component: Component,
    model: type[pydantic.BaseModel],
    error: pydantic.ValidationError,
    where: str,
    fields: Collection[str],
) -> OptionError:
    """The first problem as an error of ours, with the others counted."""
    problems = error.errors(include_url=False)
    first = problems[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    place = ", ".join(part for part in (where, ".".join(str(part) for part in first["loc"])) if part)
    who = f"{component.kind} '{component.id}'"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        known = list(model.model_fields)
        fix = nearest(name, known) if known else "it takes no options"
        near = nearest(name, [*known, *fields])
        fix = near if near.startswith("did you mean") else fix
        return OptionError(f"{who} has no option '{name}'{more}", where=place, fix=fix)
    field = model.model_fields[name]
    expected = type_name(field.annotation if not field.metadata else _with_bounds(field))
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return OptionError(f"{who} needs the option '{name}'{more}", where=place, fix=f"give '{name}' ({expected})")
    message = first["msg"][:1].lower() + first["msg"][1:]
    given = repr(first["input"]) if field.repr else "this value"  # which may be a password
    return OptionError(
        f"option '{name}' of {who} does not take {given}: {message}{more}",
        where=place,
        fix=f"expected {expected}{_as_written(first)}" + ("" if _as_written(first) else _or_default(field)),
    )


def _as_written(problem: Mapping[str, Any]) -> str:
    """How a value is written that was meant: a list of one, or a text of digits; empty where it cannot be told."""
    value = problem["input"]
    if problem["type"] in ("tuple_type", "list_type") and isinstance(value, str | int | float):
        return f", written as a list: [{value}]"
    if problem["type"] == "string_type" and isinstance(value, int | float):
        return f""", written in quotes: "{value}" (on the command line '"{value}"')"""
    return ""


def _or_default(field: pydantic.fields.FieldInfo) -> str:
    if field.is_required():
        return ""
    return ", or leave it out" if field.default is None else f", e.g. the default {field.default!r}"


def _resolved(target: Any, parameters: list[inspect.Parameter], name: str) -> dict[str, Any]:
    """Annotations of ``parameters`` as objects; only of these: others may name what only typing imports."""
    function = inspect.unwrap(target)
    function = inspect.getattr_static(function, "__init__") if isinstance(function, type) else function
    function = getattr(function, "func", function)  # functools.partial
    holder = types.SimpleNamespace(__annotations__={each.name: each.annotation for each in parameters})
    try:
        return typing.get_type_hints(holder, globalns=getattr(function, "__globals__", {}), include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        raise PluginError(
            f"the type of an option of {name} cannot be resolved: {error}",
            fix="import the name outside of 'if TYPE_CHECKING:'",
        ) from error


def _helps(target: Any) -> dict[str, str]:
    """Help of each parameter from the docstring's ``Args``; of a class, ``__init__`` and bases count too."""
    holders = [target]
    if isinstance(target, type):
        lineage = [each for each in reversed(target.__mro__) if each is not object]
        holders = [holder for each in lineage for holder in (vars(each).get("__init__"), each)]
    helps: dict[str, str] = {}
    for text in filter(None, (getattr(holder, "__doc__", None) for holder in holders)):
        for parameter in docstring_parser.parse(text, docstring_parser.DocstringStyle.GOOGLE).params:
            if parameter.description:
                helps[parameter.arg_name] = " ".join(parameter.description.split())
    return helps
