"""Every method and objective on real tasks, tuned alike: ``python -m benchmarks.methods [TASK ...]``.

For each task and entry of `benchmarks.method_entries`, as many settings as for any other are tried with one seed and
judged on validation rows; the best of them runs with five seeds, and only then is the test read. Teachers and baselines
are shared. Runs stay in ``runs/methods`` and go on where they were; an entry that has its row is not run again. Rows
are written to ``docs/results/methods.json`` after each entry, and as tables to ``docs/methods-results.md``.

``--entries`` and ``--seeds`` make it smaller, ``--set`` changes all recipes alike (a smoke test: ``--set
train.student.epochs=1``), ``--results`` writes the rows of such a trial elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import stillhouse
from benchmarks.method_entries import ENTRIES, TASKS, Task
from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.evaluation.statistics import ci95

RUNS = Path("runs/methods")
RESULTS = Path("docs/results/methods.json")
TABLE = Path("docs/methods-results.md")
BEGIN, END = "<!-- figures: python -m benchmarks.methods -->", "<!-- end of figures -->"
SEEDS = (0, 1, 2, 3, 4)
MOST = 8.0
"""Times as long as by ``core/offline`` that a student may take: the budget of every entry."""
QUICK = ("controls=[]", "evaluate.latency_samples=5", "evaluate.throughput_batch=16")
"""What no row tells: controls, and latency."""


def run_entry(name: str, entry: str, seeds: Sequence[int], common: Sequence[str]) -> dict[str, Any]:
    """The row of a task and an entry: chosen on validation rows, then run with all seeds.

    What does not serve the task (no module to tap, another output kind) has a row with ``refused`` in place of figures.
    """
    task, given = TASKS[name], ENTRIES[entry]
    row: dict[str, Any] = {"task": name, "recipe": task.recipe, "method": entry, "seeds": [*seeds]}
    if given.kinds and task.kind not in given.kinds:
        return {**row, "refused": f"not for {task.kind} heads"}
    if given.taps and task.taps is None:
        return {**row, "refused": "the teacher has no module to tap"}
    base = [
        *QUICK,
        *task.changes,
        *(task.several if given.several else ()),
        *(task.one_term if given.one_term else ()),
        *common,
    ]
    began, found = time.monotonic(), []
    folder = RUNS / name / entry.removeprefix("core/").replace(", ", "-").replace(" ", "-")
    try:
        if not (folder.parent / "first" / "summary.json").exists():
            _run(task.recipe, folder.parent / "first", [*QUICK, *task.changes, *common], seeds)
        for number, setting in enumerate(given.settings):
            changes = [*base, *(_tapped(each, task) for each in setting)]
            summary = _run(task.recipe, folder / f"trial-{number}", changes, seeds[:1])
            times = summary["seconds"]["student"] / _offline_seconds(folder.parent)
            if times > MOST:
                return {**row, "refused": f"takes {times:.0f} times as long as core/offline; the budget is {MOST:g}"}
            found.append((_validated(summary), number, changes))
        sign = 1 if summary["primary_metric"]["higher_is_better"] else -1
        _, chosen, changes = max(found, key=lambda each: (sign * each[0], -each[1]))
        final = _run(task.recipe, _with_baselines(folder / "final", folder / f"trial-{chosen}"), changes, seeds)
    except (IncompatibleError, OptionError) as error:  # anything else is a defect, and no result
        return {**row, "refused": error.what}
    metric = final["primary_metric"]["name"]
    baseline_seconds = final["seconds"]["baseline"]
    return {
        **row,
        "changes": changes,
        "trials": [{"changes": each, "val": value if math.isfinite(value) else None} for value, _, each in found],
        "metric": metric,
        "higher_is_better": final["primary_metric"]["higher_is_better"],
        "teacher": final["teacher"]["metrics"]["test"][metric],
        "baseline": final["baseline"]["mean"],
        "student": final["student"]["mean"],
        "per_seed": final["student"]["per_seed"][metric],
        "gain": final["verdict"]["gain"],
        "gain_ci95": final["verdict"]["gain_ci95"],
        "cost": final["seconds"]["student"] / baseline_seconds if baseline_seconds else None,
        "seconds": round(time.monotonic() - began),
        "facts": final["method_facts"].get("table", []),
    }


def _offline_seconds(folder: Path) -> float:
    """What a student takes by ``core/offline``: the mean over the seeds of the task's first run."""
    summary = json.loads((folder / "first" / "summary.json").read_text(encoding="utf-8"))
    return float(summary["seconds"]["student"]) / len(next(iter(summary["student"]["per_seed"].values())))


def _tapped(change: str, task: Task) -> str:
    student, teacher = task.taps or ("", "")
    return change.replace("<student>", student).replace("<teacher>", teacher)


def _validated(summary: dict[str, Any]) -> float:
    value = float(summary["student"]["metrics"]["val"][summary["primary_metric"]["name"]])
    sign = 1 if summary["primary_metric"]["higher_is_better"] else -1
    return value if math.isfinite(value) else -sign * math.inf


def _with_baselines(folder: Path, trial: Path) -> Path:
    """A run folder with the student of a trial and the baselines of all seeds, which a run of one seed has dropped."""
    if not folder.exists():
        shutil.copytree(folder.parent.parent / "first", folder)
        shutil.rmtree(folder / "student")
        shutil.copytree(trial / "student", folder / "student")
    return folder


def _run(recipe: str, folder: Path, changes: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """A run up to its summary; teacher and baselines of all seeds are taken from the task's first run."""
    first = folder.parent.parent / "first"
    if not folder.exists() and first.exists():
        shutil.copytree(first, folder)
    result = stillhouse.run(
        recipe, out=folder, overrides=[*changes], seeds=[*seeds], overwrite=True, stop_after="evaluate"
    )
    summary: dict[str, Any] = result.summary
    return summary


def compared(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their gain over ``core/offline`` on the same task, paired by seed."""
    offline = {row["task"]: row for row in rows if row["method"] == "core/offline" and "refused" not in row}
    found = []
    for row in rows:
        before = offline.get(row["task"])
        if "per_seed" in row and before is not None and row is not before and row["seeds"] == before["seeds"]:
            sign = 1 if row["higher_is_better"] else -1
            gap = sign * (np.array(row["per_seed"]) - np.array(before["per_seed"]))
            interval = ci95(gap.tolist()) if len(gap) > 1 else None
            row = {**row, "over_offline": float(gap.mean()), "over_offline_ci95": interval}
        found.append(row)
    return found


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each task, as Markdown; what has no figures is named below it, by reason."""
    lines: list[str] = []
    for name, task in TASKS.items():
        mine = [row for row in rows if row["task"] == name]
        measured = [row for row in mine if "refused" not in row]
        if not measured:
            continue
        first, order = measured[0], list(ENTRIES)
        seconds = sum(row["seconds"] for row in measured)
        changed = f", with {', '.join(f'`{each}`' for each in task.changes)}" if task.changes else ""
        lines += [
            f"\n### {task.recipe}\n",
            f"`{first['metric']}`, {'higher' if first['higher_is_better'] else 'lower'} is better; teacher "
            f"{first['teacher']:.4g}, student on labels alone {first['baseline']:.4g}, {len(first['seeds'])} "
            f"seeds{changed}. {seconds / 60:.0f} minutes.\n",
            "| method or objective | student | gain | gain over `core/offline` | cost |",
            "|---|---:|---|---|---:|",
        ]
        for row in sorted(measured, key=lambda row: order.index(row["method"])):
            cost = "–" if row["cost"] is None else f"{row['cost']:.1f}"
            gain, over = _interval(row["gain"], row["gain_ci95"]), row.get("over_offline")
            lines.append(
                f"| {row['method']} | {row['student']:.4g} | {gain} | {_interval(over, row.get('over_offline_ci95'))} "
                f"| {cost} |"
            )
        reasons: dict[str, list[str]] = {}
        for row in mine:
            if "refused" in row:
                reasons.setdefault(row["refused"], []).append(row["method"])
        told = [f"{', '.join(methods)} ({reason})" for reason, methods in reasons.items()]
        waiting = [entry for entry in order if entry not in {row["method"] for row in mine}]
        lines += [f"\nWithout figures: {'; '.join(told)}."] if told else []
        lines += [f"\nNot run yet: {', '.join(waiting)}."] if waiting else []
    return "\n".join(lines)


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Put the tables into their place on a page, which is made where there is none."""
    page = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{tables(rows)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _interval(mean: float | None, bounds: Sequence[float] | None) -> str:
    """The mean and its interval; in bold where the interval leaves zero out."""
    if mean is None or not bounds:
        return "–"
    text = f"{mean:.3g} [{bounds[0]:.3g}, {bounds[1]:.3g}]"
    return f"**{text}**" if bounds[0] > 0 or bounds[1] < 0 else text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the entries of the tasks that have no row yet, keep their rows, write the table of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("task", nargs="*", help=f"only these: {', '.join(TASKS)}")
    parser.add_argument("--entries", nargs="*", default=list(ENTRIES), help="only these (core/offline comes with them)")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--set", action="append", default=[], help="a change of all recipes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows go; the table is beside it")
    given = parser.parse_args(arguments)
    table = TABLE if given.results == RESULTS else given.results.with_suffix(".md")
    given.results.parent.mkdir(parents=True, exist_ok=True)
    for name in given.task or list(TASKS):
        for entry in dict.fromkeys(["core/offline", *given.entries]):
            if any(
                (row["task"], row["method"], row["seeds"]) == (name, entry, given.seeds) for row in _kept(given.results)
            ):
                continue
            row = run_entry(name, entry, given.seeds, given.set)
            shown = {key: row.get(key) for key in ("task", "method", "student", "gain", "refused", "seconds")}
            print(json.dumps(shown), flush=True)
            # read again: another process may have added rows of its task meanwhile
            rows = [each for each in _kept(given.results) if (each["task"], each["method"]) != (name, entry)] + [row]
            given.results.write_text(json.dumps(compared(rows), indent=1) + "\n", encoding="utf-8")
            write_table(compared(rows), table)


def _kept(results: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    return rows


if __name__ == "__main__":
    main()
