"""From runs of a process to labelled windows: each window's class is that of its last sample.

Terms: a *run* is one stretch of operation, sampled at a fixed interval; a *sample* is one row of its signals. A run is
normal until a fault sets in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from stillhouse.data.tables import first_row as number_of_first_row
from stillhouse.data.tables import read_table, require_columns
from stillhouse.errors import DataError
from stillhouse.types import DataInfo, Splits, TensorSpec, TensorSplit
from stillhouse_industrial.datasets import tables
from stillhouse_industrial.datasets.representation import Representation, Shown, represented, seen_through
from stillhouse_industrial.datasets.windows import History, Scaler, cut, refuse_short


@dataclass(frozen=True, kw_only=True)
class Run(History):
    """One run of a process.

    Args:
        labels: class of each sample ``[T]``, int64.
    """

    labels: np.ndarray


def run_of(name: str, signals: np.ndarray, labels: np.ndarray, first_row: int) -> Run:
    """A run without operating settings, its samples numbered from 1."""
    times = np.arange(1, len(signals) + 1, dtype=np.float64)
    settings = np.zeros((len(signals), 0))
    return Run(name=name, times=times, signals=signals, settings=settings, labels=labels, first_row=first_row)


def check_window(window: int, stride: int) -> None:
    """Refuse sizes that make no window.

    Raises:
        DataError: one of them is not positive.
    """
    for name, value in (("window", window), ("stride", stride)):
        if value < 1:
            raise DataError(f"{name} must be positive, not {value}", fix=f"set dataset.{name} to at least 1")


def build_runs(
    train: Sequence[Run],
    val: Sequence[Run],
    test: Sequence[Run],
    unlabelled: Sequence[Run] = (),
    *,
    classes: Sequence[str],
    variables: Sequence[str],
    window: int,
    stride: int,
    test_stride: int,
    description: str,
    simulated: bool = False,
    features: Shown = "raw",
) -> Splits:
    """Cut the runs of each split into windows; the scaler is fitted on the samples of the training runs.

    The first of ``classes`` is normal operation. Windows of ``unlabelled`` runs have no label. ``features`` says what a
    model is shown of a window.

    Raises:
        DataError: a run is shorter than the window, or no training window shows one of the classes.
    """
    refuse_short([*train, *val, *test, *unlabelled], window, description, kind="run", or_else="leave the run out")
    scaler = Scaler.fit(train)
    made = {
        name: _windows(runs, scaler, window, step)
        for name, runs, step in (("train", train, stride), ("val", val, stride), ("test", test, test_stride))
    }
    target = made["train"].columns(["target"])["target"]
    counts = torch.bincount(target, minlength=len(classes))
    if bool((counts == 0).any()):
        missing = classes[int((counts == 0).nonzero()[0])]
        raise DataError(f"no training window shows '{missing}'", where=description, fix="lower dataset.stride")
    info = DataInfo(
        inputs={"signal": TensorSpec((window, len(variables)), "float32")},
        classes=tuple(classes),
        class_counts=tuple(counts.tolist()),
        description=description,
        simulated=simulated,
        meta={"window": window, "variables": list(variables), "normal": classes[0]},
    )
    splits = Splits(
        info=info,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        unlabelled=_without_target(_windows(unlabelled, scaler, window, stride)) if unlabelled else None,
    )
    splits, representation = represented(splits, features)
    reader = RunReader(window=window, variables=variables, scaler=scaler, representation=representation)
    return replace(splits, reader=reader)


def _windows(runs: Sequence[Run], scaler: Scaler, window: int, stride: int) -> TensorSplit:
    ends = [range(window, len(run) + 1, stride) for run in runs]
    rows = [(run, end - 1) for run, at in zip(runs, ends, strict=True) for end in at]
    signal = np.concatenate([cut(scaler(run), at, window) for run, at in zip(runs, ends, strict=True)])
    return TensorSplit(
        {
            "signal": torch.from_numpy(signal),
            "target": torch.tensor([int(run.labels[row]) for run, row in rows], dtype=torch.int64),
            "index": torch.tensor([run.first_row + row for run, row in rows], dtype=torch.int64),
        },
        groups=[run.name for run, _ in rows],
    )


def _without_target(split: TensorSplit) -> TensorSplit:
    columns = {name: values for name, values in split.columns().items() if name != "target"}
    return TensorSplit(columns, groups=split.groups)


class RunReader:
    """Every sample of new runs, from the first that has a whole window behind it; a `stillhouse.types.Reader`.

    A signal is standardised (less its mean, over its
    standard deviation, both in ``scaler``), and a window is shown as ``representation`` says: as it is; as six
    statistics (mean, standard deviation, slope, last value, mean of the last third, change from the first third); or as
    the logarithm of the power at each frequency but 0, after a Hann window. The last two are standardised as well.

    Args:
        window: samples that the model sees.
        variables: columns of the signals, in the model's order.
        scaler: fitted on the training runs.
        representation: what the model is shown of a window, fitted on those of training.
    """

    def __init__(
        self,
        *,
        window: int,
        variables: Sequence[str],
        scaler: Scaler,
        representation: Representation | None = None,
    ) -> None:
        self.window, self.variables, self.scaler = window, list(variables), scaler
        self.representation = representation or Representation()

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {
            "window": self.window,
            "variables": self.variables,
            "scaler": self.scaler.state(),
            "representation": self.representation.state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(
            window=state["window"],
            variables=state["variables"],
            scaler=Scaler.from_state(state["scaler"]),
            representation=Representation.from_state(state.get("representation", {"shown": "raw"})),
        )

    def read(self, path: Path) -> tuple[TensorSplit, dict[str, list[Any]]]:
        """Windows of a ``.dat`` file of the Tennessee Eastman process, or of a ``.csv`` or ``.parquet`` with one column
        for each variable and, where it holds several runs, a column ``run``; their ``run`` and ``sample``.

        Raises:
            DataError: the file cannot be read, lacks a column, has a value that is not a finite number, or a run
                shorter than the window.
        """
        path = Path(path)
        runs = self._runs(path)
        refuse_short(runs, self.window, str(path), kind="run", or_else="bring more rows of the run")
        split = _windows(runs, self.scaler, self.window, 1)
        samples = [sample for run in runs for sample in range(self.window, len(run) + 1)]
        return seen_through(_without_target(split), self.representation), {
            "run": list(split.groups or ()),
            "sample": samples,
        }

    def _runs(self, path: Path) -> list[Run]:
        if path.suffix.lower() == ".dat":
            if tuple(self.variables) != tables.TEP_VARIABLES:
                raise DataError(
                    "a .dat file holds the Tennessee Eastman process, but the model has other variables",
                    where=str(path),
                    fix=f"bring .csv or .parquet with columns {', '.join(self.variables)}",
                )
            signals = tables.read_tep(path)
            return [run_of(path.stem, signals, np.zeros(len(signals), dtype=np.int64), 0)]
        raw = read_table(path)
        require_columns(raw, self.variables, str(path))
        first = number_of_first_row(path)
        signals = tables.numbers(raw, self.variables, where=str(path), first_row=first).to_numpy()
        names = raw["run"].astype(str) if "run" in raw.columns else raw.iloc[:, 0].map(lambda _: path.stem)
        runs, start = [], 0
        for name, positions in raw.groupby(names, sort=False).indices.items():
            part = signals[np.sort(positions)]
            runs.append(run_of(str(name), part, np.zeros(len(part), dtype=np.int64), start))
            start += len(part)
        return runs
