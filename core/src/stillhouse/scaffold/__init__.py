"""``stillhouse plugins new``: writes a complete plugin distribution that works at once, from templates in this package.

`names` decides what it may be called; the templates are beside this file. A component of every wanted kind is written,
small and working, for its author to replace.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from stillhouse.errors import StillhouseError, nearest
from stillhouse.plugins import specs
from stillhouse.plugins.metadata import bounded_requirement
from stillhouse.scaffold.names import Names, check_name

TEMPLATES = resources.files("stillhouse.scaffold") / "templates"


def _template(kind: specs.ComponentKind) -> str:
    return f"package/{f'{kind.plural}.py' if kind.given is not None else f'{kind.name}.yaml'}.j2"


KINDS = tuple(name for name, kind in specs.KINDS.items() if (TEMPLATES / _template(kind)).is_file())
"""Component kinds that a new plugin can start with, in the order in which plugins list them."""
DEFAULT_KINDS = ("dataset", "teacher", "student", "head", "recipe")

__all__ = ["DEFAULT_KINDS", "KINDS", "Names", "check_kinds", "check_name", "write_plugin"]


def check_kinds(given: str) -> tuple[str, ...]:
    """``"head,dataset"`` as kinds, in the order of `KINDS`.

    Raises:
        StillhouseError: there is no such kind, or none is given.
    """
    wanted = [word.strip() for word in given.split(",") if word.strip()]
    for word in wanted:
        if word not in KINDS:
            raise StillhouseError(f"there is no component kind '{word}'", where="--kind", fix=nearest(word, KINDS))
    if not wanted:
        raise StillhouseError("no component kind is given", where="--kind", fix=f"some of {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in wanted)


def write_plugin(names: Names, folder: Path, kinds: Sequence[str] = DEFAULT_KINDS) -> list[Path]:
    """Write the distribution into ``folder``, which is made when it is missing.

    Args:
        names: what it is called; see `check_name`.
        folder: a new or empty folder.
        kinds: component kinds to write an example of.

    Returns:
        the files, relative to ``folder``, in the order in which they were written.

    Raises:
        StillhouseError: the folder is not empty, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StillhouseError(
                f"'{folder}' is not an empty folder",
                where="--output",
                fix="choose a new folder: nothing is overwritten",
            )
        written = []
        for path, text in _rendered(names, kinds):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise StillhouseError(
            f"'{folder}' cannot be written: {error.strerror or error}", where="--output", fix="choose another folder"
        ) from error
    return written


def _rendered(names: Names, kinds: Sequence[str]) -> Iterator[tuple[Path, str]]:
    import jinja2

    # Delimiters that neither Python, TOML, YAML nor the expressions of a CI workflow use.
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stillhouse.scaffold"),
        undefined=jinja2.StrictUndefined,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values: dict[str, Any] = {
        "names": names,
        "kinds": tuple(kinds),
        "requirement": bounded_requirement(),
        "year": datetime.date.today().year,
    }
    for template, path in _files(names, kinds):
        yield Path(path), environment.get_template(template).render(values)


def _files(names: Names, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Templates, and where what they make goes."""
    package = f"src/{names.package}"
    yield "pyproject.toml.j2", "pyproject.toml"
    yield "README.md.j2", "README.md"
    yield "CHANGELOG.md.j2", "CHANGELOG.md"
    yield "gitignore.j2", ".gitignore"
    yield "workflow.yml.j2", ".github/workflows/tests.yml"
    yield "package/init.py.j2", f"{package}/__init__.py"
    yield "package/plugin.py.j2", f"{package}/plugin.py"
    yield "package/py.typed.j2", f"{package}/py.typed"
    for kind in kinds:
        row = specs.KINDS[kind]
        made = f"{row.plural}/example.yaml" if row.given is None else f"{row.plural}.py"
        yield _template(row), f"{package}/{made}"
    yield "tests/test_contract.py.j2", "tests/test_contract.py"
    if set(kinds) != {"teacher"}:
        yield "tests/test_components.py.j2", "tests/test_components.py"
