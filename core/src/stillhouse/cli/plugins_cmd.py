"""``stillhouse plugins list``, ``show``, ``check`` and ``new``: what is installed, what is wrong with it, one more.

These commands work whatever the state of the installed plugins is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.output import STATUS_STYLES, assembled, print_fields, print_json, print_lines, print_table, styled
from stillhouse.cli.shared import JsonOption, get_manager
from stillhouse.cli.usage import Command, Group, examples

if TYPE_CHECKING:
    from rich.text import Text

    from stillhouse.plugins.records import PluginRecord

app = typer.Typer(
    cls=Group, help="See and check the installed plugins, or write one.", no_args_is_help=True, rich_markup_mode=None
)

DEFAULT_KINDS = "dataset,teacher,student,head,recipe"
"""What `plugins new` writes unless told otherwise."""


@app.command("list", cls=Command, epilog=examples("plugins list", "plugins list --json"))
def list_plugins(ctx: typer.Context, json: JsonOption = False) -> None:
    """List installed plugins with status; of broken ones cause and fix."""
    records = get_manager(ctx, lenient=True).records
    if json:
        print_json(plugins=[each.describe() for each in records])
        return
    rows = [
        (
            each.name,
            _status(each),
            f"{each.source}{' (editable)' if each.editable else ''}",
            str(len(each.components)),
            "" if each.load_ms is None else f"{each.load_ms:.0f} ms",
        )
        for each in records
    ]
    print_table(("Plugin", "Status", "From", "Components", "Load"), rows, wrap=("From",), right=("Components", "Load"))
    for each in records:
        if str(each.status) not in STATUS_STYLES:
            print_lines("")
            _print_problem(each)


@app.command("show", cls=Command, epilog=examples("plugins show core"))
def show_plugin(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin, or of its distribution.")],
    json: JsonOption = False,
) -> None:
    """Show one plugin: its source, its status and its components."""
    manager = get_manager(ctx, lenient=True)
    records = manager.plugin(name)
    if json:
        print_json(plugins=[each.details() for each in records])
        return
    for position, each in enumerate(records):
        if position:
            print_lines("")
        print_lines(assembled((each.name, "bold"), "  ", _status(each)))
        print_fields(
            [
                ("from", each.source),
                ("location", f"{each.location}{' (editable)' if each.editable else ''}"),
                ("requires core", each.requires_core),
                ("sha256", each.sha256),
                ("load", "" if each.load_ms is None else f"{each.load_ms:.1f} ms"),
                ("error", each.error),
                ("fix", each.fix),
                *(("warning", warning) for warning in each.warnings),
            ]
        )
        if found := manager.components_of(each):
            print_lines("")
            rows = [(component.kind, component.id, component.spec.summary) for component in found]
            print_table(("Kind", "Id", "Summary"), rows, wrap=("Summary",))


@app.command(
    "check",
    cls=Command,
    epilog=examples("plugins check medicine", "plugins check stillhouse-law --quick", "plugins check mine.py"),
)
def check_plugins(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|PATH]", help="A plugin, its source folder, or a file of hook implementations."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only what is declared: nothing is built, trained or run.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check that plugins keep the contract.

    That is what they declare, and what their components do on a tiny budget.
    Without NAME all installed plugins are checked. The exit status is 1 when a check fails.
    """
    from stillhouse.testing.plan import check_all

    reports = check_all(get_manager(ctx, lenient=True), name, quick=quick)
    if json:
        print_json(plugins=[each.describe() for each in reports])
    else:
        for report in reports:
            print_lines(assembled((report.record.name, "bold"), f"  {report.record.source}"))
            for check in report.checks:
                mark, style = {"passed": ("ok", "green"), "skipped": ("skipped", "yellow")}.get(
                    check.outcome, ("FAILED", "bold red")
                )
                if check.outcome == "passed":
                    continue
                print_lines(assembled("  ", (mark, style), f"  {check.id}: {check.problem}"))
                if check.fix:
                    print_lines(assembled("    fix: ", check.fix))
            print_lines(f"  {report.summary}")
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


@app.command(
    "new",
    cls=Command,
    epilog=examples(
        "plugins new law", "plugins new grid --task forecast", "plugins new losses --kind objective,metric"
    ),
)
def new_plugin(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the plugin, e.g. law: its components are law/...")
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            metavar="KIND,...",
            help="Kinds to write: dataset, augmenter, teacher, student, head, objective, method, metric, recipe.",
        ),
    ] = DEFAULT_KINDS,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="TASK",
            help="What the examples do: multiclass, binary, multilabel, regression, forecast, text, image, signal.",
        ),
    ] = "multiclass",
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="New folder to write into; stillhouse-NAME by default."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a new plugin that works at once.

    It is a complete distribution with components, tests and a CI workflow, ready to change.
    """
    from stillhouse.scaffold import check_kinds, check_name, check_task, write_plugin

    kinds = check_kinds(kind)
    if task != "multiclass" and kind == DEFAULT_KINDS:
        kinds = tuple(each for each in kinds if each != "head")  # the core's
    chosen = check_task(task, kinds)
    names = check_name(name, get_manager(ctx, lenient=True))
    folder = output or Path(names.distribution)
    written = write_plugin(names, folder, kinds, chosen)
    if json:
        print_json(
            folder=str(folder),
            plugin=names.plugin,
            distribution=names.distribution,
            package=names.package,
            files=[each.as_posix() for each in written],
        )
        return
    print_lines(assembled("Wrote ", (names.distribution, "bold"), f" into {folder}: {len(written)} files. Next:"))
    print_lines(f"  cd {folder}\n  pip install -e '.[test]'\n  pytest")
    if "recipe" in kinds:
        print_lines(f"  stillhouse run {names.plugin}/example")


def _status(record: PluginRecord) -> Text:
    return styled(str(record.status), style=STATUS_STYLES.get(str(record.status), "bold red"))


def _print_problem(record: PluginRecord) -> None:
    head = assembled((f"{record.name} ", "bold"), f"({record.source}) is ", _status(record), f": {record.error}")
    print_lines(head.append("\n  fix: ", "cyan").append(record.fix))
