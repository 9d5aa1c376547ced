"""core/born-again: every generation learns from the one before."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import stillhouse
from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.methods import Method, MethodContext
from stillhouse.methods.born_again import BornAgain
from stillhouse.training.learner import Learner

PHASES = [f"generation-{number}" for number in (1, 2, 3)]


def test_each_generation_learns_from_the_frozen_one_before_with_weights_of_its_own(
    distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[tuple[str, Learner, dict[str, torch.Tensor]]] = []
    genuine = MethodContext.fit

    def watched(self: MethodContext, learner: Learner, *, phase: str = "", **given: Any) -> Any:
        start = {name: tensor.clone() for name, tensor in learner.student.state_dict().items()}
        fits.append((phase, learner, start))
        return genuine(self, learner, phase=phase, **given)

    losses: list[tuple[float, float]] = []
    finish = Method.finish

    def look(self: Method, context: MethodContext, student: Any) -> Any:
        if [phase for phase, _, _ in fits] != PHASES:
            return finish(self, context, student)
        batch = context.splits.train.batch(range(12))
        with torch.no_grad():
            for (_, before, _), (_, learner, _) in itertools.pairwise(fits):
                taught, teaching = learner.student(x=batch["x"]), before.student(x=batch["x"])
                soft = F.kl_div((taught / 2).log_softmax(1), (teaching / 2).softmax(1), reduction="batchmean") * 4
                learner.set_progress(0.0)
                by_hand = 0.1 * F.cross_entropy(taught, batch["target"]) + 0.9 * soft
                losses.append((float(learner(batch, 12)[0]), float(by_hand)))
        return finish(self, context, student)

    monkeypatch.setattr(MethodContext, "fit", watched)
    monkeypatch.setattr(Method, "finish", look)
    distil("core/born-again")
    assert [phase for phase, _, _ in fits] == PHASES
    assert len(losses) == 2
    for found, by_hand in losses:
        assert found == pytest.approx(by_hand, rel=1e-5)
    starts = [start for _, _, start in fits]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert any(not torch.equal(starts[one][name], starts[other][name]) for name in starts[one])


def test_facts_of_generations_and_their_ensemble_and_the_same_bits_after_interruptions(
    assert_resumes: Callable[..., Any],
) -> None:
    result = assert_resumes({"use": "core/born-again", "keep": "best", "ensemble": True}, PHASES)
    summary = result.summary
    assert summary["method"]["id"] == "core/born-again"
    assert summary["baseline"]["metrics"]["test"]
    assert summary["verdict"]["sentence"]
    facts = summary["method_facts"]["per_seed"][0]
    assert set(facts["val_accuracy"]) == set(facts["test_accuracy"]) == {*PHASES, "ensemble"}
    generations = {name: facts["val_accuracy"][name] for name in PHASES}
    assert facts["deployed"] == max(generations, key=lambda name: generations[name])
    assert summary["student"]["metrics"]["val"]["accuracy"] == generations[facts["deployed"]]
    assert summary["student"]["metrics"]["test"]["accuracy"] == facts["test_accuracy"][facts["deployed"]]
    folder = result.folder / "student" / "seed-0"
    models = [load_file(folder / "kept" / name / "model.safetensors") for name in PHASES]
    deployed = load_file(folder / "model.safetensors")
    assert all(torch.equal(deployed[name], models[PHASES.index(facts["deployed"])][name]) for name in deployed)


def test_the_ensemble_is_the_mean_of_probabilities(distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand: dict[str, float] = {}
    genuine = BornAgain.evaluate

    def look(self: BornAgain, context: MethodContext, models: Any) -> Any:
        test = context.splits.test.columns()
        with torch.no_grad():
            shares = [model.model(x=test["x"]).softmax(1) for model in context.kept().values()]
        by_hand["ensemble"] = float((torch.stack(shares).mean(0).argmax(1) == test["target"]).float().mean())
        return genuine(self, context, models)

    monkeypatch.setattr(BornAgain, "evaluate", look)
    result = distil({"use": "core/born-again", "generations": 2, "ensemble": True}, "train.student.epochs=1")
    assert result.summary["method_facts"]["per_seed"][0]["test_accuracy"]["ensemble"] == pytest.approx(
        by_hand["ensemble"]
    )


def test_the_last_generation_is_deployed_by_default(distil: Callable[..., Any]) -> None:
    result = distil({"use": "core/born-again", "generations": 2})
    facts = result.summary["method_facts"]["per_seed"][0]
    assert facts["deployed"] == "generation-2"
    assert set(facts["val_accuracy"]) == {"generation-1", "generation-2"}
    assert "test_accuracy" not in facts
    assert not (result.folder / "student" / "seed-0" / "kept").exists()


def test_it_wants_two_generations_and_no_taps() -> None:
    with pytest.raises(OptionError, match="generations"):
        stillhouse.run("core/quickstart", overrides=["method={use: core/born-again, generations: 1}"])
    tapped = "objectives.soft=[{use: core/hints, student: layers.0, teacher: layers.0}]"
    with pytest.raises(IncompatibleError, match="taps"):
        stillhouse.run("core/quickstart", overrides=["method=core/born-again", tapped])
    with pytest.raises(IncompatibleError, match="estimator"):
        stillhouse.run("core/quickstart", overrides=["method=core/born-again", "student={use: core/decision-tree}"])
    assert BornAgain().generations == 3
