"""Recipes as YAML 1.2 text: read with the line of each field, and written."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from stillhouse.errors import RecipeError

Path_ = tuple[str | int, ...]

MOST_VALUES = 100_000
"""Values that a recipe may hold once its aliases are written out: a few nested ones make millions."""


def parse_yaml(text: str, *, source: str) -> tuple[dict[str, Any], dict[Path_, int]]:
    """A YAML mapping, and the line of each of its fields.

    Raises:
        RecipeError: not YAML, not a mapping, a key is given twice (with the line), or more than `MOST_VALUES`.
    """
    values, lines = _read(text, source)
    if not isinstance(values, dict):
        found = {type(None): "empty", list: "a list", str: "a text"}.get(type(values), repr(values))
        raise RecipeError(
            f"a recipe is a mapping of fields, and this is {found}",
            where=source,
            fix="start from `stillhouse init core/quickstart`",
        )
    return values, lines


def read_saved(path: Path) -> dict[str, Any]:
    """The fields of a recipe that a run or a search has saved in its folder.

    Raises:
        RecipeError: the file cannot be read, or is not a recipe.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"cannot read '{path}': {error}", where=str(path), fix="choose another folder, or remove this one"
        ) from error
    return parse_yaml(text, source=str(path))[0]


def parse_value(text: str, *, source: str) -> Any:
    """Any YAML value.

    Raises:
        RecipeError: as `parse_yaml`.
    """
    return _read(text, source)[0]


def to_yaml(values: Any) -> str:
    """Plain values as YAML, fields in their order."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = 1 << 16  # a line for each value
    yaml.sort_base_mapping_type_on_output = False
    stream = io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


def _read(text: str, source: str) -> tuple[Any, dict[Path_, int]]:
    yaml = YAML(typ="safe", pure=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            node = yaml.compose(text)
            lines: dict[Path_, int] = {}
            for count, (path, line) in enumerate(_lines(node, ())):
                if count == MOST_VALUES:
                    raise RecipeError(
                        f"with its aliases written out, it holds more than {MOST_VALUES} values",
                        where=source,
                        fix="use fewer aliases (*name), or keep long lists in a file of their own",
                    )
                lines.setdefault(path, line)
            return yaml.load(text), lines
    except DuplicateKeyError as error:
        key = str(error.problem).split('"')[1]
        raise RecipeError(
            f"'{key}' is given twice", where=f"{source}, line {error.problem_mark.line + 1}", fix="keep one of them"
        ) from error
    except (YAMLError, ValueError, RecursionError) as error:
        # Scalars such as 2026-99-99 raise ValueError, control characters a YAML error without a mark.
        mark = getattr(error, "problem_mark", None)
        place = f"{source}, line {mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise RecipeError(
            f"not valid YAML: {problem}",
            where=place,
            fix="check indentation, colons, brackets and quotes there",
        ) from error


def _lines(node: Node | None, path: Path_) -> Iterator[tuple[Path_, int]]:
    """Path and line of each value; a mapping's field is where its key is."""
    if node is None:
        return
    yield path, node.start_mark.line + 1
    if isinstance(node, MappingNode):
        for key, value in node.value:
            here = (*path, key.value if isinstance(key.value, str) else "?")
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, SequenceNode):
        for position, value in enumerate(node.value):
            yield from _lines(value, (*path, position))
