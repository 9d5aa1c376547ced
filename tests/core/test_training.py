"""The loop, the loss of a step, optimisers, row order, and `stillhouse.distill`."""

from __future__ import annotations

import gc
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import stillhouse
from stillhouse.errors import IncompatibleError, TrainingError
from stillhouse.heads import Multiclass
from stillhouse.objectives import SoftTargets
from stillhouse.objectives.feature import Hints
from stillhouse.progress import Silent
from stillhouse.recipe import TrainConfig
from stillhouse.teachers import LiveTeacher
from stillhouse.training.learner import Supervised
from stillhouse.training.loop import Fit, fit
from stillhouse.training.loss import DistillationLoss, Term
from stillhouse.training.optim import make_optimizer, make_scheduler
from stillhouse.training.rows import step_positions, unlabelled_positions
from stillhouse.types import Batch, DataInfo, Outputs, TensorSpec, TensorSplit

INFO = DataInfo(inputs={"x": TensorSpec((4,))}, classes=("a", "b", "c"))


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2))
        self.out = nn.Linear(width, 3)
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        return self.out(self.body(x))


def rows(length: int = 90, seed: int = 0, start: int = 0) -> TensorSplit:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(length, 4, generator=generator)
    return TensorSplit({"x": x, "target": x[:, :3].argmax(1), "index": torch.arange(start, start + length)})


def work(config: TrainConfig, folder: Path | None = None, **changes: Any) -> Fit:
    head = Multiclass(INFO)
    given: dict[str, Any] = {
        "train": rows(),
        "val": rows(40, 1, 1000),
        "head": head,
        "config": config,
        "seed": 3,
        "folder": folder,
        "accelerator": Accelerator(cpu=True),
        "reporter": Silent(),
        "label": "a net",
    }
    return Fit(**{**given, **changes})


def supervised(model: nn.Module) -> Supervised:
    return Supervised(model, ["x"], Multiclass(INFO).hard_loss)


def net() -> Net:
    torch.manual_seed(0)
    return Net()


class Interrupted(Exception):
    pass


class StopAt(Silent):
    def __init__(self, epoch: int) -> None:
        self.at = epoch

    def epoch(self, record: Any) -> None:
        if record["epoch"] == self.at:
            raise Interrupted


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9}, {"optimizer": "sgd", "schedule": "onecycle"}, {"select": "last", "balance": True}],
)
def test_an_interrupted_training_ends_with_the_same_bits(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.training.loop.CHECKPOINT_SECONDS", 0.0)
    config = TrainConfig(epochs=6, batch_size=16, lr=0.01, **changes)
    whole = net()
    history = fit(supervised(whole), work(config))
    (tmp_path / "run").mkdir()
    with pytest.raises(Interrupted):
        fit(supervised(net()), work(config, tmp_path / "run", reporter=StopAt(3)))
    again = net()
    torch.manual_seed(12345)  # whatever happened in between must not matter
    resumed = fit(supervised(again), work(config, tmp_path / "run"))
    assert [record["train"] for record in resumed] == [record["train"] for record in history]
    assert [record["val"] for record in resumed] == [record["val"] for record in history]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_the_model_is_in_train_mode_in_every_step_of_every_epoch_and_in_eval_mode_afterwards() -> None:
    model = net()
    history = fit(supervised(model), work(TrainConfig(epochs=3, batch_size=30)))
    assert model.modes == ([True] * 3 + [False]) * 3
    assert not model.training
    assert [record["epoch"] for record in history] == [0, 1, 2]


def test_the_kept_weights_are_those_of_the_best_validation_epoch() -> None:
    model = net()
    job = work(TrainConfig(epochs=8, batch_size=8, lr=0.3, optimizer="sgd", schedule="constant"))
    history = fit(supervised(model), job)
    best = max(record["val"]["accuracy"] for record in history)
    with torch.no_grad():
        columns = job.val.columns()
        accuracy = float((model(columns["x"]).argmax(1) == columns["target"]).float().mean())
    assert accuracy == pytest.approx(best)


def test_averaged_weights_follow_from_the_first_steps() -> None:
    """With a fixed decay of 0.999 the average of 12 steps would be that of the first step to 1 %."""
    kept = {}
    for ema in (None, 0.999):
        kept[ema] = net()
        config = TrainConfig(epochs=4, batch_size=30, lr=0.1, schedule="constant", select="last", ema=ema)
        fit(supervised(kept[ema]), work(config))
    start, trained, averaged = (
        torch.cat([tensor.flatten().double() for tensor in model.state_dict().values() if tensor.is_floating_point()])
        for model in (net(), kept[None], kept[0.999])
    )
    assert (averaged - trained).norm() < 0.4 * (trained - start).norm()
    mean = "body.1.running_mean"
    gap = kept[0.999].state_dict()[mean] - kept[None].state_dict()[mean]
    assert gap.norm() < 0.5 * kept[None].state_dict()[mean].norm()


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "optimizer": "sgd", "grad_clip": 1.0}])
def test_a_fit_leaves_nothing_behind_that_waits_for_the_garbage_collector(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizers: list[weakref.ref[torch.optim.Optimizer]] = []

    def noted(*given: Any) -> torch.optim.Optimizer:
        made = make_optimizer(*given)
        optimizers.append(weakref.ref(made))
        return made

    monkeypatch.setattr("stillhouse.training.loop.make_optimizer", noted)
    gc.collect()
    gc.disable()
    try:
        learner = supervised(net())
        gone = weakref.ref(learner.student)
        fit(learner, work(TrainConfig(epochs=2, batch_size=30, **changes)))
        del learner
        assert gone() is None
        assert [each() for each in optimizers] == [None]
    finally:
        gc.enable()


def test_patience_stops_early() -> None:
    history = fit(supervised(net()), work(TrainConfig(epochs=60, batch_size=30, lr=1e-9, patience=2)))
    values = [record["val"]["accuracy"] for record in history]
    assert len(history) == values.index(max(values)) + 1 + 2 < 60


def test_of_equally_good_epochs_the_latest_is_kept_and_patience_counts_from_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Linear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    def learner() -> Supervised:
        torch.manual_seed(0)
        return supervised(Linear(4, 3))

    slow = {"batch_size": 30, "lr": 1e-6, "schedule": "constant"}  # no row changes its class
    last, kept = TrainConfig(epochs=6, select="last", **slow), TrainConfig(epochs=6, **slow)
    weights = {}
    for name, config in (("last", last), ("best", kept)):
        trained = learner()
        history = fit(trained, work(config))
        assert len({record["val"]["accuracy"] for record in history}) == 1
        weights[name] = trained.student.state_dict()
    assert all(torch.equal(weights["last"][name], weights["best"][name]) for name in weights["last"])
    assert len(fit(learner(), work(TrainConfig(epochs=60, patience=3, **slow)))) == 4
    monkeypatch.setattr("stillhouse.training.loop.CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Interrupted):
        fit(learner(), work(TrainConfig(epochs=60, patience=3, **slow), tmp_path, reporter=StopAt(2)))
    assert len(fit(learner(), work(TrainConfig(epochs=60, patience=3, **slow), tmp_path))) == 4


def test_a_loss_that_is_not_finite_names_the_rows_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.training.loop.CHECKPOINT_SECONDS", 0.0)
    config = TrainConfig(epochs=4, batch_size=30)
    with pytest.raises(Interrupted):
        fit(supervised(net()), work(config, tmp_path, reporter=StopAt(2)))
    kept = (tmp_path / "checkpoint.pt").read_bytes()
    bad = rows()
    bad.columns()["x"][7] = math.nan
    with pytest.raises(TrainingError, match="not finite in epoch 3") as caught:
        fit(supervised(net()), work(config, tmp_path, train=bad))
    assert caught.value.where == "rows (index) with values that are not finite: 7"
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept


def test_loader_processes_change_no_bit() -> None:
    found = []
    for workers in (0, 2):
        model = net()  # with dropout, whose numbers are drawn after the loader's
        fit(supervised(model), work(TrainConfig(epochs=2, batch_size=30, lr=0.01, workers=workers)))
        found.append(model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_balance_draws_classes_equally_often() -> None:
    targets = torch.tensor([0] * 900 + [1] * 100)
    steps = step_positions(1000, TrainConfig(batch_size=100, balance=True), 0, 0, targets=targets)
    drawn = targets[torch.tensor([row for step in steps for row in step])]
    assert 0.45 < float(drawn.float().mean()) < 0.55


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 5), st.integers(0, 5))
def test_every_row_comes_once_per_epoch_but_for_a_single_leftover(
    length: int, size: int, seed: int, epoch: int
) -> None:
    steps = [*step_positions(length, TrainConfig(batch_size=size), seed, epoch)]
    flat = [row for step in steps for row in step]
    assert len(set(flat)) == len(flat)
    assert len(flat) in (length, length - 1)
    assert all(len(step) > 1 for step in steps[1:]) or size == 1
    assert steps == [*step_positions(length, TrainConfig(batch_size=size), seed, epoch)]


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 16))
def test_unlabelled_rows_fill_every_step(length: int, steps: int, per_step: int) -> None:
    found = unlabelled_positions(length, steps, per_step, 0, 0)
    assert [len(step) for step in found] == [per_step] * steps
    counts = torch.bincount(torch.tensor([row for step in found for row in step]), minlength=length)
    assert int(counts.max() - counts.min()) <= 1


def rates(config: TrainConfig, steps: int = 100) -> list[float]:
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))], config)
    scheduler = make_scheduler(optimizer, config, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "onecycle"])
def test_learning_rates_follow_their_schedule(schedule: Any) -> None:
    found = rates(TrainConfig(lr=0.1, schedule=schedule, warmup=0.2))
    assert max(found) == pytest.approx(0.1, rel=0.02)
    assert found[0] < 0.01, "warm-up starts low"
    assert found[:20] == sorted(found[:20])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert found[-1] == pytest.approx(0.1 if schedule == "constant" else 0.0, abs=2e-3)


def two_outputs() -> tuple[Outputs, Outputs, Batch]:
    generator = torch.Generator().manual_seed(1)
    student = torch.randn(6, 3, generator=generator, requires_grad=True)
    teacher = torch.randn(6, 3, generator=generator)
    return Outputs(student), Outputs(teacher), {"target": torch.arange(6) % 3, "index": torch.arange(6)}


def soft_value(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    p = (teacher / temperature).softmax(1)
    return temperature**2 * (p * (p.log() - (student / temperature).log_softmax(1))).sum(1).mean()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_total_is_equation_two_with_t_squared_whatever_alpha_is(alpha: float) -> None:
    student, teacher, batch = two_outputs()
    head = Multiclass(INFO)
    loss = DistillationLoss(
        head.hard_loss, [Term(name="soft", objective=SoftTargets(temperature=4.0), weight=2.0)], alpha
    )
    total, values = loss(student, teacher, batch)
    hard = torch.nn.functional.cross_entropy(student.prediction, batch["target"])
    soft = soft_value(student.prediction, teacher.prediction, 4.0)
    torch.testing.assert_close(total, alpha * hard + (1 - alpha) * 2 * soft)
    torch.testing.assert_close(values["hard"]["raw"], hard.detach())
    torch.testing.assert_close(values["soft"]["weighted"], ((1 - alpha) * 2 * soft).detach())


def test_schedules_move_alpha_weight_and_temperature() -> None:
    objective = SoftTargets(temperature=1.0)
    term = Term(
        name="soft",
        objective=objective,
        weight={"schedule": "linear", "start": 0.0, "end": 1.0},
        scheduled={"temperature": {"schedule": "linear", "start": 8.0, "end": 2.0}},
    )
    loss = DistillationLoss(Multiclass(INFO).hard_loss, [term], {"schedule": "linear", "start": 1.0, "end": 0.0})
    loss.set_progress(0.5)
    assert (loss.alpha, loss.weights[0], objective.temperature) == (0.5, 0.5, 5.0)


def test_unlabelled_rows_count_in_soft_losses_only() -> None:
    student, teacher, batch = two_outputs()
    loss = DistillationLoss(
        Multiclass(INFO).hard_loss, [Term(name="soft", objective=SoftTargets(temperature=2.0))], 0.5
    )
    labelled = {"target": batch["target"][:4], "index": batch["index"]}
    total, _ = loss(student, teacher, labelled, 4)
    hard = torch.nn.functional.cross_entropy(student.prediction[:4], batch["target"][:4])
    soft = soft_value(student.prediction, teacher.prediction, 2.0)
    torch.testing.assert_close(total, 0.5 * hard + 0.5 * soft)


def test_unlabelled_rows_reach_the_step_behind_the_labelled_ones() -> None:
    seen: list[tuple[int, int]] = []

    class Seeing(Supervised):
        def forward(self, batch: Batch, labelled: int) -> Any:
            seen.append((labelled, len(batch["x"])))
            assert (batch["index"][labelled:] >= 5000).all()
            assert len(batch["target"]) == labelled
            return super().forward(batch, labelled)

    job = work(TrainConfig(epochs=1, batch_size=30, unlabelled_ratio=0.5), unlabelled=rows(50, 2, 5000))
    fit(Seeing(net(), ["x"], Multiclass(INFO).hard_loss), job)
    assert seen == [(30, 45)] * 3


def batches() -> list[Batch]:
    split = rows(96)
    return [split.batch(range(start, start + 32)) for start in range(0, 96, 32)]


def test_distill_trains_adapters_with_the_student_and_leaves_the_teacher_alone() -> None:
    torch.manual_seed(0)
    teacher, student = Net(16), Net(4)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    hints = Term(name="hints", objective=Hints(), student="body.0", teacher="body.0", adapter=nn.Linear(4, 16))
    start = hints.adapter.weight.clone()
    history = stillhouse.distill(
        student,
        teacher,
        batches(),
        [SoftTargets(temperature=2.0), hints],
        hard_loss=Multiclass(INFO).hard_loss,
        inputs=["x"],
        epochs=15,
        lr=0.01,
    )
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["hints"] < history[0]["hints"]
    assert not torch.equal(start, hints.adapter.weight)
    assert all(torch.equal(tensor, teacher.state_dict()[name]) for name, tensor in before.items())
    assert set(student.state_dict()) == set(Net(4).state_dict()), "neither adapter nor teacher is in the student"
    assert not student._modules["body"]._forward_hooks
    assert not student.body[0]._forward_hooks, "taps are removed"


def test_distill_repeats_bit_for_bit_and_takes_any_teacher_source() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        teacher, student = Net(16), Net(4)
        stillhouse.distill(
            student,
            LiveTeacher(teacher, inputs=["x"]),
            batches(),
            [SoftTargets()],
            alpha=0,
            inputs=["x"],
            epochs=2,
            seed=5,
        )
        found.append(student.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_distill_refuses_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="alpha=0"):
        stillhouse.distill(Net(), Net(), batches(), [SoftTargets()], inputs=["x"])
    with pytest.raises(TrainingError, match="no batches"):
        stillhouse.distill(Net(), Net(), iter(batches()), [SoftTargets()], alpha=0, inputs=["x"], epochs=2)
    with pytest.raises(IncompatibleError, match="a batch has no 'z', but x"):
        stillhouse.distill(Net(), Net(), batches(), [SoftTargets()], alpha=0, inputs=["z"])
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        stillhouse.distill(Net(), Net(), batches(), [SoftTargets()], alpha=0, inputs=["x"], epochs=0)
    bad = batches()
    bad[1]["x"][0] = math.inf
    with pytest.raises(TrainingError, match=r"epoch 1\n.*values that are not finite: 32\n"):
        stillhouse.distill(Net(), Net(), bad, [SoftTargets()], alpha=0, inputs=["x"])
    for batch in bad:
        del batch["index"]
    with pytest.raises(TrainingError, match=r"values that are not finite: 0\n"):
        stillhouse.distill(Net(), Net(), bad, [SoftTargets()], alpha=0, inputs=["x"])
