"""Objectives with a memory of rows: the bank against plain loops, and that it is written, read and kept as it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError
from stillhouse.objectives import CRCKD, CRD, SupervisedContrastive
from stillhouse.objectives.remembered import Remembering
from stillhouse.types import DataInfo, TensorSplit

CLASSES = torch.tensor([0, 1, 0, 2, 1, 2, 0, 1])
SMALL: dict[str, Any] = {"width": 3, "candidates": 6, "temperature": 0.5}


def features(seed: int, rows: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator), torch.randn(rows, 5, generator=generator)


def made(kind: type[Remembering], *, seen: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7), **options: Any) -> Remembering:
    """One whose bank has the rows ``seen``, in eval mode: nothing is written any more."""
    torch.manual_seed(1)
    objective = kind(**{**SMALL, **options})
    objective.make_bank(torch.arange(8), CLASSES)
    if seen:
        student, teacher = features(5)
        rows = torch.tensor(seen)
        objective(student[rows], teacher[rows], target=CLASSES[rows], index=rows)
        objective(student[rows] + 0.1, teacher[rows] - 0.1, target=CLASSES[rows], index=rows)
    return objective.eval()


def unit(values: np.ndarray) -> np.ndarray:
    return values / math.sqrt(float((values * values).sum()))


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value)) if value > 0 else value - math.log1p(math.exp(value))


def formula(objective: Remembering, student: Tensor, teacher: Tensor, rows: list[int], drawn: list[list[int]]) -> float:
    """CRD over classes, or CRCKD, with the candidates that were drawn."""
    weights = {name: tensor.detach().double().numpy() for name, tensor in objective.state_dict().items()}
    own = [
        [
            unit(weights[f"{side}_map.weight"] @ row + weights[f"{side}_map.bias"])
            for row in given.detach().double().numpy()
        ]
        for side, given in (("student", student), ("teacher", teacher))
    ]
    banks = [weights["teacher_bank"], weights["student_bank"]]
    classes = CLASSES.tolist()
    crckd = isinstance(objective, CRCKD)
    total = 0.0
    for at, row in enumerate(rows):
        contrast = 0.0
        for side in (0, 1):
            anchor, partner = own[side][at], own[1 - side][at]
            others = [j for j in drawn[at] if j != row and weights["known"][j]]
            negatives = [j for j in others if classes[j] != classes[row]]
            noise = math.exp(weights["normaliser"][side]) * max(len(negatives), 1)

            def share(v: np.ndarray, anchor: np.ndarray = anchor, noise: float = noise) -> float:
                e = math.exp(float(np.dot(anchor, v)) / objective.temperature)
                return e / (e + noise)

            positives = [partner] + [banks[side][j] for j in others if crckd and classes[j] == classes[row]]
            contrast -= sum(math.log(share(each)) for each in positives) / len(positives)
            contrast -= sum(math.log(1 - share(banks[side][j])) for j in negatives)
        if not crckd:
            total += contrast
            continue
        near = []
        for side, bank in ((0, weights["student_bank"]), (1, weights["teacher_bank"])):
            centres = [
                unit(sum(bank[j] for j in range(8) if classes[j] == k and weights["known"][j])) for k in (0, 1, 2)
            ]
            scores = [math.exp(float(np.dot(own[side][at], centre)) / objective.temperature) for centre in centres]
            near.append([score / sum(scores) for score in scores])
        relation = sum(t * math.log(t / s) for s, t in zip(*near, strict=True))
        assert isinstance(objective, CRCKD)
        total += objective.contrast_weight * contrast + objective.relation_weight * relation
    return total / len(rows)


@pytest.mark.parametrize(("kind", "options"), [(CRD, {}), (CRCKD, {"contrast_weight": 0.7, "relation_weight": 2.0})])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_formula_with_the_rows_that_were_drawn(
    kind: type[Remembering], options: dict[str, float], seed: int
) -> None:
    objective = made(kind, **options)
    rows = [6, 1, 3]
    student, teacher = (each[:3] for each in features(seed))
    torch.manual_seed(seed)
    drawn = torch.arange(8)[torch.randint(8, (3, 6))].tolist()
    torch.manual_seed(seed)
    value = objective(student, teacher, target=CLASSES[rows], index=torch.tensor(rows))
    assert value.item() == pytest.approx(formula(objective, student, teacher, rows, drawn), rel=1e-4)


@pytest.mark.parametrize(("kind", "frozen"), [(CRD, 1.5854149), (CRCKD, 0.1245676)])
def test_frozen_value(kind: type[Remembering], frozen: float) -> None:
    objective = kind(width=2, candidates=4, temperature=0.5)
    objective.make_bank(torch.arange(3), torch.tensor([0, 1, 1]))
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    teacher = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    target, index = torch.tensor([0, 1, 1]), torch.arange(3)
    objective(student, teacher, target=target, index=index)
    for mapping in (objective.student_map, objective.teacher_map):
        mapping.weight.data.copy_(torch.eye(2))
        mapping.bias.data.zero_()
    objective.student_bank.copy_(nn.functional.normalize(student, dim=1))
    objective.teacher_bank.copy_(nn.functional.normalize(teacher, dim=1))
    objective.normaliser.fill_(0.5)
    objective.ids = torch.tensor([1])  # all that can be drawn: a negative of row 0, row 1 itself, a positive of row 2
    value = objective.eval()(student, teacher, target=target, index=index)
    assert value.item() == pytest.approx(frozen, rel=1e-4)


@pytest.mark.parametrize("kind", [CRD, CRCKD])
def test_gradient_agrees_with_differences(kind: type[Remembering]) -> None:
    objective = made(kind).double()
    student, teacher = (each.double() for each in features(2))
    student.requires_grad_()

    def value(s: Tensor) -> Tensor:
        torch.manual_seed(0)
        loss: Tensor = objective(s, teacher, target=CLASSES, index=torch.arange(8))
        return loss

    assert torch.autograd.gradcheck(value, (student,))


@pytest.mark.parametrize("kind", [CRD, CRCKD])
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4, 1e20])
@pytest.mark.parametrize("rows", [1, 8])
def test_finite_at_extremes(kind: type[Remembering], scale: float, rows: int) -> None:
    objective = made(kind, temperature=0.07)
    student, teacher = (each[:rows] * scale for each in features(3))
    student.requires_grad_()
    value = objective(student, teacher, target=CLASSES[:rows], index=torch.arange(rows))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("kind", [CRD, CRCKD])
def test_before_anything_is_remembered_only_a_rows_own_pair_counts(kind: type[Remembering]) -> None:
    objective = made(kind, seen=())
    student, teacher = features(0)
    student.requires_grad_()
    value = objective(student, teacher, target=CLASSES, index=torch.arange(8))
    value.backward()
    assert value > 0
    assert torch.isfinite(student.grad).all()
    assert not objective.known.any()  # eval mode writes nothing


@pytest.mark.parametrize("kind", [CRD, CRCKD])
def test_the_bank_keeps_a_share_of_what_it_had_at_norm_1(kind: type[Remembering]) -> None:
    torch.manual_seed(0)
    objective = kind(**SMALL, momentum=0.25)
    objective.make_bank(torch.tensor([4, 9]), torch.tensor([0, 1]))
    assert objective.student_bank.shape == (10, 3)
    student, teacher = (each[:2] for each in features(0))
    rows = {"target": torch.tensor([0, 1]), "index": torch.tensor([4, 9])}
    objective(student, teacher, **rows)
    first = objective.student_bank[9].clone()
    embedded = nn.functional.normalize(objective.student_map(student), dim=1)[1]
    torch.testing.assert_close(first, embedded.detach())
    objective(-student, teacher, **rows)
    again = nn.functional.normalize(objective.student_map(-student), dim=1)[1]
    torch.testing.assert_close(objective.student_bank[9], unit_(0.25 * first + 0.75 * again.detach()))
    assert objective.known.nonzero().flatten().tolist() == [4, 9]


def unit_(values: Tensor) -> Tensor:
    return values / values.norm()


@pytest.mark.parametrize("kind", [CRD, CRCKD])
def test_teacher_gets_no_gradient_and_bfloat16_computes_in_float32(kind: type[Remembering]) -> None:
    objective = made(kind)
    student, teacher = (each.to(torch.bfloat16) for each in features(0))
    teacher.requires_grad_()
    student.requires_grad_()
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = objective(student, teacher, target=CLASSES, index=torch.arange(8))
    value.backward()
    assert value.dtype == torch.float32
    assert teacher.grad is None
    assert torch.count_nonzero(student.grad) > 0
    assert objective.student_map.weight.grad is not None
    torch.manual_seed(0)
    exact = objective(student.float(), teacher.float(), target=CLASSES, index=torch.arange(8))
    assert torch.equal(value, exact)


def test_any_other_row_is_a_negative_where_there_are_no_classes() -> None:
    values = torch.tensor([0.5, 1.5, 2.5])
    rows = TensorSplit({"x": torch.zeros(3, 2), "target": values})
    objective = CRD(**SMALL, negatives="rows")
    objective.prepare(DataInfo(inputs={}), rows)
    student, teacher = (each[:3] for each in features(0))
    assert objective(student, teacher, target=values, index=torch.arange(3)) > 0
    for kind in (CRD, CRCKD):
        with pytest.raises(ValueError, match="one class a row"):
            kind().prepare(DataInfo(inputs={}), rows)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CRD(temperature=0.0), "temperature must be above 0"),
        (lambda: CRD(momentum=1.0), "momentum must lie in"),
        (lambda: CRD(width=0), "width must be at least 1"),
        (lambda: CRD(negatives="others"), "negatives must be"),  # type: ignore[arg-type]
        (lambda: CRCKD(relation_weight=-1.0), "relation_weight must be at least 0"),
        (lambda: CRCKD(candidates=0), "candidates must be at least 1"),
        (lambda: SupervisedContrastive(memory=-1), "memory must be at least 0"),
        (lambda: SupervisedContrastive(hard=0.0), "hard must lie in"),
    ],
)
def test_wrong_options_are_refused_when_made(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_what_does_not_fit_is_refused() -> None:
    student, teacher = features(0)
    with pytest.raises(ValueError, match="call make_bank first"):
        CRD()(student, teacher, target=CLASSES, index=torch.arange(8))
    with pytest.raises(ValueError, match="must be"):
        made(CRD)(student, teacher, target=CLASSES, index=torch.arange(7))
    with pytest.raises(ValueError, match="row ids"):
        SupervisedContrastive(memory=4)(student, student, target=CLASSES)


# The memory and the hard samples of the supervised contrastive loss


def contrastive(
    s: np.ndarray, t: np.ndarray, target: list[int], more: list[tuple[np.ndarray, int]], hard: float, temperature: float
) -> float:
    others = [(unit(row), label) for row, label in zip(t, target, strict=True)] + more
    total = 0.0
    for i, row in enumerate(s):
        scores = [float(np.dot(unit(row), other)) / temperature for other, _ in others]
        alike = [j for j, (_, label) in enumerate(others) if label == target[i] and j != i]
        unlike = [j for j, (_, label) in enumerate(others) if label != target[i]]
        alike = sorted(alike, key=lambda j: scores[j])[: math.ceil(hard * len(alike))]
        unlike = sorted(unlike, key=lambda j: -scores[j])[: math.ceil(hard * len(unlike))]
        log_sum = math.log(sum(math.exp(scores[j]) for j in [i, *alike, *unlike]))
        total -= sum(scores[j] - log_sum for j in [i, *alike]) / (1 + len(alike))
    return total / len(s)


@pytest.mark.parametrize("hard", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_memory_and_hard_samples_equal_the_formula(hard: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(4)]
    objective = SupervisedContrastive(temperature=0.5, memory=6, hard=hard)
    earlier, ids = torch.tensor([0, 1, 2, 1, 0]), torch.tensor([10, 11, 12, 13, 14])
    objective(draw[0], draw[1], target=earlier, index=ids)
    later, now = torch.tensor([2, 2, 1, 0, 0]), torch.tensor([20, 11, 21, 22, 23])
    value = objective.eval()(draw[2], draw[3], target=later, index=now)
    # Row 11 is in the batch again, and not counted twice.
    more = [
        (unit(row), label)
        for row, label, each in zip(draw[1].numpy(), earlier.tolist(), ids.tolist(), strict=True)
        if each != 11
    ]
    expected = contrastive(draw[2].numpy(), draw[3].numpy(), later.tolist(), more, hard, 0.5)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_the_oldest_rows_are_forgotten_and_a_repeated_one_has_one_place() -> None:
    objective = SupervisedContrastive(memory=4)
    student = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    for ids in ([1, 2, 3], [4, 5, 2]):
        objective(student, student, target=torch.tensor([0, 1, 1]), index=torch.tensor(ids))
    assert sorted(objective.ids.tolist()) == [-1, 2, 4, 5] or sorted(objective.ids.tolist()) == [2, 3, 4, 5]
    assert (objective.ids == 2).sum() == 1
    objective(torch.ones(6, 2), torch.ones(6, 2), target=torch.zeros(6).long(), index=torch.arange(30, 36))
    assert sorted(objective.ids.tolist()) == [32, 33, 34, 35]


def test_without_memory_hard_samples_have_a_gradient_that_agrees_with_differences() -> None:
    student, teacher = (each[:, :4].double() for each in features(4))
    student.requires_grad_()
    objective = SupervisedContrastive(temperature=0.5, hard=0.5)
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher, target=CLASSES), (student,))


def test_a_row_of_zeros_is_neither_remembered_nor_hard() -> None:
    objective = SupervisedContrastive(memory=8, hard=0.25)
    teacher = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    teacher[1] = 0.0
    student = teacher.clone().requires_grad_()
    value = objective(student, teacher, target=torch.tensor([0, 0, 1, 1]), index=torch.arange(4))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()
    assert sorted(objective.ids.tolist())[-3:] == [0, 2, 3]


# In a recipe


@pytest.mark.parametrize(
    "term",
    [
        {"use": "core/crd", "student": "backbone", "teacher": "backbone", "candidates": 16, "width": 4},
        {"use": "core/crckd", "student": "backbone", "teacher": "backbone", "candidates": 16, "width": 4},
        {"use": "core/vid", "student": "backbone", "teacher": "backbone"},
        {"use": "core/supervised-contrastive", "student": "backbone", "teacher": "backbone", "memory": 64, "hard": 0.5},
    ],
    ids=lambda term: term["use"].removeprefix("core/"),
)
def test_a_memory_is_part_of_a_checkpoint(term: dict[str, Any], assert_resumes: Callable[..., Any]) -> None:
    soft = ", ".join(f"{name}: {value}" for name, value in term.items())
    result = assert_resumes("core/offline", [""], f"objectives.soft=[soft, {{{soft}}}]")
    state = (result.folder / "student" / "seed-0" / "model.safetensors").stat().st_size
    assert state < 10_000  # neither bank nor maps are saved with the student


def test_a_recipe_without_classes_is_told(distil: Callable[..., Any]) -> None:
    soft = "objectives.soft=[{use: core/crd, student: backbone, teacher: backbone}]"
    with pytest.raises(IncompatibleError, match="one class a row"):
        distil("core/offline", "head=core/regression", "dataset.kind=regression", soft)
