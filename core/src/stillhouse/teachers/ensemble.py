"""Several teachers as one: the weighted mean of what they say, taken where means make sense."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stillhouse.kinds import OutputKind
from stillhouse.teachers.source import TeacherSource
from stillhouse.types import Batch, Outputs


class EnsembleTeacher:
    """The weighted mean of several sources: of values for regression, of probabilities for classification.

    Args:
        sources: the members.
        weights: weight of each; they are normalised to sum to 1.
        kind: the head's output kind.

    Raises:
        ValueError: no members, or weights that are not positive, or not one per member.
    """

    def __init__(self, sources: Sequence[TeacherSource], *, weights: Sequence[float], kind: OutputKind) -> None:
        if not sources or len(sources) != len(weights) or min(weights) <= 0:
            raise ValueError(
                f"an ensemble needs one positive weight per member, not {list(weights)} for {len(sources)}"
            )
        self._sources, self._kind = list(sources), kind
        self._weights = [weight / sum(weights) for weight in weights]

    def __call__(self, batch: Batch) -> Outputs:
        """See `TeacherSource`."""
        predictions = [source(batch).prediction for source in self._sources]
        return Outputs(combine(predictions, self._weights, self._kind), members=torch.stack(predictions))


def combine(predictions: Sequence[Tensor], weights: Sequence[float] | Tensor, kind: OutputKind) -> Tensor:
    """The weighted mean of predictions, in the prediction's own form (logits again, for classification).

    A mixture of Gaussians is summarised by its own mean and variance.

    Args:
        predictions: of each member, ``[B, ...]``.
        weights: of each member, or of each member for each row ``[M, B]``; they sum to 1 over the members.
        kind: the head's output kind.
    """
    if len(predictions) == 1:
        return predictions[0]
    share = torch.as_tensor(weights, dtype=torch.float64, device=predictions[0].device)
    stacked = torch.stack([prediction.double() for prediction in predictions])
    share = share.reshape(*share.shape, *[1] * (stacked.dim() - share.dim()))
    if kind is OutputKind.REGRESSION:
        return (share * stacked).sum(0).float()
    if kind is OutputKind.GAUSSIAN:
        means, log_variances = stacked.chunk(2, dim=-1)
        mean = (share * means).sum(0)
        variance = (share * (log_variances.exp() + means**2)).sum(0) - mean**2
        return torch.cat([mean, variance.clamp_min(1e-12).log()], dim=-1).float()
    if kind in (OutputKind.BINARY, OutputKind.MULTILABEL):
        # log p and log (1 - p) of the mixture, each by logsumexp, stay exact for confident members.
        yes = torch.logsumexp(torch.nn.functional.logsigmoid(stacked) + share.log(), dim=0)
        no = torch.logsumexp(torch.nn.functional.logsigmoid(-stacked) + share.log(), dim=0)
        return (yes - no).float()
    axis = 1 if kind is OutputKind.SEGMENTATION else -1
    logs = torch.log_softmax(stacked, dim=axis + 1 if axis >= 0 else axis)
    return torch.logsumexp(logs + share.log(), dim=0).float()
