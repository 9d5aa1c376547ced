"""Runs all comparisons, or those of one group: ``python -m benchmarks [objectives|start|training|threads]``.

``--write`` puts what was measured into ``docs/results/performance.json`` and the table of ``docs/performance.md``; a
group that is not run keeps its rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.objectives import compare_objectives
from benchmarks.start import compare_start
from benchmarks.timing import Comparison
from benchmarks.training import compare_threads, compare_training

GROUPS = {
    "training": compare_training,
    "start": compare_start,
    "objectives": compare_objectives,
    "threads": compare_threads,
}
DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES, PAGE = DOCS / "results" / "performance.json", DOCS / "performance.md"
BEGIN, END = "<!-- figures: make bench -->", "<!-- end of figures -->"


def main() -> None:
    """Print one line a comparison: the median ratio, its range, and both medians; write them where that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("group", nargs="?", choices=sorted(GROUPS), help="only this group")
    parser.add_argument("--write", action="store_true", help="write the figures of the documentation")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(highlight=False, width=140)
    console.print(f"Python {platform.python_version()}, torch {torch.__version__}, 1 thread; ratio: ours / yardstick")
    measured: dict[str, dict[str, Any]] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for name, group in GROUPS.items():
        if given.group in (None, name):
            rows = []
            for found in group():
                rows.append(dataclasses.asdict(found) | {"ratio": found.ratio})
                console.print(_line(found), markup=False)
            measured[name] = {"machine": _machine(), "comparisons": rows}
    if given.write:
        FIGURES.write_text(json.dumps(measured, indent=1) + "\n")
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{_tables(measured)}\n{END}{rest.partition(END)[2]}")
        console.print(f"wrote {FIGURES.name} and {PAGE.name}", markup=False)


def _line(found: Comparison) -> str:
    spread = f"[{min(found.ratios):.2f}, {max(found.ratios):.2f}]"
    medians = f"({found.ours:.0f} {found.unit}, {found.yardstick:.0f} {found.unit})"
    return f"{found.ratio:6.2f} {spread:>16}  {found.name}  {medians}"


def _machine() -> dict[str, Any]:
    """Where and when, as far as a ratio may depend on it."""
    return {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _tables(measured: dict[str, dict[str, Any]]) -> str:
    parts = []
    for name in GROUPS:
        if name in measured:
            on = measured[name]["machine"]
            parts += [
                f"\n### {name.capitalize()}\n",
                f"{on['date']}, {on['cores']} cores, load {on['load']}, Python {on['python']}, torch {on['torch']}.\n",
                "| ours, against the yardstick | ratio | range | goal | |",
                "|---|---:|---|---:|---|",
                *(_row(each) for each in measured[name]["comparisons"]),
            ]
    return "\n".join(parts)


def _row(found: dict[str, Any]) -> str:
    goal = found["goal"]
    verdict = "" if goal is None else "met" if found["ratio"] <= goal else "missed"
    wanted = "" if goal is None else f"{goal:g}"
    low, high = min(found["ratios"]), max(found["ratios"])
    return f"| {found['name']} | {found['ratio']:.2f} | {low:.2f} to {high:.2f} | {wanted} | {verdict} |"


if __name__ == "__main__":
    main()
