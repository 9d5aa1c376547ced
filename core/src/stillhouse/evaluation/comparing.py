"""Several runs beside each other: where their recipes differ, and whether their students do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from stillhouse.errors import RunFolderError
from stillhouse.evaluation.runs import run_state
from stillhouse.evaluation.statistics import paired_gain
from stillhouse.recipe.text import read_saved
from stillhouse.storage import SUMMARY, read_object, refuse_search

WITHOUT_EFFECT = ("name", "summary", "search")
"""Fields of a recipe that no result depends on."""


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """Compare finished runs; the first is what the others are held against.

    Args:
        folders: of two runs at least, of the same primary metric.

    Returns:
        JSON-ready: ``metric``, ``higher_is_better``, ``unit``, ``runs`` (name, folder, models, fingerprint, seeds),
        ``recipe`` (field and its value in each run, where they are not all the same), ``differences`` for each of the
        other runs: ``run``, ``model``, ``difference`` (positive is better than the first run), ``ci95``, ``paired``,
        ``better`` (true or false where the interval lies on one side of zero), and ``notes``.

    Raises:
        RunFolderError: fewer than two runs, one that is not finished, or runs of different metrics.
    """
    if len(folders) < 2:
        raise RunFolderError("a comparison needs two runs at least", fix="name another run folder")
    places = [folder.resolve() for folder in folders]
    if twice := [folder for at, folder in enumerate(folders) if places[at] in places[:at]]:
        raise RunFolderError(f"'{twice[0]}' is named twice", where=str(twice[0]), fix="name another run folder")
    runs = [_read(folder) for folder in folders]
    names = _names(folders)
    first, metric = runs[0]["summary"], runs[0]["summary"]["primary_metric"]
    for folder, run in zip(folders, runs, strict=True):
        other = run["summary"]["primary_metric"]
        if other != metric:
            raise RunFolderError(
                f"'{folder}' is judged by {other['name']}, '{folders[0]}' by {metric['name']}",
                where=str(folder),
                fix="compare runs of the same primary metric",
            )
    same = [run["summary"]["dataset"]["fingerprint"] == first["dataset"]["fingerprint"] for run in runs]
    notes = [
        f"{name} has other rows than {names[0]}: a difference may be that of the rows"
        for name, equal in zip(names, same, strict=True)
        if not equal
    ]
    differences = [
        {"run": name, "model": model, **_difference(first, run["summary"], model, metric["higher_is_better"], equal)}
        for name, run, equal in zip(names[1:], runs[1:], same[1:], strict=True)
        for model in ("baseline", "student")
    ]
    return {
        "metric": metric["name"],
        "higher_is_better": metric["higher_is_better"],
        "unit": first["dataset"].get("unit", ""),
        "runs": [
            {"name": name, "folder": str(folder), **_models(run["summary"], metric["name"])}
            for name, folder, run in zip(names, folders, runs, strict=True)
        ],
        "recipe": recipe_differences([run["recipe"] for run in runs]),
        "differences": differences,
        "notes": notes,
    }


def _read(folder: Path) -> dict[str, Any]:
    refuse_search(folder)
    if not (folder / "recipe.yaml").exists():
        raise RunFolderError(
            f"'{folder}' is not a run folder: it has no recipe.yaml",
            where=str(folder),
            fix="`stillhouse runs` lists your runs",
        )
    if not (folder / SUMMARY).exists():
        raise RunFolderError(
            f"the run in '{folder}' is not finished ({run_state(folder)})",
            where=str(folder),
            fix=f"go on with it: stillhouse run {folder / 'recipe.yaml'} --out {folder}",
        )
    return {"summary": read_object(folder / SUMMARY), "recipe": read_saved(folder / "recipe.yaml")}


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or their paths where these are the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _models(summary: dict[str, Any], metric: str) -> dict[str, Any]:
    def cost(model: str) -> dict[str, Any]:
        part = summary[model]
        latency = part.get("latency_ms")
        return {"parameters": part["parameters"], "bytes": part["bytes"], "latency_ms": latency and latency["p50"]}

    found: dict[str, Any] = {"teacher": {"mean": summary["teacher"]["metrics"]["test"][metric], **cost("teacher")}}
    for model in ("baseline", "student"):
        part = summary[model]
        found[model] = {
            "mean": part["mean"],
            "ci95": part["ci95"],
            "seeds": part["seeds"],
            "per_seed": part["per_seed"][metric],
            **cost(model),
        }
    return found | {"fingerprint": summary["dataset"]["fingerprint"], "verdict": summary["verdict"]}


def _difference(
    first: dict[str, Any], other: dict[str, Any], model: str, higher_is_better: bool, same_rows: bool
) -> dict[str, Any]:
    """How much better the other run's model is: paired over the seeds that both have where the rows are the same, else
    with Welch's interval for two independent means."""
    metric = first["primary_metric"]["name"]
    values = [dict(zip(run[model]["seeds"], run[model]["per_seed"][metric], strict=True)) for run in (first, other)]
    shared = [seed for seed in values[0] if seed in values[1]]
    if same_rows and shared and set(values[0]) == set(values[1]):
        pairs = [[each[seed] for seed in shared] for each in values]
        found = paired_gain(pairs[1], pairs[0], higher_is_better)
        difference, bounds, paired = found["gain"], found["gain_ci95"], True
    else:
        sign = 1.0 if higher_is_better else -1.0
        one, two = (sign * np.array(list(each.values()), dtype=float) for each in values)
        difference, bounds, paired = float(two.mean() - one.mean()), welch(one, two), False
    better = None if bounds is None or bounds[0] <= 0 <= bounds[1] else bounds[0] > 0
    return {"difference": difference, "ci95": bounds, "paired": paired, "better": better}


def welch(one: np.ndarray, two: np.ndarray) -> list[float] | None:
    """95 % interval of ``mean(two) - mean(one)`` for independent samples of unequal variance (Welch 1947, with the
    degrees of freedom of Welch and Satterthwaite); None where a sample has one value, or both have no spread."""
    if len(one) < 2 or len(two) < 2:
        return None
    parts = [float(np.var(each, ddof=1)) / len(each) for each in (one, two)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return None
    degrees = sum(parts) ** 2 / sum(part**2 / (len(each) - 1) for part, each in zip(parts, (one, two), strict=True))
    half, middle = float(stats.t.ppf(0.975, degrees)) * error, float(two.mean() - one.mean())
    return [middle - half, middle + half]


def recipe_differences(recipes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fields that are not the same in all recipes, with the value in each (null where it is absent)."""
    flat = [_flat({name: value for name, value in each.items() if name not in WITHOUT_EFFECT}) for each in recipes]
    fields = list(dict.fromkeys(field for each in flat for field in each))
    rows = [{"field": field, "values": [each.get(field) for each in flat]} for field in fields]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            name: leaf
            for key, item in value.items()
            for name, leaf in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return {name: leaf for at, item in enumerate(value) for name, leaf in _flat(item, f"{prefix}.{at}").items()}
    return {prefix: value}
