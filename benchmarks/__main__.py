"""Runs all comparisons, or those of one group: ``python -m benchmarks [objectives|start|training|threads]``."""

from __future__ import annotations

import argparse
import platform

import torch
from rich.console import Console

from benchmarks.objectives import compare_objectives
from benchmarks.start import compare_start
from benchmarks.training import compare_threads, compare_training

GROUPS = {
    "objectives": compare_objectives,
    "start": compare_start,
    "training": compare_training,
    "threads": compare_threads,
}


def main() -> None:
    """Print one line a comparison: the median ratio, its range, and both medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("group", nargs="?", choices=sorted(GROUPS), help="only this group")
    chosen = parser.parse_args().group
    torch.set_num_threads(1)
    console = Console(highlight=False, width=120)
    console.print(f"Python {platform.python_version()}, torch {torch.__version__}, 1 thread; ratio: ours / yardstick")
    for name, group in GROUPS.items():
        if chosen in (None, name):
            for found in group():
                spread = f"[{min(found.ratios):.2f}, {max(found.ratios):.2f}]"
                console.print(
                    f"{found.ratio:6.2f} {spread:>16}  {found.name}  "
                    f"({found.ours:.0f} {found.unit}, {found.yardstick:.0f} {found.unit})",
                    markup=False,
                )


if __name__ == "__main__":
    main()
