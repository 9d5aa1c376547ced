"""How a hook, a spec field, a component or an option is deprecated, and which notice its users get.

========================  ============================================================  ===========================
what                      how it is marked                                              who gets the notice, and when
========================  ============================================================  ===========================
component                 ``deprecated="law/cases"`` in its spec                        the user, when it is loaded
option, renamed           ``hidden: Annotated[int, Renamed("width")] = 64``             the user, who writes it
option, to be removed     ``width: Annotated[int, Deprecated("leave it out")] = 64``    the user, who writes it
hook, renamed             an entry in `hookspecs.RENAMED_HOOKS`                         the author, at loading
spec field                ``field(default="", metadata=deprecated_field("..."))``       the author, at loading
========================  ============================================================  ===========================

Every warning is a `FutureWarning` that names the plugin, its distribution, and what to write instead. What is
deprecated keeps working for one minor version of its distribution at least; the first two rows are for plugin authors,
the last two for the core.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Deprecated:
    """Marks an option that will go, inside ``Annotated``.

    Args:
        instead: what to write instead, e.g. ``"leave it out"``.
        removed_in: version of the distribution that removes it; empty when that is not decided.
    """

    instead: str
    removed_in: str = ""


@dataclass(frozen=True)
class Renamed:
    """Marks an option that used to have another name, inside ``Annotated``; the old name still works, and warns.

    Args:
        old: the former name.
        removed_in: version of the distribution in which the old name stops working; empty when that is not decided.
    """

    old: str
    removed_in: str = ""


def deprecated_field(instead: str, *, removed_in: str = "") -> dict[str, Any]:
    """Metadata of a deprecated field of a spec class, for ``dataclasses.field``."""
    return {"deprecated": Deprecated(instead, removed_in)}


def notice(what: str, mark: Deprecated) -> str:
    """The sentence for a user: what is deprecated, until when, and what to write instead."""
    until = f" and goes in {mark.removed_in}" if mark.removed_in else ""
    return f"{what} is deprecated{until}: {mark.instead}"


def warn(message: str) -> None:
    """Tell whoever runs the program; `FutureWarning` is shown by default."""
    warnings.warn(message, FutureWarning, stacklevel=3)


def used_fields(specs: Iterable[Any]) -> list[str]:
    """Sentences on the deprecated fields that the given specs set."""
    found = []
    for spec in specs:
        for field in dataclasses.fields(spec):
            mark = field.metadata.get("deprecated")
            if isinstance(mark, Deprecated) and getattr(spec, field.name) != field.default:
                found.append(notice(f"field '{field.name}' of {type(spec).__name__}(name={spec.name!r})", mark))
    return found
