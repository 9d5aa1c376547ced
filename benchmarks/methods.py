"""Every method against ``core/offline`` on real tasks: ``python -m benchmarks.methods [TASK ...]``.

Equal seeds and settings; teachers and baselines are shared. Runs stay in ``runs/methods`` and go on where they were.
The figures are written to ``docs/results/methods.json``, and as a table to ``docs/methods-results.md``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import stillhouse
from stillhouse.evaluation.statistics import ci95

RUNS = Path("runs/methods")
RESULTS = Path("docs/results/methods.json")
TABLE = Path("docs/methods-results.md")
SEEDS = [0, 1, 2, 3, 4]

HINTS = "objectives.soft=[{use: core/hints, student: features, teacher: features}, {use: soft, temperature: 2.0}]"
TASKS: dict[str, tuple[str, list[str], dict[str, list[str]]]] = {
    "rul": (
        "industrial/rul-fd001",
        [],
        {
            "core/born-again": ["method={use: core/born-again, generations: 2}"],
            "core/mutual": ["method={use: core/mutual, peers: 2}"],
            "core/assistant": [
                "method={use: core/assistant, assistants: [{use: industrial/temporal-cnn, filters: 8, width: 48}]}"
            ],
            "core/adaptive, difficulty": ["method={use: core/adaptive, mode: difficulty}"],
            "core/adaptive, annealing": ["method={use: core/adaptive, mode: annealing}"],
        },
    ),
    "digits": (
        "audio_vision/digits",
        ["dataset.augment={}"],
        {
            "core/born-again": ["method={use: core/born-again, generations: 2}"],
            "core/mutual": ["method={use: core/mutual, peers: 2}"],
            "core/staged": ["method=core/staged", HINTS],
            "core/assistant": [
                "method={use: core/assistant, assistants: [{use: audio_vision/image-cnn, width: 24, blocks: 3}]}"
            ],
            "core/adversarial": ["method={use: core/adversarial, epsilon: 0.05, steps: 3, low: 0.0, high: 1.0}"],
            "core/adaptive, difficulty": ["method={use: core/adaptive, mode: difficulty}"],
        },
    ),
}
"""By name: a recipe, changes of it for all methods, and the changes that each method needs."""


def run_task(name: str) -> list[dict[str, Any]]:
    """One row a method: test metric, gain over the baseline and over offline distillation, paired by seed."""
    recipe, common, methods = TASKS[name]
    offline = RUNS / name / "offline"
    rows = []
    reference: dict[str, Any] = {}
    for method, changes in {"core/offline": [], **methods}.items():
        folder = RUNS / name / method.removeprefix("core/").replace(", ", "-")
        if method != "core/offline" and not folder.exists():
            shutil.copytree(offline, folder)  # teacher and baseline are the same, so they are not trained again
        summary = stillhouse.run(recipe, out=folder, overrides=[*common, *changes], seeds=SEEDS, overwrite=True).summary
        reference = reference or summary
        rows.append(_row(name, recipe, method, [*common, *changes], summary, reference))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _row(
    task: str, recipe: str, method: str, changes: list[str], summary: dict[str, Any], offline: dict[str, Any]
) -> dict[str, Any]:
    metric, higher = summary["primary_metric"]["name"], summary["primary_metric"]["higher_is_better"]
    student, before = (np.array(each["student"]["per_seed"][metric]) for each in (summary, offline))
    difference = (student - before) * (1 if higher else -1)
    baseline_seconds = summary["seconds"]["baseline"]
    return {
        "task": task,
        "recipe": recipe,
        "method": method,
        "changes": changes,
        "metric": metric,
        "seeds": SEEDS,
        "teacher": summary["teacher"]["metrics"]["test"][metric],
        "baseline": summary["baseline"]["mean"],
        "student": summary["student"]["mean"],
        "gain": summary["verdict"]["gain"],
        "gain_ci95": summary["verdict"]["gain_ci95"],
        "over_offline": float(difference.mean()),
        "over_offline_ci95": ci95(difference.tolist()) if method != "core/offline" else None,
        "cost": summary["seconds"]["student"] / baseline_seconds if baseline_seconds else None,
        "facts": summary["method_facts"].get("table", []),
    }


def write_table(rows: list[dict[str, Any]]) -> None:
    """The rows as a page of the documentation."""
    lines = [
        "# Methods on real tasks",
        "",
        "Made by `python -m benchmarks.methods`: test figures, five seeds, 95 % intervals paired by seed; positive",
        "gains are better. Settings are those of each recipe, which were found for `core/offline`; no method was tuned",
        "for these tasks. Cost is the training time of the student over that of the baseline, on one CPU thread of a",
        "machine that did other work beside it.",
        "",
        "| task | method | teacher | baseline | student | gain over the baseline | gain over `core/offline` | cost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| `{row['recipe']}` ({row['metric']}) | {row['method']} | {row['teacher']:.4g} | {row['baseline']:.4g} | "
            f"{row['student']:.4g} | {_interval(row['gain'], row['gain_ci95'])} | "
            f"{_interval(row['over_offline'], row['over_offline_ci95'])} | {row['cost']:.1f} |"
        )
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _interval(mean: float, bounds: list[float] | None) -> str:
    return f"{mean:.3g} [{bounds[0]:.3g}, {bounds[1]:.3g}]" if bounds else "–"


def main() -> None:
    """Run the tasks, keep their rows, write the table of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("task", nargs="*", help=f"only these: {', '.join(TASKS)}")
    chosen = parser.parse_args().task or list(TASKS)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    for name in chosen:
        known = [row for row in known if row["task"] != name] + run_task(name)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        write_table(known)


if __name__ == "__main__":
    main()
