"""The features of transactions: against a naive formula, and without a look at the future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse_finance.datasets.rolling import feature_names, features, night, weekend, yes_no

START = pd.Timestamp("2018-07-27 12:00:00")  # a Friday
HOUR = 3600


def table(rows: list[tuple[int, int, int, float, int]]) -> pd.DataFrame:
    """From (seconds since the start, card, terminal, amount, fraud), in order of time."""
    ordered = sorted(rows, key=lambda row: row[0])
    made = pd.DataFrame(ordered, columns=["second", "card", "terminal", "amount", "fraud"])
    return made.assign(time=START + pd.to_timedelta(made["second"], unit="s")).drop(columns="second")


def naive(rows: pd.DataFrame, windows: tuple[int, ...], delay: int) -> np.ndarray:
    """The definition, one row and one window at a time."""
    day = pd.Timedelta(days=1)
    found = []
    for at in range(len(rows)):
        now = rows.iloc[at]
        values = [now["amount"], float(now["time"].weekday() >= 5), float(now["time"].hour <= 6)]
        past = rows.iloc[: at + 1]
        for length in windows:
            mine = past[(past["card"] == now["card"]) & (past["time"] > now["time"] - length * day)]
            values += [len(mine), mine["amount"].mean()]
        for length in windows:
            until = now["time"] - delay * day
            there = rows[rows["terminal"] == now["terminal"]]
            if delay == 0:
                there = there.loc[: rows.index[at]]
            there = there[(there["time"] > until - length * day) & (there["time"] <= until)]
            values += [len(there), there["fraud"].mean() if len(there) else 0.0]
        found.append(values)
    return np.array(found, dtype=float)


moment = st.one_of(st.integers(0, 40 * 86_400), st.sampled_from([day * 86_400 for day in range(40)]))
row = st.tuples(moment, st.integers(0, 2), st.integers(0, 2), st.floats(0.01, 500), st.integers(0, 1))
some_rows = st.lists(row, min_size=1, max_size=25)


@settings(max_examples=60, deadline=None)
@given(some_rows, st.sampled_from([0, 1, 7]))
def test_features_equal_the_definition(rows, delay):
    given_table = table(rows)
    found = features(given_table, windows=(1, 7, 30), delay=delay)
    np.testing.assert_allclose(found, naive(given_table, (1, 7, 30), delay), rtol=1e-9, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(some_rows, some_rows, st.integers(0, 40 * 86_400))
def test_features_do_not_change_when_later_rows_do(rows, others, now):
    """Whatever happens after a moment, and whatever labels of the last seven days say, earlier features stay."""
    past = [each for each in rows if each[0] <= now]
    if not past:
        return
    flipped = [(*each[:4], 1 - each[4]) if each[0] > now - 7 * 86_400 else each for each in past]
    later = [(now + 1 + second, *rest) for second, *rest in others]
    before = features(table(past))
    after = features(table(flipped + later))
    np.testing.assert_allclose(after[: len(past)], before, rtol=1e-9, atol=1e-9)


def test_a_window_is_open_at_its_start_and_closed_at_its_end():
    day = 86_400
    found = features(table([(0, 1, 1, 10.0, 1), (day - 1, 1, 1, 20.0, 0), (day, 1, 1, 60.0, 0)]), windows=(1,), delay=0)
    names = feature_names((1,))
    count, mean = names.index("card_count_1d"), names.index("card_mean_amount_1d")
    assert found[:, count].tolist() == [1, 2, 2]
    assert found[:, mean].tolist() == pytest.approx([10, 15, 40])
    delayed = features(table([(0, 1, 1, 10.0, 1), (7 * day - 1, 2, 1, 1.0, 0), (7 * day, 3, 1, 1.0, 0)]), windows=(1,))
    assert delayed[:, names.index("terminal_count_1d")].tolist() == [0, 0, 1]
    assert delayed[:, names.index("terminal_risk_1d")].tolist() == [0, 0, 1]


def test_calendar_features_and_names():
    times = pd.Series(pd.to_datetime(["2018-07-27 06:59:59", "2018-07-28 07:00:00", "2018-07-29 00:00:00"]))
    assert weekend(times).tolist() == [0, 1, 1]
    assert night(times).tolist() == [1, 0, 1]
    names = feature_names((1, 7, 30))
    assert len(names) == len(set(names)) == len(yes_no((1, 7, 30))) == 15
    assert [name for name, flag in zip(names, yes_no((1, 7, 30)), strict=True) if flag] == ["weekend", "night"]


def test_ids_may_be_text_and_amounts_huge():
    rows = table([(0, 1, 1, 1e12, 0), (HOUR, 1, 1, 0.01, 0), (2 * HOUR, 2, 1, 0.03, 0)])
    words = rows.assign(card=rows["card"].map({1: "a", 2: "b"}), terminal="shop")
    found, numbers = features(words), features(rows)
    np.testing.assert_array_equal(found, numbers)
    assert found[2, feature_names((1, 7, 30)).index("card_mean_amount_1d")] == pytest.approx(0.03, rel=0.01)
