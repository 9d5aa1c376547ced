"""Recipes: what is read, what is refused, and what the error says."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import (
    IncompatibleError,
    OptionError,
    PluginError,
    RecipeError,
    RunFolderError,
    StillhouseError,
    UnknownComponentError,
)
from stillhouse.pipeline.folder import resolved_yaml
from stillhouse.plugins.manager import Manager
from stillhouse.recipe import Recipe, TrainConfig, recipe_schema, resolve
from stillhouse.recipe.read import apply_overrides, read_recipe
from stillhouse.recipe.text import MOST_VALUES, parse_yaml, to_yaml

GOOD = """\
head: core/multiclass
dataset: core/synthetic
teacher: {use: core/mlp, hidden: [32]}
student: {use: core/mlp, hidden: [4]}
objectives:
  alpha: 0.3
  soft:
    - {use: soft, temperature: 4}
train:
  student:
    lr: 1e-2
seeds: [0, 1]
"""


@pytest.fixture(scope="module")
def registry() -> Any:
    return Manager.from_environment(no_plugins=True).registry


def failure(text: str, registry: Any, tmp_path: Path) -> StillhouseError:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(StillhouseError) as caught:
        resolve(path, registry)
    return caught.value


def test_a_good_recipe_is_resolved_with_defaults(registry: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    resolved = resolve(path, registry)
    assert resolved.recipe.name == "mine"
    assert resolved.recipe.train.student.lr == pytest.approx(0.01)
    assert resolved.student.options["hidden"] in ((4,), [4])
    assert resolved.terms[0].bound.id == "core/soft-targets"
    assert resolved.terms[0].bound.options["temperature"] == 4
    assert resolved.base == tmp_path.resolve()


def test_a_recipe_yaml_is_called_like_its_folder(registry: Any, tmp_path: Path) -> None:
    path = tmp_path / "pumps" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text(GOOD)
    assert resolve(path, registry).recipe.name == "pumps"


@pytest.mark.parametrize(
    ("change", "kind", "what", "where", "fix"),
    [
        (
            ("    lr: 1e-2", "    lrr: 1e-2"),
            RecipeError,
            "unknown field 'lrr'",
            "mine.yaml, line 11, field 'train.student.lrr'",
            "'lr'",
        ),
        (("    lr: 1e-2", "    lr: fast"), RecipeError, "'fast'", "line 11, field 'train.student.lr'", ""),
        (("    lr: 1e-2", "    optimizer: adamm"), RecipeError, "'adamm'", "line 11", "'adamw'"),
        (("head: core/multiclass\n", ""), RecipeError, "'head' is missing", "field 'head'", "init"),
        (
            ("core/multiclass", "core/multiclas"),
            UnknownComponentError,
            "core/multiclas",
            "line 1",
            "core/multiclass",
        ),
        (("hidden: [4]", "hiden: [4]"), OptionError, "'hiden'", "line 4", "'hidden'"),
        (("hidden: [4]", "hidden: wide"), OptionError, "hidden", "line 4", ""),
        (("alpha: 0.3", "alpha: 1.3"), RecipeError, "alpha must lie in [0, 1]", "line 6", ""),
        (
            ("alpha: 0.3", "alpha: {schedule: linaer, start: 0, end: 1}"),
            RecipeError,
            "linaer",
            "line 6",
            "schedule",
        ),
        (
            ("{use: soft, temperature: 4}", "{use: soft, temperature: 0}"),
            OptionError,
            "temperature must be above 0",
            "line 8",
            "schedule",
        ),
        (
            ("{use: soft, temperature: 4}", "{use: soft, temperature: {schedule: linear, start: 4, end: -1}}"),
            OptionError,
            "temperature must be above 0, not -1",
            "line 8",
            "schedule",
        ),
        (
            ("{use: soft, temperature: 4}", "{use: soft, weight: {schedule: linear, start: 1, end: -1}}"),
            RecipeError,
            "weight must be at least 0 throughout the run",
            "line 8",
            "",
        ),
        (("seeds: [0, 1]", "seeds: [0, 0]"), RecipeError, "seeds must differ", "line 12", ""),
        (("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [2]"), RecipeError, "'seeds' is given twice", "line 13", ""),
        (
            ("{use: soft, temperature: 4}", "{use: core/hints}"),
            IncompatibleError,
            "no taps are named",
            "line 8",
            "student: <path>",
        ),
        (
            ("{use: soft, temperature: 4}", "{use: core/teacher-mse}"),
            IncompatibleError,
            "does not suit multiclass",
            "line 8",
            "core/soft-targets",
        ),
        (
            ("{use: soft, temperature: 4}", "{use: core/hints, student: a}"),
            RecipeError,
            "neither",
            "line 8",
            "",
        ),
        (("{use: core/mlp, hidden: [32]}", "{hidden: [32]}"), RecipeError, "either 'use'", "line 3", ""),
        (("teacher: {", "teacher: {out_of_fold: 1, "), RecipeError, "at least 2 folds", "line 3", ""),
        (
            ("head: core/multiclass", "head: [core/multiclass"),
            RecipeError,
            "not valid YAML",
            "line",
            "brackets",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_place_and_remedy(
    change: tuple[str, str], kind: type, what: str, where: str, fix: str, registry: Any, tmp_path: Path
) -> None:
    assert change[0] in GOOD
    error = failure(GOOD.replace(*change), registry, tmp_path)
    assert isinstance(error, kind), error
    assert what in error.what
    assert where in error.where
    assert fix in error.fix


@pytest.mark.parametrize("objective", ["core/dkd", "core/dist", "core/soft-targets"])
def test_softmax_objectives_are_refused_for_two_classes_and_for_values(objective: str, registry: Any) -> None:
    for head in ("core/binary", "core/regression"):
        values = {
            "head": head,
            "dataset": {"use": "core/synthetic", "kind": head.removeprefix("core/")},
            "teacher": "core/mlp",
            "student": "core/mlp",
            "objectives": {"soft": [objective]},
        }
        with pytest.raises(IncompatibleError, match="does not suit") as caught:
            resolve(values, registry)
        assert "soft" in caught.value.fix
        assert caught.value.what.partition(": ")[2], "the reason is said"


def test_ensembles_and_folds_cannot_be_tapped(registry: Any) -> None:
    tapped = {"soft": [{"use": "core/hints", "student": "a", "teacher": "b"}]}
    base = {
        "head": "core/multiclass",
        "dataset": "core/synthetic",
        "student": "core/mlp",
        "objectives": tapped,
    }
    for teacher in ({"members": ["core/mlp", "core/mlp"]}, {"use": "core/mlp", "out_of_fold": 3}):
        with pytest.raises(IncompatibleError, match="cannot be tapped"):
            resolve({**base, "teacher": teacher}, registry)


def test_overrides_reach_nested_fields_lists_and_shorthands() -> None:
    values = yaml.safe_load(GOOD)
    apply_overrides(
        values,
        [
            "dataset.rows=50",
            "objectives.soft.0.temperature=2",
            "train.teacher.lr=1e-4",
            "seeds=[7]",
            "student.hidden=[8, 8]",
        ],
    )
    assert values["dataset"] == {"use": "core/synthetic", "rows": 50}
    assert values["objectives"]["soft"][0]["temperature"] == 2
    assert values["train"]["teacher"]["lr"] == pytest.approx(1e-4)
    assert values["seeds"] == [7]
    assert values["student"]["hidden"] == [8, 8]


@pytest.mark.parametrize(
    "override", ["seeds", "=3", "seeds.x.y=1", "objectives.soft.9.weight=1", "a=[", "objectives.alpha.x=1"]
)
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        apply_overrides(yaml.safe_load(GOOD), [override])
    assert override in caught.value.where


@pytest.mark.parametrize(
    ("field", "value", "what", "fix"),
    [
        ("train.student.epochs", "0", "'epochs' is 0", "write a whole number of at least 1, or auto"),
        ("train.student.epochs", "many", "'epochs' is 'many'", "write a whole number of at least 1, or auto"),
        ("train.student.lr", "-1", "'lr' is -1", "a number above 0"),
        ("seeds", "3", "'seeds' is 3", "write a list, e.g. [0, 1]"),
        ("seeds", "[99999999999]", "'seeds.0' is 99999999999", "a number below 4294967296"),
        ("train.student.balance", "[1]", "'balance' is a list", "write true or false"),
    ],
)
def test_value_of_the_wrong_type_or_size_says_what_is_wanted(
    registry: Any, field: str, value: str, what: str, fix: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve("core/quickstart", registry, overrides=[f"{field}={value}"])
    assert (caught.value.what, caught.value.fix) == (what, fix)


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("train.student.epochs=many", "--set train.student.epochs, field 'train.student.epochs'"),
        ("student.hidden=wide", "--set student.hidden, field 'student.hidden'"),
        (
            "objectives.soft=[{use: soft, temperature: cold}]",
            "--set objectives.soft, field 'objectives.soft.0.temperature'",
        ),
    ],
)
def test_what_an_override_sets_is_told_by_the_override_and_not_by_a_line_of_the_recipe(
    registry: Any, tmp_path: Path, override: str, place: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    with pytest.raises(StillhouseError) as caught:
        resolve(path, registry, overrides=[override])
    assert caught.value.where == place
    with pytest.raises(StillhouseError) as caught:
        resolve(path, registry, overrides=["seeds=[0]", "student.hidden=[8]", "train.teacher.epochs=-1"])
    assert caught.value.where.startswith("--set train.teacher.epochs")


def test_a_file_that_is_no_recipe_and_one_that_is_misspelt(
    registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(RecipeError, match=r"there is no file 'mien\.yaml'") as caught:
        resolve("mien.yaml", registry)
    assert "did you mean 'mine.yaml'?" in caught.value.fix
    with pytest.raises(RecipeError, match="not a YAML file by its name"):
        resolve("mine.txt", registry)


def test_a_missing_file_and_an_unknown_recipe_are_told_apart(registry: Any) -> None:
    with pytest.raises(RecipeError, match="there is no file"):
        resolve("absent.yaml", registry)
    with pytest.raises(UnknownComponentError, match="quickstrat") as caught:
        resolve("core/quickstrat", registry)
    assert "core/quickstart" in caught.value.fix


def test_the_resolved_recipe_reads_back_as_the_same_run(registry: Any, tmp_path: Path) -> None:
    members = {"members": [{"use": "core/mlp", "hidden": [8], "weight": 2}, "core/random-forest"]}
    for teacher in (members, {"use": "core/mlp", "out_of_fold": 3, "seed": 4}):
        values = {**yaml.safe_load(GOOD), "teacher": teacher, "controls": ["core/linear"], "name": "same"}
        first = resolve(values, registry)
        path = tmp_path / "recipe.yaml"
        path.write_text(resolved_yaml(first))
        second = resolve(path, registry)
        assert resolved_yaml(second) == resolved_yaml(first)
        assert second.student == first.student
        assert second.teachers == first.teachers
        assert second.recipe.train == first.recipe.train


def test_the_schema_accepts_good_recipes_and_refuses_wrong_options(registry: Any) -> None:
    schema = recipe_schema(registry)
    jsonschema.Draft202012Validator.check_schema(schema)
    values = {**yaml.safe_load(GOOD)}
    values["train"]["student"]["lr"] = 0.01
    for method in (
        "core/offline",
        {"use": "core/offline"},
        "my_domain:Method",
        {"use": "my_domain:Method", "steps": 2},
    ):
        jsonschema.validate({**values, "method": method}, schema)
    for path, wrong in (
        ("student", {"use": "core/mlp", "hiden": [4]}),
        ("head", "core/nothing"),
        ("head", "my_domain:Head"),  # heads need a spec
        ("method", "core/nothing"),
        ("method", {"use": "core/offline", "epochs": 2}),
        ("objectives", {"alpha": 0.5, "soft": [{"use": "core/soft-targets", "temprature": 1}]}),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**values, path: wrong}, schema)


def test_every_field_has_a_description() -> None:
    schema = Recipe.model_json_schema()
    for owner in (schema, *schema["$defs"].values()):
        for name, field in owner.get("properties", {}).items():
            assert field.get("description"), f"{owner.get('title')}.{name}"


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8))


@given(
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_mapping_gives_a_recipe_or_a_recipe_error(value: Any) -> None:
    with pytest.raises(RecipeError):
        read_recipe({"head": value, "surplus": value}, source="generated")


def test_nested_aliases_are_bounded_before_they_are_written_out(registry: Any, tmp_path: Path) -> None:
    """Nine levels of nine took minutes."""
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    error = failure("\n".join([*levels, GOOD]), registry, tmp_path)
    assert f"more than {MOST_VALUES} values" in error.what
    assert "mine.yaml" in error.where
    bomb = (
        "[&a [x], " + ", ".join(f"&{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefghij")) + "]"
    )
    with pytest.raises(RecipeError, match=f"more than {MOST_VALUES} values"):
        apply_overrides(yaml.safe_load(GOOD), [f"metrics={bomb}"])


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("off", False), ("true", True)])
def test_words_of_yaml_1_1_still_switch_a_field(text: str, value: bool, registry: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("    lr: 1e-2", f"    balance: {text}"))
    assert resolve(path, registry).recipe.train.student.balance is value


def test_words_and_numbers_are_those_of_yaml_1_2() -> None:
    values, _ = parse_yaml("{a: no, b: 1e-3, c: 010, d: 1:30, e: ~}", source="text")
    assert values == {"a": "no", "b": 0.001, "c": 10, "d": "1:30", "e": None}
    assert parse_yaml(to_yaml(values), source="text")[0] == values


@given(st.text(max_size=60))
def test_any_text_gives_a_mapping_or_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        values, lines = parse_yaml(text, source="generated")
        assert isinstance(values, dict)
        assert all(line >= 1 for line in lines.values())


@given(rows=st.integers(1, 2_000_000))
def test_training_without_numbers_makes_enough_steps_and_no_fewer_than_ten_passes(rows: int) -> None:
    found = TrainConfig().for_rows(rows)
    steps = -(-rows // found.batch_size)
    assert found.epochs * steps >= 2000
    assert found.epochs >= 10
    assert 16 <= found.batch_size <= 128
    assert found.epochs == 10 or (found.epochs - 1) * steps < 2000, "and no more than that"
    assert found.for_rows(7) == found, "numbers stay"


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "many", None])
def test_a_number_of_epochs_is_one_or_auto(value: Any, registry: Any) -> None:
    recipe = {**parse_yaml(GOOD, source="test")[0], "train": {"student": {"epochs": value}}}
    with pytest.raises(RecipeError, match="'epochs' is") as caught:
        resolve(recipe, registry)
    assert caught.value.fix == "write a whole number of at least 1, or auto"


FINE_TUNED = """
from torch import nn
from stillhouse import hookimpl
from stillhouse.plugins import TeacherSpec


@hookimpl
def stillhouse_teachers():
    yield TeacherSpec(
        name="old", target="tuned:old", summary="one", fine_tuning={"epochs": 3, "lr": 1e-5, "warmup": 0.2}
    )
    yield TeacherSpec(name="wrong", target="tuned:old", summary="one", fine_tuning={"epochs": -1})


def old(task, *, pretrained: str | None = None):
    return nn.Linear(1, task.outputs)
"""


def test_a_pretrained_model_brings_its_training_where_the_recipe_has_none(tmp_path: Path) -> None:
    (tmp_path / "tuned.py").write_text(FINE_TUNED)
    registry = Manager.from_environment(no_plugins=True, files=[tmp_path / "tuned.py"]).registry
    recipe = {**parse_yaml(GOOD, source="test")[0], "train": {"teacher": {"lr": 0.5}}}

    def train(**teacher: Any) -> TrainConfig:
        return resolve({**recipe, "teacher": teacher}, registry).recipe.train.teacher

    assert train(use="tuned/old", pretrained="x").model_dump(include={"epochs", "lr", "warmup"}) == {
        "epochs": 3,
        "lr": 0.5,
        "warmup": 0.2,
    }
    assert train(use="tuned/old").model_dump(include={"epochs", "warmup"}) == {"epochs": "auto", "warmup": 0.0}
    with pytest.raises(PluginError, match="fine_tuning of 'tuned/wrong'"):
        train(use="tuned/wrong", pretrained="x")


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("", "and this is empty", "stillhouse init"),
        ("- a\n", "and this is a list", "stillhouse init"),
        (GOOD.replace("[0, 1]", "[]"), "'seeds' is empty", "write at least 1"),
        (GOOD.replace("[0, 1]", "[a]"), "'seeds.0' is 'a'", "write a whole number"),
        (f"{GOOD}data_seed: .inf\n", "'data_seed' is inf", "write a finite number"),
    ],
)
def test_wrong_values_are_told_with_what_to_write(
    text: str, what: str, fix: str, registry: Any, tmp_path: Path
) -> None:
    error = failure(text, registry, tmp_path)
    assert what in error.what
    assert fix in error.fix


def test_a_folder_in_place_of_a_recipe_is_told(registry: Any, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder, not a recipe") as caught:
        resolve(tmp_path, registry)
    assert "stillhouse recipes" in caught.value.fix
    (tmp_path / "recipe.yaml").write_text(GOOD)
    with pytest.raises(RecipeError, match="is a folder") as caught:
        resolve(tmp_path, registry)
    assert "recipe.yaml" in caught.value.fix
    (tmp_path / "manifest.json").write_bytes(b"\xff\x00")
    with pytest.raises(RunFolderError, match="is not JSON"):
        resolve(tmp_path / "recipe.yaml", registry)


def test_a_dataset_in_place_of_a_recipe_names_the_recipes_with_it(registry: Any) -> None:
    with pytest.raises(UnknownComponentError, match="'core/synthetic' is a dataset") as caught:
        resolve("core/synthetic", registry)
    assert caught.value.fix.startswith("recipes with it: core/quickstart")
