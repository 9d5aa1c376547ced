"""Write ``tune.html``: what a search tried, what mattered, and validation against test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stillhouse.evaluation.report import format as fmt
from stillhouse.evaluation.report.svg import to_svg
from stillhouse.evaluation.statistics import after_opening, opening
from stillhouse.figures import COLOURS
from stillhouse.storage import write_text

REPORT = "tune.html"
STATUS = {True: "helped", False: "harmed", None: "open"}


def write_tune_report(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write the report of a search into its folder.

    Args:
        folder: of the search.
        record: ``tune.json``.

    Returns:
        path of the report, one file that needs no other.
    """
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("stillhouse.tuning", ""), PackageLoader("stillhouse.evaluation.report", "")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    complete = [trial for trial in record["trials"] if trial["state"] == "complete"]
    page = environment.get_template("tune.html.j2").render(
        record=record,
        metric=record["metric"]["name"],
        title=headline(record),
        status=STATUS[record["final"]["verdict"]["helped"]] if record["final"] else "open",
        sentence=after_opening(sentence(record), headline(record)),
        trials=_ranked(complete, record),
        others=_counts(record["trials"]),
        failed=_failed(record),
        settings=_settings,
        sized_alone=_sized_alone(record),
        fmt=fmt,
        plot=_plot(record, complete) if complete else None,
    )
    path = folder / REPORT
    write_text(path, page)
    return path


def headline(record: Mapping[str, Any]) -> str:
    """The first words: whether the distillation that was found helps on the test rows."""
    return opening(record["final"]["verdict"]) if record["final"] else "No teacher is better than the student alone"


def sentence(record: Mapping[str, Any]) -> str:
    """What the search found, for the command line and the report."""
    if not record["final"]:
        text = str(record["stopped"])
        return text[:1].upper() + text[1:] + "."
    said = str(record["final"]["verdict"]["sentence"]) + _beside_alone(record)
    held = record["confirmation"]
    trials, took, failed = len(record["trials"]), fmt.duration(record["seconds"]), _failed(record)
    errors = f" ({len(failed)} of them failed, see the report)" if failed else ""
    return (
        f"{said} The search tried {trials} setting{'s' if trials != 1 else ''}{errors} in {took}; on held-out rows the "
        f"chosen one gained {fmt.signed(held['gain'], fmt.decimals(held['baseline']))}."
    )


def _beside_alone(record: Mapping[str, Any]) -> str:
    """The gain over the student alone at the size that suits labels, where the chosen one has another: the same model
    without the teacher overfits more than a student alone has to."""
    alone = record["final"].get("alone")
    if alone is None:
        return ""
    gain = (record["final"]["student"] - alone) * (1 if record["metric"]["higher_is_better"] else -1)
    sizes = _settings({path: value for path, value in record["baseline"]["changes"].items() if "student." in path})
    places = fmt.decimals(alone)
    return (
        f" Labels alone suit another size ({sizes}): the student alone has {fmt.number(alone, places)} there, "
        f"{fmt.number(abs(gain), places)} {'worse' if gain >= 0 else 'better'} than the distilled one."
    )


def _failed(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [trial for trial in record["trials"] if trial["state"] == "fail"]


def _ranked(complete: list[dict[str, Any]], record: Mapping[str, Any]) -> list[dict[str, Any]]:
    sign = -1 if record["metric"]["higher_is_better"] else 1
    return sorted(complete, key=lambda trial: sign * trial["value"])


def _counts(trials: list[dict[str, Any]]) -> dict[str, int]:
    return {state: sum(trial["state"] == state for trial in trials) for state in ("complete", "pruned", "fail")}


def _settings(values: Mapping[str, Any]) -> str:
    shown = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in values.items()}
    return "; ".join(f"{name}: {value}" for name, value in shown.items())


def _sized_alone(record: Mapping[str, Any]) -> bool:
    """Whether the size of the student alone was chosen on labels: the one beside the distilled student has another."""
    return any(path.startswith("student.") for path in record["baseline"]["changes"])


def _plot(record: Mapping[str, Any], complete: list[dict[str, Any]]) -> Any:
    """Held-out quality of each trial, and the best so far, against the student alone."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    numbers = [trial["number"] + 1 for trial in complete]
    values = np.array([trial["value"] for trial in complete])
    best = np.maximum.accumulate(values) if record["metric"]["higher_is_better"] else np.minimum.accumulate(values)
    axes.scatter(numbers, values, s=14, color=COLOURS["student"], alpha=0.6, label="a trial")
    axes.step(numbers, best, where="post", color=COLOURS["student"], label="best so far")
    alone = "student alone, at the size that suits it" if _sized_alone(record) else "student alone"
    axes.axhline(record["baseline"]["mean"], color=COLOURS["baseline"], linestyle="--", label=alone)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"held-out {record['metric']['name']}")
    axes.legend(frameon=False)
    return to_svg(figure, key="trials", description="Held-out quality of each trial, against the student alone")
