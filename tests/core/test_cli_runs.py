"""What stands beside `run`: `runs`, `compare`, `cache`, `doctor`, several recipes, filters, standard input."""

from __future__ import annotations

import csv
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.cli import main
from stillhouse.cli.numbers import in_bytes, in_count, in_time, significant
from stillhouse.cli.recipe_options import parse_seeds
from stillhouse.errors import RecipeError
from stillhouse.evaluation.comparing import recipe_differences, welch
from stillhouse.evaluation.runs import describe_run

TINY = [
    *("--set", "dataset.rows=160", "--set", "dataset.unlabelled=0", "--set", "train.teacher.epochs=1"),
    *("--set", "train.student.epochs=1", "--set", "evaluate.latency_samples=20", "--quiet"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: two that share rows and seeds, one of other rows."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    for name, more in (
        ("wide", ["--seeds", "0-2"]),
        ("narrow", ["--seeds", "0-2", "--set", "student.hidden=[4]"]),
        ("other", ["--seeds", "0,1", "--set", "data_seed=3"]),
    ):
        assert main(["run", "core/quickstart", "--out", str(folder / name), *more, *TINY]) == 0
    return folder


def test_runs_lists_what_the_folders_hold(made: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # room for a long path
    capsys.readouterr()
    assert main(["runs", str(made), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    by_name = {Path(each["folder"]).name: each for each in document["runs"]}
    assert set(by_name) == {"wide", "narrow", "other"}
    for name, found in by_name.items():
        summary = json.loads((made / name / "summary.json").read_text())
        assert (found["recipe"], found["state"]) == ("core/quickstart", "finished")
        assert found["student"] == summary["student"]["mean"]
        assert found["gain_ci95"] == summary["verdict"]["gain_ci95"]
        assert found["parameters"] == summary["student"]["parameters"]
    assert main(["runs", str(made), "--recipe", "nothing"]) == 0
    assert "No run" in capsys.readouterr().out
    assert main(["runs", str(made / "wide")]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "core/quickstart" in line]
    assert "accuracy" in row
    assert main(["runs", str(made / "nowhere")]) == 2


def test_a_run_that_is_not_finished_tells_where_it_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["run", "core/quickstart", "--out", str(run), "--stop-after", "teacher", *TINY]) == 0
    assert describe_run(run)["state"] == "stopped in teacher"
    assert describe_run(run)["student"] is None
    with FileLock(run / "run.0.lock"):
        assert describe_run(run)["state"] == "running"
    assert describe_run(run)["state"] == "stopped in teacher", "a lock that a killed process left says nothing"


def test_compare_pairs_runs_of_the_same_rows_and_seeds(made: Path, capsys: Any) -> None:
    capsys.readouterr()
    assert main(["compare", str(made / "wide"), str(made / "narrow"), str(made / "other"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"field": "student.hidden", "values": [[64], [4], [64]]} in found["recipe"]
    per_seed = [np.array(run["student"]["per_seed"]) for run in found["runs"]]
    by_run = {(each["run"], each["model"]): each for each in found["differences"]}
    paired = by_run["narrow", "student"]
    assert paired["paired"]
    np.testing.assert_allclose(paired["difference"], (per_seed[1] - per_seed[0]).mean())
    half = 4.302652729911275 * (per_seed[1] - per_seed[0]).std(ddof=1) / np.sqrt(3)  # t(0.975, 2)
    np.testing.assert_allclose(paired["ci95"][1] - paired["ci95"][0], 2 * half)
    assert not by_run["other", "student"]["paired"]
    assert any("other rows" in note for note in found["notes"])


def test_compare_writes_one_page_and_never_over_another(made: Path, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.html"
    command = ["compare", str(made / "wide"), str(made / "narrow"), "--html", str(page)]
    assert main(command) == 0
    assert "The student of narrow" in capsys.readouterr().out
    text = page.read_text()
    assert "student.hidden" in text
    assert "http" not in text, "a page that needs no other file"
    HTMLParser().feed(text)
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_compare_refuses_what_cannot_be_compared(made: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["compare", str(made / "wide")]) == 2
    assert main(["compare", str(made / "wide"), str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert main(["compare", str(made / "wide"), str(made / "wide" / ".")]) == 2
    assert "named twice" in capsys.readouterr().err


def test_an_unfinished_run_is_told_how_to_go_on(made: Path, tmp_path: Path, capsys: Any) -> None:
    half = tmp_path / "half"
    assert main(["run", "core/quickstart", "--out", str(half), "--stop-after", "teacher", *TINY]) == 0
    capsys.readouterr()
    assert main(["compare", str(made / "wide"), str(half)]) == 2
    said = capsys.readouterr().err
    assert "not finished (stopped in teacher)" in said
    command = said.partition("go on with it: stillhouse ")[2].splitlines()[0].split()
    assert main([*command, "--quiet", "--stop-after", "baseline"]) == 0


def test_a_narrow_terminal_gets_fewer_columns_and_whole_words(
    made: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    monkeypatch.setenv("COLUMNS", "70")
    capsys.readouterr()
    assert main(["runs", "."]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 70
    assert [line.split()[0] for line in lines[2:]] == ["narrow", "other", "wide"]
    assert "Recipe" not in lines[0]
    assert "Gain" in lines[0]


def test_runs_says_where_runs_come_from(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs"]) == 2
    assert "stillhouse run core/quickstart" in capsys.readouterr().err
    (tmp_path / "runs").write_text("")
    assert main(["runs"]) == 2
    assert "is a file" in capsys.readouterr().err


def test_welch_is_that_of_scipy() -> None:
    from scipy import stats

    one, two = np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.5, 6.0, 7.0])
    expected = stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.95)
    assert welch(one, two) == pytest.approx([expected.low, expected.high])
    assert welch(one, two[:1]) is None


def test_fields_without_effect_are_no_difference() -> None:
    assert recipe_differences([{"name": "a", "seeds": [0]}, {"name": "b", "seeds": [0]}]) == []
    rows = recipe_differences([{"student": {"use": "x", "width": 2}}, {"student": {"use": "x"}}])
    assert rows == [{"field": "student.width", "values": [2, None]}]


def test_cache_lists_and_clears_teachers_and_spares_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    assert main(["run", "core/quickstart", "--out", str(tmp_path / "run"), "--stop-after", "teacher", *TINY]) == 0
    (tmp_path / "cache" / "chat").mkdir()
    (tmp_path / "cache" / "chat" / "replies.sqlite").write_bytes(b"x" * 100)
    (tmp_path / "cache" / "parquet" / "abc").mkdir(parents=True)
    (tmp_path / "cache" / "parquet" / "abc" / "x.npy").write_bytes(b"x" * 7)
    capsys.readouterr()
    assert main(["cache", "list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert [each["kept"] for each in entries] == ["teachers", "tables", "replies"]
    assert entries[0]["what"].startswith("core/mlp, seed 0")
    assert [each["bytes"] for each in entries[1:]] == [7, 100]
    assert main(["cache", "clear"]) == 2, "nobody is there to be asked"
    assert main(["cache", "clear", "--yes"]) == 0
    assert main(["cache", "list", "--json"]) == 0
    assert [each["kept"] for each in json.loads(capsys.readouterr().out.partition("\n")[2])["entries"]] == ["replies"]
    assert main(["cache", "clear", "replies", "--yes"]) == 0
    assert not list((tmp_path / "cache" / "chat").iterdir())


def test_doctor_tells_versions_folders_and_what_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert main(["doctor", "--json", "--no-plugins"]) == 0
    checks = {each["name"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert {"python", "torch", "cores", "device", "data", "cache", "disk", "plugin core"} <= set(checks)
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name\n")
    assert main(["doctor", "--no-plugins", "--plugin", str(broken)]) == 1
    out = capsys.readouterr().out
    assert "plugin broken" in out
    assert "nothing_of_that_name" in out


def test_several_recipes_run_one_after_the_other_and_one_that_fails_stops_no_other(tmp_path: Path, capsys: Any) -> None:
    text = "use: [not, a, recipe]\n"
    other = tmp_path / "second.yaml"
    assert main(["init", "core/quickstart", "--out", str(other)]) == 0
    other.write_text(other.read_text().replace("name: core/quickstart", "name: second"))
    blocked = tmp_path / "runs" / "quickstart"
    blocked.mkdir(parents=True)
    (blocked / "mine.txt").write_text("not a run")
    command = ["run", "core/quickstart", str(other), "--out", str(tmp_path / "runs"), "--stop-after", "data", *TINY]
    assert main(command) == 2
    output = capsys.readouterr()
    assert "is not a run" in output.err
    assert (tmp_path / "runs" / "second" / "recipe.yaml").exists()
    bad = tmp_path / "bad.yaml"
    bad.write_text(text)
    assert main(["run", str(other), str(bad), "--out", str(tmp_path / "more"), *TINY]) == 2
    assert not (tmp_path / "more").exists(), "told before the first has run"
    assert main(["run", "core/quickstart", "core/quickstart", *TINY]) == 2


def test_filters_of_components_and_recipes(capsys: Any) -> None:
    def ids(*command: str) -> set[str]:
        assert main([*command, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        return {each["id"] for each in document.get("components", document.get("recipes"))}

    assert ids("components", "hints") == {"core/hints"}
    assert ids("components", "--kind", "head", "--output", "regression", "--from", "core") == {"core/regression"}
    everything = ids("components")
    assert {each for each in everything if each.startswith("core/")} == ids("components", "--from", "core")
    assert "core/quickstart" in ids("recipes", "--offline", "--minutes", "1")
    assert ids("recipes", "no-such-word") == set()
    assert main(["components", "--from", "nobody"]) == 2


TABLE = "x0,x1,label\n" + "".join(f"{row % 7},{row % 5},{'yes' if row % 7 > 3 else 'no'}\n" for row in range(200))


@pytest.fixture(scope="module")
def tabular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tabular")
    (folder / "rows.csv").write_text(TABLE)
    given = ["--set", f"dataset.path={folder / 'rows.csv'}", "--set", "dataset.target=label"]
    tiny = ["--set", "train.student.epochs=1", "--set", "evaluate.latency_samples=20", "--seeds", "0", "--quiet"]
    assert main(["run", "finance/tabular", "--out", str(folder / "run"), *given, *tiny]) == 0
    return folder


@pytest.mark.plugins
def test_predict_reads_csv_and_json_lines_from_stdin(
    tabular: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    run, file = str(tabular / "run"), tabular / "rows.csv"
    capsys.readouterr()
    assert main(["predict", run, str(file)]) == 0
    from_file = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    rows = [json.dumps({"x0": row % 7, "x1": row % 5}) for row in range(200)]
    for text in (file.read_text(), "\n".join(rows)):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        assert main(["predict", run, "-", "--jsonl"]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        last = list(from_file[0])[-1]
        assert [float(row[last]) for row in found] == pytest.approx([float(row[last]) for row in from_file])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b" \n")))
    assert main(["predict", run, "-"]) == 2
    for text, says in ((TABLE.replace("3,2", "3,two", 1), "'two' is not"), ('[{"x0": 1}]', "a JSON array")):
        capsys.readouterr()
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        assert main(["predict", run, "-"]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert "where: stdin" in said
    out = tmp_path / "out.jsonl"
    assert main(["predict", run, str(file), "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 200
    before = out.read_bytes()
    assert main(["predict", run, str(file), "--out", str(out)]) == 2
    assert out.read_bytes() == before
    assert main(["predict", run, str(file), "--out", str(out), "--overwrite"]) == 0


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 30)), min_size=1, max_size=5))
def test_ranges_of_seeds_are_what_they_say(parts: list[tuple[int, int]]) -> None:
    text = ",".join(str(first) if not length else f"{first}-{first + length}" for first, length in parts)
    assert parse_seeds(text) == [seed for first, length in parts for seed in range(first, first + length + 1)]


@pytest.mark.parametrize("text", ["", "a", "4-0", "1-", "-1", "0..4", "0-99999999", "1 2", "0,,1"])
def test_what_is_no_list_of_seeds_is_told(text: str) -> None:
    with pytest.raises(RecipeError, match="not a list of seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (in_count(None), "?"),
        (in_count(999), "999"),
        (in_count(71_236), "71.2k"),
        (in_bytes(5_696), "5.7 kB"),
        (in_bytes(2_400_000_000), "2.4 GB"),
        (in_time(0.000045), "0.045 ms"),
        (in_time(65), "1 min 5 s"),
        (in_time(7_260), "2 h 1 min"),
        (significant(3_220.4), "3,220"),
        (significant(0.0000123), "0.0000123"),
        (significant(0), "0"),
    ],
)
def test_numbers_for_people(shown: str, expected: str) -> None:
    assert shown == expected


@given(st.floats(1e-9, 1e12, allow_nan=False))
def test_significant_never_has_an_exponent_and_is_near(value: float) -> None:
    text = significant(value)
    assert "e" not in text
    if value >= 1e-6:
        assert float(text.replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_completion_knows_recipes_by_bare_name() -> None:
    from stillhouse.cli.shared import complete_component, complete_recipe, complete_run

    assert complete_recipe("core/qu") == ["core/quickstart"]
    assert complete_recipe("quick") == ["quickstart"], "a shell drops what does not begin with the word"
    assert "core/hints" in complete_component("core/hin")
    assert complete_run("nowhere") == []


CORRUPT = {"list": b"[]", "half": b'{"schema": 1,', "binary": b"\xff\x00\x9d"}


@pytest.mark.parametrize("name", ["recipe.yaml", "summary.json", "manifest.json"])
@pytest.mark.parametrize("content", CORRUPT)
def test_a_corrupt_file_of_a_run_is_named_and_nothing_is_a_defect(
    name: str, content: str, made: Path, tmp_path: Path, capsys: Any
) -> None:
    run = tmp_path / "run"
    shutil.copytree(made / "wide", run)
    (run / name).write_bytes(CORRUPT[content])
    commands = {
        "runs": ["runs", str(tmp_path)],
        "compare": ["compare", str(made / "narrow"), str(run)],
        "run": ["run", "core/quickstart", "--out", str(run)],
        "export": ["export", str(run), "--format", "torch"],
    }
    unread = {"manifest.json": {"compare", "run"}, "summary.json": {"run"}}  # by commands that do not need it
    for command, line in commands.items():
        if command in unread.get(name, ()):
            continue
        capsys.readouterr()
        assert main(line) == 2, command
        told = capsys.readouterr().err
        assert name in told.replace("\n", ""), command
        assert told.count("  fix:") == 1, command


def test_a_file_in_place_of_the_folder_of_a_search_is_told(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "file.csv").write_text("a\n")
    assert main(["tune", "core/quickstart", "--out", str(tmp_path / "file.csv")]) == 2
    assert "exists and is not a search" in capsys.readouterr().err
