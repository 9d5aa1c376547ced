"""What the manager knows of one plugin, whether or not it could be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Status(StrEnum):
    """What became of an installed plugin."""

    ACTIVE = "active"
    """Loaded; its components can be used."""
    DISABLED = "disabled"
    """Left out by ``--no-plugins``, ``--disable-plugin`` or ``STILLHOUSE_PLUGINS``; never imported."""
    INCOMPATIBLE = "incompatible"
    """Its own metadata exclude this version of the core; never imported."""
    BROKEN = "broken"
    """It raised while it was imported or while a hook ran."""
    INVALID = "invalid"
    """It does not keep the contract: a misspelt hook, a wrong item, a malformed or repeated spec."""
    CONFLICT = "conflict"
    """Another distribution has an entry point of the same name; neither is imported."""


@dataclass(frozen=True, kw_only=True)
class PluginRecord:
    """One plugin: where it comes from and what became of it.

    Args:
        name: id of the plugin, the prefix of its components' ids.
        distribution: distribution that brings it; empty for what is given with ``--plugin``.
        version: version of the distribution.
        location: folder it is imported from, or the file or folder given with ``--plugin``.
        editable: installed by ``pip install -e``.
        status: what became of it.
        error: cause, when the status is not active.
        fix: what to do about it, when the status is not active.
        warnings: what is unusual but does no harm.
        components: ids of its components, in the order in which the hooks gave them.
        load_ms: milliseconds that importing it and calling its hooks took; None when it was not imported.
        requires_core: the core versions that it asks for, e.g. ``">=0.1,<0.2"``; empty when it does not say.
        sha256: hash of the file given with ``--plugin``; empty for an installed plugin.
    """

    name: str
    distribution: str
    version: str
    location: str
    status: Status
    editable: bool = False
    error: str = ""
    fix: str = ""
    warnings: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    load_ms: float | None = None
    requires_core: str = ""
    sha256: str = ""

    @property
    def is_file(self) -> bool:
        """It is a file that ``--plugin`` named."""
        return not self.distribution and self.location.endswith(".py")

    @property
    def is_folder(self) -> bool:
        """It is a folder that ``--plugin`` named, whose modules a recipe may name."""
        return not self.distribution and self.location != "" and Path(self.location).is_dir()

    @property
    def source(self) -> str:
        """Who brings the plugin, for messages: ``"stillhouse-law 1.2"``, or the path of a file."""
        return f"{self.distribution} {self.version}" if self.distribution else self.location

    def describe(self) -> dict[str, Any]:
        """JSON-ready values: one entry of ``stillhouse plugins list --json``."""
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": self.version,
            "location": self.location,
            "editable": self.editable,
            "status": str(self.status),
            "error": self.error,
            "fix": self.fix,
            "components": list(self.components),
            "load_ms": self.load_ms,
        }

    def details(self) -> dict[str, Any]:
        """JSON-ready values: `describe` and what only ``stillhouse plugins show`` prints."""
        return self.describe() | {
            "warnings": list(self.warnings),
            "requires_core": self.requires_core,
            "sha256": self.sha256,
        }
