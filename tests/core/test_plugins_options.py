"""Options derived from signatures: what is accepted, what is refused, and how it is described."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import OptionError, PluginError
from stillhouse.plugins import Component, PluginRecord, Status, options
from stillhouse.plugins.specs import DatasetSpec

if TYPE_CHECKING:
    from stillhouse.types import DataContext

Mode = Literal["fast", "exact"]


def target(
    context: DataContext,
    /,
    *,
    path: Path | None = None,
    size: int = 8,
    rate: Annotated[float, pydantic.Field(gt=0, le=1)] = 0.5,
    mode: Mode = "fast",
    widths: tuple[int, ...] = (16, 8),
    copy: bool = False,
) -> None:
    """Rows.

    Args:
        context: from the framework.
        path: file of the user,
            relative to the recipe.
        size: how many rows.
        rate: share that is kept.
        mode: how to count.
        widths: of the layers.
        copy: whether to copy.

    Returns:
        Nothing.
    """


class Base:
    """A base.

    Args:
        depth: how deep.
    """

    def __init__(self, *, depth: int = 2) -> None:
        self.depth = depth


class Inheriting(Base):
    """Takes the options of its base."""


class Documented:
    def __init__(self, *, width: int = 4) -> None:
        """Make it.

        Args:
            width: how wide.
        """


class PlainOptions(Documented):
    def __init__(self, given: int, *, needed: str) -> None:
        """Make it.

        Args:
            given: from the framework.
            needed: no default.
        """


def component(of: Any) -> Component:
    """A component whose target is ``of``."""
    spec = DatasetSpec(name="rows", target="somewhere:rows", summary="Rows")
    plugin = PluginRecord(name="law", distribution="stillhouse-law", version="1", location="", status=Status.ACTIVE)
    made = Component(id="law/rows", kind="dataset", spec=spec, plugin=plugin)
    object.__setattr__(spec, "load", lambda: of)
    return made


def test_defaults_are_filled_in() -> None:
    assert options.validate_options(component(target), {"size": 3}) == {
        "path": None,
        "size": 3,
        "rate": 0.5,
        "mode": "fast",
        "widths": (16, 8),
        "copy": False,
    }


def test_values_are_converted_to_their_types() -> None:
    values = options.validate_options(component(target), {"path": "a/b.csv", "widths": [4, 2], "rate": 1})
    assert values["path"] == Path("a/b.csv")
    assert values["widths"] == (4, 2)
    assert isinstance(values["rate"], float)


@given(
    size=st.integers(-(2**53), 2**53),
    rate=st.floats(min_value=0, max_value=1, exclude_min=True),
    mode=st.sampled_from(["fast", "exact"]),
    widths=st.lists(st.integers(0, 10_000)),
)
def test_valid_values_come_back_unchanged(size: int, rate: float, mode: str, widths: list[int]) -> None:
    given_options = {"size": size, "rate": rate, "mode": mode, "widths": widths}
    values = options.validate_options(component(target), given_options)
    assert {name: values[name] for name in given_options} == given_options | {"widths": tuple(widths)}


@given(name=st.text().filter(lambda text: text not in ("path", "size", "rate", "mode", "widths", "copy")))
def test_every_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(OptionError) as caught:
        options.validate_options(component(target), {name: 1})
    assert caught.value.what.startswith("dataset 'law/rows' has no option")


@pytest.mark.parametrize(
    ("values", "what", "where", "fix"),
    [
        ({"sise": 3}, "no option 'sise'", "rul.yaml, dataset, sise", "did you mean 'size'?"),
        (
            {"size": "many"},
            "'size' of dataset 'law/rows' does not take 'many'",
            "size",
            "expected int, e.g. the default 8",
        ),
        ({"mode": "slow"}, "does not take 'slow'", "mode", "'fast' | 'exact'"),
        ({"rate": 2.0}, "less than or equal to 1", "rate", "float (gt=0, le=1)"),
        ({"widths": [1, "x"]}, "does not take 'x'", "widths.1", "tuple[int, ...]"),
        ({"size": 1.5, "mode": 2}, "(and 1 more)", "size", "int"),
    ],
)
def test_refused_values_say_where_and_what_is_expected(values: dict[str, Any], what: str, where: str, fix: str) -> None:
    with pytest.raises(OptionError) as caught:
        options.validate_options(component(target), values, where="rul.yaml, dataset")
    assert what in caught.value.what
    assert where in caught.value.where
    assert fix in caught.value.fix


def test_required_option_is_asked_for() -> None:
    with pytest.raises(OptionError, match="needs the option 'needed'") as caught:
        options.validate_options(component(PlainOptions), {})
    assert caught.value.fix == "give 'needed' (str)"
    assert options.validate_options(component(PlainOptions), {"needed": "x"}) == {"needed": "x"}


def test_target_without_options_says_so() -> None:
    with pytest.raises(OptionError) as caught:
        options.validate_options(component(lambda context: None), {"size": 1})
    assert caught.value.fix == "it takes no options"


def test_description_has_types_defaults_and_help() -> None:
    rows = options.describe_options(component(target))
    assert [(row["name"], row["type"], row["default"]) for row in rows] == [
        ("path", "path | None", None),
        ("size", "int", 8),
        ("rate", "float (gt=0, le=1)", 0.5),
        ("mode", "'fast' | 'exact'", "fast"),
        ("widths", "tuple[int, ...]", [16, 8]),
        ("copy", "bool", False),
    ]
    assert rows[0]["help"] == "file of the user, relative to the recipe."
    assert not any(row["required"] for row in rows)


def test_required_option_is_described_as_such() -> None:
    (row,) = options.describe_options(component(PlainOptions))
    assert (row["required"], row["default"], row["help"]) == (True, None, "no default.")


@pytest.mark.parametrize(
    ("of", "name", "text"), [(Inheriting, "depth", "how deep."), (Documented, "width", "how wide.")]
)
def test_classes_have_the_options_and_help_of_init_and_bases(of: type, name: str, text: str) -> None:
    (option,) = options.options_of(of)
    assert (option.name, option.annotation, option.help) == (name, int, text)


def test_wrapped_functions_keep_their_options() -> None:
    @functools.wraps(target)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        return target(*args, **kwargs)

    assert [each.name for each in options.options_of(wrapper)] == [each.name for each in options.options_of(target)]


def test_schema_refuses_extra_properties() -> None:
    schema = options.options_schema(component(target))
    assert schema["additionalProperties"] is False
    assert schema["properties"]["mode"]["enum"] == ["fast", "exact"]


def _unresolved(*, width: NoSuchType = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Names a type that does not exist."""


def _unwritable(*, module: SimpleNamespace = SimpleNamespace()) -> None:  # noqa: B008
    """Takes what no recipe can say."""


@pytest.mark.parametrize(
    ("of", "what"),
    [(_unresolved, "NoSuchType"), (_unwritable, "cannot be written in a recipe"), (dict, "not known")],
)
def test_targets_whose_options_cannot_be_derived_are_named(of: Any, what: str) -> None:
    with pytest.raises(PluginError, match=what) as caught:
        options.describe_options(component(of))
    assert caught.value.where == "dataset 'law/rows' of plugin 'law' (stillhouse-law 1)"
    assert caught.value.fix


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (int | None, "int | None"),
        (list[str], "list[str]"),
        (dict[str, int | float], "dict[str, int | float]"),
        (Annotated[int, pydantic.Field(ge=1)], "int"),
        (Any, "any"),
        (Path, "path"),
        (Literal[1, "a", None], "1 | 'a' | None"),
    ],
)
def test_type_names_read_well(annotation: Any, text: str) -> None:
    assert options.type_name(annotation) == text
