"""Settings that make steps faster: they train what plain steps train, to rounding, and nothing stays of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, TrainingError
from stillhouse.heads import Multiclass
from stillhouse.plugins.manager import Manager
from stillhouse.progress import Silent
from stillhouse.recipe import TrainConfig
from stillhouse.recipe.check import resolve
from stillhouse.taps import Taps
from stillhouse.training.learner import Supervised
from stillhouse.training.loop import Fit, fit
from stillhouse.types import DataInfo, TensorSpec, TensorSplit

INFO = DataInfo(inputs={"image": TensorSpec((2, 8, 8))}, classes=("a", "b", "c"))


class Conv(nn.Module):
    """A small image network; it notes in which memory format its weights were when it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Linear(8, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.out(self.second(self.first(image).relu()).relu().mean((2, 3)))


def conv() -> Conv:
    torch.manual_seed(0)
    return Conv()


def rows(length: int, seed: int, first: int) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(length, 2, 8, 8, generator=generator)
    target = torch.bucketize(image[:, 0, :4].mean((1, 2)), torch.tensor([-0.1, 0.1]))
    return TensorSplit({"image": image, "target": target, "index": torch.arange(first, first + length)})


def accelerator(precision: str) -> Accelerator:
    AcceleratorState._reset_state()  # it allows one precision in a process
    return Accelerator(cpu=True, mixed_precision=precision)


def trained(folder: Path | None = None, reporter: Any = None, **changes: Any) -> Conv:
    model, head = conv(), Multiclass(INFO)
    work = Fit(
        train=rows(64, 0, 0),
        val=rows(24, 1, 1000),
        head=head,
        config=TrainConfig(epochs=4, batch_size=16, lr=0.01, select="last", **changes),
        seed=3,
        folder=folder,
        accelerator=accelerator(changes.get("precision", "no")),
        reporter=reporter or Silent(),
        label="a network",
    )
    fit(Supervised(model, ["image"], head.hard_loss), work)
    return model


def assert_near(one: nn.Module, other: nn.Module, tolerance: float = 1e-4) -> None:
    for (name, weights), others in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.allclose(weights, others, atol=tolerance), name


@pytest.mark.parametrize(
    "changes",
    [
        {"channels_last": True},
        {"channels_last": True, "ema": 0.9},
        {"fused": True},
        {"fused": True, "optimizer": "sgd"},
        {"fused": True, "optimizer": "adam", "weight_decay": 0.1},
    ],
    ids=str,
)
def test_a_switch_changes_weights_by_rounding_alone(changes: dict[str, Any]) -> None:
    plain = trained(**{name: value for name, value in changes.items() if name not in ("channels_last", "fused")})
    model = trained(**changes)
    assert_near(plain, model)
    assert all(weights.is_contiguous() for weights in model.parameters())
    assert_near(model, trained(**changes), tolerance=0.0)  # and repeats itself to the bit


def test_half_precision_is_of_the_steps_and_not_of_the_weights() -> None:
    plain, model = trained(), trained(precision="bf16")
    assert {weights.dtype for weights in model.state_dict().values()} == {torch.float32}
    assert_near(plain, model, tolerance=0.05)
    apart = max(
        float((one - two).detach().abs().max()) for one, two in zip(plain.parameters(), model.parameters(), strict=True)
    )
    assert apart > 1e-4, "products were in half precision"


def test_channels_last_is_how_weights_lie_during_the_steps() -> None:
    seen = set()

    class Watch(Silent):
        def epoch(self, record: Any) -> None:
            seen.add(weights().is_contiguous(memory_format=torch.channels_last))

    model = conv()
    head = Multiclass(INFO)

    def weights() -> Tensor:
        return model.first.weight

    work = Fit(
        train=rows(32, 0, 0),
        val=rows(16, 1, 1000),
        head=head,
        config=TrainConfig(epochs=2, batch_size=16, channels_last=True),
        seed=0,
        accelerator=Accelerator(cpu=True),
        reporter=Watch(),
        label="a network",
    )
    fit(Supervised(model, ["image"], head.hard_loss), work)
    assert seen == {True}
    assert weights().is_contiguous()


class Interrupted(Exception):
    pass


class StopAt(Silent):
    def epoch(self, record: Any) -> None:
        if record["epoch"] == 2:
            raise Interrupted


COMPILED = pytest.param({"compile": True}, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "changes", [{"channels_last": True}, {"fused": True}, {"precision": "bf16"}, COMPILED], ids=str
)
def test_a_training_with_a_switch_resumes_to_the_bit(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.training.loop.CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        trained(tmp_path, StopAt(), **changes)
    assert_near(trained(tmp_path, **changes), trained(**changes), tolerance=0.0)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_and_is_plain_again() -> None:
    model = trained(compile=True)
    assert_near(trained(), model, tolerance=1e-3)
    with Taps(model, ["first"]) as taps:  # refused of a compiled one
        model(torch.randn(2, 2, 8, 8))
    assert taps.take()["first"].shape == (2, 8, 8, 8)


@pytest.mark.slow
def test_a_machine_that_cannot_compile_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    monkeypatch.setattr(config, "fx_graph_cache", False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    with pytest.raises(TrainingError, match=r"torch\.compile cannot compile a network") as caught:
        trained(compile=True)
    assert "compiler" in caught.value.fix


def test_a_module_of_a_compiled_model_is_not_tapped_without_a_word() -> None:
    model = conv()
    taps = Taps(model, ["first"])
    model.compile()
    with pytest.raises(IncompatibleError, match="compiled model cannot be tapped"):
        taps.__enter__()
    with pytest.raises(IncompatibleError, match="compiled model cannot be tapped"):
        Taps(model, ["first"])


def test_a_compiled_student_that_is_tapped_is_refused_before_any_training() -> None:
    values = {
        "head": "core/multiclass",
        "dataset": "core/synthetic",
        "teacher": "core/mlp",
        "student": "core/mlp",
        "objectives": {"soft": [{"use": "core/hints", "student": "0", "teacher": "0"}]},
        "train": {"student": {"compile": True}},
    }
    with pytest.raises(IncompatibleError, match="compiled student") as caught:
        resolve(values, Manager().registry)
    assert "train.student.compile" in (caught.value.where or "")
