"""Anomalies of a water-circulation test rig: the Skoltech Anomaly Benchmark (SKAB)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stillhouse.data.tables import first_row, read_table, refuse, require_columns
from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_industrial.datasets import tables
from stillhouse_industrial.datasets.representation import Shown
from stillhouse_industrial.datasets.runs import Run, build_runs, check_window, run_of

PAGE = "https://github.com/waico/SKAB"
SENSORS = (
    *("Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure", "Temperature", "Thermocouple", "Voltage"),
    "Volume Flow RateRMS",
)
NORMAL = 400
"""Seconds at the start of each file that are free of anomalies: those on which the benchmark's methods are fitted."""


def skab(
    context: DataContext,
    *,
    val: tuple[str, ...] = ("valve1/9", "valve1/10", "valve1/11"),
    test: tuple[str, ...] = ("valve1/12", "valve1/13", "valve1/14", "valve1/15", "valve2/2", "valve2/3"),
    window: int = 20,
    stride: int = 2,
    features: Shown = "raw",
) -> Splits:
    """Windows of the rig's eight sensors at 1 Hz: whether the last second is anomalous.

    Whole files are in one split: models learn from the anomalies of some experiments and are tested on others. That is
    not the protocol of SKAB's own table, whose methods see no label; it compares with that table only in what is
    measured. As there, each file is standardised by its own first 400 seconds, which are normal operation and are
    neither trained on nor judged.

    Args:
        context: where the folders ``valve1``, ``valve2`` (and ``other``) are.
        val: files that validate.
        test: files of the test; all others train.
        window: seconds that a model sees.
        stride: seconds between neighbouring windows of training and validation; the test has all.
        features: what a model sees of a window: "raw", "statistics" or "spectrum".

    Raises:
        DataError: files are missing or malformed, or a split is empty.
    """
    check_window(window, stride)
    files = {f"{each.parent.name}/{each.stem}": each for each in sorted(context.root.glob("*/*.csv"), key=_order)}
    files = {name: each for name, each in files.items() if not name.startswith("anomaly-free")}
    missing = [name for name in (*val, *test) if name not in files]
    if missing or len(files) == len({*val, *test}):
        what = f"the file {missing[0]}.csv is not there" if missing else "no file is left for training"
        raise DataError(
            what,
            where=str(context.root),
            fix=f"put data/valve1 and data/valve2 of {PAGE} into that folder, or name other files in val and test",
        )
    if set(val) & set(test):
        raise DataError(f"'{min(set(val) & set(test))}' validates and tests", where="dataset options", fix="once only")
    parts: dict[str, list[Run]] = {"train": [], "val": [], "test": []}
    row = 0
    for name, file in files.items():
        run = read(file, name, row)
        row += len(run)
        parts["val" if name in val else "test" if name in test else "train"].append(run)
    return build_runs(
        *(parts[name] for name in ("train", "val", "test")),
        classes=["normal", "anomaly"],
        variables=SENSORS,
        window=window,
        stride=stride,
        test_stride=1,
        description=f"SKAB: windows of {window} s of {len(files)} experiments, tested on {', '.join(test)}",
        features=features,
    )


def _order(file: Path) -> tuple[str, int, str]:
    return file.parent.name, int(file.stem) if file.stem.isdigit() else -1, file.stem


def read(file: Path, name: str, row: int) -> Run:
    """One experiment, standardised by its first `NORMAL` seconds, which are left out.

    Args:
        file: the file.
        name: of the experiment.
        row: number of its first row among those of all files.

    Raises:
        DataError: the file cannot be read, is too short, or has a value that is not a number or a label that is not
            0 or 1.
    """
    raw, where, first = read_table(file), str(file), first_row(file)
    require_columns(raw, [*SENSORS, "anomaly"], where)
    table = tables.numbers(raw, [*SENSORS, "anomaly"], where=where, first_row=first)
    labels = table["anomaly"].to_numpy()
    refuse(~np.isin(labels, (0, 1)), raw["anomaly"], "0 or 1", where=where, first=first, fix="correct the row")
    if len(table) <= NORMAL:
        raise DataError(
            f"the experiment has {len(table)} seconds, of which the first {NORMAL} only scale the others",
            where=where,
            fix="get the file again",
        )
    signals = standardised(table[list(SENSORS)].to_numpy())
    return run_of(name, signals[NORMAL:], labels[NORMAL:].astype(np.int64), row)


def standardised(signals: np.ndarray) -> np.ndarray:
    """Signals ``[T, S]`` less the mean of their first `NORMAL` samples over its standard deviation, at most 20 of them
    from it; one that does not vary there is only centred."""
    start = signals[:NORMAL]
    std = start.std(axis=0)
    scaled: np.ndarray = ((signals - start.mean(axis=0)) / np.where(std > 1e-9, std, 1.0)).clip(-20.0, 20.0)
    return scaled
