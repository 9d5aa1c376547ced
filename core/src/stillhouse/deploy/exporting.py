"""A run's student as a file for other programs, checked against the model."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stillhouse.deploy.predicting import open_model, open_run
from stillhouse.errors import ExportError
from stillhouse.forwarding import predict
from stillhouse.kinds import OutputKind
from stillhouse.plugins.manager import Manager
from stillhouse.plugins.spec import load_target
from stillhouse.plugins.specs import DatasetSpec
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.storage import read_json, replacing, write_json
from stillhouse.trained import Trained
from stillhouse.types import Batch, DataInfo, Head

MEANINGS = {
    OutputKind.MULTICLASS: "logits; softmax gives probabilities",
    OutputKind.BINARY: "a logit; sigmoid gives the probability",
    OutputKind.MULTILABEL: "logits; sigmoid gives the probability of each label",
    OutputKind.REGRESSION: "values, in the unit",
    OutputKind.GAUSSIAN: "mean and logarithm of the variance",
    OutputKind.SEGMENTATION: "logits of each pixel; softmax over the classes gives probabilities",
    OutputKind.SEQUENCE: "logits of each position; softmax gives probabilities",
}
"""What an exported prediction is, by output kind."""
TOLERANCE = 1e-4
"""Largest difference between an exported file's outputs and the model's, relative to the outputs' own scale."""


class _ByPosition(nn.Module):
    """The student with inputs in order and the bare prediction as its only output."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *values: Tensor) -> Tensor:
        return predict(self.model, dict(zip(self.inputs, values, strict=True)), self.inputs)


def export(
    run: str | Path,
    *,
    format: str = "onnx",
    out: str | Path | None = None,
    seed: int | None = None,
    manager: Manager | None = None,
) -> Path:
    """Export a run's student, and check that the file says what the model says.

    Args:
        run: the run folder.
        format: ``"onnx"`` (needs the extra ``stillhouse[onnx]``) or ``"torch"`` (a ``torch.export`` program).
        out: file to write, ``<run>/export/student.onnx`` (or ``.pt2``) by default; ``<file>.json`` beside it names
            inputs, output and classes, and says how new rows are prepared (what the dataset's reader says of itself,
            and its state).
        seed: which student; by default the best on validation.
        manager: plugins to use, the installed ones by default.

    Returns:
        the file.

    Raises:
        ExportError: the format is unknown, a package is missing, the model cannot be exported, or the file disagrees.
    """
    if format not in ("onnx", "torch"):
        raise ExportError(f"format '{format}' is unknown", where="--format", fix="one of onnx, torch")
    folder = Path(run)
    resolved, info, head, registry = open_run(folder, manager)
    trained, source = open_model(folder, model="student", seed=seed, info=info, registry=registry)
    if not trained.is_network:
        raise ExportError(
            f"'{trained.component.id}' is an estimator, not a network",
            where=str(source),
            fix="load estimator.skops with skops where it is needed",
        )
    example = _example(trained, info, rows=2)
    path = Path(out) if out is not None else folder / "export" / f"student.{'onnx' if format == 'onnx' else 'pt2'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = _ByPosition(trained.model, trained.inputs).eval()
    values = tuple(example[name] for name in trained.inputs)
    difference = _write(path, format, model, values, trained, info)
    described = {
        "schema": 1,
        "recipe": resolved.recipe.name,
        "student": trained.component.id,
        "from": source.relative_to(folder).as_posix(),
        **_interface(trained, info, head),
        **_preparation(folder, resolved),
        "difference": difference,
    }
    write_json(path.with_name(path.name + ".json"), described)
    return path


def _write(
    path: Path, format: str, model: nn.Module, values: tuple[Tensor, ...], trained: Trained, info: DataInfo
) -> float:
    """Write the file and compare it with the model; the difference, relative to the scale of the outputs.

    Raises:
        ExportError: a package is missing, the model cannot be exported, or the file disagrees.
    """
    with replacing(path) as temporary, _without_words():
        try:
            difference = (
                _export_onnx(model, values, trained, info, temporary)
                if format == "onnx"
                else _export_torch(model, values, trained, info, temporary)
            )
        except ImportError as error:
            raise ExportError(
                f"the format onnx needs a package that is not installed: {error.name}",
                where="--format onnx",
                fix="pip install 'stillhouse[onnx]'",
            ) from error
        except ExportError:
            raise
        except Exception as error:  # exporters raise errors of many kinds, all about the model
            raise ExportError(
                f"'{trained.component.id}' cannot be exported: {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else ''}",
                where=trained.component.spec.target,
                fix=(
                    "avoid control flow on data and unusual operators in its forward; --debug shows the "
                    "exporter's words"
                ),
            ) from error
        if difference > TOLERANCE:
            raise ExportError(
                f"the exported file disagrees with the model by {difference:.2g} of the outputs' scale",
                where=str(path),
                fix="report it with the recipe; nothing was written",
            )
    return difference


def _interface(trained: Trained, info: DataInfo, head: Head) -> dict[str, Any]:
    """What goes in, what the output means and how the head reads it, and the numbers that it may need (a cap, say)."""
    return {
        "inputs": {
            name: {"shape": ["batch", *info.inputs[name].shape], "dtype": info.inputs[name].dtype}
            for name in trained.inputs
        },
        "output": {
            "name": "prediction",
            "kind": str(head.kind),
            "width": head.outputs,
            "meaning": MEANINGS[head.kind],
            "unit": info.unit,
            "classes": list(info.classes) if info.classes else None,
            "decoding": " ".join((inspect.getdoc(head.decode) or "").split()),
        },
        "facts": {name: value for name, value in info.meta.items() if isinstance(value, int | float | str)},
    }


def _preparation(folder: Path, resolved: ResolvedRecipe) -> dict[str, Any]:
    """The state of the dataset's reader, and what its docstring says of how it prepares rows, without its arguments."""
    state, spec = folder / "data" / "reader.json", resolved.dataset.component.spec
    if not state.exists() or not isinstance(spec, DatasetSpec) or not spec.reader:
        return {"reader": None, "preparation": ""}
    reader = load_target(spec.reader, who=resolved.dataset.id)
    words = inspect.cleandoc(reader.__doc__ or "").partition("\n\nArgs:")[0]
    return {"reader": read_json(state), "preparation": " ".join(words.split())}


@contextlib.contextmanager
def _without_words() -> Iterator[None]:
    """Keep away what exporters say of themselves (deprecations, versions, steps): whether the file is right is checked,
    and an error has the exporter's words."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _example(trained: Trained, info: DataInfo, *, rows: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    batch: Batch = {}
    for name in trained.inputs:
        spec = info.inputs[name]
        shape = (rows, *(length if length > 0 else 8 for length in spec.shape))
        dtype = getattr(torch, spec.dtype)
        batch[name] = (
            torch.randn(shape, generator=generator).to(dtype)
            if dtype.is_floating_point
            else torch.ones(shape, dtype=dtype)
        )
    return batch


def _dynamic(trained: Trained, info: DataInfo) -> tuple[dict[int, Any], ...]:
    batch = torch.export.Dim("batch", min=1, max=65536)
    shapes = []
    for name in trained.inputs:
        dims = {at + 1: torch.export.Dim.AUTO for at, length in enumerate(info.inputs[name].shape) if length < 0}
        shapes.append({0: batch, **dims})
    return tuple(shapes)


def _export_onnx(model: nn.Module, values: tuple[Tensor, ...], trained: Trained, info: DataInfo, path: Path) -> float:
    import onnxruntime

    torch.onnx.export(
        model,
        values,
        str(path),
        input_names=list(trained.inputs),
        output_names=["prediction"],
        dynamic_shapes=(_dynamic(trained, info),),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for rows in (1, 3):
        example = _example(trained, info, rows=rows)
        (answer,) = session.run(None, {name: example[name].numpy() for name in trained.inputs})
        worst = max(worst, _difference(model, example, trained.inputs, answer))
    return worst


def _export_torch(model: nn.Module, values: tuple[Tensor, ...], trained: Trained, info: DataInfo, path: Path) -> float:
    program = torch.export.export(model, values, dynamic_shapes=(_dynamic(trained, info),))
    with path.open("wb") as file:
        torch.export.save(program, file)
    with path.open("rb") as file:
        loaded = torch.export.load(file).module()
    example = _example(trained, info, rows=3)
    with torch.no_grad():
        answer = loaded(*(example[name] for name in trained.inputs)).numpy()
    return _difference(model, example, trained.inputs, answer)


@torch.no_grad()
def _difference(model: nn.Module, example: Batch, inputs: tuple[str, ...], answer: np.ndarray) -> float:
    expected = model(*(example[name] for name in inputs)).numpy()
    scale = max(float(np.abs(expected).max()), 1e-6)
    return float(np.abs(expected - answer).max() / scale)
