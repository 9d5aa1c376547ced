"""Reading new files for a trained model: the same sensors, scaler and window as at training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from stillhouse.data.tables import first_row as number_of_first_row
from stillhouse.data.tables import ids as unit_ids
from stillhouse.data.tables import read_table, require_columns
from stillhouse.errors import DataError
from stillhouse.types import TensorSplit
from stillhouse_industrial.datasets import tables
from stillhouse_industrial.datasets.representation import Representation
from stillhouse_industrial.datasets.windows import Scaler, cut, refuse_short


class SignalReader:
    """Last window of each unit of a CSV, Parquet or C-MAPSS text file; a `stillhouse.types.Reader`.

    A signal is standardised (less its mean, over its standard deviation, both in ``scaler``, for each operating
    condition), and a window is shown as ``representation`` says: as it is; as six statistics (mean, standard deviation,
    slope, last value, mean of the last third, change from the first third); or as the logarithm of the power at each
    frequency but 0, after a Hann window. The last two are standardised as well.

    Args:
        window: cycles that the model sees.
        sensors: columns of the signals, in the model's order.
        settings: columns of the operating settings; needed in the file only when there are several
            conditions.
        scaler: fitted on the training units.
        unit: column with the unit's id.
        time: column with the cycle or time.
        short: units shorter than the window: ``"pad"`` repeats their first row, ``"raise"`` raises.
        missing: empty cells: ``"raise"``, or ``"forward"`` repeats the unit's last value.
        representation: what the model is shown of a window, fitted on those of training.
    """

    def __init__(
        self,
        *,
        window: int,
        sensors: Sequence[str],
        settings: Sequence[str],
        scaler: Scaler,
        unit: str,
        time: str,
        short: str = "pad",
        missing: str = "raise",
        representation: Representation | None = None,
    ) -> None:
        self.window, self.sensors, self.scaler = window, list(sensors), scaler
        self.settings, self.unit, self.time, self.short = list(settings), unit, time, short
        self.missing, self.representation = missing, representation or Representation()

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        plain = {
            name: getattr(self, name) for name in ("window", "sensors", "settings", "unit", "time", "short", "missing")
        }
        return {**plain, "scaler": self.scaler.state(), "representation": self.representation.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        representation = Representation.from_state(state.get("representation", {"shown": "raw"}))
        return cls(**{**state, "scaler": Scaler.from_state(state["scaler"]), "representation": representation})

    def read(self, path: Path) -> tuple[TensorSplit, dict[str, list[Any]]]:
        """The last window of each unit, and its unit and last time, named as its columns are.

        Raises:
            DataError: the file cannot be read, lacks a column, or has a value that is not a finite number.
        """
        path = Path(path)
        settings = self.settings if len(self.scaler.centres) > 1 else []
        if path.suffix.lower() == ".txt":
            if not set(self.sensors) <= set(tables.SENSORS):
                columns = ", ".join([self.unit, self.time, *self.sensors])
                raise DataError(
                    "a .txt file is read in the layout of C-MAPSS, but the model has other sensors",
                    where=str(path),
                    fix=f"bring .csv or .parquet with columns {columns}",
                )
            if not path.is_file():
                raise DataError("the file does not exist", where=str(path), fix="correct the path")
            raw, first_row = tables.read_cmapss(path), 1
            raw = raw.rename(columns={"unit": self.unit, "cycle": self.time})
        else:
            raw, first_row = read_table(path), number_of_first_row(path)
        require_columns(raw, [self.unit, self.time, *settings, *self.sensors], str(path))
        tables.refuse_dates(raw[self.time], where=str(path), first_row=first_row)
        if self.missing == "forward":
            raw = tables.filled(raw, raw[self.unit], [*settings, *self.sensors], where=str(path))
        table = tables.numbers(raw, [self.time, *settings, *self.sensors], where=str(path), first_row=first_row)
        table[self.unit] = unit_ids(raw[self.unit], where=str(path), first=first_row)
        units = tables.units_of(
            table,
            unit=self.unit,
            time=self.time,
            sensors=self.sensors,
            settings=settings,
            where=str(path),
            first_row=first_row,
        )
        if self.short == "raise":
            refuse_short(units, self.window, str(path))
        signal = self.representation(
            np.concatenate([cut(self.scaler(unit), [len(unit)], self.window) for unit in units])
        )
        index = torch.tensor([unit.first_row + len(unit) - 1 for unit in units], dtype=torch.int64)
        names = [unit.name for unit in units]
        split = TensorSplit({"signal": torch.from_numpy(signal), "index": index}, groups=names)
        last = [unit.times[-1] for unit in units]
        return split, {
            self.unit: names,
            self.time: [int(time) if float(time).is_integer() else float(time) for time in last],
        }
