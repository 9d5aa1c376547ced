"""Metrics and losses against independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from stillhouse.errors import DataError, IncompatibleError
from stillhouse.types import DataInfo, TensorSpec
from stillhouse_medicine.heads import VQA, Binary, Multiclass, Multilabel, Segmentation


def info(classes: int, task: str | None = None, **meta) -> DataInfo:
    names = tuple(f"c{number}" for number in range(classes))
    told = {**({"task": task} if task else {}), **meta}
    return DataInfo(inputs={"image": TensorSpec((1, 8, 8))}, classes=names, meta=told)


def vqa(**options) -> VQA:
    """Three answers, and the class of all others."""
    return VQA(info(4, outside=3), **options)


answers = st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 10_000)), min_size=1, max_size=30)


@given(answers)
@settings(max_examples=40, deadline=None)
def test_vqa_accuracy_is_a_count_over_questions(rows):
    logits = torch.stack([torch.randn(4, generator=torch.Generator().manual_seed(seed)) for *_, seed in rows])
    target = torch.tensor([answer for answer, *_ in rows])
    closed = torch.tensor([kind for _, kind, _ in rows])
    found = vqa().evaluate(logits, {"target": target, "closed": closed})
    # A row whose answer is no class is wrong; the class that stands for it is never chosen.
    right = [max(range(3), key=lambda at: row[at]) == answer for row, (answer, *_) in zip(logits, rows, strict=True)]
    assert found["accuracy"] == pytest.approx(sum(right) / len(rows))
    for name, kind in (("closed_accuracy", True), ("open_accuracy", False)):
        mine = [each for each, (_, is_closed, _) in zip(right, rows, strict=True) if is_closed is kind]
        assert found.get(name) == (pytest.approx(sum(mine) / len(mine)) if mine else None)
    assert found["answerable"] == pytest.approx(sum(answer < 3 for answer, *_ in rows) / len(rows))
    assert found["accuracy"] <= found["answerable"]


def test_vqa_loss_is_cross_entropy_over_rows_with_a_known_answer():
    logits = torch.randn(4, 4, requires_grad=True)
    target = torch.tensor([0, 3, 2, 3])
    loss = vqa().hard_loss(logits, {"target": target})
    expected = (-logits[0].log_softmax(0)[0] - logits[2].log_softmax(0)[2]) / 2
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    loss.backward()
    assert (logits.grad[[1, 3]] == 0).all()
    assert (logits.grad[[0, 2], 3] > 0).all()  # the class that is never right is trained away
    nothing = vqa().hard_loss(logits, {"target": torch.full((4,), 3)})
    assert nothing.item() == 0.0
    weighted = vqa().hard_loss(logits, {"target": target, "weight": torch.tensor([1.0, 1.0, 0.0, 1.0])})
    assert weighted.item() == pytest.approx(-logits[0].log_softmax(0)[0].item(), abs=1e-6)


def test_vqa_answers_in_words_and_never_with_the_class_outside():
    said = vqa().decode(torch.tensor([[0.0, 2.0, 0.0, 9.0]]))
    assert said["answer"] == ["c1"]
    assert said["probability"] == [pytest.approx(math.exp(2) / (math.exp(2) + 2))]
    assert vqa().row_entries() == ("closed",)
    (figure,) = vqa().figures(
        {"student": torch.randn(5, 4)}, {"target": torch.arange(5) % 4, "closed": torch.tensor([True] * 5)}
    )
    assert "question" in figure.title


def test_vqa_needs_a_vocabulary_of_answers():
    for wrong in (info(4), info(4, outside=1)):
        with pytest.raises(IncompatibleError, match="vocabulary"):
            VQA(wrong)
    with pytest.raises(IncompatibleError, match="needs"):
        vqa().evaluate(torch.randn(2, 7), {"target": torch.zeros(2).long(), "closed": torch.ones(2)})


def medmnist_auc(truth: np.ndarray, score: np.ndarray) -> float:
    """As the benchmark's evaluator defines it: the mean over labels (or classes, one against the rest)."""
    return float(np.mean([roc_auc_score(truth[:, at], score[:, at]) for at in range(truth.shape[1])]))


def test_multiclass_metrics_are_those_of_medmnist():
    random = np.random.default_rng(0)
    target, logits = random.integers(0, 4, 60), random.normal(size=(60, 4)).astype(np.float32)
    logits[np.arange(60), target] += 0.8
    found = Multiclass(info(4)).evaluate(torch.from_numpy(logits), {"target": torch.from_numpy(target)})
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["auc"] == pytest.approx(medmnist_auc(np.eye(4)[target], probability), abs=1e-6)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == target).mean())
    confidence, right = probability.max(1), logits.argmax(1) == target
    bins = np.minimum((confidence * 15).astype(int), 14)
    ece = sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    assert found["ece"] == pytest.approx(ece, abs=1e-5)
    assert next(iter(found)) == "auc" == Multiclass.primary


def test_a_class_without_rows_is_left_out_of_the_mean_auc():
    target = torch.tensor([0, 1, 0, 1])
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
    found = Multiclass(info(3)).evaluate(logits, {"target": target})
    probability = logits.softmax(1).numpy()
    by_hand = [roc_auc_score(target == at, probability[:, at]) for at in (0, 1)]
    assert found["auc"] == pytest.approx(np.mean(by_hand))
    with pytest.raises(DataError, match="both positive and negative"):
        Multiclass(info(2)).evaluate(logits[:, :2], {"target": torch.zeros(4).long()})


def test_binary_metrics_are_those_of_medmnist():
    random = np.random.default_rng(1)
    target, logits = random.integers(0, 2, 50), random.normal(size=50).astype(np.float32)
    logits[:10] = 0.0  # at one half: the negative class, as MedMNIST chooses
    found = Binary(info(2)).evaluate(
        torch.from_numpy(logits)[:, None], {"target": torch.from_numpy(target.astype(np.float32))}
    )
    choice = logits > 0
    assert found["auc"] == pytest.approx(roc_auc_score(target, logits), abs=1e-6)
    assert found["accuracy"] == pytest.approx((choice == target).mean())
    assert found["sensitivity"] == pytest.approx(choice[target == 1].mean(), abs=1e-6)
    assert found["specificity"] == pytest.approx((~choice[target == 0]).mean(), abs=1e-6)
    assert {"average_precision", "ece", "nll"} <= set(found)


def test_an_auc_of_one_says_nothing_of_accuracy():
    logits = torch.tensor([[-9.0], [-8.0], [-7.0], [-6.0]])
    found = Binary(info(2)).evaluate(logits, {"target": torch.tensor([0.0, 0.0, 1.0, 1.0])})
    assert found["auc"] == 1.0
    assert (found["accuracy"], found["sensitivity"], found["specificity"]) == (0.5, 0.0, 1.0)


def test_multilabel_metrics_are_those_of_medmnist():
    random = np.random.default_rng(2)
    target = (random.random((40, 3)) < 0.4).astype(np.float32)
    logits = random.normal(size=(40, 3)).astype(np.float32) + target
    found = Multilabel(info(3)).evaluate(torch.from_numpy(logits), {"target": torch.from_numpy(target)})
    assert found["auc"] == pytest.approx(medmnist_auc(target, logits), abs=1e-6)
    assert found["accuracy"] == pytest.approx(((logits > 0) == target).mean())
    assert 0 <= found["ece"] <= 1


def test_saturated_scores_keep_their_order():
    logits = torch.tensor([[200.0], [201.0], [202.0], [203.0]])
    target = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    assert Multilabel(info(1)).evaluate(logits, {"target": target})["auc"] == 1.0


def test_overlap_is_counted_over_pixels():
    random = np.random.default_rng(3)
    truth, guess = random.integers(0, 3, (2, 6, 6)), random.integers(0, 3, (2, 6, 6))
    truth[0, 0] = 255
    logits = functional.one_hot(torch.from_numpy(guess), 3).movedim(-1, 1).float()
    found = Segmentation(info(3, "segmentation")).evaluate(logits, {"target": torch.from_numpy(truth)})
    valid = truth != 255
    dice, iou = [], []
    for at in range(3):
        mine, true = (guess == at) & valid, (truth == at) & valid
        dice.append(2 * (mine & true).sum() / (mine.sum() + true.sum()))
        iou.append((mine & true).sum() / (mine | true).sum())
    assert found["dice"] == pytest.approx(np.mean(dice[1:]))
    assert found["iou"] == pytest.approx(np.mean(iou))
    assert found["pixel_accuracy"] == pytest.approx((guess == truth)[valid].mean())


@pytest.mark.parametrize("head", [Multiclass, Binary, Multilabel, Segmentation])
def test_a_head_for_another_task_is_refused_with_the_one_that_fits(head):
    other = "segmentation" if head is not Segmentation else "binary"
    with pytest.raises(IncompatibleError) as caught:
        head(info(2, other))
    assert caught.value.fix == f"head: medicine/{other}"
    assert head(info(2, head.__name__.lower())).higher_is_better


@pytest.mark.parametrize("head", [Multiclass, Binary, Multilabel, Segmentation])
def test_each_head_evaluates_its_primary_metric_first_and_learns(head):
    made = head(info(2))
    shape = {Binary: (12, 1), Segmentation: (12, 2, 4, 4)}.get(head, (12, 2))
    target = {
        Multiclass: torch.arange(12) % 2,
        Binary: (torch.arange(12) % 2).float(),
        Multilabel: (torch.arange(24) % 3 == 0).float().reshape(12, 2),
        Segmentation: torch.arange(192).reshape(12, 4, 4) % 2,
    }[head]
    prediction = torch.zeros(shape, requires_grad=True)
    optimizer = torch.optim.Adam([prediction], lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        made.hard_loss(prediction, {"target": target}).backward()
        optimizer.step()
    found = made.evaluate(prediction.detach(), {"target": target})
    assert found[made.primary] == pytest.approx(1.0)
    with pytest.raises(DataError):
        made.evaluate(prediction[:0].detach(), {"target": target[:0]})
