"""A run: the stages in order, each resumable, each with its folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stillhouse.engines.base import check_engine
from stillhouse.errors import OptionError, RunFolderError
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.folder import claim, remove_stale, resolved_yaml
from stillhouse.pipeline.leakage import leaks
from stillhouse.pipeline.stages import SIGNAL_LOCK, STAGES, facts, finish, why_stale
from stillhouse.pipeline.workers import Part, Workers, number_of_jobs
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.progress import Reporter, Silent, plan
from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import Recipe
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.storage import SUMMARY, digest, remove_leftovers, write_json, write_tensors, write_text


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run folder.
        summary: ``summary.json``; empty when the run was stopped before the stage evaluate.
        report: ``report.html``; None when the run was stopped before it.
    """

    folder: Path
    summary: dict[str, Any]
    report: Path | None


def run(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    seeds: Iterable[int] | None = None,
    sizes: Mapping[str, Any] | None = None,
    stop_after: str = "report",
    overwrite: bool = False,
    download: bool = True,
    jobs: int | str = 1,
    engine: str = "local",
    manager: Manager | None = None,
    reporter: Reporter | None = None,
) -> RunResult:
    """Run a recipe: teacher, baseline (the same student without distillation), student, results and report.

    A run that was stopped at any point goes on where it was when it is started again with the same folder, and ends
    with the same numbers. A finished stage is skipped; one whose inputs changed is made again. More seeds and sizes may
    be added to a finished run; any other change needs ``overwrite`` or another folder, so that no result is lost
    unasked.

    Args:
        recipe: a recipe's id, a YAML file, a mapping, or a `Recipe`.
        out: the run folder, ``runs/<name>`` by default.
        overrides: ``path=value`` changes to the recipe, e.g. ``"student.width=16"``.
        seeds: seeds of baseline and student, instead of the recipe's.
        sizes: other sizes of the student, e.g. ``{"field": "student.width", "values": [4, 8, 16]}``, instead of the
            recipe's.
        stop_after: last stage to run, one of `STAGES`.
        overwrite: a finished run in the folder may be made again with another recipe; what that makes stale is removed.
        download: missing datasets may be downloaded.
        jobs: processes in which models that do not depend on each other (members, folds, seeds, controls, sizes) are
            trained side by side, one thread each; "auto": as many as there are cores. The results are those of one
            after the other, to the bit, where trainings take one thread there, too.
        engine: where they are: "local", processes of this machine, or "ray", actors of a Ray cluster which see the run
            folder at the same path.
        manager: plugins to use, the installed ones by default.
        reporter: receives what happens; silent by default.

    Returns:
        the folder, the summary and the report.

    Raises:
        StillhouseError: whatever is wrong with the recipe, the data or the training, with where and how to fix it.
    """
    if stop_after not in STAGES:
        raise OptionError(
            f"'{stop_after}' is not a stage", where="stop_after (--stop-after)", fix=f"one of {', '.join(STAGES)}"
        )
    check_engine(engine)
    given = manager or default_manager()
    count = number_of_jobs(jobs)
    resolved = resolve(recipe, given.registry, overrides=with_changes(overrides, seeds, sizes))
    folder = folder_of(resolved, out)
    with claimed(folder, resolved, overwrite=overwrite) as settled, contextlib.ExitStack() as stack:
        workers = None
        if (count > 1 or engine != "local") and stop_after != "data":
            workers = Workers(engine, count, setup_of(given, resolved, folder, settled=settled))
            stack.callback(workers.close)
        heard = reporter or Silent()
        context = prepared(resolved, folder, given, heard, download=download, settled=settled)
        return _run(context, stop_after, workers)


def folder_of(resolved: ResolvedRecipe, out: str | Path | None) -> Path:
    """The run folder: ``out``, or ``runs/<name>``."""
    return Path(out) if out is not None else Path("runs") / resolved.recipe.name.rpartition("/")[2]


@contextlib.contextmanager
def claimed(folder: Path, resolved: ResolvedRecipe, *, overwrite: bool) -> Iterator[bool]:
    """The run folder for this process alone, freed of what is stale.

    Raises:
        RunFolderError: it is of another run, or another process is running in it.
    """
    claim(folder, resolved, overwrite=overwrite)
    settled = not overwrite and (folder / SUMMARY).exists()
    lock = FileLock(folder / f"run.{os.environ.get('RANK', '0')}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"another process is running in '{folder}'",
            where=str(folder),
            fix="wait for it, or choose another folder with --out",
        ) from error
    try:
        if os.environ.get("RANK", "0") == "0":
            remove_leftovers(folder)
            remove_stale(folder, resolved)
        yield settled
    finally:
        lock.release()
        (folder / SIGNAL_LOCK).unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)


def with_changes(overrides: Iterable[str], seeds: Iterable[int] | None, sizes: Mapping[str, Any] | None) -> list[str]:
    """Changes to a recipe, those of seeds and sizes among them."""
    changes = [*overrides]
    changes += [f"seeds={list(seeds)}"] if seeds is not None else []
    changes += [f"sizes={json.dumps(dict(sizes))}"] if sizes is not None else []
    return changes


def setup_of(manager: Manager, resolved: ResolvedRecipe, folder: Path, *, settled: bool) -> dict[str, Any]:
    """What workers need to open the same run."""
    return {
        "manager": manager.arguments,
        "recipe": resolved.to_recipe(),
        "base": str(resolved.base),
        "folder": str(folder.resolve()),
        "settled": settled,
    }


def _run(context: RunContext, stop_after: str, workers: Workers | None) -> RunResult:
    # The stages need torch; a wrong recipe has been reported before that.
    from stillhouse.pipeline.evaluate import evaluate_stage
    from stillhouse.pipeline.manifest import write_manifest
    from stillhouse.pipeline.student import baseline_pieces, baseline_stage, student_labels, student_stage
    from stillhouse.pipeline.teacher import teacher_pieces, teacher_stage

    resolved, reporter, last = context.resolved, context.reporter, STAGES.index(stop_after)
    summary: dict[str, Any] = {}
    report: Path | None = None
    trained = [
        (name, make(context))
        for name, make in (("teacher", teacher_pieces), ("baseline", baseline_pieces))
        if last >= STAGES.index(name)
    ]
    pieces = [Part(name, at, piece.label) for name, found in trained for at, piece in enumerate(found)]
    announced = [(piece.label, piece.role, piece.epochs) for _, found in trained for piece in found]
    if last >= STAGES.index("student"):
        students = student_labels(context)
        announced += [(label, role, resolved.recipe.train.student.epochs) for label, role in students]
    plan(reporter, announced)
    # Models that processes have made are found complete by the stages, which then go on as ever.
    if workers is not None and pieces:
        names = " and ".join(name for name, _ in trained)
        reporter.stage(names, f"{len(pieces)} models side by side")
        workers.make(pieces, reporter, context.warn)
    if last >= STAGES.index("teacher"):
        if workers is None:
            reporter.stage("teacher", " + ".join(bound.id for bound in resolved.teachers))
        teacher = teacher_stage(context)
    if last >= STAGES.index("baseline"):
        if workers is None:
            reporter.stage("baseline", f"{resolved.student.id} without distillation")
        baseline_stage(context)
    if last >= STAGES.index("student"):
        reporter.stage("student", f"{resolved.student.id} by {resolved.method.id}")
        if workers is not None:
            workers.make([Part("student", at, label) for at, (label, _) in enumerate(students)], reporter, context.warn)
            workers.close()
        student_stage(context, teacher)
        context.guard("epochs chosen on validation", "test rows are read once, after training")
    if last >= STAGES.index("evaluate"):
        if context.is_main:
            summary = evaluate_stage(context, teacher, context.data)
            write_manifest(context)
        context.wait()
    if last >= STAGES.index("report") and context.is_main:
        report = _report_stage(context, summary)
    context.wait()
    return RunResult(context.folder, summary, report)


def prepared(
    resolved: ResolvedRecipe, folder: Path, manager: Manager, reporter: Reporter, *, download: bool, settled: bool
) -> RunContext:
    """The context of a run whose rows, recipe and manifest are in its folder, and whose parts fit each other."""
    from stillhouse.pipeline.manifest import write_manifest
    from stillhouse.pipeline.opening import checks_before_training, open_context

    context = open_context(resolved, folder, manager.registry, reporter, download=download)
    context.manager, context.settled = manager.arguments, settled
    if context.is_main:
        _write_data(context)
        write_text(folder / "recipe.yaml", resolved_yaml(resolved))
        write_manifest(context)
    context.wait()
    for _, check in checks_before_training(context):
        check()
    return context


def _write_data(context: RunContext) -> None:
    splits, folder = context.splits, context.folder / "data"
    inputs = {"data": context.data, "dataset": context.bound_inputs(context.resolved.dataset)}
    if context.extra is not None:
        inputs["extra_rows"] = context.extra.fingerprint
    reason = why_stale(folder, inputs)
    found = facts(folder).get("leaks") if reason is None else None
    for each in found or ():
        context.warn(each)
    if found is not None:
        return
    if reason:
        context.make_again(reason)
    found = leaks(splits, name=context.resolved.dataset.id)
    for each in found:
        context.warn(each)
    write_json(folder / "info.json", splits.info.to_json())
    everything = {
        **splits.named(),
        **({"unlabelled": splits.unlabelled} if splits.unlabelled is not None else {}),
    }
    write_tensors(folder / "rows.safetensors", {name: split.index() for name, split in everything.items()})
    if splits.reader is not None:
        write_json(folder / "reader.json", splits.reader.state())
    finish(folder, inputs, leaks=found)


def _report_stage(context: RunContext, summary: Mapping[str, Any]) -> Path:
    from stillhouse.evaluation.report.render import write_report

    stage = context.folder / "report"
    inputs = {"summary": digest(summary)}
    path = context.folder / "report.html"
    if why_stale(stage, inputs) is None and path.exists():
        context.reporter.stage("report", "complete")
        return path
    context.reporter.stage("report", "")
    path = write_report(context.folder, head=context.head)
    finish(stage, inputs)
    return path
