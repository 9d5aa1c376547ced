"""Metrics that core offers beside those of its heads."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.components.metrics import f1, mcc
from stillhouse.errors import OptionError

ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def given_rows(pairs: list[tuple[bool, bool]], binary: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    chosen, true = (torch.tensor([pair[at] for pair in pairs]) for at in (0, 1))
    logits = torch.where(chosen, 2.0, -2.0)[:, None]
    return logits if binary else torch.cat((-logits, logits), dim=1), {
        "target": true.float() if binary else true.long()
    }


@given(pairs=ANSWERS, binary=st.booleans())
def test_mcc_and_f1_are_those_of_the_four_counts(pairs: list[tuple[bool, bool]], binary: bool) -> None:
    tp, fp, fn, tn = (pairs.count(each) for each in ((True, True), (True, False), (False, True), (False, False)))
    prediction, rows = given_rows(pairs, binary)
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    assert mcc()(prediction, rows) == pytest.approx(
        (tp * tn - fp * fn) / math.sqrt(spread) if spread else 0.0, abs=1e-9
    )
    assert f1()(prediction, rows) == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0.0)
    assert f1(label=0)(prediction, rows) == pytest.approx(2 * tn / (2 * tn + fp + fn) if tn else 0.0)


def test_a_negative_label_is_refused() -> None:
    with pytest.raises(OptionError, match="label is -1"):
        f1(label=-1)
