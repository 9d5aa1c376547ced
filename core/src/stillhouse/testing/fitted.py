"""Whether means, scales and vocabularies were fitted on other rows than the training rows."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import torch

from stillhouse.errors import LeakageError
from stillhouse.plugins.registry import Component
from stillhouse.testing.own_files import files_of, matched
from stillhouse.testing.rows import few
from stillhouse.testing.workbench import Workbench
from stillhouse.types import Split, Splits

PLACES = 4096
"""Places of an input that are looked at; a larger one is looked at in as many, spread over it."""


def statistics(bench: Workbench, component: Component, splits: Splits) -> str:
    """What was looked at; raises LeakageError where statistics are those of other rows, too."""
    seen = [f"{len(splits.info.inputs)} inputs"] if _look_standardised(splits, component.spec.target) else []
    seen += ["made again with other test rows"] if _make_again(bench, component, splits) else []
    return ", ".join(seen)


def _look_standardised(splits: Splits, where: str) -> bool:
    """Nothing is standardised to the last digit over rows that training must not know."""
    looked = False
    others = {"all": ("val", "test"), "training and test": ("test",), "training and validation": ("val",)}
    for name, spec in splits.info.inputs.items():
        if not spec.dtype.startswith("float") or -1 in spec.shape or splits.train.stochastic:
            continue
        of = {split: values_of(each, name) for split, each in splits.named().items()}
        for which, more in others.items():
            whole = np.concatenate([of["train"], *(of[split] for split in more)])
            told = standardised(of["train"], whole) or _squeezed(of["train"], whole)
            if told:
                raise LeakageError(
                    f"input '{name}' {told} over {which} rows, and is not over the training rows alone",
                    where=where,
                    fix="fit means, scales and limits on training rows, and apply them to the others",
                )
        looked = True
    return looked


def values_of(split: Split, name: str) -> np.ndarray:
    """Values of an input as columns: of each place, or, for windows and images, of each channel."""
    rows = few(split, 20_000) if len(split) > 20_000 else split
    values = rows.columns([name])[name].double()
    if values.ndim == 3:  # [N, T, F]
        values = values.reshape(-1, values.shape[-1])
    elif values.ndim > 3:  # [N, C, ...]
        values = values.transpose(0, 1).reshape(values.shape[1], -1).T
    return np.asarray(values.reshape(len(values), -1)[:, :PLACES].numpy(), dtype=np.float64)


def standardised(train: np.ndarray, whole: np.ndarray) -> str:
    """How the columns of all rows together look standardised where those of the training rows do not; else empty."""
    varied = whole.std(axis=0) > 1e-9
    if not varied.any():
        return ""

    def exact(values: np.ndarray) -> np.ndarray:
        mean, std = values[:, varied].mean(axis=0), values[:, varied].std(axis=0)
        found: np.ndarray = (np.abs(mean) < 2e-5) & (np.abs(std - 1) < 1 / len(values) + 2e-5)
        return found

    of_whole, of_train = exact(whole), exact(train)
    if of_whole.mean() > 0.5 and (of_whole & ~of_train).mean() > 0.5:
        return "has mean 0 and standard deviation 1"
    return ""


def _squeezed(train: np.ndarray, whole: np.ndarray) -> str:
    low, high = whole.min(axis=0), whole.max(axis=0)
    # The minimum and maximum of a continuous column occur in one row each; those of pixels and shares occur in many.
    rare = ((whole == low).sum(axis=0) <= 2) & ((whole == high).sum(axis=0) <= 2) & (high > low)
    for bottom in (0.0, -1.0):
        exact = rare & (np.abs(low - bottom) < 1e-6) & (np.abs(high - 1) < 1e-6)
        inside = (train.min(axis=0) > low + 1e-6) | (train.max(axis=0) < high - 1e-6)
        if rare.any() and exact.sum() > rare.sum() / 2 and (exact & inside).any():
            return f"reaches from {bottom:g} to 1 exactly"
    return ""


def _make_again(bench: Workbench, component: Component, splits: Splits) -> bool:
    """Where the dataset is made of a CSV file that its reader reads as well: other numbers in the lines of test rows
    make the same training rows. False when there is no such file.

    Raises:
        LeakageError: they make others.
    """
    options = bench.usable(component)
    for option, path in files_of(bench, component).items():
        if path.suffix.lower() != ".csv" or splits.reader is None:
            continue
        found = matched(splits, path)
        if found is None:
            continue
        lines, of_row = found
        test = {position for position, split in of_row.items() if split == "test"}
        names = getattr(splits.reader, "columns", ())
        names = set(names) if isinstance(names, tuple | list) else set()
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.reader(file))
        header, body = table[0], table[1:]
        if not test or not names or len(body) != lines:
            continue
        with tempfile.TemporaryDirectory(prefix="stillhouse-") as folder:
            changed = Path(folder) / path.name
            for position in test:
                body[position] = [
                    _other(cell) if name in names else cell for name, cell in zip(header, body[position], strict=False)
                ]
            with changed.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([header, *body])
            again = bench.make(component, {**options, option: str(changed)}, again=True)
        if not torch.equal(again.train.index(), splits.train.index()):
            continue  # the split itself depends on the values, so that the rows cannot be compared
        if again.train.fingerprint() != splits.train.fingerprint():
            raise LeakageError(
                "the training rows are others when numbers of test rows are changed in the file",
                where=component.spec.target,
                fix="fit means, scales, limits and vocabularies on training rows alone",
            )
        return True
    return False


def _other(cell: str) -> str:
    try:
        value = float(cell)
    except ValueError:
        return cell
    return repr(1.5 * value + 1) if "." in cell else str(round(value))
