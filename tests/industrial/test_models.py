"""Teachers and students of remaining useful life: shapes, budgets, gradients, export, estimators."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stillhouse.kinds import OutputKind
from stillhouse.types import DataInfo, Task, TensorSpec
from stillhouse_industrial.features import window_statistics
from stillhouse_industrial.layers import sinusoids
from stillhouse_industrial.students import gru, statistics_mlp, temporal_cnn
from stillhouse_industrial.teachers import bilstm, gradient_boosting, transformer

MODELS = {
    "bilstm": (bilstm, {"hidden": 8}),
    "bilstm-deep": (bilstm, {"hidden": 8, "layers": 2}),
    "transformer": (transformer, {"width": 16, "layers": 1}),
    "temporal-cnn": (temporal_cnn, {}),
    "temporal-cnn-short": (temporal_cnn, {"kernel": 5, "width": 8}),
    "gru": (gru, {}),
    "gru-deep": (gru, {"hidden": 8, "layers": 2}),
    "statistics-mlp": (statistics_mlp, {}),
}


def task(window: int = 30, sensors: int = 14) -> Task:
    info = DataInfo(inputs={"signal": TensorSpec((window, sensors))}, target_mean=80.0, target_std=40.0)
    return Task(info=info, kind=OutputKind.REGRESSION, outputs=1)


def parameters(model: torch.nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    make, options = MODELS[request.param]
    return make(task(), **options)


def test_predictions_are_one_column_near_the_mean_of_the_targets(model):
    prediction = model.eval()(signal=torch.randn(5, 30, 14))
    assert prediction.shape == (5, 1)
    assert prediction.dtype == torch.float32
    assert ((prediction - 80.0).abs() < 120.0).all()


def test_each_parameter_learns(model):
    loss = (model(signal=torch.randn(8, 30, 14)) - 50.0).pow(2).mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert sum(float(parameter.grad.abs().sum() > 0) for parameter in model.parameters()) > 1


def test_a_row_is_predicted_alike_alone_and_in_a_batch(model):
    signal = torch.randn(6, 30, 14)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(signal=signal)[2:3], model(signal=signal[2:3]), atol=1e-3, rtol=1e-4)


def test_each_model_fits_a_simple_relation():
    torch.manual_seed(0)
    signal = torch.randn(64, 30, 3)
    target = 80.0 + 40.0 * signal[:, :, 0].mean(dim=1, keepdim=True) * 5
    for make, options in MODELS.values():
        model = make(task(sensors=3), **options)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(60):
            loss = (model(signal=signal) - target).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.5 * target.var(), make.__name__


def test_students_keep_their_budget():
    assert 4_000 < parameters(temporal_cnn(task())) < 6_000
    assert 4_000 < parameters(gru(task())) < 6_000
    for student in (temporal_cnn, gru):
        option = "width" if student is temporal_cnn else "hidden"
        sizes = [parameters(student(task(), **{option: width})) for width in (8, 16, 32, 64)]
        assert sizes == sorted(set(sizes))
        assert parameters(bilstm(task())) > 20 * sizes[2]


def test_windows_of_other_sizes_are_taken():
    for window, sensors in ((1, 1), (7, 2), (64, 21)):
        for make, options in MODELS.values():
            assert make(task(window, sensors), **options).eval()(signal=torch.randn(2, window, sensors)).shape == (2, 1)


def test_filters_as_long_as_the_window_answer_as_the_convolution_does():
    torch.manual_seed(0)
    model, signal = temporal_cnn(task()).eval(), torch.randn(5, 30, 14)
    with torch.no_grad():
        responses = torch.relu(model.norm(model.depthwise(signal.transpose(1, 2))))
        expected = model.units(model.output(torch.relu(model.pointwise(responses)).mean(dim=-1)))
        torch.testing.assert_close(model(signal=signal), expected)


@pytest.mark.parametrize("student", [temporal_cnn, gru])
def test_students_export_to_onnx_with_equal_predictions(student, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = student(task()).eval()
    path = tmp_path / "student.onnx"
    signal = torch.randn(2, 30, 14)
    torch.onnx.export(
        model,
        (),
        str(path),
        kwargs={"signal": signal},
        dynamo=True,
        dynamic_shapes={"signal": {0: torch.export.Dim.DYNAMIC}},
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path))
    for rows in (1, 5):
        signal = torch.randn(rows, 30, 14)
        got = session.run(None, {"signal": signal.numpy()})[0]
        np.testing.assert_allclose(got, model(signal=signal).detach().numpy(), atol=1e-3)


def test_position_codes_are_those_of_the_transformer_paper():
    codes = sinusoids(4, 5)
    assert codes.shape == (4, 5)
    assert codes[3, 0] == pytest.approx(np.sin(3.0))
    assert codes[3, 3] == pytest.approx(np.cos(3.0 / 10000 ** (2 / 5)))


def test_window_statistics_equal_numpy():
    random = np.random.default_rng(0)
    signal = random.normal(size=(3, 9, 2)).astype(np.float32)
    found = window_statistics({"signal": torch.from_numpy(signal)})
    assert found.shape == (3, 12)
    for row in range(3):
        for sensor in range(2):
            one = signal[row, :, sensor].astype(np.float64)
            expected = [
                one.mean(),
                one.std(),
                np.polyfit(np.arange(9), one, 1)[0],
                one[-1],
                one[-3:].mean(),
                one[-3:].mean() - one[:3].mean(),
            ]
            np.testing.assert_allclose(found[row, sensor::2], expected, atol=1e-5)
    assert np.isfinite(window_statistics({"signal": torch.ones(2, 1, 3)})).all()


def test_gradient_boosting_is_seeded_and_learns_from_window_statistics():
    signal = torch.randn(400, 10, 3)
    target = (80 + 30 * signal[:, :, 1].mean(dim=1)).numpy()
    features = window_statistics({"signal": signal})
    first, again = (
        gradient_boosting(task(10, 3), max_iter=50).fit(features, target).predict(features) for _ in range(2)
    )
    assert np.array_equal(first, again)
    assert np.mean((first - target) ** 2) < 0.3 * target.var()


def test_the_network_sees_the_statistics_that_trees_see():
    model = statistics_mlp(task(window=20, sensors=3)).eval()
    signal = torch.randn(6, 20, 3)
    seen = []
    model.norm.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    model(signal=signal)
    expected = window_statistics({"signal": signal})
    np.testing.assert_allclose(seen[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_sensor_that_stands_still_gives_finite_gradients():
    signal = torch.zeros(4, 20, 3, requires_grad=True)
    statistics_mlp(task(window=20, sensors=3)).eval()(signal=signal).sum().backward()
    assert torch.isfinite(signal.grad).all()
