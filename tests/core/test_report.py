"""The report: what it says first, that it needs no other file, and what it does with odd or missing parts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

from stillhouse.errors import RunFolderError
from stillhouse.evaluation.report import format as fmt
from stillhouse.evaluation.report.figures import loss_terms
from stillhouse.evaluation.report.read import Run
from stillhouse.evaluation.report.render import write_report
from stillhouse.evaluation.statistics import ci95, verdict
from stillhouse.heads import Regression
from stillhouse.types import DataInfo, ReportFigure, TensorSpec

INFO = DataInfo(inputs={"x": TensorSpec((30, 14))}, unit="cycles", target_mean=75.0, target_std=40.0)


def example_run(
    folder: Path,
    *,
    gain: float = 0.6,
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4),
    simulated: bool = False,
    name: str = "example/rul",
    soft_share: float = 0.4,
) -> Path:
    """A run folder with made-up numbers, in the layout that the pipeline writes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    baseline = (13.6 + 0.25 * rng.normal(size=len(seeds))).tolist()
    student = [value - gain + 0.1 * rng.normal() for value in baseline]
    teacher = 12.4

    def metrics(rmse):
        return {"rmse": rmse, "mae": 0.72 * rmse, "r2": 1 - (rmse / 40) ** 2, "phm08": 18.0 * rmse}

    def cost(parameters, p50):
        return {
            "parameters": parameters,
            "bytes": 4 * parameters + 900,
            "flops": 58 * parameters,
            "latency_ms": {"p50": p50, "p99": 1.7 * p50},
            "throughput_per_s": 90_000 / p50,
        }

    def seeded(values, component):
        mean = float(np.mean(values))
        return {
            "component": component,
            "metrics": {"val": metrics(mean - 0.3), "test": metrics(mean)},
            "seeds": list(seeds),
            "per_seed": {key: [metrics(value)[key] for value in values] for key in metrics(1.0)},
            "mean": mean,
            "ci95": ci95(values),
            **cost(4_993, 0.41),
        }

    found = verdict(
        metric="rmse", higher_is_better=False, teacher=teacher, baseline=baseline, student=student,
        teacher_parameters=131_457, student_parameters=4_993, teacher_p50_ms=4.6, student_p50_ms=0.41,
        unit="cycles", simulated=simulated,
    )  # fmt: skip
    summary = {
        "schema": 1,
        "recipe": name,
        "head": "example/rul",
        "dataset": {
            "id": "example/engines",
            "fingerprint": "5f1c" * 16,
            "rows": {"train": 14_184, "val": 3_547, "test": 100},
            "simulated": simulated,
            "description": "Windows of 30 cycles of turbofan engines until failure",
            "unit": "cycles",
        },
        "primary_metric": {"name": "rmse", "higher_is_better": False},
        "teacher": {
            "component": "example/bilstm",
            "metrics": {"val": metrics(12.1), "test": metrics(teacher)},
            **cost(131_457, 4.6),
        },
        "baseline": seeded(baseline, "example/tcn"),
        "student": seeded(student, "example/tcn"),
        "verdict": found,
        "latency": {"batch": 1, "throughput_batch": 256, "threads": 2, "samples": 200, "device": "cpu"},
        "references": {"mean of the training target": {"rmse": 41.2}},
        "warnings": [],
        "seconds": {"teacher": 214.0, "baseline": 97.0, "student": 118.0},
    }
    manifest = {
        "schema": 1,
        "command": ["stillhouse", "run", name, "--seeds", ",".join(map(str, seeds))],
        "created": "2026-01-02T10:20:30+00:00",
        "stillhouse": "0.1.0",
        "python": "3.11.7",
        "platform": "Linux x86_64",
        "cpu": "A processor",
        "threads": {"process": 2, "training": {"student": [1], "teacher": [2]}, "timing": 2},
        "packages": {"torch": "2.6.0", "numpy": "2.1.0"},
        "components": {
            "head": {"id": "example/rul", "distribution": "stillhouse-example", "version": "0.1.0"},
            "student": {"id": "example/tcn", "distribution": "one file", "version": "", "sha256": "ab" * 32},
        },
        "seeds": {"data": 0, "teacher": 0, "students": list(seeds)},
        "guards": [
            {
                "name": "teacher unchanged",
                "passed": True,
                "detail": "weights and buffers hash to the same value",
            },
            {"name": "no unit in two splits", "passed": True, "detail": "100 training and 100 test units"},
            {"name": "student in train mode", "passed": True, "detail": "every epoch of 5 seeds"},
        ],
    }
    lines = []
    for stage, epochs, members in (("teacher", 25, (0,)), ("baseline", 40, seeds), ("student", 40, seeds)):
        floor = {"teacher": 12.1, "baseline": 13.3, "student": 13.3 - gain}[stage]
        for member in members:
            for epoch in range(epochs):
                value = floor + 40 * np.exp(-epoch / 4) + 0.25 * rng.normal() * np.exp(-epoch / 30)
                terms = {"hard": {"raw": 160.0, "weighted": 100 * (1 - soft_share)}}
                if stage == "student":
                    grown = soft_share * (0.5 + 0.5 * epoch / epochs)
                    terms["core/teacher-mse"] = {"raw": 90.0, "weighted": 100 * grown}
                lines.append(
                    {
                        "stage": stage,
                        "member": member if stage == "teacher" else None,
                        "seed": member,
                        "epoch": epoch,
                        "epochs": epochs,
                        "lr": 0.001,
                        "train": {"loss": 150.0, "terms": terms, "alpha": 0.5},
                        "val": metrics(value),
                        "seconds": 1.0,
                    }
                )
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "recipe.yaml").write_text(
        "head: example/rul\ndataset: {use: example/engines, window: 30}\nseeds: [0, 1]\n"
    )
    target = np.minimum(rng.uniform(2, 160, size=100), 125)
    index = torch.arange(100)
    for model, sub, spread in (
        ("teacher", "", teacher),
        ("baseline", f"seed-{seeds[0]}", baseline[0]),
        ("student", f"seed-{seeds[0]}", student[0]),
    ):
        path = folder / model / sub / "predictions" / "test.safetensors"
        path.parent.mkdir(parents=True)
        prediction = target + spread * rng.normal(size=100) * (0.35 + target / 160)
        entries = {"prediction": prediction[:, None], "target": target}
        tensors = {key: torch.from_numpy(value).float() for key, value in entries.items()}
        save_file(tensors | {"index": index}, str(path))
    return folder


class Page(HTMLParser):
    """Text in order, tags with attributes, and whether tags are balanced."""

    VOID = ("meta", "br", "hr", "img", "link", "input", "wbr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.open, self.wrong = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if data.strip() and "style" not in self.open:
            self.text.append(data.strip())

    @property
    def words(self):
        return " ".join(self.text)


def page_of(folder: Path, **options) -> tuple[str, Page]:
    html = write_report(folder, **options).read_text(encoding="utf-8")
    return html, Page(html)


def change(folder: Path, edit) -> None:
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    edit(summary)
    path.write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The example run with its report, for tests that only read it."""
    folder = example_run(tmp_path_factory.mktemp("made") / "run")
    html, page = page_of(folder, head=Regression(INFO))
    return folder, html, page


@pytest.fixture
def folder(tmp_path):
    return example_run(tmp_path / "run")


def test_the_verdict_comes_first_and_recipe_and_provenance_last(made):
    folder, html, page = made
    sentence = json.loads((folder / "summary.json").read_text())["verdict"]["sentence"]
    opening, rest = sentence.split(": ", 1)
    order = [
        f"{opening}.", rest[1:], "Gain in rmse", "Teacher, baseline and student", "Quality against size",
        "Learning curves", "Terms of the loss", "Predicted against true", "Error by true value",
        "Recipe and provenance", "Guard rails: 3 of 3 passed", "Recipe, as it was run",
    ]  # fmt: skip
    places = [page.words.index(words) for words in order]
    assert places == sorted(places)
    assert html.index(f"{opening}.") < html.index("<table")
    assert page.text[0] == "Distillation helped · example/rul · Stillhouse"


def test_the_file_needs_no_other_and_runs_no_script(made):
    _, html, page = made
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "srcset", "xlink:href"):
            address = attributes.get(name) or ""
            assert address.startswith(("#", "data:")) or not address, (tag, attributes)
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)


def test_tags_are_balanced_ids_unique_and_references_resolve(made):
    _, html, page = made
    assert page.wrong == []
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', html))
    assert used
    assert used <= set(ids)


def test_tables_have_header_cells_and_figures_have_text_for_screen_readers(made):
    _, _, page = made
    tags = [tag for tag, _ in page.tags]
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 6
    for attributes in plots:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 20
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert tags.count("h1") == 1
    assert ("html", {"lang": "en"}) in page.tags


def test_figures_take_the_text_colour_and_the_font_of_the_page(made):
    _, html, _ = made
    plots = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert plots
    for plot in plots:
        assert "#000000" not in plot
        assert "DejaVu" not in plot
        assert "#ffffff" not in plot
    assert "var(--student)" in "".join(plots)
    assert "prefers-color-scheme: dark" in html


def test_table_shows_figures_with_intervals_and_costs(folder):
    change(folder, lambda summary: summary["student"].update(mean=13.0472, ci95=[12.9111, 13.1833]))
    _, page = page_of(folder)
    for words in (
        "13.05",
        "12.91 to 13.18",
        "131 k",
        "4.99 k",
        "4.60 ms",
        "0.410 ms",
        "200 calls, 2 threads, cpu",
    ):
        assert words in page.words


def test_a_gain_below_zero_is_said_before_anything_else(tmp_path):
    _, page = page_of(example_run(tmp_path / "run", gain=-0.8))
    assert page.text[0].startswith("Distillation did not help")
    assert "it made the student worse" in page.words
    assert "−0.8" in page.words


def test_no_proof_is_not_called_help(tmp_path):
    _, page = page_of(example_run(tmp_path / "run", gain=0.0))
    assert page.text[0].startswith("No proof that distillation helped")
    assert "Distillation helped" not in page.words
    assert "contains zero" in page.words


def test_the_badge_follows_the_figures_even_when_the_sentence_boasts(tmp_path):
    folder = example_run(tmp_path / "run", gain=-0.8)
    change(folder, lambda summary: summary["verdict"].update(sentence="All is well."))
    _, page = page_of(folder)
    assert page.text[0].startswith("Distillation did not help")


def test_one_seed_is_said_to_have_no_interval(tmp_path):
    _, page = page_of(example_run(tmp_path / "run", seeds=(7,)))
    assert page.text[0].startswith("One seed only")
    assert "one seed, no interval" in page.words
    assert "No interval: one seed." in page.words
    assert "over 1 seed (one seed, and seeds that are all alike, have none)" in page.words


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_data_are_marked_beside_the_verdict(tmp_path, simulated):
    html, _ = page_of(example_run(tmp_path / "run", simulated=simulated))
    top = html[html.index("<section") : html.index("<table")]
    assert ("Simulated data" in top) == simulated
    assert ("The data are simulated" in top) == simulated


def test_names_from_the_run_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    folder = example_run(tmp_path / "run", name=evil)
    change(folder, lambda summary: summary["dataset"].update(description=evil, unit='"><img src=x>'))
    change(folder, lambda summary: summary.update(warnings=[evil]))
    (folder / "recipe.yaml").write_text(f"name: {evil}")
    html, page = page_of(folder, head=Regression(INFO))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert evil not in html
    assert page.wrong == []


def test_a_term_under_one_percent_is_warned_of(tmp_path):
    _, page = page_of(example_run(tmp_path / "run", soft_share=0.01))
    assert "'core/teacher-mse' stayed under 1 % of the student's loss" in page.words
    _, page = page_of(example_run(tmp_path / "strong", soft_share=0.4))
    assert "stayed under" not in page.words


def test_warnings_of_the_run_are_shown(folder):
    change(folder, lambda summary: summary.update(warnings=["3 rows of test are in train"]))
    _, page = page_of(folder)
    assert page.words.index("3 rows of test are in train") < page.words.index("Teacher, baseline and student")


def test_a_failed_guard_rail_is_marked(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["guards"][0]["passed"] = False
    (folder / "manifest.json").write_text(json.dumps(manifest))
    _, page = page_of(folder)
    assert "Guard rails: 2 of 3 passed" in page.words
    assert "(failed)" in page.words


def test_controls_and_references_are_listed(folder):
    control = {"per_seed": {"rmse": [14.0, 14.2]}, "mean": 14.1, "ci95": [12.8, 15.4]}
    change(folder, lambda summary: summary.update(controls={"core/noise": control}))
    _, page = page_of(folder)
    for words in ("core/noise", "14.10", "mean of the training target", "41.20"):
        assert words in page.words


def test_members_of_a_kind_are_counted(folder):
    change(
        folder, lambda summary: summary["teacher"].update(component=" + ".join(["example/cnn"] * 3 + ["example/gru"]))
    )
    assert "3 × example/ cnn + example/ gru" in page_of(folder)[1].words


def test_rules_of_the_student_are_printed_and_escaped(folder):
    assert "Rules of the student" not in page_of(folder)[1].words
    (folder / "student" / "seed-0" / "rules.txt").write_text("amount <= 220.0: genuine\n<b>")
    html, page = page_of(folder)
    assert "amount <= 220.0: genuine" in page.words
    assert "amount &lt;= 220.0: genuine\n&lt;b&gt;" in html
    assert page.words.index("Rules of the student") < page.words.index("Recipe and provenance")


def test_the_summary_alone_is_enough(folder):
    for name in ("manifest.json", "metrics.jsonl", "recipe.yaml"):
        (folder / name).unlink()
    change(
        folder,
        lambda summary: (
            [summary.pop(name) for name in ("references", "warnings", "seconds", "latency")]
            + [summary[name].pop("latency_ms") for name in ("teacher", "baseline", "student")]
            + [summary[name].update(flops=None, parameters=None) for name in ("teacher", "baseline", "student")]
        ),
    )
    _, page = page_of(folder)
    assert "Distillation helped" in page.words
    assert "FLOPs" not in page.words
    assert "Learning curves" not in page.words


def test_models_without_epochs_leave_the_other_curves(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["stage"] != "teacher"]
    (folder / "metrics.jsonl").write_text("\n".join(kept))
    _, page = page_of(folder)
    assert "Learning curves" in page.words


def test_a_head_whose_figures_fail_costs_a_warning_and_not_the_report(folder):
    class Broken(Regression):
        def figures(self, predictions, rows):
            raise KeyError("no such column")

    _, page = page_of(folder, head=Broken(INFO))
    assert "could not be drawn: 'no such column'" in page.words


def test_a_wide_figure_of_a_head_scrolls_on_a_phone(folder):
    class Wide(Regression):
        def figures(self, predictions, rows):
            figure = Figure(figsize=(9, 3))
            figure.subplots().plot([0, 1], [0, 1])
            return [ReportFigure(figure, "A wide one", "From left to right.")]

    html, _ = page_of(folder, head=Wide(INFO))
    assert 'class="card wide"' in html


def test_thousands_of_points_become_one_image(folder):
    class Cloud(Regression):
        def figures(self, predictions, rows):
            figure = Figure()
            figure.subplots().scatter(np.arange(5000), np.arange(5000) % 70)
            return [ReportFigure(figure, "Cloud", "Many points.")]

    _, page = page_of(folder, head=Cloud(INFO))
    assert any(tag == "image" and attrs["href"].startswith("data:image/png") for tag, attrs in page.tags)


def test_predictions_of_other_rows_are_refused(folder):
    path = folder / "teacher" / "predictions" / "test.safetensors"
    save_file(
        {"prediction": torch.zeros(100, 1), "target": torch.zeros(100), "index": torch.arange(1, 101)},
        str(path),
    )
    with pytest.raises(RunFolderError, match="other rows"):
        write_report(folder, head=Regression(INFO))


def test_the_same_run_gives_the_same_bytes_and_replaces_the_old_report(folder):
    first = write_report(folder, head=Regression(INFO)).read_bytes()
    assert write_report(folder, head=Regression(INFO)).read_bytes() == first
    assert [path.name for path in folder.glob("*report*")] == ["report.html"]


def test_missing_or_foreign_summary(tmp_path, folder):
    with pytest.raises(RunFolderError, match=r"summary\.json' is missing"):
        write_report(tmp_path)
    change(folder, lambda summary: summary.update(schema=99))
    with pytest.raises(RunFolderError, match="schema 99"):
        write_report(folder)


def test_broken_line_of_metrics_is_named(folder):
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"stage": "stu')
    with pytest.raises(RunFolderError, match=r"line 426 of metrics\.jsonl"):
        write_report(folder)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (fmt.short(131_457), "131 k"),
        (fmt.short(4_993), "4.99 k"),
        (fmt.short(12), "12"),
        (fmt.short(1_234_567, "B"), "1.23 MB"),
        (fmt.short(0.0), "0"),
        (fmt.short(None), "–"),
        (fmt.number(13.0472), "13.05"),
        (fmt.number(0.91234), "0.9123"),
        (fmt.number(1234.5), "1 234"),
        (fmt.number(-2.0), "−2.000"),
        (fmt.signed(0.5, 2), "+0.50"),
        (fmt.signed(-0.5, 2), "−0.50"),
        (fmt.interval([1.0, 2.0], 1.5), "1.000 to 2.000"),
        (fmt.interval([1.5, 1.5], 1.5), "the same for all seeds"),
        (fmt.interval(None, 1.5), ""),
        (fmt.factor(26.33), "26.3×"),
        (fmt.duration(12.34), "12 s"),
        (fmt.duration(214), "3 min 34 s"),
        (fmt.duration(7380), "2 h 03 min"),
    ],
)
def test_numbers_read_well(shown, expected):
    assert shown == expected


def test_epochs_of_a_student_that_is_trained_in_phases_follow_each_other(tmp_path: Path) -> None:
    lines = [
        {
            "stage": "student",
            "seed": seed,
            "phase": phase,
            "epoch": epoch,
            "val": {"accuracy": 0.1 * number + seed},
            "train": {"terms": {"hard": {"raw": 1.0, "weighted": 1.0}}},
        }
        for seed in (0, 1)
        for number, (phase, epoch) in enumerate([("stage-1", 0), ("stage-1", 1), ("stage-2", 0), ("stage-2", 1)])
    ]
    run = Run(tmp_path, {"primary_metric": {"name": "accuracy"}}, {}, lines, "")
    expected = [[(number, 0.1 * number + seed) for number in range(4)] for seed in (0, 1)]
    assert run.curves() == {"student": expected}
    assert [epoch for epoch, _ in run.shares()["hard"]] == [0, 1, 2, 3]


def test_many_terms_have_a_colour_each_and_a_legend_inside_the_figure(tmp_path: Path) -> None:
    """Of eight terms three had the colour of another, and their names were cut off."""
    names = ["hard", *(f"core/attention-scores ({number})" for number in range(8)), "core/soft-targets"]
    terms = {name: {"raw": 1.0, "weighted": 1.0} for name in names}
    lines = [{"stage": "student", "seed": 0, "epoch": epoch, "train": {"terms": terms}} for epoch in range(3)]
    found = loss_terms(Run(tmp_path, {"primary_metric": {"name": "accuracy"}}, {}, lines, ""))
    assert found is not None
    (axes,) = found.figure.axes
    colours = {tuple(map(tuple, area.get_facecolor())) for area in axes.collections}
    assert len(colours) == len(names)
    found.figure.draw_without_rendering()
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [name.removeprefix("core/") for name in names]
    assert legend.get_window_extent().x1 <= found.figure.bbox.x1
