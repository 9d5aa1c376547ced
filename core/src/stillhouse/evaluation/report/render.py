"""Write ``report.html``: the verdict first, then the evidence, then what the run was made of."""

from __future__ import annotations

import functools
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from stillhouse.evaluation.report import format as fmt
from stillhouse.evaluation.report.federated import figures_of_clients
from stillhouse.evaluation.report.figures import WEAK, all_figures, quality_by_size, weak_terms
from stillhouse.evaluation.report.over_time import figures_over_time
from stillhouse.evaluation.report.read import MODELS, Run, read_run
from stillhouse.evaluation.report.svg import to_svg
from stillhouse.evaluation.statistics import after_opening, opening, sentence, why_no_interval
from stillhouse.storage import write_text
from stillhouse.types import Head, ReportFigure

WIDE = 6.0
"""Inches from which a figure takes the whole width of the page, and scrolls on a phone."""
STATUS = {True: "helped", False: "harmed", None: "open"}


def write_report(run_dir: Path, *, head: Head | None = None) -> Path:
    """Write ``report.html`` into a run folder, from the files of the folder.

    Args:
        run_dir: the run folder, with ``summary.json`` at least.
        head: adds its own figures, from the test predictions of the folder.

    Returns:
        Path of the report, one file that needs no other.

    Raises:
        RunFolderError: the summary is missing, or a file cannot be read.
    """
    run = read_run(run_dir)
    figures = [*figures_over_time(run), *figures_of_clients(run), *all_figures(run)]
    warnings = [str(warning) for warning in run.summary.get("warnings", [])]
    warnings += [
        f"The loss term '{term}' stayed under {100 * WEAK:.0f} % of the student's loss in an epoch: too weak to act."
        for term in weak_terms(run)
        if not any(term in warning for warning in warnings)
    ]
    if head is not None:
        added, failed = _head_figures(run, head)
        figures += added
        warnings += failed
    page = _template().render(
        run=run,
        summary=run.summary,
        manifest=run.manifest,
        verdict=_verdict(run),
        tiles=_tiles(run),
        rows=_comparison(run),
        others=_others(run),
        worth=_worth(run),
        method=_method(run),
        metrics=_all_metrics(run),
        figures=[_draw(figure, f"f{number}") for number, figure in enumerate(figures)],
        warnings=warnings,
        seeds=_seeds(run.manifest.get("seeds")),
        rules=run.rules(),
        command=shlex.join(run.manifest.get("command", [])),
        models=MODELS,
    )
    path = run.folder / "report.html"
    write_text(path, page)
    return path


@functools.cache
def _template() -> Template:
    """The page's template, compiled once a process."""
    environment = Environment(
        loader=PackageLoader("stillhouse.evaluation.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["fmt"] = fmt
    environment.globals["breakable"] = _breakable
    return environment.get_template("report.html.j2")


def _head_figures(run: Run, head: Head) -> tuple[list[ReportFigure], list[str]]:
    predictions, rows = run.predictions()
    if not predictions:
        return [], []
    try:
        found = list(head.figures(predictions, rows))
    except Exception as error:  # a plugin's figure must not cost the user the report of a finished run
        return [], [f"The figures of the head '{run.summary['head']}' could not be drawn: {error}"]
    seeds = run.summary["student"].get("seeds") or [0]
    note = f" Test rows; baseline and student of seed {seeds[0]}." if len(seeds) > 1 else " Test rows."
    return [replace(figure, caption=figure.caption + note) for figure in found], []


def _draw(figure: ReportFigure, key: str) -> dict[str, Any]:
    description = f"{figure.title}. {figure.caption}"
    return {
        "svg": to_svg(figure.figure, key=key, description=description),
        "title": figure.title,
        "caption": figure.caption,
        "wide": figure.figure.get_size_inches()[0] > WIDE,
    }


def _verdict(run: Run) -> dict[str, Any]:
    """The opening follows from the numbers, whatever the sentence of the summary says."""
    found = run.summary["verdict"]
    simulated = bool(run.summary["dataset"].get("simulated"))
    whole = found.get("sentence") or sentence(
        found, metric=run.primary, student=_mean(run, "student"), unit=run.unit, simulated=simulated
    )
    first = opening(found)
    return {"status": STATUS[found.get("helped")], "opening": first, "rest": after_opening(whole, first)}


def _mean(run: Run, name: str) -> float:
    part = run.summary[name]
    return float(part["mean"] if part.get("mean") is not None else part["metrics"]["test"][run.primary])


def _tiles(run: Run) -> list[dict[str, str]]:
    """The four numbers that a reader takes home."""
    found = run.summary["verdict"]
    places = fmt.decimals(_mean(run, "student"))
    bounds = found.get("gain_ci95")
    spread = (
        f"95 % interval {fmt.signed(bounds[0], places)} to {fmt.signed(bounds[1], places)}"
        if bounds
        else f"{why_no_interval(found)}, no interval"
    )
    tiles = [
        {
            "label": f"Gain in {run.primary}",
            "value": fmt.signed(found["gain"], places),
            "unit": run.unit,
            "note": f"{spread}; positive is better",
        }
    ]
    if found.get("retention") is not None:
        tiles.append(
            {
                "label": "Quality kept",
                "value": f"{100 * found['retention']:.1f} %",
                "unit": "",
                "note": "of the teacher's, on test rows",
            }
        )
    elif why_none := found.get("no_retention"):
        tiles.append({"label": "Quality kept", "value": "—", "unit": "", "note": why_none})
    for key, label, note in (
        ("compression", "Size", "parameters than the teacher"),
        ("speedup", "Latency", "p50 latency than the teacher, batch 1"),
    ):
        value = found.get(key)
        if value is not None:
            word = {"compression": ("fewer", "more"), "speedup": ("lower", "higher")}[key][value < 1]
            shown = fmt.factor(value if value >= 1 else 1 / value)
            tiles.append({"label": label, "value": shown, "unit": "", "note": f"{word} {note}"})
    return tiles


def _comparison(run: Run) -> list[dict[str, Any]]:
    """Rows of the main table: a measure, its value per model, and the student's ratio to the teacher."""
    parts = {name: run.summary[name] for name in MODELS}
    timing = run.summary.get("latency", {})
    batch, many = timing.get("batch", 1), timing.get("throughput_batch", "")
    means = {name: _mean(run, name) for name in MODELS}
    places = max(fmt.decimals(value) for value in means.values())
    direction = "higher" if run.higher_is_better else "lower"
    rows = [
        {
            "name": f"Test {run.measure}",
            "note": f"{direction} is better",
            "cells": {
                name: (fmt.number(means[name], places), fmt.interval(parts[name].get("ci95"), means[name]))
                for name in MODELS
            },
            "strong": True,
        }
    ]

    def add(name: str, note: str, values: Mapping[str, float | None], show: Any) -> None:
        if any(value is not None for value in values.values()):
            rows.append(
                {
                    "name": name,
                    "note": note,
                    "cells": {m: (show(v), "") for m, v in values.items()},
                    "strong": False,
                }
            )

    add("Parameters", "", {m: p.get("parameters") for m, p in parts.items()}, fmt.short)
    add("Weights on disk", "", {m: p.get("bytes") for m, p in parts.items()}, lambda v: fmt.short(v, "B"))
    add(
        "FLOPs",
        f"one pass, batch {batch}; multiply-add counts two",
        {m: p.get("flops") for m, p in parts.items()},
        fmt.short,
    )
    for quantile in ("p50", "p99"):
        add(
            f"Latency {quantile}",
            f"batch {batch}",
            {m: (p.get("latency_ms") or {}).get(quantile) for m, p in parts.items()},
            _milliseconds,
        )
    asked = {m: p.get("asked") or {} for m, p in parts.items()}
    add("Answer of a service", "mean, as measured", {m: a.get("ms_per_row") for m, a in asked.items()}, _milliseconds)
    prices = {m: a.get("price_per_row") for m, a in asked.items()}
    add("Price", "1,000 rows", {m: None if p is None else 1000 * p for m, p in prices.items()}, fmt.number)
    add(
        "Throughput",
        f"rows per second, batch {many}",
        {m: p.get("throughput_per_s") for m, p in parts.items()},
        lambda v: fmt.short(v, "/s") if v is not None else fmt.NONE,
    )
    return rows


def _milliseconds(value: float | None) -> str:
    return fmt.short(value, "ms") if value is None or value < 1000 else fmt.short(value / 1000, "s")


def _others(run: Run) -> list[dict[str, str]]:
    """Controls (other ways to train the same student) and references (trivial predictions), by primary
    metric."""
    found = []
    for name, part in (run.summary.get("controls") or {}).items():
        mean = part.get("mean")
        found.append(
            {
                "name": name,
                "kind": "control",
                "value": fmt.number(mean),
                "interval": fmt.interval(part.get("ci95"), mean),
            }
        )
    for name, metrics in (run.summary.get("references") or {}).items():
        found.append({"name": name, "kind": "reference", "value": fmt.number(metrics.get(run.primary)), "interval": ""})
    return found


def _method(run: Run) -> dict[str, Any] | None:
    """The method's own results: a row each, a column for every model that they are of."""
    given = run.summary.get("method") or {}
    facts = run.summary.get("method_facts") or {}
    table = facts.get("table") or []
    if not table:
        return None
    counts = {name for name, value in facts["per_seed"][0].items() if isinstance(value, int)}
    models = list(dict.fromkeys(entry["model"] for entry in table))
    names = list(dict.fromkeys(entry["name"] for entry in table))
    cells = {
        (entry["name"], entry["model"]): (
            fmt.short(entry["mean"], "B")
            if entry["name"].startswith("bytes")
            else fmt.number(entry["mean"], 0 if entry["name"] in counts else None),
            fmt.interval(entry["ci95"], entry["mean"]),
        )
        for entry in table
    }
    return {"id": given.get("id", ""), "models": models, "rows": names, "cells": cells}


def _worth(run: Run) -> dict[str, Any] | None:
    """What distillation is worth in size: the sentence, the figure, and a row per size."""
    found, figure = run.summary.get("worth"), quality_by_size(run)
    if not found or figure is None:
        return None
    rows = []
    for each in found["sizes"]:
        mean = each["student"]["mean"]
        bound = f"{each['censored']} " if each["censored"] else ""
        sizes = [each[name]["size"] for name in ("student", "baseline")]
        alone = "" if sizes[0] == sizes[1] else f"{fmt.short(sizes[1])} alone"  # of trees each has its own
        rows.append(
            {
                "value": f"{each['value']}{' (the recipe)' if each['own'] else ''}",
                "size": (fmt.short(sizes[0]), alone),
                "factor": (f"{bound}{fmt.factor(each['size_factor'])}", _open_interval(each["ci95"])),
                **{
                    name: (fmt.number(each[name]["mean"], fmt.decimals(mean)), fmt.interval(each[name]["ci95"], mean))
                    for name in ("baseline", "student")
                },
            }
        )
    return {
        **{name: found[name] for name in ("sentence", "field", "measure")},
        "rows": rows,
        "figure": _draw(figure, "worth"),
    }


def _open_interval(bounds: list[float | None] | None) -> str:
    if bounds is None:
        return ""
    if bounds == [None, None]:
        return "no bounds"
    low, high = map(fmt.factor, bounds)
    return f"{low} to {high}"


def _all_metrics(run: Run) -> dict[str, Any]:
    """Every metric of every model and split, and the test metrics of each seed."""
    names: list[str] = []
    for model in MODELS:
        for split in ("test", "val"):
            names += [name for name in run.summary[model]["metrics"].get(split, {}) if name not in names]
    names.sort(key=lambda name: name != run.primary)
    table = []
    for name in names:
        values = {(m, s): run.summary[m]["metrics"].get(s, {}).get(name) for m in MODELS for s in ("test", "val")}
        places = max(fmt.decimals(value) for value in values.values() if value is not None)
        table.append((name, {key: fmt.number(value, places) for key, value in values.items()}))
    per_seed = []
    for position, seed in enumerate(run.summary["student"].get("seeds") or []):
        row = {
            model: fmt.number(values[position]) if len(values) > position else fmt.NONE
            for model in ("baseline", "student")
            if (values := run.summary[model].get("per_seed", {}).get(run.primary, [])) is not None
        }
        per_seed.append((seed, row))
    return {"table": table, "per_seed": per_seed}


def _seeds(seeds: Any) -> str:
    if isinstance(seeds, Mapping):
        return "; ".join(f"{name} {_seeds(value)}" for name, value in seeds.items())
    return ", ".join(map(str, seeds)) if isinstance(seeds, list) else str(seeds if seeds is not None else "")


def _breakable(component: str) -> Markup:
    """An id, or those of an ensemble, each with its number; they may break after slashes and plus signs only."""
    members = Counter(component.split(" + "))
    shown = " + ".join(f"{count} × {name}" if count > 1 else name for name, count in members.items())
    return Markup(escape(shown).replace("/", Markup("/<wbr>")))
