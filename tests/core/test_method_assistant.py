"""core/assistant: the chain from the teacher over assistants to the student."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import stillhouse
from stillhouse.errors import IncompatibleError, OptionError, UnknownComponentError
from stillhouse.methods import Method, MethodContext
from stillhouse.training.learner import Learner

LARGE, MIDDLE = {"use": "core/mlp", "hidden": [24]}, {"use": "core/mlp", "hidden": [12]}
PHASES = ["assistant-1", "assistant-2", "student"]


def test_each_model_of_the_chain_learns_from_the_one_before(
    distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[tuple[str, Learner]] = []
    genuine, finish = MethodContext.fit, Method.finish
    losses: list[tuple[float, float]] = []

    def watched(self: MethodContext, learner: Learner, *, phase: str = "", **given: Any) -> Any:
        fits.append((phase, learner))
        return genuine(self, learner, phase=phase, **given)

    def look(self: Method, context: MethodContext, student: Any) -> Any:
        batch = context.splits.train.batch(range(12))
        teachers = [context.teachers[0].model] if fits else []
        teachers += [learner.student for _, learner in fits[:-1]]
        with torch.no_grad():
            for teacher, (_, learner) in zip(teachers, fits, strict=True):
                taught, teaching = learner.student(x=batch["x"]), teacher(x=batch["x"])
                soft = F.kl_div((taught / 2).log_softmax(1), (teaching / 2).softmax(1), reduction="batchmean") * 4
                learner.set_progress(0.0)
                by_hand = 0.1 * F.cross_entropy(taught, batch["target"]) + 0.9 * soft
                losses.append((float(learner(batch, 12)[0]), float(by_hand)))
        return finish(self, context, student)

    monkeypatch.setattr(MethodContext, "fit", watched)
    monkeypatch.setattr(Method, "finish", look)
    distil({"use": "core/assistant", "assistants": [LARGE, MIDDLE]}, "train.student.epochs=1")
    assert [phase for phase, _ in fits] == PHASES
    widths = [learner.student.state_dict()[next(iter(learner.student.state_dict()))].shape[0] for _, learner in fits]
    assert widths == [24, 12, 8]
    assert len(losses) == 3
    for found, by_hand in losses:
        assert found == pytest.approx(by_hand, rel=1e-5)


def test_facts_of_the_assistants_and_the_same_bits_after_interruptions(assert_resumes: Callable[..., Any]) -> None:
    summary = assert_resumes({"use": "core/assistant", "assistants": [LARGE, MIDDLE]}, PHASES).summary
    assert summary["method"]["id"] == "core/assistant"
    assert summary["baseline"]["metrics"]["test"]
    assert summary["verdict"]["sentence"]
    facts = summary["method_facts"]["per_seed"][0]
    assert set(facts["val_accuracy"]) == set(PHASES)
    assert facts["val_accuracy"]["student"] == summary["student"]["metrics"]["val"]["accuracy"]
    by_hand = {name: 16 * width + width + width * 4 + 4 for name, width in zip(PHASES, (24, 12, 8), strict=True)}
    assert facts["parameters"] == by_hand
    assert summary["student"]["parameters"] == by_hand["student"]


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("{use: core/assistant, assistants: []}", OptionError, "assistants"),
        ("{use: core/assistant, assistants: [core/mpl]}", UnknownComponentError, "mpl"),
        ("{use: core/assistant, assistants: [core/decision-tree]}", IncompatibleError, "is an estimator"),
    ],
)
def test_what_it_cannot_serve_is_told_when_the_recipe_is_read(
    method: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        stillhouse.run("core/quickstart", overrides=[f"method={method}"])


def test_terms_with_taps_are_refused() -> None:
    tapped = "objectives.soft=[{use: core/hints, student: layers.0, teacher: layers.0}]"
    with pytest.raises(IncompatibleError, match="taps"):
        stillhouse.run("core/quickstart", overrides=["method={use: core/assistant, assistants: [core/linear]}", tapped])
