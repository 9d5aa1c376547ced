"""Teacher sources: live, ensemble, cached, estimator, out of fold."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor, nn

from stillhouse.data.splitting import fold_positions
from stillhouse.errors import IncompatibleError, RunFolderError, TrainingError
from stillhouse.kinds import OutputKind
from stillhouse.teachers import CachedTeacher, EnsembleTeacher, EstimatorTeacher, LiveTeacher, write_cache
from stillhouse.types import Batch, Outputs, TensorSplit


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x))


def rows(length: int = 20, start: int = 0) -> TensorSplit:
    generator = torch.Generator().manual_seed(start + 1)
    return TensorSplit(
        {
            "x": torch.randn(length, 4, generator=generator),
            "target": torch.arange(length) % 3,
            "index": torch.arange(start, start + length),
        }
    )


def test_a_live_teacher_is_frozen_in_eval_mode_and_gives_features_without_gradient() -> None:
    net = Net().train()
    teacher = LiveTeacher(net, inputs=["x"], taps=["body.0"])
    batch = rows().columns()
    first, second = teacher(batch), teacher(batch)
    assert torch.equal(first.prediction, second.prediction), "dropout is off"
    assert not first.prediction.requires_grad
    assert torch.equal(first.features["body.0"], net.body[0](batch["x"]))
    assert not any(parameter.requires_grad for parameter in net.parameters())
    teacher.assert_unchanged()


def test_a_teacher_put_into_train_mode_is_refused_at_the_next_step() -> None:
    net = Net()
    teacher = LiveTeacher(net, inputs=["x"])
    nn.Sequential(net).train()
    with pytest.raises(TrainingError, match="train mode"):
        teacher(rows().columns())


def test_a_changed_buffer_is_noticed() -> None:
    net = Net()
    teacher = LiveTeacher(net, inputs=["x"])
    net.body[1].running_mean += 1e-3
    with pytest.raises(TrainingError, match="changed"):
        teacher.assert_unchanged()


def fixed(prediction: Tensor) -> object:
    return lambda batch: Outputs(prediction[: len(batch["index"])])


@pytest.mark.parametrize("kind", [OutputKind.MULTICLASS, OutputKind.SEQUENCE])
def test_an_ensemble_of_classifiers_averages_probabilities(kind: OutputKind) -> None:
    shape = (5, 3) if kind is OutputKind.MULTICLASS else (5, 7, 3)
    one, two = torch.randn(shape), 4 * torch.randn(shape)
    mixed = EnsembleTeacher([fixed(one), fixed(two)], weights=[3, 1], kind=kind)({"index": torch.arange(5)})
    expected = 0.75 * one.softmax(-1) + 0.25 * two.softmax(-1)
    torch.testing.assert_close(mixed.prediction.softmax(-1), expected)


def test_an_ensemble_of_segmenters_averages_over_the_class_axis() -> None:
    one, two = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mixed = EnsembleTeacher([fixed(one), fixed(two)], weights=[1, 1], kind=OutputKind.SEGMENTATION)(
        {"index": torch.arange(2)}
    )
    torch.testing.assert_close(mixed.prediction.softmax(1), (one.softmax(1) + two.softmax(1)) / 2)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_an_ensemble_of_binary_models_averages_probabilities_and_stays_finite(scale: float) -> None:
    one, two = scale * torch.randn(6, 1), scale * torch.randn(6, 1)
    mixed = EnsembleTeacher([fixed(one), fixed(two)], weights=[1, 1], kind=OutputKind.BINARY)(
        {"index": torch.arange(6)}
    )
    assert torch.isfinite(mixed.prediction).all()
    torch.testing.assert_close(mixed.prediction.sigmoid(), (one.sigmoid() + two.sigmoid()) / 2)


def test_ensembles_of_values_and_of_gaussians() -> None:
    one, two = torch.randn(6, 2), torch.randn(6, 2)
    index = {"index": torch.arange(6)}
    mean = EnsembleTeacher([fixed(one), fixed(two)], weights=[1, 3], kind=OutputKind.REGRESSION)(index).prediction
    torch.testing.assert_close(mean, 0.25 * one + 0.75 * two)
    gaussian = EnsembleTeacher([fixed(one), fixed(two)], weights=[1, 1], kind=OutputKind.GAUSSIAN)(index).prediction
    means, variances = torch.stack([one[:, 0], two[:, 0]]), torch.stack([one[:, 1], two[:, 1]]).exp()
    torch.testing.assert_close(gaussian[:, 0], means.mean(0))
    torch.testing.assert_close(gaussian[:, 1].exp(), variances.mean(0) + means.var(0, unbiased=False))


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_an_ensemble_needs_one_positive_weight_per_member(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="positive weight"):
        EnsembleTeacher([fixed(torch.zeros(1, 1))] * 2, weights=weights, kind=OutputKind.REGRESSION)


def test_a_cache_says_what_the_teacher_says_in_any_order(tmp_path: Path) -> None:
    teacher = LiveTeacher(Net(), inputs=["x"], taps=["body"])
    first, second = rows(20), rows(10, start=100)
    write_cache(teacher, first, tmp_path / "a", key="k", batch_size=7)
    write_cache(teacher, second, tmp_path / "b", key="k", batch_size=7)
    cached = CachedTeacher((tmp_path / "a", "k"), (tmp_path / "b", None))
    mixed: Batch = {
        name: torch.cat([first.columns()[name][[3, 19, 0]], second.columns()[name][[9, 0]]])[[4, 0, 3, 1, 2]]
        for name in ("x", "index")
    }
    live, kept = teacher(mixed), cached(mixed)
    torch.testing.assert_close(kept.prediction, live.prediction)
    torch.testing.assert_close(kept.features["body"], live.features["body"])


def test_shards_of_any_size_hold_the_same_bits_and_those_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    teacher, split, asked = LiveTeacher(Net(), inputs=["x"], taps=["body"]), rows(50), []

    def counting(batch: Batch) -> Outputs:
        asked.append(len(batch["index"]))
        return teacher(batch)

    one = write_cache(counting, split, tmp_path / "one", key="k", batch_size=7)
    many = write_cache(counting, split, tmp_path / "many", key="k", batch_size=7, shard_rows=10)
    assert (one["shards"], many["shards"], one["rows"], many["rows"]) == (1, 4, 50, 50)
    order = split.batch(torch.randperm(50).tolist())
    found = [CachedTeacher((tmp_path / name, "k"))(order) for name in ("one", "many")]
    assert torch.equal(found[0].prediction, found[1].prediction)
    assert torch.equal(found[0].features["body"], found[1].features["body"])
    before, asked[:] = (tmp_path / "many" / "shard-000001" / "0.npy").stat().st_mtime_ns, []
    shutil.rmtree(tmp_path / "many" / "shard-000002")
    (tmp_path / "many" / "cache.json").unlink()
    assert write_cache(counting, split, tmp_path / "many", key="k", batch_size=7)["shards"] == 4, "its own division"
    assert asked == [7, 7]
    assert (tmp_path / "many" / "shard-000001" / "0.npy").stat().st_mtime_ns == before
    write_cache(counting, split, tmp_path / "many", key="other", batch_size=7)
    assert len(list((tmp_path / "many").glob("shard-*"))) == 1, "another key begins anew"


def test_half_precision_is_half_the_bytes_and_near(tmp_path: Path) -> None:
    teacher, split = LiveTeacher(Net(), inputs=["x"]), rows(200)
    write_cache(teacher, split, tmp_path / "whole", key="k")
    write_cache(teacher, split, tmp_path / "half", key="k", precision="float16")
    sizes = [np.load(tmp_path / name / "shard-000000" / "0.npy").nbytes for name in ("whole", "half")]
    assert sizes[0] == 2 * sizes[1]
    whole, half = (CachedTeacher((tmp_path / name, "k"))(split.columns()).prediction for name in ("whole", "half"))
    assert half.dtype is torch.float32
    assert not torch.equal(whole, half)
    torch.testing.assert_close(half, whole, rtol=2**-11, atol=1e-7)
    with pytest.raises(IncompatibleError, match="half precision ends"):
        write_cache(lambda batch: Outputs(batch["x"] * 1e6), split, tmp_path / "large", key="k", precision="float16")


def test_a_cache_refuses_other_rows_other_teachers_and_random_rows(tmp_path: Path) -> None:
    teacher = LiveTeacher(Net(), inputs=["x"])
    split = rows()
    write_cache(teacher, split, tmp_path / "a", key="k")
    with pytest.raises(RunFolderError, match="other rows or another teacher"):
        CachedTeacher((tmp_path / "a", "other"))
    with pytest.raises(RunFolderError, match="row 999"):
        CachedTeacher((tmp_path / "a", "k"))({"index": torch.tensor([0, 999])})
    (tmp_path / "a" / "shard-000000" / "0.npy").write_bytes(b"damaged")
    with pytest.raises(RunFolderError, match="damaged"):
        CachedTeacher((tmp_path / "a", "k"))
    split.stochastic = True
    with pytest.raises(IncompatibleError, match="randomly augmented"):
        write_cache(teacher, split, tmp_path / "b", key="k")
    assert not (tmp_path / "b").exists()


def flat(batch: Batch) -> np.ndarray:
    return batch["x"].numpy()


def test_a_forest_gives_logits_and_classes_it_never_saw_get_none() -> None:
    columns = rows(60).columns()
    labels = (columns["target"] % 2 * 2).numpy()  # classes 0 and 2 of three
    forest = RandomForestClassifier(20, random_state=0).fit(flat(columns), labels)
    teacher = EstimatorTeacher(forest, features=flat, kind=OutputKind.MULTICLASS, outputs=3)
    probabilities = teacher(columns).prediction.softmax(1)
    assert probabilities.shape == (60, 3)
    assert float(probabilities[:, 1].max()) < 1e-5
    np.testing.assert_allclose(probabilities[:, [0, 2]], forest.predict_proba(flat(columns)), atol=1e-5)


def test_pure_leaves_give_finite_logits() -> None:
    columns = rows(30).columns()
    tree = DecisionTreeClassifier().fit(flat(columns), (columns["target"] > 0).numpy())
    prediction = EstimatorTeacher(tree, features=flat, kind=OutputKind.BINARY, outputs=1)(columns).prediction
    assert prediction.shape == (30, 1)
    assert torch.isfinite(prediction).all()
    assert ((prediction > 0).flatten() == (columns["target"] > 0)).all()


def test_a_multilabel_forest_and_a_regressor() -> None:
    columns = rows(40).columns()
    labels = np.stack([columns["target"].numpy() > 0, columns["target"].numpy() > 1], axis=1).astype(int)
    forest = RandomForestClassifier(10, random_state=0).fit(flat(columns), labels)
    prediction = EstimatorTeacher(forest, features=flat, kind=OutputKind.MULTILABEL, outputs=2)(columns).prediction
    expected = np.stack([each[:, 1] for each in forest.predict_proba(flat(columns))], axis=1)
    np.testing.assert_allclose(prediction.sigmoid(), expected, atol=1e-5)
    values = RandomForestRegressor(5, random_state=0).fit(flat(columns), columns["target"].numpy())
    prediction = EstimatorTeacher(values, features=flat, kind=OutputKind.REGRESSION, outputs=1)(columns).prediction
    np.testing.assert_allclose(prediction[:, 0], values.predict(flat(columns)), rtol=1e-5)


def test_folds_keep_groups_together_and_hold_out_every_row_once() -> None:
    split = TensorSplit({"target": torch.arange(30) % 2}, groups=[f"g{i // 4}" for i in range(30)])
    folds = fold_positions(split, 3, OutputKind.BINARY, seed=0)
    assert sorted(row for _, held in folds for row in held) == list(range(30))
    for kept, held in folds:
        assert {split.groups[row] for row in kept}.isdisjoint(split.groups[row] for row in held)
    with pytest.raises(IncompatibleError, match="as many groups"):
        fold_positions(split, 9, OutputKind.BINARY, seed=0)


def test_folds_without_groups_keep_class_shares() -> None:
    split = TensorSplit({"target": torch.tensor([0] * 40 + [1] * 8)})
    for _, held in fold_positions(split, 4, OutputKind.BINARY, seed=0):
        assert sum(row >= 40 for row in held) == 2
