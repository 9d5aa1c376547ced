"""Methods on texts, whose rows differ in length: the padding mask among the inputs is no mask of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

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
