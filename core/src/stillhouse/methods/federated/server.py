"""The server's side: rounds of asking clients, leaving out those that fail, and learning from what they sent."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import TrainingError
from stillhouse.methods.context import MethodContext
from stillhouse.methods.federated.client import Settings, device_state, soft_only
from stillhouse.methods.federated.engines import Engine, Reply
from stillhouse.methods.federated.messages import (
    OUTPUTS,
    Message,
    fault,
    mean_outputs,
    of_outputs,
    of_weights,
    outputs_of,
    weighted_mean,
    weights_of,
)
from stillhouse.methods.federated.parts import Parts
from stillhouse.methods.phases import PHASES
from stillhouse.progress import Silent
from stillhouse.teachers import StoredTeacher
from stillhouse.trained import Trained
from stillhouse.training.threads import choose_threads, limited_threads
from stillhouse.types import SubsetSplit


@dataclass
class Progress:
    """What is known after a round; kept, so that a run which stops goes on with the next one.

    Attributes:
        done: rounds.
        log: of each round: who was asked, who was left out and why, bytes, the validation metric.
        epochs: a record of each round, as of the epochs of other trainings.
        weights: the server's model.
        best: the server's model of the best round so far.
        chosen: the round of `best`, from 1.
        consensus: the mean of the clients' predictions of the public rows; None before there is one.
    """

    done: int
    log: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    weights: dict[str, Tensor]
    best: dict[str, Tensor]
    chosen: int = 0
    consensus: Tensor | None = None


class Server:
    """The rounds of one student.

    Args:
        context: what the framework gives.
        student: the server's model, deployed in the end.
        parts: who has which rows; the server looks at names and public rows.
        settings: how clients and server learn.
    """

    def __init__(self, context: MethodContext, student: Trained, parts: Parts, settings: Settings) -> None:
        self.context, self.student, self.public, self.settings = context, student, parts.public, settings
        self.names = [rows.name for rows in parts.clients]
        self.fits = replace(
            context,
            folder=context.folder / PHASES / "server",
            reporter=Silent(),
            history=[],
            notes={},
            _random_state=list(context._random_state),
        )

    def run(self, engine: Engine) -> Progress:
        """All rounds that are left; the student has the weights of the chosen one then.

        Raises:
            TrainingError: too few clients are left in a round.
        """
        context, settings = self.context, self.settings
        progress = self._resumed()
        context.reporter.model(context.label, settings.rounds, progress.done)
        student = self.student
        with limited_threads(choose_threads(context.config, student.model, context.splits.train, student.inputs)):
            while progress.done < settings.rounds:
                began = time.monotonic()
                student.model.load_state_dict(progress.weights)
                requests = self._requests(progress)
                replies = engine.exchange(requests)
                accepted = self._accepted(requests, replies, progress)
                self._learn(accepted, progress)
                self._finish_round(accepted, progress, time.monotonic() - began)
        self.student.model.load_state_dict(progress.best)
        self.student.model.eval()
        context.history.extend(progress.epochs)
        self._warn(progress)
        metric = f"{context.head.primary} {progress.log[progress.chosen - 1]['val']:.4g} on validation"
        context.reporter.model_done(f"{metric}, round {progress.chosen}")
        return progress

    def _warn(self, progress: Progress) -> None:
        """Name each client that was left out."""
        for name in self.names:
            if reasons := [each["left_out"][name] for each in progress.log if name in each["left_out"]]:
                self.context.warn(
                    f"{self.context.label}: '{name}' was left out of {len(reasons)} of {progress.done} rounds; at "
                    f"first: {reasons[0]}"
                )

    # Messages --------------------------------------------------------------------------------------------------------

    def _requests(self, progress: Progress) -> dict[str, Message]:
        number, names = progress.done, self.names
        asked = max(math.ceil(self.settings.fraction * len(names)), min(self.settings.min_clients, len(names)))
        rng = np.random.default_rng([self.context.derived_seed("clients"), number])
        chosen = sorted(rng.permutation(len(names))[:asked].tolist())
        arrays: dict[str, np.ndarray] = {}
        if self.settings.sends_weights_down:
            arrays = of_weights(progress.weights)
        elif progress.consensus is not None:
            arrays = of_outputs(progress.consensus)
        return {names[at]: Message(arrays, {"round": number}) for at in chosen}

    def _wanted(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape and dtype of every array of a reply."""
        if self.settings.share == "weights":
            arrays = of_weights(self.student.model.state_dict())
            return {name: (tuple(array.shape), array.dtype) for name, array in arrays.items()}
        assert self.public is not None
        one = self.student.predict(SubsetSplit(self.public.plain(), [0]), self.context.device)
        return {OUTPUTS: ((len(self.public), *one.shape[1:]), np.dtype(np.float32))}

    def _accepted(
        self, requests: Mapping[str, Message], replies: Mapping[str, Reply], progress: Progress
    ) -> dict[str, Message]:
        """Replies that can be used, in the order of the clients; the others are named, counted and left out."""
        wanted = self._wanted()
        accepted: dict[str, Message] = {}
        left_out: dict[str, str] = {}
        for name in requests:
            reply = replies.get(name, "no answer")
            reason = reply if isinstance(reply, str) else fault(reply, wanted)
            if isinstance(reply, str) or reason is not None:
                left_out[name] = str(reason)
            else:
                accepted[name] = reply
        number = progress.done + 1
        for name, reason in left_out.items():
            self.context.reporter.warn(f"{self.context.label}, round {number}: goes on without '{name}': {reason}")
        if len(accepted) < min(self.settings.min_clients, len(self.names)):
            reasons = "; ".join(f"'{name}': {reason}" for name, reason in left_out.items())
            raise TrainingError(
                f"{len(accepted)} of {len(requests)} clients are left in round {number}, and "
                f"{self.settings.min_clients} are the fewest to go on with ({reasons})",
                where="method.min_clients",
                fix="look at what happened to the clients; the run goes on with this round when it is started again",
            )
        progress.log.append(
            {
                "round": number,
                "asked": list(requests),
                "left_out": left_out,
                "bytes_down": sum(request.bytes for request in requests.values()),
                "bytes_up": sum(reply.bytes for reply in replies.values() if isinstance(reply, Message)),
            }
        )
        return accepted

    # Learning --------------------------------------------------------------------------------------------------------

    def _learn(self, accepted: Mapping[str, Message], progress: Progress) -> None:
        """The server's step: an average of weights, what the mean of outputs teaches, or both in this order."""
        student = self.student.model
        outputs: list[Tensor] = []
        if self.settings.share == "weights":
            states = [weights_of(reply.arrays) for reply in accepted.values()]
            if self.settings.distil == "server":
                assert self.public is not None
                for state in states:
                    student.load_state_dict(state)
                    outputs.append(self.student.predict(self.public.plain(), self.context.device))
            student.load_state_dict(weighted_mean(states, [int(reply.facts["rows"]) for reply in accepted.values()]))
        else:
            outputs = [found for reply in accepted.values() if (found := outputs_of(reply.arrays)) is not None]
        if outputs:
            assert self.public is not None
            progress.consensus = mean_outputs(outputs)
            learner = soft_only(self.fits, self.student, StoredTeacher(self.public.index(), progress.consensus))
            self.fits.fit(
                learner,
                phase=f"round-{progress.done}",
                rows=self.public,
                unlabelled=None,
                epochs=self.settings.server_epochs,
                select="last",
                patience=None,
                balance=False,
            )

    def _finish_round(self, accepted: Mapping[str, Message], progress: Progress, seconds: float) -> None:
        context, settings = self.context, self.settings
        student = self.student
        student.model.to(context.device)
        metrics = context.validate(student)
        rows = [int(reply.facts["rows"]) for reply in accepted.values()]
        losses = [float(reply.facts["loss"]) for reply in accepted.values()]
        record = {
            **context.tags,
            "seed": context.seed,
            "epoch": progress.done,
            "epochs": settings.rounds,
            "lr": context.config.lr,
            "train": {"loss": float(np.average(losses, weights=rows)), "terms": {}, "steps": len(accepted)},
            "val": metrics,
            "threads": torch.get_num_threads(),
            "seconds": round(seconds, 3),
        }
        value = metrics[context.head.primary]
        progress.log[-1]["val"] = value
        progress.weights = device_state(student)
        earlier = {str(each["round"]): each["val"] for each in progress.log}
        last = context.config.select == "last"
        if last or not progress.chosen or context.best(earlier) == str(progress.done + 1):
            progress.best, progress.chosen = device_state(student), progress.done + 1
        progress.epochs.append(record)
        progress.done += 1
        context.reporter.epoch(record)
        self._keep(progress)

    # Resuming --------------------------------------------------------------------------------------------------------

    def _keep(self, progress: Progress) -> None:
        """Keep what the round left; what its fits left is needed no more."""
        tensors = {f"weights/{name}": value for name, value in progress.weights.items()}
        tensors |= {f"best/{name}": value for name, value in progress.best.items()}
        if progress.consensus is not None:
            tensors["consensus"] = progress.consensus
        facts = {"log": progress.log, "epochs": progress.epochs, "chosen": progress.chosen}
        self.context.save_progress(progress.done, tensors, facts)
        shutil.rmtree(self.fits.folder / PHASES / f"round-{progress.done - 1}", ignore_errors=True)

    def _resumed(self) -> Progress:
        """What the latest finished round left; the beginning without one."""
        kept = self.context.saved_progress()
        if kept is None:
            return Progress(0, [], [], device_state(self.student), device_state(self.student))
        tensors, facts = kept

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}

        return Progress(
            done=len(facts["log"]),
            log=facts["log"],
            epochs=facts["epochs"],
            weights=part("weights/"),
            best=part("best/"),
            chosen=facts["chosen"],
            consensus=tensors.get("consensus"),
        )
