"""A run: the stages in order, each resumable, each with its folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stillhouse.errors import RunFolderError, StillhouseError
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.data import copied_rows, refuse_copies
from stillhouse.pipeline.folder import claim, remove_stale, resolved_yaml
from stillhouse.pipeline.stages import STAGES, finish, why_stale
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.progress import Reporter, Silent
from stillhouse.recipe.check import ResolvedRecipe, resolve
from stillhouse.recipe.model import Recipe
from stillhouse.storage import digest, remove_leftovers, write_json, write_tensors, write_text


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
        manager: plugins to use, the installed ones by default.
        reporter: receives what happens; silent by default.

    Returns:
        the folder, the summary and the report.

    Raises:
        StillhouseError: whatever is wrong with the recipe, the data or the training, with where and how to fix it.
    """
    if stop_after not in STAGES:
        raise StillhouseError(f"'{stop_after}' is not a stage", where="stop_after", fix=f"one of {', '.join(STAGES)}")
    registry = (manager or default_manager()).registry
    resolved = resolve(recipe, registry, overrides=with_changes(overrides, seeds, sizes))
    folder = Path(out) if out is not None else Path("runs") / resolved.recipe.name.rpartition("/")[2]
    claim(folder, resolved, overwrite=overwrite)
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
        return _run(resolved, folder, registry, reporter or Silent(), stop_after, download)
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def with_changes(overrides: Iterable[str], seeds: Iterable[int] | None, sizes: Mapping[str, Any] | None) -> list[str]:
    """Changes to a recipe, those of seeds and sizes among them."""
    changes = [*overrides]
    changes += [f"seeds={list(seeds)}"] if seeds is not None else []
    changes += [f"sizes={json.dumps(dict(sizes))}"] if sizes is not None else []
    return changes


def _run(
    resolved: ResolvedRecipe, folder: Path, registry: Any, reporter: Reporter, stop_after: str, download: bool
) -> RunResult:
    # The stages need torch; a wrong recipe has been reported before that.
    from stillhouse.pipeline.evaluate import evaluate_stage
    from stillhouse.pipeline.manifest import write_manifest
    from stillhouse.pipeline.opening import checks_before_training, open_context
    from stillhouse.pipeline.student import baseline_stage, student_stage
    from stillhouse.pipeline.teacher import teacher_stage

    last = STAGES.index(stop_after)
    context = open_context(resolved, folder, registry, reporter, download=download)
    if context.is_main:
        _write_data(context)
        write_text(folder / "recipe.yaml", resolved_yaml(resolved))
        write_manifest(context)
    context.wait()
    for _, check in checks_before_training(context):
        check()
    summary: dict[str, Any] = {}
    report: Path | None = None
    if last >= STAGES.index("teacher"):
        reporter.stage("teacher", " + ".join(bound.id for bound in resolved.teachers))
        teacher = teacher_stage(context)
    if last >= STAGES.index("baseline"):
        reporter.stage("baseline", f"{resolved.student.id} without distillation")
        baseline_stage(context)
    if last >= STAGES.index("student"):
        reporter.stage("student", f"{resolved.student.id} by {resolved.method.id}")
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
    return RunResult(folder, summary, report)


def _write_data(context: RunContext) -> None:
    splits, folder = context.splits, context.folder / "data"
    inputs = {"data": context.data, "dataset": context.bound_inputs(context.resolved.dataset)}
    if context.extra is not None:
        inputs["extra_rows"] = context.extra.fingerprint
    if why_stale(folder, inputs) is None:
        return
    copies = copied_rows(splits)
    refuse_copies(copies, name=context.resolved.dataset.id)
    write_json(folder / "info.json", splits.info.to_json())
    everything = {
        **splits.named(),
        **({"unlabelled": splits.unlabelled} if splits.unlabelled is not None else {}),
    }
    write_tensors(folder / "rows.safetensors", {name: split.index() for name, split in everything.items()})
    if splits.reader is not None:
        write_json(folder / "reader.json", splits.reader.state())
    for each in copies:
        context.warn(str(each))
    finish(folder, inputs)


def _report_stage(context: RunContext, summary: Mapping[str, Any]) -> Path:
    from stillhouse.evaluation.report import write_report

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
