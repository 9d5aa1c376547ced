"""A model that was built from a component: a network or an estimator, called, saved and loaded in the same way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, OptionError, RunFolderError
from stillhouse.forwarding import accepted_inputs, answered, in_order, predict_split, to_device
from stillhouse.kinds import OutputKind
from stillhouse.plugins.options import options_of
from stillhouse.plugins.registry import Component, Registry
from stillhouse.plugins.spec import load_target
from stillhouse.plugins.specs import ModelSpec, TeacherSpec
from stillhouse.storage import (
    RULES,
    digest,
    read_object,
    read_weights,
    replacing,
    write_json,
    write_text,
    write_weights,
)
from stillhouse.teachers import AskedTeacher, EstimatorTeacher, LiveTeacher, TeacherSource
from stillhouse.teachers.estimator import estimator_prediction
from stillhouse.types import Batch, DataInfo, Estimator, Head, Split, Task

TRUSTED = ("sklearn.", "numpy.", "scipy.", "builtins.", "collections.")
"""Packages whose types an estimator file may hold, beside the component's own."""


@dataclass(kw_only=True)
class Trained:
    """A model, and what is needed to call it.

    Attributes:
        component: what it was built from.
        options: its options.
        task: inputs and outputs that it was built for.
        model: the ``nn.Module``, the estimator, or the teacher source that is asked.
        inputs: batch entries that a network is called with.
        features: from a batch to an estimator's ``[B, F]`` array.
    """

    component: Component
    options: Mapping[str, Any]
    task: Task
    model: Any
    inputs: tuple[str, ...]
    features: Callable[[Batch], np.ndarray]

    @property
    def is_network(self) -> bool:
        """An ``nn.Module``, trained by gradient steps."""
        return isinstance(self.model, nn.Module)

    @property
    def is_asked(self) -> bool:
        """A teacher source of its own: nothing to train, save or time."""
        return is_asked(self.component)

    def source(self, *, taps: Sequence[str] = ()) -> TeacherSource:
        """The model as a teacher source."""
        if self.is_network:
            return LiveTeacher(self.model, inputs=self.inputs, taps=taps)
        if self.is_asked:
            asked: TeacherSource = self.model
            return asked
        return EstimatorTeacher(self.model, features=self.features, kind=self.task.kind, outputs=self.task.outputs)

    def predict(self, split: Split, device: torch.device, head: Head | None = None) -> Tensor:
        """Predictions for all rows in order, float32 on the CPU; with a head, what it keeps of them."""
        if self.is_network:
            return predict_split(self.model, split, self.inputs, device, head=head)
        if self.is_asked:
            answers = [self.model(to_device(batch, device)).prediction for batch in in_order(split)]
            return torch.cat([answer.float().cpu() for answer in answers])
        return torch.cat([self.call(batch) for batch in in_order(split)])

    def call(self, batch: Batch, head: Head | None = None) -> Tensor:
        """One prediction as deployment would make it: what latency is measured on; with a head, what it keeps of it, so
        that a model which writes is timed while it writes."""
        if self.is_network:
            with torch.inference_mode():
                return answered(self.model, batch, self.inputs, head)
        if self.is_asked:
            answer: Tensor = self.model(batch).prediction
            return answer
        return estimator_prediction(self.model, self.features(batch), self.task.kind, self.task.outputs)

    def merge(self) -> None:
        """Merge adapters that were trained beside the weights into them, where the model has some: what is judged,
        saved and asked from then on is one and the same."""
        if hasattr(self.model, "merge_adapters"):
            self.model.merge_adapters()

    def save(self, folder: Path) -> None:
        """Write weights (safetensors) or the estimator (skops), the model's rules where it has some, then
        ``model.json``, whose presence says that all is there."""
        if self.is_network:
            write_weights(folder / "model.safetensors", self.model)
        else:
            import skops.io  # a second, of which a run of networks needs nothing

            with replacing(folder / "estimator.skops") as temporary:
                skops.io.dump(self.model, temporary)
        spec = self.component.spec
        if isinstance(spec, ModelSpec) and spec.rules:
            explain = load_target(spec.rules, who=self.component.id)
            write_text(folder / RULES, explain(self.model, self.task))
        write_json(
            folder / "model.json",
            {
                "schema": 1,
                "component": self.component.id,
                "kind": self.component.kind,
                # Options by which a network is built again where those of the recipe name something outside (a hub).
                "options": _plain({**self.options, **getattr(self.model, "saved_options", {})}),
                "seed": self.task.seed,
                "output": {"kind": str(self.task.kind), "width": self.task.outputs},
                "form": "network" if self.is_network else "estimator",
            },
        )


def is_asked(component: Component) -> bool:
    """The component is a teacher that is asked as it is, see `stillhouse.teachers.AskedTeacher`."""
    return isinstance(component.spec, TeacherSpec) and component.spec.asked


def build(component: Component, options: Mapping[str, Any], task: Task) -> Trained:
    """Make an untrained model; its weights are a function of ``task.seed`` alone.

    Raises:
        IncompatibleError: the target made neither a module nor an estimator (a teacher source, where the spec says
            ``asked``), or its inputs are not the dataset's.
        MissingDependencyError: a package that it needs is not installed.
        OptionError: it cannot be built with the options that were chosen.
    """
    spec = component.spec
    assert isinstance(spec, ModelSpec)
    target = component.load()
    torch.manual_seed(task.seed)
    try:
        model = target(task, **options)
        _check_parameters(model)
    except (ValueError, TypeError, RuntimeError) as error:
        defaults = {each.name: each.default for each in options_of(target)}
        chosen = [f"{name}={value!r}" for name, value in options.items() if value != defaults.get(name)]
        if not chosen:
            raise  # nothing that the user chose: a defect of the component
        raise OptionError(
            f"'{component.id}' cannot be built with {', '.join(chosen)}: "
            f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            where=component.id,
            fix=f"correct the options; `stillhouse show {component.id}` tells them",
        ) from error
    if is_asked(component) or (isinstance(model, AskedTeacher) and not isinstance(model, nn.Module | Estimator)):
        _check_asked(component, model)
        inputs: tuple[str, ...] = ()
    elif isinstance(model, nn.Module):
        inputs = accepted_inputs(model, task.info, declared=spec.inputs, who=f"'{component.id}'")
    elif isinstance(model, Estimator):
        inputs = _inputs_of_estimator(component, task)
    else:
        raise IncompatibleError(
            f"'{component.id}' made {type(model).__name__}, neither an nn.Module nor an estimator with fit and predict",
            where=component.spec.target,
            fix="return one of the two from the target",
        )
    if not spec.features and isinstance(model, Estimator) and not isinstance(model, nn.Module):
        _check_flat(component, inputs, task.info)
    features = load_target(spec.features, who=component.id) if spec.features else _Flatten(inputs)
    return Trained(component=component, options=options, task=task, model=model, inputs=inputs, features=features)


def _check_parameters(model: Any) -> None:
    """What would be told in the middle of a training: parameters that scikit-learn refuses when it fits, and layers
    without any number in them.

    Raises:
        ValueError: there is one.
    """
    if isinstance(model, nn.Module):
        for name, parameter in model.named_parameters():
            if not isinstance(parameter, nn.UninitializedParameter) and parameter.numel() == 0:
                raise ValueError(f"'{name}' has no numbers: its shape is {list(parameter.shape)}")
        return
    nested = model.get_params(deep=True).values() if hasattr(model, "get_params") else ()
    for each in (model, *nested):
        # scikit-learn has no public name for it; without it the same is told when the model is fitted.
        if hasattr(each, "_parameter_constraints") and not isinstance(each, type):
            each._validate_params()


def _inputs_of_estimator(component: Component, task: Task) -> tuple[str, ...]:
    spec = component.spec
    assert isinstance(spec, ModelSpec)
    if missing := [name for name in spec.inputs if name not in task.inputs]:
        raise IncompatibleError(
            f"'{component.id}' needs the input '{missing[0]}', and the dataset has {', '.join(task.inputs)}",
            where=component.id,
            fix="choose a model for these inputs (`stillhouse components --kind student`)",
        )
    return spec.inputs or tuple(task.inputs)


def _check_flat(component: Component, inputs: tuple[str, ...], info: DataInfo) -> None:
    """An estimator without features of its own sees the inputs flattened: as many numbers in each row."""
    for name in inputs:
        if name in info.inputs and any(size < 0 for size in info.inputs[name].shape):
            raise IncompatibleError(
                f"'{component.id}' takes rows of equally many numbers, and the input '{name}' has no fixed size",
                where=component.id,
                fix="choose a model for rows of different lengths, e.g. core/tfidf-logistic for texts",
            )


def _check_asked(component: Component, model: Any) -> None:
    if not is_asked(component):
        raise IncompatibleError(
            f"'{component.id}' made a teacher source, which cannot be trained",
            where=component.spec.target,
            fix="register it as TeacherSpec(..., asked=True)",
        )
    if not callable(model) or not isinstance(getattr(model, "revision", None), str):
        raise IncompatibleError(
            f"'{component.id}' made {type(model).__name__}, and its spec promises a teacher source",
            where=component.spec.target,
            fix="return an object with __call__(batch) -> Outputs and a text `revision`, or leave `asked` out",
        )


def component_identity(component: Component) -> dict[str, str]:
    """What a result depends on of a component: id, version, and the source file of its target (editable installs change
    without a new version)."""
    identity = {"id": component.id, "version": str(component.plugin.version)}
    try:
        file = inspect.getsourcefile(component.load())
        if file:
            identity["source"] = digest(Path(file).read_text(encoding="utf-8"))
    except (TypeError, OSError):
        pass  # a target without Python source (C extension, partial) is identified by its version alone
    return identity


def load(folder: Path, registry: Registry, info: DataInfo) -> Trained:
    """Load what `Trained.save` wrote; nothing is unpickled.

    Raises:
        RunFolderError: missing, damaged, or an estimator file that holds types of unknown packages.
        UnknownComponentError: the plugin that made it is not installed.
    """
    meta = read_object(folder / "model.json")
    component = registry.get(meta["kind"], meta["component"])
    output = meta["output"]
    task = Task(
        info=info, kind=OutputKind(output["kind"]), outputs=output["width"], seed=meta["seed"], pretrained=False
    )
    trained = build(component, meta["options"], task)
    if meta["form"] == "network":
        read_weights(folder / "model.safetensors", trained.model)
        trained.model.eval()
    else:
        trained.model = _read_estimator(folder / "estimator.skops", component)
    return trained


def _read_estimator(path: Path, component: Component) -> Any:
    import skops.io

    own = component.spec.target.partition(":")[0].partition(".")[0] + "."
    try:
        foreign = skops.io.get_untrusted_types(file=path)
        unknown = [name for name in foreign if not name.startswith((*TRUSTED, own))]
        if unknown:
            raise RunFolderError(
                f"the estimator file holds types of unknown packages: {', '.join(unknown)}",
                where=str(path),
                fix="do not use files of unknown origin",
            )
        return skops.io.load(path, trusted=foreign)
    except RunFolderError:
        raise
    except Exception as error:  # damaged archives raise zip, JSON, key and type errors alike
        raise RunFolderError(
            f"cannot read the estimator: {type(error).__name__}: {error}",
            where=str(path),
            fix="remove the folder and start the run again",
        ) from error


@dataclass(frozen=True)
class _Flatten:
    """Inputs flattened and concatenated: what an estimator sees when its spec names no features."""

    inputs: tuple[str, ...]

    def __call__(self, batch: Batch) -> np.ndarray:
        return np.concatenate([batch[name].reshape(len(batch[name]), -1).numpy() for name in self.inputs], axis=1)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
