"""The command line's manners: output, global options, errors and exit status."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import stillhouse
from stillhouse.cli import app as cli_app
from stillhouse.cli import main
from stillhouse.cli.shared import FLAGS, VALUES, hoisted
from stillhouse.errors import DataError, UsageError
from stillhouse.plugins.component_kinds import KINDS


@pytest.fixture(autouse=True)
def _only_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_PLUGINS", "")
    monkeypatch.delenv("STILLHOUSE_STRICT_PLUGINS", raising=False)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """A command ``fail`` that raises what the list holds."""
    what: list[BaseException] = []
    registered = list(cli_app.app.registered_commands)

    @cli_app.app.command("fail")
    def fail(json: bool = False) -> None:
        raise what[0]

    yield what
    cli_app.app.registered_commands = registered


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"stillhouse {stillhouse.__version__}\n"


def test_components_json_has_the_promised_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    for each in document["components"]:
        assert {"id", "kind", "summary", "distribution", "version", "tags"} <= set(each)
        assert each["distribution"] == "stillhouse"
    assert "core/soft-targets" in {each["id"] for each in document["components"]}


def test_components_can_be_chosen_by_kind_and_tag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", "--kind", "student", "--tag", "interpretable", "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["components"]
    assert (only["id"], only["kind"]) == ("core/decision-tree", "student")
    assert main(["components", "--tag", "no-such-tag"]) == 0
    assert "No component fits." in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_kind_option_knows_every_kind(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", "--kind", kind, "--json"]) == 0
    assert {each["kind"] for each in json.loads(capsys.readouterr().out)["components"]} == {kind}


def test_unknown_kind_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["components", "--kind", "models"]) == 2
    assert "dataset" in capsys.readouterr().err


def test_recipes_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    quickstart = next(each for each in document["recipes"] if each["id"] == "core/quickstart")
    assert (quickstart["dataset"], quickstart["offline"]) == ("core/synthetic", True)


def test_show_gives_options_with_types_defaults_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "core/soft-targets", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["components"]
    option = next(each for each in shown["options"] if each["name"] == "temperature")
    assert (option["type"], option["required"]) == ("float", False)
    assert option["help"]
    assert main(["show", "soft-targets"]) == 0
    text = capsys.readouterr().out
    assert "temperature" in text
    assert option["help"].split()[0] in text


def test_show_of_a_shared_id_shows_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "mlp", "--json"]) == 0
    assert [each["kind"] for each in json.loads(capsys.readouterr().out)["components"]] == [
        "student",
        "teacher",
    ]
    assert main(["show", "mlp", "--kind", "teacher", "--json"]) == 0
    assert [each["kind"] for each in json.loads(capsys.readouterr().out)["components"]] == ["teacher"]


def test_show_of_a_recipe_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "core/quickstart"]) == 0
    assert "core/synthetic" in capsys.readouterr().out


def test_plugins_show_and_check_of_the_core(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "core", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["plugins"]
    assert (record["status"], record["warnings"]) == ("active", [])
    assert main(["plugins", "show", "stillhouse"]) == 0
    assert "core/dkd" in capsys.readouterr().out
    assert main(["plugins", "check", "core", "--quick", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["plugins"]
    assert report["passed"], [each for each in report["checks"] if each["outcome"] != "passed"]


def test_error_is_one_block_with_what_where_fix_and_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "core/soft-target"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "UnknownComponentError: no component 'core/soft-target'",
        "  where: plugin 'core' (stillhouse " + stillhouse.__version__ + ")",
        "  fix:   did you mean 'core/soft-targets'?",
        "  docs:  https://stillhouse.readthedocs.io/en/latest/reference/errors/#unknowncomponenterror",
    ]


def test_error_as_json_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "show", "medicin", "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    document = json.loads(captured.err)
    assert document["schema"] == 1
    assert document["error"]["class"] == "UnknownComponentError"
    assert document["error"]["what"] == "no plugin 'medicin' is installed"
    assert set(document["error"]) == {"class", "what", "where", "fix"}


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (DataError("file [a] is short", where="a.csv", fix="pip install 'x[y]'"), 2, "pip install 'x[y]'"),
        (
            ZeroDivisionError("division"),
            1,
            "ZeroDivisionError: division",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_status_by_error(
    failing: list[BaseException],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    text: str,
) -> None:
    failing.append(error)
    assert main(["fail"]) == status
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("error", [DataError("short"), ZeroDivisionError("division")])
def test_debug_shows_the_traceback(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    failing.append(error)
    main(["fail", "--debug"])
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_defect_as_json(failing: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    failing.append(ZeroDivisionError("division"))
    assert main(["fail", "--json"]) == 1
    document = json.loads(capsys.readouterr().err)
    assert document["error"]["what"] == "ZeroDivisionError: division"
    assert "stillhouse fail --json --debug" in document["error"]["fix"]


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runn"]) == 2
    assert "runn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["run", "x", "--plugin", "f.py"], ["--plugin", "f.py", "run", "x"]),
        (["run", "--plugin=f.py", "x", "--debug"], ["--plugin=f.py", "--debug", "run", "x"]),
        (["run", "x", "--plugin"], ["run", "x", "--plugin"]),
        (["run", "--", "--debug"], ["run", "--", "--debug"]),
        (["--no-plugins", "plugins", "list", "--disable-plugin", "a", "--json"],
         ["--no-plugins", "--disable-plugin", "a", "plugins", "list", "--json"]),
    ],
)  # fmt: skip
def test_global_options_may_stand_anywhere(given: list[str], wanted: list[str]) -> None:
    assert hoisted(given) == wanted


@given(st.lists(st.sampled_from([*FLAGS, *VALUES, "run", "x", "--set", "a=1", "--plugin=f.py", "--"])))
def test_hoisting_loses_nothing_and_is_stable(args: list[str]) -> None:
    once = hoisted(args)
    assert sorted(once) == sorted(args)
    assert hoisted(once) == once


@pytest.mark.parametrize("width", ["80", "60"])
def test_tables_fit_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert main(["components"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(width)
    assert any("core/similarity-preserving" in line for line in lines)


def test_piped_rows_are_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["components"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "core/dist " in line]
    assert row.split()[:2] == ["objective", "core/dist"]
    assert "between the rows of a class" in row


def test_python_dash_m(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import runpy

    monkeypatch.setattr(sys, "argv", ["stillhouse", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("stillhouse", run_name="__main__")
    assert stop.value.code == 0
    assert stillhouse.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "what", "where", "fix"),
    [
        ("runn x", "there is no command 'runn'", "stillhouse", "did you mean 'run'?"),
        ("plugins chek", "there is no command 'chek'", "stillhouse plugins", "did you mean 'check'?"),
        ("run x --sedes 0", "there is no option '--sedes'", "stillhouse run", "did you mean '--seeds'?"),
        ("run", "RECIPE... is missing", "stillhouse run", "for example: stillhouse run core/quickstart"),
        ("check a b", "unexpected argument b", "stillhouse check", "see: stillhouse check --help"),
        ("predict run f.csv --seed x", "the value is not a whole number", "--seed", "for example: stillhouse predict"),
        ("show x --kind techer", "'techer' is unknown", "--kind", "did you mean 'teacher'?"),
        ("cache clear techers", "'techers' is unknown", "stillhouse cache clear", "did you mean 'teachers'?"),
        ("components --output regresion", "no output kind 'regresion'", "--output", "did you mean 'regression'?"),
        ("recipes --minutes 0", "--minutes is 0", "--minutes", "a number above 0"),
        ("run x --plugin", "'--plugin' requires an argument", "stillhouse", "give it a value"),
        ("predict run f.csv --out f.xlsx", "not written as '.xlsx'", "--out f.xlsx", "a file .csv or .jsonl"),
    ],
)
def test_line_that_is_not_understood_is_told_like_every_error(
    line: str, what: str, where: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("UsageError: ")
    assert what in said[0]
    assert where in said[1]
    assert fix in said[2]


def test_usage_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json", "--sedes", "3"]) == 2
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["class"], error["fix"]) == (UsageError.__name__, "did you mean '--seeds'?")


def _leaves(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(_leaves(typer.main.get_command(cli_app.app)))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_ends_with_examples_that_can_be_parsed(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    usage, examples = shown.splitlines()[0], shown.partition("Examples:\n")[2].splitlines()
    assert "{" not in usage
    assert "[[" not in usage
    assert examples, shown
    for line in examples:
        words = shlex.split(line.partition(" > ")[0].partition(" < ")[0])
        assert tuple(words[1 : 1 + len(path)]) == path
        COMMANDS[path].make_context("x", words[1 + len(path) :])  # raises where it would not be understood


def test_help_has_every_command_in_a_section_with_its_whole_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "..." not in shown.partition("Options:")[2]
    for section in ("What there is:", "Runs:", "Results:", "Plugins and upkeep:"):
        assert section in shown
    assert "\nCommands:" not in shown
