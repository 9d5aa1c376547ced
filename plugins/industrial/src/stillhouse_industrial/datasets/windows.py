"""From histories of units to windows: scaling, cutting, and splitting by units.

Terms: a *unit* is one machine (an engine, a bearing); its *history* is one row of signals a cycle, oldest
    first. A *window* is the last ``window`` rows before and including a cycle, and its target the remaining
    useful life (RUL) at that cycle, capped: early in life nothing in the signals tells 150 cycles from 300
    (Heimes, PHM 2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch

from stillhouse.data.splitting import split_rows
from stillhouse.errors import DataError
from stillhouse.types import DataInfo, Splits, TensorSpec, TensorSplit

CONSTANT = 1e-6
"""A signal whose standard deviation is below this share of its magnitude is constant."""


@dataclass(frozen=True, kw_only=True)
class History:
    """Signals of one unit or run over time.

    Args:
        name: id, unique in the dataset, e.g. ``"train-17"``; windows of one history share it as group id.
        times: cycle (or time) of each row ``[T]``, increasing.
        signals: sensor values ``[T, S]``.
        settings: operating settings ``[T, C]``; ``C`` may be 0.
        first_row: stable number of the first row, so that ``first_row + t`` identifies each row of the
            dataset.
    """

    name: str
    times: np.ndarray
    signals: np.ndarray
    settings: np.ndarray
    first_row: int

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, kw_only=True)
class Unit(History):
    """History of one unit that fails.

    Args:
        rul: remaining useful life of each row ``[T]``, not capped; zeros when it is unknown.
    """

    rul: np.ndarray


@dataclass(frozen=True)
class Scaler:
    """Standardises signals, apart for each operating condition; JSON-ready by `state`.

    Args:
        centres: settings at the centre of each condition ``[K, C]``; ``K = 1`` is one condition for all.
        spread: scale of each setting ``[C]`` by which distances to a centre are measured.
        mean: mean of each signal per condition ``[K, S]``.
        std: standard deviation of each signal per condition ``[K, S]``; 1 where the signal is constant.
    """

    centres: np.ndarray
    spread: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, units: Sequence[History], *, conditions: int = 1, seed: int = 0) -> Self:
        """Fit on the rows of ``units`` (training units, and no others).

        The settings are clustered by k-means into ``conditions``; C-MAPSS FD002 and FD004 have six.

        Raises:
            DataError: there are fewer distinct settings than ``conditions``.
        """
        settings = np.concatenate([unit.settings for unit in units])
        signals = np.concatenate([unit.signals for unit in units])
        if conditions == 1:
            centres, spread = np.zeros((1, settings.shape[1])), np.ones(settings.shape[1])
            assigned = np.zeros(len(settings), dtype=np.int64)
        else:
            from sklearn.cluster import KMeans

            # The floor keeps a nearly constant setting, whose spread is noise, from deciding the clusters.
            spread = np.maximum(settings.std(axis=0), 1e-3 * np.abs(settings.mean(axis=0)) + 1e-12)
            distinct = len(np.unique(np.round(settings / spread, 1), axis=0)) if settings.shape[1] else 1
            if distinct < conditions:
                raise DataError(
                    f"{conditions} operating conditions were asked for, but training units show {distinct} "
                    "distinct settings",
                    fix=f"set conditions to at most {distinct}",
                )
            clusters = KMeans(conditions, n_init=5, random_state=seed).fit(settings / spread)
            centres, assigned = clusters.cluster_centers_ * spread, clusters.labels_
        mean = np.stack([signals[assigned == k].mean(axis=0) for k in range(conditions)])
        std = np.stack([signals[assigned == k].std(axis=0) for k in range(conditions)])
        return cls(centres, spread, mean, np.where(std <= CONSTANT * np.maximum(np.abs(mean), 1.0), 1.0, std))

    def condition(self, settings: np.ndarray) -> np.ndarray:
        """Number of the nearest condition ``[T]`` for settings ``[T, C]``."""
        if len(self.centres) == 1:
            return np.zeros(len(settings), dtype=np.int64)
        gaps = (settings[:, None, :] - self.centres[None]) / self.spread
        nearest: np.ndarray = (gaps**2).sum(axis=-1).argmin(axis=1)
        return nearest

    def __call__(self, unit: History) -> np.ndarray:
        """Standardised signals ``[T, S]``, float32."""
        at = self.condition(unit.settings)
        scaled: np.ndarray = ((unit.signals - self.mean[at]) / self.std[at]).astype(np.float32)
        return scaled

    def state(self) -> dict[str, Any]:
        """Plain lists."""
        return {name: getattr(self, name).tolist() for name in ("centres", "spread", "mean", "std")}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        conditions = len(state["mean"])
        arrays = {name: np.asarray(state[name], dtype=np.float64) for name in ("spread", "mean", "std")}
        return cls(np.asarray(state["centres"], dtype=np.float64).reshape(conditions, -1), **arrays)


def varying(units: Sequence[History], scaler: Scaler) -> np.ndarray:
    """Columns ``[S]`` (bool) that vary inside at least one operating condition of ``units``."""
    at = np.concatenate([scaler.condition(unit.settings) for unit in units])
    signals = np.concatenate([unit.signals for unit in units])
    keep = np.zeros(signals.shape[1], dtype=bool)
    for k in range(len(scaler.mean)):
        rows = signals[at == k]
        keep |= rows.std(axis=0) > CONSTANT * np.maximum(np.abs(rows.mean(axis=0)), 1.0)
    return keep


def select(units: Sequence[Unit], columns: np.ndarray) -> list[Unit]:
    """The units with only the signal ``columns`` (numbers or a bool mask)."""
    return [replace(unit, signals=unit.signals[:, columns]) for unit in units]


def cut(signals: np.ndarray, ends: Sequence[int], window: int) -> np.ndarray:
    """Windows ``[N, window, S]``, one for each of ``ends``: it holds the last of the first ``end`` rows.

    A window that would begin before the first row is padded by repeating the first row.
    """
    padded = np.concatenate([np.repeat(signals[:1], window - 1, axis=0), signals])
    return np.stack([padded[end - 1 : end - 1 + window] for end in ends])


def cut_points(length: int, first: int, cuts: int, random: np.random.Generator) -> list[int]:
    """``cuts`` random ends in [first, length], one in each of as many equal stretches, or fewer."""
    edges = np.linspace(min(first, length), length + 1, cuts + 1)
    ends = np.floor(random.uniform(edges[:-1], edges[1:])).astype(int)
    return sorted({min(int(end), length) for end in ends})


def hold_out(units: Sequence[Unit], fraction: float, random: np.random.Generator) -> tuple[list[Unit], list[Unit]]:
    """The units in two groups: those that stay, and a random ``fraction``: at least one unless it is 0."""
    drawn = split_rows(len(units), {"held out": fraction}, random, rest="kept", unit="unit")
    return [units[at] for at in drawn["kept"]], [units[at] for at in drawn["held out"]]


def fleet(units: Sequence[History], scaler: Scaler) -> np.ndarray:
    """For each unit, the operating condition ``[N]`` in which it ran most often, compared with all units.

    A unit changes its condition from row to row, and a window holds several, so that no row is of one condition alone;
    whole units can be told apart by what they did more than the others.
    """
    counts = np.stack([np.bincount(scaler.condition(unit.settings), minlength=len(scaler.mean)) for unit in units])
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares.mean(axis=0)
    most: np.ndarray = ((shares - mean) / np.maximum(shares.std(axis=0), 1e-12)).argmax(axis=1)
    return most


def windows_of(
    units: Sequence[Unit],
    ends: Sequence[Sequence[int]],
    scaler: Scaler,
    *,
    window: int,
    cap: float | None,
    fleets: bool = False,
) -> TensorSplit:
    """The split whose rows are the windows of ``units`` at ``ends`` (a list a unit), target and index; with
    ``fleets`` the `fleet` of its unit, too."""
    signal = np.concatenate([cut(scaler(unit), at, window) for unit, at in zip(units, ends, strict=True)])
    rows = [(unit, end - 1) for unit, at in zip(units, ends, strict=True) for end in at]
    rul = np.array([unit.rul[row] for unit, row in rows], dtype=np.float32)
    return TensorSplit(
        {
            "signal": torch.from_numpy(signal),
            "target": torch.from_numpy(rul if cap is None else np.minimum(rul, np.float32(cap))),
            "index": torch.tensor([unit.first_row + row for unit, row in rows], dtype=torch.int64),
            **(
                {"fleet": torch.from_numpy(np.repeat(fleet(units, scaler), [len(at) for at in ends]))} if fleets else {}
            ),
        },
        groups=[unit.name for unit, _ in rows],
    )


def check_options(window: int, stride: int, cuts: int, cap: float | None, first: int | None = None) -> None:
    """Refuse sizes that make no window.

    Raises:
        DataError: one of them is not positive.
    """
    for name, value in (("window", window), ("stride", stride), ("cuts", cuts), ("cap", cap), ("first", first)):
        if value is not None and value <= 0:
            raise DataError(f"{name} must be positive, not {value}", fix=f"set dataset.{name} to at least 1")


PAD = "set dataset.short to 'pad' to repeat its first row"


def refuse_short(units: Sequence[History], window: int, where: str, *, kind: str = "unit", or_else: str = PAD) -> None:
    """Refuse units, or runs, shorter than the window.

    Raises:
        DataError: naming the first of them.
    """
    for unit in units:
        if len(unit) < window:
            raise DataError(
                f"{kind} '{unit.name}' has {len(unit)} rows, fewer than the window of {window}",
                where=where,
                fix=f"lower dataset.window, or {or_else}",
            )


def build(
    train: Sequence[Unit],
    val: Sequence[Unit],
    test: Sequence[Unit],
    scaler: Scaler,
    *,
    window: int,
    stride: int,
    cap: float | None,
    cuts: int,
    test_cuts: int | None,
    first: int | None,
    random: np.random.Generator,
    sensors: Sequence[str],
    description: str,
    unit: str,
    simulated: bool = False,
    fleets: bool = False,
) -> Splits:
    """Cut the units of each split into windows.

    Training rows are all windows of the training units, every ``stride`` cycles counted back from the last
    one. A validation unit is truncated at ``cuts`` random cycles, as a test unit is at one: it weighs as much
    as any other however long it lived. A test unit is seen at its last row, or at ``test_cuts`` random ones
    when its whole life is known.
    """
    first = first or window
    train_ends = [list(range(len(each), min(first, len(each)) - 1, -stride))[::-1] for each in train]
    val_ends = [cut_points(len(each), first, cuts, random) for each in val]
    test_ends = [[len(each)] if test_cuts is None else cut_points(len(each), first, test_cuts, random) for each in test]
    rows = windows_of(train, train_ends, scaler, window=window, cap=cap, fleets=fleets)
    target = rows.columns(["target"])["target"]
    info = DataInfo(
        inputs={"signal": TensorSpec((window, len(sensors)), "float32")},
        unit=unit,
        target_mean=float(target.mean()),
        target_std=float(target.std()) if len(target) > 1 and target.std() > 0 else 1.0,
        description=description,
        simulated=simulated,
        meta={"window": window, "sensors": list(sensors), "cap": cap, "conditions": len(scaler.mean)},
    )
    return Splits(
        info=info,
        train=rows,
        val=windows_of(val, val_ends, scaler, window=window, cap=cap, fleets=fleets),
        test=windows_of(test, test_ends, scaler, window=window, cap=cap, fleets=fleets),
    )
