"""``core/mutual``: peers that learn from labels and from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stillhouse.forwarding import predict
from stillhouse.kinds import DEFAULT_SOFT_LOSS, OutputKind
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.methods.losses import make_terms
from stillhouse.recipe.resolved import BoundTerm
from stillhouse.teachers.ensemble import combine
from stillhouse.trained import Trained
from stillhouse.training.learner import Learner
from stillhouse.training.loss import HardLoss, Term, TermValues
from stillhouse.types import Batch, Outputs


class Mutual(Method):
    """Deep mutual learning: ``n`` peers in one fit, each with its hard loss and the mean soft loss to the others.

    With ``p_k`` ``[B, ...]`` what peer k says of a batch, ``stop`` without gradient::

        target: peers       L_k = hard(p_k) + weight / (n - 1) * sum_(l != k) soft(p_k, stop(p_l))
        target: ensemble    L_k = hard(p_k) + weight * soft(p_k, stop(mean_l p_l)),   peer k's own among the l

    ``soft`` is the head's default soft loss (for classes ``KL(p_l || p_k)``, for values their squared difference), and
    the mean is of probabilities for classes, of values for regression. Rows without labels count in ``soft`` only. The
    step minimises ``sum_k L_k``: no loss but ``L_k`` has a gradient in peer k.

    Source: Zhang, Xiang, Hospedales, Lu, "Deep Mutual Learning" (2018), the losses of two networks and their extension
    to larger cohorts. The paper updates its networks in turn, here all take their step at once; its own ensemble target
    leaves network k out of the mean. A mean of all, as here, is the target of online ensembles such as Lan, Zhu, Gong,
    "Knowledge Distillation by On-the-Fly Native Ensemble" (2018), which share a trunk and weigh their members.

    The recipe's teacher and soft terms have no part in it: the teacher is reported beside the student.

    Cost: n forward and backward passes a step; one peer is deployed.

    Args:
        peers: how many peers have the student's own architecture; 2 by default, 1 where ``others`` are given.
        others: further peers, of other architectures: ids of students, or {use: id, **options}.
        weight: weight of the soft loss.
        target: what a peer learns from: each of the other peers, or the ensemble of all.
        temperature: softens predictions in soft losses that have a temperature; the paper has 1.
    """

    def __init__(
        self,
        *,
        peers: Annotated[int, Field(ge=1)] | None = None,
        others: tuple[str | dict[str, Any], ...] = (),
        weight: Annotated[float, Field(gt=0)] = 1.0,
        target: Literal["peers", "ensemble"] = "peers",
        temperature: Annotated[float, Field(gt=0)] = 1.0,
    ) -> None:
        self.own = peers or (1 if others else 2)
        if self.own + len(others) < 2:
            raise ValueError("one peer has nobody to learn from: set peers to 2 or more, or name others")
        self.others, self.weight, self.target, self.temperature = others, weight, target, temperature

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """One fit of all peers; the best on validation of the student's own architecture is deployed."""
        peers = {"peer-1": student}
        references = [None] * (self.own - 1) + [context.bind("student", each) for each in self.others]
        for number, component in enumerate(references, start=2):
            name = f"peer-{number}"
            peers[name] = context.build(component, seed=context.derived_seed(name))
        use = DEFAULT_SOFT_LOSS[context.head.kind]
        soft = context.bind("objective", use)
        if "temperature" in soft.options:
            soft = context.bind("objective", {"use": use, "temperature": self.temperature})
        term = BoundTerm(soft, scheduled={})
        made = make_terms([term], context.splits, student, None, context.device)[0]
        context.fit(Peers(peers, context.head.hard_loss, made, self.weight, self.target, context.head.kind))
        values = context.compare(peers, "val")
        chosen = context.best({f"peer-{number}": values[f"peer-{number}"] for number in range(1, self.own + 1)})
        for name, peer in peers.items():
            context.keep(name, peer)
        context.note(deployed=chosen, **{f"val_{context.head.primary}": values})
        return peers[chosen]

    def evaluate(self, context: MethodContext, models: Mapping[str, Trained]) -> dict[str, Any]:
        """Test metrics of every peer and of their ensemble."""
        return {f"test_{context.head.primary}": context.compare(context.kept(), "test")}


class Peers(Learner):
    """All peers of one fit; each keeps its own best epoch. See `Mutual` for the loss.

    Args:
        peers: networks by name, the student's own first.
        hard_loss: a head's ``hard_loss``.
        soft: between a peer's prediction and what it learns from.
        weight: of the soft loss.
        target: ``"peers"`` or ``"ensemble"``.
        kind: the head's output kind, which says what a mean of predictions is.
    """

    def __init__(
        self,
        peers: Mapping[str, Trained],
        hard_loss: HardLoss,
        soft: Term,
        weight: float,
        target: str,
        kind: OutputKind,
    ) -> None:
        (self._first, student), *others = peers.items()
        super().__init__(student.model, student.inputs)
        self.others = nn.ModuleDict({name: peer.model for name, peer in others})
        self._inputs = {name: peer.inputs for name, peer in peers.items()}
        self._hard_loss, self._soft, self._weight, self._target, self._kind = hard_loss, soft, weight, target, kind

    @property
    def judged(self) -> Mapping[str, nn.Module]:
        """See `Learner.judged`: every peer."""
        return {self._first: self.student, **self.others}

    def inputs_of(self, name: str) -> tuple[str, ...]:
        """See `Learner.inputs_of`: peers may take different inputs."""
        return self._inputs[name]

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`; raw values are means over the peers."""
        predictions = [predict(peer, batch, self._inputs[name]) for name, peer in self.judged.items()]
        rows = {name: entry[:labelled] for name, entry in batch.items()}
        hard = torch.stack([self._hard_loss(each[:labelled], rows) for each in predictions])
        soft = torch.stack([self._to_target(number, predictions, batch, labelled) for number in range(len(hard))])
        total = hard.sum() + self._weight * soft.sum()
        return total, {
            "hard": {"raw": hard.detach().mean(), "weighted": hard.detach().sum()},
            "mutual": {"raw": soft.detach().mean(), "weighted": self._weight * soft.detach().sum()},
        }

    def _to_target(self, number: int, predictions: Sequence[Tensor], batch: Batch, labelled: int) -> Tensor:
        """The soft loss of one peer, a scalar."""
        fixed = [each.detach() for each in predictions]
        if self._target == "ensemble":
            targets = [combine(fixed, [1 / len(fixed)] * len(fixed), self._kind)]
        else:
            targets = [each for other, each in enumerate(fixed) if other != number]
        own = Outputs(predictions[number])
        return torch.stack([self._soft(own, Outputs(target), batch, labelled) for target in targets]).mean()
