"""What mkdocs calls while it builds: the gallery's page lists the reports that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARK = "<!-- the reports -->"
INDEX = Path(__file__).parents[1] / "docs" / "gallery" / "index.json"


def reports() -> str:
    """The reports as a table, or how to make them."""
    if not INDEX.exists():
        return (
            "The reports are not part of this build: `make gallery` runs the recipes, then `make docs` shows them here."
        )
    lines = ["| report | verdict |", "|---|---|"]
    for each in json.loads(INDEX.read_text(encoding="utf-8")):
        lines.append(f"| [`{each['recipe']}`](gallery/{each['file']}) | {each['sentence']} |")
    return "\n".join(lines)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """See the hooks of mkdocs."""
    return markdown.replace(MARK, reports()) if MARK in markdown else markdown
