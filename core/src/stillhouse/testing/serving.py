"""Whether a reader makes the rows that training had."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.readers import ColumnsReader
from stillhouse.errors import DataError
from stillhouse.plugins.checks import Skipped
from stillhouse.plugins.registry import Component
from stillhouse.plugins.spec import load_target
from stillhouse.plugins.specs import DatasetSpec
from stillhouse.testing.fitted import standardised, values_of
from stillhouse.testing.isolation import offline
from stillhouse.testing.own_files import SAMPLE, files_of, matched
from stillhouse.testing.rows import unpadded
from stillhouse.testing.workbench import Workbench
from stillhouse.types import DataInfo, Split, Splits


def reader_rows(bench: Workbench, component: Component, splits: Splits) -> str:
    """Which rows were compared; raises DataError where the reader makes others than the dataset."""
    bench.require(component, "reader")
    spec = component.spec
    assert isinstance(spec, DatasetSpec)
    reader = splits.reader
    if isinstance(reader, ColumnsReader):
        values = values_of(splits.train, reader.input)
        plain = set(reader.mean) == {0.0} and set(reader.std) == {1.0}
        if plain and standardised(np.zeros_like(values), values):
            raise DataError(
                "the training rows are standardised, and the reader subtracts 0 and divides by 1",
                where=spec.reader,
                fix="ColumnsReader.fit(columns, train) standardises both alike",
            )
    if spec.sample:
        return _sample(bench, component, splits, spec)
    for path in files_of(bench, component).values():
        rows = matched(splits, path)
        if rows is None:
            continue
        count, found = rows
        # A dataset may leave out many lines: a past, a gap, cards that are known.
        if len(found) < min(count, SAMPLE) / 10:
            raise DataError(
                f"of {min(count, SAMPLE)} rows that the reader makes of {path.name}, {len(found)} are rows of the "
                "dataset made of the same file",
                where=spec.reader,
                fix="let the reader prepare rows as the dataset does: the same columns, order, units and scales",
            )
        return f"{len(found)} rows of {path.name}"
    raise Skipped(
        "there is no file that the reader could read",
        "DatasetSpec(sample='module:function') writes one with some of the dataset's rows",
    )


def _sample(bench: Workbench, component: Component, splits: Splits, spec: DatasetSpec) -> str:
    write, reader = load_target(spec.sample, who=component.id), splits.reader
    assert reader is not None
    with tempfile.TemporaryDirectory(prefix="stillhouse-") as folder, offline():
        path, ids = write(bench.context(component), Path(folder))
        read, _ = reader.read(Path(path))
    if len(read) != len(ids):
        raise DataError(
            f"the reader makes {len(read)} rows of the sample, which says that it holds {len(ids)}",
            where=spec.sample,
            fix="return the id of each row in the file, in the order in which the reader gives them",
        )
    places: dict[int, tuple[Split, int]] = {}
    everything = [*splits.named().values(), *([] if splits.unlabelled is None else [splits.unlabelled])]
    for split in everything:
        places |= {row: (split, at) for at, row in enumerate(split.index().tolist())}
    for at, row_id in enumerate([int(each) for each in ids][:SAMPLE]):
        if row_id not in places:
            raise DataError(
                f"the sample says that it holds row {row_id}, and no split has a row with that id",
                where=spec.sample,
                fix="return ids as in 'index' of the splits, with the dataset's default options",
            )
        split, position = places[row_id]
        _same_inputs(splits.info, read.row(at), split.row(position), row_id, spec)
    return f"{min(len(ids), SAMPLE)} rows of a sample"


def _same_inputs(
    info: DataInfo, read: Mapping[str, Tensor], row: Mapping[str, Tensor], row_id: int, spec: DatasetSpec
) -> None:
    for name in info.inputs:
        if name not in read:
            raise DataError(
                f"the reader's rows have no input '{name}'",
                where=spec.reader,
                fix="give every input of DataInfo.inputs",
            )
        here, there = read[name], row[name]
        if here.ndim == there.ndim and here.shape != there.shape:
            here = unpadded(here, there) if here.numel() > there.numel() else here
        if here.shape != there.shape or here.dtype != there.dtype:
            raise DataError(
                f"input '{name}' of row {row_id} is {there.dtype} {tuple(there.shape)} in the dataset, and the reader "
                f"makes {here.dtype} {tuple(here.shape)} of it",
                where=spec.reader,
                fix="let the reader prepare rows as the dataset does",
            )
        if not torch.allclose(here.double(), there.double(), rtol=1e-3, atol=1e-4):
            at = int((here.double() - there.double()).abs().argmax())
            raise DataError(
                f"input '{name}' of row {row_id} is {float(there.reshape(-1)[at]):.4g} in the dataset, and the reader "
                f"makes {float(here.reshape(-1)[at]):.4g} of it (at place {at})",
                where=spec.reader,
                fix="let the reader prepare rows as the dataset does: the same columns, order, units and scales "
                "(ColumnsReader.fit keeps them together)",
            )
