"""``stillhouse label``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli.numbers import in_bytes
from stillhouse.cli.output import print_json, print_lines, print_prose
from stillhouse.cli.recipe_options import EngineOption, JobsOption, RecipeArgument, SetOption, show_progress
from stillhouse.cli.shared import JsonOption, get_manager
from stillhouse.cli.usage import RUN, Command, examples
from stillhouse.errors import OptionError

PRECISIONS = ("float32", "float16")


def _complete_precision(incomplete: str) -> list[str]:
    return [each for each in PRECISIONS if each.startswith(incomplete)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(
        "label",
        cls=Command,
        rich_help_panel=RUN,
        epilog=examples(
            "label core/quickstart --out runs/large",
            "label mine.yaml --jobs auto --precision float16",
            "label mine.yaml --engine ray --jobs 64 --out /shared/runs/mine",
        ),
    )(label)


def label(
    ctx: typer.Context,
    recipe: RecipeArgument,
    changes: SetOption = None,
    engine: EngineOption = "local",
    jobs: JobsOption = "1",
    shard_rows: Annotated[
        int | None, typer.Option("--shard-rows", metavar="N", help="Rows of a shard, about; 65,536 by default.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="float32|float16",
            help="Of what is stored: teacher.cache_precision of the recipe.",
            autocompletion=_complete_precision,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder, runs/NAME by default.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; the result and warnings only.")] = False,
    no_download: Annotated[bool, typer.Option("--no-download", help="Never download a dataset.")] = False,
    json: JsonOption = False,
) -> None:
    """Store what a recipe's teacher says of all rows, for a run to learn from.

    The teacher is trained, or taken from the folder, as `run` would; `run` in the same folder then goes on from there
    and does not ask it again. What was stored before a stop is kept: the same command makes what is missing.
    """
    if precision is not None and precision not in PRECISIONS:
        raise OptionError(f"--precision is '{precision}'", where="--precision", fix=f"one of {', '.join(PRECISIONS)}")
    manager = get_manager(ctx)
    from stillhouse.pipeline.label import label as label_recipe

    with show_progress(quiet, warnings=not json or not quiet) as reporter:
        found = label_recipe(
            recipe,
            out=out,
            overrides=changes or (),
            engine=engine,
            jobs=jobs,
            shard_rows=shard_rows,
            precision=precision,
            download=not no_download,
            manager=manager,
            reporter=reporter,
        )
    if json:
        print_json(**found.to_json())
        return
    rows = ", ".join(f"{count:,} {name}" for name, count in found.rows.items())
    print_lines(f"{sum(found.rows.values()):,} rows ({rows}) in {found.shards:,} shards, {in_bytes(found.bytes)}")
    if found.rows_per_second is None:
        print_lines("all of them were there")
    else:
        print_lines(f"{found.made:,} shards made in {found.seconds:,.1f} s, {found.rows_per_second:,.0f} rows/s")
    print_prose(f"learn from them: stillhouse run {found.folder / 'recipe.yaml'} --out {found.folder}")
