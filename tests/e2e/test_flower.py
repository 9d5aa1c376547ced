"""core/federated on Flower: its simulation, and a server and clients that are processes of their own on the loopback
address. Flower's version bounds are narrow, so that it gets an environment of its own where it is not installed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

MINUTES = 15
"""How long anything may take."""
RECIPE = """
name: flower
head: core/multiclass
dataset: {use: core/synthetic, rows: 400, unlabelled: 80}
teacher: core/decision-tree
student: {use: core/mlp, hidden: [8]}
method: {use: core/federated, clients: 3, dirichlet: 2.0, rounds: 2, engine: %s, deadline: %s}
train:
  student: {epochs: 2, batch_size: 32, lr: 0.01, threads: 1, select: last}
evaluate: {latency_samples: 5}
seeds: [0]
"""
APP = """
[project]
name = "federated-run"
version = "1.0.0"
description = "A run whose clients are behind Flower"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "local"

[tool.flwr.app.components]
serverapp = "stillhouse.pipeline.federation:server_app"
clientapp = "stillhouse.pipeline.federation:client_app"

[tool.flwr.app.config]
recipe = ""
out = ""
"""


def install(python: str | Path, *what: str | Path) -> None:
    """Install packages; a test is skipped where no index can be reached that has them, and fails for anything else."""
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *what], capture_output=True, text=True, check=False
    )
    if done.returncode:
        absent = any(words in done.stderr for words in ("No matching distribution", "ConnectionError", "Max retries"))
        assert absent, done.stderr
        pytest.skip(f"pip cannot fetch {what[-1]} here")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with Flower: this one, or one in a new environment that sees the packages of this one."""
    if importlib.util.find_spec("flwr") and importlib.util.find_spec("ray"):
        return Path(sys.executable)
    folder = tmp_path_factory.mktemp("flower") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    made = folder / "bin" / "python"
    site = subprocess.check_output(
        [made, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], text=True
    ).strip()
    Path(site, "tests.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
    install(made, "flwr[simulation]>=1.42,<2")
    return made


@pytest.fixture
def environment(tmp_path: Path, python: Path) -> dict[str, str]:
    """A private cache and a private home of Flower; the commands of its environment first."""
    home = tmp_path / "flower"
    home.mkdir()
    return {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(each for each in sys.path if each),
        "STILLHOUSE_CACHE": str(tmp_path / "cache"),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }


def written(folder: Path, engine: str, deadline: float | None = None) -> Path:
    path = folder / f"{engine}.yaml"
    path.write_text(RECIPE % (engine, "null" if deadline is None else deadline), encoding="utf-8")
    return path


def run(python: Path, recipe: Path, out: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """A run from the command line; the facts of its method."""
    command = [python, "-m", "stillhouse", "run", recipe, "--out", out]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60 * MINUTES, check=False, cwd=recipe.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return facts(out)


def facts(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())["method_facts"]["per_seed"][0]
    return found


def same_weights(one: Path, two: Path) -> bool:
    first, second = (load_file(out / "student" / "seed-0" / "model.safetensors") for out in (one, two))
    return set(first) == set(second) and all((first[name] == second[name]).all() for name in first)


def test_a_simulation_has_the_bits_of_clients_in_this_process(
    tmp_path: Path, python: Path, environment: dict[str, str]
) -> None:
    local, simulated = tmp_path / "local-run", tmp_path / "flower-run"
    found = [
        run(python, written(tmp_path, engine), out, environment)
        for engine, out in (("local", local), ("flower", simulated))
    ]
    assert same_weights(local, simulated)
    assert found[0] == found[1]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def wait_for(what: Callable[[], bool], why: str, logs: Path) -> None:
    end = time.monotonic() + 60 * MINUTES
    while not what():
        if time.monotonic() > end:
            tails = [f"{path.name}:\n{path.read_text()[-1500:]}" for path in sorted(logs.glob("*.log"))]
            pytest.fail(f"{why} took more than {MINUTES} minutes\n" + "\n".join(tails))
        time.sleep(0.5)


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a command in a session of its own, with a log; what is left of it is ended."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(name: str, *command: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path
            )
        started.append(process)
        return process

    yield begin
    for process in reversed(started):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_real_clients_on_the_loopback_address_of_which_one_dies(
    tmp_path: Path, python: Path, environment: dict[str, str], start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """A server and three clients, processes of Flower's own. One client is killed after the first round: the others
    go on without it, and it is named."""
    whole = run(python, written(tmp_path, "local"), tmp_path / "local-run", environment)
    recipe, out, port = written(tmp_path, "flower", deadline=240), tmp_path / "flower-run", free_port()
    app, home = tmp_path / "app", tmp_path / "flower"
    app.mkdir()
    (app / "pyproject.toml").write_text(APP, encoding="utf-8")
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
        encoding="utf-8",
    )
    start(
        *("superlink", "flower-superlink", "--insecure", "--port", str(port)),
        *("--fleet-api-address", f"127.0.0.1:{free_port()}", "--disable-runtime-dependency-installation"),
    )
    wait_for(lambda: listens(port), "the server", tmp_path)
    nodes = [
        start(
            *(f"node-{number}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"),
            *("--port", str(free_port()), "--node-config", f"partition-id={number}"),
        )
        for number in range(3)
    ]
    start("run", "flwr", "run", str(app), "here", "--run-config", f"recipe='{recipe}' out='{out}'", "--stream")
    progress = out / "student" / "seed-0" / "phases" / "progress"
    wait_for(lambda: (progress / "000000001" / "progress.json").exists(), "the first round", tmp_path)
    os.killpg(nodes[2].pid, signal.SIGKILL)
    wait_for(lambda: (out / "summary.json").exists(), "the run", tmp_path)
    found = facts(out)
    first = found["federated"]["rounds"][0]
    assert first == whole["federated"]["rounds"][0]
    assert [list(each["left_out"]) for each in found["federated"]["rounds"]][-1] == ["client 3"]
    assert found["left_out"] == 1
    assert found["rounds"] == 2


def test_noise_is_accounted_where_the_library_is_there(tmp_path: Path) -> None:
    """dp-accounting wants older releases than other tests have: its packages lie in a folder of their own here."""
    site = tmp_path / "site"
    if not importlib.util.find_spec("dp_accounting"):
        install(sys.executable, "--no-deps", "--target", site, "dp-accounting>=0.6")
    tests = Path(__file__).parents[1] / "core" / "test_method_federated.py"
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tests, "-k", "epsilon or accounted", "-p", "no:cacheprovider"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *(each for each in sys.path if each)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * MINUTES,
    )
    assert found.returncode == 0, found.stdout
    assert "7 passed" in found.stdout
    assert "skipped" not in found.stdout
