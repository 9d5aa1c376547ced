"""What ``--jobs`` is worth: ``python -m benchmarks.jobs industrial/rul-fd001 --seeds 0-4 --jobs 2 --pairs 3``.

Each run is a process of its own with an empty store of teachers and a folder of its own; runs with one and with several
processes take turns, so that a slow spell of the machine meets both. An idle machine is needed: on one that is busy the
processes wait for each other and the ratio says nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VOLATILE = "*.safetensors"


def main() -> None:
    """Print wall time with one process and with several, their ratio, and whether the weights are the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("recipe", nargs="?", default="industrial/rul-fd001")
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--jobs", default="2")
    parser.add_argument("--pairs", type=int, default=3)
    given = parser.parse_args()
    taken: dict[str, list[float]] = {"1": [], given.jobs: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.pairs):
            order = list(taken) if number % 2 else list(taken)[::-1]
            for jobs in order:
                out = Path(folder) / f"{jobs}-{number}"
                taken[jobs].append(_seconds(given.recipe, given.seeds, jobs, out))
            same = _weights(Path(folder) / f"1-{number}") == _weights(Path(folder) / f"{given.jobs}-{number}")
            print(f"pair {number + 1}: {taken['1'][-1]:.1f} s, {taken[given.jobs][-1]:.1f} s; same weights: {same}")
    ratios = [many / one for one, many in zip(taken["1"], taken[given.jobs], strict=True)]
    print(
        f"{given.recipe}, seeds {given.seeds}: --jobs {given.jobs} over --jobs 1: {statistics.median(ratios):.2f} "
        f"[{min(ratios):.2f}, {max(ratios):.2f}]; medians {statistics.median(taken['1']):.1f} s and "
        f"{statistics.median(taken[given.jobs]):.1f} s; load {os.getloadavg()[0]:.1f}"
    )


def _seconds(recipe: str, seeds: str, jobs: str, out: Path) -> float:
    environment = {**os.environ, "STILLHOUSE_CACHE": str(out.with_name(f"cache-{out.name}"))}
    command = [sys.executable, "-m", "stillhouse", "run", recipe, "--seeds", seeds, "--jobs", jobs, "--quiet"]
    began = time.perf_counter()
    subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def _weights(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob(VOLATILE))}


if __name__ == "__main__":
    main()
