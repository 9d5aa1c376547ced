"""Adapters chosen from two shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stillhouse.objectives import Hints, make_adapter


@pytest.mark.parametrize(
    ("student", "teacher", "layout"),
    [
        ((8,), (12,), "tokens"),
        ((5, 8), (5, 12), "tokens"),
        ((5, 8), (9, 12), "tokens"),
        ((9, 8), (5, 8), "tokens"),
        ((8, 5), (12, 9), "channels"),
        ((8, 4, 4), (12, 4, 4), "tokens"),
        ((8, 4, 6), (12, 8, 3), "tokens"),
        ((8, 7, 7), (8, 3, 5), "tokens"),
        ((4, 3, 4, 2), (6, 2, 8, 2), "tokens"),
        ((16, 8), (12, 4, 4), "tokens"),
        ((17, 8), (12, 4, 4), "tokens"),
        ((17, 8), (12, 7, 7), "tokens"),
        ((12, 8), (6, 3, 4), "tokens"),
        ((12, 4, 4), (16, 8), "tokens"),
        ((12, 7, 7), (17, 8), "tokens"),
        ((12, 4, 3), (12, 8), "tokens"),
        ((12, 4, 4), (7,), "tokens"),
        ((5, 8), (7,), "tokens"),
        ((8, 5), (7,), "channels"),
        ((8, 5, 2, 2), (8,), "tokens"),
    ],
)
def test_gives_the_teachers_shape_and_trains(student: tuple[int, ...], teacher: tuple[int, ...], layout: str) -> None:
    adapter = make_adapter(student, teacher, layout=layout)
    features = torch.rand(3, *student, requires_grad=True)
    adapted = adapter(features)
    assert adapted.shape == (3, *teacher)
    Hints()(adapted, torch.rand(3, *teacher)).backward()
    assert torch.count_nonzero(features.grad) > 0
    assert all(torch.count_nonzero(parameter.grad) > 0 for parameter in adapter.parameters())
    assert adapter(features[:1]).shape == (1, *teacher)


@pytest.mark.parametrize("shape", [(8,), (5, 8), (3, 4, 4), (1, 2, 3, 4)])
def test_equal_shapes_need_no_adapter(shape: tuple[int, ...]) -> None:
    adapter = make_adapter(shape, shape)
    features = torch.rand(2, *shape)
    assert isinstance(adapter, nn.Identity)
    assert torch.equal(adapter(features), features)


@pytest.mark.parametrize("shape", [((5, 8), (9, 8)), ((3, 8, 8), (3, 4, 4)), ((3, 4, 4), (3,))])
def test_equal_widths_need_no_parameters(shape: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    adapter = make_adapter(*shape)
    assert list(adapter.parameters()) == []
    assert adapter(torch.ones(2, *shape[0])).tolist() == torch.ones(2, *shape[1]).tolist()


def test_a_map_is_averaged_where_it_shrinks_and_interpolated_where_it_grows() -> None:
    features = torch.arange(8.0).view(1, 1, 4, 2)
    adapted = make_adapter((1, 4, 2), (1, 2, 3))(features)
    rows = torch.tensor([[(0 + 2) / 2, (1 + 3) / 2], [(4 + 6) / 2, (5 + 7) / 2]])
    middle = rows.mean(1, keepdim=True)
    assert torch.allclose(adapted[0, 0], torch.cat((rows[:, :1], middle, rows[:, 1:]), 1))


def test_convolution_is_1x1() -> None:
    adapter = make_adapter((2, 3, 3), (4, 3, 3))
    features = torch.rand(1, 2, 3, 3)
    moved = torch.roll(features, 1, dims=3)
    assert torch.allclose(torch.roll(adapter(features), 1, dims=3), adapter(moved), atol=1e-6)


def test_tokens_become_a_map_in_reading_order_without_the_class_token() -> None:
    tokens = torch.arange(5.0).view(1, 5, 1)
    assert make_adapter((5, 1), (1, 2, 2))(tokens).tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]
    assert make_adapter((4, 1), (1, 2, 2))(tokens[:, 1:]).tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]


def test_a_map_becomes_tokens_and_the_class_token_is_their_mean() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert make_adapter((1, 2, 2), (4, 1))(features).flatten().tolist() == [1.0, 2.0, 3.0, 4.0]
    assert make_adapter((1, 2, 2), (5, 1))(features).flatten().tolist() == [2.5, 1.0, 2.0, 3.0, 4.0]


def test_two_dimensions_mean_what_the_layout_says() -> None:
    features = torch.rand(2, 6, 4)
    tokens, channels = make_adapter((6, 4), (6, 3)), make_adapter((6, 4), (5, 4), layout="channels")
    assert isinstance(tokens.project, nn.Linear)
    assert isinstance(channels.project, nn.Conv1d)
    assert tokens(features).shape == (2, 6, 3)
    assert channels(features).shape == (2, 5, 4)


def test_lengths_may_vary_by_batch_when_they_are_equal_in_both_models() -> None:
    adapter = make_adapter((6, 4), (6, 3))
    assert adapter(torch.rand(2, 11, 4)).shape == (2, 11, 3)


@settings(max_examples=60, deadline=None)
@given(
    student=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    teacher=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    layout=st.sampled_from(["tokens", "channels"]),
)
def test_either_fits_exactly_or_names_both_shapes(student: list[int], teacher: list[int], layout: str) -> None:
    adapter = fitted(student, teacher, layout)
    if adapter is None:
        with pytest.raises(ValueError, match="no adapter from") as error:
            make_adapter(student, teacher, layout=layout)
        assert f"{tuple(student)} to {tuple(teacher)}" in str(error.value)
    else:
        assert adapter(torch.rand(2, *student)).shape == (2, *teacher)


def fitted(student: list[int], teacher: list[int], layout: str) -> nn.Module | None:
    try:
        return make_adapter(student, teacher, layout=layout)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("student", "teacher", "layout"),
    [
        ((8,), (5, 8), "tokens"),
        ((8,), (8, 4, 4), "tokens"),
        ((7, 8), (12, 4, 4), "tokens"),
        ((8, 16), (12, 4, 4), "channels"),
        ((8, 4, 4), (8, 2, 4, 4), "tokens"),
        ((), (8,), "tokens"),
        ((0, 8), (4, 8), "tokens"),
    ],
)
def test_shapes_that_do_not_fit_are_named(student: tuple[int, ...], teacher: tuple[int, ...], layout: str) -> None:
    with pytest.raises(ValueError, match="no adapter from") as error:
        make_adapter(student, teacher, layout=layout)
    assert str(student) in str(error.value)
    assert str(teacher) in str(error.value)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="layout must be"):
        make_adapter((3, 4), (3, 5), layout="rows")  # type: ignore[arg-type]
