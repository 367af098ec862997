"""How the report's figures look: one palette, one type size, SVG with real text.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), which stay apart for the common
forms of colour blindness, and carry one meaning throughout: the student is vermilion, single
teachers are blue, fusions green, the average of scores purple, ablations amber, references grey.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK = "#1d2733"
MUTED = "#5b6673"
GRID = "#e3e7ec"
STUDENT = "#d55e00"
SINGLE = "#0072b2"
FUSION = "#009e73"
AVERAGE = "#aa4a88"
ABLATION = "#b37a00"
REFERENCE = "#7b8794"

AXIS = "#9aa5b1"
STUDENT_TEXT = "#b84d00"
# Text on a filled cell, which keeps its colour where the page turns dark.
ON_PALE, ON_DARK = "#1d2734", "#fefefe"

# What a colour of a figure is called in the page's style sheet, which has others for a dark screen.
VARIABLES: Mapping[str, str] = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    AXIS: "axis",
    STUDENT: "mark-student",
    SINGLE: "mark-single",
    FUSION: "mark-fusion",
    AVERAGE: "mark-average",
    ABLATION: "mark-ablation",
    REFERENCE: "mark-reference",
    STUDENT_TEXT: "student",
    "#ffffff": "paper",
}
# Marks need less contrast than small text: what is written in a mark's colour is written in these.
WRITTEN: Mapping[str, str] = {STUDENT: STUDENT_TEXT, REFERENCE: MUTED}

# By the kind of a model in the config; `average` is the evaluation's mean of the singles' scores.
KIND_COLOURS: Mapping[str, str] = {
    "student": STUDENT,
    "single": SINGLE,
    "concat": FUSION,
    "mean": FUSION,
    "average": AVERAGE,
    "ablation": ABLATION,
}

# Unordered groups (classes, folds): Okabe and Ito, darkest first so that thin lines stay legible.
CYCLE = ("#0072b2", "#d55e00", "#009e73", "#aa4a88", "#b37a00", "#3a9bd1", "#1d2733", "#8a8f00")

# Risk groups, low to high.
GROUPS = {2: ("#0072b2", "#d55e00"), 3: ("#0072b2", "#7b8794", "#d55e00")}

_RC = {
    "svg.fonttype": "none",  # text stays text: selectable, small, and the page's own font
    "svg.hashsalt": "report",  # ids that do not change from run to run
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": AXIS,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def applied() -> Any:
    """The report's matplotlib settings, as a context or as a decorator of a drawing function."""
    return matplotlib.rc_context(_RC)


def figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """A figure with constrained layout and a grid of axes.

    Args:
        width, height: inches; the page shows one inch as 96 CSS pixels at most.
        subplots: what `matplotlib.figure.Figure.subplots` takes; axes are always returned as a
            2-D array of shape (rows, columns).
    """
    fig = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.05))
    return fig, fig.subplots(squeeze=False, **subplots)


def svg(fig: Figure, name: str, alt: str) -> str:
    """The figure as an SVG document: text as text, ids prefixed with `name`, described by `alt`.

    Inline SVGs of one page share one name space of ids, so that two figures' clip paths would
    meet; the prefix keeps them apart.

    Args:
        fig: the figure.
        name: prefix of its ids, unique on the page.
        alt: what it shows, for those who cannot see it.
    """
    out = io.StringIO()
    with applied():
        FigureCanvasSVG(fig)
        fig.savefig(
            out,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.03,
            metadata={"Date": None, "Creator": None},
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    # A hundredth of a point is finer than any screen. Only paths: texts keep their digits.
    text = re.sub(r'\bd="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), text)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans, Helvetica, Arial, sans-serif)", text)
    label = f'role="img" aria-labelledby="{name}-title"'
    title = f'<title id="{name}-title">{escape(alt)}</title>'
    return re.sub(r"<svg([^>]*)>", rf"<svg\1 {label}>{_literal(title)}", text, count=1)


def inline(document: str) -> Markup:
    """An SVG document that `svg` made, ready to stand in the page.

    Width and height become a maximum, so that the picture shrinks with a narrow window; colours
    become those of the page, which has others for a dark screen.
    """
    document = re.sub(r'style="[^"]*"', _of_the_page, document)
    found = re.search(r'<svg[^>]*?width="([\d.]+)pt"', document)
    width = float(found.group(1)) * 96 / 72 if found else 800.0
    head = re.sub(
        r'(<svg[^>]*?)\s+width="[^"]*"', rf'\1 style="width:{width:.0f}px"', document, count=1
    )
    return Markup(re.sub(r'(<svg[^>]*?)\s+height="[^"]*"', r"\1", head, count=1))


def _of_the_page(match: re.Match[str]) -> str:
    """A style attribute with the style sheet's variables for the colours that it names."""
    return re.sub(
        "#[0-9a-f]{6}",
        lambda hit: f"var(--{VARIABLES[hit[0]]}, {hit[0]})" if hit[0] in VARIABLES else hit[0],
        match[0],
    )


def _literal(text: str) -> str:
    """`text` as a replacement for `re.sub`, in which a backslash would mean a group."""
    return text.replace("\\", r"\\")
