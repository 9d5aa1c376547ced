"""Readers of new files that plugins share: a user's rows, prepared as the training rows were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from stillhouse.data import tables
from stillhouse.types import Batch, Split, TensorSplit


@dataclass(frozen=True, kw_only=True)
class ColumnsReader:
    """Reads columns of numbers from a CSV or Parquet file, and standardises them as the training rows were.

    A dataset gives it to its `stillhouse.types.Splits`, and its `stillhouse.plugins.DatasetSpec` names it as
    ``reader="stillhouse.data.readers:ColumnsReader"``; then ``stillhouse predict`` reads files with these columns.

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
        rows = torch.from_numpy((values - np.array(self.mean)) / np.array(self.std)).float()
        split = TensorSplit({self.input: rows, "index": torch.arange(len(rows))})
        return split, {"row": list(range(first, first + len(rows)))}
