"""What a new plugin may be called, and what its distribution and package are called then."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from stillhouse.errors import StillhouseError
from stillhouse.plugins.manager import CORE, NAME, Manager

PREFIX = "stillhouse"
RESERVED = {
    "finance": "stillhouse-finance",
    "medicine": "stillhouse-medicine",
    "industrial": "stillhouse-industrial",
    "audio_vision": "stillhouse-audio-vision",
    "audio-vision": "stillhouse-audio-vision",
}
"""Plugins that belong to the project, and are taken also where they are not installed."""


@dataclass(frozen=True)
class Names:
    """What goes with a plugin's name.

    Args:
        plugin: the entry point's name and the prefix of the components' ids, e.g. ``court-cases``.
    """

    plugin: str

    @property
    def distribution(self) -> str:
        """What pip installs: ``stillhouse-court-cases``."""
        return f"{PREFIX}-{self.plugin.replace('_', '-')}"

    @property
    def package(self) -> str:
        """What is imported: ``stillhouse_court_cases``."""
        return f"{PREFIX}_{self.plugin.replace('-', '_')}"

    @property
    def title(self) -> str:
        """For headings and sentences: ``court cases``."""
        return self.plugin.replace("_", " ").replace("-", " ")


def check_name(name: str, manager: Manager) -> Names:
    """The names of a new plugin.

    Raises:
        StillhouseError: ``name`` is no plugin name, or is taken; the fix suggests one that is free.
    """
    if not NAME.fullmatch(name) or name.endswith(("-", "_")) or name.partition("-")[0] == PREFIX:
        raise StillhouseError(
            f"'{name}' is not a plugin name",
            where="NAME",
            fix=f"{_suggestion(name, manager)} (lower-case letters, digits, single '-' or '_'; begins with a letter; "
            f"the distribution gets the prefix '{PREFIX}-')",
        )
    if holder := _holder(name, manager):
        raise StillhouseError(
            f"the name '{name}' is taken: it {holder}", where="NAME", fix=_suggestion(f"my-{name}", manager)
        )
    return Names(name)


def _holder(name: str, manager: Manager) -> str:
    """Who has the name, as the end of a sentence; empty when it is free."""
    if name == CORE:
        return "is the core's own"
    for record in manager.records:
        if name == record.name or Names(name).package == Names(record.name).package:
            return f"is that of plugin '{record.name}' ({record.source})"
    if name in RESERVED:
        return f"is that of the project's own {RESERVED[name]}"
    if importlib.util.find_spec(Names(name).package) is not None:
        return f"would make the package '{Names(name).package}', which can be imported already"
    return ""


def _suggestion(wanted: str, manager: Manager) -> str:
    """A free name near ``wanted``."""
    plain = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")
    plain = re.sub(rf"^({PREFIX}-)+", "", plain)
    plain = re.sub(r"^[^a-z]+", "", plain) or "my-domain"
    plain = "my-domain" if plain == PREFIX else plain
    candidate, number = plain, 1
    while _holder(candidate, manager):
        number += 1
        candidate = f"my-{plain}" if number == 2 and not plain.startswith("my-") else f"{plain}-{number}"
    return f"for example '{candidate}'"
