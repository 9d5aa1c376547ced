"""Run the offline demos and put their reports under docs/gallery: ``make gallery``, some fifteen minutes.

Runs are kept in ``runs/gallery``, so that a second call makes only what is missing. The reports are not committed; the
page docs/gallery.md lists those that are there when the site is built (`docsite.hooks`).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import stillhouse
from stillhouse.errors import StillhouseError

RUNS = Path("runs/gallery")
FOLDER = Path(__file__).parents[1] / "docs" / "gallery"
INDEX = FOLDER / "index.json"
RECIPES = (
    "core/quickstart",
    "audio_vision/digits-few-labels",
    "audio_vision/tagging-demo",
    "finance/forecast-demo",
    "finance/fraud-demo",
    "finance/news-demo",
    "industrial/faults-demo",
    "industrial/intrusion-demo",
    "industrial/rul-demo",
    "medicine/diagnosis-demo",
    "medicine/segmentation-demo",
    "medicine/vqa-demo",
)


def main(recipes: list[str]) -> None:
    """Make the reports of these recipes, and list all that are there."""
    FOLDER.mkdir(exist_ok=True)
    known = {each["recipe"]: each for each in json.loads(INDEX.read_text())} if INDEX.exists() else {}
    for recipe in recipes:
        name = recipe.replace("/", "-")
        try:
            run = stillhouse.run(recipe, out=RUNS / name)
        except StillhouseError as error:  # an optional package is not there
            print(f"{recipe}: left out: {error}", flush=True)
            continue
        shutil.copy(run.folder / "report.html", FOLDER / f"{name}.html")
        verdict = run.summary["verdict"]
        known[recipe] = {"recipe": recipe, "file": f"{name}.html", "sentence": verdict["sentence"]}
        print(f"{recipe}: {verdict['sentence']}", flush=True)
        INDEX.write_text(json.dumps([known[each] for each in RECIPES if each in known], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:] or [*RECIPES])
