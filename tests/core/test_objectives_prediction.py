"""Objectives between predictions, against formulas written here in numpy and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, softmax
from scipy.stats import pearsonr

from stillhouse.objectives import (
    DIST,
    DKD,
    BernoulliKL,
    ChannelKL,
    GaussianKL,
    PixelKL,
    SoftTargets,
    StandardisedLogits,
    TeacherBounded,
    TeacherMSE,
    TokenKL,
)


def kl(teacher: np.ndarray, student: np.ndarray) -> float:
    """KL of two probability vectors, term by term."""
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True) if t > 0)


def soft_targets(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    rows = [kl(softmax(b / temperature), softmax(a / temperature)) for a, b in zip(s, t, strict=True)]
    return temperature**2 * sum(rows) / len(rows)


def bernoulli(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    total = 0.0
    for a, b in zip(s.ravel(), t.ravel(), strict=True):
        p, q = expit(b / temperature), expit(a / temperature)
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return temperature**2 * total / s.size


def pixel(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    rows = [a[:, i, j] for a in s for i in range(s.shape[2]) for j in range(s.shape[3])]
    others = [a[:, i, j] for a in t for i in range(s.shape[2]) for j in range(s.shape[3])]
    return soft_targets(np.array(rows), np.array(others), temperature)


def channel(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    batch, channels = s.shape[:2]
    total = sum(
        kl(softmax(t[b, c].ravel() / temperature), softmax(s[b, c].ravel() / temperature))
        for b in range(batch)
        for c in range(channels)
    )
    return temperature**2 / channels * total / batch


def token(s: np.ndarray, t: np.ndarray, direction: str, beta: float = 0.5) -> float:
    total = 0.0
    for b in range(s.shape[0]):
        for i in range(s.shape[1]):
            p, q = softmax(t[b, i]), softmax(s[b, i])
            m = beta * p + (1 - beta) * q
            total += {
                "forward": lambda p=p, q=q: kl(p, q),
                "reverse": lambda p=p, q=q: kl(q, p),
                "jsd": lambda p=p, q=q, m=m: beta * kl(p, m) + (1 - beta) * kl(q, m),
            }[direction]()
    return total / (s.shape[0] * s.shape[1])


def gaussian(s: np.ndarray, t: np.ndarray) -> float:
    half = s.shape[1] // 2
    total = 0.0
    for a, b in zip(s, t, strict=True):
        for i in range(half):
            sd_s, sd_t = math.exp(a[half + i] / 2), math.exp(b[half + i] / 2)
            total += math.log(sd_s / sd_t) + (sd_t**2 + (b[i] - a[i]) ** 2) / (2 * sd_s**2) - 0.5
    return total / (len(s) * half)


def dkd(s: np.ndarray, t: np.ndarray, y: np.ndarray, alpha: float, beta: float, temperature: float) -> float:
    total = 0.0
    for a, b, true in zip(s / temperature, t / temperature, y, strict=True):
        p, q = softmax(b), softmax(a)
        tckd = kl(np.array([p[true], 1 - p[true]]), np.array([q[true], 1 - q[true]]))
        others = [c for c in range(len(p)) if c != true]
        nckd = kl(p[others] / p[others].sum(), q[others] / q[others].sum())
        total += alpha * tckd + beta * nckd
    return temperature**2 * total / len(s)


def dist(s: np.ndarray, t: np.ndarray, beta: float, gamma: float, temperature: float) -> float:
    q, p = softmax(s / temperature, axis=1), softmax(t / temperature, axis=1)
    inter = np.mean([1 - pearsonr(a, b).statistic for a, b in zip(q, p, strict=True)])
    intra = np.mean([1 - pearsonr(a, b).statistic for a, b in zip(q.T, p.T, strict=True)])
    return float(temperature**2 * (beta * inter + gamma * intra))


def standardised(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    z = [[(row - row.mean()) / math.sqrt(((row - row.mean()) ** 2).mean()) for row in x] for x in (s, t)]
    return soft_targets(np.array(z[0]), np.array(z[1]), temperature)


LABELS = torch.tensor([1, 3, 0, 2, 1, 0])
ROWS = (6, 4)
IMAGES = (6, 3, 2, 4)
TEXT = (6, 3, 4)

CASES = {
    "soft-targets": (SoftTargets(temperature=3.0), ROWS, {}, lambda s, t: soft_targets(s, t, 3.0)),
    "bernoulli": (BernoulliKL(temperature=2.0), ROWS, {}, lambda s, t: bernoulli(s, t, 2.0)),
    "binary": (BernoulliKL(), (6, 1), {}, lambda s, t: bernoulli(s, t, 1.0)),
    "teacher-mse": (TeacherMSE(), ROWS, {}, lambda s, t: float(np.mean((s - t) ** 2))),
    "gaussian": (GaussianKL(), ROWS, {}, gaussian),
    "pixel": (PixelKL(temperature=2.0), IMAGES, {}, lambda s, t: pixel(s, t, 2.0)),
    "channel": (ChannelKL(temperature=3.0), IMAGES, {}, lambda s, t: channel(s, t, 3.0)),
    "token-forward": (TokenKL(), TEXT, {}, lambda s, t: token(s, t, "forward")),
    "token-reverse": (TokenKL(direction="reverse"), TEXT, {}, lambda s, t: token(s, t, "reverse")),
    "token-jsd": (TokenKL(direction="jsd", beta=0.3), TEXT, {}, lambda s, t: token(s, t, "jsd", 0.3)),
    "dkd": (
        DKD(alpha=0.7, beta=2.0, temperature=3.0),
        ROWS,
        {"target": LABELS},
        lambda s, t: dkd(s, t, LABELS.numpy()[: len(s)], 0.7, 2.0, 3.0),
    ),
    "dist": (
        DIST(beta=1.5, gamma=0.5, temperature=2.0),
        ROWS,
        {},
        lambda s, t: dist(s, t, 1.5, 0.5, 2.0),
    ),
    "standardised": (StandardisedLogits(temperature=1.5), ROWS, {}, lambda s, t: standardised(s, t, 1.5)),
}
ALL = pytest.mark.parametrize("name", CASES)


def pair(shape: tuple[int, ...], *, scale: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale for _ in range(2))
    return student.requires_grad_(), teacher


@ALL
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_formula(name: str, seed: int) -> None:
    objective, shape, extras, formula = CASES[name]
    student, teacher = pair(shape, scale=1.5, seed=seed)
    value = objective(student, teacher, **extras)
    assert value.shape == ()
    assert value.item() == pytest.approx(formula(student.detach().numpy(), teacher.numpy()), rel=1e-9)


@ALL
def test_float32_agrees_with_the_formula(name: str) -> None:
    objective, shape, extras, formula = CASES[name]
    student, teacher = (each.detach().float() for each in pair(shape))
    value = objective(student, teacher, **extras)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(formula(student.double().numpy(), teacher.double().numpy()), rel=1e-4)


@ALL
def test_gradient_agrees_with_differences(name: str) -> None:
    objective, shape, extras, _ = CASES[name]
    student, teacher = pair(shape)
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher, **extras), (student,))


@ALL
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_exactly_zero_at_a_match(name: str, scale: float, dtype: torch.dtype) -> None:
    objective, shape, extras, _ = CASES[name]
    student = pair(shape, scale=scale)[0].detach().to(dtype).requires_grad_()
    value = objective(student, student.detach().clone(), **extras)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.count_nonzero(student.grad) == 0


@ALL
def test_finite_at_extreme_gaps(name: str) -> None:
    objective, shape, extras, _ = CASES[name]
    teacher = torch.where(torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5, 1e4, -1e4)
    student = (-teacher).requires_grad_()
    value = objective(student, teacher, **extras)
    value.backward()
    assert torch.isfinite(value)
    assert value > 0
    assert torch.isfinite(student.grad).all()


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(name: str, dtype: torch.dtype) -> None:
    objective, shape, extras, _ = CASES[name]
    student, teacher = (each.detach().to(dtype) for each in pair(shape, scale=20.0))
    exact = objective(student.float(), teacher.float(), **extras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = objective(student, teacher, **extras)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)


@ALL
def test_teacher_gets_no_gradient(name: str) -> None:
    objective, shape, extras, _ = CASES[name]
    student, teacher = pair(shape)
    teacher.requires_grad_()
    objective(student, teacher, **extras).backward()
    assert teacher.grad is None
    assert torch.count_nonzero(student.grad) > 0


@ALL
def test_batch_of_one(name: str) -> None:
    objective, shape, extras, formula = CASES[name]
    student, teacher = pair((1, *shape[1:]))
    value = objective(student, teacher, **{key: entry[:1] for key, entry in extras.items()})
    value.backward()
    if name == "dist":  # within a class there is nothing to correlate
        p, q = softmax(teacher[0].numpy() / 2.0), softmax(student.detach()[0].numpy() / 2.0)
        assert value.item() == pytest.approx(4.0 * 1.5 * (1 - pearsonr(p, q).statistic))
    else:
        assert value.item() == pytest.approx(formula(student.detach().numpy(), teacher.numpy()))
    assert torch.isfinite(student.grad).all()


@ALL
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 50.0))
def test_never_negative_and_the_order_of_rows_is_free(name: str, seed: int, scale: float) -> None:
    objective, shape, extras, _ = CASES[name]
    student, teacher = pair(shape, scale=scale, seed=seed)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(seed))
    value = objective(student, teacher, **extras)
    shuffled = {key: entry[order] for key, entry in extras.items()}
    assert value.item() >= -1e-12
    assert objective(student[order], teacher[order], **shuffled).item() == pytest.approx(value.item(), rel=1e-9)


@pytest.mark.parametrize("name", ["soft-targets", "pixel", "token-forward", "token-jsd", "dkd", "dist", "standardised"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), offset=st.floats(-100.0, 100.0))
def test_a_constant_added_to_all_logits_changes_nothing(name: str, seed: int, offset: float) -> None:
    objective, shape, extras, _ = CASES[name]
    student, teacher = pair(shape, seed=seed)
    value = objective(student, teacher, **extras)
    moved = objective(student + offset, teacher - 2 * offset, **extras)
    assert moved.item() == pytest.approx(value.item(), rel=1e-8, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    logits=hnp.arrays(np.float32, (2, 3, 5), elements=st.floats(-1e4, 1e4, width=32)),
    temperature=st.floats(0.5, 20.0),
)
def test_soft_targets_of_any_logits_are_finite_and_not_negative(logits: np.ndarray, temperature: float) -> None:
    student = torch.from_numpy(logits[0].copy()).requires_grad_()
    value = SoftTargets(temperature=temperature)(student, torch.from_numpy(logits[1].copy()))
    value.backward()
    assert torch.isfinite(value)
    assert value.item() >= -1e-5 * temperature**2
    assert torch.isfinite(student.grad).all()


@ALL
def test_a_mask_leaves_rows_out_of_sum_and_count(name: str) -> None:
    objective, shape, extras, _ = CASES[name]
    student, teacher = pair(shape)
    kept = torch.tensor([True, False, True, True, False, True])
    masked = objective(student, teacher, mask=kept, **extras)
    alone = objective(student[kept], teacher[kept], **{key: entry[kept] for key, entry in extras.items()})
    assert masked.item() == pytest.approx(alone.item(), rel=1e-12)


@ALL
def test_a_mask_of_zeros_gives_zero_with_a_gradient(name: str) -> None:
    objective, shape, extras, _ = CASES[name]
    student, teacher = pair(shape)
    value = objective(student, teacher, mask=torch.zeros(shape[0]), **extras)
    value.backward()
    assert value.item() == 0.0
    assert torch.count_nonzero(student.grad) == 0


@ALL
def test_shapes_that_would_broadcast_are_refused(name: str) -> None:
    objective, shape, extras, _ = CASES[name]
    student, teacher = pair(shape)
    with pytest.raises(ValueError, match=r"student .* and teacher"):
        objective(student, teacher[:1], **extras)


@ALL
def test_no_value_is_read_from_the_device(name: str) -> None:
    """Tensors on "meta" have no values: whatever waits for a device (`.item()`, a branch on a value) raises. Nothing
    waits for a CPU."""
    objective, shape, extras, _ = CASES[name]
    student = torch.rand(shape, device="meta", requires_grad=True)
    teacher = torch.rand(shape, device="meta")
    value = objective(student, teacher, **{k: v.to("meta") for k, v in extras.items()})
    value.backward()
    assert value.shape == ()
    assert student.grad is not None
    assert student.grad.shape == shape


STUDENT = torch.tensor([[1.0, 2.0, 0.5], [-1.0, 0.0, 3.0]])
TEACHER = torch.tensor([[2.0, 1.0, 0.0], [0.5, -0.5, 2.0]])
CLASSES = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("objective", "shape", "extras", "value"),
    [
        (SoftTargets(temperature=4.0), (2, 3), {}, 0.474512128),
        (BernoulliKL(temperature=2.0), (2, 3), {}, 0.108157327),
        (PixelKL(temperature=2.0), (1, 2, 1, 3), {}, 0.025459683),
        (ChannelKL(temperature=4.0), (1, 2, 1, 3), {}, 0.474512128),
        (TokenKL(direction="forward"), (1, 2, 3), {}, 0.345301489),
        (TokenKL(direction="reverse"), (1, 2, 3), {}, 0.272487657),
        (TokenKL(direction="jsd", beta=0.5), (1, 2, 3), {}, 0.071278473),
        (DKD(alpha=1.0, beta=8.0, temperature=4.0), (2, 3), {"target": CLASSES}, 3.320494080),
        (DIST(), (2, 3), {}, 0.549590889),
        (TeacherMSE(), (2, 3), {}, 5.75 / 6),
        (StandardisedLogits(), (2, 3), {}, 0.474392354),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, torch.nn.Module) else "",
)
def test_frozen_values(
    objective: torch.nn.Module, shape: tuple[int, ...], extras: dict[str, torch.Tensor], value: float
) -> None:
    assert objective(STUDENT.view(shape), TEACHER.view(shape), **extras).item() == pytest.approx(value, rel=1e-5)


def test_soft_targets_keep_the_scale_of_the_gradient_at_any_temperature() -> None:
    """As T grows, T^2 makes the gradient tend to (student - teacher) / C for centred logits."""
    student, teacher = pair((1, 4))
    centred = teacher - teacher.mean()
    SoftTargets(temperature=1e3)(student, centred).backward()
    expected = (student.detach() - student.detach().mean() - centred) / 4
    assert torch.allclose(student.grad, expected, atol=1e-3)


def test_soft_targets_do_not_divide_by_the_number_of_classes() -> None:
    student, teacher = pair((5, 3))
    more = torch.full((5, 97), -1e5, dtype=torch.float64)  # classes that nobody gives any probability
    value = SoftTargets()(student, teacher)
    wide = SoftTargets()(torch.cat((student, more), 1), torch.cat((teacher, more), 1))
    assert wide.item() == pytest.approx(value.item())


@ALL
def test_a_batch_repeated_costs_the_same(name: str) -> None:
    """Mean over rows: no loss grows with the batch."""
    objective, shape, extras, _ = CASES[name]
    student, teacher = pair(shape)
    twice = {key: torch.cat((entry, entry)) for key, entry in extras.items()}
    value = objective(student, teacher, **extras)
    doubled = objective(torch.cat((student, student)), torch.cat((teacher, teacher)), **twice)
    assert doubled.item() == pytest.approx(value.item())


@pytest.mark.parametrize("objective", [SoftTargets(), TokenKL(), TokenKL(direction="reverse"), PixelKL()])
def test_outcomes_ruled_out_by_both_with_minus_infinity(objective: torch.nn.Module) -> None:
    shape = {"SoftTargets": (2, 5), "TokenKL": (2, 3, 5), "PixelKL": (2, 5, 2, 2)}[type(objective).__name__]
    axis = 1 if len(shape) != 3 else 2
    student, teacher = pair(shape)
    ruled_out = torch.zeros(shape, dtype=torch.bool).index_fill(axis, torch.tensor([1, 4]), True)
    left = torch.tensor([0, 2, 3])
    value = objective(student.masked_fill(ruled_out, -torch.inf), teacher.masked_fill(ruled_out, -torch.inf))
    value.backward()
    expected = objective(student.index_select(axis, left), teacher.index_select(axis, left))
    assert value.item() == pytest.approx(expected.item())
    assert torch.isfinite(student.grad).all()


def test_soft_targets_are_dkd_with_the_weight_that_decoupling_removes() -> None:
    student, teacher = pair((1, 5))
    target = torch.tensor([2])
    others = 1 - softmax(teacher.numpy() / 4.0)[0, 2]
    decoupled = DKD(alpha=1.0, beta=float(others), temperature=4.0)(student, teacher, target=target)
    assert decoupled.item() == pytest.approx(SoftTargets(temperature=4.0)(student, teacher).item())


@pytest.mark.parametrize("offset", [0.0, -6000.0])
def test_dkd_masks_the_true_class_exactly_where_a_large_constant_would_not(offset: float) -> None:
    student = torch.tensor([[5000.0, 0.0, 1.0]]) + offset
    teacher = torch.tensor([[5000.0, 2.0, 0.0]]) + offset
    value = DKD(alpha=0.0, beta=1.0, temperature=1.0)(student, teacher, target=torch.tensor([0]))
    expected = kl(softmax([2.0, 0.0]), softmax([0.0, 1.0]))
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_dkd_of_two_classes_is_the_divergence_of_the_true_class_alone() -> None:
    student, teacher = pair((4, 2))
    value = DKD(alpha=1.0, beta=8.0, temperature=2.0)(student, teacher, target=torch.tensor([0, 1, 1, 0]))
    assert value.item() == pytest.approx(SoftTargets(temperature=2.0)(student, teacher).item())


@pytest.mark.parametrize("target", [torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]]), torch.tensor([0])])
def test_dkd_refuses_targets_that_are_not_class_ids(target: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="class ids"):
        DKD()(STUDENT, TEACHER, target=target)


def test_dist_ignores_scale_and_offset_of_probabilities_and_constant_rows() -> None:
    teacher = torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 0.5]])
    student = torch.zeros(2, 3, requires_grad=True)  # as an output layer initialised with zeros gives
    value = DIST()(student, teacher)
    value.backward()
    assert value.item() == 0.0
    assert torch.count_nonzero(student.grad) == 0


def test_binary_and_two_class_soft_targets_agree() -> None:
    student, teacher = pair((6, 1))
    zeros = torch.zeros(6, 1, dtype=torch.float64)
    two = SoftTargets(temperature=2.0)(torch.cat((student, zeros), 1), torch.cat((teacher, zeros), 1))
    assert BernoulliKL(temperature=2.0)(student, teacher).item() == pytest.approx(two.item())


@settings(max_examples=50, deadline=None)
@given(student=st.floats(-20, 20), teacher=st.floats(-20, 20), target=st.floats(-20, 20), margin=st.floats(0, 50))
def test_teacher_bounded_counts_until_the_teacher_is_beaten_by_the_margin(
    student: float, teacher: float, target: float, margin: float
) -> None:
    value = TeacherBounded(margin=margin)(
        torch.tensor([[student]], dtype=torch.float64),
        torch.tensor([[teacher]], dtype=torch.float64),
        target=torch.tensor([target], dtype=torch.float64),
    )
    error, bound = (student - target) ** 2, (teacher - target) ** 2
    assert value.item() == pytest.approx(error if error + margin > bound else 0.0)


def test_teacher_bounded_averages_over_values_and_all_rows() -> None:
    student = torch.tensor([[1.0, 3.0], [0.0, 0.5]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1.0], [2.0, 2.0]])
    value = TeacherBounded()(student, teacher, target=torch.zeros(2, 2))
    value.backward()
    assert value.item() == pytest.approx((1.0 + 9.0) / 2 / 2)
    assert student.grad.tolist() == [[0.5, 1.5], [0.0, 0.0]]


def test_teacher_bounded_does_not_broadcast_a_flat_target() -> None:
    with pytest.raises(ValueError, match="target"):
        TeacherBounded()(torch.zeros(3, 2), torch.zeros(3, 2), target=torch.zeros(3))
    assert TeacherBounded()(torch.ones(3, 1), torch.full((3, 1), 9.0), target=torch.zeros(3)).item() == 0.0


def test_gaussian_kl_is_zero_only_with_equal_variance() -> None:
    student = torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    wider = torch.tensor([[1.0, 2.0, 1.0, 0.0]])
    assert GaussianKL()(student, student).item() == 0.0
    assert GaussianKL()(student, wider).item() == pytest.approx(0.5 * (math.e - 1 - 1) / 2)


def test_gaussian_kl_clamps_log_variances() -> None:
    student, teacher = torch.tensor([[0.0, -500.0]]), torch.tensor([[1.0, 500.0]])
    value = GaussianKL(min_log_variance=-2.0, max_log_variance=3.0)(student, teacher)
    assert value.item() == pytest.approx(gaussian(np.array([[0.0, -2.0]]), np.array([[1.0, 3.0]])), rel=1e-6)


def test_gaussian_kl_refuses_an_odd_width() -> None:
    with pytest.raises(ValueError, match="log-variances"):
        GaussianKL()(torch.zeros(2, 3), torch.zeros(2, 3))


def test_tokens_that_are_ignored_do_not_count() -> None:
    student, teacher = pair((2, 4, 5))
    target = torch.tensor([[1, 2, -100, -100], [3, -100, -100, -100]])
    value = TokenKL()(student, teacher, target=target)
    p, q = softmax(teacher.numpy(), axis=-1), softmax(student.detach().numpy(), axis=-1)
    expected = (kl(p[0, 0], q[0, 0]) + kl(p[0, 1], q[0, 1]) + kl(p[1, 0], q[1, 0])) / 3
    value.backward()
    assert value.item() == pytest.approx(expected)
    assert torch.count_nonzero(student.grad[target == -100]) == 0
    masked = TokenKL()(student, teacher, target=target, mask=torch.tensor([True, False]))
    assert masked.item() == pytest.approx((kl(p[0, 0], q[0, 0]) + kl(p[0, 1], q[0, 1])) / 2)


def test_jsd_is_forward_kl_at_beta_0_and_reverse_kl_at_beta_1() -> None:
    student, teacher = pair((2, 3, 5))
    values = [TokenKL(direction="jsd", beta=beta)(student, teacher).item() for beta in (0.0, 1.0)]
    named = [TokenKL(direction=name)(student, teacher).item() for name in ("forward", "reverse")]
    assert values == named
    assert values[0] != pytest.approx(values[1])


def test_jsd_divided_by_beta_tends_to_forward_kl() -> None:
    student, teacher = pair((2, 3, 5))
    tiny = TokenKL(direction="jsd", beta=1e-6)(student, teacher).item() / 1e-6
    assert tiny == pytest.approx(TokenKL()(student, teacher).item(), rel=1e-4)


def test_token_kl_has_no_t_squared() -> None:
    student, teacher = pair((2, 3, 5))
    value = TokenKL(temperature=2.0)(student, teacher).item()
    assert value == pytest.approx(TokenKL()(student / 2, teacher / 2).item())


def test_a_scheduled_temperature_takes_effect_when_it_is_assigned() -> None:
    objective = SoftTargets(temperature=8.0)
    objective.temperature = 2.0
    assert objective(STUDENT, TEACHER).item() == SoftTargets(temperature=2.0)(STUDENT, TEACHER).item()
    objective.temperature = 0.0
    with pytest.raises(ValueError, match="temperature must be above 0"):
        objective(STUDENT, TEACHER)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftTargets(temperature=0.0),
        lambda: BernoulliKL(temperature=-1.0),
        lambda: PixelKL(temperature=math.nan),
        lambda: ChannelKL(temperature=math.inf),
        lambda: TeacherBounded(margin=-0.1),
        lambda: GaussianKL(min_log_variance=1.0, max_log_variance=1.0),
        lambda: TokenKL(beta=1.5),
        lambda: TokenKL(direction="sideways"),  # type: ignore[arg-type]
        lambda: DKD(alpha=-1.0),
        lambda: DIST(gamma=math.nan),
    ],
)
def test_options_out_of_range_are_refused_when_made(make: object) -> None:
    with pytest.raises(ValueError, match="must"):
        make()  # type: ignore[operator]


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        SoftTargets()(STUDENT, TEACHER, mask=torch.ones(3))
    with pytest.raises(ValueError, match="mask"):
        TokenKL()(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), target=torch.zeros(2, 3).long(), mask=torch.ones(3))


def test_weights_as_a_mask_weigh_rows() -> None:
    rows = [SoftTargets()(STUDENT[i : i + 1], TEACHER[i : i + 1]).item() for i in range(2)]
    value = SoftTargets()(STUDENT, TEACHER, mask=torch.tensor([3.0, 1.0]))
    assert value.item() == pytest.approx((3 * rows[0] + rows[1]) / 4)


def test_log_softmax_keeps_what_log_of_softmax_loses() -> None:
    """The formula through ``log(softmax)`` is not finite at this gap; the loss equals the gap itself."""
    student, teacher = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert torch.isinf(torch.log(torch.softmax(student, 1))).any()
    assert SoftTargets(temperature=1.0)(student, teacher).item() == pytest.approx(1e4)
