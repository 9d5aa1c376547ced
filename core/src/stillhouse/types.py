"""What flows through a run: batches, outputs, splits of rows, the task they define, and the head that judges them."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from stillhouse.kinds import OutputKind

Batch = dict[str, Tensor]
"""Tensors by name, rows first: the model's inputs by argument name, ``target``, ``index`` (stable row id, int64), and
whatever else a head or an objective needs (``mask``, ``weight``, a day, a card)."""


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch.

    Attributes:
        prediction: ``[B, ...]``; see `stillhouse.kinds`.
        features: tapped features by module path.
        members: predictions of the members of an ensemble ``[M, B, ...]``; None for a single model.
    """

    prediction: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    members: Tensor | None = None


@dataclass(frozen=True)
class TensorSpec:
    """Shape (without the batch dimension; -1 is any length) and dtype name of one input, e.g. ``(30, 14),
    "float32"``."""

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, kw_only=True)
class DataInfo:
    """What is known of a dataset beyond its rows; JSON-ready, kept in the run folder.

    Args:
        inputs: the model inputs by argument name.
        classes: label names (classification, multilabel, segmentation); None for regression.
        unit: unit of the target, e.g. ``"cycles"``.
        target_mean: mean of the training target (regression).
        target_std: standard deviation of the training target (regression).
        class_counts: training rows per class (or positives per label), for class weights.
        description: one line on what the rows are, for the report.
        simulated: the rows come from a simulator.
        meta: whatever models or heads of the same plugin need (vocabulary sizes, caps, quantiles). ``persistence`` is
            the name of the row entry with the latest known value of a series, which `core/regression` compares with.
    """

    inputs: dict[str, TensorSpec]
    classes: tuple[str, ...] | None = None
    unit: str = ""
    target_mean: float = 0.0
    target_std: float = 1.0
    class_counts: tuple[int, ...] | None = None
    description: str = ""
    simulated: bool = False
    meta: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`, also after a trip through JSON."""
        given = dict(values)
        given["inputs"] = {
            name: TensorSpec(tuple(spec["shape"]), spec["dtype"]) for name, spec in given["inputs"].items()
        }
        for name in ("classes", "class_counts"):
            given[name] = tuple(given[name]) if given[name] is not None else None
        return cls(**given)


class Split(Dataset[dict[str, Tensor]], ABC):
    """Rows of one split. A subclass gives ``__len__``, ``row`` and ``fingerprint``; `TensorSplit` is the one to use
    when everything fits in memory.

    Attributes:
        groups: patient, machine, card or speaker of each row, for leakage checks and folds; None when rows stand alone.
        times: a number that orders rows in time, when the protocol splits by time; None otherwise.
        until: time of the last value that a row's inputs or target take in, on the scale of `times`: that of the
            target for a forecast, of the window's end for a window named after its beginning. No row may reach beyond
            the first row of a later split. None where that is the row's own time.
        lengths: length of each row where rows differ in length (texts): ``batch`` then pads to the longest row of the
            batch, and steps are made of rows of like lengths; None where all rows have one shape.
        auxiliary: whether each row only teaches: it was made beside the dataset's own, and validation and test have
            none of its kind, so that a search never judges by it; None where no row is.
        stochastic: ``row`` draws random augmentation, so that cached teacher outputs would be stale.
    """

    groups: Sequence[str] | None = None
    times: Sequence[float] | None = None
    until: Sequence[float] | None = None
    lengths: Sequence[int] | None = None
    auxiliary: Sequence[bool] | None = None
    stochastic: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, position: int) -> dict[str, Tensor]:
        """The row at ``position`` in [0, len), with ``target`` and ``index`` beside the inputs."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the content: equal for equal rows, different for any different value."""

    def plain(self) -> Split:
        """The same rows without random augmentation. Override where there is some: a search holds rows out only if
        they can be judged as they are."""
        return self

    def batch(self, positions: Sequence[int]) -> Batch:
        """The rows at ``positions`` stacked; override where gathering is faster than stacking."""
        collated: Batch = default_collate([self.row(int(position)) for position in positions])
        return collated

    def __getitem__(self, position: int | Sequence[int]) -> dict[str, Tensor]:
        """One row, or a batch when given a list of positions (how the loaders ask)."""
        return self.row(int(position)) if isinstance(position, int | np.integer) else self.batch(position)

    def index(self) -> Tensor:
        """Stable row ids ``[N]``, int64."""
        return torch.stack([self.row(position)["index"] for position in range(len(self))])

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """All rows as one batch, or only the entries ``names`` of it."""
        whole = self.batch(range(len(self)))
        return whole if names is None else {name: whole[name] for name in names}


class TensorSplit(Split):
    """Rows held in memory as equally long tensors.

    Args:
        columns: tensors with rows first; ``index`` is added (0, 1, ...) when missing.
        groups: see `Split`.
        times: see `Split`.
        until: see `Split`.
        auxiliary: see `Split`.

    Raises:
        ValueError: the columns differ in length.
    """

    def __init__(
        self,
        columns: Mapping[str, Tensor],
        *,
        groups: Sequence[str] | None = None,
        times: Sequence[float] | None = None,
        until: Sequence[float] | None = None,
        auxiliary: Sequence[bool] | None = None,
    ) -> None:
        self._columns = dict(columns)
        length = len(next(iter(self._columns.values())))
        self._columns.setdefault("index", torch.arange(length))
        lengths = {name: len(column) for name, column in self._columns.items()}
        for name, given in (("groups", groups), ("times", times), ("until", until), ("auxiliary", auxiliary)):
            if given is not None:
                lengths[name] = len(given)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"columns differ in length: {lengths}")
        self.groups, self.times, self.until, self.auxiliary = groups, times, until, auxiliary

    def __len__(self) -> int:
        return len(self._columns["index"])

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`."""
        return {name: column[position] for name, column in self._columns.items()}

    def batch(self, positions: Sequence[int]) -> Batch:
        """One gather per column."""
        if isinstance(positions, range) and positions == range(len(self)):
            return dict(self._columns)
        where = torch.as_tensor(positions, dtype=torch.int64)
        return {name: column[where] for name, column in self._columns.items()}

    def index(self) -> Tensor:
        """See `Split.index`."""
        return self._columns["index"]

    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes of all columns."""
        digest = hashlib.sha256()
        for name in sorted(self._columns):
            column = self._columns[name].contiguous()
            digest.update(f"{name}:{column.dtype}:{tuple(column.shape)};".encode())
            digest.update(column.numpy().tobytes())
        return digest.hexdigest()


class Reader(Protocol):
    """Turns a user's new file into rows a trained student understands; its state (scalers, vocabularies) is JSON."""

    def state(self) -> dict[str, Any]:
        """JSON-ready state from which `from_state` makes an equal reader."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""

    def read(self, path: Path) -> tuple[Split, dict[str, list[Any]]]:
        """Rows of the file (no ``target`` needed) and columns that identify each row in the output.

        Raises:
            DataError: the file cannot be used; the message names the row and the column.
        """


@runtime_checkable
class DescribingReader(Protocol):
    """A `Reader` that also goes the other way: from rows as models see them to words, for a language model or a
    person."""

    def describe(self, batch: Batch) -> list[dict[str, Any]]:
        """Each row as a mapping from names (of columns, ``text``) to values in the user's own units."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A dataset, split. ``unlabelled`` rows feed soft losses only; their ``target`` is ignored and may be absent."""

    info: DataInfo
    train: Split
    val: Split
    test: Split
    unlabelled: Split | None = None
    reader: Reader | None = None

    def named(self) -> dict[str, Split]:
        """The labelled splits by name, in order."""
        return {"train": self.train, "val": self.val, "test": self.test}


class Augmenter(Protocol):
    """Makes rows without labels from training rows; what the target of an `AugmenterSpec` returns."""

    def __call__(self, train: Split, info: DataInfo, count: int, seed: int) -> Split:
        """``count`` rows, the same ones for the same seed.

        They hold every input of ``info`` with its shape and dtype, and no ``target``; ``index`` is given by the
        framework. Rows may be made when they are asked for: the split is then lazy, and `Split.stochastic` where it
        draws anew each time.

        Args:
            train: the training rows; all that an augmenter sees of a dataset.
            info: what is known of them.
            count: rows wanted.
            seed: of everything random.

        Raises:
            StillhouseError: rows of that kind cannot be made of these.
        """
        ...


class AskedAugmenter(Augmenter, Protocol):
    """An `Augmenter` that asks somebody for the rows: a language model, a simulator. It may make fewer than ``count``,
    and since nobody knows where they come from, rows that are in the test or validation rows are left out."""

    def prepare(self, reader: Reader | None) -> None:
        """Called once before it makes rows.

        Args:
            reader: that of the dataset; it may put rows into words (`DescribingReader`), and words into rows.

        Raises:
            IncompatibleError: it cannot make rows of that dataset.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """What the rows cost: numbers by name (None where one is not known), kept as ``extra_rows.asked`` in the
        summary."""
        ...


@dataclass(frozen=True, kw_only=True)
class DataContext:
    """What the framework gives to a dataset.

    Args:
        root: folder of the dataset's official files, ``$STILLHOUSE_DATA/<plugin>/<dataset>``; need not exist.
        base: folder that relative paths of the user are relative to (the recipe's own, or the working directory).
        seed: seed of everything random in making and splitting the rows.
        download: downloading is allowed.
    """

    root: Path
    base: Path
    seed: int = 0
    download: bool = True


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the framework gives to a model: the inputs, and the width and kind of the prediction it must return.

    Args:
        info: the dataset's shapes and statistics.
        kind: of the prediction.
        outputs: width of the prediction (classes, labels, values).
        seed: of the weights.
        pretrained: False when saved weights follow at once, so that a model need not fetch those it starts from.
    """

    info: DataInfo
    kind: OutputKind
    outputs: int
    seed: int = 0
    pretrained: bool = True

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """The model inputs by argument name."""
        return self.info.inputs


class Head(ABC):
    """What a task means. Predictions and targets have the shapes of `stillhouse.kinds`.

    Attributes:
        kind: the output kind.
        outputs: width of the prediction (classes, labels, values).
        primary: name of the primary metric, one of those that `evaluate` returns.
        higher_is_better: direction of the primary metric.
        bounds: least and greatest value that it can have, where intervals end. A class that names another primary
            metric than the one it inherits from has none unless it says so.
    """

    kind: OutputKind
    outputs: int
    primary: str
    higher_is_better: bool
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "primary" in cls.__dict__ and "bounds" not in cls.__dict__:
            cls.bounds = (-math.inf, math.inf)

    @abstractmethod
    def hard_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mean loss against ``batch["target"]``, a scalar."""

    @abstractmethod
    def evaluate(self, prediction: Tensor, rows: Batch) -> dict[str, float]:
        """Metrics of a whole split from its predictions (float32, on the CPU) and its row entries other than inputs."""

    @abstractmethod
    def decode(self, prediction: Tensor) -> dict[str, list[Any]]:
        """The prediction in the user's words or units: columns of equal length, e.g. ``{"rul": [...]}``."""

    def answer(self, prediction: Tensor, batch: Batch, model: nn.Module) -> Tensor:
        """What is kept of a batch's prediction to be judged and decoded: the prediction itself by default. A head whose
        predictions are too large to keep for a whole split, or that asks the model for more (a text that it writes),
        gives a smaller tensor of one width for all batches, which `evaluate` and `decode` then take.

        Args:
            prediction: of the batch.
            batch: the rows; without ``target`` where a user's new rows are predicted.
            model: the network that made it, in eval mode.
        """
        return prediction

    @property
    def keeps_answers(self) -> bool:
        """`answer` gives something else than the prediction, so that there is no mean of several models."""
        return type(self).answer is not Head.answer

    def output_layer(self, width: int) -> nn.Module:
        """The layer that turns a backbone's ``width`` features into the prediction."""
        return nn.Linear(width, self.outputs)

    def row_entries(self) -> Sequence[str]:
        """Batch entries beside ``target`` and ``index`` that `evaluate` reads; kept with the predictions."""
        return ()

    def references(self, rows: Batch) -> dict[str, Tensor]:
        """Predictions that need no training, by name, to read the others against (persistence, the mean); optional."""
        return {}

    def figures(self, predictions: Mapping[str, Tensor], rows: Batch) -> list[ReportFigure]:
        """Extra figures of the report, from test predictions by model name (teacher, baseline, student)."""
        return []


@dataclass(frozen=True)
class ReportFigure:
    """A figure for the report: a matplotlib figure, a title, and a caption that says how to read it."""

    figure: Any
    title: str
    caption: str


@runtime_checkable
class Estimator(Protocol):
    """A model in scikit-learn's manner."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Any:
        """Fit on features ``[N, F]`` and targets ``[N]`` or ``[N, D]``."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Targets for features ``[N, F]``."""


SOFTENED = "softened_by_"
"""Attribute of a fitted `Estimator` that learned probabilities at a temperature T, as both sides of equation (2) are:
what it computes are answers at T, and those at 1, which a run has of it, are their T-th powers, normalised."""


def at_one(estimator: Any, probabilities: np.ndarray) -> np.ndarray:
    """Probabilities ``[..., C]`` that an estimator computed, at temperature 1 whatever it learned at (`SOFTENED`)."""
    powers = probabilities ** float(getattr(estimator, SOFTENED, 1.0))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


@runtime_checkable
class Writer(Protocol):
    """A model that writes texts, which heads judge and methods learn from: what those with the tag ``writes`` are."""

    def generate(
        self,
        source: Tensor,
        source_mask: Tensor,
        *,
        max_tokens: int,
        beams: int = 1,
        sample: bool = False,
        temperature: float = 1.0,
    ) -> Tensor:
        """Ids of the texts ``[B, max_tokens]`` that it writes after those that it reads, ``source`` ``[B, S]`` where
        ``source_mask`` says so; see `stillhouse.text.generators.TextWriter.generate`."""


class SubsetSplit(Split):
    """Some rows of another split.

    Args:
        whole: the other split.
        positions: positions in it, in the wanted order.
    """

    def __init__(self, whole: Split, positions: Sequence[int]) -> None:
        self._whole, self._positions = whole, [int(position) for position in positions]
        self.stochastic = whole.stochastic
        self.groups = None if whole.groups is None else [whole.groups[position] for position in self._positions]
        self.times = None if whole.times is None else [whole.times[position] for position in self._positions]
        self.until = None if whole.until is None else [whole.until[position] for position in self._positions]
        self.lengths = None if whole.lengths is None else [whole.lengths[position] for position in self._positions]
        marks = whole.auxiliary
        self.auxiliary = None if marks is None else [marks[position] for position in self._positions]

    def __len__(self) -> int:
        return len(self._positions)

    def plain(self) -> Split:
        """See `Split.plain`."""
        return SubsetSplit(self._whole.plain(), self._positions) if self.stochastic else self

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`."""
        return self._whole.row(self._positions[position])

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split.batch`."""
        return self._whole.batch([self._positions[position] for position in positions])

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """See `Split.columns`."""
        if names is None or self.lengths is None:
            return super().columns(names)
        where = torch.tensor(self._positions, dtype=torch.int64)
        return {name: column[where] for name, column in self._whole.columns(names).items()}

    def index(self) -> Tensor:
        """See `Split.index`."""
        return self._whole.index()[torch.tensor(self._positions, dtype=torch.int64)]

    def fingerprint(self) -> str:
        """The whole's fingerprint and the positions."""
        return hashlib.sha256(f"{self._whole.fingerprint()}:{self._positions}".encode()).hexdigest()


class ConcatSplit(Split):
    """Rows of several splits, one behind the other, with the entries that all of them have.

    Args:
        parts: splits with the same inputs; groups, times and until are kept where all have them.
    """

    def __init__(self, parts: Sequence[Split]) -> None:
        self._parts = tuple(parts)
        self._starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
        self._entries = [name for name in parts[0].row(0) if all(name in part.row(0) for part in parts)]
        self.stochastic = any(part.stochastic for part in parts)
        groups, times = [part.groups for part in parts], [part.times for part in parts]
        self.groups = [name for each in groups if each is not None for name in each] if None not in groups else None
        self.times = [time for each in times if each is not None for time in each] if None not in times else None
        until = [part.until for part in parts]
        self.until = [time for each in until if each is not None for time in each] if None not in until else None
        if any(part.lengths is not None for part in parts):
            self.lengths = [length for part in parts for length in part.lengths or ()]
        if any(part.auxiliary is not None for part in parts):
            self.auxiliary = [mark for part in parts for mark in part.auxiliary or [False] * len(part)]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def plain(self) -> Split:
        """See `Split.plain`."""
        return ConcatSplit([part.plain() for part in self._parts]) if self.stochastic else self

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`."""
        return {name: column[0] for name, column in self.batch([position]).items()}

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split.batch`; one gather from each part."""
        where = torch.as_tensor(positions, dtype=torch.int64)
        owner = torch.bucketize(where, self._starts[1:], right=True)
        chosen = [torch.nonzero(owner == number).flatten() for number in range(len(self._parts))]
        batches = [
            part.batch((where[at] - start).tolist())
            for part, at, start in zip(self._parts, chosen, self._starts, strict=False)
            if len(at)
        ]
        back = torch.argsort(torch.cat(chosen))
        return {name: joined([batch[name] for batch in batches])[back] for name in self._entries}

    def index(self) -> Tensor:
        """See `Split.index`."""
        return torch.cat([part.index() for part in self._parts])

    def fingerprint(self) -> str:
        """The fingerprints of the parts, in order."""
        return hashlib.sha256(":".join(part.fingerprint() for part in self._parts).encode()).hexdigest()


def joined(entries: Sequence[Tensor]) -> Tensor:
    """Rows of several batches behind each other; where rows differ in length, padded with zeros to the longest. So is a
    padding mask, which therefore leaves them out."""
    longest = max((entry.shape[1] for entry in entries if entry.ndim > 1), default=0)
    return torch.cat(
        [
            entry
            if entry.ndim < 2 or entry.shape[1] == longest
            else torch.cat([entry, entry.new_zeros(len(entry), longest - entry.shape[1], *entry.shape[2:])], dim=1)
            for entry in entries
        ]
    )
