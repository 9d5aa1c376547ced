"""What distillation is worth in size on the tasks of ``benchmarks.tune``: ``python -m benchmarks.sizes [TASK ...]``.

Each task is run at several sizes with the settings of its recipe, and with those that its search found.

Searches are read from the folder of ``benchmarks.tune``, whose runs come first. Results go to
``docs/results/sizes.json`` and ``docs/size-results.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import stillhouse
from benchmarks.tune import TABLES, TASKS, folder_of, table
from stillhouse.cli.recipe_options import parse_sizes
from stillhouse.errors import StillhouseError

RESULTS = Path("docs/results/sizes.json")
PAGE = Path("docs/size-results.md")
SEEDS = [0, 1, 2]
CURVES = "no worse than the smaller ones"
"""How the two curves are made monotone; rows that were computed otherwise are marked."""


def run_task(name: str, runs: Path, jobs: int) -> dict[str, Any]:
    """The row of a task: the size factor with the defaults and with the settings found."""
    task, folder = TASKS[name], folder_of(name, runs)
    if name in TABLES:
        table(name, runs / "tables")
    sizes = parse_sizes(task.sizes)
    own = [task.at] if task.at else []
    changes = [*task.with_tables(runs / "tables"), *own]
    row: dict[str, Any] = {"task": name, "recipe": task.recipe, "changes": [*task.changes, *own], "sizes": task.sizes}
    row["curves"] = CURVES
    plain = stillhouse.run(
        task.recipe, out=folder / "sizes-defaults", overrides=changes, seeds=SEEDS, sizes=sizes, jobs=jobs
    )
    row["defaults"] = _worth(plain.summary)
    found = folder / "tune/recipe.yaml"
    row["tune"] = (
        _worth(
            stillhouse.run(
                str(found), out=folder / "sizes-tune", overrides=own, seeds=SEEDS, sizes=sizes, jobs=jobs
            ).summary
        )
        if found.exists()
        else None
    )
    return row


def _worth(summary: dict[str, Any]) -> dict[str, Any]:
    keys = ("field", "measure", "value", "size", "equal_size", "size_factor", "censored", "ci95", "worth", "sentence")
    return {key: summary["worth"][key] for key in keys}


def write_page(rows: list[dict[str, Any]]) -> None:
    """The rows as a page of the documentation."""
    older = any(row.get("curves") != CURVES for row in rows)
    lines = [
        "# What distillation is worth in size",
        "",
        "Made by `python -m benchmarks.sizes`, three seeds: how many times larger a student without distillation must",
        "be to be as good as one with it, at the size that the recipe has (trees: depth 4), with a 95 % interval",
        "(bootstrap over seeds). A bound means that no size tested is as good. Size is the number of parameters.",
        "All sizes take the settings that suit the recipe's own.",
        "",
        "| task | sizes | with the defaults | with the settings that `stillhouse tune` found |",
        "|---|---|---|---|",
    ]
    for row in rows:
        mark = "" if row.get("curves") == CURVES else " †"
        cells = [row["task"] + mark, f"`{row['sizes']}`", _cell(row["defaults"]), _cell(row["tune"])]
        lines.append(f"| {' | '.join(cells)} |")
    if older:
        lines += [
            "",
            f"† Computed before a size counted as {CURVES}; such a row may claim more than `--sizes` does now.",
        ]
    above = {key: sum(bool(row[key] and row[key]["worth"]) for row in rows) for key in ("defaults", "tune")}
    lines += [
        "",
        f"The interval of the size factor lies above 1 in {above['defaults']} of {len(rows)} tasks with the defaults, "
        f"and in {above['tune']} with the search.",
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "no teacher is better than the student alone"
    ends = found["ci95"]
    interval = "" if ends is None else f" [{', '.join('open' if end is None else f'{end:.2g}' for end in ends)}]"
    text = f"{found['censored'] or ''} {found['size_factor']:.2g}{interval}".strip()
    return f"**{text}**" if found["worth"] else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"all by default: {', '.join(TASKS)}")
    parser.add_argument("--runs", type=Path, default=Path("runs/tune"))
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    for name in given.tasks or TASKS:
        try:
            row = run_task(name, given.runs, given.jobs)
        except StillhouseError as error:  # one task that fails does not take the others with it
            print(f"{name}: {error}", flush=True)
            continue
        rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
        rows = [*(each for each in rows if each["task"] != name), row]
        rows.sort(key=lambda each: list(TASKS).index(each["task"]))
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        write_page(rows)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
