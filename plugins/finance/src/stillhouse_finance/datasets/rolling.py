"""Features of card transactions, none of which looks ahead of its own transaction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

DAY = 86_400
"""Seconds."""


def feature_names(windows: Sequence[int]) -> list[str]:
    """Names of the columns that `features` returns, in order."""
    names = ["amount", "weekend", "night"]
    names += [f"card_{what}_{days}d" for days in windows for what in ("count", "mean_amount")]
    return names + [f"terminal_{what}_{days}d" for days in windows for what in ("count", "risk")]


def yes_no(windows: Sequence[int]) -> list[bool]:
    """Which of these columns are 0 or 1."""
    return [name in ("weekend", "night") for name in feature_names(windows)]


def features(table: pd.DataFrame, *, windows: Sequence[int] = (1, 7, 30), delay: int = 7) -> np.ndarray:
    """Features ``[N, 3 + 4 * len(windows)]``, float64, of transactions in order of time.

    As in the Fraud Detection Handbook (Le Borgne, Siblini, Lebichot and Bontempi, 2022, chapter 3): the amount;
    weekend; night (0 to 6 o'clock); for each window the count and mean amount of the card's transactions in
    ``(t - window, t]``, the present one among them; and the count and share of fraud of the terminal's
    transactions in ``(t - delay - window, t - delay]``, because the labels of the last ``delay`` days are not
    known yet. A transaction at the same second counts as earlier when it stands earlier in the table.

    Args:
        table: columns ``time`` (datetime64, increasing), ``card``, ``terminal``, ``amount``, ``fraud`` (0 or 1; only
            those older than ``delay`` are read).
        windows: days of the rolling windows.
        delay: days until a label is known.
    """
    time = seconds(table["time"])
    amount = table["amount"].to_numpy(dtype=np.float64)
    columns = [amount, weekend(table["time"]), night(table["time"])]
    card = _History(table["card"], time)
    for days in windows:
        count = card.count(0, days * DAY)
        columns += [count, card.total(amount, 0, days * DAY) / count]
    terminal = _History(table["terminal"], time)
    fraud = table["fraud"].to_numpy(dtype=np.float64)
    for days in windows:
        count = terminal.count(delay * DAY, days * DAY)
        frauds = terminal.total(fraud, delay * DAY, days * DAY)
        columns += [count, np.divide(frauds, count, out=np.zeros_like(frauds), where=count > 0)]
    return np.column_stack(columns)


def seconds(time: pd.Series) -> np.ndarray:
    """Whole seconds since 1970 ``[N]``."""
    return time.to_numpy().astype("datetime64[s]").astype(np.int64)


def weekend(time: pd.Series) -> np.ndarray:
    """1 on Saturday and Sunday ``[N]``."""
    return (time.dt.day_of_week >= 5).to_numpy(dtype=np.float64)


def night(time: pd.Series) -> np.ndarray:
    """1 from 0:00 to 6:59 ``[N]``."""
    return (time.dt.hour <= 6).to_numpy(dtype=np.float64)


class _History:
    """Sums over the past of each row's own group, by binary search in one sorted array: no loop over groups.

    Args:
        group: card or terminal of each row ``[N]``.
        time: seconds ``[N]``, increasing.
    """

    def __init__(self, group: pd.Series, time: np.ndarray) -> None:
        codes = pd.factorize(group)[0]
        start = time - time.min()
        # Groups lie further apart than any window reaches, so that a window never leaves its group.
        self._apart = int(start.max()) + 1000 * DAY
        self._order = np.argsort(codes, kind="stable")
        self._key = (codes.astype(np.int64) * self._apart + start)[self._order]
        self._position = np.empty(len(codes), dtype=np.int64)
        self._position[self._order] = np.arange(len(codes))

    def _bounds(self, delay: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``[low, high)`` of the sorted array in ``(t - delay - window, t - delay]``, by sorted row."""
        rows = np.arange(len(self._key))
        high = rows + 1 if delay == 0 else np.searchsorted(self._key, self._key - delay, side="right")
        return np.searchsorted(self._key, self._key - delay - window, side="right"), high

    def count(self, delay: int, window: int) -> np.ndarray:
        """Rows of the group in the window ``[N]``."""
        low, high = self._bounds(delay, window)
        return (high - low).astype(np.float64)[self._position]

    def total(self, values: np.ndarray, delay: int, window: int) -> np.ndarray:
        """Sum of ``values`` ``[N]`` over the window ``[N]``."""
        low, high = self._bounds(delay, window)
        sums = np.concatenate([[0.0], np.cumsum(values[self._order])])
        return (sums[high] - sums[low])[self._position]
