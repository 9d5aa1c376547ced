"""Stage evaluate: every number of the summary, from the predictions in the run folder and from timing the models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillhouse.evaluation.measure import flops, latency, parameters, summarise
from stillhouse.evaluation.report.format import number
from stillhouse.evaluation.statistics import verdict
from stillhouse.forwarding import most_tokens, to_device
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.chance import chance, is_at_chance, warn_of_chance
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.data import classes_of
from stillhouse.pipeline.facts import method_facts
from stillhouse.pipeline.judging import ci95_of_estimators, judge, model_bytes, seed_results
from stillhouse.pipeline.models import FIT
from stillhouse.pipeline.sizes import worth_of_sizes
from stillhouse.pipeline.stages import SIZES, facts, finish, plain, why_stale
from stillhouse.pipeline.student import control_folder
from stillhouse.pipeline.teacher import Teacher
from stillhouse.storage import read_json, write_json, write_text
from stillhouse.trained import Trained, load
from stillhouse.types import Head, Split


def evaluate_stage(context: RunContext, teacher: Teacher, fingerprint: str) -> dict[str, Any]:
    """Measure, judge, and write ``summary.json`` and ``metrics.jsonl``."""
    recipe, folder = context.resolved.recipe, context.folder
    inputs = {
        "teacher": teacher.key,
        "evaluate": recipe.evaluate.model_dump(mode="json"),
        "metrics": [context.bound_inputs(bound) for bound in context.resolved.metrics],
        "method": context.bound_inputs(context.resolved.method),
        "models": [
            facts(path.parent)["inputs"]
            for path in sorted(folder.glob("*/**/seed-*/done.json"))
            if _is_ours(path, context)
        ],
    }
    if recipe.sizes is not None:
        inputs["sizes"] = recipe.sizes.model_dump(mode="json")
    stage = folder / "evaluate"
    reason = why_stale(stage, inputs)
    if reason is None:
        context.reporter.stage("evaluate", "complete")
        summary: dict[str, Any] = read_json(folder / "summary.json")
        return summary
    context.reporter.stage("evaluate", f"made again: {reason}" if reason else "")
    collect_history(context)
    student = _trained(context, "student")
    raw = _measure(context, teacher, student)
    write_json(stage / "latency.json", raw)
    summary = summarise_run(context, teacher, student, fingerprint, raw)
    write_json(folder / "summary.json", summary)
    finish(stage, inputs)
    return summary


def _is_ours(path: Path, context: RunContext) -> bool:
    """Seeds of an earlier, longer list stay in the folder and are not part of this run."""
    return path.parent.name in {f"seed-{seed}" for seed in context.resolved.recipe.seeds}


def _trained(context: RunContext, role: str) -> Trained:
    seed = context.resolved.recipe.seeds[0]
    trained = load(context.folder / role / f"seed-{seed}", context.registry, context.splits.info)
    if trained.is_network:
        trained.model.to(context.device).eval()
    return trained


def collect_history(context: RunContext) -> None:
    """``metrics.jsonl``: the epochs of all models of this run, in order."""
    lines: list[str] = []
    for path in _of_models(context, "history.jsonl"):
        lines += path.read_text(encoding="utf-8").splitlines()
    write_text(context.folder / "metrics.jsonl", "".join(line + "\n" for line in lines))


def _of_models(context: RunContext, name: str) -> Iterator[Path]:
    """The files of that name of all models of this run, in order."""
    for pattern in ("teacher/*", "baseline/*", "controls/*/*", "student/*", f"{SIZES}/*/*/*"):
        for path in sorted(context.folder.glob(f"{pattern}/{name}")):
            if pattern.startswith("teacher") or _is_ours(path, context):
                yield path


def _measure(context: RunContext, teacher: Teacher, student: Trained) -> dict[str, Any]:
    config = context.resolved.recipe.evaluate
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        split = context.splits.test
        one = to_device(split.batch([_typical_row(split)]), context.device)
        many = to_device(split.batch(_rows_at_once(split, context.head, config.throughput_batch)), context.device)
        # A teacher that is asked (a service, say) costs what others charge for it.
        asked = any(member.is_asked for member in teacher.members)
        head = context.head
        timed: dict[str, Any] = {"student": lambda rows: student.call(rows, head)}
        # Networks of one architecture cost the same; an estimator is as large as what it was fitted on makes it.
        baseline = None if student.is_network else _trained(context, "baseline")
        if baseline is not None:
            timed["baseline"] = lambda rows: baseline.call(rows, head)
        if not asked:
            timed = {"teacher": lambda rows: teacher.call(rows, head), **timed}
        raw = latency(
            timed, one, many, samples=config.latency_samples, throughput_samples=min(20, config.latency_samples)
        )
        raw["flops"] = {
            "teacher": _flops(teacher.members, one),
            "student": _flops([student], one),
        }
        raw["parameters"] = {
            "teacher": None if asked else parameters([member.model for member in teacher.members]),
            "student": parameters(student.model),
        }
        if baseline is not None:
            raw["flops"]["baseline"] = _flops([baseline], one)
            raw["parameters"]["baseline"] = parameters(baseline.model)
        return raw
    finally:
        torch.set_num_threads(before)


def _rows_at_once(split: Split, head: Head, wanted: int) -> list[int]:
    """Positions of so many rows; of fewer where each has a prediction for every position over a large vocabulary, as
    in `stillhouse.forwarding.all_rows`: all at once, they would take more memory than the whole run."""
    rows = [position % len(split) for position in range(wanted)]
    if head.kind is OutputKind.SEQUENCE and split.lengths is not None:
        longest = max(split.lengths[row] for row in rows)
        rows = rows[: max(1, most_tokens(head.kind, head.outputs) // longest)]
    return rows


def _typical_row(split: Split) -> int:
    """Position of the row that latency is measured on: the first, or one of median length where they differ."""
    return 0 if split.lengths is None else int(torch.as_tensor(split.lengths).argsort(stable=True)[len(split) // 2])


def _flops(members: list[Trained], one: Mapping[str, Tensor]) -> int | None:
    counts = [flops(member.model, {name: one[name] for name in member.inputs}) for member in members]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def summarise_run(
    context: RunContext, teacher: Teacher, student: Trained, fingerprint: str, raw: Mapping[str, Any]
) -> dict[str, Any]:
    """``summary.json``, schema 1, from the files of the run folder and the raw timings."""
    recipe, head, folder = context.resolved.recipe, context.head, context.folder
    # What each model costs, and what it reaches.
    timed = {"teacher": {"latency_ms": None, "throughput_per_s": None}, **summarise(raw)}

    def cost(name: str, files: int | None) -> dict[str, Any]:
        return {
            "parameters": raw["parameters"][name],
            "bytes": files,
            "flops": raw["flops"][name],
            **timed[name],
        }

    teacher_metrics = {split: judge(context, folder / "teacher", split) for split in ("val", "test")}
    student_bytes = model_bytes(folder / "student" / f"seed-{recipe.seeds[0]}")
    baseline = seed_results(context, folder / "baseline")
    distilled = seed_results(context, folder / "student")
    controls = {bound.id: seed_results(context, folder / control_folder(bound)) for bound in context.resolved.controls}
    quality = teacher_metrics["test"][head.primary]
    _warn(context, quality, baseline["mean"], distilled["mean"], controls)
    rows_ci95 = None if student.is_network else ci95_of_estimators(context)
    teachers = [bound.id for bound in context.resolved.teachers]
    test_rows = context.judged_rows(context.splits.test)
    return {
        "schema": 1,
        "recipe": recipe.name,
        "head": context.resolved.head.id,
        "dataset": _dataset(context, fingerprint),
        "primary_metric": {"name": head.primary, "higher_is_better": head.higher_is_better},
        "teacher": {
            "component": teachers[0] if len(teachers) == 1 else " + ".join(teachers),
            "metrics": teacher_metrics,
            **cost("teacher", _teacher_bytes(context, teacher)),
            "asked": teacher.asked_facts(),
            "stored": _stored(context),
        },
        "baseline": {
            "component": context.resolved.student.id,
            **baseline,
            **cost(
                "baseline" if "baseline" in raw["parameters"] else "student",
                model_bytes(folder / "baseline" / f"seed-{recipe.seeds[0]}"),
            ),
        },
        "student": {"component": context.resolved.student.id, **distilled, **cost("student", student_bytes)},
        "extra_rows": _extra_rows(context),
        "method": {"id": context.resolved.method.id, "options": plain(context.resolved.method.options)},
        "method_facts": method_facts(context, teacher),
        "controls": controls,
        "references": {
            name: context.evaluate(prediction, test_rows)
            for name, prediction in context.head.references(test_rows).items()
        },
        "verdict": _verdict(context, quality, baseline, distilled, raw, timed, rows_ci95),
        "worth": worth_of_sizes(context),
        "latency": {name: raw[name] for name in ("batch", "throughput_batch", "threads", "device", "samples")},
        "warnings": context.warnings,
        "seconds": _seconds(context),
    }


def _warn(
    context: RunContext, teacher: float, baseline: float, student: float, controls: Mapping[str, Mapping[str, Any]]
) -> None:
    """Warnings that follow from the primary metric on test rows."""
    for name in ("baseline", "student"):
        folders = [context.folder / name / f"seed-{seed}" for seed in context.resolved.recipe.seeds]
        warn_of_chance(context, name, folders)
    if context.resolved.method_spec.uses_teacher:
        _warn_of_weak_teacher(context, teacher, baseline)
    _warn_of_good_controls(context, {name: found["mean"] for name, found in controls.items()}, student)


def _verdict(
    context: RunContext,
    teacher: float,
    baseline: Mapping[str, Any],
    distilled: Mapping[str, Any],
    raw: Mapping[str, Any],
    timed: Mapping[str, Any],
    rows_ci95: list[float] | None,
) -> dict[str, Any]:
    """Whether distillation helped, from the results of all seeds and what the models cost."""
    head, info, constant = context.head, context.splits.info, chance(context, context.splits.test)
    return verdict(
        metric=head.primary,
        higher_is_better=head.higher_is_better,
        teacher=teacher,
        teacher_at_chance=constant is not None
        and is_at_chance(teacher, constant, higher_is_better=head.higher_is_better),
        baseline=baseline["per_seed"][head.primary],
        student=distilled["per_seed"][head.primary],
        teacher_parameters=raw["parameters"]["teacher"],
        student_parameters=raw["parameters"]["student"],
        teacher_p50_ms=(timed["teacher"]["latency_ms"] or {}).get("p50"),
        student_p50_ms=timed["student"]["latency_ms"]["p50"],
        unit=info.unit if head.kind in ("regression", "gaussian") else "",
        simulated=info.simulated,
        rows_ci95=rows_ci95,
        compared_with=context.resolved.method_spec.baseline,
        bounds=head.bounds,
    )


def _dataset(context: RunContext, fingerprint: str) -> dict[str, Any]:
    """What the rows are and how many."""
    info = context.splits.info
    rows = {name: len(split) for name, split in context.splits.named().items()}
    if context.splits.unlabelled is not None:
        rows["unlabelled"] = len(context.splits.unlabelled)
    return {
        "id": context.resolved.dataset.id,
        "fingerprint": fingerprint,
        "rows": rows,
        "simulated": info.simulated,
        "description": info.description,
        "unit": info.unit,
        **classes_of(info, context.head),
    }


def _teacher_bytes(context: RunContext, teacher: Teacher) -> int | None:
    """Bytes of the members on disk, without their copies for folds; None for a teacher that is asked."""
    if any(member.is_asked for member in teacher.members):
        return None
    if (checkpoint := context.resolved.recipe.teacher.checkpoint) is not None:
        return model_bytes(context.resolved.base / checkpoint)
    members = sorted((context.folder / "teacher").glob("member-*"))
    return sum(model_bytes(path) for path in members if "fold" not in path.name)


def _stored(context: RunContext) -> dict[str, Any] | None:
    """How the teacher's distributions were stored, and what that leaves out; None where they are whole."""
    kept = context.folder / "teacher" / "signal-train" / "cache.json"
    if context.resolved.recipe.teacher.top_k is None or not kept.exists():
        return None
    facts = read_json(kept)
    return {name: facts[name] for name in ("k", "tokens", "bytes_per_token", "error", "rest")}


def _extra_rows(context: RunContext) -> dict[str, Any] | None:
    """How many rows the augmenter made, and what they cost; None without them."""
    made, bound, config = context.extra, context.resolved.extra_rows, context.resolved.recipe.train.student
    if made is None or bound is None:
        return None
    kept = context.folder / "teacher" / "signal-extra" / "cache.json"
    labelled, unlabelled = len(context.splits.train), sum(len(part) for part in context.unlabelled().values())
    beside = unlabelled / labelled
    if "estimator" not in context.resolved.student.component.spec.tags:  # an estimator is fitted on all rows at once
        beside = round(config.batch_size * config.unlabelled_ratio) / config.batch_size
    return {
        **bound.to_recipe(),
        "rows": len(made.rows),
        "making_seconds": round(made.seconds, 3),
        # Without stored answers the teacher is asked in each step, and its time is in that of the student's training.
        "labelling_seconds": round(read_json(kept)["seconds"], 3) if kept.exists() else None,
        "share_of_rows": beside / (1 + beside) * len(made.rows) / unlabelled,
        **({} if made.asked is None else {"asked": made.asked}),
    }


def _warn_of_weak_teacher(context: RunContext, teacher: float, baseline: float) -> None:
    better = teacher > baseline if context.head.higher_is_better else teacher < baseline
    if not better:
        context.warn(
            f"the teacher ({context.head.primary} {number(teacher)} on test) is not better than the student without it "
            f"({number(baseline)}): it has little to teach; try a better teacher first"
        )


def _warn_of_good_controls(context: RunContext, controls: Mapping[str, float], student: float) -> None:
    sign = 1 if context.head.higher_is_better else -1
    good = [f"{name} has {number(value)}" for name, value in controls.items() if sign * (value - student) >= 0]
    if good:
        context.warn(
            f"{' and '.join(good)} ({context.head.primary} on test) without any teacher, the distilled student "
            f"{number(student)}: where such a model is small and fast enough, it needs no distillation"
        )


def _seconds(context: RunContext) -> dict[str, float]:
    """Training time by stage: epochs of networks, and fits of estimators."""
    spent: dict[str, float] = {}

    def add(stage: str, seconds: float) -> None:
        spent[stage] = round(spent.get(stage, 0.0) + seconds, 3)

    for path in _of_models(context, FIT):
        stage = path.relative_to(context.folder).parts[0]
        add("control" if stage == "controls" else stage, read_json(path)["seconds"])
    for line in (context.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        add(record["stage"], record["seconds"])
    return spent
