"""How commands speak: results on stdout, everything else on stderr, and JSON when asked for."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stillhouse.errors import RunFolderError, StillhouseError

if TYPE_CHECKING:  # rich takes longer than all else that --help needs
    from rich.console import Console
    from rich.text import Text

SCHEMA = 1
"""Version of every JSON document that a command prints."""

STATUS_STYLES = {"active": "green", "disabled": "dim"}
"""Colour of a plugin's status; every other status is red."""


LEAST_WIDTH = 12
"""Characters of a column of a table that may break lines."""


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal; piped lines are never wrapped, so that ``grep`` finds whole rows."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(stderr=stderr, width=2000 if piped else None, highlight=False, markup=False, emoji=False)


def styled(text: str, style: str = "") -> Text:
    """Text in a style of rich, e.g. "bold"."""
    from rich.text import Text

    return Text(text, style=style)


def assembled(*parts: str | Text | tuple[str, str]) -> Text:
    """Text of parts, each plain or with a style."""
    from rich.text import Text

    return Text.assemble(*parts)


def refuse_existing(path: Path, *, overwrite: bool, option: str = "--out") -> None:
    """Nothing is overwritten unasked.

    Raises:
        RunFolderError: the file exists, and ``overwrite`` is not set.
    """
    if path.exists() and not overwrite:
        raise RunFolderError(
            f"'{path}' exists", where=f"{option} {path}", fix="choose another file, or give --overwrite"
        )


def print_json(**values: Any) -> None:
    """One JSON document on stdout, with its schema version."""
    print(json.dumps({"schema": SCHEMA} | values, indent=2, ensure_ascii=False))


def print_lines(text: str | Text, *, stderr: bool = False) -> None:
    """Text as it is; the terminal wraps it, so that commands in it can be copied."""
    console(stderr=stderr).print(text, soft_wrap=True)


def print_prose(text: str) -> None:
    """A sentence on stdout, broken between words in a terminal and in one line elsewhere."""
    out = console()
    out.print(text, soft_wrap=not out.is_terminal)


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    wrap: Sequence[str] = (),
    right: Sequence[str] = (),
) -> None:
    """A table on stdout; only the columns in ``wrap`` may break lines when the terminal is narrow. Columns in
    ``right`` are numbers, which end at the same place."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for header in headers:
        side: Literal["left", "right"] = "right" if header in right else "left"
        # A column that may break lines must not be squeezed out of sight by the others.
        least = LEAST_WIDTH if header in wrap else None
        table.add_column(header, no_wrap=header not in wrap, overflow="fold", justify=side, min_width=least)
    for row in rows:
        table.add_row(*(styled(cell) if isinstance(cell, str) else cell for cell in row))
    console().print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Aligned ``name  value`` lines on stdout; empty values are left out."""
    shown = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print_lines(assembled("  ", (name.ljust(width), "dim"), "  ", value))


def print_warning(text: str) -> None:
    """One line on stderr."""
    print_lines(assembled(("warning: ", "yellow"), text), stderr=True)


def print_error(error: StillhouseError, *, as_json: bool) -> None:
    """The error on stderr, as one block or as a JSON document."""
    name = type(error).__name__
    if as_json:
        described = {"class": name, "what": error.what, "where": error.where, "fix": error.fix}
        print(json.dumps({"schema": SCHEMA, "error": described}, ensure_ascii=False), file=sys.stderr)
        return
    block = assembled((f"{name}: ", "bold red"), (error.what, "bold"))
    for label, value in (("where", error.where), ("fix", error.fix), ("docs", error.anchor)):
        if value:
            block.append(f"\n  {label + ':':<7}", "cyan").append(value)
    print_lines(block, stderr=True)


REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What a system says of a full disk, a used-up quota, and files that one may not write or read."""


def refused_file(error: Exception) -> RunFolderError | None:
    """A file that the system refuses, as an error that the user can fix; None for any other exception."""
    if not isinstance(error, OSError) or error.errno not in REFUSED:
        return None
    return RunFolderError(
        f"the system refuses a file: {error.strerror}",
        where=str(error.filename or "it does not say which"),
        fix="make room, or take a place that you may write to and read; a run that has begun goes on with its command",
    )


def print_defect(error: Exception, *, as_json: bool, args: Sequence[str]) -> None:
    """An exception that is no `StillhouseError` is a defect: of a plugin, whose line is named, or of ours."""
    from stillhouse.plugins.blame import origin

    what = f"{type(error).__name__}: {error}"
    again = [*args, *(() if "--debug" in args else ("--debug",))]
    see = f"see the traceback with: {shlex.join(['stillhouse', *again])}"
    found = origin(error)
    fix = see if found is None else f"{found.fix}; {see}"
    if as_json:
        described = {"class": "Defect", "what": what, "where": found.where if found else "", "fix": fix}
        print(json.dumps({"schema": SCHEMA, "error": described}, ensure_ascii=False), file=sys.stderr)
        return
    if found is not None:
        block = assembled((f"An exception came out of {found.who}. ", "bold red"), (what, "bold"))
        for label, value in (("where", found.where), ("fix", fix)):
            block.append(f"\n  {label + ':':<7}", "cyan").append(value)
        print_lines(block, stderr=True)
        return
    block = assembled(("This is a defect, not a mistake of yours. ", "bold red"), (what, "bold"))
    block.append("\n  fix:   ", "cyan").append(fix).append(", and report it")
    print_lines(block, stderr=True)
