"""core/confident-teachers and core/noisy-teachers: what several teachers say of a row, weighted by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

import stillhouse
from stillhouse import heads
from stillhouse.errors import IncompatibleError, OptionError, StillhouseError
from stillhouse.kinds import OutputKind
from stillhouse.methods.confident import WeightedTeachers, of_entropy, of_loss
from stillhouse.methods.noisy import Agreement, part_positions
from stillhouse.teachers import StoredTeacher
from stillhouse.types import DataInfo, Outputs, TensorSplit

MEMBERS = "teacher={members: [{use: core/mlp, hidden: [16]}, {use: core/random-forest, n_estimators: 5}]}"
TARGET = torch.tensor([0, 2, 1, 1])


def members(count: int = 3) -> Tensor:
    return torch.randn(count, 5, 3, generator=torch.Generator().manual_seed(0)) * 2


def by_hand(doubts: list[list[float]], predictions: np.ndarray) -> np.ndarray:
    """Weights of CA-MKD and the logarithm of the weighted mean of probabilities."""
    count, found = len(doubts), []
    for row in range(len(doubts[0])):
        total = sum(math.exp(doubts[k][row]) for k in range(count))
        weights = [(1 - math.exp(doubts[k][row]) / total) / (count - 1) for k in range(count)]
        assert sum(weights) == pytest.approx(1.0)
        found.append(np.log(sum(w * softmax(predictions[k, row]) for k, w in enumerate(weights))))
    return np.array(found)


def test_weights_follow_the_loss_and_are_equal_without_a_label() -> None:
    said = members()
    head = heads.Multiclass(DataInfo(inputs={}, classes=("a", "b", "c")))
    source = WeightedTeachers(lambda batch: Outputs(said[0], members=said), of_loss(head.hard_loss), head.kind)
    batch = {"x": torch.zeros(5, 2), "target": TARGET}  # the last row has no label
    losses = [[-math.log(softmax(row)[c]) for row, c in zip(m.numpy(), TARGET.tolist(), strict=False)] for m in said]
    equal = [[*each, 0.7] for each in losses]
    torch.testing.assert_close(
        source(batch).prediction.double().numpy(), by_hand(equal, said.double().numpy()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", [OutputKind.MULTICLASS, OutputKind.BINARY])
def test_weights_follow_the_entropy(kind: OutputKind) -> None:
    said = members()[..., : 3 if kind is OutputKind.MULTICLASS else 1]
    source = WeightedTeachers(lambda batch: Outputs(said[0], members=said), of_entropy(kind), kind)
    logits = said.double().numpy()
    if kind is OutputKind.BINARY:
        logits = np.concatenate([logits, np.zeros_like(logits)], axis=2)
    doubts = [[-sum(p * math.log(p) for p in softmax(row)) for row in m] for m in logits]
    expected = by_hand(doubts, logits)
    found = source({"x": torch.zeros(5, 2)}).prediction.double().numpy()
    if kind is OutputKind.BINARY:
        expected = expected[:, :1] - expected[:, 1:]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("by", ["loss", "entropy"])
def test_confident_teachers_run_and_resume_to_the_bit(by: str, assert_resumes: Callable[..., Any]) -> None:
    result = assert_resumes({"use": "core/confident-teachers", "by": by}, [""], MEMBERS)
    weights = result.summary["method_facts"]["per_seed"][0]["mean_weight"]
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights["teacher-1"] != weights["teacher-2"]
    assert (result.folder / "teacher" / "member-1").exists()


def test_what_confident_teachers_do_not_serve_is_told_when_the_recipe_is_read(distil: Callable[..., Any]) -> None:
    with pytest.raises(IncompatibleError, match="teacher of several members"):
        distil("core/confident-teachers")
    with pytest.raises(IncompatibleError, match="entropy of regression"):
        distil(
            {"use": "core/confident-teachers", "by": "entropy"},
            MEMBERS,
            "head=core/regression",
            "dataset.kind=regression",
            "objectives.soft=[soft]",
        )
    with pytest.raises(OptionError, match="by"):
        distil({"use": "core/confident-teachers", "by": "luck"}, MEMBERS)


def test_only_teachers_speak_that_have_not_seen_a_row() -> None:
    said = members(2)
    index = torch.tensor([3, 4, 5, 6, 7])
    sources = [StoredTeacher(index, each) for each in said]
    agreement = Agreement(sources, [torch.tensor([3, 4, 6]), torch.tensor([3, 5, 6, 7])], OutputKind.MULTICLASS)
    found = agreement({"index": index}).prediction
    shares = said.softmax(-1)
    both, first, second = shares.mean(0), shares[0], shares[1]
    expected = torch.stack([both[0], second[1], first[2], both[3], first[4]])
    torch.testing.assert_close(found.softmax(-1), expected)


def test_parts_overlap_and_keep_groups_together() -> None:
    rows = TensorSplit({"x": torch.zeros(40, 1), "target": torch.zeros(40)})
    parts = part_positions(rows, 3, 0.6, seed=1)
    assert [len(part) for part in parts] == [24, 24, 24]
    assert set(parts[0]) & set(parts[1])
    assert set(parts[0]) != set(parts[1])
    assert parts == part_positions(rows, 3, 0.6, seed=1)
    assert parts != part_positions(rows, 3, 0.6, seed=2)
    grouped = TensorSplit({"x": torch.zeros(40, 1), "target": torch.zeros(40)}, groups=[str(i // 8) for i in range(40)])
    for part in part_positions(grouped, 3, 0.6, seed=1):
        assert len(part) == 24
        assert len({i // 8 for i in part}) == 3


def test_noisy_teachers_run_resume_and_never_learn_from_the_recipes_teacher(assert_resumes: Callable[..., Any]) -> None:
    method = {"use": "core/noisy-teachers", "teachers": 2, "teacher": {"use": "core/mlp", "hidden": [12]}}
    result = assert_resumes(method, ["teacher-1", "teacher-2", "student"])
    facts = result.summary["method_facts"]["per_seed"][0]
    assert set(facts["val_accuracy"]) == {"teacher-1", "teacher-2", "ensemble"}


def test_the_recipes_teacher_changes_nothing_for_noisy_teachers(distil: Callable[..., Any]) -> None:
    summaries = [
        distil({"use": "core/noisy-teachers", "teachers": 2}, f"teacher.hidden=[{width}]", out=f"run-{width}").summary
        for width in (4, 16)
    ]
    assert summaries[0]["student"]["metrics"] == summaries[1]["student"]["metrics"]
    assert summaries[0]["teacher"]["metrics"] != summaries[1]["teacher"]["metrics"]


def test_what_noisy_teachers_do_not_serve_is_told_when_the_recipe_is_read() -> None:
    for changes, words in (
        (["method={use: core/noisy-teachers, share: 1.0}"], "share"),
        (["method={use: core/noisy-teachers, teachers: 1}"], "teachers"),
        (["method={use: core/noisy-teachers, teacher: core/decision-tree}"], "estimator"),
        (["method=core/noisy-teachers", "student=core/decision-tree"], "estimator"),
        (
            ["method=core/noisy-teachers", "objectives.soft=[{use: core/hints, student: backbone, teacher: backbone}]"],
            "taps",
        ),
    ):
        with pytest.raises(StillhouseError, match=words):
            stillhouse.run("core/quickstart", overrides=changes)
