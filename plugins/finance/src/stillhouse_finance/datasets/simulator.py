"""A small seeded simulator of card transactions, after the one of the Fraud Detection Handbook, offline."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_finance.datasets.rolling import DAY
from stillhouse_finance.datasets.transactions import ColumnNames, Protocol, split

FIRST_DAY = "2024-01-01"
SIDE = 100.0
"""Side of the square in which customers and terminals lie."""
LARGE = 220.0
"""Amount above which every transaction is a fraud (scenario 1)."""
TERMINAL_DAYS, CARD_DAYS = 28, 14
"""Days that a terminal (scenario 2) and a card (scenario 3) stay compromised."""


def simulate(
    *, customers: int, terminals: int, days: int, radius: float, terminal_rate: float, card_rate: float, seed: int
) -> pd.DataFrame:
    """Transactions in order of time: ``time``, ``card``, ``terminal``, ``amount``, ``fraud``, ``scenario`` (0 to 3).

    As in the Fraud Detection Handbook (Le Borgne, Siblini, Lebichot and Bontempi, 2022, chapter 3): a customer has a
    place, a mean amount and a mean number of transactions a day, and pays at the terminals within ``radius``.
    (1) Amounts above 220 are frauds. (2) Each day some terminals are compromised; all their transactions of the next 28
    days are frauds. (3) Each day some cards are compromised; for 14 days a third of their transactions are
    frauds, with the fivefold amount.

    Args:
        customers: number of customers, with one card each.
        terminals: number of terminals.
        days: days simulated.
        radius: distance to the terminals that a customer uses, in a square of side 100.
        terminal_rate: share of the terminals compromised each day.
        card_rate: share of the cards compromised each day.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    home, shops = random.uniform(0, SIDE, (customers, 2)), random.uniform(0, SIDE, (terminals, 2))
    mean_amount, per_day = random.uniform(5, 100, customers), random.uniform(0, 4, customers)
    distance = np.hypot(*(home[:, None] - shops[None]).transpose(2, 0, 1))
    # A customer with no terminal near uses the nearest one.
    near = (distance <= radius) | (distance == distance.min(axis=1, keepdims=True))
    numbers = random.poisson(per_day[:, None], (customers, days))
    card, day = (np.repeat(grid.ravel(), numbers.ravel()) for grid in np.indices(numbers.shape))
    second = random.normal(DAY / 2, 20_000, len(card))
    kept = (second > 0) & (second < DAY)
    card, day, second = card[kept], day[kept], second[kept].astype(np.int64)
    amount = random.normal(mean_amount[card], mean_amount[card] / 2)
    amount = np.where(amount < 0, random.uniform(0, 2 * mean_amount[card]), amount).round(2)
    choices = [np.flatnonzero(row) for row in near]
    offset = np.cumsum([0, *(len(each) for each in choices[:-1])])
    many = np.array([len(each) for each in choices])
    terminal = np.concatenate(choices)[offset[card] + (random.random(len(card)) * many[card]).astype(np.int64)]
    scenario = np.where(amount > LARGE, 1, 0)
    scenario[_compromised(random, terminals, days, terminal_rate, TERMINAL_DAYS)[terminal, day]] = 2
    stolen = _compromised(random, customers, days, card_rate, CARD_DAYS)[card, day] & (random.random(len(card)) < 1 / 3)
    amount = np.where(stolen, (5 * amount).round(2), amount)
    scenario[stolen] = 3
    table = pd.DataFrame(
        {
            "time": pd.Timestamp(FIRST_DAY) + pd.to_timedelta(day * DAY + second, unit="s"),
            "card": card,
            "terminal": terminal,
            "amount": amount,
            "fraud": (scenario > 0).astype(np.int64),
            "scenario": scenario,
        }
    )
    return table.sort_values("time", kind="stable", ignore_index=True)


def _compromised(random: np.random.Generator, many: int, days: int, rate: float, lasting: int) -> np.ndarray:
    """Whether each of ``many`` is compromised on each day ``[many, days]``, for ``lasting`` days from a random one."""
    starts = random.random((many, days)) < rate
    total = np.cumsum(starts, axis=1)
    before = np.concatenate([np.zeros((many, lasting), dtype=total.dtype), total], axis=1)[:, :days]
    found: np.ndarray = (total - before) > 0
    return found


def transactions_sim(
    context: DataContext,
    *,
    customers: int = 1000,
    terminals: int = 2000,
    days: int = 70,
    radius: float = 10.0,
    terminal_rate: float = 2e-4,
    card_rate: float = 6e-4,
    train_days: int = 7,
    delay_days: int = 7,
    test_days: int = 7,
    val_days: int = 7,
    windows: tuple[int, ...] = (1, 7, 30),
    drop_known_cards: bool = True,
) -> Splits:
    """Simulated card transactions with the features and the protocol of `finance/fraud-handbook`; not real data.

    Args:
        context: gives the seed.
        customers: number of customers, with one card each.
        terminals: number of terminals.
        days: days simulated; the last ones are the test.
        radius: distance to the terminals that a customer uses, in a square of side 100.
        terminal_rate: share of the terminals compromised each day.
        card_rate: share of the cards compromised each day.
        train_days: days of training.
        delay_days: days until the label of a transaction is known; these rows serve soft losses, unlabelled.
        test_days: days of the test.
        val_days: days of validation, right before training.
        windows: days of the rolling features.
        drop_known_cards: leave cards whose fraud is already known out of validation and test.

    Raises:
        DataError: the options leave no rows, or a split without fraud.
    """
    protocol = Protocol(
        train_days=train_days,
        delay_days=delay_days,
        test_days=test_days,
        val_days=val_days,
        windows=windows,
        drop_known_cards=drop_known_cards,
    )
    needed = val_days + train_days + delay_days + test_days
    if min(customers, terminals) < 1 or days < needed or not (0 <= terminal_rate <= 1 and 0 <= card_rate <= 1):
        raise DataError(
            f"customers {customers}, terminals {terminals}, days {days}, terminal_rate {terminal_rate} and card_rate "
            f"{card_rate} give no transactions to split",
            where="transactions-sim",
            fix=f"at least one customer and terminal, {needed} days, and rates from 0 to 1",
        )
    table = simulate(
        customers=customers,
        terminals=terminals,
        days=days,
        radius=radius,
        terminal_rate=terminal_rate,
        card_rate=card_rate,
        seed=context.seed,
    )
    return split(
        table.drop(columns="scenario"),
        protocol,
        ColumnNames(time="time", card="card", terminal="terminal", amount="amount", fraud="fraud"),
        where="transactions-sim",
        description=f"simulated card transactions (not real data) of {customers} customers at {terminals} terminals",
        simulated=True,
    )
