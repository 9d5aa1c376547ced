"""One taxonomy of errors: every message says what is wrong, where, and how to fix it.

Each class has an anchor of its own in the error reference (``docs/reference/errors.md``). The command line prints
an error as one block and exits with its ``exit_code``; ``--debug`` shows the traceback as well.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable

DOCS = "https://stillhouse.readthedocs.io/en/latest/reference/errors/"


class StillhouseError(Exception):
    """Base of every error that a user can fix: bad input, a missing file, a broken plugin.

    Args:
        what: one sentence that says what is wrong, with the wrong value.
        where: the place (file, row, field, component); empty when there is none.
        fix: what to do about it; empty when the sentence already says so.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.fix = what, where, fix

    @property
    def anchor(self) -> str:
        """Address of this class in the error reference."""
        return f"{DOCS}#{type(self).__name__.lower()}"

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class UsageError(StillhouseError):
    """A command line cannot be understood: an unknown command or option, a missing argument, a value of the wrong
    type."""


class RecipeError(StillhouseError):
    """A recipe cannot be read: a syntax error, an unknown field, a value of the wrong type."""


class UnknownComponentError(StillhouseError):
    """A recipe or a command names a component (or recipe, or plugin) that no active plugin provides."""


class AmbiguousComponentError(StillhouseError):
    """A bare name fits components of several plugins; write ``plugin/name``."""


class OptionError(StillhouseError):
    """A component was given an option it does not have, or a value it does not take."""


class IncompatibleError(StillhouseError):
    """Two parts of a recipe do not fit: an objective and a head, a model and the dataset's inputs, two feature
    shapes."""


class MissingDependencyError(StillhouseError):
    """A component needs a package that is not installed; the message names the extra that brings it."""


class PluginError(StillhouseError):
    """An installed plugin cannot be used; ``status`` in ``stillhouse plugins list`` says in which way."""


class SpecError(PluginError, ValueError):
    """A component spec is malformed; raised where the author makes it."""


class DataError(StillhouseError):
    """Data cannot be used as they are: missing, truncated or corrupt files, NaN, labels outside the declared set."""


class LeakageError(DataError):
    """The same group (patient, machine, card, speaker) or row is in two splits, or test rows precede training rows."""


class TrainingError(StillhouseError):
    """Training cannot go on: the loss is not finite, or a guard rail (frozen teacher, student mode) was violated."""


class ServiceError(StillhouseError):
    """A service that a component asks (a language model behind HTTP) does not answer, refuses, or its budget is
    spent."""


class RunFolderError(StillhouseError):
    """A run folder is missing, incomplete, of another recipe, or cannot be written."""


class ExportError(StillhouseError):
    """A student cannot be exported in the wanted format, or the exported file disagrees with the model."""


def require_package(package: str, what: str, *, where: str, fix: str) -> None:
    """Refuse to go on without an optional package.

    Args:
        package: its import name; it is not imported.
        what: what needs it, as a sentence that names it.
        where: where that was asked for.
        fix: the command that installs it.

    Raises:
        MissingDependencyError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(what, where=where, fix=fix)


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Nearest of the ``known`` names as "did you mean ...?" or the sorted list of them, for the ``fix`` of an error."""
    names = sorted(known)
    # A name that differs in case alone may share no letter with what was written.
    close = [name for name in names if name.casefold() == wrong.casefold()][:1]
    close = close or difflib.get_close_matches(wrong, names, n=1, cutoff=0.55)
    if not close:  # a bare name against full ids: compare what follows the last slash
        tails = {name.rsplit("/", 1)[-1]: name for name in names}
        close = [tails[t] for t in difflib.get_close_matches(wrong.rsplit("/", 1)[-1], tails, n=1, cutoff=0.6)]
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "none is available"
