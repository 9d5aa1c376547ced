"""Taps: the outputs of a model's inner modules, by dotted path, without editing the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stillhouse.errors import IncompatibleError, nearest
from stillhouse.forwarding import call


class Taps:
    """Captures what named modules return while the context is open.

    ``with Taps(model, ["encoder.layer1"]) as taps: model(x); taps.features["encoder.layer1"]``. Features
    keep their graph. The hooks are gone when the context ends, also by an exception; the features last
    captured stay until `clear`.

    A path is looked for in the model and, when it is not there, in the model inside a wrapper
    (``DistributedDataParallel`` and others that keep it as ``module``); the wrapper's own forward is what
    runs. A module that returns a tuple gives its first tensor (an LSTM's output
    sequence), ``path.1`` the one at position 1; a Hugging Face output its ``last_hidden_state``, else its
    first tensor. A module called several times in one forward keeps its last call. A later in-place
    operation on the output (``ReLU(inplace=True)``) changes the feature too; tap the activation then.

    Args:
        model: the model, wrapped or not.
        paths: dotted paths of modules; one named twice is captured once, for as many losses as want it.

    Attributes:
        features: what was captured since the last `clear`, by path.

    Raises:
        IncompatibleError: the model has no module of that path, or (in its forward) the module returns no
            tensor, or the model was compiled by ``torch.compile``.
    """

    def __init__(self, model: nn.Module, paths: Iterable[str]) -> None:
        self.features: dict[str, Tensor] = {}
        paths = tuple(dict.fromkeys(paths))
        self._model = model
        self._modules = {path: _find(model, path) for path in paths}
        self._handles: list[RemovableHandle] = []
        self._refuse_compiled()

    def _refuse_compiled(self) -> None:
        """Hooks set after the first call of a compiled model are skipped without a word."""
        layers = _layers(self._model)
        compiled = any(hasattr(layer, "_orig_mod") or layer._compiled_call_impl is not None for layer in layers)
        if self._modules and compiled:
            raise IncompatibleError(
                "the inner modules of a compiled model cannot be tapped",
                where=f"taps {', '.join(self._modules)}",
                fix="give the model itself, not what torch.compile made of it; train.*.compile: false in a recipe",
            )

    def __enter__(self) -> Self:
        self._refuse_compiled()  # Module.compile may have come since
        self.clear()
        self._handles += [
            module.register_forward_hook(self._hook(path, position))
            for path, (module, position) in self._modules.items()
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def clear(self) -> None:
        """Forget what was captured; between steps, so that no graph outlives its step."""
        self.features = {}

    def take(self) -> dict[str, Tensor]:
        """What the last forward captured at every path, and `clear`.

        Raises:
            IncompatibleError: a tapped module was not called.
        """
        missing = [path for path in self._modules if path not in self.features]
        if missing:
            raise IncompatibleError(
                f"module '{missing[0]}' was not called in the model's forward",
                where="taps",
                fix="tap a module that the forward calls, or one inside or around it",
            )
        features = self.features
        self.clear()
        return features

    def _hook(self, path: str, position: int | None) -> Callable[[nn.Module, Any, Any], None]:
        def capture(module: nn.Module, inputs: Any, output: Any) -> None:
            self.features[path] = _tensor_of(output, path, position)

        return capture


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside ``DistributedDataParallel``, ``torch.compile`` and the like; else itself."""
    return _layers(model)[-1]


def _layers(model: nn.Module) -> list[nn.Module]:
    """The model and what it wraps, from the outside in."""
    layers = [model]
    while True:
        inner = getattr(layers[-1], "_orig_mod", None)
        if inner is None and [name for name, _ in layers[-1].named_children()] == ["module"]:
            inner = layers[-1].module
        if not isinstance(inner, nn.Module):
            return layers
        layers.append(inner)


def tap_shapes(model: nn.Module, inputs: Mapping[str, Tensor], paths: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of features, without the batch dimension, by one forward that leaves no trace.

    It runs in eval mode without gradients, and afterwards modes, buffers and torch's random state are what
    they were.

    Args:
        model: the model, wrapped or not.
        inputs: its keyword inputs, on its device; one row is enough.
        paths: as for `Taps`.

    Raises:
        IncompatibleError: as for `Taps`, and when a tapped module is not called.
    """
    taps = Taps(model, paths)
    # One process may ask alone: the forward of DistributedDataParallel would wait for the others.
    bare = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    modes = {module: module.training for module in bare.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in bare.buffers()]
    devices = {tensor.device for tensor in [*bare.parameters(), *inputs.values()] if tensor.is_cuda}
    with torch.random.fork_rng(devices=[device.index or 0 for device in devices]), torch.no_grad():
        try:
            bare.eval()
            with taps:
                call(bare, dict(inputs))
        finally:
            for module, training in modes.items():
                module.training = training
            for buffer, before in buffers:
                buffer.copy_(before)
    return {path: tuple(feature.shape[1:]) for path, feature in taps.take().items()}


def _find(model: nn.Module, path: str) -> tuple[nn.Module, int | None]:
    """The module of a path, and the position in its output when the path ends in one."""
    inner = unwrap(model)
    parent, _, last = path.rpartition(".")
    for root in (model, inner):
        modules = dict(root.named_modules(remove_duplicate=False))
        if path and path in modules:
            return modules[path], None
        if last.isdecimal() and parent in modules and parent:
            return modules[parent], int(last)
    known = [name for name, _ in inner.named_modules() if name]
    raise IncompatibleError(f"{type(inner).__name__} has no module '{path}'", where="taps", fix=nearest(path, known))


def _tensor_of(output: Any, path: str, position: int | None) -> Tensor:
    values = list(output.values()) if isinstance(output, Mapping) else output
    if position is not None:
        if not isinstance(values, tuple | list) or position >= len(values):
            raise IncompatibleError(
                f"the output of module '{path.rpartition('.')[0]}' has no position {position}",
                where=f"tap '{path}'",
                fix="tap the module itself, or a position that its output has",
            )
        output = values[position]
    elif isinstance(output, Mapping) and isinstance(output.get("last_hidden_state"), Tensor):
        output = output["last_hidden_state"]
    found = _first_tensor(output)
    if found is None:
        raise IncompatibleError(
            f"module '{path}' returns {type(output).__name__}, in which there is no tensor",
            where=f"tap '{path}'",
            fix="tap a module that returns a tensor",
        )
    return found


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    if isinstance(output, tuple | list | Mapping):
        for value in values:
            found = _first_tensor(value)
            if found is not None:
                return found
    return None
