"""``core/federated``: clients keep their rows, and outputs of public rows or weights travel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from stillhouse.errors import IncompatibleError
from stillhouse.methods.base import Method
from stillhouse.methods.context import MethodContext
from stillhouse.methods.federated import flower
from stillhouse.methods.federated.client import Client, Settings, clients_of
from stillhouse.methods.federated.engines import Local
from stillhouse.methods.federated.messages import of_weights
from stillhouse.methods.federated.parts import Parts, divide
from stillhouse.methods.federated.privacy import Protection, membership_auc, require_accounting
from stillhouse.methods.federated.server import Progress, Server
from stillhouse.ranges import Range
from stillhouse.trained import Trained
from stillhouse.types import Split, SubsetSplit

ALONE, POOLED, CLIENT = "alone-", "pooled", "client-"
"""Names of kept models: a client's without the others, that of all rows together, a client's own in the end."""
ATTACKED = 5000
"""Rows of each kind that the membership attack is tried on at most."""


class Federated(Method):
    """Clients learn from rows that never leave them; in rounds, a server learns from what they send.

    In a round the server asks some clients. Each learns for ``local_epochs`` from its labels and from what it has
    received, and sends (``share``) its predictions of the public rows, or its weights. With N_k rows of client k,
    ``P`` the public rows and ``L = alpha * hard + (1 - alpha) * sum_i weight_i * soft_i`` the recipe's loss::

        share    distil    the client learns                          the server learns            goes back
        outputs  clients   hard on N_k, soft to the mean on P         soft to the mean on P        the mean
        outputs  server    hard on N_k, from the server's weights     soft to the mean on P        weights
        weights  clients   L on N_k, soft to the received model       average of weights           weights
        weights  server    hard on N_k, from the server's weights     average, then soft on P      weights

    The mean is that of the clients' predictions in their own form (logits, values), the average that of weights by
    numbers of rows. In the first round clients learn from labels alone. With outputs and clients each client goes on
    with a model of its own, which may have any architecture (``students``).

    Sources, in the order of the table: Li and Wang, "FedMD: Heterogenous Federated Learning via Model Distillation"
    (2019), whose digest and revisit are one loss here; Lin, Kong, Stich and Jaggi, "Ensemble Distillation for Robust
    Model Fusion in Federated Learning" (2020), whose clients send weights, as in the last row; McMahan et al.,
    "Communication-Efficient Learning of Deep Networks from Decentralized Data" (2017) with ``alpha: 1``, and Yao et
    al., "FedGKD" (2021) for the soft loss to the received model. In FedDF the server's model of the best step on
    validation rows is kept; here that of the best round (``train.student.select``).

    The baseline is the best client alone on validation rows: the recipe's student, trained as ever on the rows of one
    client. Beside it stand all clients alone, and the student trained on the rows of all together (``pooled``), a bound
    that nobody could train. The recipe's teacher has no part in the training; it is reported, trained on all rows.

    Cost: ``rounds * fraction * clients`` fits of ``local_epochs``; a fit of the recipe's epochs for each client alone
    and for all rows together.

    Args:
        share: what clients send.
        distil: who learns from outputs of others.
        by: who is a client: "groups" of the dataset, an entry of its rows, or "labels": simulated clients with unlike
            shares of the classes.
        clients: how many; groups are dealt to so many. By default each group is a client, and 5 are simulated.
        dirichlet: concentration of the simulated shares: 0.1 is very unlike, 100 alike.
        public: share of the training rows (whole groups, where they have some) that is public, whose labels nobody
            uses; the dataset's rows without labels by default.
        students: architectures of the clients, in turn: ids of students, or {use: id, **options}; the student's own by
            default (share: outputs, distil: clients).
        rounds: rounds.
        local_epochs: passes of a client over its rows in a round.
        server_epochs: passes of the server over the public rows in a round.
        fraction: share of the clients that are asked in a round, drawn anew.
        min_clients: fewest usable answers that a round goes on with.
        deadline: seconds after which an answer is too late; none by default.
        clip: largest L2 norm of what a client sends (of the change, for weights).
        noise: noise multiplier of the Gaussian mechanism: standard deviation of the noise over `clip`.
        delta: of the (epsilon, delta) that is accounted for a client.
        engine: "local": in this process; "flower": by Flower, see the documentation.
    """

    def __init__(
        self,
        *,
        share: Literal["outputs", "weights"] = "outputs",
        distil: Literal["clients", "server"] = "clients",
        by: str = "labels",
        clients: Annotated[int, Field(ge=2)] | None = None,
        dirichlet: Annotated[float, Field(gt=0)] = 0.5,
        public: Annotated[float | None, Field(gt=0, lt=1)] = None,
        students: tuple[str | dict[str, Any], ...] = (),
        rounds: Annotated[int, Field(ge=1)] = 5,
        local_epochs: Annotated[int, Field(ge=1), Range(1, 5)] = 1,
        server_epochs: Annotated[int, Field(ge=1), Range(1, 5)] = 1,
        fraction: Annotated[float, Field(gt=0, le=1)] = 1.0,
        min_clients: Annotated[int, Field(ge=1)] = 2,
        deadline: Annotated[float | None, Field(gt=0)] = None,
        clip: Annotated[float | None, Field(gt=0)] = None,
        noise: Annotated[float, Field(ge=0)] = 0.0,
        delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5,
        engine: Literal["local", "flower"] = "local",
    ) -> None:
        if noise and clip is None:
            raise ValueError("noise is a multiple of clip: set clip, too")
        if students and (share, distil) != ("outputs", "clients"):
            raise ValueError(
                "clients with models of their own send outputs and learn from the mean of outputs: "
                "share: outputs, distil: clients"
            )
        self.by, self.clients, self.dirichlet, self.public, self.engine = by, clients, dirichlet, public, engine
        self.settings = Settings(
            share=share,
            distil=distil,
            rounds=rounds,
            local_epochs=local_epochs,
            server_epochs=server_epochs,
            fraction=fraction,
            min_clients=min_clients,
            deadline=deadline,
            students=students,
            protection=Protection(clip, noise, delta),
        )

    def check(self, context: MethodContext) -> None:
        """Hold the options against rows, head, student and installed packages.

        Raises:
            IncompatibleError: rows that cannot be dealt, no public rows where they are needed, soft losses that want
                labels of them, or running statistics where weights get noise.
            MissingDependencyError: noise without dp-accounting, or Flower without its package.
        """
        parts = self.parts(context, strict=True)
        if self.settings.min_clients > len(parts.clients):
            raise IncompatibleError(
                f"there are {len(parts.clients)} clients, and method.min_clients is {self.settings.min_clients}",
                where="method.min_clients",
                fix="lower it",
            )
        if context.accelerator.num_processes > 1:
            raise IncompatibleError(
                "clients and server are one process",
                where="the launcher",
                fix="start the run without accelerate launch",
            )
        if self.engine == "flower":
            flower.require_flower()
        if self.settings.needs_public_rows:
            self._check_public(context, parts)
        if self.settings.protection.noise:
            require_accounting()
            if self.settings.share == "weights" and any(
                buffer.is_floating_point() for buffer in context.build().model.buffers()
            ):
                raise IncompatibleError(
                    "the student has running statistics (batch normalisation), which noise on weights would break",
                    where="method.noise",
                    fix="a student without them, or share: outputs with distil: clients",
                )

    def _check_public(self, context: MethodContext, parts: Parts) -> None:
        if parts.public is None:
            raise IncompatibleError(
                "outputs are compared on public rows, and the dataset has no rows without labels",
                where="method.public",
                fix="public: 0.2 puts so much of the training rows aside, without their labels",
            )
        if context.config.unlabelled_ratio == 0:
            raise IncompatibleError(
                "no public row would ever be in a step",
                where="train.student.unlabelled_ratio",
                fix="1: as many public rows as rows of the client",
            )
        if wanting := [term.bound.id for term in context.terms if "target" in term.spec.extras]:
            raise IncompatibleError(
                f"objective '{wanting[0]}' wants labels, and public rows have none",
                where="objectives.soft",
                fix="choose another objective, or share: weights with distil: clients",
            )

    def parts(self, context: MethodContext, *, strict: bool = False) -> Parts:
        """Who has which rows; the same for every seed, so that seeds differ in training alone."""
        return divide(
            context.splits,
            by=self.by,
            clients=self.clients,
            dirichlet=self.dirichlet,
            public=self.public,
            seed=0,
            strict=strict,
        )

    # Training --------------------------------------------------------------------------------------------------------

    def train(self, context: MethodContext, student: Trained) -> Trained:
        """The rounds; the student is the server's model."""
        parts = self.parts(context)
        clients = clients_of(context, parts, self.settings)
        server = Server(context, student, parts, self.settings)
        if self.engine == "local":
            progress = server.run(Local(clients, self.settings.deadline))
        else:
            progress = self._run_on_flower(context, server)
        if not self.settings.sends_weights_down:
            for client in clients.values():
                context.keep(f"{CLIENT}{client.key}", client.model({}, before=self.settings.rounds))
        context.note(**self._facts(progress, parts, student))
        return student

    def _run_on_flower(self, context: MethodContext, server: Server) -> Progress:
        def rounds(grid: Any) -> Progress:
            return server.run(flower.Flower(grid, server.names, self.settings.deadline, context.seed))

        found: Progress = flower.with_grid(rounds, partial(self.open_clients, context.elsewhere), len(server.names))
        return found

    def open_clients(self, elsewhere: Callable[[], MethodContext]) -> Mapping[str, Client]:
        """All clients, by name, in another process."""
        context = elsewhere()
        return clients_of(context, self.parts(context), self.settings)

    def _facts(self, progress: Progress, parts: Parts, student: Trained) -> dict[str, Any]:
        weights = sum(array.nbytes for array in of_weights(student.model.state_dict()).values())
        log = progress.log
        asked = {rows.name: sum(rows.name in each["asked"] for each in log) for rows in parts.clients}
        missed = {rows.name: sum(rows.name in each["left_out"] for each in log) for rows in parts.clients}
        facts: dict[str, Any] = {
            "clients": len(parts.clients),
            "public_rows": 0 if parts.public is None else len(parts.public),
            "rounds": progress.done,
            "chosen_round": progress.chosen,
            "left_out": sum(missed.values()),
            "bytes_up": sum(each["bytes_up"] for each in log),
            "bytes_down": sum(each["bytes_down"] for each in log),
            "bytes_up_by_weights": weights * (sum(asked.values()) - sum(missed.values())),
            "bytes_down_by_weights": weights * sum(asked.values()),
        }
        epsilon = self.settings.protection.epsilon(max(asked.values()))
        if epsilon is not None:
            facts |= {"epsilon": epsilon, "delta": self.settings.protection.delta}
        facts["federated"] = {
            "clients": [
                {
                    "name": rows.name,
                    "rows": len(rows.positions),
                    "asked": asked[rows.name],
                    "left_out": missed[rows.name],
                }
                for rows in parts.clients
            ],
            "rounds": log,
        }
        return facts

    def train_baseline(self, context: MethodContext, student: Trained) -> Trained:
        """The same student on the rows of each client alone, of which the best on validation is the baseline, and on
        the rows of all."""
        parts = self.parts(context)
        every = [position for rows in parts.clients for position in rows.positions]
        who = {f"{ALONE}{rows.key}": list(rows.positions) for rows in parts.clients} | {POOLED: sorted(every)}
        models, epochs = {}, {}
        for name, positions in who.items():
            models[name] = context.build()
            learner = context.supervised(models[name])
            own = SubsetSplit(context.splits.train, positions)
            epochs[name] = replace(context, history=[]).fit(learner, phase=name, rows=own, unlabelled=None)
            context.keep(name, models[name])
        metric = context.head.primary
        values = {name: context.validate(model)[metric] for name, model in models.items() if name != POOLED}
        best = context.best(values)
        context.history.extend(epochs[best])
        student.model.load_state_dict(models[best].model.state_dict())
        student.model.to(context.device).eval()
        return student

    # Results ---------------------------------------------------------------------------------------------------------

    def evaluate(self, context: MethodContext, models: Mapping[str, Trained]) -> dict[str, Any]:
        """Test metrics of clients alone, in the end, and of all rows together; what an attack finds out."""
        others = context.kept("baseline")
        alone = {name: model for name, model in others.items() if name.startswith(ALONE)}
        sign = 1 if context.head.higher_is_better else -1
        tested = {name: self._test(context, model) for name, model in {**alone, **context.kept()}.items()}
        found: dict[str, float] = {}
        for label, prefix in (("alone", ALONE), ("clients", CLIENT)):
            if values := [value for name, value in tested.items() if name.startswith(prefix)]:
                found |= {label: float(np.mean(values)), f"{label}, worst": float(sign * min(sign * v for v in values))}
        found |= {"student": self._test(context, models["student"]), POOLED: self._test(context, others[POOLED])}
        trained_on_all = {name: models[name] for name in ("teacher",) if name in models}
        attacked = {**trained_on_all, POOLED: others[POOLED], "student": models["student"]}
        return {
            f"test_{context.head.primary}": found,
            "membership_auc": {name: self._attack(context, model) for name, model in attacked.items()},
            "clients_alone": [
                {"name": rows.name, "rows": len(rows.positions), "test": tested[f"{ALONE}{rows.key}"]}
                for rows in self.parts(context).clients
            ],
        }

    def _test(self, context: MethodContext, model: Trained) -> float:
        prediction = model.predict(context.splits.test, context.device, context.head)
        return context.judge("test", prediction)[context.head.primary]

    def _attack(self, context: MethodContext, model: Trained) -> float:
        seen = [position for rows in self.parts(context).clients for position in rows.positions]
        rng = np.random.default_rng(0)

        def some(split: Split, positions: list[int]) -> Any:
            drawn = np.sort(rng.permutation(positions)[:ATTACKED]).tolist()
            rows = SubsetSplit(split.plain(), drawn)
            entries = set(rows.row(0)) - set(context.splits.info.inputs)
            return model.predict(rows, context.device), rows.columns(sorted(entries))

        test = context.splits.test
        return membership_auc(
            context.head.hard_loss, some(context.splits.train, seen), some(test, list(range(len(test))))
        )
