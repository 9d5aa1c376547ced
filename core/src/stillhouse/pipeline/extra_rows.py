"""Rows that only the teacher labels: made from the training rows by the recipe's augmenter, in the stage data."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stillhouse.errors import DataError, IncompatibleError
from stillhouse.pipeline.data import check_inputs
from stillhouse.pipeline.leakage import row_hashes
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import AugmenterSpec
from stillhouse.recipe.model import ExtraRows
from stillhouse.recipe.resolved import Bound, ResolvedRecipe
from stillhouse.storage import digest
from stillhouse.trained import component_identity
from stillhouse.types import Batch, ConcatSplit, DataInfo, Split, Splits, SubsetSplit, TensorSplit

IN_MEMORY = 400_000_000
"""Bytes of rows that are made once and kept; more of them are made again whenever they are asked for."""
CHUNK = 1024


@dataclass(frozen=True)
class MadeRows:
    """Extra rows, what they depend on, and what making them took.

    Attributes:
        rows: without ``target``; their ids stand in no other split.
        own: unlabelled rows that the dataset has itself.
        fingerprint: hash of all that they depend on.
        seconds: time to make them (those that are not kept in memory are made in each epoch).
        asked: what a service was asked for them, `stillhouse.types.AskedAugmenter.facts`; None where none was.
    """

    rows: Split
    own: Split | None
    fingerprint: str
    seconds: float
    asked: dict[str, Any] | None = None


def make_extra_rows(resolved: ResolvedRecipe, splits: Splits) -> MadeRows | None:
    """The recipe's extra rows; None when it asks for none. The augmenter is given the training rows and no others.

    Raises:
        IncompatibleError: the augmenter does not suit the dataset's inputs.
        DataError: it made rows that are not what it promised.
    """
    bound = resolved.extra_rows
    if bound is None:
        return None
    check_suits(bound.component, splits.info)
    assert isinstance(bound.ref, ExtraRows)
    count, seed = max(1, round(bound.ref.per_row * len(splits.train))), resolved.recipe.data_seed
    start = time.perf_counter()
    augmenter: Any = bound.component.load()(**bound.options)
    asked = is_service(bound)
    if asked:
        augmenter.prepare(splits.reader)
    with torch.random.fork_rng(devices=[]):  # training rows may be augmented at random
        torch.manual_seed(seed)
        made = augmenter(splits.train, splits.info, count, seed)
        check_made(made, splits.info, count, name=bound.id, fewer=asked)
        kept = _kept(_unknown_to_test(made, splits, name=bound.id) if asked else made)
    everything = {**splits.named(), **({"unlabelled": splits.unlabelled} if splits.unlabelled is not None else {})}
    first = 1 + max(int(split.index().max()) for split in everything.values())
    rows = _Numbered(kept, first)
    identity = {**component_identity(bound.component), "options": dict(bound.options), "rows": rows.fingerprint()}
    seconds = time.perf_counter() - start
    if not asked:
        return MadeRows(rows, splits.unlabelled, digest(identity), seconds)
    if len(rows) < count:
        warnings.warn(f"{bound.id} brought {len(rows)} of the {count} rows that were asked for", stacklevel=2)
    facts = {**augmenter.facts(), "copies_left_out": len(made) - len(rows)}
    return MadeRows(rows, splits.unlabelled, digest(identity), seconds, facts)


def is_service(bound: Bound) -> bool:
    """The augmenter asks a service for its rows."""
    spec = bound.component.spec
    return isinstance(spec, AugmenterSpec) and spec.asked


def _unknown_to_test(made: Split, splits: Splits, *, name: str) -> Split:
    """Rows of a service without those whose inputs are in the test or validation rows, which it may have known.

    Raises:
        DataError: none is left.
    """
    names = list(splits.info.inputs)
    known = {key for split in (splits.val, splits.test) for key in row_hashes(split, names)}
    new = [at for at, key in enumerate(row_hashes(made, names)) if key not in known]
    if not new:
        raise DataError(
            f"all {len(made)} rows of augmenter '{name}' are test or validation rows",
            where=name,
            fix="look at what it writes; it must not be given these rows",
        )
    return made if len(new) == len(made) else SubsetSplit(made, new)


def with_extra_rows(splits: Splits, made: MadeRows) -> Splits:
    """The dataset whose unlabelled rows are its own and, behind them, the extra ones."""
    return replace(splits, unlabelled=made.rows if made.own is None else ConcatSplit((made.own, made.rows)))


def check_made(made: Split, info: DataInfo, count: int, *, name: str, fewer: bool = False) -> None:
    """Extra rows are as many as were asked for (or ``fewer``), have the declared inputs, finite where training rows
    are, and no label.

    Raises:
        DataError: they are not.
    """
    if not isinstance(made, Split):
        raise DataError(
            f"augmenter '{name}' returned {type(made).__name__}, not a Split",
            where=name,
            fix="return a stillhouse.types.Split, such as TensorSplit",
        )
    if len(made) > count or not len(made) or (len(made) < count and not fewer):
        raise DataError(
            f"augmenter '{name}' made {len(made)} rows, {count} were asked for", where=name, fix="make 'count' rows"
        )
    row = made.row(0)
    if "target" in row:
        raise DataError(
            f"rows of augmenter '{name}' have a target, which nobody has given them",
            where=name,
            fix="leave 'target' out: only the teacher speaks of these rows",
        )
    check_inputs(info, row, "extra rows", name)


def check_suits(component: Component, info: DataInfo) -> None:
    """Whether an augmenter can do something with a dataset's inputs, by its spec.

    Raises:
        IncompatibleError: it cannot.
    """
    spec = component.spec
    assert isinstance(spec, AugmenterSpec)
    have = ", ".join(f"{name} ({each.dtype})" for name, each in info.inputs.items())
    missing = [name for name in spec.inputs if name not in info.inputs]
    if missing:
        what = f"needs the input '{missing[0]}'"
    elif spec.dtypes and not any(each.dtype in spec.dtypes for each in info.inputs.values()):
        what = f"changes {' or '.join(spec.dtypes)} inputs"
    else:
        return
    raise IncompatibleError(
        f"augmenter '{component.id}' {what}, and the dataset has {have}",
        where="extra_rows",
        fix="choose another augmenter (`stillhouse components --kind augmenter`), or remove extra_rows",
    )


def _kept(made: Split) -> Split:
    """The rows in memory, where they are always the same and small enough."""
    row = made.row(0)
    size = sum(value.numel() * value.element_size() for value in row.values())
    if made.stochastic or isinstance(made, TensorSplit) or made.lengths is not None or size * len(made) > IN_MEMORY:
        return made
    parts = [made.batch(range(at, min(at + CHUNK, len(made)))) for at in range(0, len(made), CHUNK)]
    return TensorSplit({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


class _Numbered(Split):
    """Rows of another split with ids ``first``, ``first + 1``, ..."""

    def __init__(self, rows: Split, first: int) -> None:
        self._rows, self._first, self.stochastic, self.lengths = rows, first, rows.stochastic, rows.lengths

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, position: int) -> dict[str, Tensor]:
        return {**self._rows.row(position), "index": torch.tensor(self._first + position)}

    def batch(self, positions: Sequence[int]) -> Batch:
        index = self._first + torch.as_tensor(positions, dtype=torch.int64)
        return {**self._rows.batch(positions), "index": index}

    def index(self) -> Tensor:
        return torch.arange(self._first, self._first + len(self))

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._rows.fingerprint()}:{self._first}".encode()).hexdigest()


def add_extra_rows(splits: Splits, resolved: ResolvedRecipe) -> tuple[Splits, MadeRows | None]:
    """The splits with the recipe's extra rows among the unlabelled ones, and how these were made.

    Raises:
        StillhouseError: see `make_extra_rows`.
    """
    made = make_extra_rows(resolved, splits)
    return (splits, None) if made is None else (with_extra_rows(splits, made), made)
