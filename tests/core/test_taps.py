"""Taps: features of named modules."""

from __future__ import annotations

import collections

import pytest
import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError
from stillhouse.objectives import Hints, SimilarityPreserving, make_adapter
from stillhouse.taps import Taps, tap_shapes, unwrap


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            collections.OrderedDict(first=nn.Linear(4, 6), norm=nn.BatchNorm1d(6), drop=nn.Dropout(0.5))
        )
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.unused = nn.Linear(1, 1)
        self.shared = nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.lstm(self.encoder(x).unsqueeze(1))
        return self.head(self.shared(self.shared(sequence[:, -1])))


class Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.module(**inputs)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def test_captures_the_output_with_its_graph(net: Net) -> None:
    x = torch.rand(3, 4)
    with Taps(net, ["encoder.first", "encoder"]) as taps:
        prediction = net(x)
    assert torch.equal(taps.features["encoder.first"], net.encoder.first(x))
    assert torch.equal(taps.features["encoder"], net.encoder(x))
    assert list(taps.features) == ["encoder.first", "encoder"]
    taps.features["encoder.first"].sum().backward()
    assert net.encoder.first.weight.grad is not None
    assert prediction.shape == (3, 2)


def test_hooks_are_gone_after_the_context_and_after_an_exception(net: Net) -> None:
    taps = Taps(net, ["encoder.first", "lstm"])
    assert hooks(net) == 0
    with taps:
        assert hooks(net) == 2
        net(torch.rand(3, 4))
    assert hooks(net) == 0
    before = taps.features["encoder.first"]
    net(torch.rand(3, 4))
    assert taps.features["encoder.first"] is before
    with pytest.raises(RuntimeError), taps:
        net(torch.rand(3, 99))
    assert hooks(net) == 0


def test_an_lstm_gives_its_sequence_and_a_position_its_state(net: Net) -> None:
    x = torch.rand(3, 4)
    with Taps(net, ["lstm", "lstm.0", "lstm.1"]) as taps:
        net(x)
    sequence, (hidden, _) = net.lstm(net.encoder(x).unsqueeze(1))
    assert torch.equal(taps.features["lstm"], sequence)
    assert torch.equal(taps.features["lstm.0"], sequence)
    assert torch.equal(taps.features["lstm.1"], hidden)


def test_a_number_is_a_child_before_it_is_a_position() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    with Taps(model, ["1"]) as taps:
        model(torch.rand(5, 2))
    assert taps.features["1"].shape == (5, 4)


def test_a_module_called_twice_keeps_the_last_call(net: Net) -> None:
    with Taps(net, ["shared"]) as taps:
        prediction = net(torch.rand(3, 4))
    assert torch.equal(net.head(taps.features["shared"]), prediction)


def test_clear_and_take_forget(net: Net) -> None:
    with Taps(net, ["lstm"]) as taps:
        net(torch.rand(3, 4))
        assert taps.take()["lstm"].shape == (3, 1, 5)
        assert taps.features == {}
        net(torch.rand(2, 4))
        taps.clear()
        assert taps.features == {}


def test_take_names_a_module_that_was_not_called(net: Net) -> None:
    with Taps(net, ["lstm", "unused"]) as taps:
        net(torch.rand(3, 4))
        with pytest.raises(IncompatibleError, match="'unused' was not called"):
            taps.take()


def test_one_layer_serves_two_losses(net: Net) -> None:
    with Taps(net, ["encoder.first", "encoder.first"]) as taps:
        net(torch.rand(3, 4))
    feature, teacher = taps.features["encoder.first"], torch.rand(3, 6)
    (Hints()(feature, teacher) + SimilarityPreserving()(feature, teacher)).backward()
    assert torch.count_nonzero(net.encoder.first.weight.grad) > 0


@pytest.mark.parametrize("path", ["encoder.fist", "lstmm", "", "encoder.first.weight"])
def test_an_unknown_path_is_refused_at_once(net: Net, path: str) -> None:
    with pytest.raises(IncompatibleError, match=f"Net has no module '{path}'"):
        Taps(net, [path])


def test_an_unknown_path_names_the_nearest(net: Net) -> None:
    with pytest.raises(IncompatibleError) as error:
        Taps(net, ["encoder.fist"])
    assert error.value.fix == "did you mean 'encoder.first'?"


def test_a_position_that_the_output_lacks_is_refused(net: Net) -> None:
    for path in ("lstm.7", "head.0"):
        with Taps(net, [path]), pytest.raises(IncompatibleError, match="has no position"):
            net(torch.rand(3, 4))


def test_a_module_without_a_tensor_in_its_output_is_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "no tensor"

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = Odd()

        def forward(self, x: Tensor) -> Tensor:
            self.odd(x)
            return x

    model = Outer()
    with Taps(model, ["odd"]), pytest.raises(IncompatibleError, match="returns str"):
        model(torch.rand(1))


def test_a_wrapped_model_is_tapped_by_its_own_names(net: Net) -> None:
    x = torch.rand(3, 4)
    for model in (Wrapper(net), Wrapper(Wrapper(net))):
        with Taps(model, ["encoder.first"]) as taps:
            model(x=x)
        assert torch.equal(taps.features["encoder.first"], net.encoder.first(x))

    class Scaled(Wrapper):
        def forward(self, **inputs: Tensor) -> Tensor:
            return self.module(x=inputs["columns"].flatten(1))

    assert tap_shapes(Scaled(net), {"columns": x.view(3, 2, 2)}, ["lstm"]) == {"lstm": (1, 5)}


def test_distributed_data_parallel_keeps_its_own_forward(net: Net, tmp_path: object) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(net.train(), find_unused_parameters=True)
        calls = []
        model.register_forward_hook(lambda *_: calls.append(1))
        with Taps(model, ["encoder.first", "module.lstm"]) as taps:
            model(x=torch.rand(3, 4)).sum().backward()
        assert taps.features["encoder.first"].shape == (3, 6)
        assert taps.features["module.lstm"].shape == (3, 1, 5)
        assert calls == [1]
    finally:
        torch.distributed.destroy_process_group()


def test_a_compiled_model_is_refused_since_its_hooks_would_be_skipped(net: Net) -> None:
    compiled = torch.compile(net, backend="eager")
    with pytest.raises(IncompatibleError, match="compiled"):
        Taps(Wrapper(compiled), ["lstm"])
    assert unwrap(Wrapper(compiled)) is net
    assert Taps(compiled, []).features == {}


def test_a_child_called_module_is_no_wrapper() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 3)
            self.other = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.module(x))

    model = Own()
    with Taps(model, ["module", "other"]) as taps:
        model(torch.rand(4, 2))
    assert {path: tuple(feature.shape) for path, feature in taps.features.items()} == {
        "module": (4, 3),
        "other": (4, 1),
    }


@pytest.mark.plugins
def test_hugging_face_outputs_give_the_last_hidden_state() -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=11, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    model = BertModel(config).eval()
    ids = torch.randint(0, 11, (2, 5))
    with Taps(model, ["encoder", "encoder.layer.0", "pooler"]) as taps:
        output = model(input_ids=ids)
    assert torch.equal(taps.features["encoder"], output.last_hidden_state)
    assert taps.features["encoder.layer.0"].shape == (2, 5, 8)
    assert taps.features["pooler"].shape == (2, 8)


def test_shapes_by_a_dry_forward_leave_no_trace(net: Net) -> None:
    net.train()
    net.encoder.norm.eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    shapes = tap_shapes(net, {"x": torch.rand(3, 4)}, ["encoder.first", "lstm"])
    assert shapes == {"encoder.first": (6,), "lstm": (1, 5)}
    assert net.training
    assert net.encoder.drop.training
    assert not net.encoder.norm.training
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert hooks(net) == 0


def test_shapes_leave_random_state_and_buffers_that_change_in_eval_mode() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.layer(x + torch.rand_like(x))

    model, x = Counts(), torch.rand(1, 2)
    before = torch.random.get_rng_state()
    assert tap_shapes(model, {"x": x}, ["layer"]) == {"layer": (3,)}
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.calls.item() == 0


def test_shapes_restore_the_model_when_the_forward_fails(net: Net) -> None:
    net.train()
    with pytest.raises(RuntimeError):
        tap_shapes(net, {"x": torch.rand(3, 99)}, ["lstm"])
    assert net.training
    assert hooks(net) == 0


def test_shapes_choose_an_adapter(net: Net) -> None:
    x = torch.rand(3, 4)
    shapes = tap_shapes(net, {"x": x}, ["encoder.first"])
    adapter = make_adapter(shapes["encoder.first"], (9,))
    with Taps(net, ["encoder.first"]) as taps:
        net(x)
    assert adapter(taps.features["encoder.first"]).shape == (3, 9)
