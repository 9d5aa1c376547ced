"""Tables larger than memory: Parquet files, turned once into NumPy columns of which each batch reads its own rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import StandardScaler

from stillhouse.data import tables
from stillhouse.data.arrays import NAMES, ArraysSplit, described
from stillhouse.data.readers import ColumnsReader
from stillhouse.errors import DataError
from stillhouse.storage import PLAN, cache_folder, digest, read_object, replacing_folder, write_json
from stillhouse.types import DataContext, Splits, TensorSpec

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 65_536
"""Rows that are in memory at a time."""
MOST_CLASSES = 10_000
"""A target of more different whole numbers is a value that was stored as such."""


@dataclass(frozen=True)
class Part:
    """A Parquet file of a split, and the number of rows in those before it."""

    path: Path
    before: int


@dataclass(frozen=True)
class Plan:
    """What becomes of the columns.

    Args:
        target: name of the target column.
        classes: its values in order; None for a target that is a value.
        reader: the input columns, with means and standard deviations of training rows.
        beside: columns of groups and times, by the names of their files.
    """

    target: str
    classes: tuple[Any, ...] | None
    reader: ColumnsReader
    beside: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """All that are read."""
        return [*dict.fromkeys([*self.reader.columns, self.target, *self.beside.values()])]


def parquet(
    context: DataContext,
    *,
    path: Path,
    target: str,
    columns: list[str] | None = None,
    groups: str | None = None,
    times: str | None = None,
    unit: str = "",
) -> Splits:
    """Your own table as Parquet files, which need not fit into memory.

    ``path`` has ``train.parquet``, ``val.parquet`` and ``test.parquet``, and ``unlabelled.parquet`` where there are
    such rows; a folder of that name may hold several files. They are gone through twice, 65,536 rows at a time: for
    means and standard deviations of the training rows, and to write them, standardised, as NumPy files into the user's
    cache folder, where the next run finds them. Training reads these as `core/arrays` does.

    Args:
        context: what the framework gives.
        path: folder, relative to the recipe.
        target: column of the target: whole numbers, truth values or texts are classes, other numbers are values.
        columns: input columns, all of numbers; every other column of numbers by default.
        groups: column of the group (customer, machine) of each row.
        times: column of the time of each row, numbers.
        unit: unit of a target that is a value.

    Raises:
        DataError: a file or a column is missing, or a value is not what it should be (with file, row and column).
    """
    folder = context.base / path
    files = {name: _files(folder, name) for name in NAMES}
    if (folder / "unlabelled.parquet").exists():
        files["unlabelled"] = _files(folder, "unlabelled")
    beside = {name: column for name, column in (("groups", groups), ("times", times)) if column is not None}
    names = _input_columns(files["train"][0].path, target, columns, tuple(beside.values()))

    wanted = {"target": target, "columns": names, "beside": beside, "files": _contents(files)}
    made = cache_folder() / "parquet" / digest(wanted)
    if not made.is_dir():
        with replacing_folder(made) as temporary:
            plan = _plan(files["train"], target, names, beside)
            for name, parts in files.items():
                _write(parts, plan, temporary / name, labelled=name != "unlabelled")
            source = {"folder": str(folder.resolve()), "target": target}
            write_json(temporary / PLAN, {"source": source, "classes": plan.classes, "reader": plan.reader.state()})
    kept = read_object(made / PLAN)
    reader = ColumnsReader.from_state(kept["reader"])

    splits: dict[str, ArraysSplit] = {}
    for name in files:
        splits[name] = ArraysSplit(made / name, first=sum(map(len, splits.values())))
    classes = None if kept["classes"] is None else [str(each) for each in kept["classes"]]
    inputs = {reader.input: TensorSpec((len(names),))}
    return Splits(
        info=described(splits["train"].column("target"), inputs, classes, unit),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        unlabelled=splits.get("unlabelled"),
        reader=reader,
    )


def _files(folder: Path, name: str) -> list[Part]:
    """The files of a split in order of their names."""
    import pyarrow.parquet as pq

    whole = folder / f"{name}.parquet"
    paths = sorted(whole.glob("*.parquet")) if whole.is_dir() else [whole]
    if not paths or not paths[0].is_file():
        raise DataError(f"there is no '{name}.parquet'", where=str(folder), fix="bring train, val and test")
    parts, before = [], 0
    for path in paths:
        try:
            rows = pq.read_metadata(path).num_rows
        except (OSError, ValueError) as error:
            raise DataError(
                f"the file is not Parquet: {str(error).strip()}", where=str(path), fix="get it again"
            ) from error
        parts.append(Part(path, before))
        before += rows
    if not before:
        raise DataError("the file has no rows", where=str(whole), fix="bring a file with at least one row")
    return parts


def _input_columns(path: Path, target: str, columns: Sequence[str] | None, beside: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns that are inputs.

    Raises:
        DataError: one is missing or has no numbers, or none is left.
    """
    import pyarrow.parquet as pq
    import pyarrow.types as kinds

    schema: pa.Schema = pq.read_schema(path)
    tables.require_columns(pd.DataFrame(columns=schema.names), [target, *beside, *(columns or ())], str(path))

    def numeric(name: str) -> bool:
        kind = schema.field(name).type
        return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind))

    taken = columns or [name for name in schema.names if name not in (target, *beside) and numeric(name)]
    wrong = next((name for name in taken if not numeric(name)), None)
    if wrong is not None:
        raise DataError(
            f"column '{wrong}' has {schema.field(wrong).type}, not numbers",
            where=str(path),
            fix="turn it into numbers, or leave it out of dataset.columns",
        )
    if not taken or target in taken:
        what = f"'{target}' is the target, and no input" if target in taken else "there is no column of numbers"
        raise DataError(what, where=str(path), fix="name the inputs: dataset.columns")
    return tuple(taken)


def _contents(files: dict[str, list[Part]]) -> dict[str, list[str]]:
    """SHA-256 of each file."""
    return {name: [_sha256(part.path) for part in parts] for name, parts in files.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pieces(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[tuple[pd.DataFrame, Part, int]]:
    """The rows piece by piece, with the file of each and the number of its first row in that file, from 1.

    Raises:
        DataError: a file lacks a column, or is damaged.
    """
    import pyarrow.parquet as pq

    for part in parts:
        # Read ahead, the file would be in memory three times over.
        with pq.ParquetFile(part.path, pre_buffer=False) as file:
            tables.require_columns(pd.DataFrame(columns=file.schema_arrow.names), columns, str(part.path))
            first = 1
            try:
                for batch in file.iter_batches(batch_size=ROWS, columns=[*columns], use_threads=False):
                    yield batch.to_pandas(), part, first
                    first += batch.num_rows
            except (OSError, ValueError) as error:
                raise DataError(
                    f"the file cannot be read behind row {first - 1}: {str(error).strip()}",
                    where=str(part.path),
                    fix="get it again",
                ) from error


def _values(piece: pd.DataFrame, columns: Sequence[str], part: Part, first: int) -> np.ndarray:
    where = str(part.path)
    return np.stack([tables.numbers(piece[name], where=where, first=first) for name in columns], axis=1)


def _plan(parts: Sequence[Part], target: str, names: tuple[str, ...], beside: dict[str, str]) -> Plan:
    """Classes, means and standard deviations, of the training rows alone."""
    scaler, seen = StandardScaler(), set[Any]()
    values = False
    for piece, part, first in _pieces(parts, [*names, target]):
        scaler.partial_fit(_values(piece, names, part, first))
        values = values or pd.api.types.is_float_dtype(piece[target])
        if not values:
            tables.ids(piece[target], where=str(part.path), first=first)
            seen |= set(piece[target].unique().tolist())
        if not values and len(seen) > MOST_CLASSES:
            raise DataError(
                f"column '{target}' has more than {MOST_CLASSES:,} different values, which are classes",
                where=str(part.path),
                fix="store a target that is a value as floating point numbers",
            )
    reader = ColumnsReader(columns=names, mean=tuple(scaler.mean_.tolist()), std=tuple(scaler.scale_.tolist()))
    return Plan(target, None if values else tuple(sorted(seen)), reader, beside)


def _write(parts: Sequence[Part], plan: Plan, folder: Path, *, labelled: bool) -> None:
    """The columns of a split as NumPy files."""
    import pyarrow.parquet as pq

    folder.mkdir()
    rows = parts[-1].before + pq.read_metadata(parts[-1].path).num_rows
    names = plan.columns if labelled else [name for name in plan.columns if name != plan.target]
    shape = (rows, len(plan.reader.columns))
    x = np.lib.format.open_memmap(folder / f"{plan.reader.input}.npy", mode="w+", dtype=np.float32, shape=shape)
    kind = np.float32 if plan.classes is None else np.int64
    # A dataset's unlabelled rows have a column of targets too, which nobody reads.
    target = np.lib.format.open_memmap(folder / "target.npy", mode="w+", dtype=kind, shape=(rows,))
    beside: dict[str, list[np.ndarray]] = {name: [] for name in plan.beside}
    for piece, part, first in _pieces(parts, names):
        start = part.before + first - 1
        here = slice(start, start + len(piece))
        x[here] = plan.reader.transform(_values(piece, plan.reader.columns, part, first)).numpy()
        if labelled:
            target[here] = _targets(piece[plan.target], plan, part, first)
        for name, column in plan.beside.items():
            beside[name].append(_beside(name, piece[column], part, first))
    x.flush()
    target.flush()
    for name, found in beside.items():
        np.save(folder / f"{name}.npy", np.concatenate(found))


def _targets(column: pd.Series, plan: Plan, part: Part, first: int) -> np.ndarray:
    where = str(part.path)
    if plan.classes is None:
        return tables.numbers(column, where=where, first=first)
    places: np.ndarray = pd.Index(plan.classes).get_indexer(column)
    tables.refuse(places < 0, column, "a class of the training rows", where=where, first=first, fix="correct it")
    return places


def _beside(name: str, column: pd.Series, part: Part, first: int) -> np.ndarray:
    where = str(part.path)
    if name == "times":
        return tables.numbers(column, where=where, first=first)
    found = tables.ids(column, where=where, first=first)
    ids: np.ndarray = found.to_numpy() if pd.api.types.is_integer_dtype(found) else found.to_numpy(dtype=np.str_)
    return ids
