"""``stillhouse run``, ``init`` and ``schema``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli.numbers import in_bytes, in_count
from stillhouse.cli.output import console, print_error, print_json, print_lines, print_prose
from stillhouse.cli.recipe_options import (
    EngineOption,
    JobsOption,
    SeedsOption,
    SetOption,
    SizesOption,
    is_main_process,
    parse_seeds,
    parse_sizes,
    show_progress,
)
from stillhouse.cli.shared import JsonOption, complete_recipe, get_manager
from stillhouse.cli.usage import FIND, RUN, Command, examples
from stillhouse.errors import RecipeError, RunFolderError, StillhouseError

if TYPE_CHECKING:
    from stillhouse.plugins.manager import Manager


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(
        "run",
        cls=Command,
        rich_help_panel=RUN,
        epilog=examples(
            "run core/quickstart",
            "run industrial/rul-fd001 --seeds 0-4 --jobs auto",
            "run finance/tabular --set dataset.path=loans.csv --set dataset.target=defaulted",
            "run mine.yaml core/quickstart --out runs/monday",
        ),
    )(run)
    app.command(
        "init",
        cls=Command,
        rich_help_panel=FIND,
        epilog=examples("init core/quickstart", "init finance/tabular --out loans.yaml"),
    )(init)
    app.command("schema", cls=Command, rich_help_panel=FIND, epilog=examples("schema > recipe.schema.json"))(schema)


def run(
    ctx: typer.Context,
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE...",
            help="Recipes of `stillhouse recipes`, or YAML files; several run one after the other.",
            autocompletion=complete_recipe,
        ),
    ],
    changes: SetOption = None,
    seeds: SeedsOption = None,
    sizes: SizesOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Run folder, runs/NAME by default; of several recipes, what holds them."
        ),
    ] = None,
    stop_after: Annotated[
        str,
        typer.Option("--stop-after", metavar="STAGE", help="data, teacher, baseline, student, evaluate or report."),
    ] = "report",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make a finished run again whose recipe, rows or code have changed.")
    ] = False,
    jobs: JobsOption = "1",
    engine: EngineOption = "local",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; the result and warnings only.")] = False,
    no_download: Annotated[bool, typer.Option("--no-download", help="Never download a dataset.")] = False,
    json: JsonOption = False,
) -> None:
    """Run recipes: teacher, baseline, distilled student, report.

    A run that was stopped goes on with the same command; --seeds and --sizes may add to a finished one.
    """
    manager = get_manager(ctx)
    from stillhouse.pipeline import run as run_recipe

    settings: dict[str, Any] = {
        "overrides": changes or (),
        "seeds": parse_seeds(seeds),
        "sizes": parse_sizes(sizes),
        "stop_after": stop_after,
        "overwrite": overwrite,
        "download": not no_download,
        "jobs": jobs,
        "engine": engine,
        "manager": manager,
    }
    folders = [out] if len(recipes) == 1 else _folders(recipes, changes or (), out, manager)
    results, failed = [], list[dict[str, str]]()
    for recipe, folder in zip(recipes, folders, strict=True):
        if len(recipes) > 1 and not json:
            print_lines(f"{recipe}:")
        try:
            with show_progress(quiet, warnings=not json or not quiet) as reporter:
                result = run_recipe(recipe, out=folder, reporter=reporter, **settings)
        except StillhouseError as error:
            if len(recipes) == 1:
                raise
            print_error(error, as_json=json)  # the others do not depend on it
            failed.append({"recipe": recipe, "class": type(error).__name__, "what": error.what})
            continue
        results.append(result)
        if not json and is_main_process():
            if result.summary:
                _print_result(result.summary, result.report)
            else:
                print_lines(f"stopped after {stop_after}: {result.folder}")
    if json and is_main_process():
        _print_documents(results, failed, several=len(recipes) > 1)
    if failed:
        raise typer.Exit(2)


def _folders(recipes: Sequence[str], changes: Sequence[str], out: Path | None, manager: Manager) -> list[Path | None]:
    """The run folder of each of several recipes; what cannot be read is told before the first of them has run.

    Raises:
        StillhouseError: a recipe cannot be read, or two would have the same folder.
    """
    from stillhouse.recipe.check import resolve

    names = [resolve(each, manager.registry, overrides=changes).recipe.name for each in recipes]
    bare = [name.rpartition("/")[2] for name in names]
    if twice := [name for name in bare if bare.count(name) > 1]:
        raise RecipeError(
            f"two of the recipes have the run folder '{twice[0]}'", where="RECIPE...", fix="run them one by one"
        )
    return [None if out is None else out / name for name in bare]


def _print_documents(results: Sequence[Any], failed: Sequence[Mapping[str, str]], *, several: bool) -> None:
    documents = [
        {"folder": str(each.folder), "report": str(each.report) if each.report else None, "summary": each.summary}
        for each in results
    ]
    if several:
        print_json(runs=documents, failed=failed)
    else:
        print_json(**documents[0])


def _print_result(summary: dict[str, Any], report: Path | None) -> None:
    from rich.table import Table

    from stillhouse.evaluation.statistics import SAME_MODEL

    metric, verdict = summary["primary_metric"]["name"], summary["verdict"]
    table = Table(box=None, show_header=True, header_style="dim", pad_edge=False)
    for name in ("", f"test {metric}", "parameters", "latency", "size", ""):
        table.add_column(name, justify="left" if name == "" else "right")
    compared_with = verdict.get("compared_with", SAME_MODEL)
    alone = "same student, no distillation" if compared_with == SAME_MODEL else compared_with
    notes = {"teacher": "", "baseline": alone, "student": _gain(verdict)}
    for role, note in notes.items():
        model = summary[role]
        if role == "teacher":
            quality = _number(model["metrics"]["test"][metric])
        else:
            quality = f"{_number(model['mean'])}{_spread(model['mean'], model['ci95'])}"
        table.add_row(
            role,
            quality,
            in_count(model["parameters"]),
            f"{model['latency_ms']['p50']:.3g} ms" if model["latency_ms"] is not None else "?",
            in_bytes(model["bytes"]),
            note,
        )
    for name, metrics in summary["references"].items():
        table.add_row(name, _number(metrics[metric]), "", "", "", "reference")
    for name, control in summary["controls"].items():
        table.add_row(name, _number(control["mean"]), "", "", "", "control, no distillation")
    console().print(table)
    print_lines("")
    print_prose(verdict["sentence"])
    for line in _lines_of_method(summary):
        print_prose(line)
    if (worth := summary.get("worth")) is not None:
        print_prose(worth["sentence"])
    if report is not None:
        print_lines(f"report: {report}")


def _lines_of_method(summary: dict[str, Any]) -> list[str]:
    """Results of the method's own, where it has some: a line for those of several models, one for all others."""
    table = (summary.get("method_facts") or {}).get("table") or []
    counts = (
        {name for name, value in summary["method_facts"]["per_seed"][0].items() if type(value) is int} if table else ()
    )
    by_name: dict[str, list[str]] = {}
    for row in table:
        name, mean = row["name"], row["mean"]
        shown = (
            in_bytes(round(mean)) if name.startswith("bytes") else f"{mean:,.0f}" if name in counts else _number(mean)
        )
        said = f"{shown}{_spread(mean, row['ci95']) if name not in counts else ''}"
        by_name.setdefault(name if row["model"] else "", []).append(f"{row['model'] or name.replace('_', ' ')} {said}")
    return [f"{name.replace('_', ' ') or summary['method']['id']}: {'; '.join(said)}" for name, said in by_name.items()]


def _spread(mean: float, bounds: list[float] | None) -> str:
    """Half the interval's width, or its ends where it is cut off at the greatest or least value of the metric; nothing
    where seeds do not differ."""
    if bounds is None or bounds[0] == bounds[1]:
        return ""
    below, above = mean - bounds[0], bounds[1] - mean
    if not math.isclose(below, above, rel_tol=1e-6, abs_tol=1e-9):
        return f" [{_number(bounds[0])}, {_number(bounds[1])}]"
    return f" ± {_number(above)}"


def _gain(verdict: dict[str, Any]) -> str:
    if verdict["gain_ci95"] is None:
        from stillhouse.evaluation.statistics import why_no_interval

        return f"gain {_number(verdict['gain'])} ({why_no_interval(verdict)})"
    low, high = verdict["gain_ci95"]
    word = {
        True: "distillation helped",
        False: "distillation hurt",
        None: "no proof that distillation helped",
    }[verdict["helped"]]
    return f"gain {_number(verdict['gain'])} [{_number(low)}, {_number(high)}]: {word}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def init(
    ctx: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A recipe of `stillhouse recipes`.", autocompletion=complete_recipe),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; NAME.yaml here by default.")
    ] = None,
) -> None:
    """Write an editable copy of a recipe."""
    component = get_manager(ctx).registry.get("recipe", recipe)
    from stillhouse.storage import write_text

    path = out or Path(f"{component.spec.name}.yaml")
    if path.exists():
        raise RunFolderError(f"'{path}' exists", where=str(path), fix="choose another file with --out, or remove it")
    text = component.load()
    write_text(path, f"# A copy of {component.id}. Run it with: stillhouse run {path}\n{text}")
    print_lines(f"wrote {path}; run it with: stillhouse run {path}")


def schema(ctx: typer.Context) -> None:
    """Print the JSON Schema of recipes, for editors.

    It has the options of all installed components.
    """
    manager = get_manager(ctx)
    import json

    from stillhouse.recipe import recipe_schema

    print(json.dumps(recipe_schema(manager.registry), indent=2))
