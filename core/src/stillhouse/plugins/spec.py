"""What all specs have in common: fields, their check, and the import target, which is resolved on first use."""

from __future__ import annotations

import dataclasses
import importlib
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from stillhouse.errors import MissingDependencyError, SpecError
from stillhouse.kinds import OutputKind

NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
TARGET = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Fields that every component has.

    Args:
        name: id inside the plugin, lower case, e.g. ``"bilstm"``; the full id is ``plugin/name``.
        target: ``"package.module:attribute"``, imported on first use only.
        summary: one line, shown by ``stillhouse components``.
        requires: import names of packages beyond the distribution's own dependencies.
        extra: pip extra of the distribution that brings ``requires``.
        tags: free terms for searching. Two of them say more: "estimator" (a model that is fitted, not trained by
            gradient steps) and "writes" (a model with ``generate``, a head that judges what it writes, a method that
            has it write).
        deprecated: what to write instead; empty while the component is current.

    Raises:
        SpecError: a field is malformed.
    """

    kind: ClassVar[str]
    name: str
    target: str
    summary: str
    requires: tuple[str, ...] = ()
    extra: str = ""
    tags: tuple[str, ...] = ()
    deprecated: str = ""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):  # lists are welcome, and frozen here
            value = getattr(self, each.name)
            if isinstance(value, list):
                object.__setattr__(self, each.name, tuple(value))
        who = f"{type(self).__name__}(name={self.name!r})"
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise SpecError(
                f"'{self.name}' is not a component name",
                where=who,
                fix="lower-case letters, digits and single '-', '_' or '.' between them, e.g. 'bilstm-64'",
            )
        if not isinstance(self.target, str) or not self._target_pattern().fullmatch(self.target):
            raise SpecError(f"target '{self.target}' is malformed", where=who, fix=self._target_example())
        if not isinstance(self.summary, str) or not self.summary.strip() or "\n" in self.summary:
            raise SpecError(
                "the summary must be one non-empty line", where=who, fix="summary='What this is, in a line'"
            )
        for each_name in ("requires", "tags"):
            value = getattr(self, each_name)
            if not isinstance(value, tuple) or not all(isinstance(each, str) and each for each in value):
                raise SpecError(
                    f"{each_name} must be a tuple of strings, not {value!r}",
                    where=who,
                    fix=f"{each_name}=('a', 'b')",
                )

    @staticmethod
    def _target_pattern() -> re.Pattern[str]:
        return TARGET

    @staticmethod
    def _target_example() -> str:
        return "write target='package.module:attribute'"

    def load(self) -> Any:
        """Import and return the target.

        Raises:
            MissingDependencyError: one of ``requires`` is not installed.
            SpecError: the module or the attribute does not exist.
        """
        for package in self.requires:
            try:
                importlib.import_module(package)
            except ImportError as error:
                how = f"pip install '{{distribution}}[{self.extra}]'" if self.extra else f"pip install {package}"
                what = f"{self.kind} '{self.name}' needs the package '{package}'"
                raise MissingDependencyError(what, where=self.target, fix=how) from error
        return load_target(self.target, who=f"{self.kind} '{self.name}'")

    def describe(self) -> dict[str, Any]:
        """The spec as JSON-ready values."""
        return {each.name: _jsonable(getattr(self, each.name)) for each in dataclasses.fields(self)}


def load_target(target: str, *, who: str) -> Any:
    """Import ``"package.module:attribute"``.

    Raises:
        SpecError: the module or attribute is missing, naming ``who`` asked for it.
        MissingDependencyError: the module imports a package that is not installed.
    """
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        where = f"{who}, target '{target}'"
        if f"{module_name}.".startswith(f"{error.name}."):
            raise SpecError(
                f"there is no module '{error.name}'", where=where, fix="correct the spec's target"
            ) from error
        what = f"{who} needs the package '{error.name}'"
        raise MissingDependencyError(what, where=where, fix=f"pip install {error.name}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise SpecError(
                f"'{module_name}' has no '{attribute}'",
                where=f"{who}, target '{target}'",
                fix="correct the spec's target",
            ) from error
    return found


def _jsonable(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    return str(value) if isinstance(value, OutputKind) else value


def check_kinds(spec: Spec, kinds: tuple[Any, ...]) -> None:
    """Raise SpecError where one of ``kinds`` is no output kind."""
    for kind in kinds:
        if kind not in set(OutputKind):
            raise SpecError(
                f"output kind '{kind}' is unknown",
                where=f"{type(spec).__name__}(name={spec.name!r})",
                fix=f"one of {', '.join(OutputKind)}",
            )
