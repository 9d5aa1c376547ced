"""One's own process: a table of runs, with the fault of each sample or run."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from stillhouse.data.splitting import split_rows
from stillhouse.data.tables import first_row as number_of_first_row
from stillhouse.data.tables import ids as unit_ids
from stillhouse.data.tables import read_table, require_columns
from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_industrial.datasets import tables
from stillhouse_industrial.datasets.representation import Shown
from stillhouse_industrial.datasets.runs import Run, build_runs, check_window, run_of


def process_runs(
    context: DataContext,
    *,
    path: str,
    run: str = "run",
    label: str = "fault",
    normal: str = "normal",
    variables: tuple[str, ...] | None = None,
    window: int = 20,
    stride: int = 1,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    features: Shown = "raw",
) -> Splits:
    """Windows of one's own labelled runs. Every run is in one split only.

    The rows of a run are in order of time. Runs are held out apart for each fault (that of a run's last labelled
    sample), so that each occurs in every split. Rows without a label belong to runs that nobody has diagnosed: a run
    without any label is unlabelled, and only soft losses see it.

    Args:
        context: the folder that ``path`` is relative to, and the seed of the split.
        path: the ``.csv`` or ``.parquet`` file.
        run: column with the run's id.
        label: column with the name of the fault that is there, or ``normal``; empty where nobody knows.
        normal: what the label of normal operation is.
        variables: columns of the signals; by default all other numeric columns but those that count time, give each
            run a number of its own, or say the same as the label (a warning names them).
        window: samples that a model sees.
        stride: samples between neighbouring windows.
        val_fraction: share of the runs of each fault held out for validation.
        test_fraction: share of the runs of each fault held out for testing.
        features: what a model is shown of a window: "raw" samples; six "statistics" of each signal; or
            its "spectrum", for vibration, current and sound, where a frequency tells and no single sample does.

    Raises:
        DataError: the file cannot be used, a run is partly labelled, or a fault has fewer than three runs.
    """
    check_window(window, stride)
    if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
        raise DataError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave no split of runs",
            fix="both above 0 and their sum below 1, e.g. 0.2 each",
        )
    source = context.base / Path(path)
    raw, where = read_table(source), str(source)
    first = number_of_first_row(source)
    require_columns(raw, [run, label, *(variables or ())], where)
    ids = unit_ids(raw[run], where=where, first=first).astype(str)
    names = list(variables or _signals(raw, ids, label, _numeric(raw, {run, label})))
    if not names:
        raise DataError("there is no numeric column for the signals", where=where, fix="name them in dataset.variables")
    signals = tables.numbers(raw, names, where=where, first_row=first).to_numpy()
    known = raw[label].notna().to_numpy()
    classes = [normal, *sorted(set(raw[label][known].astype(str)) - {normal})]
    if not (raw[label].astype(str) == normal).any():
        raise DataError(
            f"no row has the label '{normal}'",
            where=f"{where}, column '{label}'",
            fix="set dataset.normal to the label of normal operation",
        )
    codes = raw[label].astype(str).map({name: code for code, name in enumerate(classes)}).fillna(-1).to_numpy(np.int64)
    labelled: list[Run] = []
    unlabelled: list[Run] = []
    row = 0
    for name, positions in raw.groupby(ids, sort=False).indices.items():
        rows = np.sort(positions)
        gaps = np.flatnonzero(~known[rows])
        if 0 < len(gaps) < len(rows):
            raise DataError(
                f"row {rows[gaps[0]] + first}: run '{name}' is labelled in part",
                where=where,
                fix=f"fill the column '{label}' for the whole run, or leave it empty throughout",
            )
        made = run_of(str(name), signals[rows], codes[rows], row)
        (unlabelled if len(gaps) else labelled).append(made)
        row += len(rows)
    faults = [classes[int(each.labels[-1])] for each in labelled]
    fractions = {"val": val_fraction, "test": test_fraction}
    drawn = split_rows(len(labelled), fractions, context.seed, classes=faults, unit="run", where=where)
    train, val, test = ([labelled[at] for at in drawn[name]] for name in ("train", "val", "test"))
    return build_runs(
        train,
        val,
        test,
        unlabelled,
        classes=classes,
        variables=names,
        window=window,
        stride=stride,
        test_stride=stride,
        description=f"{source.name}: windows of {window} samples, {len(classes) - 1} faults, signals: "
        f"{', '.join(names)}",
        features=features,
    )


def _signals(table: pd.DataFrame, ids: pd.Series, label: str, names: list[str]) -> list[str]:
    """Those of the numeric columns that may be signals; a warning tells of the others."""
    reasons = {name: _why_no_signal(table[name], ids, table[label]) for name in names}
    for name, reason in reasons.items():
        if reason:
            warnings.warn(
                f"column '{name}' {reason}, and is left out: name the signals in dataset.variables if it is one",
                stacklevel=3,
            )
    kept = [name for name, reason in reasons.items() if not reason]
    if constant := [name for name in kept if bool((table[name].groupby(ids).nunique() <= 1).all())]:
        warnings.warn(
            f"constant within every run: {', '.join(constant)}; name the signals in dataset.variables, without what "
            "only numbers machines or runs",
            stacklevel=3,
        )
    return kept


def _why_no_signal(column: pd.Series, ids: pd.Series, label: pd.Series) -> str:
    """Why a column is no signal; empty where it may be one."""
    pairs = pd.DataFrame({"value": column, "label": label})[label.notna()].drop_duplicates()
    if len(pairs) == pairs["value"].nunique() == pairs["label"].nunique() > 1:
        return "says the same as the label"
    by_run = column.groupby(ids)
    steps = by_run.diff()[by_run.cumcount() > 0]
    if len(steps) and bool((steps > 0).all()):
        return "only increases within every run, as time does"
    runs = by_run.nunique()
    if len(runs) > 2 and bool((runs == 1).all()) and column.nunique() == len(runs):
        return "gives each run a number of its own"
    return ""


def _numeric(table: pd.DataFrame, taken: set[str]) -> list[str]:
    return [str(name) for name in table.columns if name not in taken and pd.api.types.is_numeric_dtype(table[name])]
