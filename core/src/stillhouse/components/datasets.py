"""A synthetic dataset for every output kind: small, seeded, in memory. For first runs, tests and
tutorials."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.splitting import split_rows
from stillhouse.errors import OptionError
from stillhouse.kinds import SEGMENTATION_IGNORE, SEQUENCE_IGNORE
from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit

LATENT = 4
CENTRES_PER_CLASS = 4
SIDE = 12
STEPS = 12

Array = np.ndarray


@dataclass(frozen=True)
class Rows:
    """Rows of one kind: inputs ``[N, ...]`` and targets, before they are split."""

    x: Array
    target: Array
    classes: tuple[str, ...] | None = None
    unit: str = ""


def synthetic(
    context: DataContext,
    *,
    kind: Literal[
        "multiclass", "binary", "multilabel", "regression", "gaussian", "segmentation", "sequence"
    ] = "multiclass",
    rows: int = 1500,
    features: int = 16,
    classes: int = 4,
    noise: float = 0.05,
    groups: int = 0,
    unlabelled: int = 0,
    times: bool = False,
    drift: float = 0.0,
) -> Splits:
    """Seeded rows whose target depends on the inputs in a way that takes a network of some width to learn.

    Rows lie around centres in a few hidden dimensions, mixed into ``features`` inputs; the target depends on
    the nearest centre. Segmentation has images of 12 x 12 with a bright shape per class; sequence has 12
    steps that emit hidden tokens. 60 % of the rows are for training, 15 % for validation, 25 % for test.

    Args:
        context: what the framework gives.
        kind: output kind of the target.
        rows: labelled rows over all splits.
        features: width of the input ``x``.
        classes: classes, labels or tokens (regression kinds ignore it).
        noise: share of wrong training, validation and test labels, or standard deviation of the noise on
            values.
        groups: number of groups that the rows belong to, each in one split only; 0 for rows that stand alone.
        unlabelled: further rows without a target, for soft losses only.
        times: rows have times: training rows first, then validation rows, then test rows.
        drift: in the middle of the training rows the rule changes, and stays so: the inputs ``x`` are turned by this
            share of half a turn in the planes of each two features. Rows then have times.

    Raises:
        OptionError: an option is out of range.
    """
    for name, value, least in (
        ("rows", rows, 40),
        ("features", features, LATENT),
        ("classes", classes, 2),
        ("groups", groups, 0),
        ("unlabelled", unlabelled, 0),
        ("noise", noise, 0),
        ("drift", drift, 0),
    ):
        if value < least:
            raise OptionError(f"{name} is {value}", where="dataset 'synthetic'", fix=f"a value from {least} upwards")
    if groups and groups < 10:
        raise OptionError(
            f"groups is {groups}",
            where="dataset 'synthetic'",
            fix="0, or at least 10, so that each split gets some",
        )
    rng = np.random.default_rng(context.seed)
    made = MAKERS[kind](rng, rows + unlabelled, features, classes, noise)
    x = torch.from_numpy(made.x.astype(np.float32))
    target = torch.from_numpy(made.target)
    group_of = rng.integers(0, groups, rows) if groups else np.arange(rows)
    # Whole groups go to a split, so the shares of rows are only about 60, 15 and 25 % when there are groups.
    splits: dict[str, TensorSplit] = {}
    now = 0
    for name, chosen in split_rows(groups or rows, {"train": 0.6, "val": 0.15}, rng, rest="test").items():
        where = np.flatnonzero(np.isin(group_of, chosen))
        inputs = x[where]
        if drift:
            after = len(where) // 2 if name == "train" else 0
            inputs = torch.cat([inputs[:after], turned(inputs[after:], drift * math.pi)])
        splits[name] = TensorSplit(
            {"x": inputs, "target": target[where], "index": torch.from_numpy(where)},
            groups=[f"group-{group}" for group in group_of[where]] if groups else None,
            times=[float(now + at) for at in range(len(where))] if times or drift else None,
        )
        now += len(where)
    extra = TensorSplit({"x": x[rows:], "index": torch.arange(rows, rows + unlabelled)}) if unlabelled else None
    return Splits(
        info=_info(kind, made, splits["train"]),
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        unlabelled=extra,
    )


def turned(x: Tensor, angle: float) -> Tensor:
    """Inputs ``[N, ..., F]`` turned by an angle in the planes of the first two features, of the next two, and so on."""
    pairs = x.shape[-1] // 2 * 2
    one, two = x[..., 0:pairs:2], x[..., 1:pairs:2]
    found = x.clone()
    found[..., 0:pairs:2] = math.cos(angle) * one - math.sin(angle) * two
    found[..., 1:pairs:2] = math.sin(angle) * one + math.cos(angle) * two
    return found


def _info(kind: str, made: Rows, train: TensorSplit) -> DataInfo:
    target = train.columns(["target"])["target"]
    mean, std, counts = 0.0, 1.0, None
    if kind in ("regression", "gaussian"):
        mean, std = float(target.mean()), float(target.std())
    elif made.classes is not None:
        counts = tuple(int(count) for count in _counts(kind, target, len(made.classes)))
    return DataInfo(
        inputs={"x": TensorSpec(tuple(made.x.shape[1:]))},
        classes=made.classes,
        unit=made.unit,
        target_mean=mean,
        target_std=std,
        class_counts=counts,
        description=f"Synthetic rows ({kind}), made by a seeded generator",
        simulated=True,
    )


def _counts(kind: str, target: Tensor, classes: int) -> Tensor:
    if kind == "multilabel":
        return target.sum(dim=0)
    return torch.stack([(target == each).sum() for each in range(classes)])


def _clusters(rng: np.random.Generator, rows: int, features: int, centres: int) -> tuple[Array, Array, Array]:
    """Inputs ``[N, features]``, the nearest centre ``[N]`` and hidden coordinates ``[N, LATENT]``."""
    centre = rng.normal(size=(centres, LATENT)) * 1.3
    hidden = rng.normal(size=(rows, LATENT)) * 1.4
    nearest = ((hidden[:, None] - centre[None]) ** 2).sum(axis=2).argmin(axis=1)
    mixing, _ = np.linalg.qr(rng.normal(size=(features, LATENT)))
    x = hidden @ mixing.T * np.sqrt(features / LATENT) + 0.15 * rng.normal(size=(rows, features))
    return x, nearest, hidden


def _names(word: str, number: int) -> tuple[str, ...]:
    return tuple(f"{word}-{each}" for each in range(number))


def _multiclass(rng: np.random.Generator, rows: int, features: int, classes: int, noise: float) -> Rows:
    x, nearest, _ = _clusters(rng, rows, features, classes * CENTRES_PER_CLASS)
    wrong = rng.random(rows) < noise
    target = np.where(wrong, rng.integers(0, classes, rows), nearest % classes)
    return Rows(x, target.astype(np.int64), _names("class", classes))


def _binary(rng: np.random.Generator, rows: int, features: int, classes: int, noise: float) -> Rows:
    x, nearest, _ = _clusters(rng, rows, features, 4 * CENTRES_PER_CLASS)
    wrong = rng.random(rows) < noise
    return Rows(x, ((nearest % 4 == 0) ^ wrong).astype(np.float32), ("no", "yes"))


def _multilabel(rng: np.random.Generator, rows: int, features: int, classes: int, noise: float) -> Rows:
    centres = 4 * CENTRES_PER_CLASS
    x, nearest, _ = _clusters(rng, rows, features, centres)
    has = rng.random((centres, classes)) < 0.35
    has[np.arange(classes) % centres, np.arange(classes)] = True  # every label belongs to a centre
    wrong = rng.random((rows, classes)) < noise
    return Rows(x, (has[nearest] ^ wrong).astype(np.float32), _names("label", classes))


def _values(rng: np.random.Generator, rows: int, features: int) -> tuple[Array, Array, Array]:
    x, nearest, hidden = _clusters(rng, rows, features, 4 * CENTRES_PER_CLASS)
    level = rng.normal(size=4 * CENTRES_PER_CLASS)
    smooth = np.sin(1.5 * hidden[:, 0]) * hidden[:, 1] + np.cos(hidden[:, 2] + hidden[:, 3])
    return x, 50 + 10 * (smooth + 0.5 * level[nearest]), hidden


def _regression(rng: np.random.Generator, rows: int, features: int, classes: int, noise: float) -> Rows:
    x, value, _ = _values(rng, rows, features)
    return Rows(x, (value + 10 * noise * rng.normal(size=rows)).astype(np.float32), unit="units")


def _gaussian(rng: np.random.Generator, rows: int, features: int, classes: int, noise: float) -> Rows:
    x, value, hidden = _values(rng, rows, features)
    spread = 10 * (noise + 0.3 / (1 + np.exp(-2 * hidden[:, 0])))  # the noise depends on the row
    return Rows(x, (value + spread * rng.normal(size=rows)).astype(np.float32), unit="units")


def _segmentation(rng: np.random.Generator, rows: int, features: int, classes: int, noise: float) -> Rows:
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    label = rng.integers(1, classes, rows)
    middle = rng.uniform(3, SIDE - 4, size=(rows, 2, 1, 1))
    distance = np.maximum(np.abs(across - middle[:, 0]), np.abs(down - middle[:, 1]))
    inside = distance <= rng.uniform(1.5, 3.5, size=(rows, 1, 1))
    brightness = inside * (0.5 + label[:, None, None] / classes)
    x = brightness[:, None] + (0.1 + noise) * rng.normal(size=(rows, 1, SIDE, SIDE))
    target = np.where(inside, label[:, None, None], 0)
    target[:, 0, :] = SEGMENTATION_IGNORE  # an unlabelled margin, as real masks have
    return Rows(x, target.astype(np.int64), ("background", *_names("shape", classes - 1)))


def _sequence(rng: np.random.Generator, rows: int, features: int, classes: int, noise: float) -> Rows:
    token = rng.integers(0, classes, size=(rows, STEPS))
    emission = rng.normal(size=(classes, features))
    # A step shows its own token weakly and the previous one too, so that context helps.
    previous = np.concatenate([token[:, :1], token[:, :-1]], axis=1)
    x = emission[token] + 0.7 * emission[previous] + (0.5 + noise) * rng.normal(size=(rows, STEPS, features))
    length = rng.integers(STEPS // 2, STEPS + 1, size=rows)
    target = np.where(np.arange(STEPS) < length[:, None], token, SEQUENCE_IGNORE)
    return Rows(x, target.astype(np.int64), _names("token", classes))


MAKERS: dict[str, Callable[[np.random.Generator, int, int, int, float], Rows]] = {
    "multiclass": _multiclass,
    "binary": _binary,
    "multilabel": _multilabel,
    "regression": _regression,
    "gaussian": _gaussian,
    "segmentation": _segmentation,
    "sequence": _sequence,
}
