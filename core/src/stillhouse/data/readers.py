"""Readers of new files that plugins share: a user's rows, prepared as the training rows were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse.types import Batch, Split, TensorSplit


@dataclass(frozen=True, kw_only=True)
class ColumnsReader:
    """Reads columns of numbers from a CSV or Parquet file, and standardises them as the training rows were.

    A dataset gives it to its `stillhouse.types.Splits`, and its `stillhouse.plugins.DatasetSpec` names it as
    ``reader="stillhouse.data.readers:ColumnsReader"``; then ``stillhouse predict`` reads files with these columns.
    `fit` and `transform` prepare the dataset's own rows, so that new ones cannot be prepared in another way::

        reader = ColumnsReader.fit(names, values[train])
        x = {name: reader.transform(values[rows]) for name, rows in parts.items()}

    Args:
        columns: names of the columns, in the order of the input.
        mean: of each column over training rows; it is subtracted.
        std: of each column over training rows; what is left is divided by it.
        input: the model input that the columns make, ``[N, len(columns)]``, float32.
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input: str = "x"

    def __post_init__(self) -> None:
        if not len(self.columns) == len(self.mean) == len(self.std):
            raise ValueError(
                f"{len(self.columns)} columns, {len(self.mean)} means and {len(self.std)} standard deviations"
            )

    @classmethod
    def fit(cls, columns: Sequence[str], train: ArrayLike, *, input: str = "x") -> Self:
        """A reader with the means and standard deviations of training rows.

        Args:
            columns: names of the columns, in the order of ``train``.
            train: values of the training rows, and of no others, ``[N, len(columns)]``, in the units of the files. A
                column that does not vary is divided by 1.
            input: the model input that the columns make.

        Raises:
            DataError: ``train`` has another shape, no rows, or values that are not finite.
        """
        values = np.asarray(train, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(columns) or not len(values):
            raise DataError(
                f"the training values have shape {values.shape}, and there are {len(columns)} columns",
                where="ColumnsReader.fit",
                fix="give one row for each training row and one value for each column",
            )
        bad = ~np.isfinite(values).all(axis=0)
        if bad.any():
            raise DataError(
                f"column '{columns[int(bad.argmax())]}' of the training rows has values that are not finite numbers",
                where="ColumnsReader.fit",
                fix="fill or drop missing values first",
            )
        mean, std = values.mean(axis=0), values.std(axis=0)
        std = np.where(std > 1e-12 * np.maximum(np.abs(mean), 1.0), std, 1.0)
        return cls(columns=tuple(columns), mean=tuple(mean.tolist()), std=tuple(std.tolist()), input=input)

    def transform(self, values: ArrayLike) -> Tensor:
        """Values in the units of the files, ``[N, len(columns)]``, as the model sees them: standardised, float32."""
        scaled = (np.asarray(values, dtype=np.float64) - np.array(self.mean)) / np.array(self.std)
        return torch.from_numpy(scaled).float()

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"columns": [*self.columns], "mean": [*self.mean], "std": [*self.std], "input": self.input}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        columns, mean, std = (tuple(state[name]) for name in ("columns", "mean", "std"))
        return cls(columns=columns, mean=mean, std=std, input=state["input"])

    def describe(self, batch: Batch) -> list[dict[str, Any]]:
        """See `stillhouse.types.DescribingReader`: values by column, before they were standardised."""
        values = batch[self.input].double().cpu().numpy() * np.array(self.std) + np.array(self.mean)
        return [dict(zip(self.columns, row, strict=True)) for row in values.tolist()]

    def read(self, path: Path) -> tuple[Split, dict[str, list[Any]]]:
        """Rows of the file, and the number of each as an editor shows it.

        Raises:
            DataError: the file cannot be read, lacks a column, or has a value that is not a finite number.
        """
        table, first = tables.read_table(path), tables.first_row(path)
        tables.require_columns(table, self.columns, str(path))
        values = np.stack([tables.numbers(table[each], where=str(path), first=first) for each in self.columns], axis=1)
        rows = self.transform(values)
        split = TensorSplit({self.input: rows, "index": torch.arange(len(rows))})
        return split, {"row": list(range(first, first + len(rows)))}
