"""core/condensed and core/self-supervised: methods that choose rows, or change them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stillhouse
from stillhouse.errors import IncompatibleError, OptionError, StillhouseError
from stillhouse.methods import MethodContext
from stillhouse.methods.condensed import Condensed
from stillhouse.methods.self_supervised import Noisy, Redrawn, similarities
from stillhouse.types import TensorSplit


def test_rows_that_teach_least_are_left_out(distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[list[int]] = []
    seen: list[torch.Tensor] = []
    genuine, values = MethodContext.fit, Condensed.values

    def watched(self: MethodContext, learner: Any, **given: Any) -> Any:
        parts.append(given["rows"].index().tolist())
        return genuine(self, learner, **given)

    def by_hand(self: Condensed, context: MethodContext, student: Any) -> torch.Tensor:
        found = values(self, context, student)
        rows = context.splits.train.columns()
        with torch.no_grad():
            student_logits, teacher_logits = student.model(x=rows["x"]), context.teachers[0].model(x=rows["x"])
            divergence = F.kl_div(
                (student_logits / 4).log_softmax(1), (teacher_logits / 4).softmax(1), reduction="none"
            ).sum(1)
            expected = divergence * 4**2
        torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-5)
        seen.append(found)
        return found

    monkeypatch.setattr(MethodContext, "fit", watched)
    monkeypatch.setattr(Condensed, "values", by_hand)
    result = distil({"use": "core/condensed", "keep": 0.25, "stages": 3, "momentum": 0.5})
    everything = parts[0]
    total = len(everything)
    assert [len(part) for part in parts] == [total, round(total / 2), round(total / 4)]
    order = (0.5 * (0.5 * seen[0]) + 0.5 * seen[1]).sort(descending=True, stable=True).indices[: len(parts[2])]
    assert set(parts[2]) == {everything[position] for position in order.tolist()}
    facts = result.summary["method_facts"]["per_seed"][0]
    assert facts["rows_of_last_stage"] == len(parts[2])
    assert facts["share_of_compute"] == pytest.approx(sum(map(len, parts)) / (3 * total))


def test_condensed_resumes_to_the_bit(assert_resumes: Callable[..., Any]) -> None:
    # Interrupted in the second epoch of a stage, so that each must have two.
    assert_resumes({"use": "core/condensed", "stages": 2}, ["stage-1", "stage-2"], "train.student.epochs=4")


@pytest.mark.parametrize("kind", ["binary", "regression", "gaussian", "multilabel"])
def test_condensed_serves_other_kinds(kind: str, distil: Callable[..., Any]) -> None:
    changes = [f"head=core/{kind}", f"dataset.kind={kind}", "objectives.soft=[soft]"]
    facts = distil("core/condensed", *changes).summary["method_facts"]["per_seed"][0]
    assert 0.5 < facts["share_of_compute"] < 1


def test_condensed_with_all_rows_is_offline_in_stages(distil: Callable[..., Any]) -> None:
    facts = distil({"use": "core/condensed", "keep": 1.0}).summary["method_facts"]["per_seed"][0]
    assert facts["share_of_compute"] == 1.0


def test_what_condensed_does_not_serve_is_told(distil: Callable[..., Any]) -> None:
    with pytest.raises(IncompatibleError, match="one stage only"):
        distil("core/condensed", "train.student.epochs=1")
    with pytest.raises(OptionError, match="keep"):
        distil({"use": "core/condensed", "keep": 0.0})
    with pytest.raises(StillhouseError, match="estimator"):
        stillhouse.run("core/quickstart", overrides=["method=core/condensed", "student=core/decision-tree"])


def test_similarities_are_the_softmax_of_cosines() -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(4, 3, generator=generator) for _ in range(2))
    head = nn.Linear(3, 2)
    one, two = (head(each).detach() for each in (before, after))
    for i in range(4):
        scores = [float(two[i] @ one[j] / (two[i].norm() * one[j].norm())) / 0.5 for j in range(4)]
        expected = torch.tensor(scores).log_softmax(0)
        torch.testing.assert_close(similarities(head, before, after, 0.5)[i].detach(), expected, rtol=1e-4, atol=1e-5)


def test_noise_is_measured_by_the_spread_of_each_element_and_whole_numbers_stay() -> None:
    batch = {"x": torch.randn(4000, 2) * torch.tensor([1.0, 10.0]), "n": torch.arange(4000), "c": torch.ones(4000, 1)}
    torch.manual_seed(0)
    changed = Noisy(0.3, ("x", "n", "c"))(batch)
    spread = (changed["x"] - batch["x"]).std(0)
    torch.testing.assert_close(spread, torch.tensor([0.3, 3.0]), rtol=0.05, atol=0.0)
    assert torch.equal(changed["n"], batch["n"])
    assert torch.equal(changed["c"], batch["c"])


class Augmented(TensorSplit):
    stochastic = True

    def batch(self, positions: Any) -> dict[str, torch.Tensor]:
        drawn = super().batch(positions)
        return {**drawn, "x": drawn["x"] + torch.rand(len(drawn["x"]), 1)}


def test_augmented_rows_are_drawn_once_more() -> None:
    split = Augmented(
        {"x": torch.arange(5.0)[:, None] * 10, "target": torch.arange(5), "index": torch.arange(100, 105)}
    )
    batch = split.batch([3, 1])
    again = Redrawn(split)(batch)
    assert torch.equal(again["index"], batch["index"])
    assert not torch.equal(again["x"], batch["x"])
    assert ((again["x"] - batch["x"]).abs() < 1).all()


def test_self_supervised_runs_and_resumes_to_the_bit(assert_resumes: Callable[..., Any]) -> None:
    result = assert_resumes({"use": "core/self-supervised", "pretext_epochs": 2}, ["pretext", "student"])
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    found = [set(line["train"]["terms"]) for line in lines if line["stage"] == "student"]
    assert found == [{"pretext"}] * 2 + [{"hard", "core/soft-targets", "changed", "similarities"}] * 3
    assert result.summary["method_facts"]["per_seed"][0]["pretext_loss"] > 0


def test_the_pretext_is_learned_on_a_forest_as_well(distil: Callable[..., Any]) -> None:
    result = distil("core/self-supervised", "teacher=core/random-forest")
    assert result.summary["verdict"]["sentence"]


def test_what_self_supervised_does_not_serve_is_told(distil: Callable[..., Any]) -> None:
    with pytest.raises(IncompatibleError, match="out-of-fold"):
        distil("core/self-supervised", "teacher.out_of_fold=2")
    with pytest.raises(OptionError, match="noise"):
        distil({"use": "core/self-supervised", "noise": 0})


def test_the_report_shows_counts_as_whole_numbers(tmp_path: Path) -> None:
    result = stillhouse.run(
        "core/quickstart",
        out=tmp_path / "run",
        overrides=["method=core/condensed", "train.teacher.epochs=1", "train.student.epochs=2", "seeds=[0, 1]"],
    )
    count = result.summary["method_facts"]["per_seed"][0]["rows_of_last_stage"]
    report = re.sub(r"<[^>]+>|\s+", " ", (result.folder / "report.html").read_text(encoding="utf-8"))
    assert re.search(rf"rows of last stage\s+{count}\s+the same for all seeds", report)
