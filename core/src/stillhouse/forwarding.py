"""How a model is called with a batch or a whole split: which entries it takes, and what of its output is the
prediction."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stillhouse.errors import IncompatibleError
from stillhouse.kinds import OutputKind
from stillhouse.types import Batch, DataInfo, Head, Split


def accepted_inputs(
    model: nn.Module, info: DataInfo, *, declared: Sequence[str] = (), who: str = "the model"
) -> tuple[str, ...]:
    """The dataset's inputs that ``model.forward`` takes: those ``declared`` by its spec, else by its signature.

    An ``nn.Sequential`` takes the only input there is, whatever its name.

    Raises:
        IncompatibleError: the model needs an input that the dataset does not have, or takes none of them.
    """
    available = tuple(info.inputs)
    if isinstance(model, nn.Sequential) and not declared and len(available) == 1:
        return available
    parameters = inspect.signature(model.forward).parameters.values()
    place = _place(model)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    needed = list(declared) or [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    unknown = [] if open_ended or isinstance(model, nn.Sequential) else [each for each in declared if each not in names]
    if unknown:
        raise IncompatibleError(
            f"{who} declares the input '{unknown[0]}' in its spec, and its forward takes {', '.join(names) or 'none'}",
            where=place,
            fix=f"rename the parameter of forward to '{unknown[0]}', or correct 'inputs' of the spec; inputs are given "
            "by name",
        )
    missing = [name for name in needed if name not in available]
    taken = tuple(declared) or (available if open_ended else tuple(name for name in names if name in available))
    if missing or not taken:
        raise IncompatibleError(
            f"{who} takes the inputs {needed or names}, the dataset has {list(available)}",
            where=place,
            fix="name forward's parameters (and 'inputs' of the spec) after the dataset's inputs, or choose another "
            "model",
        )
    return taken


def _place(model: nn.Module) -> str:
    """Where the author wrote ``forward``: the class, file and line."""
    where = f"forward of {type(model).__name__}"
    try:
        code = inspect.unwrap(type(model).forward).__code__
    except AttributeError:
        return where
    return f"{where} ({code.co_filename}:{code.co_firstlineno})"


def predict(model: nn.Module, batch: Batch, inputs: Sequence[str]) -> Tensor:
    """The model's prediction for a batch, in float32 when mixed precision gives half; Hugging Face outputs give their
    ``logits``, tuples their first item.

    Raises:
        IncompatibleError: there is no tensor in the model's output.
    """
    output = call(model, {name: batch[name] for name in inputs})
    if not isinstance(output, Tensor):  # the exporter of torch 2.6 cannot follow the questions within
        if hasattr(output, "logits"):
            output = output.logits
        if isinstance(output, tuple | list) and output:
            output = output[0]
        if not isinstance(output, Tensor):
            raise IncompatibleError(
                f"the model returned {type(output).__name__}, not a tensor",
                fix="return the prediction, or an output with .logits",
            )
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def answered(model: nn.Module, batch: Batch, inputs: Sequence[str], head: Head | None) -> Tensor:
    """The model's prediction for a batch, or with a head what it keeps of it."""
    prediction = predict(model, batch, inputs)
    return prediction if head is None else head.answer(prediction, batch, model)


def call(model: nn.Module, inputs: Batch) -> Any:
    """Call ``model`` with inputs by keyword; an ``nn.Sequential``, which has no names, with its only one."""
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    if isinstance(bare, nn.Sequential) and len(inputs) == 1:
        return model(*inputs.values())
    return model(**inputs)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on another device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def in_order(split: Split, batch_size: int = 512) -> Iterator[Batch]:
    """All rows in order, in batches."""
    for start in range(0, len(split), batch_size):
        yield split.batch(range(start, min(start + batch_size, len(split))))


TOKENS = 8_192
"""Rows times the longest row of a batch of `all_rows`, where rows differ in length."""
VALUES = 2**25
"""Values of a prediction ``[B, T, V]`` of one batch, where every position has one: 128 MB."""


def most_tokens(kind: OutputKind, outputs: int) -> int:
    """Rows times the longest row of a batch, so that a prediction of each position stays small."""
    return min(TOKENS, max(1, VALUES // outputs)) if kind is OutputKind.SEQUENCE else TOKENS


def batch_bounds(split: Split, batch_size: int = 512, tokens: int = TOKENS) -> tuple[Tensor | None, list[int]]:
    """The order of all rows in `all_rows` ``[N]`` (None: as they are), and where each of its batches begins in that
    order, with N at the end."""
    if split.lengths is None:
        return None, [*range(0, len(split), batch_size), len(split)]
    lengths = torch.as_tensor(split.lengths)
    order = torch.sort(lengths, stable=True).indices
    bounds = [0]
    while bounds[-1] < len(order):
        fits = batch_size
        while fits > 1 and fits * int(lengths[order[min(bounds[-1] + fits, len(order)) - 1]]) > tokens:
            fits //= 2
        bounds.append(min(bounds[-1] + fits, len(order)))
    return order, bounds


def rows_between(split: Split, order: Tensor | None, start: int, end: int) -> tuple[Tensor, Batch]:
    """The rows from ``start`` to ``end`` in an order of `batch_bounds`, and their positions."""
    if order is None:
        return torch.arange(start, end), split.batch(range(start, end))
    return order[start:end], split.batch(order[start:end].tolist())


def all_rows(split: Split, batch_size: int = 512, tokens: int = TOKENS) -> Iterator[tuple[Tensor, Batch]]:
    """All rows in batches, each with its positions ``[B]``: in order, or, where rows differ in length, from the
    shortest to the longest, so that little is padded and no batch has more than ``tokens`` (unless a row has)."""
    order, bounds = batch_bounds(split, batch_size, tokens)
    for start, end in pairwise(bounds):
        yield rows_between(split, order, start, end)


@torch.no_grad()
def predict_split(
    model: nn.Module,
    split: Split,
    inputs: Sequence[str],
    device: torch.device,
    batch_size: int = 512,
    head: Head | None = None,
) -> Tensor:
    """Predictions for all rows in order, float32 on the CPU; the model's training mode is restored. With a head, what
    it keeps of them (`Head.answer`)."""
    training = model.training
    tokens = TOKENS if head is None else most_tokens(head.kind, head.outputs)
    model.eval()
    try:
        found = [
            (positions, answered(model, to_device(batch, device), inputs, head).float().cpu())
            for positions, batch in all_rows(split, batch_size, tokens)
        ]
    finally:
        model.train(training)
    return as_ordered(found)


def as_ordered(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Values of the batches of `all_rows` in the order of the rows, ``[N, ...]``."""
    positions, values = (torch.cat([part[at] for part in parts]) for at in (0, 1))
    return values[torch.argsort(positions)]
