"""What installed distributions say of their plugins, from their metadata, without importing any of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import stillhouse

GROUP = "stillhouse.plugins"
CORE_DISTRIBUTION = "stillhouse"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """One entry point of the group ``stillhouse.plugins``.

    Args:
        name: the entry point's name, which is the plugin's id.
        entry_point: what to load; None when the distribution's ``entry_points.txt`` cannot be read.
        distribution: name of the distribution.
        version: version of the distribution.
        location: folder that it is imported from; of an editable install, its source folder.
        editable: installed by ``pip install -e``.
        core_requirement: what ``Requires-Dist`` says of the core; None when it does not mention the core.
        problem: why the metadata cannot be read; empty when they can.
    """

    name: str
    entry_point: metadata.EntryPoint | None
    distribution: str
    version: str
    location: str
    editable: bool
    core_requirement: SpecifierSet | None
    problem: str = ""


def installed_plugins(path: Sequence[str] | None = None) -> list[Installed]:
    """Every plugin entry point of the distributions on ``path`` (default: ``sys.path``), sorted by name.

    Of two copies of one distribution the first on the path counts, as it does for imports.
    """
    found: list[Installed] = []
    seen: set[str] = set()
    distributions = metadata.distributions() if path is None else metadata.distributions(path=list(path))
    for distribution in distributions:
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, UnicodeDecodeError):
            text = ""
        if GROUP not in text:  # reading METADATA of every distribution would be most of the start-up time
            continue
        name = _field(distribution, "Name") or "(unnamed)"
        if canonicalize_name(name) in seen:
            continue
        seen.add(canonicalize_name(name))
        found.extend(_entries(distribution, name))
    return sorted(found, key=lambda each: (each.name, each.distribution))


def _entries(distribution: metadata.Distribution, name: str) -> Iterator[Installed]:
    location, editable = _location(distribution)
    try:
        entry_points = [each for each in distribution.entry_points if each.group == GROUP]
        problem = ""
    except Exception as error:
        entry_points, problem = [], f"entry_points.txt cannot be read: {error}"
    candidates: list[metadata.EntryPoint | None] = [*entry_points] if not problem else [None]
    for entry_point in candidates:
        yield Installed(
            name=entry_point.name if entry_point else canonicalize_name(name),
            entry_point=entry_point,
            distribution=name,
            version=_field(distribution, "Version") or "unknown",
            location=location,
            editable=editable,
            core_requirement=_core_requirement(distribution),
            problem=problem,
        )


def _field(distribution: metadata.Distribution, field: str) -> str:
    try:
        return str(distribution.metadata[field] or "")
    except Exception:  # missing or malformed METADATA must not hide the other plugins
        return ""


def _location(distribution: metadata.Distribution) -> tuple[str, bool]:
    """Folder of the distribution, and whether it is an editable install."""
    try:
        direct = json.loads(distribution.read_text("direct_url.json") or "{}")
        if direct.get("dir_info", {}).get("editable"):
            from urllib.request import url2pathname  # slow to import, and only editable installs need it

            return url2pathname(urlsplit(direct["url"]).path), True
    except (ValueError, KeyError, AttributeError, OSError):
        pass  # a malformed direct_url.json only costs the mark "editable"
    return str(Path(str(distribution.locate_file("")))), False


def _core_requirement(distribution: metadata.Distribution) -> SpecifierSet | None:
    """All of the distribution's unconditional requirements on the core, as one; None when it has none."""
    specifiers: SpecifierSet | None = None
    try:
        lines = distribution.requires or []
    except Exception:  # as for `_field`
        return None
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if canonicalize_name(requirement.name) != CORE_DISTRIBUTION:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            specifiers = requirement.specifier if specifiers is None else specifiers & requirement.specifier
    return specifiers


def bounded_requirement() -> str:
    """The requirement on this core that a plugin should write: from this minor version up to the next one that may
    break it, e.g. ``stillhouse>=0.1,<0.2``."""
    version = Version(stillhouse.__version__)
    following = f"{version.major + 1}" if version.major else f"0.{version.minor + 1}"
    return f"{CORE_DISTRIBUTION}>={version.major}.{version.minor},<{following}"
