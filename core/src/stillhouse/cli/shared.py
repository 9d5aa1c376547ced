"""What all commands share: the global options, and the manager made from them on first use.

A command takes ``ctx: typer.Context``, asks `get_manager` for plugins, and has ``json: JsonOption = False``
when it prints a result. The global options need no mention in a command: `hoisted` moves them in front of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.output import print_warning

if TYPE_CHECKING:
    from stillhouse.plugins.manager import Manager

FLAGS = ("--no-plugins", "--debug")
"""Global options without a value."""
VALUES = ("--disable-plugin", "--plugin")
"""Global options with a value."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@dataclass
class Settings:
    """The global options of one invocation; the object of the typer context."""

    no_plugins: bool = False
    disable: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    debug: bool = False
    _manager: Manager | None = field(default=None, init=False)

    def manager(self) -> Manager:
        """The manager that these options and the environment ask for; made once."""
        if self._manager is None:
            from stillhouse.plugins.manager import Manager

            self._manager = Manager.from_environment(no_plugins=self.no_plugins, disable=self.disable, files=self.files)
            for warning in self._manager.warnings:
                print_warning(warning)
        return self._manager


def get_manager(ctx: typer.Context, *, lenient: bool = False) -> Manager:
    """The plugins for this command.

    Args:
        ctx: context of the command.
        lenient: go on with whatever could be loaded; for the ``plugins`` commands, which must always work.

    Raises:
        PluginError: a file named by ``--plugin`` cannot be used, or ``STILLHOUSE_STRICT_PLUGINS`` is set and
            an installed plugin cannot be used.
    """
    from stillhouse.plugins.manager import strict

    manager = ctx.ensure_object(Settings).manager()
    if not lenient:
        manager.require_requested()
        if strict():
            manager.require_all()
    return manager


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes that begin so, by id or by bare name, for the shell."""
    return _ids(incomplete, "recipe")


def complete_component(incomplete: str) -> list[str]:
    """Components that begin so, by id or by bare name, for the shell."""
    return _ids(incomplete, None)


def _ids(incomplete: str, kind: str | None) -> list[str]:
    from stillhouse.plugins.manager import Manager

    ids = [*dict.fromkeys(each.id for each in Manager.from_environment().registry.components(kind))]
    # A shell drops what does not begin with the word: a bare name is completed as such, where one plugin alone has it.
    bare = [each.partition("/")[2] for each in ids]
    names = [name for name in bare if name.startswith(incomplete) and bare.count(name) == 1] if incomplete else []
    return [each for each in ids if each.startswith(incomplete)] + names


def complete_run(incomplete: str) -> list[str]:
    """Run folders under ``runs`` that begin so."""
    from stillhouse.evaluation.runs import find_runs

    folder = Path("runs")
    return [str(each) for each in find_runs(folder) if str(each).startswith(incomplete)] if folder.is_dir() else []


def hoisted(args: Sequence[str]) -> list[str]:
    """``args`` with the global options first, so that ``run X --plugin f.py`` is ``--plugin f.py run X``."""
    front: list[str] = []
    rest: list[str] = []
    bare: list[str] = []  # without its value it stays last, or it would take the command for one
    waiting = iter(args)
    for arg in waiting:
        if arg == "--":
            rest += [arg, *waiting]
        elif arg in FLAGS or arg.partition("=")[0] in VALUES:
            if arg not in VALUES:
                front.append(arg)
            elif (value := next(waiting, None)) is not None:
                front += [arg, value]
            else:
                bare.append(arg)
        else:
            rest.append(arg)
    return front + rest + bare
