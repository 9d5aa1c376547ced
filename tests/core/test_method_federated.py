"""core/federated: rows stay with their clients, and what travels is averaged, counted, looked at and protected."""

from __future__ import annotations

import importlib.util
import math
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import norm

import stillhouse
from stillhouse.components import datasets
from stillhouse.errors import IncompatibleError, MissingDependencyError, OptionError, TrainingError
from stillhouse.methods.federated.client import Client, Digest
from stillhouse.methods.federated.messages import Message
from stillhouse.methods.federated.parts import divide
from stillhouse.methods.federated.privacy import Protection, membership_auc
from stillhouse.pipeline import RunResult
from stillhouse.pipeline.checking import check
from stillhouse.types import DataContext, Splits

has_accounting = importlib.util.find_spec("dp_accounting") is not None
FEDERATED: dict[str, Any] = {"use": "core/federated", "clients": 3, "dirichlet": 2.0, "rounds": 2}
LAST = "train.student.select=last"

Exchange = tuple[str, Message, Message]


def facts(result: RunResult) -> dict[str, Any]:
    found: dict[str, Any] = result.summary["method_facts"]["per_seed"][0]
    return found


def weights(result: RunResult, role: str = "student") -> dict[str, torch.Tensor]:
    return load_file(result.folder / role / "seed-0" / "model.safetensors")


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Splits]:
    return lambda **options: datasets.synthetic(DataContext(root=tmp_path, base=tmp_path), **options)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """All requests and replies: client, request, reply."""
    found: list[Exchange] = []
    genuine = Client.answer

    def answer(self: Client, request: Message) -> Message:
        reply = genuine(self, request)
        found.append((self.name, request, reply))
        return reply

    monkeypatch.setattr(Client, "answer", answer)
    return found


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, int, Message], Message]], None]:
    """Changes what clients send: by name, round and reply."""
    genuine = Client.answer

    def change(how: Callable[[str, int, Message], Message]) -> None:
        def answer(self: Client, request: Message) -> Message:
            return how(self.name, request.facts["round"], genuine(self, request))

        monkeypatch.setattr(Client, "answer", answer)

    return change


# Who has which rows --------------------------------------------------------------------------------------------------


@given(st.integers(2, 8), st.floats(0.05, 50), st.one_of(st.none(), st.floats(0.05, 0.5)), st.integers(0, 99))
def test_every_training_row_is_of_one_client_or_public(
    tmp_path_factory: pytest.TempPathFactory, clients: int, dirichlet: float, public: float | None, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    splits = datasets.synthetic(DataContext(root=folder, base=folder), rows=600, unlabelled=30)
    try:
        parts = divide(splits, by="labels", clients=clients, dirichlet=dirichlet, public=public, seed=seed)
    except IncompatibleError:
        assert dirichlet < 1  # shares so unlike that a client has no rows
        return
    held = [position for client in parts.clients for position in client.positions]
    assert len(held) == len(set(held))
    index = splits.train.index()[torch.tensor(held)].tolist()
    assert parts.public is not None
    if public is None:
        assert len(held) == len(splits.train)
        assert torch.equal(parts.public.index(), splits.unlabelled.index())
    else:
        assert sorted([*index, *parts.public.index().tolist()]) == sorted(splits.train.index().tolist())
    assert len({client.key for client in parts.clients}) == clients


def unlikeness(splits: Splits, dirichlet: float) -> float:
    """Mean distance of the clients' shares of classes from those of all."""
    target = splits.train.columns(["target"])["target"].long()
    parts = divide(splits, by="labels", clients=4, dirichlet=dirichlet, public=None, seed=1)
    shares = [torch.bincount(target[list(client.positions)], minlength=4).double() for client in parts.clients]
    whole = torch.bincount(target, minlength=4).double() / len(target)
    return float(np.mean([float((share / share.sum() - whole).abs().sum()) for share in shares]))


def test_small_concentrations_make_clients_unlike(rows: Callable[..., Splits]) -> None:
    splits = rows(rows=2000)
    assert unlikeness(splits, 100.0) < 0.2 < 0.5 < unlikeness(splits, 0.2)


def test_clients_are_groups_or_values_of_an_entry(rows: Callable[..., Splits]) -> None:
    splits = rows(rows=400, groups=20)
    groups = np.asarray(splits.train.groups)
    each = divide(splits, by="groups", clients=None, dirichlet=1.0, public=None, seed=0)
    assert {client.name: len(client.positions) for client in each.clients} == {
        str(name): int(count) for name, count in zip(*np.unique(groups, return_counts=True), strict=True)
    }
    dealt = divide(splits, by="groups", clients=3, dirichlet=1.0, public=None, seed=0)
    owners = [{groups[position] for position in client.positions} for client in dealt.clients]
    assert len(owners) == 3
    assert not owners[0] & owners[1]
    assert not (owners[0] | owners[1]) & owners[2]
    counts = [len(client.positions) for client in dealt.clients]
    assert max(counts) - min(counts) <= max(np.unique(groups, return_counts=True)[1])
    by_target = divide(splits, by="target", clients=None, dirichlet=1.0, public=None, seed=0)
    assert [client.name for client in by_target.clients] == [f"target {each}" for each in range(4)]


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ({}, ("dataset.unlabelled=0",), "no rows without labels"),
        ({"by": "groups"}, (), "no groups"),
        ({"by": "hospital"}, (), "no entry 'hospital'"),
        ({"by": "groups", "clients": 50}, ("dataset.groups=12",), "for 50 clients"),
        ({"min_clients": 4}, (), "min_clients is 4"),
        ({"clients": 70, "dirichlet": 0.05}, (), "the fewest to learn from"),
        ({}, ("train.student.unlabelled_ratio=0",), "no public row would ever"),
        ({}, ("objectives.soft=[core/dkd]",), "wants labels"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(
    distil: Callable[..., Any], tmp_path: Path, method: dict[str, Any], changes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(IncompatibleError, match=message):
        distil({**FEDERATED, **method}, *changes)
    assert not (tmp_path / "run" / "teacher").exists()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"noise": 1.0}, "set clip"),
        ({"students": ["core/linear"], "share": "weights"}, "models of their own"),
        ({"share": "gradients"}, "gradients"),
    ],
)
def test_options_that_contradict_each_other_are_errors(
    distil: Callable[..., Any], method: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        distil({**FEDERATED, **method})


# What travels --------------------------------------------------------------------------------------------------------


def test_weights_are_averaged_by_rows(distil: Callable[..., Any], heard: list[Exchange]) -> None:
    """McMahan et al. (2017), algorithm 1, by hand; with alpha 1 clients learn from labels alone."""
    result = distil({**FEDERATED, "share": "weights"}, LAST, "objectives.alpha=1")
    assert len(heard) == 6
    for first in (0, 3):
        replies = [reply for _, _, reply in heard[first : first + 3]]
        counts = np.array([reply.facts["rows"] for reply in replies], dtype=float)
        for name in replies[0].arrays:
            stacked = np.stack([reply.arrays[name].astype(np.float64) for reply in replies])
            mean = np.tensordot(counts / counts.sum(), stacked, axes=1)
            received = (
                heard[3][1].arrays[name] if first == 0 else weights(result)[name.removeprefix("weights/")].numpy()
            )
            np.testing.assert_allclose(received, mean, rtol=1e-6, atol=1e-7)
    size = sum(tensor.numel() for tensor in weights(result).values()) * 4
    found = facts(result)
    assert found["bytes_up"] == found["bytes_down"] == found["bytes_up_by_weights"] == 6 * size
    assert sum(client["rows"] for client in found["federated"]["clients"]) == 144


def test_the_mean_of_predictions_goes_back_and_nothing_else_travels(
    distil: Callable[..., Any], heard: list[Exchange]
) -> None:
    """Li and Wang (2019), algorithm 1: the consensus is the mean of the clients' class scores."""
    result = distil({**FEDERATED, "rounds": 3}, LAST)
    assert {name for _, _, reply in heard for name in reply.arrays} == {"outputs"}
    assert all(not request.arrays for _, request, _ in heard[:3])
    for first in (0, 3):
        mean = np.mean([reply.arrays["outputs"].astype(np.float64) for _, _, reply in heard[first : first + 3]], axis=0)
        for _, request, _ in heard[first + 3 : first + 6]:
            np.testing.assert_allclose(request.arrays["outputs"], mean, rtol=1e-6, atol=1e-6)
    found = facts(result)
    public = 60 * 4 * 4  # rows, classes, bytes
    assert found["bytes_up"] == 9 * public
    assert found["bytes_down"] == 6 * public
    size = sum(tensor.numel() for tensor in weights(result).values()) * 4
    assert (found["bytes_up_by_weights"], found["bytes_down_by_weights"]) == (9 * size, 9 * size)


def test_a_server_that_distils_sends_its_weights_and_clients_start_from_them(
    distil: Callable[..., Any], heard: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[dict[str, torch.Tensor]] = []
    genuine = Client.model

    def model(self: Client, received: Any, **given: Any) -> Any:
        found = genuine(self, received, **given)
        starts.append({name: tensor.clone() for name, tensor in found.model.state_dict().items()})
        return found

    monkeypatch.setattr(Client, "model", model)
    distil({**FEDERATED, "distil": "server"}, LAST)
    assert {name for _, _, reply in heard for name in reply.arrays} == {"outputs"}
    assert len(starts) == len(heard) == 6
    for start, (_, request, _) in zip(starts, heard, strict=True):
        for name, tensor in start.items():
            assert np.array_equal(request.arrays[f"weights/{name}"], tensor.numpy())
    assert any(not torch.equal(starts[0][name], starts[3][name]) for name in starts[0])


def test_fusion_of_models_averages_weights_then_learns_their_mean_output(
    distil: Callable[..., Any], heard: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lin et al. (2020): the student is no average of weights any more, and nearer to the mean of logits."""
    seen: list[torch.Tensor] = []
    genuine = Client.model

    def model(self: Client, received: Any, **given: Any) -> Any:
        assert self.public is not None
        seen.append(self.public.columns(["x"])["x"])
        return genuine(self, received, **given)

    monkeypatch.setattr(Client, "model", model)
    fused = {**FEDERATED, "share": "weights", "distil": "server", "rounds": 1, "local_epochs": 20, "server_epochs": 40}
    result = distil(
        {**fused, "dirichlet": 0.5}, LAST, "train.student.lr=0.02", "objectives.soft=[{use: soft, temperature: 1}]"
    )
    counts = [reply.facts["rows"] for _, _, reply in heard]
    states = [{name[8:]: torch.from_numpy(each) for name, each in reply.arrays.items()} for _, _, reply in heard]
    mean = {
        name: sum(n / sum(counts) * state[name] for n, state in zip(counts, states, strict=True)) for name in states[0]
    }
    public = seen[0]

    def logits(state: Mapping[str, Any]) -> torch.Tensor:
        hidden = F.relu(public @ state["backbone.0.weight"].T + state["backbone.0.bias"])
        found: torch.Tensor = hidden @ state["output.weight"].T + state["output.bias"]
        return found

    assert set(mean) == {"backbone.0.weight", "backbone.0.bias", "output.weight", "output.bias"}
    together = torch.stack([logits(state) for state in states]).mean(0)
    distance = {
        name: float(F.kl_div(logits(state).log_softmax(1), together.softmax(1), reduction="batchmean"))
        for name, state in (("average", mean), ("student", weights(result)))
    }
    assert any(not torch.allclose(mean[name], tensor) for name, tensor in weights(result).items())
    assert distance["student"] < distance["average"]


def test_a_client_learns_labels_of_its_own_rows_and_the_mean_on_public_ones(
    distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []
    genuine = Digest.forward

    def forward(self: Digest, batch: Any, labelled: int) -> Any:
        total, values = genuine(self, batch, labelled)
        with torch.no_grad():
            now = self.student(x=batch["x"])
            mean = self.teacher({"index": batch["index"][labelled:]}).prediction
            hard = F.cross_entropy(now[:labelled], batch["target"][:labelled])
            one, two = (now[labelled:] / 3).log_softmax(1), (mean / 3).softmax(1)
            by_hand = 0.4 * hard + 0.6 * F.kl_div(one, two, reduction="batchmean") * 9
        seen.append((float(total.detach()), float(by_hand)))
        return total, values

    monkeypatch.setattr(Digest, "forward", forward)
    distil(FEDERATED, "objectives={alpha: 0.4, soft: [{use: soft, temperature: 3.0}]}")
    assert seen
    for found, by_hand in seen:
        assert found == pytest.approx(by_hand, rel=1e-4)


def test_some_clients_are_asked_in_each_round(distil: Callable[..., Any], heard: list[Exchange]) -> None:
    found = facts(distil({**FEDERATED, "clients": 5, "rounds": 6, "fraction": 0.5}))
    asked = [each["asked"] for each in found["federated"]["rounds"]]
    assert [len(each) for each in asked] == [3] * 6
    assert len({tuple(each) for each in asked}) > 1
    assert sum(client["asked"] for client in found["federated"]["clients"]) == len(heard) == 18


def test_clients_may_have_models_of_their_own(distil: Callable[..., Any]) -> None:
    own = ["core/linear", {"use": "core/mlp", "hidden": [24]}]
    result = distil({**FEDERATED, "students": own})
    kept = sorted((result.folder / "student" / "seed-0" / "kept").iterdir())
    sizes = [sum(each.numel() for each in load_file(path / "model.safetensors").values()) for path in kept]
    assert sizes == [16 * 4 + 4, 16 * 24 + 24 + 24 * 4 + 4, 16 * 4 + 4]
    assert {name: tuple(each.shape) for name, each in weights(result).items()} == {
        name: tuple(each.shape) for name, each in weights(result, "baseline").items()
    }
    assert "clients, worst" in facts(result)["test_accuracy"]


# What is compared ----------------------------------------------------------------------------------------------------


def test_clients_alone_and_all_rows_together_stand_beside_the_student(distil: Callable[..., Any]) -> None:
    result = distil(FEDERATED)
    found = facts(result)
    tests = found["test_accuracy"]
    alone = [client["test"] for client in found["clients_alone"]]
    assert tests["alone"] == pytest.approx(np.mean(alone))
    assert tests["alone, worst"] == pytest.approx(min(alone))
    assert tests["student"] == pytest.approx(result.summary["student"]["mean"])
    assert result.summary["baseline"]["mean"] in [pytest.approx(each) for each in alone]
    assert "the best client alone" in result.summary["verdict"]["sentence"]
    other = distil({**FEDERATED, "rounds": 1, "local_epochs": 2, "share": "weights"}, out="other")
    one, two = weights(result, "baseline"), weights(other, "baseline")
    assert all(torch.equal(one[name], two[name]) for name in one)
    table = {(each["name"], each["model"]) for each in result.summary["method_facts"]["table"]}
    assert {("test_accuracy", name) for name in ("alone", "alone, worst", "clients", "student", "pooled")} <= table
    assert {("membership_auc", name) for name in ("teacher", "student", "pooled")} <= table


def test_a_round_is_chosen_on_validation_rows(distil: Callable[..., Any]) -> None:
    found = facts(distil({**FEDERATED, "rounds": 5}))
    values = [each["val"] for each in found["federated"]["rounds"]]
    assert found["chosen_round"] == values.index(max(values)) + 1
    assert facts(distil({**FEDERATED, "rounds": 5}, LAST, out="last"))["chosen_round"] == 5


# Clients that fail ---------------------------------------------------------------------------------------------------


def die(reply: Message) -> Message:
    raise RuntimeError("out of memory")


FAULTS: dict[str, tuple[Callable[[Message], Message], str]] = {
    "dies": (die, "RuntimeError: out of memory"),
    "nan": (lambda reply: Message({"outputs": reply.arrays["outputs"] * np.nan}, reply.facts), "not finite"),
    "shape": (lambda reply: Message({"outputs": reply.arrays["outputs"][:7]}, reply.facts), "has shape [7, 4]"),
    "type": (lambda reply: Message({"outputs": reply.arrays["outputs"].astype(int)}, reply.facts), "is int64"),
    "nothing": (lambda reply: Message({}, reply.facts), "no array 'outputs'"),
    "rows": (lambda reply: Message(reply.arrays, {**reply.facts, "rows": -1}), "number of rows is -1"),
}


def test_a_client_that_fails_is_left_out_and_named(distil: Callable[..., Any], broken: Callable[..., None]) -> None:
    """In each round client 2 fails in another way, and in the last one it counts again."""
    hows = list(FAULTS.values())
    broken(lambda client, at, reply: hows[at][0](reply) if client == "client 2" and at < len(hows) else reply)
    result = distil({**FEDERATED, "rounds": len(hows) + 1})
    found = facts(result)
    rounds = found["federated"]["rounds"]
    for each, (_, told) in zip(rounds, hows, strict=False):
        assert list(each["left_out"]) == ["client 2"]
        assert told in each["left_out"]["client 2"]
    assert rounds[-1]["left_out"] == {}
    assert [client["left_out"] for client in found["federated"]["clients"]] == [0, len(hows), 0]
    assert found["left_out"] == len(hows)
    warned = next(each for each in result.summary["warnings"] if "'client 2' was left out" in each)
    assert warned.endswith("of 6 of 7 rounds; at first: RuntimeError: out of memory")


def test_a_client_that_was_left_out_changes_nothing_in_its_round(
    distil: Callable[..., Any], broken: Callable[..., None]
) -> None:
    """Whatever it sent leads to the same student."""
    results = []
    for name in ("nan", "shape"):
        how = FAULTS[name][0]
        broken(lambda client, number, reply, how=how: how(reply) if client == "client 1" else reply)
        results.append(weights(distil({**FEDERATED, "rounds": 1}, out=name)))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_client_that_is_late_is_left_out(distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    genuine = Client.answer

    def answer(self: Client, request: Message) -> Message:
        clock[0] += 60 if self.name == "client 3" else 1
        return genuine(self, request)

    monkeypatch.setattr(Client, "answer", answer)
    monkeypatch.setattr("stillhouse.methods.federated.engines.time.monotonic", lambda: clock[0])
    result = distil({**FEDERATED, "deadline": 30})
    assert [list(each["left_out"]) for each in facts(result)["federated"]["rounds"]] == [["client 3"]] * 2
    assert any("no answer within 30 s" in each for each in result.summary["warnings"])


def test_too_few_clients_are_one_error_and_the_round_is_made_later(
    distil: Callable[..., Any], broken: Callable[..., None]
) -> None:
    whole = distil(FEDERATED, out="whole")
    broken(lambda client, number, reply: die(reply) if client != "client 1" and number == 1 else reply)
    with pytest.raises(TrainingError, match=r"1 of 3 clients are left in round 2.*'client 2': RuntimeError"):
        distil(FEDERATED)
    broken(lambda client, number, reply: reply)
    again = distil(FEDERATED)
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(again).items())
    assert facts(whole) == facts(again)


# Privacy -------------------------------------------------------------------------------------------------------------


def test_what_is_sent_is_clipped_as_one_vector_and_has_noise() -> None:
    arrays = {"one": torch.full((100,), 3.0), "two": torch.full((20, 10), 4.0), "count": torch.tensor(7)}
    received = {"one": torch.ones(100), "two": torch.zeros(20, 10), "count": torch.tensor(5)}
    clipped = Protection(2.0, 0.0, 1e-5).of(0)(arrays, received)
    length = math.sqrt(100 * 2.0**2 + 200 * 4.0**2)
    assert torch.allclose(clipped["one"], 1 + torch.full((100,), 2 * 2.0 / length))
    assert torch.allclose(clipped["two"], torch.full((20, 10), 4 * 2.0 / length))
    assert clipped["count"] == 7
    short = Protection(1e6, 0.0, 1e-5).of(0)(arrays, received)
    assert torch.allclose(short["one"], arrays["one"])
    wide = {"": torch.zeros(20000)}
    noisy = Protection(0.5, 3.0, 1e-5).of(1)(wide, {})[""]
    assert float(noisy.std()) == pytest.approx(1.5, rel=0.03)
    assert torch.equal(noisy, Protection(0.5, 3.0, 1e-5).of(1)(wide, {})[""])
    assert not torch.equal(noisy, Protection(0.5, 3.0, 1e-5).of(2)(wide, {})[""])


def gaussian_delta(epsilon: float, noise: float) -> float:
    """Balle and Wang (2018), theorem 8: the smallest delta of one Gaussian mechanism of sensitivity 1."""
    return float(norm.cdf(0.5 / noise - epsilon * noise) - math.exp(epsilon) * norm.cdf(-0.5 / noise - epsilon * noise))


@pytest.mark.skipif(not has_accounting, reason="needs stillhouse[federated]")
@pytest.mark.parametrize(("noise", "times"), [(1.0, 1), (5.0, 10), (2.0, 50)])
def test_epsilon_is_that_of_the_composed_gaussian_mechanism(noise: float, times: int) -> None:
    epsilon = Protection(1.0, noise, 1e-5).epsilon(times)
    assert epsilon is not None
    # T Gaussian mechanisms are one with sigma / sqrt(T).
    assert gaussian_delta(epsilon, noise / math.sqrt(times)) == pytest.approx(1e-5, rel=0.02)
    assert Protection(1.0, 0.0, 1e-5).epsilon(times) is None


@pytest.mark.skipif(not has_accounting, reason="needs stillhouse[federated]")
@pytest.mark.parametrize("noise", [0.1, 0.01, 0.001])
def test_epsilon_of_next_to_no_noise_is_large_and_takes_no_memory(noise: float) -> None:
    """It took more than 20 GB for a noise of 0.01 in ten messages, and the run was killed at its end."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Protection(1.0, noise, 1e-5).epsilon(10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began < 200_000  # kB
    assert found is not None
    # The loss is N(m, 2 m) with m = T / (2 noise^2), and exp(-epsilon) is nothing beside delta: its upper quantile.
    middle = 10 / (2 * noise**2)
    assert found == pytest.approx(middle + norm.isf(1e-5) * math.sqrt(2 * middle), rel=0.01)


@pytest.mark.skipif(not has_accounting, reason="needs stillhouse[federated]")
def test_noise_is_accounted_for_the_client_that_was_asked_most(
    distil: Callable[..., Any], heard: list[Exchange]
) -> None:
    result = distil({**FEDERATED, "share": "weights", "clip": 0.5, "noise": 4.0, "rounds": 3})
    found = facts(result)
    assert found["epsilon"] == Protection(0.5, 4.0, 1e-5).epsilon(3)
    for _, request, reply in heard[:3]:
        change = np.concatenate([(reply.arrays[name] - request.arrays[name]).ravel() for name in reply.arrays])
        assert change.std() == pytest.approx(2.0, rel=0.2)


def test_noise_without_its_accounting_is_an_error(distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dp_accounting" else genuine(name))
    with pytest.raises(MissingDependencyError, match="dp-accounting") as caught:
        distil({**FEDERATED, "clip": 1.0, "noise": 1.0})
    assert "stillhouse[federated]" in caught.value.fix


def test_flower_without_its_package_is_an_error(distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "flwr" else genuine(name))
    with pytest.raises(MissingDependencyError, match="flwr"):
        distil({**FEDERATED, "engine": "flower"})


def test_the_attack_tells_rows_with_a_smaller_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    seen, unseen = torch.randn(40, 3, generator=generator), torch.randn(30, 3, generator=generator)
    labels = [torch.randint(0, 3, (count,), generator=generator) for count in (40, 30)]

    def loss(prediction: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return F.cross_entropy(prediction, batch["target"])

    found = membership_auc(loss, (seen, {"target": labels[0]}), (unseen, {"target": labels[1]}))
    one, two = (F.cross_entropy(p, t, reduction="none") for p, t in zip((seen, unseen), labels, strict=True))
    wins = (one[:, None] < two[None]).double() + 0.5 * (one[:, None] == two[None]).double()
    assert found == pytest.approx(float(wins.mean()))
    remembered = F.one_hot(labels[0], 3) * 9.0
    assert membership_auc(loss, (remembered, {"target": labels[0]}), (unseen, {"target": labels[1]})) > 0.99


# Going on ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [("outputs", "clients"), pytest.param(("weights", "server"), marks=pytest.mark.slow)])
def test_rounds_that_stop_go_on_to_the_same_bits(assert_resumes: Callable[..., Any], how: tuple[str, str]) -> None:
    assert_resumes({**FEDERATED, "rounds": 3, "share": how[0], "distil": how[1]}, [""])


def test_a_check_rehearses_rounds_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked = check("core/federated-demo", overrides=["dataset.rows=400", "method.rounds=2"])
    assert checked.problems == []
    assert list(tmp_path.iterdir()) == []


def test_the_demo_tells_what_joining_brings(tmp_path: Path) -> None:
    changes = ["seeds=[0]", "method.rounds=2", "teacher.n_estimators=5", "evaluate.latency_samples=5"]
    result = stillhouse.run("core/federated-demo", out=tmp_path / "run", overrides=changes)
    assert result.report is not None
    text = result.report.read_text(encoding="utf-8")
    assert "What joining brings" in text
    assert "bytes up by weights" in text
