"""Spans marked in texts: labels of words and tokens, the head that judges spans, and a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("transformers")

import stillhouse
from stillhouse.errors import DataError, OptionError, TrainingError
from stillhouse.forwarding import predict_split
from stillhouse.kinds import OutputKind
from stillhouse.testing import run_tiny
from stillhouse.text import TagReader, Tokenizer, tagged_splits
from stillhouse.text.datasets import synthetic_spans, synthetic_text
from stillhouse.text.heads import FACTS, Tagging
from stillhouse.text.students import text_encoder
from stillhouse.text.tags import token_labels, word_labels
from stillhouse.types import DataContext, DataInfo, Splits, Task

CONTEXT = DataContext(root=Path(), base=Path())
NAMES = ["O", "B-drug", "I-drug", "B-effect", "I-effect"]


def made(rows: int = 80) -> Splits:
    return synthetic_spans(CONTEXT, rows=rows)


def test_words_are_labelled_by_the_spans_that_touch_them() -> None:
    text = "Anti-TNF therapy caused skin rash."
    spans = [(0, 16, "drug"), (24, 33, "effect"), (29, 33, "effect")]
    found = word_labels(text, spans)
    assert [text[begin:end] for begin, end, _ in found] == [
        "Anti",
        "-",
        "TNF",
        "therapy",
        "caused",
        "skin",
        "rash",
        ".",
    ]
    assert [label for *_, label in found] == ["B-drug", *["I-drug"] * 3, "O", "B-effect", "I-effect", "O"]
    neighbours = word_labels("a b", [(0, 1, "drug"), (2, 3, "drug")])
    assert [label for *_, label in neighbours] == ["B-drug", "B-drug"], "spans side by side are two"


@pytest.fixture(scope="module", params=["wordpiece", "byte-bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(["the rash , caused by azithromycin"], kind=request.param, vocabulary=300)


@given(
    words=st.lists(st.sampled_from(["rash", "Azithromycin", "by", ",", "-", "été", "the"]), min_size=1, max_size=9),
    gaps=st.lists(st.sampled_from(["", " ", "  "]), min_size=9, max_size=9),
    marked=st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_each_word_has_its_label_at_one_token(
    tokenizer: Tokenizer, words: list[str], gaps: list[str], marked: list[bool]
) -> None:
    text, spans = "", []
    for word, gap, mark in zip(words, gaps, marked, strict=False):
        if mark:
            spans.append((len(text), len(text) + len(word), "drug"))
        text += word + gap
    ids, labels = token_labels(text, spans, tokenizer, NAMES, max_length=500)
    assert len(ids) == len(labels)
    assert ids == tokenizer.encode([text], max_length=500)[0]
    assert [NAMES[label] for label in labels if label >= 0] == [label for *_, label in word_labels(text, spans)]
    assert labels[0] == labels[-1] == -100, "special tokens are no words"


def test_texts_that_are_cut_are_counted_and_bad_options_refused() -> None:
    texts = [f"take aspirin {number} times and again and again" for number in range(40)]
    spans = [[(5, 12, "drug")]] * 40
    with pytest.warns(UserWarning, match="40 of 40 texts are cut at 6 tokens"):
        splits = tagged_splits(texts, spans, kinds=["drug"], seed=0, vocabulary=200, max_length=6, overlap=1.0)
    assert splits.info.classes == ("O", "B-drug", "I-drug")
    assert max(splits.train.lengths or ()) == 6
    with pytest.raises(OptionError, match="overlap is 2"):
        tagged_splits(texts, spans, kinds=["drug"], seed=0, overlap=2.0)
    with pytest.raises(DataError, match="no training text has a span"):
        tagged_splits(texts, [[]] * 40, kinds=["drug"], seed=0, vocabulary=200, overlap=1.0)


def test_a_batch_of_targets_is_padded_with_what_is_ignored() -> None:
    split = made().train
    batch = split.batch(range(len(split)))
    assert batch["target"].shape == batch["tokens"].shape
    assert bool((batch["target"][~batch["mask"]] == -100).all())
    assert torch.equal(split.columns(["target"])["target"], batch["target"])


# The head ------------------------------------------------------------------------------------------------------------


def spans_of(labels: list[str]) -> set[tuple[int, int, str]]:
    """Strict IOB2, from its definition: a span begins at B and goes on over I of its kind."""
    found, at = set(), 0
    while at < len(labels):
        if labels[at].startswith("B-"):
            end = at + 1
            while end < len(labels) and labels[end] == f"I-{labels[at][2:]}":
                end += 1
            found.add((at, end, labels[at][2:]))
            at = end
        else:
            at += 1
    return found


def head_of(names: list[str] = NAMES) -> Tagging:
    info = DataInfo(inputs={}, classes=tuple(names), meta={"text": {"max_length": 12}})
    return Tagging(info)


LABELS = st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=6)


@given(true=LABELS, said=LABELS, skipped=st.lists(st.booleans(), min_size=6, max_size=6))
def test_f1_is_that_of_spans_by_their_definition(true: Any, said: Any, skipped: list[bool]) -> None:
    rows = min(len(true), len(said))
    target = torch.tensor(true[:rows])
    target[:, torch.tensor(skipped)] = -100
    logits = torch.nn.functional.one_hot(torch.tensor(said[:rows]), 5).float()
    valid = [at for at in range(6) if not skipped[at]]
    # Labels that break IOB2 have no agreed reading; what is judged here follows it.
    readable = [
        [[NAMES[row[at]] for at in valid] for row in rows_of]
        for rows_of in (target.tolist(), torch.tensor(said[:rows]).tolist())
    ]
    if any(_broken(row) for side in readable for row in side):
        return
    wanted, found = ({(n, *span) for n, row in enumerate(side) for span in spans_of(row)} for side in readable)
    if not wanted:
        with pytest.raises(DataError, match="no word of the split is part of a span"):
            head_of().evaluate(logits, {"target": target, "index": torch.arange(rows)})
        return
    metrics = head_of().evaluate(logits, {"target": target, "index": torch.arange(rows)})
    right = len(wanted & found)
    assert metrics["recall"] == pytest.approx(right / len(wanted))
    assert metrics["precision"] == pytest.approx(right / len(found) if found else 0.0)
    assert metrics["f1"] == pytest.approx(2 * right / (len(wanted) + len(found)))


def _broken(row: list[str]) -> bool:
    before = ["O", *row]
    return any(label.startswith("I-") and before[at][2:] != label[2:] for at, label in enumerate(row))


def test_metrics_of_spans_with_frozen_values() -> None:
    target = torch.tensor([[1, 2, 0, 3, -100], [3, 4, 4, 0, 1]])
    said = torch.tensor([[1, 2, 0, 0, 3], [3, 4, 0, 0, 1]])
    logits = 3.0 * torch.nn.functional.one_hot(said, 5).float()
    metrics = head_of().evaluate(logits, {"target": target, "index": torch.arange(2)})
    # Spans: (drug 0-2), (effect 3-4) | (effect 0-3), (drug 4-5); said: (drug 0-2) | (effect 0-2), (drug 4-5).
    assert metrics["f1"] == pytest.approx(4 / 7)
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 4)
    assert metrics["f1_drug"] == pytest.approx(1.0)
    assert metrics["f1_effect"] == 0.0
    assert metrics["token_accuracy"] == pytest.approx(7 / 9)
    right, wrong = math.log(1 + 4 * math.exp(-3)), math.log(1 + 4 * math.exp(-3)) + 3
    assert metrics["perplexity"] == pytest.approx(math.exp((7 * right + 2 * wrong) / 9), rel=1e-5)


def test_answers_of_batches_of_any_length_are_judged_like_their_logits() -> None:
    splits = made()
    head = Tagging(splits.info)
    torch.manual_seed(0)
    task = Task(info=splits.info, kind=OutputKind.SEQUENCE, outputs=head.outputs)
    model = text_encoder(task, embedding=8, width=8, layers=1, heads=2, inner=8).eval()
    found = predict_split(model, splits.test, ("tokens", "mask"), torch.device("cpu"), 7, head)
    assert found.shape == (len(splits.test), FACTS + 64)
    batch = splits.test.batch(range(len(splits.test)))
    with torch.no_grad():
        logits: Tensor = model(batch["tokens"], batch["mask"])
    rows = splits.test.columns(["target", "index"])
    assert head.evaluate(found, rows) == pytest.approx(head.evaluate(logits, rows), rel=1e-4)
    (row, *_), lengths = head.decode(found)["labels"], splits.test.lengths
    assert lengths is not None
    assert len(row) == lengths[0]
    assert row == [head.names[label] for label in logits[0, : lengths[0]].argmax(dim=1).tolist()]


def test_the_head_refuses_what_it_cannot_judge() -> None:
    with pytest.raises(DataError, match="needs the classes O, B-"):
        Tagging(synthetic_text(CONTEXT, rows=60).info)
    with pytest.raises(DataError, match="needs the classes O, B-"):
        head_of(["O", "B-drug"])
    bad = torch.full((1, 5, 5), float("nan"))
    with pytest.raises(TrainingError, match="1 of 1 predictions are not finite"):
        head_of().evaluate(bad, {"target": torch.ones(1, 5), "index": torch.arange(1)})


def test_a_run_learns_spans_and_marks_new_texts(tmp_path: Path) -> None:
    encoder = {"use": "core/text-encoder", "embedding": 16, "width": 16, "layers": 1, "heads": 2, "inner": 16}
    recipe = {
        "name": "tags",
        "head": "core/tagging",
        "dataset": {"use": "core/synthetic-spans", "rows": 200},
        "teacher": {**encoder, "width": 32},
        "student": encoder,
        "train": {
            "teacher": {"epochs": 12, "batch_size": 16, "lr": 0.01},
            "student": {"epochs": 3, "batch_size": 16, "lr": 0.01},
        },
        "evaluate": {"latency_samples": 5, "throughput_batch": 8},
        "seeds": [0],
        "device": "cpu",
    }
    result = stillhouse.run(recipe, out=tmp_path / "run")
    assert result.summary["teacher"]["metrics"]["test"]["f1"] > 0.4
    assert {"f1", "f1_machine", "f1_fault", "precision"} <= set(result.summary["student"]["metrics"]["test"])
    (tmp_path / "new.txt").write_text("the pump leaks oil again\n")
    told = stillhouse.predict(tmp_path / "run", tmp_path / "new.txt")
    assert len(told["tokens"][0]) == len(told["labels"][0])
    assert told["tokens"][0][0] == "[CLS]"
    reader = TagReader.from_state(json.loads((tmp_path / "run" / "data" / "reader.json").read_text()))
    assert reader.max_length == 64
    assert np.isfinite(run_tiny(recipe)["student"]["mean"])
