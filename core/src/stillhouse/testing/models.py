"""Checks that build teachers and students and run them on a tiny batch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, ServiceError, StillhouseError, TrainingError
from stillhouse.forwarding import predict
from stillhouse.kinds import OutputKind
from stillhouse.plugins.checks import Planned, Skipped, label
from stillhouse.plugins.registry import Component
from stillhouse.storage import state_digest
from stillhouse.testing.isolation import offline
from stillhouse.testing.rows import few
from stillhouse.testing.workbench import Setting, Workbench
from stillhouse.trained import Trained, build, is_asked, load
from stillhouse.training.estimators import fit_hard
from stillhouse.types import Batch, Head, Split, Splits, Task

FITTED = 200
"""Rows that an estimator is fitted on."""


@dataclass
class Ready:
    """A model that was built, with rows and a head that suit it."""

    setting: Setting
    splits: Splits
    head: Head
    trained: Trained
    few: Split
    batch: Batch = field(repr=False)

    def rebuilt(self) -> Trained:
        """The model anew, with the same seed."""
        with offline():
            return build(self.trained.component, self.setting.model_options, self.trained.task)


def expected_shape(kind: OutputKind, outputs: int, target: Tensor) -> tuple[int, ...]:
    """Shape of a prediction for targets of a batch; see `stillhouse.kinds`."""
    rows = len(target)
    if kind is OutputKind.SEGMENTATION:
        return (rows, outputs, *target.shape[1:])
    if kind is OutputKind.SEQUENCE:
        return (rows, *target.shape[1:], outputs)
    return (rows, outputs)


def plan_model(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``forward``, ``gradients``, ``same-weights`` and ``state``."""
    models = _Models(bench, component)
    where = label(component)
    yield Planned(id=f"forward[{where}]", verify=models.forward)
    yield Planned(id=f"gradients[{where}]", verify=models.gradients)
    yield Planned(id=f"same-weights[{where}]", verify=models.same_weights)
    yield Planned(id=f"state[{where}]", verify=models.state)


class _Models:
    def __init__(self, bench: Workbench, component: Component) -> None:
        self._bench, self._component = bench, component
        self._ready: Ready | None = None

    def _make(self) -> Ready:
        """Build the model in the first setting that it suits; what its target raises is the plugin's fault only where
        its own recipe puts the parts together, or where no setting suits."""
        self._bench.require(self._component, "target", "shape", "options")
        if is_asked(self._component):
            self._bench.require_service(self._component)
        first: Exception | None = None
        for setting in self._bench.settings(self._component):
            try:
                splits, head = self._bench.head(setting)
                few_rows = few(splits.train, 6)
                batch = few_rows.batch(range(len(few_rows)))
            except Exception:
                continue  # reported by the checks of the dataset and of the head
            task = Task(info=splits.info, kind=head.kind, outputs=head.outputs, seed=7)
            try:
                with offline():
                    trained = build(self._component, setting.model_options, task)
                return Ready(setting, splits, head, trained, few_rows, batch)
            except Exception as error:
                if setting.own:
                    raise
                first = first or error
        if first is not None:
            raise first
        raise Skipped(
            "no dataset that works offline suits its inputs and output kinds",
            "bring a small embedded or simulated dataset, and a recipe that names both",
        )

    def ready(self) -> Ready:
        """The built model, for the checks behind ``forward``."""
        self._bench.require(self._component, "forward")
        assert self._ready is not None
        return self._ready

    def forward(self) -> str:
        ready = self._ready = self._make()
        trained, head = ready.trained, ready.head
        if not trained.is_network and not trained.is_asked:
            self._fit(ready)
        for rows in (len(ready.few), 1):
            batch = {name: entry[:rows] for name, entry in ready.batch.items()}
            prediction = self._predict(ready, batch)
            wanted = expected_shape(head.kind, head.outputs, batch["target"])
            if tuple(prediction.shape) != wanted:
                raise IncompatibleError(
                    f"for {rows} rows the prediction has shape {tuple(prediction.shape)}, the head needs {wanted}",
                    where=self._component.spec.target,
                    fix="let the last layer be task.outputs wide",
                )
            if not bool(torch.isfinite(prediction).all()):
                raise TrainingError(
                    f"for {rows} rows the prediction holds NaN or infinity",
                    where=self._component.spec.target,
                    fix="look for a division or a logarithm of zero",
                )
        if trained.is_network:
            size = sum(parameter.numel() for parameter in trained.model.parameters())
            return f"{size:,} parameters, on {ready.setting.dataset.id}"
        if trained.is_asked:
            return f"asked on {ready.setting.dataset.id}, revision {trained.model.revision}"
        return f"fitted on {ready.setting.dataset.id}"

    def _predict(self, ready: Ready, batch: Batch) -> Tensor:
        trained = ready.trained
        if trained.is_network:
            trained.model.eval()
            torch.manual_seed(0)
        try:
            with offline():
                return trained.call(batch)
        except ServiceError as error:
            raise Skipped(f"the service that it asks is not there: {error.what}", error.fix) from error

    def _fit(self, ready: Ready) -> None:
        rows = few(ready.splits.train, FITTED)
        columns = rows.columns()
        try:
            trained = ready.trained
            fit_hard(trained.model, trained.features(columns), columns["target"], trained.task)
        except StillhouseError:
            raise
        except Exception as error:
            raise IncompatibleError(
                f"the estimator cannot be fitted: {type(error).__name__}: {error}",
                where=self._component.spec.target,
                fix="let it take features [N, F] and the targets of its output kinds",
            ) from error

    def gradients(self) -> str:
        ready = self.ready()
        if not ready.trained.is_network:
            return "only a network has some"
        self._bench.require(ready.setting.head, "loss")
        ready = replace(ready, trained=ready.rebuilt())
        model: nn.Module = ready.trained.model
        self._backward(ready)
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        if not named:
            raise Skipped("it has no parameters to train")
        without = [name for name, parameter in named if parameter.grad is None]
        if without:
            raise TrainingError(
                f"no gradient reaches {len(without)} of {len(named)} trainable parameters: {', '.join(without[:4])}",
                where=self._component.spec.target,
                fix="use them in forward(), remove them, or set requires_grad_(False) where they are meant to stay",
            )
        bad = [name for name, parameter in named if not bool(torch.isfinite(_gradient(parameter)).all())]
        if bad:
            raise TrainingError(
                f"the gradient of '{bad[0]}' holds NaN or infinity",
                where=self._component.spec.target,
                fix="look for a division, root or logarithm of zero in forward()",
            )
        return f"{len(named)} tensors"

    def _backward(self, ready: Ready) -> None:
        model = ready.trained.model.train()
        torch.manual_seed(0)
        with offline():
            prediction = predict(model, ready.batch, ready.trained.inputs)
        torch.autograd.backward(ready.head.hard_loss(prediction, ready.batch))

    def _step(self, ready: Ready) -> None:
        learning = [each for each in ready.trained.model.parameters() if each.requires_grad]
        if learning:
            self._backward(ready)
            torch.optim.SGD(learning, lr=0.1).step()

    def same_weights(self) -> str:
        ready = self.ready()
        if not ready.trained.is_network:
            return "only a network has some before it is fitted"
        if state_digest(ready.rebuilt().model) != state_digest(ready.rebuilt().model):
            raise TrainingError(
                "the weights differ when the model is built again with the same seed",
                where=self._component.spec.target,
                fix="draw initial weights from torch's global generator, which is seeded with task.seed",
            )
        return ""

    def state(self) -> None:
        ready = self.ready()
        if ready.trained.is_asked:
            return  # it is never saved
        self._bench.require(ready.setting.head, "loss")
        if ready.trained.is_network:  # a step, so that there is something that building it again does not restore
            ready = replace(ready, trained=ready.rebuilt())
            self._step(ready)
        before = self._predict(ready, ready.batch)
        with tempfile.TemporaryDirectory(prefix="stillhouse-") as folder:
            ready.trained.save(Path(folder))
            with offline():
                again = load(Path(folder), self._bench.manager.registry, ready.splits.info)
        after = self._predict(replace(ready, trained=again), ready.batch)
        if not torch.equal(before, after):
            raise TrainingError(
                "the model predicts something else after it was saved and loaded",
                where=self._component.spec.target,
                fix="keep all state in parameters and buffers (register_buffer), which state_dict() holds",
            )


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
