"""The RUL head against independent formulas, and its figures."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.kinds import OutputKind
from stillhouse.types import DataInfo, TensorSpec
from stillhouse_industrial.heads import RUL


def head(**options) -> RUL:
    return RUL(DataInfo(inputs={"signal": TensorSpec((30, 14))}, unit="cycles", meta={"cap": 125.0}), **options)


values = st.lists(st.tuples(st.floats(-50, 200), st.floats(0, 125)), min_size=1, max_size=20)


@given(values)
def test_metrics_equal_formulas_over_single_rows(pairs):
    prediction = torch.tensor([[each] for each, _ in pairs], dtype=torch.float32)
    target = torch.tensor([each for _, each in pairs], dtype=torch.float32)
    found = head().evaluate(prediction, {"target": target})
    clipped = [min(max(float(each), 0.0), 125.0) for each in prediction[:, 0]]
    errors = [mine - float(true) for mine, true in zip(clipped, target, strict=True)]
    score = sum(math.exp(-d / 13) - 1 if d < 0 else math.exp(d / 10) - 1 for d in errors)
    assert found["rmse"] == pytest.approx(math.sqrt(sum(d * d for d in errors) / len(errors)), abs=1e-9)
    assert found["mae"] == pytest.approx(sum(map(abs, errors)) / len(errors), abs=1e-9)
    assert found["bias"] == pytest.approx(sum(errors) / len(errors), abs=1e-9)
    assert found["phm08"] == pytest.approx(score, rel=1e-9, abs=1e-9)
    late = [d for d, true in zip(errors, target, strict=True) if float(true) <= 30]
    if late:
        assert found["rmse_last30"] == pytest.approx(math.sqrt(sum(d * d for d in late) / len(late)), abs=1e-9)
    else:
        assert "rmse_last30" not in found


def test_phm08_punishes_late_predictions_more():
    target = torch.tensor([50.0])
    early = head().evaluate(torch.tensor([[40.0]]), {"target": target})["phm08"]
    late = head().evaluate(torch.tensor([[60.0]]), {"target": target})["phm08"]
    assert early == pytest.approx(math.exp(10 / 13) - 1)
    assert late == pytest.approx(math.e - 1)


def test_phm08_stays_finite_without_a_cap():
    free = RUL(DataInfo(inputs={}, meta={"cap": None}))
    assert math.isfinite(free.evaluate(torch.tensor([[1e6]]), {"target": torch.tensor([0.0])})["phm08"])
    assert free.decode(torch.tensor([[400.0], [-3.0]])) == {"rul": [400.0, 0.0]}


def test_decoded_values_are_clipped_at_zero_and_the_cap():
    assert head().decode(torch.tensor([[-5.0], [60.5], [140.0]])) == {"rul": [0.0, 60.5, 125.0]}
    assert head(cap=100.0).decode(torch.tensor([[140.0]])) == {"rul": [100.0]}


def test_the_hard_loss_is_in_squared_cycles():
    prediction, batch = torch.tensor([[10.0], [20.0]]), {"target": torch.tensor([13.0, 70.0])}
    assert head().hard_loss(prediction, batch) == pytest.approx((9 + 2500) / 2)
    # Huber's loss, doubled: the square below delta, linear with the same slope beyond it.
    assert head(loss="huber", delta=10.0).hard_loss(prediction, batch) == pytest.approx((9 + 10 * (2 * 50 - 10)) / 2)


def test_the_loss_sees_predictions_beyond_the_cap():
    prediction = torch.tensor([[200.0]], requires_grad=True)
    head().hard_loss(prediction, {"target": torch.tensor([125.0])}).backward()
    assert prediction.grad.item() == pytest.approx(150.0)


def test_the_head_declares_what_it_evaluates():
    assert (head().kind, head().outputs, head().higher_is_better) == (OutputKind.REGRESSION, 1, False)
    assert head().primary in head().evaluate(torch.zeros(2, 1), {"target": torch.ones(2)})


@pytest.mark.parametrize("models", [1, 3])
def test_figures_are_drawn_with_a_panel_for_each_model(models):
    target = torch.rand(40) * 125
    predictions = {name: (target + torch.randn(40))[:, None] for name in ("teacher", "baseline", "student")[:models]}
    scatter, errors = head().figures(predictions, {"target": target})
    assert [axes.get_title() for axes in scatter.figure.axes] == list(predictions)
    assert len(errors.figure.axes[0].patches) == 5 * models
    for each in (scatter, errors):
        assert each.title
        assert each.caption
        drawn = io.BytesIO()
        each.figure.savefig(drawn, format="svg")
        assert drawn.getvalue().startswith(b"<?xml")


def test_figures_survive_a_single_row():
    drawn = head().figures({"student": torch.tensor([[3.0]])}, {"target": torch.tensor([0.0])})
    assert len(drawn) == 2


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_rows_are_weighted_where_the_batch_says_so(loss):
    judge, prediction, target = head(loss=loss), torch.tensor([[10.0], [80.0], [0.0]]), torch.tensor([12.0, 20.0, 0.5])
    alone = [float(judge.hard_loss(prediction[[row]], {"target": target[[row]]})) for row in range(3)]
    weight = torch.tensor([3.0, 0.0, 1.0])
    weighted = judge.hard_loss(prediction, {"target": target, "weight": weight})
    assert float(weighted) == pytest.approx((3 * alone[0] + alone[2]) / 4)
    assert float(judge.hard_loss(prediction, {"target": target})) == pytest.approx(sum(alone) / 3)
