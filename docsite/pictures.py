"""Make the pictures of README and home from a run of the demo: ``python -m docsite.pictures``.

``docs/pictures/terminal.svg`` is what the command prints, ``docs/pictures/report.png`` the top of the report that it
leaves, as Chromium shows it (Debian: ``apt-get install chromium``).
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

RECIPE = "audio_vision/digits-few-labels"
RUN = Path("runs/digits-few-labels")
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
COLUMNS = 108
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZE = (1100, 660)


def terminal(out: Path) -> None:
    """Run the demo and draw its result as text in an SVG; progress stays on the screen."""
    command = [sys.executable, "-m", "stillhouse", "run", RECIPE]
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor", highlight=False)
    console.print(Text.assemble(("$ ", "bold green"), (f"stillhouse run {RECIPE}", "bold")))
    console.print(Text.from_ansi(done.stdout.rstrip()))
    svg = console.export_svg(title="stillhouse", unique_id="terminal")
    # Rich names a font on a server; a picture in a README cannot load one, and a page should not.
    out.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")


def page(source: Path, out: Path, size: tuple[int, int] = SIZE) -> None:
    """The top of a page as a browser shows it; few colours keep the file small."""
    browser = next((found for each in BROWSERS if (found := shutil.which(each))), None)
    if browser is None:
        raise SystemExit(f"there is none of {', '.join(BROWSERS)}: install one, e.g. apt-get install chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000"]
    where = [f"--window-size={size[0]},{size[1]}", f"--screenshot={out}", source.resolve().as_uri()]
    subprocess.run([browser, *options, *where], check=True, capture_output=True)
    with Image.open(out) as image:
        image.convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    terminal(PICTURES / "terminal.svg")
    page(RUN / "report.html", PICTURES / "report.png")
