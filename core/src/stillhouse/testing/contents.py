"""Checks of what is in a dataset's rows: copies, answers among the inputs, targets that reach into the test; and, of
`fitted` and `serving`, statistics and readers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import LeakageError
from stillhouse.pipeline.leakage import copied_rows, left_open
from stillhouse.plugins.checks import Planned, label
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import DatasetSpec
from stillhouse.testing.fitted import PLACES, statistics
from stillhouse.testing.rows import few
from stillhouse.testing.serving import reader_rows
from stillhouse.testing.workbench import Workbench
from stillhouse.types import Splits

ROWS = 2000
"""Training rows that are searched for the answer."""
LEAST = 20
"""Rows below which a near equality can be chance."""
COLUMNS = 256
"""Places up to which an input is taken for a row of a table; a longer one is a signal."""
NEAR = 0.01
"""An input nearly equals the target when what is left of it is smaller than this share of the target's spread."""
NEAR_IN_TIME = 0.001
"""The same where rows follow each other in time, and a value may be close to the next one without any mistake."""
EXACT = 1e-6
"""The same for what equals the target."""
STEPS = 64
"""Rows ahead in which the target of a row is looked for among inputs."""


def plan_contents(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``copies``, ``target-leak``, ``statistics``, ``time-gap`` and, where there is a reader, ``reader-rows``."""
    where, spec = label(component), component.spec
    assert isinstance(spec, DatasetSpec)

    def splits() -> Splits:
        options = bench.usable(component)
        bench.require(component, "data", "disjoint")
        return bench.make(component, options)

    yield Planned(id=f"copies[{where}]", verify=lambda: _copies(splits(), spec))
    yield Planned(id=f"target-leak[{where}]", verify=lambda: _target_leak(splits(), spec))
    yield Planned(id=f"statistics[{where}]", verify=lambda: statistics(bench, component, splits()))
    yield Planned(id=f"time-gap[{where}]", verify=lambda: _time_gap(splits(), spec))
    if spec.reader:
        yield Planned(id=f"reader-rows[{where}]", verify=lambda: reader_rows(bench, component, splits()))


def _copies(splits: Splits, spec: DatasetSpec) -> str:
    found = copied_rows(splits)
    for each in found:
        if each.are_too_many:
            raise LeakageError(
                f"{each}; of the training rows {each.twins:.1%} have a twin",
                where=spec.target,
                fix="drop repeated rows before the split, and split before rows are oversampled or cut into windows",
            )
    return "; ".join(map(str, found))


def _target_leak(splits: Splits, spec: DatasetSpec) -> str:
    rows = few(splits.train, ROWS)
    if len(rows) < LEAST:
        return f"fewer than {LEAST} training rows: not looked for"
    columns = rows.columns([*splits.info.inputs, "target"])
    target = columns["target"]
    for name in splits.info.inputs:
        input_ = columns[name]
        shape = tuple(input_.shape[1:])
        several = input_[0].numel() > 1
        if several and not input_.is_floating_point():
            continue  # tokens: a word may well tell the answer of every row in a small sample
        near = NEAR if splits.train.times is None else NEAR_IN_TIME
        if several and (len(shape) != 1 or shape[0] > COLUMNS):
            near = EXACT  # of many places of a signal or an image, one comes near by chance
        if target.ndim > 2 or (target.ndim == 2 and not target.is_floating_point() and target.shape[1:] == shape):
            # A target for each place: compared with each channel that has as many places.
            pairs = [
                (channel.reshape(-1, 1), target.reshape(-1), f"input '{name}'")
                for channel in (input_, *(input_.unbind(1) if input_.ndim == target.ndim + 1 else ()))
                if channel.shape == target.shape
            ]
        else:
            values = target.reshape(len(target), -1)
            pairs = [(input_.reshape(len(input_), -1), each, f"input '{name}'") for each in values.T[:PLACES]]
        for places, wanted, what in pairs:
            found = _answer(places, wanted, near)
            if found is None:
                continue
            place, rest = found
            at = f" at {[int(each) for each in np.unravel_index(place, shape)]}" if places.shape[1] > 1 else ""
            equal = "is the target" if rest < EXACT else f"is the target but for {rest:.2%} of its spread"
            raise LeakageError(
                f"{what}{at} {equal}, up to scale and shift",
                where=spec.target,
                fix="take it out of the inputs: it is not known when a prediction is wanted",
            )
    return f"{len(rows)} rows"


def _answer(places: Tensor, target: Tensor, near: float) -> tuple[int, float] | None:
    """The first place that gives the target away, and what share of the spread is left; None when no place does.

    See `stillhouse.pipeline.leakage.left_open`.
    """
    chosen = torch.arange(0, places.shape[1], max(places.shape[1] // PLACES, 1))
    left = np.nan_to_num(left_open(places[:, chosen].double().numpy(), target), nan=1.0)
    place = int(left.argmin())
    return (int(chosen[place]), float(left[place])) if left[place] <= near else None


def _time_gap(splits: Splits, spec: DatasetSpec) -> str:
    train, test = splits.train, splits.test
    if train.times is None or test.times is None:
        return "not split by time"
    if train.until is not None:
        return "declared by 'until'"  # and held against the test by check_splits
    horizon = _horizon(splits)
    if horizon is None:
        return "no target is found among later inputs"
    steps, step = horizon
    timed = {name: split.times for name, split in splits.named().items() if split.times is not None}
    for before, after in (("train", "val"), ("train", "test"), ("val", "test")):
        if before not in timed or after not in timed:
            continue
        last, first = max(timed[before]), min(timed[after])
        reach = last + steps * step
        if last < first and reach > first + 1e-9 * max(abs(first), 1.0):
            raise LeakageError(
                f"the target of a row is an input {steps} rows later: that of the last row of split '{before}' is of "
                f"{reach:g}, and split '{after}' begins at {first:g}",
                where=spec.target,
                fix=f"leave out the last {steps - 1} rows of '{before}' (a purge gap), and give TensorSplit(until=...) "
                "the time of each target",
            )
    return f"targets are known {steps} rows later"


def _horizon(splits: Splits) -> tuple[int, float] | None:
    """After how many rows the target of a row is found among inputs, and the time between two rows; None when not."""
    train = splits.train
    assert train.times is not None
    times = np.asarray(train.times, dtype=float)
    positions = np.argsort(times, kind="stable")[-ROWS:]
    if train.groups is not None:  # rows of one machine or series follow each other
        groups = np.asarray(train.groups)[positions]
        names, counts = np.unique(groups, return_counts=True)
        positions = positions[groups == names[counts.argmax()]]
    if len(positions) < LEAST:
        return None
    batch = train.batch(positions.tolist())
    target = batch["target"]
    steps = np.diff(times[positions])
    if not target.is_floating_point() or not (steps > 0).any():
        return None
    inputs = [
        batch[name].reshape(len(positions), -1)
        for name, spec in splits.info.inputs.items()
        if spec.dtype.startswith("float")
    ]
    values = target.reshape(len(target), -1)[:, -1]  # of several steps, the one furthest ahead
    for ahead in range(min(STEPS, len(positions) - LEAST) + 1):
        kept = len(positions) - ahead
        if any(_answer(each[ahead:], values[:kept], NEAR_IN_TIME) is not None for each in inputs):
            return ahead, float(np.median(steps[steps > 0]))
    return None
