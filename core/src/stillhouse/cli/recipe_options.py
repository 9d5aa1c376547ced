"""What the commands that take a recipe share: its argument, their options and how these are read, and progress."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Annotated, Any

import typer

from stillhouse.cli.shared import complete_recipe
from stillhouse.engines import ENGINES
from stillhouse.errors import RecipeError

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A recipe of `stillhouse recipes`, or a YAML file.", autocompletion=complete_recipe
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a field of the recipe, e.g. student.width=16; repeatable."
    ),
]
SeedsOption = Annotated[str | None, typer.Option("--seeds", metavar="0-4|0,1,2", help="Seeds of baseline and student.")]
SizesOption = Annotated[
    str | None,
    typer.Option(
        "--sizes",
        metavar="PATH=A,B,...",
        help="Other sizes of the student, e.g. student.width=4,8,16: what distillation is worth in size.",
    ),
]
JobsOption = Annotated[
    str,
    typer.Option(
        "--jobs",
        metavar="N|auto",
        help="Processes that work side by side, one thread each; auto: one per core.",
    ),
]


def _complete_engine(incomplete: str) -> list[str]:
    return [each for each in ENGINES if each.startswith(incomplete)]


EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="local|ray",
        help="Where the processes of --jobs are: on this machine, or on a Ray cluster.",
        autocompletion=_complete_engine,
    ),
]


def is_main_process() -> bool:
    """Whether this process is the one of a launcher's that speaks."""
    import os

    return os.environ.get("RANK", "0") == "0"


def show_progress(quiet: bool, *, warnings: bool = True) -> Any:
    """A context with what shows progress: bars on a terminal, lines elsewhere; warnings alone when it shall be quiet.

    Args:
        quiet: show no progress.
        warnings: show warnings all the same; False where they are part of a document.
    """
    from stillhouse.progress import Silent

    if not is_main_process() or (quiet and not warnings):
        return contextlib.nullcontext(Silent())
    from stillhouse.cli.progress import Bars, Lines, Warnings

    if quiet:
        return contextlib.nullcontext(Warnings())
    return Bars() if sys.stderr.isatty() else Lines()


MOST_SEEDS = 10_000
"""Seeds that a range may have: more are a slip of the pen."""


def parse_seeds(given: str | None) -> list[int] | None:
    """``0,1,2``, ``0-4``, or both as in ``0-4,7``; ends belong to a range.

    Raises:
        RecipeError: it is neither.
    """
    if given is None:
        return None
    found: list[int] = []
    for part in given.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last - first >= MOST_SEEDS:
            raise RecipeError(
                f"'{given}' is not a list of seeds",
                where="--seeds",
                fix="numbers with commas between them, or a range, e.g. --seeds 0,1,2 or --seeds 0-4",
            )
        found += range(first, last + 1)
    return found


def parse_sizes(given: str | None) -> dict[str, Any] | None:
    """``student.width=4,8,16`` as the recipe's ``sizes``.

    Raises:
        RecipeError: it is not of that form.
    """
    if given is None:
        return None
    from stillhouse.recipe.text import parse_value

    field, equals, values = given.partition("=")
    where = f"--sizes {given}"
    if not equals or not field.strip() or not values.strip():
        raise RecipeError(
            f"'{given}' is not a field and its values",
            where=where,
            fix="for example --sizes student.width=4,8,16,32",
        )
    return {"field": field.strip(), "values": parse_value(f"[{values}]", source=where)}
