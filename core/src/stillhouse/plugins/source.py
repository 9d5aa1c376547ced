"""What ``pyproject.toml`` in the source folder of an editable install says, held against the installed metadata.

An editable install takes the code from the source folder and everything else (entry points, requirements, version)
from the moment of the installation, so that a later change of ``pyproject.toml`` is silently not in force.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from stillhouse.plugins.metadata import GROUP
from stillhouse.plugins.records import PluginRecord


def stale_metadata(record: PluginRecord) -> list[str]:
    """Differences between the source and the metadata of an editable install, each in words; empty when they agree, or
    when the source has no ``pyproject.toml`` with a ``project`` table."""
    path = Path(record.location) / "pyproject.toml"
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return []
    if not project:
        return []
    installed = metadata.distribution(record.distribution)
    differences = []
    if canonicalize_name(project.get("name", "")) != canonicalize_name(record.distribution):
        differences.append(f"the name is '{project.get('name')}', installed is '{record.distribution}'")
    if "version" in project and project["version"] != record.version:
        differences.append(f"the version is {project['version']}, installed is {record.version}")
    declared = dict(project.get("entry-points", {}).get(GROUP, {}))
    found = {each.name: each.value for each in installed.entry_points if each.group == GROUP}
    for name in sorted(declared.keys() | found.keys()):
        if declared.get(name) != found.get(name):
            now, before = declared.get(name, "absent"), found.get(name, "absent")
            differences.append(f"the entry point '{name}' is {now}, installed is {before}")
    if "dependencies" not in project.get("dynamic", ()):
        wanted, has = _normal(project.get("dependencies", ())), _normal(installed.requires or ())
        if wanted - has:
            differences.append(f"not installed as a dependency: {', '.join(sorted(wanted - has))}")
        if has - wanted:
            differences.append(f"no longer a dependency: {', '.join(sorted(has - wanted))}")
    return differences


def _normal(lines: Iterable[str]) -> set[str]:
    """Requirements that no extra brings, written in one way."""
    found = set()
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        marker = str(requirement.marker or "")
        if "extra" not in marker and requirement.url is None:
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            condition = f"; {marker}" if marker else ""
            found.add(f"{canonicalize_name(requirement.name)}{extras}{requirement.specifier}{condition}")
    return found
