"""Which rows are whose: those of the clients by group, by an entry of the rows or simulated, and the public ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stillhouse.errors import IncompatibleError
from stillhouse.types import Split, Splits, SubsetSplit

LEAST_ROWS = 2
"""Rows of a client: a step of one row has no batch statistics."""
BINS = 10
"""Parts of about equally many rows that the values of a regression are cut into, to be dealt like classes."""
ENOUGH_ROWS, DRAWS = 10, 100
"""Rows that a simulated client has, if so many draws of the shares give them."""


@dataclass(frozen=True)
class ClientRows:
    """Rows of one client.

    Attributes:
        name: of the client: its groups, or a number.
        key: for files and seeds.
        positions: of its rows in the training rows.
    """

    name: str
    key: str
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """Who has which rows: ``clients`` with labels, and ``public`` ones that everybody has, without."""

    clients: tuple[ClientRows, ...]
    public: Split | None


def divide(
    splits: Splits,
    *,
    by: str,
    clients: int | None,
    dirichlet: float,
    public: float | None,
    seed: int,
    strict: bool = True,
) -> Parts:
    """Deal the training rows out; a function of the rows, the options and the seed.

    Args:
        splits: the rows.
        by: ``"labels"`` (unlike shares of the classes, simulated), ``"groups"`` or an entry of the rows.
        clients: how many; with groups or an entry: these are dealt to so many, one client each by default.
        dirichlet: concentration of the shares of a class; small for unlike clients.
        public: share of the training rows that is public (whole groups, where rows have some), and whose labels nobody
            uses; the dataset's rows without labels by default.
        seed: of the dealing.
        strict: too few rows of a client are an error; else the client is left out, as where few rows stand for many.

    Raises:
        IncompatibleError: there are no such groups or entries, or not enough rows.
    """
    train = splits.train
    rng = np.random.default_rng(seed)
    kept = np.arange(len(train))
    shared = splits.unlabelled
    if public is not None:
        aside = _aside(train, public, rng)
        if len(aside) < LEAST_ROWS:
            raise IncompatibleError(
                f"{len(aside)} of {len(train)} rows are public", where="method.public", fix="raise it"
            )
        kept = np.setdiff1d(kept, aside)
        shared = SubsetSplit(train, aside.tolist())
    if by == "labels":
        found = _by_labels(train, kept, clients or 5, dirichlet, rng)
    else:
        found = _by_names(_names(train, by)[kept], kept, clients, by, rng)
    if not strict:
        found = [each for each in found if len(each[1]) >= LEAST_ROWS] or [("all", kept)]
    for name, positions in found:
        if len(positions) < LEAST_ROWS:
            raise IncompatibleError(
                f"client '{name}' has {len(positions)} row{'s' if len(positions) != 1 else ''}, and {LEAST_ROWS} are "
                "the fewest to learn from",
                where="method.clients",
                fix="set fewer clients, among which groups are dealt",
            )
    if strict and len(found) < 2:
        raise IncompatibleError(
            f"all rows are those of one client (by: {by})", where="method.by", fix="choose another entry, or by: labels"
        )
    return Parts(
        tuple(ClientRows(name, _key(name), tuple(positions.tolist())) for name, positions in found),
        shared,
    )


def _aside(train: Split, share: float, rng: np.random.Generator) -> np.ndarray:
    """Positions of the public rows: whole groups, where rows have groups, so that nobody's are both."""
    groups = np.arange(len(train)) if train.groups is None else np.unique(train.groups, return_inverse=True)[1]
    order = rng.permutation(groups.max() + 1)
    rows = np.cumsum(np.bincount(groups)[order])
    return np.flatnonzero(np.isin(groups, order[: np.searchsorted(rows, share * len(train)) + 1]))


def _key(name: str) -> str:
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)[:40]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _names(train: Split, by: str) -> np.ndarray:
    """The group or the value of an entry, as text, of each row."""
    if by == "groups":
        if train.groups is None:
            raise IncompatibleError(
                "the rows of this dataset have no groups", where="method.by", fix="by: labels, or an entry of the rows"
            )
        return np.asarray([str(each) for each in train.groups])
    entries = train.row(0)
    if by not in entries or entries[by].ndim:
        single = sorted(name for name, value in entries.items() if not value.ndim and name not in ("index", "target"))
        raise IncompatibleError(
            f"the rows have no entry '{by}' of one value",
            where="method.by",
            fix=f"one of labels, groups{''.join(f', {name}' for name in single)}",
        )
    values = train.columns([by])[by].numpy()
    return np.asarray([f"{by} {value:g}" for value in values])


def _by_names(
    names: np.ndarray, kept: np.ndarray, clients: int | None, by: str, rng: np.random.Generator
) -> list[tuple[str, np.ndarray]]:
    """A client for each name, or names dealt to so many clients, large ones first, each to who has the fewest rows."""
    found, counts = np.unique(names, return_counts=True)
    if clients is None:
        return [(str(name), kept[names == name]) for name in found]
    if clients > len(found):
        raise IncompatibleError(
            f"there are {len(found)} groups (by: {by}) for {clients} clients", where="method.clients", fix="lower it"
        )
    order = rng.permutation(len(found))
    order = order[np.argsort(-counts[order], kind="stable")]
    loads, dealt = np.zeros(clients, dtype=int), [list[str]() for _ in range(clients)]
    for at in order:
        client = int(loads.argmin())
        loads[client] += counts[at]
        dealt[client].append(str(found[at]))
    return [(f"client {number}", kept[np.isin(names, own)]) for number, own in enumerate(dealt, start=1)]


def _by_labels(
    train: Split, kept: np.ndarray, clients: int, dirichlet: float, rng: np.random.Generator
) -> list[tuple[str, np.ndarray]]:
    """Shares of each class drawn from ``Dir(dirichlet)`` over the clients.

    Source: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification" (2019), in the form of Lin et al. (2020): the shares of a class over the clients, drawn again while
    a client has fewer than `ENOUGH_ROWS`.
    """
    labels = _classes(train)[kept]
    owner = np.zeros(len(kept), dtype=int)
    for _ in range(DRAWS):
        for each in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == each))
            ends = (np.cumsum(rng.dirichlet(np.full(clients, dirichlet))) * len(rows)).round().astype(int)
            owner[rows] = np.searchsorted(ends[:-1], np.arange(len(rows)), side="right")
        if np.bincount(owner, minlength=clients).min() >= ENOUGH_ROWS:
            break
    return [(f"client {number + 1}", kept[owner == number]) for number in range(clients)]


def _classes(train: Split) -> np.ndarray:
    """A class for each row: its label, or the tenth of the values in which its target lies. Of several targets in a
    row, the first."""
    target = train.columns(["target"])["target"]
    first = target.reshape(len(target), -1)[:, 0].double().numpy()
    if not target.is_floating_point() or len(np.unique(first)) <= BINS:
        return first
    bounds: Sequence[float] = np.quantile(first, np.linspace(0, 1, BINS + 1)[1:-1])
    classes: np.ndarray = np.digitize(first, bounds)
    return classes
