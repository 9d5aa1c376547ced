"""Whether a dataset and a head of this plugin mean the same task."""

from __future__ import annotations

from stillhouse.errors import IncompatibleError
from stillhouse.types import DataInfo


def require_task(data: DataInfo, task: str) -> None:
    """Refuse a dataset of this plugin that says its task is another one; other datasets say nothing.

    Raises:
        IncompatibleError: with the head that fits.
    """
    given = data.meta.get("task", task)
    if given != task:
        raise IncompatibleError(
            f"the dataset's task is '{given}', and head 'medicine/{task}' is for another",
            where="head",
            fix=f"head: medicine/{given}",
        )
