"""What the method of a run adds of its own: facts noted in training, and results of the finished models, over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.evaluation.statistics import ci95
from stillhouse.methods import Method
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.student import FACTS, make_method, method_context
from stillhouse.pipeline.teacher import Teacher
from stillhouse.storage import read_json
from stillhouse.trained import Trained, load


def method_facts(context: RunContext, teacher: Teacher) -> dict[str, Any]:
    """``{"seeds": [...], "per_seed": [{...}, ...], "table": [...]}``: all facts of each seed, and mean and interval of
    those that are numbers; empty when the method has none."""
    seeds = context.resolved.recipe.seeds
    method = make_method(context)
    per_seed = []
    for seed in seeds:
        folder = context.folder / "student" / f"seed-{seed}"
        facts = _joined(*(_noted(context.folder / role / f"seed-{seed}") for role in ("baseline", "student")))
        if type(method).evaluate is not Method.evaluate:
            given = method_context(
                context,
                context.resolved.student,
                teacher,
                config=context.resolved.recipe.train.student,
                seed=seed,
                label=f"student, seed {seed}",
                tags={},
                folder=folder,
            )
            facts |= method.evaluate(given, _models(context, teacher, seed))
        per_seed.append(facts)
    if not any(per_seed):
        return {}
    numbers = [dict(_numbers(facts)) for facts in per_seed]
    table = []
    for name, model in numbers[0]:
        if all((name, model) in each for each in numbers):
            values = [each[name, model] for each in numbers]
            table.append({"name": name, "model": model, "mean": float(np.mean(values)), "ci95": ci95(values)})
    return {"seeds": list(seeds), "per_seed": per_seed, "table": table}


def _noted(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / FACTS) if (folder / FACTS).exists() else {}
    return found


def _joined(baseline: Mapping[str, Any], student: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of both; mappings of the same name (by model) become one."""
    found = dict(baseline)
    for name, value in student.items():
        before = found.get(name)
        found[name] = {**before, **value} if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return found


def _models(context: RunContext, teacher: Teacher, seed: int) -> dict[str, Trained]:
    """The finished models of a seed, in eval mode on the run's device."""
    models = {"teacher": teacher.members[0]} if len(teacher.members) == 1 else {}
    for name in ("baseline", "student"):
        models[name] = load(context.folder / name / f"seed-{seed}", context.registry, context.splits.info)
        if models[name].is_network:
            models[name].model.to(context.device)
    return models


def _numbers(facts: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], float]]:
    """Facts that are numbers, by name and model (empty for those of the training itself)."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            for model, inner in value.items():
                if isinstance(inner, int | float) and not isinstance(inner, bool):
                    yield (name, str(model)), float(inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (name, ""), float(value)
