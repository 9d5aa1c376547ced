"""Rows of different lengths: padding, order, predictions, caches, near-duplicates; without the extra ``text``."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stillhouse.errors import DataError, IncompatibleError
from stillhouse.forwarding import all_rows, predict_split
from stillhouse.pipeline.leakage import copied_rows
from stillhouse.recipe.model import TrainConfig
from stillhouse.teachers import CachedTeacher, StoredTeacher, write_cache
from stillhouse.text import TextSplit, near_duplicates, normalised, read_texts
from stillhouse.text.ragged import Ragged
from stillhouse.training.rows import step_positions
from stillhouse.types import Batch, ConcatSplit, DataInfo, Outputs, Split, Splits, SubsetSplit, TensorSpec, joined

ROWS = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=30)


def split_of(rows: list[list[int]], pad: int = 0) -> TextSplit:
    return TextSplit(rows, {"target": torch.arange(len(rows)) % 3, "index": torch.arange(len(rows)) + 100}, pad=pad)


class Summing(nn.Module):
    """A prediction that padding would change, and what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.shapes.append(tuple(tokens.shape))
        return (tokens * mask).sum(dim=1, keepdim=True).float()


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, pad=st.sampled_from([0, 7]))
def test_a_batch_is_padded_to_its_own_longest_row(rows: list[list[int]], pad: int) -> None:
    split = split_of(rows, pad)
    for start in range(0, len(rows), 4):
        part = rows[start : start + 4]
        batch = split.batch(range(start, start + len(part)))
        assert batch["tokens"].shape == (len(part), max(map(len, part)))
        for row, tokens, mask in zip(part, batch["tokens"], batch["mask"], strict=True):
            assert tokens[mask].tolist() == row
            assert set(tokens[~mask].tolist()) <= {pad}
    assert [split.row(at)["tokens"].tolist() for at in range(len(rows))] == rows
    assert list(split.lengths or ()) == [len(row) for row in rows]


def test_columns_that_are_no_inputs_are_not_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_of([[1], [2, 3], [4] * 500])
    part = SubsetSplit(split, [2, 0])
    monkeypatch.setattr(Ragged, "batch", lambda *_: pytest.fail("tokens were touched"))
    assert split.columns(["target", "index"])["index"].tolist() == [100, 101, 102]
    assert part.columns(["target"])["target"].tolist() == [2, 0]
    assert part.lengths == [500, 1]


def test_the_fingerprint_tells_rows_apart() -> None:
    prints = {split_of(rows).fingerprint() for rows in ([[1, 2], [3]], [[1], [2, 3]], [[1, 2], [4]])}
    assert len(prints) == 3
    assert split_of([[1, 2], [3]]).fingerprint() in prints


def test_a_row_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has no token"):
        split_of([[1], []])


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=2, max_size=400),
    batch_size=st.integers(2, 32),
    epoch=st.integers(0, 3),
)
def test_steps_of_like_lengths_have_every_row_once_and_repeat(lengths: list[int], batch_size: int, epoch: int) -> None:
    config = TrainConfig(batch_size=batch_size)
    steps = [*step_positions(len(lengths), config, 0, epoch, lengths=lengths)]
    assert steps == [*step_positions(len(lengths), config, 0, epoch, lengths=lengths)]
    seen = [position for step in steps for position in step]
    assert len(seen) == len(set(seen)) >= len(lengths) - 1
    assert max(map(len, steps)) <= batch_size


def test_steps_of_like_lengths_save_padding_and_differ_between_epochs() -> None:
    generator = random.Random(0)
    lengths, config = [generator.randint(3, 90) for _ in range(1000)], TrainConfig(batch_size=16)

    def padded(steps: Iterable[list[int]]) -> int:
        return sum(len(step) * max(lengths[at] for at in step) for step in steps)

    by_length = step_positions(1000, config, 0, 0, lengths=lengths)
    assert padded(by_length) < 1.15 * sum(lengths) < 1.5 * sum(lengths) < padded(step_positions(1000, config, 0, 0))
    assert [*by_length] != [*step_positions(1000, config, 0, 1, lengths=lengths)]
    widths = [max(lengths[at] for at in step) for step in by_length]
    assert widths != sorted(widths)  # a network must not see short rows first in every epoch


def test_predictions_are_in_the_order_of_the_rows_and_no_batch_is_large() -> None:
    generator = random.Random(0)
    rows = [[generator.randint(1, 9)] * generator.choice([1, 5, 3000]) for _ in range(40)]
    model, split = Summing(), split_of(rows)
    found = predict_split(model, split, ("tokens", "mask"), torch.device("cpu"))
    assert found.flatten().tolist() == [sum(row) for row in rows]
    assert max(rows * width for rows, width in model.shapes) <= 8_192
    assert sum(width * rows for rows, width in model.shapes) < 1.2 * sum(map(len, rows))
    assert sorted(at for positions, _ in all_rows(split) for at in positions.tolist()) == list(range(40))


def test_teacher_outputs_are_found_by_row_and_features_of_positions_are_not_cached(tmp_path: Path) -> None:
    split = split_of([[1] * length for length in (5, 1, 9, 2)])

    def source(batch: Batch, *, features: bool = False) -> Outputs:
        prediction = (batch["tokens"] * batch["mask"]).sum(dim=1, keepdim=True).float()
        return Outputs(prediction, {"layer": batch["tokens"].unsqueeze(2).float()} if features else {})

    write_cache(source, split, tmp_path / "cache", key="k")
    batch = split.batch([2, 0, 3])
    assert CachedTeacher((tmp_path / "cache", "k"))(batch).prediction.flatten().tolist() == [9, 5, 2]
    assert StoredTeacher.of(source, [split], torch.device("cpu"))(batch).prediction.flatten().tolist() == [9, 5, 2]
    with pytest.raises(IncompatibleError, match="feature layer differs in length"):
        write_cache(lambda rows: source(rows, features=True), split, tmp_path / "other", key="k")


def test_rows_of_other_lengths_are_joined_behind_each_other() -> None:
    first, second = split_of([[1, 2], [3]]).batch([0, 1]), split_of([[4, 5, 6]]).batch([0])
    for a, b in ((first, second), (second, first)):
        batch = {name: joined([a[name], b[name]]) for name in a}
        assert batch["tokens"].shape == batch["mask"].shape == (3, 3)
        assert batch["mask"].sum() == 6
        assert batch["tokens"][batch["mask"]].tolist() == [
            *a["tokens"][a["mask"]].tolist(),
            *b["tokens"][b["mask"]].tolist(),
        ]


def test_copies_of_training_rows_are_counted_whatever_the_padding() -> None:
    info = DataInfo(inputs={"tokens": TensorSpec((-1,), "int64"), "mask": TensorSpec((-1,), "bool")})
    train, test = split_of([[1, 2], [3, 4, 5, 6]]), split_of([[1, 2], [3, 4]])
    found = copied_rows(Splits(info=info, train=train, val=test, test=test))
    assert [(each.split, each.among, each.count) for each in found] == [
        ("test", "train", 1),
        ("val", "train", 1),
        ("test", "val", 2),
    ]


def families(texts: list[str], least: float) -> set[frozenset[int]]:
    """By comparing all pairs."""
    sets = [set(re.findall(r"\w+", text.casefold())) for text in texts]
    parent = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            union = len(sets[i] | sets[j])
            if normalised(texts[i]) == normalised(texts[j]) or (
                union and len(sets[i] & sets[j]) >= least * union - 1e-9
            ):
                old, new = parent[i], parent[j]
                parent = [new if each == old else each for each in parent]
    return {frozenset(at for at, each in enumerate(parent) if each == root) for root in set(parent)}


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "G", "5"]), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(WORDS.map(" ".join), min_size=1, max_size=25), least=st.sampled_from([0.3, 0.5, 0.75, 0.8, 1.0]))
def test_near_duplicates_are_those_of_all_pairs(texts: list[str], least: float) -> None:
    found = near_duplicates(texts, least=least)
    assert {frozenset(np.flatnonzero(found == each).tolist()) for each in set(found.tolist())} == families(texts, least)


def test_texts_of_one_document_are_one_family() -> None:
    found = near_duplicates(["one", "two", "three", "One  "], same=[["a", "b", "b", "c"]])
    assert found[0] == found[3]
    assert found[1] == found[2] != found[0]


@pytest.mark.parametrize(
    ("name", "content", "texts", "rows"),
    [
        ("a.csv", 'text;n\nNone;1\n"a, b";2\n17;3\n', ["None", "a, b", "17"], [2, 3, 4]),
        ("a.jsonl", '{"text": "x", "n": 1}\n{"text": "17"}\n', ["x", "17"], [1, 2]),
        ("a.txt", "\ufefffirst\n\n  second \n", ["first", "second"], [1, 3]),
    ],
)
def test_texts_of_files(tmp_path: Path, name: str, content: str, texts: list[str], rows: list[int]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_texts(tmp_path / name, "text") == (texts, rows)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", 'text\nx\n" "\n', "row 3, column 'text'"),
        ("a.csv", "text\nx\n\ny\n", "row 3 is a blank line"),
        ("a.csv", "words\nx\n", "no column 'text'"),
        ("a.jsonl", '{"text": "x"}\n{"text": null}\n', "row 2, column 'text'"),
        ("a.jsonl", "{", "cannot be parsed"),
        ("a.txt", "\n \n", "no text"),
        ("a.doc", "x", "'.doc' files"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)):
        read_texts(tmp_path / name, "text")


def test_a_text_file_must_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Käse".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_texts(tmp_path / "a.txt", "text")


def test_lengths_are_kept_by_a_part_of_a_split() -> None:
    split: Split = SubsetSplit(SubsetSplit(split_of([[1], [2, 3], [4, 5, 6]]), [2, 1]), [1])
    assert split.lengths == [2]
    assert split.batch([0])["tokens"].tolist() == [[2, 3]]


def test_splits_of_different_lengths_behind_each_other() -> None:
    whole = ConcatSplit([split_of([[1], [2, 3]]), TextSplit([[4, 5, 6]], {"index": torch.tensor([7])})])
    assert whole.lengths == [1, 2, 3]
    batch = whole.batch([2, 0])
    assert batch["tokens"].tolist() == [[4, 5, 6], [1, 0, 0]]
    assert batch["mask"].sum(1).tolist() == [3, 1]
    assert whole.row(0)["tokens"].tolist() == [1]
