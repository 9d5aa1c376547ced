"""Teachers and students of tables: shapes, gradients, seeds, and the rules of models that can be read."""

from __future__ import annotations

import re

import numpy as np
import pytest
import skops.io
import torch
from torch import nn

from stillhouse.components.trees import random_forest
from stillhouse.errors import OptionError
from stillhouse.kinds import OutputKind
from stillhouse.teachers.estimator import estimator_prediction
from stillhouse.training.estimators import fit_distilled, fit_hard
from stillhouse.types import DataInfo, Task, TensorSpec
from stillhouse_finance.rules import logistic_rules, tree_rules
from stillhouse_finance.students import decision_tree, logistic, mlp
from stillhouse_finance.teachers import ft_transformer, gradient_boosting, quantile_boosting

NETWORKS = {
    "mlp": (mlp, {}),
    "mlp-linear": (mlp, {"hidden": ()}),
    "mlp-dropout": (mlp, {"hidden": (8,), "dropout": 0.2}),
    "mlp-smooth": (mlp, {"hidden": (8,), "activation": "silu"}),
    "ft-transformer": (ft_transformer, {"width": 8, "heads": 2}),
}
KINDS = {OutputKind.BINARY: 1, OutputKind.MULTICLASS: 3, OutputKind.REGRESSION: 2}
FEATURES = 6


def task(kind: OutputKind, *, seed: int = 0, **meta) -> Task:
    info = DataInfo(
        inputs={"x": TensorSpec((FEATURES,))},
        classes={OutputKind.BINARY: ("genuine", "fraud"), OutputKind.MULTICLASS: ("a", "b", "c")}.get(kind),
        target_mean=50.0,
        target_std=10.0,
        meta=meta,
    )
    return Task(info=info, kind=kind, outputs=KINDS[kind], seed=seed)


def target(kind: OutputKind, x: torch.Tensor) -> torch.Tensor:
    """What depends on the first two columns."""
    score = x[:, 0] + 0.5 * x[:, 1]
    if kind is OutputKind.REGRESSION:
        return 50 + 10 * torch.stack([score, -score], dim=1)
    return (score > 0).float() if kind is OutputKind.BINARY else torch.bucketize(score, torch.tensor([-0.5, 0.5]))


@pytest.fixture(params=[(name, kind) for name in NETWORKS for kind in KINDS], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def network(request):
    name, kind = request.param
    torch.manual_seed(0)
    make, options = NETWORKS[name]
    return make(task(kind, column_widths=[1, 1, 3, 1]), **options), kind


def test_networks_predict_the_width_of_the_task_and_every_parameter_learns(network):
    model, kind = network
    x = torch.randn(7, FEATURES)
    prediction = model(x=x)
    assert prediction.shape == (7, KINDS[kind])
    prediction.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    model.eval()
    torch.testing.assert_close(model(x=x)[3:4], model(x=x[3:4]), atol=1e-4, rtol=1e-4)


def test_regression_starts_at_the_mean_of_the_target():
    for make, options in NETWORKS.values():
        torch.manual_seed(0)
        value = make(task(OutputKind.REGRESSION), **options).eval()(x=torch.randn(200, FEATURES))
        assert abs(float(value.detach().mean()) - 50) < 20, make.__name__


@pytest.mark.parametrize("name", ["mlp", "ft-transformer"])
def test_networks_learn(name):
    torch.manual_seed(0)
    make, options = NETWORKS[name]
    model = make(task(OutputKind.BINARY), **options)
    x = torch.randn(256, FEATURES)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x=x)[:, 0], target(OutputKind.BINARY, x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.3


def test_a_column_of_levels_is_one_token_of_the_transformer():
    numeric = ft_transformer(task(OutputKind.BINARY), width=8, heads=2)
    levels = ft_transformer(task(OutputKind.BINARY, column_widths=[1, 1, 4]), width=8, heads=2)
    assert numeric.bias.shape == (6, 8)
    assert levels.bias.shape == (3, 8)
    assert levels.owner.sum(dim=1).tolist() == [1, 1, 4]


ESTIMATORS = {
    "random-forest": (random_forest, {"n_estimators": 20}),
    "extra-trees": (random_forest, {"n_estimators": 20, "extra_trees": True}),
    "gradient-boosting": (gradient_boosting, {"max_iter": 20, "bins": 16}),
    "gradient-boosting-quantiles-only": (gradient_boosting, {"max_iter": 20, "bins": 0}),
    "decision-tree": (decision_tree, {}),
    "logistic": (logistic, {}),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", [OutputKind.BINARY, OutputKind.MULTICLASS])
def test_estimators_learn_from_labels_and_from_a_teacher_and_follow_their_seed(name, kind):
    torch.manual_seed(0)
    make, options = ESTIMATORS[name]
    x = torch.randn(300, FEATURES)
    labels, features = target(kind, x), x.numpy()
    fitted = []
    for _ in range(2):
        model = make(task(kind, seed=3), **options)
        fit_hard(model, features, labels, task(kind))
        fitted.append(estimator_prediction(model, features, kind, KINDS[kind]))
    assert fitted[0].shape == (300, KINDS[kind])
    assert torch.equal(*fitted)

    def accuracy(prediction):
        choice = prediction[:, 0] > 0 if kind is OutputKind.BINARY else prediction.argmax(dim=1)
        return float((choice == labels).double().mean())

    assert accuracy(fitted[0]) > 0.8
    teacher = 4 * (x[:, :1] + 0.5 * x[:, 1:2])
    if kind is OutputKind.MULTICLASS:
        teacher = torch.nn.functional.one_hot(labels, 3).float() * 4
    student = make(task(kind, seed=3), **options)
    fit_distilled(student, features, labels[:200], teacher, kind=kind, alpha=0.0)
    assert accuracy(estimator_prediction(student, features, kind, KINDS[kind])) > 0.8


@pytest.mark.parametrize("kind", [OutputKind.BINARY, OutputKind.MULTICLASS])
def test_a_tree_learns_mean_probabilities_and_counts_rows_once(kind):
    x = torch.arange(40.0)[:, None]
    labels = (x[:, 0] >= 30).float() if kind is OutputKind.BINARY else (x[:, 0] >= 30).long() * 2
    model = decision_tree(task(kind), max_depth=1, min_samples_leaf=15)
    fit_hard(model, x.numpy(), labels, task(kind))
    found = estimator_prediction(model, x.numpy(), kind, KINDS[kind])[-1].double()
    right = torch.sigmoid(found[0]) if kind is OutputKind.BINARY else torch.softmax(found, 0)[2]
    assert float(right) == pytest.approx(10 / 15, abs=1e-5)

    teacher = torch.randn(40, KINDS[kind], generator=torch.Generator().manual_seed(0))
    student = decision_tree(task(kind), max_depth=1, min_samples_leaf=15)
    fit_distilled(student, x.numpy(), labels, teacher, kind=kind, alpha=0.0)
    leaves = student.apply(x.numpy())
    assert min(np.unique(leaves, return_counts=True)[1]) >= 15  # not 15 repeats of fewer rows
    soft = torch.sigmoid(teacher) if kind is OutputKind.BINARY else torch.softmax(teacher, dim=1)
    mean = soft[leaves == leaves[0]].double().mean(dim=0)
    found = estimator_prediction(student, x.numpy(), kind, KINDS[kind])[0].double()
    learned = torch.sigmoid(found) if kind is OutputKind.BINARY else torch.softmax(found, 0)
    torch.testing.assert_close(learned, mean, atol=1e-5, rtol=0)


def test_regressors_follow_the_kind():
    torch.manual_seed(0)
    x = torch.randn(200, FEATURES)
    one = Task(info=task(OutputKind.REGRESSION).info, kind=OutputKind.REGRESSION, outputs=1)
    value = target(OutputKind.REGRESSION, x)[:, 0]
    for make in (random_forest, gradient_boosting, decision_tree):
        model = make(one)
        fit_hard(model, x.numpy(), value, one)
        error = estimator_prediction(model, x.numpy(), OutputKind.REGRESSION, 1)[:, 0] - value
        assert float(error.square().mean()) < 0.5 * float(value.var())


def test_quantile_boosting_predicts_the_quantiles():
    random = np.random.default_rng(0)
    x = random.normal(size=(2000, FEATURES))
    y = 5 * (x[:, 0] > 0) + random.normal(size=2000)
    three = Task(info=task(OutputKind.REGRESSION).info, kind=OutputKind.REGRESSION, outputs=3)
    model = quantile_boosting(three, quantiles=(0.1, 0.5, 0.9), max_features=1.0)
    model.fit(x, y)
    prediction = estimator_prediction(model, x, OutputKind.REGRESSION, 3).numpy()
    assert (y[:, None] <= prediction).mean(axis=0) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    with pytest.raises(OptionError, match="5 quantiles and the head 3"):
        quantile_boosting(three)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (mlp, {"hidden": (0,)}),
        (mlp, {"dropout": 1.0}),
        (logistic, {"penalty": 0.0}),
        (ft_transformer, {"width": 10, "heads": 4}),
        (gradient_boosting, {"bins": 1}),
        (gradient_boosting, {"bins": 256}),
    ],
)
def test_impossible_models_are_refused(make, options):
    with pytest.raises(OptionError) as told:
        make(task(OutputKind.BINARY), **options)
    assert told.value.fix


NAMES = {
    "feature_names": ["amount", "risk", "night", "a", "b", "c"],
    "feature_mean": [50.0, 0.0, 0.2, 0.0, 0.0, 0.0],
    "feature_std": [10.0, 2.0, 0.4, 1.0, 1.0, 1.0],
    "feature_yes_no": [False, False, True, False, False, False],
}


def obey(rules: str, values: dict[str, float]) -> str:
    """Follow a tree's rules by hand, to the words of the leaf."""
    depth = 0
    for line in rules.splitlines():
        if line.count("|   ") != depth:
            continue
        condition, _, leaf = line.replace("|   ", "").partition("  ->  ")
        found = re.fullmatch(r"(\w+)(?: (<=|>) (\S+)|: (yes|no))", condition.strip())
        assert found, line
        name, sign, threshold, answer = found.groups()
        if answer:
            holds = (values[name] > 0.5) == (answer == "yes")
        else:
            holds = values[name] <= float(threshold) if sign == "<=" else values[name] > float(threshold)
        if holds:
            if leaf:
                return leaf
            depth += 1
    raise AssertionError("no leaf")


@pytest.mark.parametrize("kind", [OutputKind.BINARY, OutputKind.MULTICLASS])
def test_rules_say_in_the_units_of_the_table_what_the_tree_predicts(kind):
    torch.manual_seed(0)
    own = torch.randn(400, FEATURES).double()
    own[:, 2] = (own[:, 2] > 0.8).double()
    mean, std = torch.tensor(NAMES["feature_mean"]), torch.tensor(NAMES["feature_std"])
    raw = torch.where(torch.arange(FEATURES) == 2, own, own * std + mean)
    x = (raw - mean) / std
    score = x[:, 0] + 2 * raw[:, 2] - 1
    labels = (score > 0).float() if kind is OutputKind.BINARY else torch.bucketize(score, torch.tensor([-0.5, 0.5]))
    mine = task(kind, **NAMES)
    model = decision_tree(mine, max_depth=3, min_samples_leaf=10)
    fit_hard(model, x.numpy(), labels, mine)
    rules = tree_rules(model, mine)
    assert "night: yes" in rules
    assert "amount <= " in rules
    prediction = estimator_prediction(model, x.numpy(), kind, KINDS[kind])
    for at in range(40):
        said = obey(rules, dict(zip(NAMES["feature_names"], raw[at].tolist(), strict=True)))
        if kind is OutputKind.BINARY:
            expected = f"fraud {torch.sigmoid(prediction[at, 0].double()):.2%}"
        else:
            share = prediction[at].double().exp()
            expected = f"{'abc'[int(share.argmax())]} {share.max():.1%}"
        assert said.startswith(expected), at
    assert sum(int(each) for each in re.findall(r"\((\d+) rows\)", rules)) == 400


def test_a_tree_without_a_split_and_one_of_values_have_rules_too():
    mine = task(OutputKind.BINARY, **NAMES)
    stump = decision_tree(mine, min_samples_leaf=100)
    stump.fit(np.zeros((10, FEATURES)), np.full(10, 0.25))
    assert tree_rules(stump, mine) == "always  ->  fraud 25.00%\n"
    value = task(OutputKind.REGRESSION)
    tree = decision_tree(value, max_depth=1, min_samples_leaf=1)
    tree.fit(np.eye(FEATURES), np.arange(FEATURES) * 10.0)
    assert re.search(r"x\d <= 0.5  ->  [\d.]+", tree_rules(tree, value))


def test_rules_of_a_logistic_regression_give_its_log_odds():
    torch.manual_seed(0)
    x = torch.randn(300, FEATURES).double()
    mine = task(OutputKind.BINARY, **NAMES)
    model = logistic(mine)
    model.fit(x.numpy(), target(OutputKind.BINARY, x).numpy().astype(int))
    first, *rest = logistic_rules(model, mine).splitlines()
    assert first.startswith("log-odds of fraud = ")
    total = float(first.rpartition("=")[2])
    raw = dict(zip(NAMES["feature_names"], (x[0].numpy() * NAMES["feature_std"] + NAMES["feature_mean"]), strict=True))
    for line in rest:
        weight, _, name = line.strip().partition(" * ")
        total += float(weight) * raw[name]
    assert total == pytest.approx(float(model.decision_function(x[:1].numpy())[0]), abs=1e-3)
    assert rest[0].endswith("amount")
    several = task(OutputKind.MULTICLASS, **NAMES)
    model = logistic(several)
    model.fit(x.numpy(), target(OutputKind.MULTICLASS, x).numpy())
    assert re.findall(r"score of (\w)", logistic_rules(model, several)) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", [OutputKind.BINARY, OutputKind.MULTICLASS])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_a_tree_that_learned_at_a_temperature_answers_as_its_teacher(kind, temperature, tmp_path):
    """It answered with the softened probabilities: .65 where the teacher has .98, and its rules said so."""
    values = 3 * torch.randn(4, KINDS[kind], generator=torch.Generator().manual_seed(0))
    groups = torch.arange(80) % 4
    x, teacher = groups[:, None].float(), values[groups]
    student = decision_tree(task(kind), max_depth=4, min_samples_leaf=1)
    labels = torch.zeros(80) if kind is OutputKind.BINARY else torch.zeros(80, dtype=torch.int64)
    fit_distilled(student, x.numpy(), labels, teacher, kind=kind, alpha=0.0, temperature=temperature)
    skops.io.dump(student, tmp_path / "tree.skops")
    kept = skops.io.load(tmp_path / "tree.skops", trusted=skops.io.get_untrusted_types(file=tmp_path / "tree.skops"))
    for model in (student, kept):
        found = estimator_prediction(model, x.numpy(), kind, KINDS[kind])
        if kind is OutputKind.BINARY:
            torch.testing.assert_close(found.sigmoid(), teacher.sigmoid(), atol=1e-4, rtol=0)
        else:
            torch.testing.assert_close(found.softmax(1), teacher.softmax(1), atol=1e-4, rtol=0)
    rules = tree_rules(student, task(kind))
    best = teacher.sigmoid()[:, 0] if kind is OutputKind.BINARY else teacher.softmax(1).max(dim=1).values
    digits = ".2%" if kind is OutputKind.BINARY else ".1%"
    for each in best[:4].tolist():
        assert f"{each:{digits}}" in rules


def test_rules_say_which_level_a_column_has_or_has_not():
    names = {**NAMES, "feature_names": ["amount", "risk", "smoker = no", "a", "b", "c"]}
    x = torch.zeros(40, FEATURES).double()
    x[20:, 2] = 1.0
    mine = task(OutputKind.BINARY, **{**names, "feature_mean": [0.0] * 6, "feature_std": [1.0] * 6})
    model = decision_tree(mine, max_depth=1)
    fit_hard(model, x.numpy(), x[:, 2].float(), mine)
    conditions = [line.split("  ->")[0] for line in tree_rules(model, mine).splitlines()]
    assert conditions == ["smoker != no", "smoker = no"]
