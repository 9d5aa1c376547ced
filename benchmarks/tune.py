"""Fixed defaults against ``stillhouse tune`` on real tasks: ``python -m benchmarks.tune [TASK ...] [--jobs N]``.

For each task: the recipe as it is with five seeds, then a search, whose final run has five seeds. Both meet the same
test rows, and the search meets them once. Runs stay in ``--runs`` and go on where they were; results are added to
``docs/results/tune.json``, and as a table to ``docs/tune-results.md``. Tasks with files need ``STILLHOUSE_DATA``.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn import datasets

import stillhouse
from stillhouse.errors import StillhouseError
from stillhouse.tuning import tune

RESULTS = Path("docs/results/tune.json")
TABLE = Path("docs/tune-results.md")
SEEDS = [0, 1, 2, 3, 4]


@dataclass(frozen=True)
class Task:
    """A recipe, changes to it for both, and minutes of the search."""

    recipe: str
    changes: tuple[str, ...] = ()
    minutes: float = 10.0
    sizes: str = ""
    """Values of the student's option that sets its size, for `benchmarks.sizes`."""
    at: str = ""
    """The size whose factor is told there, where it is not the recipe's own."""

    def with_tables(self, folder: Path) -> list[str]:
        """The changes, with the folder that holds the tables."""
        return [change.format(tables=folder.resolve()) for change in self.changes]


def table(name: str, folder: Path) -> Path:
    """A real table as a CSV file."""
    path = folder / f"{name}.csv"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "nsl-kdd":
            source = Path(os.environ["STILLHOUSE_DATA"]) / "industrial/nsl-kdd/KDDTrain+_20Percent.txt"
            frame = pd.read_csv(source, header=None).drop(columns=42)
            frame.columns = [*(f"f{column}" for column in range(41)), "attack"]
            frame["target"] = (frame.pop("attack") != "normal").astype(int)
        else:
            frame = getattr(datasets, f"load_{name.replace('-', '_')}")(as_frame=True).frame
        frame.to_csv(path, index=False)
    return path


def of_table(name: str, *changes: str, minutes: float = 10.0) -> Task:
    """A table with the recipe for anybody's own."""
    return Task(
        "finance/tabular",
        (f"dataset.path={{tables}}/{name}.csv", "dataset.target=target", *changes),
        minutes,
        "student.max_depth=2,3,4,6,8,10,14",
        "student.max_depth=4",  # a tree that can be read; on few labels none of the baseline's trees gets large
    )


MULTICLASS = ("dataset.kind=multiclass", "head=core/multiclass")
REGRESSION = ("dataset.kind=regression", "head=core/regression")
TABLES = ("breast-cancer", "diabetes", "digits", "nsl-kdd")
TASKS: dict[str, Task] = {
    "breast-cancer": of_table("breast-cancer"),
    "diabetes": of_table("diabetes", *REGRESSION),
    "digits": of_table("digits", *MULTICLASS),
    "nsl-kdd": of_table("nsl-kdd"),
    "rul-fd001, half the width": Task("industrial/rul-fd001", ("student.width=16",), 15, "student.width=4,8,16,32"),
    "rul-fd002": Task("industrial/rul-fd002", (), 20, "student.width=8,16,32,64"),
    "faults, half the width": Task("industrial/tep-faults", ("student.hidden=16",), 10, "student.hidden=8,16,32,64"),
    "card fraud, half the width": Task(
        "finance/fraud-handbook",
        ("student.hidden=[32, 16]",),
        12,
        "student.hidden=[16, 8],[32, 16],[64, 32],[128, 64]",
    ),
    "pneumonia, half the width": Task("medicine/pneumonia", ("student.width=8",), 15, "student.width=4,8,16,32"),
    "spoken digits, half the width": Task(
        "audio_vision/fsdd-speakers", ("student.width=0.25",), 12, "student.width=0.125,0.25,0.5,1.0"
    ),
    "vqa-rad, unseen images": Task("medicine/vqa-rad", (), 15, "student.width=24,48,96,192"),
    "vqa-rad, unseen questions": Task(
        "medicine/vqa-rad", ("dataset.split=by-question",), 15, "student.width=24,48,96,192"
    ),
}


def folder_of(name: str, runs: Path) -> Path:
    """Where the runs of a task are."""
    return runs / name.replace(", ", "-").replace(" ", "-")


def run_task(name: str, runs: Path, jobs: int, minutes: float | None) -> dict[str, Any]:
    """The row of a task: both verdicts, and what the search cost."""
    task, folder = TASKS[name], folder_of(name, runs)
    if name in TABLES:
        table(name, runs / "tables")
    changes = task.with_tables(runs / "tables")
    plain = stillhouse.run(task.recipe, out=folder / "defaults", overrides=changes, seeds=SEEDS).summary
    found = tune(
        task.recipe, out=folder / "tune", overrides=changes, minutes=minutes or task.minutes, trials=40, jobs=jobs
    ).record
    metric = plain["primary_metric"]["name"]
    return {
        "task": name,
        "recipe": task.recipe,
        "changes": list(task.changes),
        "metric": metric,
        "test_rows": plain["dataset"]["rows"]["test"],
        "parameters": plain["student"]["parameters"],
        "defaults": {
            "teacher": plain["teacher"]["metrics"]["test"][metric],
            "baseline": plain["baseline"]["mean"],
            "student": plain["student"]["mean"],
            **{key: plain["verdict"][key] for key in ("gain", "gain_ci95", "helped", "interval_over")},
        },
        "tune": None
        if found["final"] is None
        else {
            **{key: found["final"][key] for key in ("teacher", "baseline", "student")},
            **{key: found["final"]["verdict"][key] for key in ("gain", "gain_ci95", "helped", "interval_over")},
            "held_out_gain": found["confirmation"]["gain"],
            "settings": found["confirmation"]["settings"],
        },
        "stopped": found.get("stopped", ""),
        "trials": len(found["trials"]),
        "minutes": round(found["seconds"] / 60, 1),
        "limit": minutes or task.minutes,
        "jobs": jobs,
    }


def write_table(rows: list[dict[str, Any]]) -> None:
    """The rows as a page of the documentation."""
    lines = [
        "# Searches on real tasks",
        "",
        "Made by `python -m benchmarks.tune`: each recipe as it is, and after `stillhouse tune`, with five seeds each.",
        "Test metrics; gains are signed so that positive is better, with 95 % intervals over seeds, or over test rows",
        "where models have no randomness. Minutes are those of the whole search, final run included; the limit",
        "(`--minutes`) holds for the trials: what has begun is finished.",
        "",
        "| task | metric | defaults: teacher, baseline, student | gain | tune: teacher, baseline, student | gain | "
        "held-out gain | trials, minutes (limit) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        after = row["tune"]
        cells = [
            f"{row['task']} (`{row['recipe']}`, {row['test_rows']} test rows)",
            row["metric"],
            _models(row["defaults"]),
            _gain(row["defaults"]),
            "no teacher is better than the student alone" if after is None else _models(after),
            "" if after is None else _gain(after),
            "" if after is None else f"{after['held_out_gain']:+.3g}",
            f"{row['trials']}, {row['minutes']:.0f} ({row['limit']:.0f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    helped = {key: sum(bool(row[key] and row[key]["helped"]) for row in rows) for key in ("defaults", "tune")}
    lines += [
        "",
        f"The interval of the gain lies above zero in {helped['defaults']} of {len(rows)} tasks with the defaults, and "
        f"in {helped['tune']} with the search.",
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _models(of: dict[str, Any]) -> str:
    return ", ".join(f"{of[name]:.4g}" for name in ("teacher", "baseline", "student"))


def _gain(of: dict[str, Any]) -> str:
    bounds = of["gain_ci95"]
    text = f"{of['gain']:+.3g} " + ("(no interval)" if bounds is None else f"[{bounds[0]:+.3g}, {bounds[1]:+.3g}]")
    return f"**{text}**" if of["helped"] else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"all by default: {', '.join(TASKS)}")
    parser.add_argument("--runs", type=Path, default=Path("runs/tune"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="of each search, instead of its own")
    given = parser.parse_args()
    for name in given.tasks or TASKS:
        try:
            row = run_task(name, given.runs, given.jobs, given.minutes)
        except StillhouseError as error:  # one task that fails does not take the others with it
            print(f"{name}: {error}", flush=True)
            continue
        rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
        rows = [*(each for each in rows if each["task"] != name), row]
        rows.sort(key=lambda each: list(TASKS).index(each["task"]))
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        write_table(rows)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
