"""Checks that make a dataset and look at its rows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import torch

from stillhouse.errors import DataError, LeakageError, PluginError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.data import check_splits, target_problem
from stillhouse.plugins.checks import Planned, label
from stillhouse.plugins.registry import Component
from stillhouse.plugins.spec import load_target
from stillhouse.plugins.specs import DatasetSpec
from stillhouse.testing.contents import plan_contents
from stillhouse.testing.rows import unpadded
from stillhouse.testing.workbench import Workbench
from stillhouse.types import DataInfo, Split, Splits

LOOKED_AT = 4
"""Rows of each split that are compared one by one with the same rows in a batch."""


def plan_dataset(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``data``, ``disjoint``, ``same-seed``, ``reader`` where there is one; then those of `plan_contents`."""
    where = label(component)
    spec = component.spec
    assert isinstance(spec, DatasetSpec)
    yield Planned(id=f"data[{where}]", verify=lambda: _data(bench, component, spec))
    yield Planned(id=f"disjoint[{where}]", verify=lambda: _disjoint(bench, component))
    yield Planned(id=f"same-seed[{where}]", verify=lambda: _same_seed(bench, component))
    if spec.reader:
        yield Planned(id=f"reader[{where}]", verify=lambda: _reader(bench, component, spec))
    yield from plan_contents(bench, component)


def _data(bench: Workbench, component: Component, spec: DatasetSpec) -> str:
    splits = bench.make(component, bench.usable(component))
    if not isinstance(splits, Splits):
        raise PluginError(
            f"the target returned {type(splits).__name__}, not Splits",
            where=spec.target,
            fix="return stillhouse.types.Splits(info=..., train=..., val=..., test=...)",
        )
    with contextlib.suppress(LeakageError):  # reported by the check 'disjoint'
        check_splits(splits, name=component.id)
    if spec.simulated and not splits.info.simulated:  # the other way round, real files may just not be here
        raise DataError(
            "DataInfo.simulated is False, and the spec says simulated=True",
            where=spec.target,
            fix="set it: summaries and reports tell users what DataInfo says",
        )
    if splits.reader is not None and not spec.reader:
        raise DataError(
            f"Splits.reader is {type(splits.reader).__name__}, and the spec names no reader, which predictions need",
            where=spec.target,
            fix=f"DatasetSpec(reader='{type(splits.reader).__module__}:{type(splits.reader).__name__}')",
        )
    for name, split in splits.named().items():
        _targets(splits.info, split, spec, f"split '{name}' of '{component.id}'")
    if DataInfo.from_json(json.loads(json.dumps(splits.info.to_json()))) != splits.info:
        raise DataError(
            "DataInfo is another one after a trip through JSON, as it is kept in run folders: " + _changed(splits.info),
            where=spec.target,
            fix="put plain finite values in it: strings, numbers, booleans, lists, and dicts with string keys",
        )
    for name, split in splits.named().items():
        _rows(splits, split, f"split '{name}' of '{component.id}'")
    return ", ".join(f"{len(split)} {name}" for name, split in splits.named().items())


def _changed(info: DataInfo) -> str:
    again = DataInfo.from_json(json.loads(json.dumps(info.to_json())))
    return ", ".join(name for name, value in vars(info).items() if getattr(again, name) != value)


def _targets(info: DataInfo, split: Split, spec: DatasetSpec, where: str) -> None:
    """Targets are what one of the dataset's output kinds takes, and finite."""
    columns = split.columns(["target", "index"])
    target = columns["target"]
    if len(target) != len(split):
        raise DataError(
            f"{len(split)} rows have {len(target)} targets", where=where, fix="give one target for each row"
        )
    if target.is_floating_point():
        bad = ~torch.isfinite(target).reshape(len(target), -1).all(dim=1)
        if bool(bad.any()):
            at = int(torch.nonzero(bad)[0])
            raise DataError(
                f"the target of row {int(columns['index'][at])} is {target[at].tolist()} ({int(bad.sum())} such rows)",
                where=where,
                fix="drop rows without a label, or give them as Splits(unlabelled=...)",
            )
    problems = [target_problem(OutputKind(kind), target, info) for kind in spec.kinds]
    if problems and all(problems):
        raise DataError(
            problems[0],
            where=where,
            fix="give targets as the table of stillhouse.kinds says, or correct DatasetSpec.kinds",
        )


def _rows(splits: Splits, split: Split, where: str) -> None:
    positions = sorted({0, len(split) // 3, len(split) // 2, len(split) - 1})[:LOOKED_AT]
    batch = split.batch(positions)
    ids = split.index()
    for at, position in enumerate(positions):
        row = split.row(position)
        if set(row) != set(batch):
            raise DataError(
                f"a row has the entries {sorted(row)}, a batch has {sorted(batch)}",
                where=where,
                fix="let row() and batch() give the same entries",
            )
        if int(row["index"]) != int(ids[position]) or int(batch["index"][at]) != int(ids[position]):
            raise DataError(
                f"row {position} has the id {int(row['index'])}, and index() says {int(ids[position])}",
                where=where,
                fix="let row(), batch() and index() agree",
            )
        for name in splits.info.inputs:
            if not split.stochastic and not torch.equal(row[name], unpadded(batch[name][at], row[name])):
                raise DataError(
                    f"input '{name}' of row {position} differs from the same row in a batch",
                    where=where,
                    fix="let row() and batch() give the same values, or set stochastic = True for augmentation",
                )
            if row[name].is_floating_point() and not bool(torch.isfinite(row[name]).all()):
                raise DataError(
                    f"input '{name}' of row {position} holds NaN or infinity",
                    where=where,
                    fix="fill or drop missing values when the data are read",
                )


def _disjoint(bench: Workbench, component: Component) -> str:
    options = bench.usable(component)
    bench.require(component, "data")
    splits = bench.make(component, options)
    check_splits(splits, name=component.id)
    groups = [split for split in splits.named().values() if split.groups is not None]
    times = splits.train.times is not None and splits.test.times is not None
    return ", ".join(["row ids", *(["groups"] if len(groups) > 1 else []), *(["times"] if times else [])])


def _same_seed(bench: Workbench, component: Component) -> None:
    options = bench.usable(component)
    bench.require(component, "data")
    first, again = bench.make(component, options), bench.make(component, options, again=True)
    for name, split in first.named().items():
        other = again.named()[name]
        if not torch.equal(split.index(), other.index()):
            what = "row ids"
        elif split.fingerprint() != other.fingerprint():
            what = "rows"
        else:
            continue
        raise DataError(
            f"the {what} of split '{name}' differ when the dataset is made again with the same seed",
            where=component.spec.target,
            fix="draw everything random from a generator seeded with context.seed, and sort what folders list",
        )


def _reader(bench: Workbench, component: Component, spec: DatasetSpec) -> None:
    options = bench.usable(component)
    bench.require(component, "data")
    splits = bench.make(component, options)
    reader, declared = splits.reader, load_target(spec.reader, who=component.id)
    missing = [name for name in ("read", "state", "from_state") if not callable(getattr(declared, name, None))]
    if missing:
        raise DataError(
            f"the reader {declared.__name__} lacks {', '.join(missing)}",
            where=spec.reader,
            fix="give it the three methods of stillhouse.types.Reader",
        )
    if not isinstance(reader, declared):
        raise DataError(
            f"the spec names the reader {declared.__name__}, and Splits.reader is {type(reader).__name__}",
            where=spec.target,
            fix="give Splits(reader=...) an object of that class, or correct the spec",
        )
    state = json.loads(json.dumps(reader.state()))
    if json.loads(json.dumps(declared.from_state(state).state())) != state:
        raise DataError(
            "a reader made from the state of another has a different state",
            where=spec.reader,
            fix="let from_state() restore all that state() gives",
        )
