"""Network intrusion: NSL-KDD, trained on the 20 % file and tested on Test-21; and connections of a simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit

PAGE = "https://www.unb.ca/cic/datasets/nsl.html"
TRAIN, TEST = "KDDTrain+_20Percent.txt", {"test-21": "KDDTest-21.txt", "test+": "KDDTest+.txt"}
LEVELS = ("protocol_type", "service", "flag")
COUNTS = ("duration", "src_bytes", "dst_bytes")
"""Columns over many orders of magnitude, which models see as ``log(1 + value)``."""
COLUMNS = (
    *("duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land", "wrong_fragment", "urgent"),
    *("hot", "num_failed_logins", "logged_in", "num_compromised", "root_shell", "su_attempted", "num_root"),
    *("num_file_creations", "num_shells", "num_access_files", "num_outbound_cmds", "is_host_login", "is_guest_login"),
    *("count", "srv_count", "serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate", "same_srv_rate"),
    *("diff_srv_rate", "srv_diff_host_rate", "dst_host_count", "dst_host_srv_count", "dst_host_same_srv_rate"),
    *("dst_host_diff_srv_rate", "dst_host_same_src_port_rate", "dst_host_srv_diff_host_rate"),
    *("dst_host_serror_rate", "dst_host_srv_serror_rate", "dst_host_rerror_rate", "dst_host_srv_rerror_rate"),
)
"""The 41 features of a connection, in the order of the files; the attack's name and a difficulty follow."""
NUMBERS = tuple(name for name in COLUMNS if name not in LEVELS)


def nsl_kdd(
    context: DataContext,
    *,
    test: Literal["test-21", "test+"] = "test-21",
    val_fraction: float = 0.2,
    val_kinds: float = 0.25,
) -> Splits:
    """Connections of NSL-KDD: an attack or not.

    Training and validation are the 20 % training file, the test is a file of its own, never a part of the training
    file: 18 of its kinds of attack, 32 % of the rows of Test-21, do not occur in training, and that is the point of
    the set. Validation is made to resemble that: a share ``val_kinds`` of the kinds of attack, drawn by the seed, is
    held out whole (the commonest kind always trains), beside ``val_fraction`` of all other rows.

    Args:
        context: where the files are (``industrial/nsl-kdd``), and the seed of the validation rows.
        test: ``"test-21"``, the rows that 21 models of the authors did not all get right, or ``"test+"``.
        val_fraction: share of the rows of the other kinds, and of the normal ones, that validate.
        val_kinds: share of the kinds of attack that validate only; 0 for none.

    Raises:
        DataError: files are missing or malformed, or the options leave no rows.
    """
    files = [context.root / TRAIN, context.root / TEST[test]]
    for file in files:
        if not file.is_file():
            raise DataError(
                f"the file {file.name} is not there",
                where=str(context.root),
                fix=f"put it into that folder; NSL-KDD is published at {PAGE}",
            )
    return build(
        *(read(file) for file in files),
        val_fraction=val_fraction,
        val_kinds=val_kinds,
        seed=context.seed,
        description=f"NSL-KDD: {TRAIN}, tested on {files[1].name}",
    )


def intrusion_sim(
    context: DataContext, *, rows: int = 1500, val_fraction: float = 0.2, val_kinds: float = 0.25
) -> Splits:
    """Simulated connections in the columns of NSL-KDD, of which the test has kinds of attack that training has not.

    Args:
        context: gives the seed.
        rows: of training and validation, and of the test.
        val_fraction: as for `nsl_kdd`.
        val_kinds: as for `nsl_kdd`.

    Raises:
        DataError: there are too few rows.
    """
    if rows < 200:
        raise DataError(f"{rows} rows are too few", where="dataset.rows", fix="200 or more")
    random = np.random.default_rng(context.seed)
    known = ("flood", "scan", "guess", "flood-slow")
    return build(
        simulate(rows, known, random),
        simulate(rows, ("flood", "scan", "worm", "leak"), random),
        val_fraction=val_fraction,
        val_kinds=val_kinds,
        seed=context.seed,
        description="simulated connections; the test has kinds of attack that training has not",
        simulated=True,
    )


def simulate(rows: int, kinds: tuple[str, ...], random: np.random.Generator) -> pd.DataFrame:
    """Connections, half of them normal, in the columns of the files."""
    kind = np.where(random.random(rows) < 0.5, "normal", random.choice(kinds, rows))
    table = pd.DataFrame(0.0, index=range(rows), columns=[*COLUMNS, "attack", "difficulty"])

    def each(normal: float, **others: float) -> np.ndarray:
        return np.array([others.get(name.replace("-", "_"), normal) for name in kind])

    table["attack"] = kind
    table["protocol_type"] = np.where(random.random(rows) < each(0.3, scan=0.6, worm=0.6), "udp", "tcp")
    service = random.choice(["http", "smtp", "private", "ftp_data"], rows)
    table["service"] = np.where(random.random(rows) < each(0.1, flood=0.7, scan=0.8, leak=0.5), "private", service)
    table["flag"] = np.where(random.random(rows) < each(0.05, flood=0.8, flood_slow=0.5, scan=0.4), "S0", "SF")
    table["duration"] = random.exponential(each(5.0, guess=30.0, leak=60.0)).round()
    table["src_bytes"] = random.lognormal(each(5.0, flood=0.5, scan=1.0, leak=8.0), 1.0).round()
    table["dst_bytes"] = random.lognormal(each(6.0, flood=0.5, scan=0.5, guess=4.0, leak=2.0), 1.0).round()
    table["count"] = random.poisson(each(8.0, flood=200.0, flood_slow=40.0, scan=60.0, worm=50.0))
    table["serror_rate"] = random.beta(each(1.0, flood=8.0, flood_slow=4.0), 4.0).round(2)
    table["diff_srv_rate"] = random.beta(each(1.0, scan=6.0, worm=4.0), 6.0).round(2)
    table["num_failed_logins"] = random.poisson(each(0.05, guess=2.0))
    table["logged_in"] = (random.random(rows) < each(0.7, flood=0.05, scan=0.05, guess=0.2, worm=0.2)).astype(float)
    return table


@dataclass(frozen=True)
class Encoding:
    """Connections as numbers, fitted on training rows: counts in logarithms, all numbers standardised, an indicator for
    each level of protocol, service and flag that training has."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    levels: tuple[tuple[str, ...], ...]

    @classmethod
    def fit(cls, table: pd.DataFrame) -> Self:
        """From training rows."""
        values = _numbers(table)
        std = values.std(axis=0)
        return cls(
            tuple(values.mean(axis=0).tolist()),
            tuple(np.where(std > 0, std, 1.0).tolist()),
            tuple(tuple(sorted(table[name].astype(str).unique())) for name in LEVELS),
        )

    def __call__(self, table: pd.DataFrame) -> np.ndarray:
        """``[N, F]``, float32, at most 10 standard deviations from the mean; a level that training has not is all
        zeros."""
        scaled = ((_numbers(table) - np.array(self.mean)) / np.array(self.std)).clip(-10.0, 10.0)
        parts = [scaled]
        for name, known in zip(LEVELS, self.levels, strict=True):
            at = pd.Index(known).get_indexer(table[name].astype(str))
            parts.append(np.concatenate([np.eye(len(known)), np.zeros((1, len(known)))])[at])
        return np.concatenate(parts, axis=1).astype(np.float32)


def _numbers(table: pd.DataFrame) -> np.ndarray:
    values = table[list(NUMBERS)].to_numpy(np.float64)
    at = [NUMBERS.index(name) for name in COUNTS]
    values[:, at] = np.log1p(values[:, at])
    return values


def read(path: Path) -> pd.DataFrame:
    """The connections of a file without a header: 41 features, then the attack's name and its difficulty where it has
    them.

    Raises:
        DataError: the file cannot be read, has another number of columns, or a value that is not a number of 0 or more.
    """
    where = str(path)
    try:
        raw = pd.read_csv(path, header=None, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise DataError(f"the file cannot be read: {error}", where=where, fix="get it again") from error
    if raw.shape[1] not in (len(COLUMNS), len(COLUMNS) + 1, len(COLUMNS) + 2):
        raise DataError(
            f"the file has {raw.shape[1]} columns, and a connection has {len(COLUMNS)} features, then the attack's "
            "name and its difficulty",
            where=where,
            fix="bring the .txt file as it is published, without a header",
        )
    raw.columns = pd.Index([*COLUMNS, "attack", "difficulty"][: raw.shape[1]])
    for name in NUMBERS:
        values = tables.numbers(raw[name], where=where, first=1)
        tables.refuse(values < 0, raw[name], "0 or more", where=where, first=1, fix="correct the row")
        raw[name] = values
    return raw


def build(
    known: pd.DataFrame,
    test: pd.DataFrame,
    *,
    val_fraction: float,
    val_kinds: float,
    seed: int,
    description: str,
    simulated: bool = False,
) -> Splits:
    """Splits of connections; see `nsl_kdd`."""
    if not 0 < val_fraction < 1 or not 0 <= val_kinds < 1:
        raise DataError(
            f"val_fraction {val_fraction} and val_kinds {val_kinds} leave no split",
            where="dataset options",
            fix="val_fraction between 0 and 1, val_kinds from 0 to below 1",
        )
    random = np.random.default_rng(seed)
    counts = known.loc[known["attack"] != "normal", "attack"].value_counts()
    held = random.permutation(sorted(counts.index[1:]))[: round(val_kinds * len(counts))].tolist()
    validates = known["attack"].isin(held).to_numpy() | (random.random(len(known)) < val_fraction)
    train = known[~validates]
    encoding = Encoding.fit(train)
    offset = len(known)

    def rows(table: pd.DataFrame, index: np.ndarray, name: str) -> TensorSplit:
        target = (table["attack"] != "normal").to_numpy().astype(np.int64)
        if len(np.unique(target)) < 2:
            raise DataError(f"split '{name}' has no normal row, or no attack", where=description, fix="bring more rows")
        columns = {"x": encoding(table), "target": target, "index": index}
        return TensorSplit({key: torch.from_numpy(value) for key, value in columns.items()})

    at = np.arange(len(known))
    splits = [
        rows(train, at[~validates], "train"),
        rows(known[validates], at[validates], "val"),
        rows(test, offset + np.arange(len(test)), "test"),
    ]
    attacks = int(splits[0].columns(["target"])["target"].sum())
    unseen = ~test["attack"].isin([*train["attack"].unique(), "normal"]).to_numpy()
    info = DataInfo(
        inputs={"x": TensorSpec((splits[0].row(0)["x"].shape[0],))},
        classes=("normal", "attack"),
        class_counts=(len(train) - attacks, attacks),
        description=f"{description}; validation holds out the kinds {', '.join(sorted(held)) or 'none'}; "
        f"{unseen.mean():.0%} of the test rows are of kinds that training has not",
        simulated=simulated,
        meta={"normal": "normal"},
    )
    return Splits(info=info, train=splits[0], val=splits[1], test=splits[2], reader=ConnectionReader(encoding))


class ConnectionReader:
    """Connections of a new file in the layout of NSL-KDD; a `stillhouse.types.Reader`.

    Args:
        encoding: fitted on training rows.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return asdict(self.encoding)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        levels = tuple(tuple(each) for each in state["levels"])
        return cls(Encoding(tuple(state["mean"]), tuple(state["std"]), levels))

    def read(self, path: Path) -> tuple[TensorSplit, dict[str, list[Any]]]:
        """All rows, each with its ``row`` in the file.

        Raises:
            DataError: see `read`.
        """
        values = torch.from_numpy(self.encoding(read(Path(path))))
        split = TensorSplit({"x": values, "index": torch.arange(len(values))})
        return split, {"row": list(range(1, len(values) + 1))}
