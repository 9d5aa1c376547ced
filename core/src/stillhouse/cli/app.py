"""The typer application: global options, the commands of each room, and what becomes of errors."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stillhouse.cli import (
    check_cmd,
    components_cmd,
    deploy_cmd,
    label_cmd,
    plugins_cmd,
    run_cmd,
    runs_cmd,
    tune_cmd,
    upkeep_cmd,
)
from stillhouse.cli.output import print_defect, print_error, refused_file
from stillhouse.cli.shared import Settings, hoisted
from stillhouse.cli.usage import UPKEEP, Group, understood
from stillhouse.errors import StillhouseError


class _Group(Group):
    """Accepts the global options anywhere on the line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with understood():
            return super().parse_args(ctx, hoisted(args))

    def invoke(self, ctx: Any) -> Any:
        with understood():
            return super().invoke(ctx)


app = typer.Typer(
    name="stillhouse",
    cls=_Group,
    help="Knowledge distillation for vertical domains: run recipes, see what the plugins bring.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # typer's use of rich imports Markdown and a highlighter for every --help
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
# In the order in which they are met: what there is, a run, what became of it, authors and upkeep.
components_cmd.register(app)
run_cmd.register(app)
check_cmd.register(app)
label_cmd.register(app)
tune_cmd.register(app)
runs_cmd.register(app)
deploy_cmd.register(app)
app.add_typer(plugins_cmd.app, name="plugins", rich_help_panel=UPKEEP)
upkeep_cmd.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from stillhouse import __version__

        print(f"stillhouse {__version__}")
        raise typer.Exit


@app.callback(epilog="These options may stand before or after a command. Examples: stillhouse COMMAND --help")
def _global_options(
    ctx: typer.Context,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Load no installed plugin.")] = False,
    disable: Annotated[
        list[str] | None,
        typer.Option("--disable-plugin", metavar="NAME", help="Do not import this plugin; repeatable."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="PATH",
            help="Load a file of hook implementations, or of classes that the recipe names; or a folder; repeatable.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", "-V", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj = Settings(no_plugins=no_plugins, disable=disable or [], files=files or [], debug=debug)


INTERRUPTED = 130
"""Exit status after Ctrl-C."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0 is success; 1 a defect, or a check that failed; 2 an error that the user can fix; 130 an interrupt.
    """
    given = list(sys.argv[1:] if args is None else args)
    as_json, debug = "--json" in given, "--debug" in given
    try:
        app(args=given, prog_name="stillhouse")
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer has caught the interrupt
            print("stopped; the same command goes on where it was", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except StillhouseError as error:
        if debug:
            traceback.print_exc()
        print_error(error, as_json=as_json)
        return error.exit_code
    except Exception as error:
        if debug:
            traceback.print_exc()
        if (refused := refused_file(error)) is not None:
            print_error(refused, as_json=as_json)
            return refused.exit_code
        print_defect(error, as_json=as_json, args=given)
        return 1
    return 0
