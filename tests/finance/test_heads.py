"""The heads of fraud and volatility against independent formulas."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, mean_pinball_loss, roc_auc_score

from stillhouse.errors import DataError, OptionError, TrainingError
from stillhouse.kinds import OutputKind
from stillhouse.types import DataInfo, TensorSpec
from stillhouse_finance.heads import Fraud, Volatility
from stillhouse_finance.heads.fraud import card_precision, recall_at_fpr

CARDS = DataInfo(
    inputs={"x": TensorSpec((3,))}, classes=("genuine", "fraud"), class_counts=(90, 10), meta={"by_card": True}
)
INDEX = DataInfo(
    inputs={"x": TensorSpec((3,))},
    unit="points",
    target_std=0.1,
    meta={"target_percentiles": np.linspace(-0.5, 0.5, 101).tolist()},
)


def naive_card_precision(score, fraud, card, day, top):
    """Chapter 4 of the handbook, row by row: the cards of a day by their highest score; found ones are blocked."""
    found, blocked = [], set()
    for each in sorted(set(day)):
        best, compromised = {}, set()
        for s, y, c, d in zip(score, fraud, card, day, strict=True):
            if d == each and c not in blocked:
                best[c] = max(best.get(c, -math.inf), s)
                if y:
                    compromised.add(c)
        checked = sorted(best, key=lambda c: (-best[c], c))[:top]
        hits = [c for c in checked if c in compromised]
        blocked |= set(hits)
        found.append(len(hits) / top)
    return sum(found) / len(found)


transaction = st.tuples(st.integers(-5, 5), st.integers(0, 1), st.integers(0, 6), st.integers(0, 3))


@given(st.lists(transaction, min_size=1, max_size=40), st.integers(1, 5))
def test_card_precision_equals_the_definition(rows, top):
    columns = [list(column) for column in zip(*rows, strict=True)]
    score, *rest = map(np.array, columns)
    assert card_precision(score.astype(float), *rest, top) == pytest.approx(naive_card_precision(*columns, top))


@given(st.lists(st.tuples(st.floats(-300, 300), st.booleans()), min_size=2, max_size=40), st.floats(0.01, 0.9))
def test_recall_at_a_false_positive_rate_equals_a_search_over_thresholds(rows, fpr):
    score, label = np.array([each for each, _ in rows]), np.array([flag for _, flag in rows])
    if label.all() or not label.any():
        return
    expected = max(
        [0.0] + [(score[label] >= at).mean() for at in score if (score[~label] >= at).mean() <= fpr * (1 + 1e-6)]
    )
    found = recall_at_fpr(torch.from_numpy(score), torch.from_numpy(label).long(), fpr)
    assert found == pytest.approx(expected)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_fraud_metrics_equal_those_of_scikit_learn(seed):
    random = np.random.default_rng(seed)
    target = (random.random(60) < 0.3).astype(int)
    target[:2] = 0, 1
    logit = (random.normal(0, 8, 60).round() + 3 * target).astype(np.float32)
    rows = {
        "target": torch.from_numpy(target).float(),
        "card": torch.from_numpy(random.integers(0, 15, 60)),
        "day": torch.from_numpy(random.integers(0, 3, 60)),
    }
    found = Fraud(CARDS, cards=4).evaluate(torch.from_numpy(logit)[:, None], rows)
    assert found["average_precision"] == pytest.approx(average_precision_score(target, logit), abs=1e-6)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(target, logit), abs=1e-6)
    expected = naive_card_precision(logit, target, rows["card"].tolist(), rows["day"].tolist(), 4)
    assert found["card_precision_4"] == pytest.approx(expected)
    assert 0 <= found["ece"] <= 1
    assert {"recall_at_fpr", "recall", "f1", "nll"} <= set(found)


def test_scores_of_any_size_are_ranked_without_ties():
    target = torch.tensor([0.0] * 99 + [1.0])
    for scale in (1.0, 1e-3, 500.0):
        found = Fraud(CARDS, cards=1).evaluate(
            scale * torch.arange(100.0)[:, None],
            {"target": target, "card": torch.arange(100), "day": torch.zeros(100).long()},
        )
        assert found["average_precision"] == found["roc_auc"] == found["recall_at_fpr"] == 1
        assert found["card_precision_1"] == 1


def test_without_cards_the_head_judges_any_binary_table():
    plain = DataInfo(inputs={"x": TensorSpec((3,))}, class_counts=(3, 1))
    head = Fraud(plain)
    assert head.row_entries() == ()
    assert Fraud(CARDS).row_entries() == ("card", "day")
    found = head.evaluate(torch.tensor([[1.0], [-1.0]]), {"target": torch.tensor([1.0, 0.0])})
    assert not any(name.startswith("card") for name in found)


def test_imbalance_weighs_the_training_loss_only():
    balanced, plain = Fraud(CARDS, pos_weight="balanced", cards=1), Fraud(CARDS, cards=1)
    prediction = torch.tensor([[0.5], [-1.0]])
    batch = {"target": torch.tensor([1.0, 0.0]), "card": torch.arange(2), "day": torch.zeros(2).long()}
    genuine = math.log1p(math.exp(-1.0))
    fraud = math.log1p(math.exp(-0.5))
    assert float(plain.hard_loss(prediction, batch)) == pytest.approx((fraud + genuine) / 2)
    assert float(balanced.hard_loss(prediction, batch)) == pytest.approx((9 * fraud + genuine) / 2)
    assert balanced.evaluate(prediction, batch) == plain.evaluate(prediction, batch)


def test_fraud_refuses_what_it_cannot_judge():
    for wrong in ({"cards": 0}, {"fpr": 0.0}, {"fpr": 1.0}):
        with pytest.raises(OptionError):
            Fraud(CARDS, **wrong)
    rows = {"target": torch.zeros(3), "card": torch.arange(3), "day": torch.zeros(3).long()}
    with pytest.raises(DataError, match="of class 'genuine'"):
        Fraud(CARDS).evaluate(torch.zeros(3, 1), rows)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_volatility_metrics_equal_independent_formulas_in_points(seed):
    random = np.random.default_rng(seed)
    levels = (0.1, 0.5, 0.9)
    head = Volatility(INDEX, quantiles=levels)
    change = np.sort(random.normal(0, 0.1, (30, 3)), axis=1)
    close, target = random.uniform(10, 60, 30), random.normal(0, 0.1, 30)
    rows = {"target": torch.from_numpy(target), "close": torch.from_numpy(close)}
    found = head.evaluate(torch.from_numpy(change), rows)
    points, true = close[:, None] * np.exp(change), close * np.exp(target)
    losses = [mean_pinball_loss(true, points[:, i], alpha=level) for i, level in enumerate(levels)]
    assert found["pinball"] == pytest.approx(np.mean(losses))
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean((points[:, 1] - true) ** 2)))
    assert found["mae"] == pytest.approx(np.mean(np.abs(points[:, 1] - true)))
    assert found["coverage"] == pytest.approx(np.mean((true >= points[:, 0]) & (true <= points[:, 2])))
    crossed = head.evaluate(torch.from_numpy(change[:, ::-1].copy()), rows)
    assert crossed == pytest.approx(found)
    hard = float(head.hard_loss(torch.from_numpy(change), rows))
    assert hard == pytest.approx(
        np.mean([mean_pinball_loss(target, change[:, i], alpha=q) for i, q in enumerate(levels)])
    )


def test_the_hard_loss_is_smallest_at_the_quantiles():
    head = Volatility(INDEX)
    target = torch.linspace(0, 1, 1001)
    value = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.Adam([value], lr=0.02)
    for _ in range(300):
        loss = head.hard_loss(value.expand(1001, 5), {"target": target})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(value.detach().double(), head.levels, atol=0.03, rtol=0)


def test_references_are_persistence_and_the_quantiles_of_the_past():
    head = Volatility(INDEX, quantiles=(0.25, 0.5, 0.9))
    rows = {"target": torch.tensor([0.1, -0.1]), "close": torch.tensor([20.0, 30.0])}
    references = head.references(rows)
    torch.testing.assert_close(references["persistence"], torch.zeros(2, 3))
    expected = torch.tensor([[-0.25, 0.0, 0.4]]).expand(2, 3)
    torch.testing.assert_close(references["persistence with past quantiles"], expected)
    found = head.evaluate(references["persistence"], rows)
    errors = [20 * math.exp(0.1) - 20, 30 * math.exp(-0.1) - 30]
    assert found["mae"] == pytest.approx(sum(map(abs, errors)) / 2, rel=1e-6)
    assert found["coverage"] == 0


def test_decoded_changes_are_shares_in_order():
    decoded = Volatility(INDEX).decode(torch.tensor([[0.2, 0.1, 0.0, -0.1, -0.2]]))
    assert list(decoded) == ["change_q05", "change_q25", "change_q50", "change_q75", "change_q95"]
    assert [column[0] for column in decoded.values()] == pytest.approx(np.expm1([-0.2, -0.1, 0, 0.1, 0.2]).tolist())


def test_volatility_refuses_bad_levels_and_bad_rows():
    for wrong in ((0.5, 0.1), (0.1, 0.9), (0.0, 0.5), (0.5, 0.5)):
        with pytest.raises(OptionError, match="quantiles"):
            Volatility(INDEX, quantiles=wrong)
    rows = {"target": torch.tensor([0.1]), "close": torch.tensor([20.0])}
    with pytest.raises(TrainingError, match="not finite"):
        Volatility(INDEX).evaluate(torch.full((1, 5), float("nan")), rows)
    with pytest.raises(DataError, match="no rows"):
        Volatility(INDEX).evaluate(torch.zeros(0, 5), {name: entry[:0] for name, entry in rows.items()})


def test_heads_declare_what_they_evaluate():
    assert (Fraud.kind, Fraud.primary, Fraud.higher_is_better) == (OutputKind.BINARY, "average_precision", True)
    head = Volatility(INDEX)
    assert (head.kind, head.outputs, head.primary, head.higher_is_better) == (
        OutputKind.REGRESSION,
        5,
        "pinball",
        False,
    )


@pytest.mark.parametrize("rows", [1, 50])
def test_figures_of_volatility_are_drawn(rows):
    head = Volatility(INDEX)
    batch = {"target": torch.randn(rows) / 10, "close": torch.rand(rows) * 30 + 10}
    predictions = {name: torch.randn(rows, 5) / 10 for name in ("teacher", "baseline", "student")}
    drawn = head.figures(predictions, batch)
    assert len(drawn) == 2
    for each in drawn:
        assert each.title
        assert each.caption
        written = io.BytesIO()
        each.figure.savefig(written, format="svg")
        assert written.getvalue().startswith(b"<?xml")
