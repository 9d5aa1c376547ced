"""The Tennessee Eastman process (Downs & Vogel 1993), in the files of Russell, Chiang & Braatz (2000)."""

from __future__ import annotations

import numpy as np

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_industrial.datasets import tables
from stillhouse_industrial.datasets.runs import Run, build_runs, check_window, run_of

FAULTS = tuple(range(1, 22))
ONSET = 160
"""Samples of a test file before its fault sets in: sample 161 is the first with it."""
PUBLISHED = (
    "they are published by Braatz's group (tennessee-eastman-profBraatz: d00.dat to d21.dat, d00_te.dat to d21_te.dat)"
)


def tennessee_eastman(
    context: DataContext,
    *,
    faults: tuple[int, ...] | None = None,
    window: int = 20,
    stride: int = 1,
    test_stride: int = 1,
    val_fraction: float = 0.2,
) -> Splits:
    """Windows of the official files: which fault, or none, is there at a window's last sample.

    Training: the first part of ``d00.dat`` to ``d21.dat``; the fault is there throughout. Validation: the last part
    of the same files, cut so that no window has a sample of the training part. There is one training run for each
    fault, so that validation is of the same run and kinder than the test. Test: ``d00_te.dat`` to ``d21_te.dat``,
    runs of their own; their first 160 samples are normal.

    Args:
        context: where the files are.
        faults: numbers of the faults to tell apart, 1 to 21; all by default. Faults 3, 9 and 15 hardly show in the
            variables and are left out by much of the literature.
        window: samples that a model sees, 3 minutes apart.
        stride: samples between neighbouring windows of training and validation.
        test_stride: samples between neighbouring windows of the test.
        val_fraction: share of each training run, at its end, that is held out for validation.

    Raises:
        DataError: files are missing or malformed, or the options leave no rows.
    """
    check_window(window, stride)
    check_window(window, test_stride)
    chosen = FAULTS if faults is None else tuple(faults)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(FAULTS):
        raise DataError(f"faults {list(chosen)} are not distinct numbers from 1 to 21", fix="e.g. faults: [1, 2, 4]")
    names = [f"d{number:02d}" for number in (0, *chosen)]
    files = [f"{name}{part}.dat" for name in names for part in ("", "_te")]
    missing = [file for file in files if not (context.root / file).is_file()]
    if missing:
        shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise DataError(
            f"the Tennessee Eastman files are not there: missing {shown}",
            where=str(context.root),
            fix=f"put the official files into that folder; {PUBLISHED}",
        )
    train: list[Run] = []
    val: list[Run] = []
    test: list[Run] = []
    row = 0
    for label, name in enumerate(names):
        signals = tables.read_tep(context.root / f"{name}.dat")
        split = _split_at(len(signals), val_fraction, window)
        labels = np.full(len(signals), label)
        train.append(run_of(f"{name} to {split}", signals[:split], labels[:split], row))
        val.append(run_of(f"{name} from {split + 1}", signals[split:], labels[split:], row + split))
        row += len(signals)
        signals = tables.read_tep(context.root / f"{name}_te.dat")
        test.append(run_of(f"{name}_te", signals, np.where(np.arange(len(signals)) < ONSET, 0, label), row))
        row += len(signals)
    return build_runs(
        train,
        val,
        test,
        classes=["normal", *(f"fault {number}" for number in chosen)],
        variables=tables.TEP_VARIABLES,
        window=window,
        stride=stride,
        test_stride=test_stride,
        description=f"Tennessee Eastman process: windows of {window} samples, {len(chosen)} faults",
    )


def _split_at(samples: int, fraction: float, window: int) -> int:
    at = samples - round(samples * fraction)
    if min(at, samples - at) < window:
        raise DataError(
            f"a val_fraction of {fraction} of {samples} samples leaves training or validation without a whole window",
            fix=f"choose val_fraction so that both keep at least {window} samples, or lower dataset.window",
        )
    return at
