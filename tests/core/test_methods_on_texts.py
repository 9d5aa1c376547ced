"""Methods on texts, whose rows differ in length: the padding mask among the inputs is no mask of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from stillhouse.methods.condensed import Condensed
from stillhouse.methods.context import MethodContext
from stillhouse.trained import Trained

pytest.importorskip("transformers")

TEXTS = (
    "dataset={use: core/synthetic-text, rows: 120}",
    "student={use: core/text-encoder, width: 16, heads: 4, inner: 16, vocabulary: 60, embedding: 8}",
    "objectives.soft=[soft]",
)
ONE = "teacher={use: core/text-encoder, width: 16, heads: 4, inner: 16, vocabulary: 60, embedding: 8}"
TWO = "teacher={members: [{use: core/text-encoder, width: 16, heads: 4, inner: 16, vocabulary: 60, count: 2}]}"


@pytest.mark.parametrize(
    ("method", "teacher"),
    [
        ("core/condensed", ONE),
        ({"use": "core/adaptive", "mode": "difficulty"}, ONE),
        ({"use": "core/confident-teachers", "by": "loss"}, TWO),
        ("core/missing-modality", ONE),
        ("core/mutual", ONE),
        ("core/noisy-teachers", ONE),
    ],
)
def test_rows_are_told_apart_and_not_their_words(method: Any, teacher: str, distil: Callable[..., Any]) -> None:
    result = distil(method, *TEXTS, teacher)
    assert 0 <= result.summary["student"]["metrics"]["test"]["accuracy"] <= 1


def test_what_a_text_is_worth_does_not_depend_on_its_padding(
    distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    values, seen = Condensed.values, []

    def checked(self: Condensed, context: MethodContext, student: Trained) -> torch.Tensor:
        found = values(self, context, student)
        split, teacher = context.splits.train, context.teachers[0].model.eval()
        by_hand = []
        for position in range(len(split)):  # each alone, so that nothing of it is padding
            row = split.batch([position])
            with torch.no_grad():
                student_logits, teacher_logits = (
                    model(tokens=row["tokens"], mask=row["mask"]) for model in (student.model, teacher)
                )
            divergence = F.kl_div((student_logits / 4).log_softmax(1), (teacher_logits / 4).softmax(1), reduction="sum")
            by_hand.append(divergence.double() * 4**2)
        torch.testing.assert_close(found, torch.stack(by_hand), rtol=1e-3, atol=1e-5)
        seen.append(found)
        return found

    monkeypatch.setattr(Condensed, "values", checked)
    distil("core/condensed", *TEXTS, ONE)
    assert seen
