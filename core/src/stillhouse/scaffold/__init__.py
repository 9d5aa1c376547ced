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
from stillhouse.plugins import component_kinds
from stillhouse.plugins.metadata import bounded_requirement
from stillhouse.scaffold.names import Names, check_name
from stillhouse.scaffold.tasks import TASKS, Task, check_task

TEMPLATES = resources.files("stillhouse.scaffold") / "templates"


def _template(kind: component_kinds.ComponentKind) -> str:
    return f"package/{f'{kind.plural}.py' if kind.given is not None else f'{kind.name}.yaml'}.j2"


KINDS = tuple(name for name, kind in component_kinds.KINDS.items() if (TEMPLATES / _template(kind)).is_file())
"""Component kinds that a new plugin can start with, in the order in which plugins list them."""
DEFAULT_KINDS = ("dataset", "teacher", "student", "head", "recipe")

__all__ = [
    "DEFAULT_KINDS",
    "KINDS",
    "TASKS",
    "Names",
    "Task",
    "check_kinds",
    "check_name",
    "check_task",
    "write_plugin",
]


READERS = {
    "values": "stillhouse.data.readers:ColumnsReader",
    "series": "{package}.readers:HistoryReader",
    "image": "{package}.readers:ArrayReader",
    "signal": "{package}.readers:ArrayReader",
    "text": "stillhouse.text:TextReader",
}
"""Reader of each kind of rows."""
FAMILIES = {"values": "values", "series": "series", "image": "array", "signal": "array", "text": "text"}
"""Templates of each kind of rows."""
MODELS: dict[str, dict[str, Any]] = {
    "teacher": {"role": "Teachers: large models that others learn from.", "cls": "Wide", "width": 128},
    "student": {"role": "Students: small models to deploy.", "cls": "Small", "width": 8},
}
"""How the two models of a task differ, which are of one template."""
_LABELS = {"name": "hellinger", "target": "Hellinger", "summary": "Squared Hellinger distance of each label"}
_RIGHT = {"name": "exact-match", "target": "exact_match", "summary": "Share of rows of which every label is right"}
OBJECTIVES = {
    "multiclass": {**_LABELS, "summary": "Squared Hellinger distance between softened class probabilities"},
    "binary": _LABELS,
    "multilabel": _LABELS,
    "regression": {"name": "absolute", "target": "Absolute", "summary": "Mean absolute difference from the teacher"},
}
"""The example of an objective, by the output kind of the task."""
METRICS = {
    "multiclass": {
        "name": "top-k",
        "target": "top_k",
        "summary": "Share of rows whose class is among the k most probable ones",
    },
    "binary": _RIGHT,
    "multilabel": _RIGHT,
    "regression": {"name": "within", "target": "within", "summary": "Share of values near the target"},
}
"""The example of a metric, by the output kind of the task."""
CORE_MODELS = {"text": "core/text-encoder"}
"""Models of the core that take rows of texts; those of others have layers of a width."""


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


def write_plugin(
    names: Names, folder: Path, kinds: Sequence[str] = DEFAULT_KINDS, task: Task = TASKS["multiclass"]
) -> list[Path]:
    """Write the distribution into ``folder``, which is made when it is missing.

    Args:
        names: what it is called; see `check_name`.
        folder: a new or empty folder.
        kinds: component kinds to write an example of.
        task: what the examples do; other tasks than multiclass take the core's head, and have no example of an
            augmenter or a method.

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
        for path, text in _rendered(names, kinds, task):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise StillhouseError(
            f"'{folder}' cannot be written: {error.strerror or error}", where="--output", fix="choose another folder"
        ) from error
    return written


def _rendered(names: Names, kinds: Sequence[str], task: Task) -> Iterator[tuple[Path, str]]:
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
        "task": task,
        "inputs": ", ".join(f'"{each}"' for each in task.inputs) + ("," if len(task.inputs) == 1 else ""),
        "reader": READERS[task.data].format(package=names.package),
        "objective": OBJECTIVES[task.output],
        "metric": METRICS[task.output],
        "core_dataset": "core/synthetic-text" if task.data == "text" else "core/synthetic",
        "core_teacher": CORE_MODELS.get(task.data, "{{use: core/mlp, hidden: [{width}]}}").format(width="256, 256"),
        "core_student": CORE_MODELS.get(task.data, "{{use: core/mlp, hidden: [{width}]}}").format(width=24),
    }
    for template, path, more in _files(names, kinds, task):
        text = environment.get_template(template).render({**values, **more})
        yield Path(path), text.rstrip("\n") + "\n" if text.strip() else text


def _files(names: Names, kinds: Sequence[str], task: Task) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Templates, where what they make goes, and values that the template has beside those of all."""
    nothing: dict[str, Any] = {}
    for template, path in _common(names):
        yield template, path, nothing
    own = task.name != "multiclass"
    package = f"src/{names.package}"
    yield "tasks/plugin.py.j2" if own else "package/plugin.py.j2", f"{package}/plugin.py", nothing
    family = FAMILIES[task.data]
    for kind in kinds:
        row = component_kinds.KINDS[kind]
        made = f"{row.plural}/example.yaml" if row.given is None else f"{row.plural}.py"
        more: dict[str, Any] = MODELS.get(kind, nothing)
        template = _template(row)
        if own:
            models = "values" if family == "series" else family
            template = {
                "dataset": f"tasks/{family}.datasets.py.j2",
                "teacher": f"tasks/{models}.models.py.j2",
                "student": f"tasks/{models}.models.py.j2",
                "recipe": "tasks/recipe.yaml.j2",
                # Those of classes are the same for rows of all kinds.
                "objective": template if task.output == "multiclass" else "tasks/objectives.py.j2",
                "metric": template if task.output == "multiclass" else "tasks/metrics.py.j2",
            }[kind]
        yield template, f"{package}/{made}", more
    if own and "dataset" in kinds and family in ("series", "array"):
        yield f"tasks/{family}.readers.py.j2", f"{package}/readers.py", nothing
    if set(kinds) - ({"teacher", "student"} if own else {"teacher"}):
        tests = "tasks/test_components.py.j2" if own else "tests/test_components.py.j2"
        yield tests, "tests/test_components.py", nothing


def _common(names: Names) -> Iterator[tuple[str, str]]:
    package = f"src/{names.package}"
    yield "pyproject.toml.j2", "pyproject.toml"
    yield "README.md.j2", "README.md"
    yield "LICENSE.j2", "LICENSE"
    yield "CHANGELOG.md.j2", "CHANGELOG.md"
    yield "gitignore.j2", ".gitignore"
    yield "workflow.yml.j2", ".github/workflows/tests.yml"
    yield "package/init.py.j2", f"{package}/__init__.py"
    yield "package/py.typed.j2", f"{package}/py.typed"
    yield "tests/test_contract.py.j2", "tests/test_contract.py"
