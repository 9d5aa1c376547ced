"""Core's models and synthetic dataset: every output kind end to end, seeds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stillhouse import heads
from stillhouse.components import models, trees
from stillhouse.components.datasets import synthetic
from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.kinds import ALL_KINDS, OutputKind
from stillhouse.types import DataContext, DataInfo, Task, TensorSpec

HEADS = {
    "multiclass": heads.Multiclass,
    "binary": heads.Binary,
    "multilabel": heads.Multilabel,
    "regression": heads.Regression,
    "gaussian": heads.Gaussian,
    "segmentation": heads.Segmentation,
    "sequence": heads.Sequence,
}
every_kind = pytest.mark.parametrize("kind", [str(kind) for kind in ALL_KINDS])


@pytest.fixture
def context(tmp_path):
    return DataContext(root=tmp_path, base=tmp_path)


def task_of(splits, kind, **options):
    head = HEADS[kind](splits.info, **options)
    return head, Task(info=splits.info, kind=OutputKind(kind), outputs=head.outputs)


def fitted(model, head, splits, epochs=12):
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(splits.train), generator=order).split(64):
            batch = splits.train.batch(rows.tolist())
            loss = head.hard_loss(model(**{name: batch[name] for name in splits.info.inputs}), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    test = splits.test.columns()
    with torch.no_grad():
        return head.evaluate(model(x=test["x"]), test)


def primary(found, head):
    return found[head.primary] * (1 if head.higher_is_better else -1)


@every_kind
def test_training_beats_an_untrained_model_of_the_same_kind(context, kind):
    splits = synthetic(context, kind=kind, rows=600)
    head, task = task_of(splits, kind)
    torch.manual_seed(0)
    model = models.mlp(task, hidden=(64,))
    assert primary(fitted(model, head, splits), head) > primary(fitted(models.mlp(task), head, splits, epochs=0), head)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "regression"])
def test_a_wide_network_clearly_beats_a_tiny_one(context, kind):
    splits = synthetic(context, kind=kind)
    head, task = task_of(splits, kind)
    figures = []
    for hidden in ((256, 256), (8,)):
        torch.manual_seed(0)
        figures.append(fitted(models.mlp(task, hidden=hidden), head, splits)[head.primary])
    wide, tiny = figures
    assert (wide > tiny + 0.05) if head.higher_is_better else (wide < 0.85 * tiny)


@every_kind
def test_equal_seeds_make_equal_rows_and_other_seeds_others(context, tmp_path, kind):
    def fingerprint(seed):
        made = synthetic(DataContext(root=tmp_path, base=tmp_path, seed=seed), kind=kind, rows=80)
        return [split.fingerprint() for split in made.named().values()]

    assert fingerprint(1) == fingerprint(1)
    assert not set(fingerprint(1)) & set(fingerprint(2))


def test_splits_share_no_row_and_no_unit(context):
    splits = synthetic(context, rows=300, groups=30, unlabelled=50)
    parts = list(splits.named().values())
    index = torch.cat([split.index() for split in (*parts, splits.unlabelled)])
    assert sorted(index.tolist()) == list(range(350))
    groups = [set(split.groups) for split in parts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    assert "target" not in splits.unlabelled.columns()


def test_unlabelled_rows_leave_the_shares_of_the_splits_alone(context):
    splits = synthetic(context, rows=400, unlabelled=100)
    assert [len(split) for split in splits.named().values()] == [240, 60, 100]
    assert len(splits.unlabelled) == 100
    assert splits.info.simulated


@every_kind
def test_info_describes_the_training_rows(context, kind):
    splits = synthetic(context, kind=kind, rows=200, classes=3)
    train = splits.train.columns()
    assert splits.info.inputs["x"].shape == tuple(train["x"].shape[1:])
    if kind in ("regression", "gaussian"):
        assert splits.info.target_mean == pytest.approx(train["target"].mean().item())
        assert splits.info.target_std == pytest.approx(train["target"].std().item())
    else:
        counts = splits.info.class_counts
        assert len(counts) == len(splits.info.classes)
        expected = (train["target"] == 1).sum(0) if kind == "multilabel" else (train["target"] == 0).sum()
        assert list(counts) == expected.tolist() if kind == "multilabel" else counts[0] == int(expected)


@pytest.mark.parametrize(
    "options",
    [{"rows": 10}, {"features": 2}, {"classes": 1}, {"groups": 3}, {"noise": -1}, {"unlabelled": -1}],
)
def test_options_out_of_range_are_refused(context, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        synthetic(context, **options)


def plain(shapes, kind="regression", outputs=1, **fields):
    info = DataInfo(inputs=shapes, **fields)
    return Task(info=info, kind=OutputKind(kind), outputs=outputs, seed=3)


def test_networks_take_all_float_inputs_and_ignore_others():
    shapes = {"a": TensorSpec((2, 3)), "ids": TensorSpec((4,), "int64"), "b": TensorSpec(())}
    model = models.linear(plain(shapes, outputs=2))
    batch = {"b": torch.randn(5), "a": torch.randn(5, 2, 3), "ids": torch.ones(5, 4).long()}
    batch["b"] = batch["b"].reshape(5, 1)
    assert model(**batch).shape == (5, 2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2 * 7 + 2


def test_scalar_inputs_of_one_dimension():
    model = models.linear(plain({"b": TensorSpec(())}))
    assert model(b=torch.randn(5)).shape == (5, 1)


def test_regression_networks_start_at_the_mean_of_the_target():
    model = models.mlp(plain({"x": TensorSpec((4,))}, target_mean=500.0, target_std=10.0))
    assert model(x=torch.zeros(3, 4)).sub(500).abs().max() < 10


def test_gaussian_networks_start_at_the_spread_of_the_target():
    model = models.mlp(plain({"x": TensorSpec((4,))}, kind="gaussian", outputs=2, target_mean=500.0, target_std=10.0))
    mean, log_variance = model(x=torch.zeros(3, 4)).unbind(1)
    assert (mean - 500).abs().max() < 10
    assert (log_variance - 2 * np.log(10)).abs().max() < 1


def test_dropout_acts_in_training_only():
    model = models.mlp(plain({"x": TensorSpec((4,))}), dropout=0.5)
    x = torch.randn(64, 4)
    assert not torch.equal(model(x=x), model(x=x))
    model.eval()
    assert torch.equal(model(x=x), model(x=x))


@pytest.mark.parametrize(
    ("shapes", "kind", "message"),
    [
        ({"ids": TensorSpec((4,), "int64")}, "regression", "is float"),
        ({"x": TensorSpec((-1, 4))}, "regression", "no fixed size"),
        ({"x": TensorSpec((4,))}, "segmentation", "positions"),
    ],
)
def test_inputs_that_do_not_suit_are_refused(shapes, kind, message):
    with pytest.raises(IncompatibleError, match=message):
        models.mlp(plain(shapes, kind=kind))


@pytest.mark.parametrize("options", [{"hidden": (0,)}, {"dropout": 1.0}])
def test_mlp_options_out_of_range_are_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        models.mlp(plain({"x": TensorSpec((4,))}), **options)


ESTIMATORS = {
    "forest": (trees.random_forest, {"n_estimators": 10}),
    "boosting": (trees.hist_gradient_boosting, {"max_iter": 10}),
    "tree": (trees.decision_tree, {}),
}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


@every_estimator
@pytest.mark.parametrize("kind", ["multiclass", "binary", "regression"])
def test_estimators_fit_and_are_seeded_by_the_task(context, name, kind):
    splits = synthetic(context, kind=kind, rows=200)
    _, task = task_of(splits, kind)
    make, options = ESTIMATORS[name]
    train = splits.train.columns()
    answers = [
        make(task, **options).fit(train["x"].numpy(), train["target"].numpy()).predict(train["x"].numpy())
        for _ in range(2)
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    classifies = name != "tree" and kind != "regression"  # the tree is a regression tree on probabilities
    assert hasattr(make(task, **options), "predict_proba") == classifies


@every_estimator
@pytest.mark.parametrize("kind", ["gaussian", "segmentation", "sequence"])
def test_estimators_refuse_kinds_they_cannot_predict(name, kind):
    with pytest.raises(IncompatibleError, match=f"cannot predict {kind}"):
        ESTIMATORS[name][0](plain({"x": TensorSpec((4,))}, kind=kind, outputs=2))


def test_boosting_refuses_several_targets_and_the_tree_takes_them(context):
    splits = synthetic(context, kind="multilabel", rows=100)
    _, task = task_of(splits, "multilabel")
    with pytest.raises(IncompatibleError, match="random-forest"):
        trees.hist_gradient_boosting(task)
    train = splits.train.columns()
    tree = trees.decision_tree(task).fit(train["x"].numpy(), train["target"].numpy())
    assert tree.predict(train["x"].numpy()).shape == (60, 4)
