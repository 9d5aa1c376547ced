"""``stillhouse runs`` and ``compare``: what has been run, and whether it differs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stillhouse.cli.numbers import in_bytes, in_count, in_time, metric_value
from stillhouse.cli.output import console, print_json, print_lines, print_prose, print_table, refuse_existing
from stillhouse.cli.shared import JsonOption, complete_run
from stillhouse.cli.usage import RESULTS, Command, examples

NUMBERS = ("Student", "Gain", "Parameters", "Size", "Latency", "Training")
"""Columns of the list of runs that hold numbers."""
HEADERS = ("Run", "Recipe", "Verdict", "Metric", *NUMBERS)
DISPENSABLE = ("Training", "Size", "Recipe", "Parameters", "Metric")
"""Columns that a narrow terminal does without, the first of them first."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(
        "runs",
        cls=Command,
        rich_help_panel=RESULTS,
        epilog=examples("runs", "runs /data/runs --recipe industrial/", "runs --json"),
    )(runs)
    app.command(
        "compare",
        cls=Command,
        rich_help_panel=RESULTS,
        epilog=examples("compare runs/before runs/after", "compare runs/a runs/b runs/c --html comparison.html"),
    )(compare)


def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder that holds runs, or a run.")] = Path(
        "runs"
    ),
    recipe: Annotated[str, typer.Option("--recipe", metavar="WORD", help="Only recipes whose name has this.")] = "",
    json: JsonOption = False,
) -> None:
    """List runs: recipe, verdict or state, quality, size, latency.

    Quality, parameters, size and latency are the student's; the gain is over the same model without a teacher.
    """
    from stillhouse.evaluation.runs import describe_run, find_runs

    found = [each for each in map(describe_run, find_runs(folder)) if recipe in each["recipe"]]
    if json:
        print_json(runs=found)
        return
    if not found:
        kind = f" of a recipe with '{recipe}' in its name" if recipe else ""
        print_lines(f"No run{kind} in '{folder}'.")
        return
    rows = [dict(zip(HEADERS, _row(each), strict=True)) for each in found]
    headers = _fitting(rows)
    chosen = [[row[name] for name in headers] for row in rows]
    print_table(headers, chosen, wrap=("Run", "Recipe"), right=NUMBERS)


def _fitting(rows: list[dict[str, str]]) -> list[str]:
    """The columns that the terminal has room for; ``--json`` always has all that is known."""
    headers, room = list(HEADERS), console().width
    for name in DISPENSABLE:
        widths = [max(len(header), *(len(row[header]) for row in rows)) + 2 for header in headers]
        if sum(widths) - 2 > room:
            headers.remove(name)
    return headers


def _row(run: dict[str, Any]) -> tuple[str, ...]:
    if run["metric"] is None:
        return (run["folder"], run["recipe"], run["state"], "", "", "", "", "", "", "")
    verdict = {True: "helped", False: "hurt", None: "no proof" if run["gain_ci95"] else "no interval"}[run["helped"]]
    latency = run["latency_ms"]
    return (
        run["folder"],
        run["recipe"],
        verdict if run["state"] == "finished" else f"{verdict}, {run['state']}",
        run["metric"],
        metric_value(run["student"]),
        _signed(run["gain"]),
        in_count(run["parameters"]),
        in_bytes(run["bytes"]),
        "?" if latency is None else in_time(latency / 1000),
        "" if run["seconds"] is None else in_time(run["seconds"]),
    )


def _signed(gain: float) -> str:
    """A gain with its sign, in the digits of `metric_value`."""
    return f"{'+' if gain >= 0 else ''}{metric_value(gain)}"


def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...",
            help="Finished runs; the others are held against the first.",
            autocompletion=complete_run,
        ),
    ],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the comparison as a page.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page when it exists.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare runs: where recipes differ, and whether students do.

    Differences have intervals, paired by seed where the runs have the same rows and seeds.
    """
    if html is not None:
        refuse_existing(html, overwrite=overwrite, option="--html")
    from stillhouse.evaluation.comparing import compare_runs
    from stillhouse.evaluation.report.comparison import comparison_page, sentences

    found = compare_runs(folders)
    if html is not None:
        from stillhouse.storage import write_text

        write_text(html, comparison_page(found))
    if json:
        print_json(**found)
        return
    headers = ("Run", "Teacher", "Baseline", "Student", "Parameters", "Latency")
    print_table(headers, [_results(each) for each in found["runs"]], wrap=("Run",), right=headers[1:])
    print_lines("")
    if found["recipe"]:
        rows = [
            (row["field"], *("" if value is None else str(value) for value in row["values"])) for row in found["recipe"]
        ]
        names = [each["name"] for each in found["runs"]]
        print_table(("Field", *names), rows, wrap=names)
    else:
        print_lines("The recipes are the same.")
    print_lines("")
    for line in sentences(found):
        print_prose(line)
    for note in found["notes"]:
        print_prose(note)
    if html is not None:
        print_lines(f"wrote {html}")


def _results(run: dict[str, Any]) -> tuple[str, ...]:
    def quality(model: dict[str, Any]) -> str:
        bounds = model.get("ci95")
        return metric_value(model["mean"]) + (f" ± {metric_value((bounds[1] - bounds[0]) / 2)}" if bounds else "")

    latency = run["student"]["latency_ms"]
    return (
        run["name"],
        metric_value(run["teacher"]["mean"]),
        quality(run["baseline"]),
        quality(run["student"]),
        in_count(run["student"]["parameters"]),
        "?" if latency is None else in_time(latency / 1000),
    )
