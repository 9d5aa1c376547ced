"""Augmenters: rows without labels, made from training rows, of which only the teacher speaks.

All of them change floating-point inputs only. Inputs of integers or truth values (tokens, categories, masks) are never
perturbed: they are copied from one training row, all together, so that tokens and their mask stay in step. Entries of a
row that are no inputs are copied from the same row.

Rows are made when they are asked for, from the numbers that were drawn for each, so that images and sounds need no
memory beyond the training rows; a run keeps small ones.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stillhouse.types import Augmenter, Batch, DataInfo, Split

SAMPLE = 20_000
"""Training rows, at most, from which spreads and distinct values are taken."""
VALUES = 40_000_000
"""Values, at most, of such a sample."""
REFERENCES = 10_000
"""Training rows, at most, among which a neighbour is looked for."""
PROJECTED = 32
"""Dimensions, at most, in which neighbours are looked for; more are projected at random."""
LEVELS = 20
"""A column with at most so many distinct values is discrete."""
CHUNK = 1024


def munge(*, p: float = 0.5, s: float = 1.0, neighbours: int = 5, channels_first: bool = False) -> Augmenter:
    """MUNGE (Bucila, Caruana and Niculescu-Mizil 2006, "Model compression", section 2.3): each training row, some of
    its values replaced by ones near those of a neighbour.

    With probability ``p`` a value ``a`` is replaced: by a draw from ``N(b, |a - b| / s)`` where ``b`` is the
    neighbour's, or by ``b`` itself where the column is discrete (0/1, or few distinct values), so that no value comes
    up that training rows do not have. What is replaced at once is a column of an input ``[D]``; a channel of a window
    ``[T, C]``, over its whole length and with one draw, so that its course over time stays one; all of an input with
    more axes. Inputs that are no floating-point numbers are exchanged together, with the same probability. A raw signal
    ``[T]`` is a row of columns here: use ``core/jitter`` or ``core/mixup`` for one.

    Neighbours are the nearest by standardised floating-point inputs among at most 10,000 training rows drawn at random,
    in at most 32 dimensions (a random projection where there are more). Values that are not numbers are exchanged.

    Args:
        p: probability that a value is replaced, in (0, 1].
        s: local variance: the larger, the closer to the neighbour's value; above 0.
        neighbours: the partner is drawn among so many nearest rows; 1 is the paper's.
        channels_first: windows are ``[C, T]``, not ``[T, C]``.

    Returns:
        the augmenter.

    Raises:
        ValueError: an option is out of range.
    """
    _require("p", p, 0 < p <= 1, "in (0, 1]")
    _require("s", s, s > 0, "above 0")
    _require("neighbours", neighbours, neighbours >= 1, "at least 1")

    def augmenter(train: Split, info: DataInfo, count: int, seed: int) -> Split:
        random = np.random.default_rng(seed)
        columns = _columns(train, info, channels_first, random)
        base = _bases(len(train), count, random)
        partner = _neighbours(train, columns, neighbours, random)[base, random.integers(0, neighbours, count)]
        return _Munged(train, columns, base, partner, seed=seed, settings={"p": p, "s": s})

    return augmenter


def mixup(*, alpha: float = 1.0) -> Augmenter:
    """Convex combinations of two training rows (mixup, Zhang et al. 2018, without its mixed labels).

    ``lambda * x_1 + (1 - lambda) * x_2`` for all floating-point inputs, two rows drawn at random and ``lambda`` from
    ``Beta(alpha, alpha)``. Everything else is copied from the row with the larger share. Discrete columns get values
    between those of training rows: the teacher has to make sense of them; ``core/munge`` leaves them as they are.

    Args:
        alpha: of the Beta distribution, above 0: 1 draws all shares alike, less keeps near one of the rows.

    Returns:
        the augmenter.

    Raises:
        ValueError: ``alpha`` is not above 0.
    """
    _require("alpha", alpha, alpha > 0, "above 0")

    def augmenter(train: Split, info: DataInfo, count: int, seed: int) -> Split:
        random = np.random.default_rng(seed)
        one, other = random.integers(0, len(train), (2, count))
        # Beta(1, 1) is the uniform distribution.
        drawn = random.uniform(0, 1, count) if alpha == 1 else random.beta(alpha, alpha, count)
        return _Mixed(train, info, one, other, torch.from_numpy(drawn.astype(np.float32)))

    return augmenter


def jitter(*, noise: float = 0.1, scale: float = 0.0, shift: float = 0.0, channels_first: bool = False) -> Augmenter:
    """Training rows with noise: each floating-point value plus ``N(0, noise * sd)``, where ``sd`` is the standard
    deviation of its column (input ``[D]``), channel (window ``[T, C]``) or input (more axes) over training rows.

    Discrete columns (0/1, or few distinct values) and inputs that are no floating-point numbers stay as they are.

    Args:
        noise: of each value, relative to the standard deviation.
        scale: standard deviation of a factor around 1 by which each channel of a window, or each input of more axes, is
            multiplied.
        shift: largest share of its length by which a window is moved in time, its first or last step repeated.
        channels_first: windows are ``[C, T]``, not ``[T, C]``.

    Returns:
        the augmenter.

    Raises:
        ValueError: an option is out of range, or all are 0.
    """
    for name, value in (("noise", noise), ("scale", scale)):
        _require(name, value, value >= 0, "at least 0")
    _require("shift", shift, 0 <= shift < 1, "in [0, 1)")
    _require("noise, scale and shift", 0, noise + scale + shift > 0, "not all 0")

    def augmenter(train: Split, info: DataInfo, count: int, seed: int) -> Split:
        random = np.random.default_rng(seed)
        columns = _columns(train, info, channels_first, random)
        base = _bases(len(train), count, random)
        settings = {"noise": noise, "scale": scale, "shift": shift}
        return _Jittered(train, columns, base, base, seed=seed, settings=settings)

    return augmenter


def _require(name: str, value: float, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}, and must be {what}")


@dataclass(frozen=True)
class _Column:
    """A floating-point input and what is changed at once in it.

    Attributes:
        shape: of one row's draws, so that they broadcast against the input: ``[D]``, ``[1, C]``, ``[C, 1]`` or ones.
        time: axis of time in a batch of windows; None for everything else.
        std: standard deviation ``[*shape]``.
        discrete: has few distinct values ``[*shape]``, bool.
    """

    shape: tuple[int, ...]
    time: int | None
    std: Tensor
    discrete: Tensor


def _columns(train: Split, info: DataInfo, channels_first: bool, random: np.random.Generator) -> dict[str, _Column]:
    """What is changed at once in each floating-point input, measured on a sample of training rows."""
    names = [name for name, spec in info.inputs.items() if spec.dtype.startswith("float")]
    first = train.row(0)
    room = VALUES // max(1, sum(first[name].numel() for name in names))
    size = min(len(train), SAMPLE, max(room, 2 * LEVELS))
    chosen = np.sort(random.choice(len(train), size, replace=False)).tolist()
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for at in range(0, size, CHUNK):
        batch = train.batch(chosen[at : at + CHUNK])
        for name in names:
            parts[name].append(batch[name])
    levels = min(LEVELS, max(2, size // 10))  # of few rows, few are distinct anyway
    return {name: _column(torch.cat(parts[name]), channels_first, levels) for name in names}


def _column(values: Tensor, channels_first: bool, levels: int) -> _Column:
    axes = values.ndim - 1
    shape: tuple[int, ...] = (1,) * axes
    time: int | None = None
    if axes == 1:
        table, shape = values, (values.shape[1],)
    elif axes == 2:
        table = (values if not channels_first else values.transpose(1, 2)).flatten(0, 1)
        shape = (values.shape[1], 1) if channels_first else (1, values.shape[2])
        time = 2 if channels_first else 1
    else:
        table = values.flatten()[:, None]
    table = table.double()
    known = ~table.isnan()
    number = known.sum(0).clamp(min=1)
    filled = torch.where(known, table, 0.0)
    mean = filled.sum(0) / number
    std = (torch.where(known, table - mean, 0.0).square().sum(0) / number).sqrt()
    discrete = torch.tensor([len(torch.unique(column[known[:, at]])) <= levels for at, column in enumerate(table.T)])
    if axes > 2:  # an image of few grey levels is still a picture
        discrete[:] = False
    return _Column(shape, time, std.float().reshape(shape), discrete.reshape(shape))


def _bases(length: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Which training row each extra row starts from: all of them equally often, the remainder drawn at random."""
    rest = random.permutation(length)[: count % length]
    return np.concatenate([np.tile(np.arange(length), count // length), rest])


def _neighbours(train: Split, columns: Mapping[str, _Column], count: int, random: np.random.Generator) -> np.ndarray:
    """The nearest training rows of each ``[N, count]``, itself excluded; the row itself where there is no other."""
    from sklearn.neighbors import NearestNeighbors

    features = _features(train, columns, random)
    length = len(features)
    references = np.sort(random.choice(length, min(length, REFERENCES), replace=False))
    wanted = min(count + 1, len(references))
    search = NearestNeighbors(n_neighbors=wanted).fit(features[references])
    found = np.empty((length, count), dtype=np.int64)
    for at in range(0, length, CHUNK):
        near = references[search.kneighbors(features[at : at + CHUNK], return_distance=False)]
        for row, candidates in enumerate(near, start=at):
            others = candidates[candidates != row]
            others = others if len(others) else candidates
            found[row] = np.resize(others[:count], count)
    return found


def _features(train: Split, columns: Mapping[str, _Column], random: np.random.Generator) -> np.ndarray:
    """Standardised floating-point inputs of all training rows, projected where there are many dimensions."""
    projections: dict[str, Tensor] = {}
    parts = []
    for at in range(0, len(train), CHUNK):
        batch = train.batch(range(at, min(at + CHUNK, len(train))))
        part = []
        for name, column in columns.items():
            std = torch.where(column.std > 0, column.std, 1.0)
            flat = (batch[name].float() / std).nan_to_num(0.0, 0.0, 0.0).flatten(1)
            if flat.shape[1] > PROJECTED:
                if name not in projections:
                    drawn = random.standard_normal((flat.shape[1], PROJECTED)).astype(np.float32)
                    projections[name] = torch.from_numpy(drawn) / PROJECTED**0.5
                flat = flat @ projections[name]
            part.append(flat)
        parts.append(torch.cat(part, dim=1))
    features: np.ndarray = torch.cat(parts).numpy()
    return features


class _FromPairs(Split, ABC):
    """Rows made from two training rows each (which may be one), when they are asked for."""

    def __init__(self, train: Split, base: np.ndarray, partner: np.ndarray, *, settings: Mapping[str, object]) -> None:
        self._train, self._base, self._partner, self._settings = train, base, partner, dict(settings)
        self.stochastic = train.stochastic

    def __len__(self) -> int:
        return len(self._base)

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`."""
        return {name: column[0] for name, column in self.batch([position]).items()}

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split.batch`."""
        rows = np.asarray(positions, dtype=np.int64)
        base, partner = self._base[rows], self._partner[rows]
        one = self._train.batch(base.tolist())
        other = one if base is partner or np.array_equal(base, partner) else self._train.batch(partner.tolist())
        made = self._make(rows, one, other)
        return {name: column for name, column in made.items() if name not in ("target", "index")}

    def fingerprint(self) -> str:
        """Hash of the training rows, which of them were paired, and the settings."""
        digest = hashlib.sha256(f"{type(self).__name__}:{self._train.fingerprint()}:{self._settings}".encode())
        digest.update(self._base.tobytes() + self._partner.tobytes())
        return digest.hexdigest()

    @abstractmethod
    def _make(self, rows: np.ndarray, one: Batch, other: Batch) -> Batch:
        """The extra rows ``rows`` from their two training rows."""


class _ByColumn(_FromPairs):
    """Rows whose draws are made column by column, from a generator of each row's own."""

    def __init__(
        self,
        train: Split,
        columns: Mapping[str, _Column],
        base: np.ndarray,
        partner: np.ndarray,
        *,
        seed: int,
        settings: Mapping[str, float],
    ) -> None:
        super().__init__(train, base, partner, settings={**settings, "seed": seed})
        self._columns, self._seed, self._options = dict(columns), seed, settings

    def _draw(self, rows: np.ndarray, draw: Callable[[np.random.Generator], Sequence[np.ndarray]]) -> list[Tensor]:
        """What ``draw`` gives for each row, stacked: the same whichever rows are asked for with it."""
        drawn = [draw(np.random.default_rng([self._seed, int(row)])) for row in rows]
        return [torch.from_numpy(np.stack(each).astype(np.float32)) for each in zip(*drawn, strict=True)]


class _Munged(_ByColumn):
    def _make(self, rows: np.ndarray, one: Batch, other: Batch) -> Batch:
        p, s = self._options["p"], self._options["s"]
        shapes = [column.shape for column in self._columns.values()]

        def draw(random: np.random.Generator) -> list[np.ndarray]:
            whole = random.random(1)
            return [
                whole,
                *(each for shape in shapes for each in (random.random(shape), random.standard_normal(shape))),
            ]

        whole, *drawn = self._draw(rows, draw)
        exchanged = whole[:, 0] < p
        made = dict(one)
        for name, column in one.items():
            if name in other and name not in self._columns:
                made[name] = torch.where(_along(exchanged, column), other[name], column)
        for (name, spec), chance, normal in zip(self._columns.items(), drawn[::2], drawn[1::2], strict=True):
            a, b = one[name], other[name]
            near = b + normal.to(b.dtype) * (a - b) / s
            near = torch.where(spec.discrete | near.isnan(), b, near)
            made[name] = torch.where(chance < p, near, a)
        return made


class _Jittered(_ByColumn):
    def _make(self, rows: np.ndarray, one: Batch, other: Batch) -> Batch:
        made = dict(one)
        shapes = {name: tuple(one[name].shape[1:]) for name in self._columns}

        def draw(random: np.random.Generator) -> list[np.ndarray]:
            factors = [random.standard_normal(column.shape) for column in self._columns.values()]
            moved = random.uniform(-1, 1, 1)
            return [moved, *factors, *(random.standard_normal(shape) for shape in shapes.values())]

        moved, *drawn = self._draw(rows, draw)
        count = len(self._columns)
        for (name, spec), factor, normal in zip(self._columns.items(), drawn[:count], drawn[count:], strict=True):
            values = one[name]
            if len(spec.shape) > 1:
                values = torch.where(spec.discrete, values, values * (1 + self._options["scale"] * factor))
            values = values + torch.where(spec.discrete, 0.0, self._options["noise"] * spec.std * normal)
            if spec.time is not None and self._options["shift"] > 0:
                values = _shifted(values, moved[:, 0] * self._options["shift"], spec.time)
            made[name] = values.to(one[name].dtype)
        return made


def _shifted(values: Tensor, share: Tensor, time: int) -> Tensor:
    """Windows moved by a share of their length, their first or last step repeated."""
    length = values.shape[time]
    steps = torch.arange(length)[None] - (share * length).round().long()[:, None]
    shape = [len(values), 1, 1]
    shape[time] = length
    where = steps.clamp(0, length - 1).reshape(shape).expand_as(values)
    return values.gather(time, where)


def _along(rows: Tensor, column: Tensor) -> Tensor:
    """``rows`` ``[B]`` with as many axes as ``column`` ``[B, ...]``."""
    return rows.reshape(-1, *([1] * (column.ndim - 1)))


class _Mixed(_FromPairs):
    def __init__(self, train: Split, info: DataInfo, one: np.ndarray, other: np.ndarray, share: Tensor) -> None:
        super().__init__(train, one, other, settings={"share": hashlib.sha256(share.numpy().tobytes()).hexdigest()})
        self._share = share
        self._floats = [name for name, spec in info.inputs.items() if spec.dtype.startswith("float")]

    def _make(self, rows: np.ndarray, one: Batch, other: Batch) -> Batch:
        share = self._share[torch.from_numpy(rows)]
        made = {}
        for name, column in one.items():
            part = _along(share, column)
            if name in self._floats:
                made[name] = (part * column + (1 - part) * other[name]).to(column.dtype)
            else:
                made[name] = torch.where(part >= 0.5, column, other[name])
        return made
