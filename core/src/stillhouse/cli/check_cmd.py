"""``stillhouse check``: what a run would do, and what is wrong with it, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.numbers import about, in_bytes, in_count, in_time, in_words
from stillhouse.cli.output import print_error, print_fields, print_json, print_lines, print_prose, print_table
from stillhouse.cli.recipe_options import (
    RecipeArgument,
    SeedsOption,
    SetOption,
    SizesOption,
    parse_seeds,
    parse_sizes,
    show_progress,
)
from stillhouse.cli.shared import JsonOption, get_manager
from stillhouse.cli.usage import RUN, Command, examples

if TYPE_CHECKING:
    from stillhouse.pipeline.checking import Checked, Planned


NUMBERS = ("Parameters", "Trainings", "Steps each", "A step", "Time")
"""Columns of the table of models that hold numbers."""


def register(app: typer.Typer) -> None:
    """Add the command of this module to ``app``."""
    app.command(
        "check",
        cls=Command,
        rich_help_panel=RUN,
        epilog=examples("check industrial/rul-fd001", "check mine.yaml --set student.width=16 --seeds 0-4"),
    )(check)


def check(
    ctx: typer.Context,
    recipe: RecipeArgument,
    changes: SetOption = None,
    seeds: SeedsOption = None,
    sizes: SizesOption = None,
    download: Annotated[bool, typer.Option("--download", help="Download a dataset that is missing.")] = False,
    json: JsonOption = False,
) -> None:
    """Check a recipe without training: parts, files, time, memory.

    Every model is built, and every fit takes a few steps on a few rows. The exit status is 2 when something is wrong.
    """
    manager = get_manager(ctx)
    from stillhouse.pipeline.checking import check as check_recipe

    with show_progress(json, warnings=False) as reporter:
        found = check_recipe(
            recipe,
            overrides=changes or (),
            seeds=parse_seeds(seeds),
            sizes=parse_sizes(sizes),
            download=download,
            manager=manager,
            reporter=reporter,
        )
    if json:
        print_json(**found.describe())
    else:
        _print(found)
        # Teacher, baseline and student may stumble over the same thing.
        for problem in {str(each): each for each in found.problems}.values():
            print_error(problem, as_json=False)
    if found.problems:
        raise typer.Exit(2)


def _print(found: Checked) -> None:
    from stillhouse.evaluation.report.format import classes

    rows = ", ".join(f"{count:,} {name}" for name, count in found.dataset["rows"].items())
    inputs = ", ".join(
        f"{name} {tuple(each['shape'])} {each['dtype']}" for name, each in found.dataset["inputs"].items()
    )
    print_fields(
        [
            ("recipe", found.recipe),
            ("dataset", f"{found.dataset['id']}: {rows}"),
            ("inputs", inputs),
            ("classes", classes(found.dataset, count="{:,}".format)),
            (
                "head",
                f"{found.head['id']}: {found.head['kind']}, width {found.head['outputs']}, {found.head['primary']}",
            ),
        ]
    )
    print_lines("")
    table = [
        (
            each.role,
            each.component,
            in_count(each.parameters),
            f"{each.trainings:g}",
            f"{each.steps:,}" if each.fits else "",
            "" if not each.fits else in_time(sum(fit.seconds for fit in each.fits) / max(each.steps, 1)),
            _time(each),
        )
        for each in found.models
    ]
    print_table(("Model", "Component", *NUMBERS), table, wrap=("Component",), right=NUMBERS)
    print_lines("")
    if found.problems:
        count = len({str(each) for each in found.problems})
        several = "one thing is" if count == 1 else f"{count} things are"
        print_lines(f"This recipe cannot be run: {several} wrong.")
        return
    memory = "" if found.memory_bytes is None else f" It needs about {in_bytes(found.memory_bytes)} of memory."
    without = f", without the fit of {in_words(found.unknown)}" if found.unknown else ""
    if found.seconds or not found.unknown:
        takes = f"Training takes about {about(found.seconds)} on this machine, one model after the other{without}"
    else:
        takes = f"How long the fit of {in_words(found.unknown)} takes is not known before"
    print_prose(f"Nothing is wrong. {takes}.{memory}")


def _time(planned: Planned) -> str:
    if planned.form == "asked":
        return "asked, not trained"
    if planned.form == "checkpoint":
        return "trained before"
    if planned.in_store and planned.in_store >= planned.trainings:
        return "in the store"
    return "?" if planned.seconds is None else about(planned.seconds)
