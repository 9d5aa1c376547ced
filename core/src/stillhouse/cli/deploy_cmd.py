"""``stillhouse predict`` and ``export``: what a finished run is for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli.output import print_json, print_lines, print_warning, refuse_existing
from stillhouse.cli.shared import JsonOption, complete_run, get_manager
from stillhouse.cli.usage import RESULTS, Command, examples
from stillhouse.errors import UsageError

SUFFIXES = (".csv", ".jsonl")
"""Of files that predictions are written to."""

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder, e.g. runs/rul-fd001.", autocompletion=complete_run)
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="Which student; by default the best on validation.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out when it exists.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command(
        "predict",
        cls=Command,
        rich_help_panel=RESULTS,
        epilog=examples(
            "predict runs/rul-fd001 engines.csv",
            "predict runs/tabular loans.csv --out scores.csv",
            "predict runs/tabular - --jsonl < loans.jsonl",
        ),
    )(predict)
    app.command(
        "export",
        cls=Command,
        rich_help_panel=RESULTS,
        epilog=examples("export runs/rul-fd001", "export runs/rul-fd001 --format torch --out student.pt2"),
    )(export)


def predict(
    ctx: typer.Context,
    run: RunArgument,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="File, or folder of images or sounds, in the form that the run's dataset reads; - for CSV or JSON "
            "Lines on stdin.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write, .csv or .jsonl; printed as CSV otherwise."),
    ] = None,
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a row, instead of CSV.")] = False,
    json: JsonOption = False,
) -> None:
    """Predict new data with a run's student."""
    if out is not None:
        if out.suffix.lower() not in SUFFIXES:
            raise UsageError(
                f"predictions are not written as '{out.suffix}'", where=f"--out {out}", fix="a file .csv or .jsonl"
            )
        if jsonl and out.suffix.lower() != ".jsonl":
            raise UsageError(
                f"'{out.name}' is a CSV file, and --jsonl asks for JSON Lines",
                where=f"--out {out}",
                fix=f"--out {out.with_suffix('.jsonl')}, or leave out --jsonl",
            )
        refuse_existing(out, overwrite=overwrite)
    manager = get_manager(ctx)
    from stillhouse.deploy.predicting import predict as predict_file
    from stillhouse.deploy.predicting import read_stdin, write_columns
    from stillhouse.storage import replacing

    lines = jsonl or (out is not None and out.suffix.lower() == ".jsonl")
    with _telling_warnings(), read_stdin() if file == "-" else contextlib.nullcontext(Path(file)) as path:
        columns = predict_file(run, path, seed=seed, manager=manager)
    if out is not None:
        with replacing(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            write_columns(stream, columns, lines=lines)
    if json:
        print_json(columns=columns)
    elif out is not None:
        print_lines(f"wrote {len(next(iter(columns.values())))} rows to {out}")
    else:
        write_columns(sys.stdout, columns, lines=lines)


@contextlib.contextmanager
def _telling_warnings() -> Iterator[None]:
    """Print what components warn of, before an error too, which may refer to it."""
    from stillhouse.progress import collect_warnings

    messages: list[str] = []
    try:
        with collect_warnings() as messages:
            yield
    finally:
        for message in messages:
            print_warning(message)


def export(
    ctx: typer.Context,
    run: RunArgument,
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="onnx or torch.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; RUN/export/ by default.")
    ] = None,
    seed: SeedOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Export a run's student to a file that is checked against it."""
    if out is not None:
        refuse_existing(out, overwrite=overwrite)
    manager = get_manager(ctx)
    from stillhouse.deploy.exporting import export as export_student

    with _telling_warnings():
        path = export_student(run, format=format, out=out, seed=seed, manager=manager)
    print_lines(f"wrote {path} and {path.name}.json; outputs checked against the model")
