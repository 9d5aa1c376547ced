"""From pairs of texts to a dataset for models that write: split, tokenized, with what is judged beside each row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.splitting import split_groups
from stillhouse.errors import DataError, OptionError
from stillhouse.kinds import SEQUENCE_IGNORE
from stillhouse.text.duplicates import near_duplicates, normalised
from stillhouse.text.ragged import Ragged
from stillhouse.text.reader import read_texts
from stillhouse.text.rows import TextSplit
from stillhouse.text.splits import FRACTIONS, token_facts
from stillhouse.text.tokenizer import TRAINED, Tokenizer
from stillhouse.types import Batch, DataInfo, Split, Splits, TensorSpec

NAMES = ("source", "source_mask")
"""Entries of the text that is read."""
INPUTS = {
    "source": TensorSpec((-1,), "int64"),
    "source_mask": TensorSpec((-1,), "bool"),
    "given": TensorSpec((-1,), "int64"),
}
"""Inputs of a model that writes: the text that is read and its mask ``[B, S]``, and what is written so far ``[B, L]``:
the start token, then the target but for its last token."""


def given_and_target(texts: Sequence[Sequence[int]], *, start: int, end: int, pad: int) -> dict[str, Ragged]:
    """``given`` and ``target`` of texts to be written, both ``[B, L]`` in a batch; behind the end of a row ``given`` is
    padding and ``target`` is -100.

    Args:
        texts: ids of each text, without special tokens.
        start: id that a text begins from.
        end: id that ends it.
        pad: id of padding.
    """
    return {
        "given": Ragged([[start, *text] for text in texts], fill=pad),
        "target": Ragged([[*text, end] for text in texts], fill=SEQUENCE_IGNORE),
    }


def text_bytes(texts: Sequence[str]) -> Ragged:
    """Texts as rows of UTF-8 bytes, so that they go with rows of tensors; see `texts_of`."""
    return Ragged([list(text.encode()) for text in texts], dtype=torch.uint8)


def texts_of(rows: Tensor) -> list[str]:
    """Inverse of `text_bytes`, of a batch ``[B, T]`` padded with zeros."""
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows.cpu().numpy().astype(np.uint8)]


class Rewritten(Split):
    """Rows of another split with other texts to be written: ``given`` and ``target`` are replaced.

    Args:
        whole: the other split.
        written: ids of the text of each of its rows, without special tokens.
        start: id that a text begins from.
        end: id that ends it.
        pad: id of padding.
    """

    def __init__(self, whole: Split, written: Sequence[Sequence[int]], *, start: int, end: int, pad: int) -> None:
        if len(whole) != len(written):
            raise ValueError(f"{len(written)} texts for {len(whole)} rows")
        self._whole, self._ragged = whole, given_and_target(written, start=start, end=end, pad=pad)
        self.groups, self.times, self.stochastic = whole.groups, whole.times, whole.stochastic
        if whole.lengths is not None:
            self.lengths = list(whole.lengths)

    def __len__(self) -> int:
        return len(self._whole)

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`."""
        return self._whole.row(position) | {name: each.row(position) for name, each in self._ragged.items()}

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split.batch`."""
        where = torch.as_tensor(positions, dtype=torch.int64)
        return self._whole.batch(positions) | {name: each.batch(where)[0] for name, each in self._ragged.items()}

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """See `Split.columns`."""
        if names is None:
            return self.batch(range(len(self)))
        every = torch.arange(len(self))
        own = {name: self._ragged[name].batch(every)[0] for name in names if name in self._ragged}
        return {**self._whole.columns([name for name in names if name not in own]), **own}

    def index(self) -> Tensor:
        """See `Split.index`."""
        return self._whole.index()

    def fingerprint(self) -> str:
        """The whole's fingerprint and the texts."""
        digest = hashlib.sha256(self._whole.fingerprint().encode())
        for each in self._ragged.values():
            digest.update(each.values.numpy().tobytes())
            digest.update(each.lengths.numpy().tobytes())
        return digest.hexdigest()


def pair_splits(
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    seed: int,
    tokenizer: str = "byte-bpe",
    vocabulary: int = 8000,
    max_length: int = 128,
    max_target: int = 64,
    fractions: Mapping[str, float] = FRACTIONS,
    groups: Sequence[str] | None = None,
    parts: Mapping[str, Sequence[int]] | None = None,
    overlap: float = 1.0,
    apart: Mapping[str, Sequence[bool]] | None = None,
    new_sources: bool = True,
    column: str = "source",
    description: str = "",
    simulated: bool = False,
    where: str = "options of the dataset",
) -> Splits:
    """Pairs of a text that is read and one that is to be written, split at random and tokenized.

    A row has ``source``, ``source_mask`` and ``given`` (see `INPUTS`), ``target``, and for judges, which no model sees:
    ``reference`` (the target's own text, whole), ``retrieved`` (the target of the training row whose source is
    nearest by TF-IDF; on training rows empty) and ``apart`` ``[K]`` bool, one for each name in
    ``DataInfo.meta["text"]["apart"]``: rows that are also judged by themselves.

    ``DataInfo.meta["text"]`` has what `stillhouse.text.text_splits` gives and ``start``, ``end``, ``max_target``,
    ``state`` (of the tokenizer), ``commonest`` (the training target that occurs most often), and ``truncated``: the
    share of training targets that ``max_target`` cuts; references are never cut.

    Args:
        sources: the texts that are read ``[N]``.
        targets: the texts that are to be written ``[N]``.
        seed: seed of the split.
        tokenizer: folder, hub id or ``package:folder`` of a Hugging Face tokenizer; or "byte-bpe", "wordpiece" or
            "bpe": one is trained on sources and targets of the training rows. What "wordpiece" and "bpe" decode has
            neither case nor accents.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of a source that are kept, special ones included.
        max_target: tokens of a target that are kept, the end included.
        fractions: share of ``val`` and ``test``; the rest is for training.
        groups: document (patient, study) of each pair, never divided.
        parts: positions of ``train``, ``val`` and ``test``, where the protocol gives them; ``groups`` are then checked,
            not kept together.
        overlap: overlap of the sets of words from which two sources are kept in one split; 1: of the same words.
        apart: rows to be judged by themselves, too, by name, ``[N]`` each.
        new_sources: also judge the rows by themselves whose source, but for case and blanks, is in no training row.
        column: column of new files that has the source.
        description: one line on what the rows are.
        simulated: the texts come from a generator.
        where: the file or option at fault, for errors.

    Raises:
        OptionError: an option is out of range.
        DataError: there are too few pairs, or the tokenizer cannot be had or has no token that ends a text.
        MissingDependencyError: the extra ``text`` is not installed.
    """
    if not 0 < overlap <= 1:
        raise OptionError(f"overlap is {overlap}", where=where, fix="a number above 0, up to 1")
    if max_length < 3 or max_target < 2:
        raise OptionError(
            f"max_length is {max_length}, max_target {max_target}", where=where, fix="at least 3 and 2 tokens"
        )
    if parts is not None:
        positions = {name: np.asarray(part, dtype=np.int64) for name, part in parts.items()}
    else:
        family = near_duplicates(sources, least=overlap, same=[] if groups is None else [groups])
        groups = [f"text {first}" for first in np.unique(family, return_index=True)[1][family]]
        positions = split_groups(groups, fractions, seed, unit="group of like texts", where=where)
    train = positions["train"]
    read, wanted = [sources[at] for at in train], [targets[at] for at in train]
    made = (
        Tokenizer.train([*read, *wanted], kind=tokenizer, vocabulary=vocabulary)
        if tokenizer in TRAINED
        else Tokenizer.load(tokenizer)
    )
    if made.end is None:
        raise DataError(
            f"the tokenizer '{tokenizer}' has no token that ends a text", where=where, fix="choose another tokenizer"
        )
    ids = made.encode(sources, max_length=max_length)
    whole = made.encode(targets, max_length=1_000_000, special=False)
    written = [each[: max_target - 1] for each in whole]
    flags = {name: np.asarray(rows, dtype=bool) for name, rows in (apart or {}).items()}
    if new_sources:
        known = {normalised(text) for text in read}
        flags["new"] = np.array([normalised(text) not in known for text in sources])
    retrieved = _nearest_targets(sources, targets, positions)
    info = DataInfo(
        inputs=dict(INPUTS),
        description=description,
        simulated=simulated,
        meta={
            "vocabulary": made.size,
            "text": {
                **token_facts(made, tokenizer, max_length, [[*ids[at], *written[at]] for at in train]),
                "start": made.start,
                "end": made.end,
                "max_target": max_target,
                "state": made.state(),
                "apart": list(flags),
                "commonest": min(Counter(wanted).items(), key=lambda each: (-each[1], each[0]))[0],
                "truncated": float(np.mean([len(whole[at]) >= max_target for at in train])),
            },
        },
    )
    split = {}
    for name, part in positions.items():
        ragged = given_and_target([written[at] for at in part], start=made.start, end=made.end, pad=made.pad)
        ragged["reference"] = text_bytes([targets[at] for at in part])
        ragged["retrieved"] = text_bytes([retrieved[at] for at in part])
        columns = {"index": torch.from_numpy(part)}
        if flags:
            columns["apart"] = torch.from_numpy(np.stack([rows[part] for rows in flags.values()], axis=1))
        split[name] = TextSplit(
            [ids[at] for at in part],
            columns,
            ragged=ragged,
            groups=None if groups is None else [groups[at] for at in part],
            pad=made.pad,
            names=NAMES,
        )
        # What is computed for a row grows with both texts.
        split[name].lengths = [len(ids[at]) + len(written[at]) + 1 for at in part]
    reader = PairReader(made, max_length=max_length, column=column)
    return Splits(info=info, train=split["train"], val=split["val"], test=split["test"], reader=reader)


def _nearest_targets(sources: Sequence[str], targets: Sequence[str], positions: Mapping[str, np.ndarray]) -> list[str]:
    """The target of the training row whose source is nearest (cosine of TF-IDF of words; the first of equals)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    found = [""] * len(sources)
    train = positions["train"]
    weights = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
    try:
        known = weights.fit_transform([sources[at] for at in train])
    except ValueError:  # no word in any text
        return found
    for name, part in positions.items():
        if name == "train":
            continue
        for chunk in np.array_split(part, max(1, len(part) // 256)):
            near = (weights.transform([sources[at] for at in chunk]) @ known.T).toarray().argmax(axis=1)
            for at, nearest in zip(chunk, train[near], strict=True):
                found[at] = targets[nearest]
    return found


class PairReader:
    """Texts of a user's file for a model that writes; a `stillhouse.types.Reader`.

    Args:
        tokenizer: of the training rows.
        max_length: tokens of a text that are kept.
        column: column of tables that has the text.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_length: int, column: str = "source") -> None:
        self.tokenizer, self.max_length, self.column = tokenizer, max_length, column

    def state(self) -> dict[str, Any]:
        """JSON-ready state, the whole tokenizer included."""
        return {**self.tokenizer.state(), "max_length": self.max_length, "column": self.column}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(Tokenizer.from_state(state), max_length=state["max_length"], column=state["column"])

    def read(self, path: Path) -> tuple[TextSplit, dict[str, list[Any]]]:
        """Rows of the file, of which nothing is written yet; each is told by the number of its ``row`` and its text.

        Raises:
            DataError: see `stillhouse.text.read_texts`.
        """
        texts, rows = read_texts(Path(path), self.column)
        ids = self.tokenizer.encode(texts, max_length=self.max_length)
        given = Ragged([[self.tokenizer.start]] * len(ids), fill=self.tokenizer.pad)
        split = TextSplit(ids, {}, ragged={"given": given}, pad=self.tokenizer.pad, names=NAMES)
        return split, {"row": rows, "text": texts}
