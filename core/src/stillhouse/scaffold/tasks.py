"""The tasks that a new plugin can start with: what each has in common with the others, and what is its own."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.errors import StillhouseError, nearest


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task.

    Args:
        name: as in ``--task``.
        output: the output kind of its head.
        head: the core's head.
        data: what the rows are: ``values`` (columns), ``series``, ``signal``, ``image`` or ``text``.
        rows: what the rows are, in words.
        inputs: the model inputs that its dataset has.
        file: what a user gives to ``stillhouse predict``.
    """

    name: str
    output: str
    head: str
    data: str
    rows: str
    inputs: tuple[str, ...]
    file: str


def _values(name: str, rows: str) -> Task:
    return Task(
        name=name,
        output=name,
        head=f"core/{name}",
        data="values",
        rows=rows,
        inputs=("x",),
        file="new.csv   # columns x1 to x12",
    )


TASKS = {
    task.name: task
    for task in (
        _values("multiclass", "simulated rows of one of three classes"),
        _values("binary", "simulated rows that are faulty or not"),
        _values("multilabel", "simulated rows with any of three labels"),
        _values("regression", "simulated rows with a value each"),
        Task(
            name="forecast",
            output="regression",
            head="core/regression",
            data="series",
            rows="a simulated series, some steps ahead",
            inputs=("x",),
            file="history.csv   # a column 'value', the latest row last",
        ),
        Task(
            name="text",
            output="multiclass",
            head="core/multiclass",
            data="text",
            rows="simulated short reports of one of three classes",
            inputs=("tokens", "mask"),
            file="new.csv   # a column 'text'",
        ),
        Task(
            name="image",
            output="multiclass",
            head="core/multiclass",
            data="image",
            rows="simulated images of one of three shapes",
            inputs=("image",),
            file="new.npy   # images [N, 1, 12, 12]",
        ),
        Task(
            name="signal",
            output="multiclass",
            head="core/multiclass",
            data="signal",
            rows="simulated windows of two channels, of one of three states",
            inputs=("signal",),
            file="new.npy   # windows [N, 64, 2]",
        ),
    )
}
"""Every task by name."""
OF_EVERY_TASK = ("dataset", "teacher", "student", "objective", "metric", "recipe")
"""Kinds with an example of each task; the others have one for multiclass."""


def check_task(name: str, kinds: tuple[str, ...]) -> Task:
    """The task ``name``, which has examples of ``kinds``.

    Raises:
        StillhouseError: there is no such task, or a kind has no example of it.
    """
    if name not in TASKS:
        raise StillhouseError(f"there is no task '{name}'", where="--task", fix=nearest(name, TASKS))
    if name != "multiclass":
        for kind in kinds:
            if kind not in OF_EVERY_TASK:
                raise StillhouseError(
                    f"the kind '{kind}' has no example for the task '{name}'",
                    where="--kind",
                    fix=f"any of {','.join(OF_EVERY_TASK)}, or --task multiclass, which has all",
                )
    return TASKS[name]
