"""The teacher's outputs for all rows, ahead of the run that learns from them: in shards, by any number of workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stillhouse.engines.base import check_engine
from stillhouse.errors import OptionError, StillhouseError, TrainingError
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.runner import claimed, folder_of, prepared, setup_of
from stillhouse.pipeline.workers import RETRIES, Part, Workers, number_of_jobs
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.progress import Reporter, Silent, plan
from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import Recipe
from stillhouse.storage import remove_leftovers

TOLD = 10.0
"""Seconds between two words on how far it is."""


@dataclass(frozen=True)
class Labelled:
    """What is stored of a teacher.

    Attributes:
        folder: the run folder.
        rows: that it spoke of, by split.
        shards: in which they are.
        bytes: of all shards.
        entries: what is stored of each row.
        made: shards that were made now; the others were there.
        seconds: that these took, by the clock.
        rows_per_second: of these; None where all were there.
    """

    folder: Path
    rows: dict[str, int]
    shards: int
    bytes: int
    entries: tuple[str, ...]
    made: int
    seconds: float
    rows_per_second: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "folder": str(self.folder)}


def label(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    engine: str = "local",
    jobs: int | str = 1,
    shard_rows: int | None = None,
    precision: str | None = None,
    download: bool = True,
    manager: Manager | None = None,
    reporter: Reporter | None = None,
) -> Labelled:
    """Train or take over a recipe's teacher, as `run` would, and store what it says of the training rows, the
    unlabelled and the extra ones. `run` in the same folder goes on from there and does not ask it again.

    Shards that are there are not made again, whatever ended the process or the workers before. One that cannot be made
    does not keep the others from being made.

    Args:
        recipe: a recipe's id, a YAML file, a mapping, or a `Recipe`.
        out: the run folder, ``runs/<name>`` by default.
        overrides: ``path=value`` changes to the recipe.
        engine: "local" or "ray", see `run`.
        jobs: workers side by side.
        shard_rows: rows of a shard, up to the end of a batch; 65,536 by default. A folder that was begun keeps its own.
        precision: of what is stored, ``teacher.cache_precision`` of the recipe.
        download: missing datasets may be downloaded.
        manager: plugins to use, the installed ones by default.
        reporter: receives what happens; silent by default.

    Raises:
        StillhouseError: whatever is wrong with the recipe, the data or the teacher; of shards that failed, which rows
            they have.
    """
    check_engine(engine)
    if shard_rows is not None and shard_rows < 1:
        raise OptionError(f"--shard-rows is {shard_rows}", where="--shard-rows", fix="a number from 1 upwards")
    given, count = manager or default_manager(), number_of_jobs(jobs)
    changes = [*overrides, *([f"teacher.cache_precision={precision}"] if precision is not None else [])]
    resolved = resolve(recipe, given.registry, overrides=changes)
    folder, heard = folder_of(resolved, out), reporter or Silent()
    with claimed(folder, resolved, overwrite=False) as settled, contextlib.ExitStack() as stack:
        workers = None
        if count > 1 or engine != "local":
            workers = Workers(engine, count, setup_of(given, resolved, folder, settled=settled), retries=RETRIES)
            stack.callback(workers.close)
        context = prepared(resolved, folder, given, heard, download=download, settled=settled)
        return _label(context, workers, shard_rows)


def _label(context: RunContext, workers: Workers | None, shard_rows: int | None) -> Labelled:
    from stillhouse.pipeline.asked import asked_entries
    from stillhouse.pipeline.signal import stored
    from stillhouse.pipeline.teacher import teacher_pieces, teacher_stage

    pieces, reporter = teacher_pieces(context), context.reporter
    plan(reporter, [(piece.label, piece.role, piece.epochs) for piece in pieces])
    reporter.stage("teacher", " + ".join(bound.id for bound in context.resolved.teachers))
    if workers is not None and len(pieces) > 1:
        workers.make([Part("teacher", at, piece.label) for at, piece in enumerate(pieces)], reporter, context.warn)
    teacher = teacher_stage(context)
    entries = asked_entries(context, teacher)
    found = stored(context, teacher, entries, shard_rows=shard_rows, labelled=True)
    missing = [(each, at) for each in found for at in range(len(each.shards)) if not each.shards.is_there(at)]
    parts = [Part("label", at, f"shard {at} of {each.name}", (each.name, entries)) for each, at in missing]
    progress, failures = _Progress(reporter, sum(len(each.shards) for each in found), len(parts)), list[Exception]()

    def failed(at: int, error: Exception) -> None:
        each, number = missing[at]
        failures.append(_named(error, f"'{each.name}', {each.shards.named(number)}"))

    # What was predicted for all rows at once is written here; nobody else has it.
    here = [at for at, (each, _) in enumerate(missing) if workers is None or each.folded]
    there = [at for at in range(len(parts)) if at not in set(here)]
    for at in here:
        each, number = missing[at]
        try:
            progress.made(each.shards.make(number, each.fill))
        except Exception as error:
            failed(at, error)
    if workers is not None and there:
        workers.make(
            [parts[at] for at in there],
            reporter,
            context.warn,
            made=lambda _, record: progress.made(record),
            failed=lambda at, error: failed(there[at], error),
        )
    for each in found:
        remove_leftovers(each.shards.folder)
    if failures:
        raise _all_of(failures, len(parts))
    records = {each.name: each.finish() for each in found}
    for remark in teacher.remarks():
        context.warn(remark)
    seconds = progress.seconds
    return Labelled(
        context.folder,
        {name: record["rows"] for name, record in records.items()},
        sum(record["shards"] for record in records.values()),
        sum(record["bytes"] for record in records.values()),
        tuple(next(iter(records.values()))["arrays"]),
        len(parts),
        round(seconds, 3),
        progress.rows / seconds if parts else None,
    )


class _Progress:
    """Counts shards, and says now and then how far it is."""

    def __init__(self, reporter: Reporter, shards: int, missing: int) -> None:
        self._reporter, self._shards, self._missing = reporter, shards, missing
        self._began = self._told = time.perf_counter()
        self._made, self.rows = 0, 0
        reporter.stage("label", f"{missing} of {shards} shards to be made")

    @property
    def seconds(self) -> float:
        return max(time.perf_counter() - self._began, 1e-9)

    def made(self, record: Mapping[str, Any]) -> None:
        self._made, self.rows = self._made + 1, self.rows + record["rows"]
        now = time.perf_counter()
        if now - self._told >= TOLD:
            self._told = now
            left = self.seconds / self._made * (self._missing - self._made)
            done = self._shards - self._missing + self._made
            rate = self.rows / self.seconds
            self._reporter.stage("label", f"{done} of {self._shards} shards, {rate:,.0f} rows/s, {left:,.0f} s left")


def _named(error: Exception, rows: str) -> Exception:
    """The error with the rows of its shard."""
    if isinstance(error, StillhouseError):
        where = f"{rows}; {error.where}" if error.where else rows
        named: Exception = type(error)(error.what, where=where, fix=error.fix)
    else:
        what = f"the teacher cannot be asked: {type(error).__name__}: {error}".splitlines()[0]
        named = TrainingError(what, where=rows, fix="look at these rows, or at the teacher's code with --debug")
    named.__cause__ = error
    return named


def _all_of(failures: Sequence[Exception], parts: int) -> Exception:
    """One error for all shards that failed."""
    first = failures[0]
    assert isinstance(first, StillhouseError)
    if parts == 1:
        return first
    several = type(first)(
        f"{len(failures)} of {parts} shards could not be made, the others are kept: {first.what}",
        where="; and ".join(each.where for each in failures[:5] if isinstance(each, StillhouseError))
        + (f"; and {len(failures) - 5} more" if len(failures) > 5 else ""),
        fix=f"{first.fix}; the same command then makes what is missing" if first.fix else "",
    )
    several.__cause__ = first
    return several
