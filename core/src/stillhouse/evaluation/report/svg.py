"""A matplotlib figure as SVG inside a page: it takes the page's font, text colour and theme."""

from __future__ import annotations

import io
import re

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from stillhouse.figures import COLOURS

MOST_MARKS = 2000
"""Marks of one scatter that are still drawn one by one; more become an image inside the SVG."""
RASTER_DPI = 200
"""Resolution of what is an image inside the SVG."""
FONT = re.compile(r"(font:[^;\"]*?\d(?:px|pt)?) [^;\"]*(?=[;\"])")
FAMILY = re.compile(r"font-family:[^;\"]*")


def to_svg(figure: Figure, *, key: str, description: str) -> Markup:
    """Inline ``<svg>`` of a figure.

    Args:
        figure: any matplotlib figure; black becomes the text colour of the page, backgrounds become
            transparent.
        key: unique in the page; ids inside the SVG are prefixed by it.
        description: what the figure shows, for screen readers.
    """
    for axes in figure.axes:
        for collection in axes.collections:
            collection.set_rasterized(len(np.atleast_1d(collection.get_offsets())) > MOST_MARKS)
    for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
        patch.set_visible(False)
    figure.set_dpi(RASTER_DPI)
    buffer = io.StringIO()
    # Figure.savefig draws everything twice: once for nothing but the layout, which drawing makes anyway.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "stillhouse"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    opening = text[: text.index(">") + 1]
    box = re.search(r'viewBox="[^"]*"', opening)
    natural = round(72 * float(figure.get_size_inches()[0]))
    start = (
        f'<svg {box.group() if box else ""} role="img" aria-label="{escape(description)}" class="plot" '
        f'style="--natural: {natural}px">'
    )
    text = start + text[len(opening) :]
    text = text.replace("xlink:href", "href").replace("#000000", "currentColor")
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{key}-", text)
    text = FONT.sub(r"\1 inherit", text)
    text = FAMILY.sub("font-family: inherit", text)
    for name, colour in COLOURS.items():
        text = re.sub(colour, f"var(--{name})", text, flags=re.IGNORECASE)
    return Markup(text.strip())
