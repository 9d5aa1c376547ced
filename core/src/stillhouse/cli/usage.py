"""How commands explain themselves: help texts with examples, and what is said of a line that cannot be understood."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from stillhouse.errors import UsageError, nearest

FIND, RUN, RESULTS, UPKEEP = "What there is", "Runs", "Results", "Plugins and upkeep"
"""Sections of ``stillhouse --help``."""

_NotUnderstood: Any = typer.BadParameter.__base__
"""The parser's own base of errors: of click, or of the copy of it that newer releases of typer have."""
_QUOTED = re.compile(r"'([^']*)'")
_TYPES = {"valid integer": "a whole number", "valid number": "a number", "valid float": "a number"}
"""What the parser says of a value of the wrong type, in our words."""


def examples(*lines: str) -> str:
    """The end of a command's help: whole command lines, which are also shown where an argument is missing."""
    return "\n".join(f"stillhouse {line}" for line in lines)


class Command(TyperCommand):
    """A command whose help names arguments as they are written, and ends with the `examples` of its epilog."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Options, then the arguments by their metavars."""
        arguments = [_written(each) for each in self.params if each.param_type_name == "argument"]
        return ["[OPTIONS]", *arguments]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options, aligned."""
        parts: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if record is not None and each.param_type_name == "argument":
                # That it is required is told by its name, which stands in no brackets.
                text = re.sub(r"\s*\[required\]$", "", record[1])
                parts["Arguments"].append((_written(each), text))
            elif record is not None:
                parts["Options"].append(record)
        for title, rows in parts.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples as they are typed: one a line, never broken."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(TyperGroup):
    """Commands in sections by their ``rich_help_panel``, each with the whole first sentence of its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One aligned list a section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                title = panel if isinstance(panel, str) else "Commands"
                sections.setdefault(title, []).append((name, command.get_short_help_str(limit=200)))
        width = max((len(name) for rows in sections.values() for name, _ in rows), default=0)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


def _written(argument: Any) -> str:
    """An argument as a command line has it."""
    return argument.metavar or str(argument.name).upper()


@contextmanager
def understood() -> Iterator[None]:
    """Tell what the parser cannot understand as every other error is told.

    Raises:
        UsageError: it was not understood.
    """
    try:
        yield
    except _NotUnderstood as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # no error: the help is shown
            raise
        raise _told(error) from error


def _told(error: Any) -> UsageError:
    command, path = getattr(error.ctx, "command", None), getattr(error.ctx, "command_path", "stillhouse")
    message, help_line = error.format_message().rstrip("."), f"see: {path} --help"
    options = [each for param in getattr(command, "params", ()) for each in param.opts]
    commands = getattr(command, "commands", {})
    epilog = getattr(command, "epilog", None)
    example = f"for example: {epilog.splitlines()[0]}" if epilog and not commands else help_line
    what, where, fix = message[:1].lower() + message[1:], path, help_line
    kind = type(error).__name__
    if kind == "NoSuchOption":
        what = f"there is no option '{error.option_name}'"
        fix = _did_you_mean(error.option_name, options) or help_line
        if error.option_name in _global_options(error.ctx):
            what, fix = f"option '{error.option_name}' requires an argument", f"give it a value; {help_line}"
    elif message.startswith("No such command"):
        name = _QUOTED.findall(message)[0]
        what, fix = f"there is no command '{name}'", _did_you_mean(name, commands) or help_line
    elif kind == "MissingParameter" and error.param is not None:
        what, fix = f"{_name_of(error.param)} is missing", example
    elif kind == "BadParameter" and error.param is not None:
        where = f"{path}, {_name_of(error.param)}"
        what, fix = _bad_value(error.message, example)
    elif "unexpected extra argument" in message:
        what = f"unexpected argument {message.rpartition('(')[2].rstrip(')')}"
        if path == "stillhouse predict":
            fix = "give one file, or the folder that holds them"
    elif "requires an argument" in message:
        fix = f"give it a value; {help_line}"
    return UsageError(what, where=where, fix=fix)


def _global_options(ctx: Any) -> list[str]:
    return [] if ctx is None else [each for param in ctx.find_root().command.params for each in param.opts]


def _did_you_mean(wrong: str, known: Any) -> str:
    """The nearest of the known names; empty where none is near, since the help lists them better than one line."""
    hint = nearest(wrong, known)
    return hint if hint.startswith("did you mean") else ""


def _name_of(param: Any) -> str:
    return _written(param) if param.param_type_name == "argument" else str(param.opts[0])


def _bad_value(message: str, example: str) -> tuple[str, str]:
    """What is wrong with a value, and the fix."""
    said = message.removeprefix("Value error, ").rstrip(".")
    if " one of " in said and len(quoted := _QUOTED.findall(said)) > 1:
        return f"'{quoted[0]}' is unknown", nearest(quoted[0], quoted[1:])
    for parsers, ours in _TYPES.items():
        if parsers in said:
            return f"the value is not {ours}", example
    return said, example
