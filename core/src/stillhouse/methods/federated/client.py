"""What a client does in a round: it learns from its own rows and from what it has received, and answers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from stillhouse.methods.context import MethodContext
from stillhouse.methods.federated.messages import Message, of_outputs, of_weights, outputs_of, weights_of
from stillhouse.methods.federated.parts import ClientRows, Parts
from stillhouse.methods.federated.privacy import Protection
from stillhouse.methods.phases import PHASES
from stillhouse.objectives.schedule import parse_schedule
from stillhouse.progress import Silent
from stillhouse.storage import read_tensors
from stillhouse.teachers import StoredTeacher, TeacherSource
from stillhouse.trained import Trained
from stillhouse.training.learner import Distillation, Learner
from stillhouse.training.loss import DistillationLoss, TermValues
from stillhouse.training.threads import choose_threads, limited_threads
from stillhouse.types import Batch, Outputs, SubsetSplit

CLIENTS = "clients"
"""Folder, inside that of the phases, with a folder for each client."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How clients and server learn; see the options of `stillhouse.methods.federated.method.Federated`."""

    share: Literal["outputs", "weights"]
    distil: Literal["clients", "server"]
    rounds: int
    local_epochs: int
    server_epochs: int
    fraction: float
    min_clients: int
    deadline: float | None
    students: tuple[Any, ...]
    protection: Protection

    @property
    def sends_weights_down(self) -> bool:
        """Clients start from the server's model in each round; else each goes on with a model of its own."""
        return self.share == "weights" or self.distil == "server"

    @property
    def needs_public_rows(self) -> bool:
        """Outputs of public rows are averaged."""
        return self.share == "outputs" or self.distil == "server"


class Digest(Learner):
    """Labels of a client's own rows, and soft losses of the public rows to what the server sent::

        alpha * hard(own rows) + (1 - alpha) * sum_i weight_i * soft_i(public rows)

    Args:
        base: the client's model, the soft losses, and what it received.
        hard_loss: a head's ``hard_loss``.
        alpha: share of the hard loss.
    """

    teacher: TeacherSource

    def __init__(self, base: Distillation, hard_loss: Any, alpha: float) -> None:
        super().__init__(base.student, base.inputs)
        self.base, self.loss, self.teacher = base.outputs, base.loss, base.teacher
        self._hard_loss, self._alpha = hard_loss, alpha

    def set_progress(self, progress: float) -> None:
        """See `Learner.set_progress`."""
        self.loss.set_progress(progress)

    def forward(self, batch: Batch, labelled: int) -> tuple[Tensor, TermValues]:
        """See `Learner.forward`."""
        prediction = self.base(batch).prediction
        own = {name: entry[:labelled] for name, entry in batch.items()}
        hard = self._hard_loss(prediction[:labelled], own)
        public = {name: entry[labelled:] for name, entry in batch.items() if len(entry) > labelled}
        soft, values = self.loss(Outputs(prediction[labelled:]), self.teacher(public), public)
        share = 1 - self._alpha
        for value in values.values():
            value["weighted"] = share * value["weighted"]
        values["hard"] = {"raw": hard.detach(), "weighted": self._alpha * hard.detach()}
        return self._alpha * hard + share * soft, values


class Client:
    """One client: its rows, its model, and where it keeps what it has learned.

    All that it does in a round is a function of the request and of the weights that its last finished round left in its
    folder, so that a round which was stopped is repeated to the same bits, here or in another process.

    Args:
        context: of the student that is trained; the client sees its own rows and the public ones of it.
        rows: its rows.
        parts: of all; it takes the public rows only.
        settings: how it learns.
        number: its place among the clients, which gives it one of ``students``.
    """

    def __init__(self, context: MethodContext, rows: ClientRows, parts: Parts, settings: Settings, number: int) -> None:
        self.name, self.key, self.settings, self.public = rows.name, rows.key, settings, parts.public
        self.rows = SubsetSplit(context.splits.train, rows.positions)
        self.folder = context.folder / PHASES / CLIENTS / rows.key
        self.context = replace(
            context,
            folder=self.folder,
            splits=replace(context.splits, train=self.rows, unlabelled=parts.public),
            reporter=Silent(),
            label=f"{context.label}, {rows.name}",
            history=[],
            notes={},
            _random_state=[],
        )
        self.number = number

    def answer(self, request: Message) -> Message:
        """What the client does in a round.

        Args:
            request: ``round``, and the server's model or its predictions of the public rows; neither in the first round
                of clients with models of their own.

        Returns:
            the client's model, or its predictions of the public rows; the number of its rows, and its last loss.

        Raises:
            StillhouseError: the training fails.
        """
        number = int(request.facts["round"])
        received = weights_of(request.arrays)
        model = self.model(received, before=number)
        learner = self._learner(model, request, received)
        others = self.public if isinstance(learner, Digest) else None
        config: dict[str, Any] = {"epochs": self.settings.local_epochs, "select": "last", "patience": None}
        history = self.context.fit(learner, phase=f"round-{number}", rows=self.rows, unlabelled=others, **config)
        facts = {"rows": len(self.rows), "loss": float(history[-1]["train"]["loss"])}
        protect = self.settings.protection.of(self.context.derived_seed(f"noise-{self.key}-{number}"))
        if self.settings.share == "weights":
            return Message(of_weights(protect(model.model.state_dict(), received)), facts)
        assert self.public is not None
        with limited_threads(choose_threads(self.context.config, model.model, self.rows, model.inputs)):
            predicted = model.predict(self.public.plain(), self.context.device)
        return Message(of_outputs(protect({"": predicted}, {})[""]), facts)

    def model(self, received: dict[str, Tensor], *, before: int) -> Trained:
        """The client's model as it is before a round: the server's, its own of its last round, or a new one."""
        own = self.settings.students
        component = self.context.bind("student", own[self.number % len(own)]) if own else None
        seed = None if received else self.context.derived_seed(f"client-{self.key}")
        model = self.context.build(component, seed=seed)
        finished = [each for each in self._finished() if each < before]
        for old in finished if received else finished[:-1]:
            shutil.rmtree(self._phase(old), ignore_errors=True)
        if received:
            model.model.load_state_dict(received)
        elif finished:
            kept = read_tensors(self._phase(finished[-1]) / "learner.safetensors")
            model.model.load_state_dict(
                {name.removeprefix("student."): value for name, value in kept.items() if name.startswith("student.")}
            )
        return model

    def _finished(self) -> Sequence[int]:
        """Rounds that it has finished, in order."""
        found = [re.fullmatch(r"round-(\d+)", path.parent.name) for path in self.folder.glob(f"{PHASES}/*/done.json")]
        return sorted(int(each[1]) for each in found if each is not None)

    def _phase(self, number: int) -> Path:
        return self.folder / PHASES / f"round-{number}"

    def _learner(self, model: Trained, request: Message, received: dict[str, Tensor]) -> Learner:
        context = self.context
        consensus = outputs_of(request.arrays)
        progress = int(request.facts["round"]) / max(self.settings.rounds - 1, 1)
        alpha = parse_schedule(context.alpha).value(progress)
        if self.settings.distil == "clients" and consensus is not None:
            assert self.public is not None
            teacher = StoredTeacher(self.public.index(), consensus)
            return Digest(soft_only(context, model, teacher), context.head.hard_loss, alpha)
        if self.settings.distil == "clients" and received and request.facts["round"]:
            server = context.build()
            server.model.load_state_dict(received)
            context.build()  # adapters draw their weights where those of the student ended
            return context.distillation(model, context.as_teacher(server), alpha=alpha)
        return context.supervised(model)


def soft_only(context: MethodContext, model: Trained, teacher: TeacherSource) -> Distillation:
    """Learning from a source alone, on rows without labels."""
    made = context.loss(model, alpha=0.0)
    loss = DistillationLoss(None, made.terms, alpha=0.0)
    return Distillation(model.model, model.inputs, loss, teacher)


def clients_of(context: MethodContext, parts: Parts, settings: Settings) -> dict[str, Client]:
    """All clients, by name."""
    return {rows.name: Client(context, rows, parts, settings, number) for number, rows in enumerate(parts.clients)}


def device_state(model: Trained) -> dict[str, Tensor]:
    """A copy of a model's state on the CPU."""
    return {name: torch.clone(tensor.detach().cpu()) for name, tensor in model.model.state_dict().items()}
