"""What has no documentation, or no test that mentions it, fails the build."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import stillhouse.plugins
from stillhouse import errors
from stillhouse.cli.app import app
from stillhouse.cli.shared import FLAGS, VALUES
from stillhouse.errors import StillhouseError
from stillhouse.plugins import hookspecs
from stillhouse.plugins.component_kinds import KINDS, ComponentKind
from stillhouse.plugins.spec import load_target
from stillhouse.recipe.model import ComponentRef, ExtraRows, Recipe

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
ERRORS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, StillhouseError)]


def sections(page: str) -> dict[str, str]:
    """Text of each ``##`` section of a reference page by its title."""
    parts = re.split(r"^## (.+)$", (REFERENCE / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def text_of_tests() -> str:
    files = [each for each in (ROOT / "tests").rglob("test_*.py") if each.name != Path(__file__).name]
    return "\n".join(each.read_text(encoding="utf-8") for each in files)


def commands(group: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_an_anchor_a_docstring_and_a_test(error: type[StillhouseError]) -> None:
    documented = sections("errors.md")
    assert len(documented[error.__name__].split()) > 15
    assert error("x").anchor.endswith(f"#{error.__name__.lower()}")
    assert inspect.getdoc(error)
    assert re.search(rf"\b{error.__name__}\b", text_of_tests())


@pytest.mark.parametrize("hook", list(hookspecs.HOOKS))
def test_every_hook_has_documentation_and_a_test(hook: str) -> None:
    text = (REFERENCE / "hooks" / f"{hook}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {hook}\n")
    assert hookspecs.HOOKS[hook].__name__ in text
    assert f"({hook}.md)" in (REFERENCE / "hooks" / "index.md").read_text(encoding="utf-8")
    assert inspect.getdoc(getattr(hookspecs, hook))
    assert re.search(rf"\b{hook}\b", text_of_tests())


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_of_component_is_whole(kind: ComponentKind) -> None:
    """What a row of the table needs beside it; hooks, choices, schema and checks are derived from the row."""
    assert kind.hook in hookspecs.HOOKS
    assert hasattr(getattr(hookspecs, kind.hook), "stillhouse_spec")
    assert kind.spec.__name__ in stillhouse.plugins.__all__
    assert not kind.checks or callable(load_target(f"stillhouse.testing.{kind.checks}", who=kind.name))


def test_every_field_of_a_recipe_that_names_a_component_has_its_kind() -> None:
    named = [field for kind in KINDS.values() for field in kind.fields]
    plain = [
        name
        for name, field in Recipe.model_fields.items()
        if field.annotation in (ComponentRef, list[ComponentRef], ExtraRows | None)
    ]
    assert sorted(named) == sorted(plain)


@pytest.mark.parametrize("name", list(COMMANDS), ids=" ".join)
def test_every_command_and_option_has_documentation_and_every_command_a_test(name: tuple[str, ...]) -> None:
    command = COMMANDS[name]
    text = sections("cli.md")[" ".join(("stillhouse", *name))]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} has no help"
        for option in parameter.opts:
            if option.startswith("--"):
                assert option in text, f"{option} is not documented"
    words = r"\"\s*,\s*\"".join(name)
    start = r"\(\[?\s*" if len(name) == 1 else ""  # as an argument list, not as a key of a document
    assert re.search(rf"{start}\"{words}\"|stillhouse {' '.join(name)}\b", text_of_tests())


def test_reference_names_nothing_that_does_not_exist() -> None:
    assert set(sections("errors.md")) == {each.__name__ for each in ERRORS}
    assert {page.stem for page in (REFERENCE / "hooks").glob("*.md")} == {"index", *hookspecs.HOOKS}
    assert set(sections("cli.md")) == {"Global options"} | {" ".join(("stillhouse", *name)) for name in COMMANDS}


def test_global_options_are_documented_and_no_command_redefines_one() -> None:
    text = sections("cli.md")["Global options"]
    root = typer.main.get_command(app)
    for parameter in root.params:
        assert all(option in text for option in parameter.opts)
    for name, command in COMMANDS.items():
        declared = {option for parameter in command.params for option in parameter.opts}
        assert not declared & {*FLAGS, *VALUES}, f"{' '.join(name)} redefines a global option"


def test_every_module_of_the_core_stands_on_the_architecture_page() -> None:
    rooms = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Rooms of the core")[2]
    table = [row for row in rooms.partition("\nPlugins have the same")[0].splitlines() if row.startswith("| `")]
    named = [room for line in table for room in re.findall(r"`([a-z_]+)(?:/|\.py)`", line.split("|")[1])]
    source = ROOT / "core" / "src" / "stillhouse"
    modules = {each.stem for each in source.iterdir() if each.suffix == ".py" or (each / "__init__.py").exists()}
    assert sorted(named) == sorted(modules - {"__init__", "__main__"})
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
    layers = [part for layer in lint["layers"] for part in layer.split(" | ")]
    assert sorted(layers) == sorted(named)
