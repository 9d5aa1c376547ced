"""A run whose clients are SuperNodes of Flower: ``server_app`` and ``client_app``, which a Flower App names.

They read from the App's run configuration ``recipe`` (an id, or the path of a file) and ``out`` (the run folder); a
client keeps what it learns in ``out``, or in the folder that its node configuration names as ``folder``. Only Flower
imports this module: it needs the package.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flwr.serverapp import ServerApp

from stillhouse.methods.federated.flower import client_app as make_client_app
from stillhouse.methods.federated.flower import serving
from stillhouse.pipeline.elsewhere import Elsewhere
from stillhouse.pipeline.runner import run
from stillhouse.plugins.manager import default_manager
from stillhouse.recipe.check import resolve


def serve(grid: Any, context: Any) -> None:
    """The whole run, in Flower's server process, with the clients behind Flower's grid."""
    with serving(grid):
        run(str(context.run_config["recipe"]), out=Path(str(context.run_config["out"])))


@functools.lru_cache(maxsize=1)
def _packed_for(recipe: str, out: str, seed: int) -> bytes:
    resolved = resolve(recipe, default_manager().registry)
    folder = Path(out).resolve()
    elsewhere = Elsewhere(
        manager=None,
        recipe=resolved.to_recipe(),
        base=str(resolved.base.resolve()),
        run=str(folder),
        student=resolved.student.to_recipe(),
        label=f"student, seed {seed}",
        seed=seed,
        folder=str(folder / "student" / f"seed-{seed}"),
    )
    method = resolved.method.component.load()(**resolved.method.options)
    return pickle.dumps(partial(method.open_clients, elsewhere))


def packed(seed: int, node: Mapping[str, Any], run_config: Mapping[str, Any]) -> bytes:
    """What opens the clients of a seed in a client's process; see `stillhouse.methods.federated.flower.client_app`."""
    return _packed_for(str(run_config["recipe"]), str(node.get("folder", run_config["out"])), seed)


server_app = ServerApp()
server_app.main()(serve)
client_app = make_client_app(packed)
