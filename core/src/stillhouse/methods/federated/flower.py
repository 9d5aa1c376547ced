"""Flower carries the messages: its simulation on this machine, or a server and clients that it has started."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stillhouse.errors import TrainingError, require_package
from stillhouse.methods.federated.client import Client
from stillhouse.methods.federated.engines import Reply, described, late
from stillhouse.methods.federated.messages import Message

if TYPE_CHECKING:
    from flwr.app import RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

Opener = Callable[[], Mapping[str, Client]]
"""Makes the clients, by name, in the process in which it is called."""
ARRAYS, FACTS = "arrays", "facts"
"""Names of the two records of a message."""
NODES_TIMEOUT = 600.0
"""Seconds that are waited for clients to come, before the first round."""
_serving: list[Any] = []


def require_flower() -> None:
    """Refuse to go on without Flower.

    Raises:
        MissingDependencyError: it is not installed; with the command that installs it.
    """
    require_package(
        "flwr",
        "clients in processes of their own are run by the package 'flwr'",
        where="method.engine",
        fix="pip install 'stillhouse[federated]', or engine: local",
    )


def quiet() -> None:
    """Flower and Ray tell nobody of the run, and the user only of what is wrong; before they are imported. What clients
    do is the work of the run: they do not give way to other processes, which Ray's would."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("flwr").setLevel(logging.ERROR)


def to_record(message: Message) -> RecordDict:
    """A message in Flower's form."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    arrays = {name: Array(array) for name, array in message.arrays.items()}
    return RecordDict({ARRAYS: ArrayRecord(arrays), FACTS: ConfigRecord(dict(message.facts))})


def from_record(record: RecordDict) -> Message:
    """Inverse of `to_record`."""
    arrays = {name: array.numpy() for name, array in record[ARRAYS].items()}
    return Message(arrays, dict(record[FACTS]))


class Flower:
    """Clients behind Flower's grid; see `stillhouse.methods.federated.engines.Engine`.

    Args:
        grid: Flower's.
        names: of the clients: a node with partition i is client i.
        deadline: seconds for an answer; None waits for ever.
        seed: of the student, for nodes that open the run themselves.
    """

    def __init__(self, grid: Grid, names: Sequence[str], deadline: float | None, seed: int) -> None:
        self._grid, self._deadline, self._seed = grid, deadline, seed
        self._nodes = self._find(names)

    def _find(self, names: Sequence[str]) -> dict[str, int]:
        """The node of each client, when all have come."""
        from flwr.app import Message as FlowerMessage

        found: dict[str, int] = {}
        end = time.monotonic() + NODES_TIMEOUT
        while len(found) < len(names):
            new = [node for node in self._grid.get_node_ids() if node not in found.values()]
            asked = [FlowerMessage(to_record(Message()), dst_node_id=node, message_type="query") for node in new]
            for reply in self._grid.send_and_receive(asked, timeout=NODES_TIMEOUT) if asked else ():
                if reply.has_content():
                    at = int(from_record(reply.content).facts["partition"])
                    if at < len(names):
                        found[names[at]] = reply.metadata.src_node_id
            if len(found) < len(names):
                if time.monotonic() > end:
                    missing = ", ".join(name for name in names if name not in found)
                    raise TrainingError(
                        f"after {NODES_TIMEOUT:g} s there is no node for: {missing}",
                        where="method.engine",
                        fix="start a SuperNode for each client, with --node-config 'partition-id=0' and so on",
                    )
                time.sleep(0.5)
        return found

    def exchange(self, requests: Mapping[str, Message]) -> dict[str, Reply]:
        """See `stillhouse.methods.federated.engines.Engine`."""
        from flwr.app import Message as FlowerMessage

        sent = [
            FlowerMessage(
                to_record(Message(request.arrays, {**request.facts, "seed": self._seed})),
                dst_node_id=self._nodes[name],
                message_type="train",
            )
            for name, request in requests.items()
        ]
        names = {node: name for name, node in self._nodes.items()}
        replies: dict[str, Reply] = {}
        missing = late(self._deadline) if self._deadline is not None else "no answer"
        for reply in self._grid.send_and_receive(sent, timeout=self._deadline):
            found = _read(reply) if reply.has_content() else f"Flower says: {reply.error.reason or 'failed'}"
            name = names.get(reply.metadata.src_node_id)
            if name is not None:
                replies[name] = found
            elif isinstance(found, str):  # the server answers in place of a node that is gone
                missing = found
        return {name: replies.get(name, missing) for name in requests}


def _read(reply: Any) -> Reply:
    message = from_record(reply.content)
    return str(message.facts["error"]) if "error" in message.facts else message


def client_app(packed: Callable[[int, Mapping[str, Any], Mapping[str, Any]], bytes]) -> ClientApp:
    """Flower's app of every client.

    Args:
        packed: a pickled `Opener` for a seed and the configurations of node and run; what it opens is kept for the next
            round in the same process.
    """
    from flwr.app import Context
    from flwr.app import Message as FlowerMessage
    from flwr.clientapp import ClientApp

    app = ClientApp()

    def query(message: FlowerMessage, context: Context) -> FlowerMessage:
        where = int(context.node_config["partition-id"])
        return FlowerMessage(to_record(Message(facts={"partition": where})), reply_to=message)

    def train(message: FlowerMessage, context: Context) -> FlowerMessage:
        request = from_record(message.content)
        try:
            found = packed(int(request.facts["seed"]), context.node_config, context.run_config)
            clients = list(opened(found).values())
            answer = clients[int(context.node_config["partition-id"])].answer(request)
        except Exception as error:  # the server names the client, and goes on without it
            answer = Message(facts={"error": described(error)})
        return FlowerMessage(to_record(answer), reply_to=message)

    app.query()(query)
    app.train()(train)
    return app


@functools.lru_cache(maxsize=1)
def opened(packed: bytes) -> Mapping[str, Client]:
    """The clients of a pickled `Opener`, once in a process."""
    opener: Opener = pickle.loads(packed)
    return opener()


@contextlib.contextmanager
def serving(grid: Grid) -> Iterator[None]:
    """Runs inside of the block have their clients behind this grid, instead of in a simulation."""
    _serving.append(grid)
    try:
        yield
    finally:
        _serving.remove(grid)


def with_grid(work: Callable[[Any], Any], opener: Opener, clients: int) -> Any:
    """What a function returns that is given Flower's grid: that of `serving`, else of a simulation on this machine.

    Args:
        work: the server's side.
        opener: makes the clients in another process.
        clients: how many.
    """
    if _serving:
        return work(_serving[-1])
    quiet()
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    outcome: dict[str, Any] = {}
    server = ServerApp()

    def main(grid: Grid, context: Any) -> None:
        try:
            outcome["result"] = work(grid)
        except BaseException as error:  # told where the run was started, not in Flower's thread
            outcome["error"] = error

    server.main()(main)
    packed = pickle.dumps(opener)
    run_simulation(
        server,
        client_app(lambda *_: packed),
        num_supernodes=clients,
        backend_config={
            "init_args": {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    if "error" in outcome:
        raise outcome["error"]
    if "result" not in outcome:
        raise TrainingError(
            "Flower's simulation ended before the rounds did", where="method.engine", fix="engine: local"
        )
    return outcome["result"]
