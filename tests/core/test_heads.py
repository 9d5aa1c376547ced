"""Core's heads: metrics against independent formulas, losses by hand, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from stillhouse.components.metrics import ece
from stillhouse.errors import DataError, IncompatibleError, OptionError, TrainingError
from stillhouse.heads import Binary, Gaussian, Multiclass, Multilabel, Regression, Segmentation, Sequence, measures
from stillhouse.types import DataInfo, TensorSpec


def info(**fields):
    return DataInfo(inputs={"x": TensorSpec((3,))}, **fields)


NAMES = ("a", "b", "c")
HEADS = {
    "multiclass": (Multiclass(info(classes=NAMES)), (6, 3), torch.tensor([0, 1, 2, 0, 1, 2])),
    "binary": (Binary(info()), (6, 1), torch.tensor([0.0, 1, 0, 1, 1, 0])),
    "multilabel": (Multilabel(info(classes=NAMES)), (6, 3), (torch.arange(18) % 2).reshape(6, 3).float()),
    "regression": (Regression(info()), (6, 1), torch.arange(6.0)),
    "gaussian": (Gaussian(info()), (6, 2), torch.arange(6.0)),
    "segmentation": (Segmentation(info(classes=NAMES)), (6, 3, 2, 2), torch.arange(24).reshape(6, 2, 2) % 3),
    "sequence": (Sequence(info(classes=NAMES)), (6, 4, 3), torch.arange(24).reshape(6, 4) % 3),
}
every_head = pytest.mark.parametrize("name", HEADS)


def logits(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ece_by_hand(confidence, correct, bins=15):
    total = 0.0
    for low in np.arange(bins) / bins:
        inside = (confidence > low) & (confidence <= low + 1 / bins)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return total


# --- every head


@every_head
def test_loss_is_a_finite_scalar_with_a_gradient_and_evaluate_has_the_primary_metric(name):
    head, shape, target = HEADS[name]
    prediction = logits(shape).requires_grad_()
    loss = head.hard_loss(prediction, {"target": target})
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad.abs().sum() > 0
    found = head.evaluate(prediction.detach(), {"target": target})
    assert head.primary in found
    assert all(isinstance(value, float) and math.isfinite(value) for value in found.values())


@every_head
def test_row_weights_of_zero_leave_rows_out_and_equal_weights_change_nothing(name):
    head, shape, target = HEADS[name]
    prediction = logits(shape)
    whole = head.hard_loss(prediction, {"target": target})
    equal = head.hard_loss(prediction, {"target": target, "weight": torch.full((6,), 2.5)})
    torch.testing.assert_close(equal, whole)
    first = head.hard_loss(prediction, {"target": target, "weight": torch.tensor([1.0, 1, 1, 1, 0, 0])})
    torch.testing.assert_close(first, head.hard_loss(prediction[:4], {"target": target[:4]}))


@every_head
def test_a_batch_of_zero_weights_has_a_zero_loss(name):
    head, shape, target = HEADS[name]
    prediction = logits(shape).requires_grad_()
    loss = head.hard_loss(prediction, {"target": target, "weight": torch.zeros(6)})
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(prediction.grad, torch.zeros(shape))


@every_head
def test_batch_of_one(name):
    head, shape, target = HEADS[name]
    assert torch.isfinite(head.hard_loss(logits(shape)[:1], {"target": target[:1]}))


@every_head
def test_half_precision_predictions_are_judged_in_float32(name):
    head, shape, target = HEADS[name]
    loss = head.hard_loss(logits(shape).bfloat16(), {"target": target})
    assert loss.dtype == torch.float32


@every_head
def test_empty_split_is_refused(name):
    head, shape, target = HEADS[name]
    with pytest.raises(DataError, match="no rows"):
        head.evaluate(torch.empty((0, *shape[1:])), {"target": target[:0]})


@every_head
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_prediction_that_is_not_finite_is_refused_with_the_row(name, bad):
    head, shape, target = HEADS[name]
    prediction = logits(shape)
    prediction[2].flatten()[0] = bad
    with pytest.raises(TrainingError, match=r"1 of 6 predictions") as caught:
        head.evaluate(prediction, {"target": target, "index": torch.arange(10, 16)})
    assert "[12]" in caught.value.where


@every_head
def test_wrong_width_is_refused_by_loss_and_metrics(name):
    head, shape, target = HEADS[name]
    wrong = logits((6, shape[1] + 5, *shape[2:])) if name != "sequence" else logits((6, 4, 9))
    for judge in (head.hard_loss, head.evaluate):
        with pytest.raises(IncompatibleError, match="needs"):
            judge(wrong, {"target": target})


@every_head
def test_predictions_of_another_number_of_rows_are_refused(name):
    head, shape, target = HEADS[name]
    with pytest.raises(IncompatibleError, match="5 predictions for 6 rows"):
        head.evaluate(logits(shape)[:5], {"target": target})


@every_head
def test_decode_gives_columns_of_equal_length(name):
    head, shape, _ = HEADS[name]
    columns = head.decode(logits(shape))
    assert columns
    assert {len(column) for column in columns.values()} == {6}


@every_head
def test_figures_can_be_drawn(name):
    head, shape, target = HEADS[name]
    predictions = {model: logits(shape, seed) for seed, model in enumerate(("teacher", "baseline", "student"))}
    found = head.figures(predictions, {"target": target})
    assert found
    for each in found:
        each.figure.canvas.draw()
        assert each.title
        assert each.caption


@every_head
def test_output_layer_makes_a_prediction_of_the_right_shape(name):
    head, shape, _ = HEADS[name]
    inputs = {"segmentation": torch.randn(6, 5, 2, 2), "sequence": torch.randn(6, 4, 5)}.get(name, torch.randn(6, 5))
    assert head.output_layer(5)(inputs).shape == shape


# --- multiclass


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 60), st.integers(2, 6))
def test_multiclass_metrics_equal_those_of_scikit_learn(seed, rows, classes):
    head = Multiclass(info(classes=tuple(map(str, range(classes)))))
    prediction = 2 * logits((rows, classes), seed)
    target = torch.from_numpy(np.random.default_rng(seed).permutation(np.arange(rows) % classes))
    found = head.evaluate(prediction, {"target": target})
    probability = prediction.double().softmax(1).numpy()
    choice = probability.argmax(1)
    truth = target.numpy()
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, choice))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, choice, average="macro", zero_division=0), abs=1e-6)
    assert found["nll"] == pytest.approx(sk.log_loss(truth, probability, labels=range(classes)), abs=1e-6)
    one_against_rest = [sk.roc_auc_score(truth == each, probability[:, each]) for each in range(classes)]
    assert found["auc"] == pytest.approx(np.mean(one_against_rest), abs=1e-6)
    assert found["ece"] == pytest.approx(ece_by_hand(probability.max(1), choice == truth), abs=1e-6)


def test_auc_is_left_out_when_a_class_has_no_rows():
    head, shape, _ = HEADS["multiclass"]
    found = head.evaluate(logits(shape), {"target": torch.tensor([0, 1, 0, 1, 0, 1])})
    assert "auc" not in found
    assert "accuracy" in found


def test_ece_frozen():
    # Two rows at confidence .9 (one right), two at .6 (both right): .5 * .4 + .5 * .4
    probability = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    found = ece()(probability.log(), {"target": torch.tensor([0, 1, 0, 0])})
    assert found == pytest.approx(0.4, abs=1e-6)


def test_ece_counts_full_confidence():
    assert ece()(torch.tensor([[1000.0, 0.0]]), {"target": torch.tensor([1])}) == pytest.approx(1.0)


def test_ece_of_binary_compares_with_the_frequency_of_positives():
    prediction = torch.logit(torch.tensor([[0.8], [0.8], [0.8], [0.8]]))
    assert ece()(prediction, {"target": torch.tensor([1.0, 1, 1, 0])}) == pytest.approx(0.05, abs=1e-6)


def test_ece_refuses_no_bins():
    with pytest.raises(OptionError, match="bins is 0"):
        ece(bins=0)


def test_balanced_class_weights_follow_the_counts():
    head = Multiclass(info(classes=NAMES, class_counts=(80, 15, 5)), class_weights="balanced")
    prediction, target = logits((6, 3)), torch.tensor([0, 1, 2, 0, 0, 1])
    weight = torch.tensor([100 / 240, 100 / 45, 100 / 15])
    expected = F.cross_entropy(prediction, target, weight=weight)
    torch.testing.assert_close(head.hard_loss(prediction, {"target": target}), expected)


def test_label_smoothing_is_that_of_torch():
    head = Multiclass(info(classes=NAMES), label_smoothing=0.2)
    prediction, target = logits((6, 3)), torch.tensor([0, 1, 2, 0, 0, 1])
    expected = F.cross_entropy(prediction, target, label_smoothing=0.2)
    torch.testing.assert_close(head.hard_loss(prediction, {"target": target}), expected)


def test_soft_targets_of_mixup_equal_the_mixture_of_the_losses():
    head = Multiclass(info(classes=NAMES))
    prediction, a, b = logits((4, 3)), torch.tensor([0, 1, 2, 0]), torch.tensor([2, 1, 0, 1])
    mixed = 0.3 * F.one_hot(a, 3) + 0.7 * F.one_hot(b, 3)
    expected = 0.3 * F.cross_entropy(prediction, a) + 0.7 * F.cross_entropy(prediction, b)
    torch.testing.assert_close(head.hard_loss(prediction, {"target": mixed}), expected)


@pytest.mark.parametrize("classes", [None, (), ("only",)])
def test_multiclass_needs_two_classes(classes):
    with pytest.raises(DataError, match="needs at least 2"):
        Multiclass(info(classes=classes))


def test_balancing_without_counts_is_refused():
    with pytest.raises(DataError, match="by their counts"):
        Multiclass(info(classes=NAMES), class_weights="balanced")


def test_label_outside_the_declared_classes_is_refused():
    head, shape, _ = HEADS["multiclass"]
    with pytest.raises(DataError, match="labels run from 0 to 3"):
        head.evaluate(logits(shape), {"target": torch.tensor([0, 1, 2, 3, 0, 1])})


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
@pytest.mark.parametrize("make", [Multiclass, Binary, Multilabel, Sequence])
def test_label_smoothing_out_of_range_is_refused(make, smoothing):
    with pytest.raises(OptionError, match="label_smoothing"):
        make(info(classes=NAMES[:2]), label_smoothing=smoothing)


def test_multiclass_decodes_to_names():
    head, _, _ = HEADS["multiclass"]
    columns = head.decode(torch.tensor([[0.0, 5.0, 0.0]]))
    assert columns["label"] == ["b"]
    assert columns["probability"] == columns["p_b"]


# --- binary


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 60))
def test_binary_metrics_equal_those_of_scikit_learn(seed, rows):
    head = Binary(info())
    prediction = 2 * logits((rows, 1), seed)
    target = torch.from_numpy(np.random.default_rng(seed).permutation(np.arange(rows) % 3 == 0)).float()
    found = head.evaluate(prediction, {"target": target})
    score = torch.sigmoid(prediction.double()).numpy()[:, 0]
    truth = target.numpy().astype(int)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(truth, score), abs=1e-6)
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(truth, score), abs=1e-6)
    assert found["recall"] == pytest.approx(sk.recall_score(truth, score >= 0.5), abs=1e-6)
    assert found["f1"] == pytest.approx(sk.f1_score(truth, score >= 0.5), abs=1e-6)
    assert found["nll"] == pytest.approx(sk.log_loss(truth, score), abs=1e-6)
    assert found["ece"] == pytest.approx(ece_by_hand(score, truth), abs=1e-6)


def test_order_survives_where_the_sigmoid_saturates():
    found = Binary(info()).evaluate(
        torch.tensor([[60.0], [50.0], [90.0], [80.0]]), {"target": torch.tensor([0.0, 0, 1, 1])}
    )
    assert found["roc_auc"] == 1
    assert found["average_precision"] == 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_binary_split_of_one_class_is_refused(value):
    with pytest.raises(DataError, match="all 6 rows of the split are of class"):
        HEADS["binary"][0].evaluate(logits((6, 1)), {"target": torch.full((6,), value)})


def test_balanced_pos_weight_is_negatives_over_positives():
    head = Binary(info(classes=("ok", "fraud"), class_counts=(90, 10)), pos_weight="balanced")
    prediction, target = logits((6, 1)), torch.tensor([0.0, 1, 0, 0, 1, 0])
    expected = F.binary_cross_entropy_with_logits(prediction[:, 0], target, pos_weight=torch.tensor(9.0))
    torch.testing.assert_close(head.hard_loss(prediction, {"target": target}), expected)


def test_references_of_classes_are_their_shares_of_the_training_rows():
    target = torch.tensor([0, 2, 2, 1])
    three = Multiclass(info(classes=("a", "b", "c"), class_counts=(2, 3, 5)))
    found = three.references({"target": target})["most frequent training class"]
    assert torch.allclose(found.softmax(dim=1), torch.tensor([0.2, 0.3, 0.5]).expand(4, 3))
    assert three.evaluate(found, {"target": target})["accuracy"] == 0.5
    yes = Binary(info(class_counts=(6, 2)))
    found = yes.references({"target": torch.tensor([0, 1, 0, 0])})["share of training positives"]
    assert torch.allclose(found.sigmoid(), torch.full((4, 1), 0.25))
    assert yes.evaluate(found, {"target": torch.tensor([0, 1, 0, 0])})["average_precision"] == 0.25
    assert Multiclass(info(classes=("a", "b"))).references({"target": target}) == {}  # nobody has counted


def test_binary_with_three_class_names_is_refused():
    with pytest.raises(DataError, match="needs two"):
        Binary(info(classes=NAMES))


# --- multilabel


def test_multilabel_metrics_leave_out_labels_without_positives():
    head = Multilabel(info(classes=NAMES))
    prediction = logits((40, 3), 3)
    target = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (40, 3))).float()
    target[:, 1] = 0
    found = head.evaluate(prediction, {"target": target})
    truth, score = target.numpy(), prediction.numpy()
    expected = [sk.average_precision_score(truth[:, label], score[:, label]) for label in (0, 2)]
    assert found["map"] == pytest.approx(np.mean(expected), abs=1e-6)
    expected = [sk.roc_auc_score(truth[:, label], score[:, label]) for label in (0, 2)]
    assert found["macro_auc"] == pytest.approx(np.mean(expected), abs=1e-6)


def test_multilabel_without_any_positive_is_refused():
    with pytest.raises(DataError, match="none of the 3 labels"):
        HEADS["multilabel"][0].evaluate(logits((6, 3)), {"target": torch.zeros(6, 3)})


# --- regression


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 3))
def test_regression_metrics_equal_those_of_scikit_learn(seed, rows, values):
    head = Regression(info(), values=values)
    prediction, target = logits((rows, values), seed), 3 * logits((rows, values), seed + 1)
    found = head.evaluate(prediction, {"target": target[:, 0] if values == 1 else target})
    truth, value = target.double().numpy(), prediction.double().numpy()
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((truth - value) ** 2)), rel=1e-5)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth, value), rel=1e-5)
    assert found["r2"] == pytest.approx(sk.r2_score(truth, value), rel=1e-4, abs=1e-4)


def test_r2_is_left_out_when_the_target_does_not_vary():
    found = HEADS["regression"][0].evaluate(torch.ones(3, 1), {"target": torch.full((3,), 3.0)})
    assert found == {"rmse": 2.0, "mae": 2.0}


def test_huber_turns_linear_in_units_of_the_target():
    head = Regression(info(target_std=10.0), loss="huber", delta=2.0)
    # quadratic at 10, linear at 30: 20 * (30 - 10)
    losses = [head.hard_loss(torch.tensor([[error]]), {"target": torch.tensor([0.0])}).item() for error in (10.0, 30.0)]
    assert losses == [50.0, 400.0]


def test_targets_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="1 of 3 targets"):
        HEADS["regression"][0].evaluate(torch.ones(3, 1), {"target": torch.tensor([0.0, float("nan"), 1.0])})


def test_output_layer_starts_near_the_mean_of_the_target():
    layer = Regression(info(target_mean=80.0, target_std=20.0)).output_layer(8)
    assert layer(torch.zeros(5, 8)).sub(80).abs().max() < 20


def test_gaussian_metrics():
    head = Gaussian(info())
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=4000), np.exp(rng.normal(size=4000) / 3)
    target = mean + std * rng.normal(size=4000)
    prediction = torch.from_numpy(np.stack([mean, 2 * np.log(std)], axis=1)).float()
    found = head.evaluate(prediction, {"target": torch.from_numpy(target).float()})
    expected = 0.5 * np.log(2 * np.pi) + np.log(std) + 0.5 * ((target - mean) / std) ** 2
    assert found["nll"] == pytest.approx(expected.mean(), rel=1e-4)
    assert found["coverage_90"] == pytest.approx(0.9, abs=0.02)
    loss = head.hard_loss(prediction, {"target": torch.from_numpy(target).float()})
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-4)


def test_gaussian_decodes_to_its_interval():
    columns = Gaussian(info()).decode(torch.tensor([[10.0, 2 * math.log(2.0)]]))
    assert columns["prediction"] == [10.0]
    assert columns["low"][0] == pytest.approx(10 - 1.6449 * 2, abs=1e-3)
    assert columns["high"][0] == pytest.approx(10 + 1.6449 * 2, abs=1e-3)


# --- positions


def test_segmentation_metrics_by_hand():
    head = Segmentation(info(classes=("back", "one", "two")))
    target = torch.tensor([[[0, 1, 1, 255]]])
    choice = torch.tensor([[[0, 1, 0, 2]]])
    found = head.evaluate(10.0 * F.one_hot(choice, 3).movedim(-1, 1), {"target": target})
    # Class two occurs only where ignored, so it does not count.
    assert found["dice"] == pytest.approx(2 / 3)
    assert found["iou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["pixel_accuracy"] == pytest.approx(2 / 3)


def test_segmentation_loss_of_a_perfect_prediction_is_zero_and_ignores_255():
    head = Segmentation(info(classes=("back", "one")))
    target = torch.tensor([[[0, 1], [1, 255]]])
    prediction = (200.0 * F.one_hot(target.clamp(max=1), 2)).movedim(-1, 1).clone()
    prediction[0, :, 1, 1] = torch.tensor([1e4, -1e4])
    assert head.hard_loss(prediction, {"target": target}).item() == pytest.approx(0, abs=1e-6)


def test_segmentation_loss_is_cross_entropy_plus_dice():
    prediction, target = logits((2, 3, 4, 4)), torch.arange(32).reshape(2, 4, 4) % 3
    plain = Segmentation(info(classes=NAMES), dice_weight=0).hard_loss(prediction, {"target": target})
    torch.testing.assert_close(plain, F.cross_entropy(prediction, target))
    probability = prediction.softmax(1)
    dice = []
    for each in (1, 2):
        truth = (target == each).float()
        dice.append(2 * (probability[:, each] * truth).sum() / (probability[:, each].sum() + truth.sum()))
    both = Segmentation(info(classes=NAMES), dice_weight=0.5).hard_loss(prediction, {"target": target})
    torch.testing.assert_close(both, plain + 0.5 * (1 - torch.stack(dice).mean()))


def test_segmentation_without_foreground_is_refused():
    prediction = torch.zeros(1, 2, 2, 2)
    prediction[:, 0] = 1
    with pytest.raises(DataError, match="foreground"):
        Segmentation(info(classes=("back", "one"))).evaluate(prediction, {"target": torch.zeros(1, 2, 2).long()})


@pytest.mark.parametrize(("name", "ignore"), [("segmentation", 255), ("sequence", -100)])
def test_split_of_ignored_positions_only(name, ignore):
    head, shape, target = HEADS[name]
    ignored = torch.full_like(target, ignore)
    with pytest.raises(DataError, match="is ignored"):
        head.evaluate(logits(shape), {"target": ignored})
    assert head.hard_loss(logits(shape), {"target": ignored}).item() == 0


def test_sequence_loss_and_metrics_leave_out_ignored_tokens():
    head, _, _ = HEADS["sequence"]
    prediction, target = logits((5, 4, 3)), torch.arange(20).reshape(5, 4) % 3
    target[:, 2:] = -100
    flat, kept = prediction[:, :2].reshape(-1, 3), target[:, :2].reshape(-1)
    expected = F.cross_entropy(flat, kept)
    torch.testing.assert_close(head.hard_loss(prediction, {"target": target}), expected)
    found = head.evaluate(prediction, {"target": target})
    assert found["perplexity"] == pytest.approx(math.exp(expected.item()), rel=1e-5)
    assert found["token_accuracy"] == pytest.approx((flat.argmax(1) == kept).float().mean().item())


def test_sequence_takes_the_size_of_its_vocabulary_from_meta():
    head = Sequence(info(meta={"vocabulary": 7}))
    assert head.outputs == 7
    assert head.decode(torch.eye(7)[None])["tokens"] == [list(range(7))]
    with pytest.raises(DataError, match="vocabulary"):
        Sequence(info())


def test_regression_is_read_against_the_mean_and_against_no_change() -> None:
    from stillhouse.heads import Regression

    rows = {"target": torch.tensor([1.0, 2.0]), "last": torch.tensor([1.5, 1.0]), "index": torch.arange(2)}
    assert Regression(DataInfo(inputs={})).references(rows) == {}  # nothing is known of the target
    known = DataInfo(inputs={}, target_mean=3.0, target_std=2.0, meta={"persistence": "last"})
    head = Regression(known)
    assert list(head.row_entries()) == ["last"]
    found = head.references(rows)
    assert {name: each.tolist() for name, each in found.items()} == {
        "mean of the training target": [[3.0], [3.0]],
        "persistence": [[1.5], [1.0]],
    }
    assert head.evaluate(found["persistence"], rows)["mae"] == pytest.approx(0.75)
    several = Regression(known, values=2).references({**rows, "target": torch.zeros(2, 2)})
    assert several["persistence"].tolist() == [[1.5, 1.5], [1.0, 1.0]]
    assert list(several) == ["persistence"]


# --- measures


@pytest.mark.parametrize("positives", range(1, 60))
def test_a_perfect_order_has_an_average_precision_of_one(positives):
    """A sum of shares came to 1 - 1.1e-16, and the student to be 'worse' by that."""
    target = (torch.arange(60) < positives).long()
    assert measures.average_precision(-torch.arange(60.0), target) == 1.0


@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([-40.0, -1.0, 0.0, 0.5, 300.0]))),
)
def test_measures_are_those_of_scikit_learn(rows):
    """Scores are any numbers, with ties; classes may be missing among targets, choices or both."""
    rows = [*rows, (0, 1, 0.5), (1, 1, 0.0)]  # yes and no both occur
    target, choice = torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
    score, yes = torch.tensor([row[2] for row in rows]), (target == 1).long()
    assert measures.roc_auc(score, yes) == pytest.approx(sk.roc_auc_score(yes, score))
    assert measures.average_precision(score, yes) == pytest.approx(sk.average_precision_score(yes, score))
    assert float(measures.f1(choice, target, 3).nanmean()) == pytest.approx(
        sk.f1_score(target, choice, average="macro", zero_division=0)
    )
    occur = torch.unique(target)
    expected = sk.recall_score(target, choice, labels=occur, average=None, zero_division=0)
    assert measures.recall(choice, target, 3)[occur].numpy() == pytest.approx(expected)
    assert measures.confusion(choice, target, 3).numpy() == pytest.approx(
        sk.confusion_matrix(target, choice, labels=[0, 1, 2])
    )


def test_bounds_are_those_of_the_metric_that_a_class_names() -> None:
    """A head with R2 or a correlation in place of the metric that it inherits would have had intervals cut off at 0."""

    class Correlated(Multiclass):
        primary = "mcc"

    class Renamed(Multiclass):
        pass

    class Bounded(Multiclass):
        primary = "mcc"
        bounds = (-1.0, 1.0)

    assert Multiclass.bounds == Renamed.bounds == (0.0, 1.0)
    assert Correlated.bounds == (-math.inf, math.inf)
    assert Bounded.bounds == (-1.0, 1.0)
