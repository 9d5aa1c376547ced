"""Objectives between features, against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from stillhouse.objectives import NST, PKT, AttentionTransfer, Hints, Relational, SimilarityPreserving


def attention(s: np.ndarray, t: np.ndarray, power: float = 2.0) -> float:
    total, count = 0.0, 0
    for a, b in zip(s, t, strict=True):
        maps = [(np.abs(x) ** power).mean(0).ravel() for x in (a, b)]
        unit = [m / math.sqrt(sum(v * v for v in m)) for m in maps]
        total += sum((u - v) ** 2 for u, v in zip(*unit, strict=True))
        count += len(unit[0])
    return total / count


def similarity(s: np.ndarray, t: np.ndarray) -> float:
    grams = []
    for x in (s, t):
        rows = x.reshape(len(x), -1)
        gram = np.array([[float(np.dot(a, b)) for b in rows] for a in rows])
        grams.append([row / math.sqrt(sum(v * v for v in row)) for row in gram])
    return sum((u - v) ** 2 for a, b in zip(*grams, strict=True) for u, v in zip(a, b, strict=True)) / len(s) ** 2


def smooth_l1(a: float, b: float) -> float:
    gap = abs(a - b)
    return 0.5 * gap * gap if gap < 1 else gap - 0.5


def distances(x: np.ndarray) -> dict[tuple[int, int], float]:
    pairs = {(i, j): float(np.linalg.norm(x[i] - x[j])) for i in range(len(x)) for j in range(len(x))}
    positive = [value for value in pairs.values() if value > 0]
    return {key: value / (sum(positive) / len(positive)) for key, value in pairs.items()}


def cosine(u: np.ndarray, v: np.ndarray) -> float:
    lengths = float(np.linalg.norm(u) * np.linalg.norm(v))
    return float(np.dot(u, v)) / lengths if lengths else 0.0


def relational(s: np.ndarray, t: np.ndarray, distance_weight: float = 25.0, angle_weight: float = 50.0) -> float:
    s, t = s.reshape(len(s), -1), t.reshape(len(t), -1)
    size = len(s)
    near_s, near_t = distances(s), distances(t)
    far = sum(smooth_l1(near_s[pair], near_t[pair]) for pair in near_s) / size**2
    angles = sum(
        smooth_l1(cosine(s[i] - s[j], s[k] - s[j]), cosine(t[i] - t[j], t[k] - t[j]))
        for i, j, k in itertools.product(range(size), repeat=3)
    )
    return distance_weight * far + angle_weight * angles / size**3


def neighbours(s: np.ndarray, t: np.ndarray) -> float:
    found = []
    for x in (s, t):
        rows = [row / math.sqrt(float(np.dot(row, row))) for row in x.reshape(len(x), -1)]
        near = [[(1 + float(np.dot(a, b))) / 2 + 1e-6 for b in rows] for a in rows]
        found.append([[v / (sum(row) - row[i]) for v in row] for i, row in enumerate(near)])
    q, p = found
    size = len(s)
    return sum(p[i][j] * math.log(p[i][j] / q[i][j]) for i in range(size) for j in range(size) if i != j) / size


def selectivity(s: np.ndarray, t: np.ndarray) -> float:
    total = 0.0
    for a, b in zip(s, t, strict=True):
        one, two = ([m.ravel() / math.sqrt(float((m * m).sum())) for m in x] for x in (a, b))
        kernel = [
            sum(float(np.dot(u, v)) ** 2 for u in x for v in y) / (len(x) * len(y))
            for x, y in ((one, one), (one, two), (two, two))
        ]
        total += kernel[0] - 2 * kernel[1] + kernel[2]
    return total / len(s)


CASES = {
    "hints": (Hints(), (5, 3, 4), (5, 3, 4), lambda s, t: float(np.mean((s - t) ** 2))),
    "attention-map": (AttentionTransfer(), (5, 3, 2, 4), (5, 7, 2, 4), attention),
    "attention-p1": (AttentionTransfer(p=1.0), (5, 3, 2, 4), (5, 7, 2, 4), lambda s, t: attention(s, t, 1.0)),
    "attention-channels": (AttentionTransfer(layout="channels"), (5, 3, 6), (5, 4, 6), attention),
    "attention-tokens": (
        AttentionTransfer(),
        (5, 6, 3),
        (5, 6, 4),
        lambda s, t: attention(s.transpose(0, 2, 1), t.transpose(0, 2, 1)),
    ),
    "similarity": (SimilarityPreserving(), (5, 3, 2), (5, 8), similarity),
    "relational": (Relational(), (5, 3, 2), (5, 8), relational),
    "relational-distance": (
        Relational(angle_weight=0.0),
        (5, 6),
        (5, 8),
        lambda s, t: relational(s, t, angle_weight=0.0),
    ),
    "relational-angle": (
        Relational(distance_weight=0.0),
        (5, 6),
        (5, 8),
        lambda s, t: relational(s, t, distance_weight=0.0),
    ),
    "rela-pkt": (PKT(), (5, 3, 2), (5, 8), neighbours),
    "selectivity-map": (NST(), (5, 3, 2, 4), (5, 7, 2, 4), selectivity),
    "selectivity-tokens": (
        NST(),
        (5, 6, 3),
        (5, 6, 3),
        lambda s, t: selectivity(s.transpose(0, 2, 1), t.transpose(0, 2, 1)),
    ),
}
ALL = pytest.mark.parametrize("name", CASES)
RELATIONS = pytest.mark.parametrize("name", [name for name in CASES if name[:4] in ("simi", "rela")])


def pair(name: str, *, scale: float = 1.0, seed: int = 0, rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn((rows, *shape[1:]), generator=generator, dtype=torch.float64) * scale for shape in CASES[name][1:3]
    )
    return student.requires_grad_(), teacher


@ALL
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_formula(name: str, seed: int) -> None:
    objective, _, _, formula = CASES[name]
    student, teacher = pair(name, seed=seed)
    value = objective(student, teacher)
    assert value.shape == ()
    assert value.item() == pytest.approx(formula(student.detach().numpy(), teacher.numpy()), rel=1e-9)


@ALL
def test_float32_agrees_with_the_formula(name: str) -> None:
    objective, _, _, formula = CASES[name]
    student, teacher = (each.detach().float() for each in pair(name))
    value = objective(student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(formula(student.double().numpy(), teacher.double().numpy()), rel=1e-4)


@ALL
def test_gradient_agrees_with_differences(name: str) -> None:
    student, teacher = pair(name)
    assert torch.autograd.gradcheck(lambda s: CASES[name][0](s, teacher), (student,))


@ALL
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("rows", [1, 5])
def test_gradient_is_exactly_zero_at_a_match(name: str, scale: float, rows: int) -> None:
    student = pair(name, scale=scale, rows=rows)[0].detach().float().requires_grad_()
    value = CASES[name][0](student, student.detach().clone())
    value.backward()
    assert value.item() == 0.0
    assert torch.count_nonzero(student.grad) == 0


@ALL
@pytest.mark.parametrize("scale", [1e-12, 1e4, 1e7])
def test_finite_at_extreme_values(name: str, scale: float) -> None:
    student, teacher = (each.detach().float() for each in pair(name, scale=scale))
    student.requires_grad_()
    value = CASES[name][0](student, -teacher)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@ALL
def test_dead_features_teach_only_where_a_loss_of_them_is_defined(name: str) -> None:
    _, teacher = pair(name)
    student = torch.zeros(CASES[name][1], dtype=torch.float64, requires_grad=True)
    value = CASES[name][0](student, teacher)
    value.backward()
    if name == "hints":
        assert value > 0
        assert torch.isfinite(student.grad).all()
    else:  # there is no direction, no map, and no mean distance
        assert value.item() == 0.0
        assert torch.count_nonzero(student.grad) == 0


@ALL
def test_half_precision_and_autocast_compute_in_float32(name: str) -> None:
    student, teacher = (each.detach().to(torch.bfloat16) for each in pair(name, scale=20.0))
    exact = CASES[name][0](student.float(), teacher.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = CASES[name][0](student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, exact)


@ALL
def test_teacher_gets_no_gradient(name: str) -> None:
    student, teacher = pair(name)
    teacher.requires_grad_()
    CASES[name][0](student, teacher).backward()
    assert teacher.grad is None
    assert torch.count_nonzero(student.grad) > 0


@ALL
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100.0))
def test_never_negative_and_the_order_of_rows_is_free(name: str, seed: int, scale: float) -> None:
    student, teacher = pair(name, seed=seed, scale=scale)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    value = CASES[name][0](student, teacher).item()
    assert value >= 0
    assert CASES[name][0](student[order], teacher[order]).item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in CASES if name != "hints"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_the_scale_of_a_feature_does_not_matter(name: str, seed: int, scale: float) -> None:
    student, teacher = pair(name, seed=seed)
    value = CASES[name][0](student, teacher).item()
    assert CASES[name][0](student * scale, teacher).item() == pytest.approx(value, rel=1e-8)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), offset=st.floats(-10, 10))
def test_relations_ignore_translation_and_rotation(seed: int, offset: float) -> None:
    student, teacher = pair("relational-angle", seed=seed)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)).double())
    value = Relational()(student, teacher).item()
    assert Relational()(student @ rotation + offset, teacher).item() == pytest.approx(value, rel=1e-7)


@RELATIONS
def test_a_batch_of_one_has_no_relations(name: str) -> None:
    student, teacher = pair(name, rows=1)
    value = CASES[name][0](student, teacher)
    value.backward()
    assert value.item() == 0.0
    assert torch.count_nonzero(student.grad) == 0


@pytest.mark.parametrize("name", [name for name in CASES if name[:4] in ("hint", "atte", "sele")])
def test_a_batch_of_one_equals_the_formula(name: str) -> None:
    student, teacher = pair(name, rows=1)
    expected = CASES[name][3](student.detach().numpy(), teacher.numpy())
    assert CASES[name][0](student, teacher).item() == pytest.approx(expected)


@ALL
def test_no_value_is_read_from_the_device(name: str) -> None:
    """Fake tensors have no values: whatever waits for the device (`.item()`, a branch on a value) raises."""
    with FakeTensorMode():
        student = torch.rand(CASES[name][1], requires_grad=True)
        value = CASES[name][0](student, torch.rand(CASES[name][2]))
        value.backward()
    assert value.shape == ()
    assert student.grad.shape == CASES[name][1]


A = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0], [3.0, 1.0, 0.5]])
B = torch.tensor([[0.5, 1.0], [1.0, -1.0], [2.0, 0.0]])


@pytest.mark.parametrize(
    ("objective", "student", "teacher", "value"),
    [
        (Hints(), A[:, :2], B, 1.375),
        (AttentionTransfer(), A.view(1, 3, 3), B.view(1, 3, 2), 0.0311903092),
        (SimilarityPreserving(), A, B, 0.0803012994),
        (Relational(), A, B, 0.670087023),
        (PKT(), A, B, 0.0276899096),
        (NST(), A.view(1, 3, 3), B.view(1, 3, 2), 0.0506048203),
    ],
    ids=["hints", "attention", "similarity", "relational", "pkt", "nst"],
)
def test_frozen_values(objective: nn.Module, student: torch.Tensor, teacher: torch.Tensor, value: float) -> None:
    assert objective(student, teacher).item() == pytest.approx(value, rel=1e-5)


def test_similarity_rows_are_normalised_by_l2_not_l1() -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    gram_rows = torch.tensor([[1.0, 1.0], [1.0, 2.0]])
    with_l2 = gram_rows / torch.tensor([[math.sqrt(2)], [math.sqrt(5)]])
    with_l1 = gram_rows / torch.tensor([[2.0], [3.0]])
    value = SimilarityPreserving()(student, teacher).item()
    assert value == pytest.approx(((with_l2 - torch.eye(2)) ** 2).sum().item() / 4)
    assert value != pytest.approx(((with_l1 - torch.eye(2)) ** 2).sum().item() / 4, rel=0.01)


def test_attention_maps_of_other_sizes_are_averaged_down_to_the_coarser() -> None:
    student, teacher = torch.rand(2, 3, 4, 2), torch.rand(2, 5, 2, 6)
    a = (student**2).mean(1).view(2, 2, 2, 2).mean(2)
    b = (teacher**2).mean(1).view(2, 2, 2, 3).mean(3)
    expected = [x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True) for x in (a, b)]
    value = AttentionTransfer()(student, teacher)
    assert value.item() == pytest.approx(((expected[0] - expected[1]) ** 2).mean().item(), rel=1e-5)


def test_attention_of_tokens_and_of_channels_differ_by_the_layout_only() -> None:
    student, teacher = torch.rand(2, 6, 3), torch.rand(2, 6, 5)
    tokens = AttentionTransfer()(student, teacher)
    channels = AttentionTransfer(layout="channels")(student.transpose(1, 2), teacher.transpose(1, 2))
    assert tokens.item() == channels.item()
    assert AttentionTransfer()(student, student * 2).item() == pytest.approx(0.0, abs=1e-12)


def test_hints_leave_padded_tokens_out() -> None:
    student, teacher = torch.rand(2, 3, 4), torch.rand(2, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    expected = ((student - teacher) ** 2)[mask.bool()].mean()
    assert Hints()(student, teacher, mask=mask).item() == pytest.approx(expected.item())


def test_rows_without_direction_are_no_neighbours_and_opposite_ones_do_no_harm() -> None:
    student, teacher = torch.randn(6, 4), torch.randn(6, 3)
    student[2] = 0.0
    student.requires_grad_()
    value = PKT()(student, teacher)
    value.backward()
    rows = torch.tensor([0, 1, 3, 4, 5])
    assert value.item() == pytest.approx(PKT()(student[rows], teacher[rows]).item() * 5 / 6, rel=1e-5)
    assert torch.count_nonzero(student.grad[2]) == 0
    line = torch.tensor([[1.0], [-1.0], [2.0], [-3.0]], requires_grad=True)  # every cosine is 1 or -1
    value = PKT()(line, torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(line.grad).all()


def test_a_dead_channel_is_like_no_other() -> None:
    student, teacher = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    student[:, 1] = 0.0
    student.requires_grad_()
    value = NST()(student, teacher)
    value.backward()
    assert torch.count_nonzero(student.grad[:, 1]) == 0
    maps = [x.flatten(2) / x.flatten(2).norm(dim=2, keepdim=True).clamp(min=1e-9) for x in (student, teacher)]
    pairs = ((0, 0, 1), (0, 1, -2), (1, 1, 1))
    expected = sum(sign * (maps[i] @ maps[j].transpose(1, 2)).square().mean() for i, j, sign in pairs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_relations_of_equal_rows_are_finite() -> None:
    student = torch.ones(4, 3, requires_grad=True)
    value = Relational()(student, torch.rand(4, 3))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


def test_one_layer_serves_two_losses() -> None:
    layer, x = nn.Linear(4, 3), torch.rand(5, 4)
    teacher = torch.rand(5, 3)
    feature = layer(x)
    (Hints()(feature, teacher) + SimilarityPreserving()(feature, teacher)).backward()
    together = layer.weight.grad.clone()
    layer.zero_grad()
    for objective in (Hints(), SimilarityPreserving()):
        objective(layer(x), teacher).backward()
    assert torch.allclose(together, layer.weight.grad)


@pytest.mark.parametrize(
    ("objective", "student", "teacher"),
    [
        (Hints(), (4, 3), (4, 1)),
        (AttentionTransfer(), (4, 3), (4, 3)),
        (AttentionTransfer(), (4, 3, 2), (4, 3, 2, 2)),
        (AttentionTransfer(), (4, 3, 2), (1, 3, 2)),
        (SimilarityPreserving(), (4, 3), (5, 3)),
        (Relational(), (4,), (4, 3)),
        (PKT(), (4,), (4, 3)),
        (NST(), (4, 3), (4, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    objective: nn.Module, student: tuple[int, ...], teacher: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is checked below
        objective(torch.zeros(student), torch.zeros(teacher))
    assert str(student) in str(error.value)
    assert str(teacher) in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AttentionTransfer(p=0.0),
        lambda: AttentionTransfer(layout="rows"),  # type: ignore[arg-type]
        lambda: Relational(distance_weight=-1.0),
        lambda: Relational(angle_weight=math.inf),
        lambda: NST(layout="rows"),  # type: ignore[arg-type]
    ],
)
def test_options_out_of_range_are_refused_when_made(make: object) -> None:
    with pytest.raises(ValueError, match="must"):
        make()  # type: ignore[operator]
