"""The page of `stillhouse compare`: differences first, then results and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from stillhouse.evaluation.report import format as fmt

WORDS = {True: "is better", False: "is worse", None: "is not told apart"}


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What each other run's student is, compared with the first run's, in words."""
    lines, first = [], found["runs"][0]["name"]
    places = fmt.decimals(found["runs"][0]["student"]["mean"])
    for each in found["differences"]:
        if each["model"] != "student":
            continue
        evidence = "no interval: one seed only, or all seeds alike"
        if each["ci95"]:
            bounds = " to ".join(fmt.signed(bound, places) for bound in each["ci95"])
            evidence = f"95 % interval {bounds}, {'paired by seed' if each['paired'] else 'not paired'}"
        than = "from" if each["better"] is None else "than"
        lines.append(
            f"The student of {each['run']} {WORDS[each['better']]} {than} that of {first}: "
            f"{fmt.signed(each['difference'], places)} {found['metric']} ({evidence})."
        )
    return lines


def comparison_page(found: Mapping[str, Any]) -> str:
    """One HTML page that needs no other file, of what `stillhouse.evaluation.comparing.compare_runs` found."""
    environment = Environment(
        loader=PackageLoader("stillhouse.evaluation.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["fmt"] = fmt
    better = [each["better"] for each in found["differences"] if each["model"] == "student"]
    status = "helped" if better and all(each is True for each in better) else "harmed" if False in better else "open"
    return environment.get_template("compare.html.j2").render(
        found=found,
        sentences=sentences(found),
        status=status,
        places=fmt.decimals(found["runs"][0]["student"]["mean"]),
    )
