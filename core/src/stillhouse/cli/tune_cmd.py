"""``stillhouse tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stillhouse.cli.output import print_json, print_lines, print_prose
from stillhouse.cli.recipe_options import EngineOption, RecipeArgument, SetOption, show_progress
from stillhouse.cli.shared import JsonOption, get_manager
from stillhouse.cli.usage import RUN, Command, examples
from stillhouse.errors import MissingDependencyError, OptionError


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(
        "tune",
        cls=Command,
        rich_help_panel=RUN,
        epilog=examples(
            "tune core/quickstart --minutes 10",
            "tune finance/tabular --set dataset.path=loans.csv --set dataset.target=defaulted --jobs 2",
        ),
    )(tune)


def tune(
    ctx: typer.Context,
    recipe: RecipeArgument,
    changes: SetOption = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary", metavar="PATH", help="Try the useful values of this option, too, e.g. student.width; repeatable."
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", metavar="N", help="Settings of the distillation to try.")] = 40,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="M", help="For all of it, the final run included; no limit.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="Processes side by side.")] = 1,
    engine: EngineOption = "local",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the search.")] = 0,
    folds: Annotated[
        int, typer.Option("--folds", metavar="K", help="Folds of the training and validation rows; 0: by their number.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of the search; runs/NAME-tune by default.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; the result and warnings only.")] = False,
    no_download: Annotated[bool, typer.Option("--no-download", help="Never download a dataset.")] = False,
    json: JsonOption = False,
) -> None:
    """Search for a distillation that helps, then run what was found.

    Teacher, losses, method and extra rows are chosen on validation rows; the test rows are met once, by the final run.
    A search that was stopped goes on with the same command.
    """
    for name, value, least in (
        ("--trials", trials, 1),
        ("--jobs", jobs, 1),
        ("--folds", folds, 0),
        ("--seed", seed, 0),
    ):
        if value < least:
            raise OptionError(f"{name} is {value}", where=name, fix=f"a number from {least} upwards")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise OptionError(f"--minutes is {minutes}", where="--minutes", fix="a number above 0, e.g. 10")
    manager = get_manager(ctx)
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "a search needs the package 'optuna'", where="stillhouse tune", fix="pip install 'stillhouse[tune]'"
        ) from error
    from stillhouse.tuning import tune as search
    from stillhouse.tuning.report import sentence

    with show_progress(quiet) as reporter:
        result = search(
            recipe,
            out=out,
            overrides=changes or (),
            vary=vary or (),
            trials=trials,
            minutes=minutes,
            jobs=jobs,
            engine=engine,
            folds=folds or "auto",
            seed=seed,
            download=not no_download,
            manager=manager,
            reporter=reporter,
        )
    if json:
        print_json(folder=str(result.folder), report=str(result.report), record=result.record)
        return
    _print_record(result.record)
    print_prose(sentence(result.record))
    print_lines(f"recipe: {result.folder / 'recipe.yaml'}")
    print_lines(f"report: {result.report}")


def _print_record(record: dict[str, Any]) -> None:
    held, final, metric = record.get("confirmation"), record["final"], record["metric"]["name"]
    if not final or not held:
        return
    print_lines(f"{'':14}held-out {metric}   test {metric}")
    rows = [(name, held[name], final[name]) for name in ("baseline", "student")]
    if final.get("alone") is not None:
        rows.insert(0, ("at best size", record["baseline"]["mean"], final["alone"]))
    for name, on_held_out, on_test in rows:
        print_lines(f"{name:14}{on_held_out:<{12 + len(metric)}.4g}{on_test:.4g}")
    print_lines("")
