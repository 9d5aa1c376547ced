"""What is undefined, left out, not finite, or out of range, in every objective."""

from __future__ import annotations

import inspect
import math
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import stillhouse
from stillhouse.components.builtin import stillhouse_objectives
from stillhouse.errors import OptionError, TrainingError
from stillhouse.kinds import SEGMENTATION_IGNORE
from stillhouse.objectives import (
    DIST,
    DKD,
    NST,
    PKT,
    VID,
    AttentionTransfer,
    BernoulliKL,
    ChannelKL,
    CorrelationAware,
    GaussianKL,
    Hints,
    NormalisedKD,
    PixelKL,
    Relational,
    SimilarityPreserving,
    SoftTargets,
    StandardisedLogits,
    SupervisedContrastive,
    TeacherBounded,
    TeacherMSE,
    TokenKL,
    combined_loss,
)
from stillhouse.training.finite import FiniteGuard
from stillhouse.training.loss import DistillationLoss, Term
from stillhouse.types import Outputs

INF, NAN = math.inf, math.nan
CLASSES = torch.tensor([0, 1, 2, 1])
ROWS, IMAGES, TEXT, MAPS = (4, 3), (4, 3, 2, 2), (4, 2, 3), (4, 3, 5)
MASKED: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, Tensor]]] = {
    "soft-targets": (SoftTargets(), ROWS, {}),
    "bernoulli": (BernoulliKL(), ROWS, {}),
    "teacher-mse": (TeacherMSE(), ROWS, {}),
    "teacher-bounded": (TeacherBounded(), ROWS, {"target": torch.zeros(ROWS)}),
    "gaussian": (GaussianKL(), (4, 2), {}),
    "pixel": (PixelKL(), IMAGES, {}),
    "channel": (ChannelKL(), IMAGES, {}),
    "token-forward": (TokenKL(), TEXT, {}),
    "token-reverse": (TokenKL(direction="reverse"), TEXT, {}),
    "token-jsd": (TokenKL(direction="jsd"), TEXT, {}),
    "dkd": (DKD(), ROWS, {"target": CLASSES}),
    "dist": (DIST(), ROWS, {}),
    "hints": (Hints(), MAPS, {}),
    "standardised": (StandardisedLogits(), ROWS, {}),
    "normalised": (NormalisedKD(), ROWS, {"target": CLASSES}),
    "vid": (VID(), MAPS, {}),
}
ALL = MASKED | {
    "attention": (AttentionTransfer(), MAPS, {}),
    "attention-p4": (AttentionTransfer(p=4.0), MAPS, {}),
    "similarity": (SimilarityPreserving(), ROWS, {}),
    "relational": (Relational(), ROWS, {}),
    "contrastive": (SupervisedContrastive(), ROWS, {"target": CLASSES}),
    "hard": (SupervisedContrastive(hard=0.5), ROWS, {"target": CLASSES}),
    "pkt": (PKT(), ROWS, {}),
    "nst": (NST(layout="channels"), MAPS, {}),
    "correlation": (CorrelationAware(), (4, 2), {}),
}


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator) for _ in range(2))
    return student, teacher


def step(objective: nn.Module, student: Tensor, teacher: Tensor, **extras: Any) -> tuple[float, Tensor]:
    """Value and gradient."""
    student = student.detach().clone().requires_grad_()
    value = objective(student, teacher, **extras)
    value.backward()
    assert student.grad is not None
    return value.item(), student.grad


# What is not finite


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("where", ["student", "teacher"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_finite_loss_has_a_finite_gradient_whatever_an_entry_holds(name: str, where: str, value: float) -> None:
    objective, shape, extras = ALL[name]
    student, teacher = pair(shape)
    {"student": student, "teacher": teacher}[where].view(-1)[1] = value
    loss, gradient = step(objective, student, teacher, **extras)
    assert not math.isfinite(loss) or bool(torch.isfinite(gradient).all())
    if math.isnan(value):
        assert math.isnan(loss)


@pytest.mark.parametrize("objective", [DIST(), TeacherBounded()], ids=["dist", "teacher-bounded"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_teachers_row_that_is_not_finite_makes_the_loss_nan(objective: nn.Module, value: float) -> None:
    student, teacher = pair(ROWS)
    teacher[2] = value
    extras = {"target": torch.zeros(ROWS)} if isinstance(objective, TeacherBounded) else {}
    assert math.isnan(step(objective, student, teacher, **extras)[0])


class Broken(nn.Module):
    """Says 1 of every value, and something else of the rows whose input starts with 7."""

    def __init__(self, otherwise: float) -> None:
        super().__init__()
        self.otherwise = otherwise

    def forward(self, input: Tensor) -> Tensor:
        return torch.where(input[:, :1] == 7.0, self.otherwise, input)


@pytest.mark.parametrize("objective", [DIST(), TeacherBounded()], ids=["dist", "teacher-bounded"])
def test_distill_stops_at_an_infinite_teacher_row_names_it_and_keeps_the_weights(objective: nn.Module) -> None:
    student = nn.Linear(3, 3)
    before = student.weight.detach().clone()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    x[3, 0] = 7.0
    batch = {"input": x, "target": torch.zeros(5, 3), "index": torch.arange(100, 105)}
    extras = ("target",) if isinstance(objective, TeacherBounded) else ()
    with pytest.raises(TrainingError, match="not finite") as error:
        stillhouse.distill(
            student,
            Broken(INF),
            [batch],
            [Term(name="soft", objective=objective, extras=extras)],
            alpha=0.0,
            inputs=["input"],
        )
    assert "teacher's output is not finite: 103" in error.value.where
    assert torch.equal(student.weight, before)


class Root(nn.Module):
    """A loss of 0 with an infinite gradient at 0."""

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student * 0.0).abs().sum().sqrt()


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    student = nn.Linear(3, 3)
    before = student.weight.detach().clone()
    with pytest.raises(TrainingError, match="the gradient of the loss is not finite") as error:
        stillhouse.distill(
            student, nn.Linear(3, 3), [{"input": torch.ones(2, 3)}], [Root()], alpha=0.0, inputs=["input"]
        )
    assert "0, 1" in error.value.where
    assert torch.equal(student.weight, before)


def test_the_guard_takes_large_gradients_whose_squares_overflow() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1e30, -1e30])
    guard = FiniteGuard("the loss", 0, fix="lower lr")
    guard.watch(torch.tensor(1.0), {"x": torch.zeros(2)}, gradients=[parameter])
    parameter.grad[1] = NAN
    with pytest.raises(TrainingError, match="gradient"):
        guard.watch(torch.tensor(1.0), {"x": torch.zeros(2)}, gradients=[parameter])


# Masks


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_a_mask_leaves_out_may_hold_anything(name: str, value: float) -> None:
    objective, shape, extras = MASKED[name]
    student, teacher = pair(shape)
    mask = torch.tensor([True, False, True, True])
    expected, gradient = step(objective, student, teacher, mask=mask, **extras)
    student[1] = teacher[1] = value
    extras = {key: entry.clone() for key, entry in extras.items()}
    for entry in extras.values():
        entry[1] = value if entry.is_floating_point() else -100
    found, found_gradient = step(objective, student, teacher, mask=mask, **extras)
    assert found == expected
    assert torch.equal(found_gradient, gradient)
    assert torch.count_nonzero(found_gradient[1]) == 0


@pytest.mark.parametrize("name", MASKED)
def test_weights_count_rows_as_often_as_they_say(name: str) -> None:
    objective, shape, extras = MASKED[name]
    student, teacher = (each.double() for each in pair(shape))
    times = torch.tensor([2, 0, 1, 3])
    weighted = step(objective, student, teacher, mask=times.double() / 4, **extras)[0]
    repeated = [each.repeat_interleave(times, 0) for each in (student, teacher)]
    expected = step(objective, *repeated, **{key: each.repeat_interleave(times, 0) for key, each in extras.items()})[0]
    assert weighted == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("shape", [(), (3,), (4, 7)])
def test_a_mask_that_does_not_fit_is_an_error_with_its_shape(name: str, shape: tuple[int, ...]) -> None:
    objective, size, extras = MASKED[name]
    with pytest.raises(ValueError, match="mask") as error:
        objective(*pair(size), mask=torch.ones(shape), **extras)
    assert str(tuple(shape)) in str(error.value)


def test_every_objective_that_takes_a_mask_says_so_in_its_spec() -> None:
    for spec in stillhouse_objectives():
        module, _, attribute = spec.target.partition(":")
        forward = getattr(__import__(module, fromlist=[attribute]), attribute).forward
        assert ("mask" in spec.extras) == ("mask" in inspect.signature(forward).parameters), spec.name


def test_a_mask_and_unlabelled_rows_reach_the_objective() -> None:
    student, teacher = pair((6, 2, 3))
    batch = {"mask": torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1]]), "target": torch.zeros(4, 2).long()}
    outputs = Outputs(student, {}), Outputs(teacher, {})
    every = torch.cat((batch["mask"], torch.ones(2, 2)))
    masked = Term(name="hints", objective=Hints(), extras=("mask",))
    assert masked(*outputs, batch, 4).item() == Hints()(student, teacher, mask=every).item()
    labelled = Term(name="token", objective=TokenKL(), extras=("target", "mask"))
    expected = TokenKL()(student[:4], teacher[:4], target=batch["target"], mask=batch["mask"])
    assert labelled(*outputs, batch, 4).item() == expected.item()
    assert masked(*outputs, {}, 4).item() == Hints()(student, teacher).item()


def test_ignored_pixels_are_not_distilled_and_unlabelled_rows_are_wholly() -> None:
    student, teacher = pair((3, 2, 2, 2))
    target = torch.tensor([[[0, 1], [SEGMENTATION_IGNORE, 0]], [[1, 1], [SEGMENTATION_IGNORE, SEGMENTATION_IGNORE]]])
    per_pixel = (F.kl_div(F.log_softmax(student, 1), F.log_softmax(teacher, 1), log_target=True, reduction="none")).sum(
        1
    )
    valid = torch.cat((target != SEGMENTATION_IGNORE, torch.ones(1, 2, 2, dtype=torch.bool)))
    term = Term(name="pixel", objective=PixelKL(), extras=("target", "mask"))
    outputs = Outputs(student, {}), Outputs(teacher, {})
    assert term(*outputs, {"target": target}, 2).item() == pytest.approx(per_pixel[valid].mean().item(), rel=1e-5)
    mask = torch.tensor([1.0, 1.0, 0.0])
    found = term(*outputs, {"target": target, "mask": mask}, 2).item()
    assert found == pytest.approx(per_pixel[:2][valid[:2]].mean().item(), rel=1e-5)
    gradient = step(PixelKL(), student, teacher, target=target)[1]
    assert torch.count_nonzero(gradient.movedim(1, -1)[~valid]) == 0
    with pytest.raises(ValueError, match="target"):
        PixelKL()(student, teacher, target=target[:, :1])


# What is undefined


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_row_of_zeros_adds_nothing_to_the_contrastive_loss(seed: int) -> None:
    student, teacher = pair((6, 4), seed)
    target = torch.tensor([0, 0, 1, 1, 2, 2])
    rows = torch.tensor([0, 1, 3, 4, 5])
    without_student = student.clone()
    without_student[2] = 0.0
    value, gradient = step(SupervisedContrastive(), without_student, teacher, target=target)
    scores = F.log_softmax(F.normalize(student, dim=1) @ F.normalize(teacher, dim=1).T / 0.1, 1)
    alike = target[:, None] == target
    per_row = -(scores * alike).sum(1) / alike.sum(1)
    assert value == pytest.approx(per_row[rows].sum().item() / 6, rel=1e-4)
    assert torch.count_nonzero(gradient[2]) == 0
    assert gradient.abs().max() < 100
    # A teacher's row of zeros is no member of the contrast set.
    without_teacher = teacher.clone()
    without_teacher[2] = 0.0
    value = step(SupervisedContrastive(), student, without_teacher, target=target)[0]
    scores = F.log_softmax(F.normalize(student, dim=1) @ F.normalize(teacher[rows], dim=1).T / 0.1, 1)
    alike = target[:, None] == target[rows]
    assert value == pytest.approx((-(scores * alike).sum(1) / alike.sum(1)).mean().item(), rel=1e-4)


def test_a_dead_row_adds_no_similarities() -> None:
    student, teacher = pair((5, 4))
    student[2] = 0.0
    value, gradient = step(SimilarityPreserving(), student, teacher)
    student_rows, teacher_rows = (F.normalize(each @ each.T, dim=1) for each in (student, teacher))
    kept = torch.tensor([0, 1, 3, 4])
    expected = (student_rows - teacher_rows)[kept].square().sum().item() / 25
    assert value == pytest.approx(expected, rel=1e-5)
    assert gradient.abs().max() < 10


def relations(student: Tensor, teacher: Tensor) -> float:
    """From all differences, in float64; triplets in which two rows coincide with the vertex add 0."""
    gaps = [each.double().unsqueeze(0) - each.double().unsqueeze(1) for each in (student, teacher)]
    lengths = [each.norm(dim=2) for each in gaps]
    apart = (lengths[0] > 0) & (lengths[1] > 0)
    distances = F.smooth_l1_loss(*(each / each[each > 0].mean() for each in lengths))
    units = [each / length.clamp(min=1e-300).unsqueeze(2) for each, length in zip(gaps, lengths, strict=True)]
    defined = apart.unsqueeze(2) & apart.unsqueeze(1)
    angles = F.smooth_l1_loss(*(each @ each.transpose(1, 2) for each in units), reduction="none")
    return float(25 * distances + 50 * (angles * defined).mean())


@pytest.mark.parametrize("width", [3, 700])
@pytest.mark.parametrize(("spread", "offset"), [(1.0, 0.0), (30.0, 0.0), (1.0, 100.0)])
def test_relations_from_inner_products_agree_with_those_from_differences(
    width: int, spread: float, offset: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, width, generator=generator).repeat_interleave(5, 0) * spread
    student, teacher = (centres + offset + torch.randn(20, width, generator=generator) for _ in range(2))
    assert step(Relational(), student, teacher)[0] == pytest.approx(relations(student, teacher), rel=1e-4, abs=1e-5)


def test_two_equal_rows_add_no_angle_and_no_large_gradient() -> None:
    student, teacher = pair((6, 40))
    student[3] = student[1]
    value, gradient = step(Relational(), student, teacher)
    assert value == pytest.approx(relations(student, teacher), rel=1e-5)
    assert gradient.abs().max() < 100
    twice = student[:2] * 0 + 1.0
    value, gradient = step(Relational(), twice, teacher[:2])
    assert value == 0.0
    assert torch.count_nonzero(gradient) == 0


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 3.0])
def test_attention_of_exact_zeros_at_any_power(p: float) -> None:
    student, teacher = pair(MAPS)
    student[:, :, 1] = 0.0  # a position that is zero in every channel
    student[0, 0, 0] = 0.0
    student[2] = 0.0
    value, gradient = step(AttentionTransfer(p=p, layout="channels"), student, teacher)
    maps = [F.normalize(each.double().abs().pow(p).mean(1), dim=1) for each in (student, teacher)]
    expected = (maps[0] - maps[1])[torch.tensor([0, 1, 3])].square().sum().item() / 20
    assert value == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(gradient).all()
    assert torch.count_nonzero(gradient[2]) == 0


# Certainty


@pytest.mark.parametrize("objective", [ChannelKL(), PixelKL()], ids=["channel", "pixel"])
def test_what_both_rule_out_wholly_adds_nothing(objective: nn.Module) -> None:
    student, teacher = pair((2, 3, 2, 2))
    index = (0, 1) if isinstance(objective, ChannelKL) else (0, slice(None), 1, 1)
    same = student.clone()
    same[index] = teacher[index]
    expected = step(objective, same, teacher)[0]
    student[index] = teacher[index] = -INF
    value, gradient = step(objective, student, teacher)
    assert value == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("objective", [SoftTargets(), DKD()], ids=["soft-targets", "dkd"])
def test_certainty_of_the_same_class_adds_nothing(objective: nn.Module) -> None:
    student, teacher = pair((2, 3))
    extras = {"target": torch.tensor([0, 1])} if isinstance(objective, DKD) else {}
    alone = step(objective, student[1:], teacher[1:], **{key: each[1:] for key, each in extras.items()})[0]
    for sure in ([INF, 0.0, 1.0], [0.0, -INF, -INF]):
        student[0] = teacher[0] = torch.tensor(sure)
        value, gradient = step(objective, student, teacher, **extras)
        assert value == pytest.approx(alone / 2, rel=1e-5)
        assert torch.isfinite(gradient).all()


def test_dkd_without_other_classes_keeps_the_true_one() -> None:
    student, teacher = torch.tensor([[0.5, 1.0, 2.0]]), torch.tensor([[0.0, -INF, -INF]])
    value, gradient = step(DKD(temperature=1.0), student, teacher, target=torch.tensor([0]))
    assert value == pytest.approx(-student.log_softmax(1)[0, 0].item(), rel=1e-6)
    assert torch.isfinite(gradient).all()


def test_bernoulli_certainty_is_finite_and_right() -> None:
    student = torch.tensor([[INF, -INF, 1.0, 1.0]])
    teacher = torch.tensor([[INF, -INF, INF, -INF]])
    value, gradient = step(BernoulliKL(), student, teacher)
    assert value == pytest.approx((math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 4, rel=1e-6)
    assert gradient[0].tolist() == pytest.approx([0, 0, (1 / (1 + math.exp(-1)) - 1) / 4, 1 / (1 + math.exp(-1)) / 4])


def intra(student: Tensor, teacher: Tensor) -> float:
    """Mean over classes of 1 - Pearson between rows, with 60 digits."""

    def softmax(logits: Tensor) -> list[list[Decimal]]:
        rows = [[Decimal(value).exp() for value in row] for row in logits.tolist()]
        return [[value / sum(row) for value in row] for row in rows]

    with localcontext() as context:
        context.prec = 60
        total = Decimal(0)
        for a, b in zip(zip(*softmax(student), strict=True), zip(*softmax(teacher), strict=True), strict=True):
            a, b = ([value - sum(each) / len(each) for value in each] for each in (a, b))
            both = sum(x * y for x, y in zip(a, b, strict=True))
            total += 1 - both / (sum(x * x for x in a) * sum(y * y for y in b)).sqrt()
        return float(total / student.shape[1])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), gap=st.sampled_from([0.0, 5.0, 15.0, 25.0, 50.0, 75.0]))
def test_dist_correlates_classes_that_rows_are_sure_of(seed: int, gap: float) -> None:
    """At a gap of 25 the other classes have probabilities near 1e-11, which still vary between rows."""
    student, teacher = pair((6, 3), seed)
    student[:, 0] += gap
    teacher[:, 0] += gap
    value, gradient = step(DIST(beta=0.0), student, teacher)
    assert value == pytest.approx(intra(student, teacher), rel=1e-4, abs=1e-4)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() < 10


# Empty batches, ranks, targets


@pytest.mark.parametrize("name", ALL)
def test_no_rows_cost_nothing(name: str) -> None:
    objective, shape, extras = ALL[name]
    empty = torch.zeros(0, *shape[1:])
    value, gradient = step(objective, empty, empty, **{key: each[:0] for key, each in extras.items()})
    assert value == 0.0
    assert gradient.shape == empty.shape


@pytest.mark.parametrize("classes", [[0, 3], [-1, 0], [0, 255]])
def test_class_ids_out_of_range_are_named(classes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"class ids in \[0, 3\)") as error:
        DKD()(*pair((2, 3)), target=torch.tensor(classes))
    assert f"{min(classes)} to {max(classes)}" in str(error.value)


@pytest.mark.parametrize(
    ("objective", "shape", "target"),
    [
        (SupervisedContrastive(), (4,), torch.zeros(4).long()),
        (TokenKL(), (4, 2, 3), torch.zeros(4, 2)),
        (PixelKL(), (4, 3, 2, 2), torch.zeros(4, 2, 2)),
        (PixelKL(), (4, 3, 2, 2), torch.zeros(5, 2, 2).long()),
        (TeacherBounded(), (4,), torch.zeros(4)),
        (DKD(), (4, 3), torch.zeros(4, 1).long()),
    ],
)
def test_ranks_and_targets_that_do_not_fit_are_value_errors(
    objective: nn.Module, shape: tuple[int, ...], target: Tensor
) -> None:
    with pytest.raises(ValueError, match="must"):
        objective(*pair(shape), target=target)


# Schedules and weights


@pytest.mark.parametrize(
    ("objective", "scheduled", "words"),
    [
        (SoftTargets(), {"temperature": {"schedule": "linear", "start": 4, "end": 0}}, "temperature must be above 0"),
        (SoftTargets(), {"temperature": {"schedule": "linear", "start": -1, "end": 4}}, "temperature must be above 0"),
        (DKD(), {"beta": {"schedule": "linear", "start": 8, "end": -1}}, "beta must be at least 0"),
        (TokenKL(), {"beta": {"schedule": "warmup", "end": 2}}, "beta must lie in"),
        (Relational(), {"angle_weight": {"schedule": "cosine", "start": 1, "end": -1}}, "angle_weight must be"),
        (AttentionTransfer(), {"p": {"schedule": "warmup", "end": 2}}, "p must be above 0"),
        (SoftTargets(), {"temprature": 3}, "no option 'temprature'"),
    ],
)
def test_a_schedule_is_checked_at_both_ends_before_a_run(
    objective: nn.Module, scheduled: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words) as error:
        DistillationLoss(None, [Term(name="soft", objective=objective, scheduled=scheduled)], 0.0)
    assert "'soft'" in error.value.where


def test_scheduled_weights_and_alpha_are_checked_at_both_ends() -> None:
    falling = {"schedule": "linear", "start": 1, "end": -1}
    with pytest.raises(OptionError, match="weight must be at least 0"):
        DistillationLoss(None, [Term(name="soft", objective=SoftTargets(), weight=falling)], 0.0)
    with pytest.raises(OptionError, match="alpha must be in"):
        DistillationLoss(None, [Term(name="soft", objective=SoftTargets())], falling)


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_part_of_weight_0_adds_nothing_even_when_it_is_not_finite(value: float) -> None:
    hard, soft = torch.tensor(2.0, requires_grad=True), torch.tensor(value, requires_grad=True)
    total, parts = combined_loss(hard, [("soft", 0.0, soft)], 0.5)
    total.backward()
    assert total.item() == 1.0
    assert soft.grad is not None
    assert soft.grad.item() == 0.0
    assert not math.isfinite(parts["soft"]["raw"].item())
    assert combined_loss(soft, [("hint", 1.0, hard)], 0.0)[0].item() == 2.0


def test_a_term_of_weight_0_leaves_the_student_and_its_adapter_clean() -> None:
    adapter = nn.Linear(3, 3)
    terms = [
        Term(name="soft", objective=SoftTargets()),
        Term(name="bad", objective=Hints(), weight=0.0, adapter=adapter),
    ]
    student, teacher = pair(ROWS)
    student.requires_grad_()
    alone = torch.autograd.grad(SoftTargets()(student, teacher), student)[0]
    outputs = Outputs(student, {}), Outputs(teacher, {})
    loss = DistillationLoss(None, terms, 0.0)
    adapter.weight.data[0, 0] = INF
    total, parts = loss(*outputs, {})
    total.backward()
    assert math.isfinite(total.item())
    assert not math.isfinite(parts["bad"]["raw"].item())
    assert adapter.weight.grad is not None
    assert torch.count_nonzero(adapter.weight.grad) == 0
    assert student.grad is not None
    assert torch.equal(student.grad, alone)


def test_a_student_that_equals_the_teacher_still_learns_with_a_margin() -> None:
    student = torch.tensor([[1.0]])
    assert torch.count_nonzero(step(TeacherBounded(), student, student, target=torch.zeros(1))[1]) == 0
    assert step(TeacherBounded(margin=0.1), student, student, target=torch.zeros(1))[1].item() == 2.0
