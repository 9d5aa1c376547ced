"""Forecasts of many hours ahead: ETTh1, the temperature of a transformer and its loads, or hours of a simulator."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse.types import Batch, DataContext, DataInfo, Split, Splits, TensorSpec
from stillhouse_finance.datasets.columns import times

PAGE = "https://github.com/zhouhaoyi/ETDataset"
CHANNELS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
HOURS = (8640, 2880, 2880)
"""Hours of training, validation and test: 12, 4 and 4 months of 30 days."""
DAY = 24


class Windows(Split):
    """Every window of every channel: ``x`` ``[past]`` and ``target`` ``[ahead]``, both less the last known value, and
    ``yesterday`` ``[24]``, the last day, likewise. Cut when asked for.

    Args:
        values: standardised, ``[T, C]``.
        start: first hour that is predicted.
        end: hour after the last that is predicted.
        past: hours that a model sees.
        ahead: hours that it predicts.
        step: hours between windows.
    """

    def __init__(self, values: Tensor, *, start: int, end: int, past: int, ahead: int, step: int = 1) -> None:
        self._values, self._past, self._ahead = values, past, ahead
        self._starts = torch.arange(start, end - ahead + 1, step)
        # In order of time, all channels of an hour together.
        hours = self._starts.double().repeat_interleave(values.shape[1])
        self.times, self.until = hours.tolist(), (hours + ahead - 1).tolist()

    def __len__(self) -> int:
        return len(self._starts) * self._values.shape[1]

    def index(self) -> Tensor:
        """See `Split`: the first predicted hour times the channels, plus the channel."""
        channels = self._values.shape[1]
        return (self._starts[:, None] * channels + torch.arange(channels)).flatten()

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split`."""
        return {name: entry[0] for name, entry in self.batch([position]).items()}

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split`."""
        at = torch.as_tensor(list(positions), dtype=torch.int64)
        channels = self._values.shape[1]
        start, channel = self._starts[at // channels], at % channels
        hours = start[:, None] + torch.arange(-self._past, self._ahead)
        whole = self._values[hours, channel[:, None]]
        whole = whole - whole[:, self._past - 1 : self._past]
        return {
            "x": whole[:, : self._past].contiguous(),
            "target": whole[:, self._past :].contiguous(),
            "yesterday": whole[:, self._past - DAY : self._past].contiguous(),
            "index": start * channels + channel,
        }

    def fingerprint(self) -> str:
        """See `Split`."""
        content = hashlib.sha256(self._values.numpy().tobytes())
        content.update(repr((self._starts.tolist(), self._past, self._ahead)).encode())
        return content.hexdigest()


def ett(context: DataContext, *, past: int = 336, ahead: int = 96, step: int = 1) -> Splits:
    """Windows of ETTh1: 12 months train, 4 validate, 4 test, standardised by the training months.

    A row is one window of one channel: the model is shared by all, and the error is the mean over windows, hours and
    channels, as in the literature of multivariate forecasts (Zhou et al., Informer, AAAI 2021). Windows and targets are
    less the last known value, which changes no error: a model that says 0 says persistence.

    Args:
        context: where ``ETTh1.csv`` is (``finance/ett``, or ``industrial/ett``).
        past: hours that a model sees.
        ahead: hours that it predicts.
        step: hours between neighbouring training windows; validation and test have all.

    Raises:
        DataError: the file is missing or malformed, or the options leave no windows.
    """
    folders = [context.root.parent / "ett", context.root.parent.parent / "industrial" / "ett"]
    file = next((folder / "ETTh1.csv" for folder in folders if (folder / "ETTh1.csv").is_file()), None)
    if file is None:
        raise DataError("the file ETTh1.csv is not there", where=str(folders[0]), fix=f"get it from {PAGE}")
    raw, where, first = tables.read_table(file), str(file), tables.first_row(file)
    tables.require_columns(raw, ["date", *CHANNELS], where)
    dates = times(raw["date"], where=where, first=first)
    gaps = np.concatenate([[False], np.diff(dates.to_numpy()) != np.timedelta64(1, "h")])
    tables.refuse(gaps, raw["date"], "an hour after the row before", where=where, first=first, fix="get the file again")
    values = np.column_stack([tables.numbers(raw[name], where=where, first=first) for name in CHANNELS])
    return build(values, HOURS, past=past, ahead=ahead, step=step, description=f"{file.name}, {len(CHANNELS)} channels")


def hours_sim(context: DataContext, *, past: int = 72, ahead: int = 24, step: int = 1) -> Splits:
    """Simulated hours of three channels: a day's rhythm whose size drifts, a week's, and noise that lingers.

    Args:
        context: gives the seed.
        past: hours that a model sees.
        ahead: hours that it predicts.
        step: hours between neighbouring training windows.

    Raises:
        DataError: the options leave no windows.
    """
    values = simulate(1600, np.random.default_rng(context.seed))
    about = "simulated hours of 3 channels"
    return build(values, (1000, 300, 300), past=past, ahead=ahead, step=step, description=about, simulated=True)


def simulate(hours: int, random: np.random.Generator) -> np.ndarray:
    """``[hours, 3]``."""
    time, found = np.arange(hours), []
    for channel in range(3):
        size = 1.0 + 0.5 * np.cumsum(random.normal(0, 0.02, hours))
        noise = np.zeros(hours)
        for hour in range(1, hours):
            noise[hour] = 0.9 * noise[hour - 1] + random.normal(0, 0.15)
        day, week = np.sin(2 * np.pi * time / DAY + channel), np.cos(2 * np.pi * time / (7 * DAY))
        found.append(10.0 * channel + (channel + 1) * (size * day + 0.5 * week + noise))
    return np.column_stack(found)


def build(
    values: np.ndarray,
    hours: tuple[int, int, int],
    *,
    past: int,
    ahead: int,
    step: int,
    description: str,
    simulated: bool = False,
) -> Splits:
    """Splits of hours ``[T, C]``; see `ett`."""
    edges = np.cumsum((0, *hours)).tolist()
    if (
        past < DAY
        or min(ahead, step) < 1
        or ahead > min(hours[1:])
        or past + ahead > hours[0]
        or len(values) < edges[3]
    ):
        raise DataError(
            f"past {past}, ahead {ahead} and step {step} leave no windows of {len(values)} hours, of which {hours[0]} "
            f"train, {hours[1]} validate and {hours[2]} test",
            where=description,
            fix=f"past from {DAY} upwards, ahead and step from 1, and not beyond the hours of a split",
        )
    train = values[: hours[0]]
    mean, std = train.mean(axis=0), train.std(axis=0)
    standard = torch.from_numpy(((values[: edges[3]] - mean) / np.where(std > 0, std, 1.0)).astype(np.float32))
    parts = [
        Windows(standard, start=max(start, past), end=end, past=past, ahead=ahead, step=step if not start else 1)
        for start, end in itertools.pairwise(edges)
    ]
    targets = parts[0].batch(range(0, len(parts[0]), max(len(parts[0]) // 2000, 1)))["target"]
    info = DataInfo(
        inputs={"x": TensorSpec((past,))},
        target_mean=float(targets.mean()),
        target_std=float(targets.std()),
        unit="standard deviations",
        description=f"{description}: {ahead} hours ahead from {past}, standardised by training hours",
        simulated=simulated,
        meta={"ahead": ahead},
    )
    return Splits(info=info, train=parts[0], val=parts[1], test=parts[2])
