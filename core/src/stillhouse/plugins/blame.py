"""Whose code an exception came out of: a plugin's line, or ours."""

from __future__ import annotations

import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

from stillhouse.plugins.manager import live_managers
from stillhouse.plugins.records import PluginRecord
from stillhouse.plugins.registry import Component

OURS = "stillhouse"


@dataclass(frozen=True)
class Origin:
    """The innermost line of a plugin, or of a user's own module, that an exception passed through.

    Attributes:
        file: the source file.
        line: number of the line.
        function: the function or method.
        code: text of the line; empty when the source cannot be read.
        plugin: the plugin, where the module is one's.
        component: the component whose target the code is, or whose module alone has it.
    """

    file: str
    line: int
    function: str
    code: str
    plugin: PluginRecord | None = None
    component: Component | None = None

    @property
    def who(self) -> str:
        """``plugin 'law' (stillhouse-law 1.2)``, or the file."""
        return f"plugin '{self.plugin.name}' ({self.plugin.source})" if self.plugin else self.file

    @property
    def where(self) -> str:
        """The component, file and line, and the function."""
        of = f"{self.component.kind} '{self.component.id}', " if self.component else ""
        return f"{of}{self.file}:{self.line} in {self.function}"

    @property
    def fix(self) -> str:
        """What is to be done, by whom."""
        shown = f": {self.code}" if self.code else ""
        if self.plugin is None or self.plugin.editable or not self.plugin.distribution:
            return f"correct line {self.line} of {Path(self.file).name}{shown}"
        return (
            f"report it to the author of {self.plugin.distribution}, who corrects line {self.line} of "
            f"{Path(self.file).name}{shown}"
        )


def origin(error: BaseException) -> Origin | None:
    """See `Origin`; None when the exception passed through no code but ours and that of libraries."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    for frame, line in reversed(frames):
        module, code = str(frame.f_globals.get("__name__", "")), frame.f_code
        if module.partition(".")[0] == OURS:
            continue
        plugin, component = _owner(module, code)
        if plugin is None and _is_library(code.co_filename):
            continue
        text = traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=True).line or ""
        return Origin(code.co_filename, line, code.co_qualname, text.strip(), plugin, component)
    return None


def _owner(module: str, code: CodeType) -> tuple[PluginRecord | None, Component | None]:
    for manager in live_managers():
        for record in manager.records:
            if record.is_file and record.location == code.co_filename:
                return record, _component(manager.components_of(record), module, code)
        for component in manager.registry.components():
            package = component.spec.target.partition(":")[0].partition(".")[0]
            if package == module.partition(".")[0] and package != OURS:
                return component.plugin, _component(manager.components_of(component.plugin), module, code)
    return None, None


def _component(components: list[Component] | tuple[Component, ...], module: str, code: CodeType) -> Component | None:
    inside = [each for each in components if each.spec.target.partition(":")[0] == module]
    for each in inside:
        attribute = each.spec.target.partition(":")[2]
        if code.co_qualname == attribute or code.co_qualname.startswith(f"{attribute}."):
            return each
    return inside[0] if len(inside) == 1 else None


def _is_library(file: str) -> bool:
    if file.startswith("<") or {"site-packages", "dist-packages"} & set(Path(file).parts):
        return True
    return any(file.startswith(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
