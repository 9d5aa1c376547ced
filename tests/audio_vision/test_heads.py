"""Tagging and classification against independent formulas."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from stillhouse.errors import DataError
from stillhouse.types import DataInfo, TensorSpec
from stillhouse_audio_vision.heads import Classification, Tagging, d_prime


def info(classes: int) -> DataInfo:
    return DataInfo(inputs={"waveform": TensorSpec((8,))}, classes=tuple(f"c{each}" for each in range(classes)))


@given(st.floats(0.01, 0.99))
def test_d_prime_is_the_separation_of_two_normal_distributions_with_that_auc(auc):
    separation = d_prime(auc, 10_000)
    assert NormalDist().cdf(separation / math.sqrt(2)) == pytest.approx(auc, abs=1e-9)


@pytest.mark.parametrize(("auc", "sign"), [(1.0, 1), (0.0, -1)])
def test_d_prime_of_a_perfect_order_is_finite_and_grows_with_the_evidence(auc, sign):
    few, many = d_prime(auc, 10), d_prime(auc, 1000)
    assert math.isfinite(many)
    assert sign * many > sign * few > 0


def test_tagging_metrics_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    target = (random.random((60, 4)) < 0.3).astype(np.float32)
    logits = random.normal(size=(60, 4)) + target
    found = Tagging(info(4)).evaluate(torch.from_numpy(logits).float(), {"target": torch.from_numpy(target)})
    assert found["map"] == pytest.approx(average_precision_score(target, logits, average="macro"), abs=1e-5)
    auc = roc_auc_score(target, logits, average="macro")
    assert found["macro_auc"] == pytest.approx(auc, abs=1e-5)
    assert found["d_prime"] == pytest.approx(math.sqrt(2) * NormalDist().inv_cdf(auc), abs=1e-3)


def test_tagging_without_a_tag_that_varies_has_no_auc_and_without_positives_is_refused():
    ones = torch.ones(4, 2)
    assert set(Tagging(info(2)).evaluate(torch.randn(4, 2), {"target": ones})) == {"map"}
    with pytest.raises(DataError, match="has a positive row"):
        Tagging(info(2)).evaluate(torch.randn(4, 2), {"target": 0 * ones})


def test_classification_adds_top5_where_there_are_many_classes():
    logits = torch.arange(12.0).repeat(2, 1)
    found = Classification(info(12)).evaluate(logits, {"target": torch.tensor([7, 6])})
    assert (found["accuracy"], found["top5"]) == (0.0, 0.5)
    assert "top5" not in Classification(info(10)).evaluate(torch.randn(3, 10), {"target": torch.tensor([0, 1, 2])})


def test_mixed_targets_cost_the_mixture_of_both_losses():
    logits = torch.randn(3, 4)
    first, second = torch.tensor([0, 1, 2]), torch.tensor([3, 3, 0])
    one_hot = torch.nn.functional.one_hot
    mixed = 0.7 * one_hot(first, 4) + 0.3 * one_hot(second, 4)
    head = Classification(info(4))
    expected = 0.7 * head.hard_loss(logits, {"target": first}) + 0.3 * head.hard_loss(logits, {"target": second})
    assert head.hard_loss(logits, {"target": mixed}) == pytest.approx(float(expected), abs=1e-5)
