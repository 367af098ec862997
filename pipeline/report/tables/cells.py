"""Tables of the page: typed cells, numbers as text, and the small interval drawings in them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup, escape

DASH = "–"
SHORT = 40  # characters of an identifier that is not broken over lines


@dataclasses.dataclass(frozen=True)
class Column:
    """A column's heading. `hint` is its tooltip; numeric columns are set flush right."""

    label: str
    numeric: bool = False
    hint: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One entry: what is shown, and what a click on the heading sorts by."""

    html: Markup
    key: str | float = ""
    css: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        caption: what it shows, above it.
        read: one sentence on how to read it.
        source: files behind it, relative to the results folder.
        more: what was left out for length, as a sentence; empty when nothing was.
        emphasised: indices of rows that are set in bold (the student).
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    read: str = ""
    source: tuple[str, ...] = ()
    more: str = ""
    emphasised: frozenset[int] = frozenset()


def text(value: Any, css: str = "") -> Cell:
    """A cell of text, escaped; a dash for nothing."""
    shown = "" if value is None else str(value)
    return Cell(escape(shown) if shown else Markup(DASH), shown.casefold(), css)


def code(value: Any) -> Cell:
    """A cell with an identifier or a path, in the fixed-width face."""
    shown = "" if value is None else str(value)
    html = Markup("<code>{}</code>").format(shown) if shown else Markup(DASH)
    return Cell(html, shown.casefold(), "id" if len(shown) <= SHORT else "")


def number(value: Any, digits: int = 3, unit: str = "") -> Cell:
    """A cell with a number; a dash for None and NaN.

    Args:
        value: a number, or None.
        digits: after the point.
        unit: what stands after it.
    """
    shown = fixed(value, digits)
    suffix = f" {unit}" if unit and shown != DASH else ""
    return Cell(escape(shown + suffix), _key(value))


def count(value: Any) -> Cell:
    """A cell with a whole number, in groups of three."""
    return Cell(escape(whole(value)), _key(value))


def estimate(value: Any, low: Any, high: Any, digits: int = 3) -> Cell:
    """A cell with a value and its interval beneath.

    Args:
        value: a number, or None.
        low: lower end of its interval, or None.
        high: its upper end, or None.
        digits: after the point.
    """
    html = Markup('{}<span class="ci">{}</span>').format(
        fixed(value, digits), interval(low, high, digits)
    )
    return Cell(html, _key(value))


def fixed(value: Any, digits: int = 3) -> str:
    """A number with a fixed number of decimals and a true minus; a dash for None and NaN."""
    if not _finite(value):
        return DASH
    shown = f"{float(value):.{digits}f}"
    if float(shown) == 0:
        shown = shown.removeprefix("-")
    return shown.replace("-", "−")


def signed(value: Any, digits: int = 3) -> str:
    """A difference: like `fixed`, with a plus sign where it is positive."""
    shown = fixed(value, digits)
    return f"+{shown}" if _finite(value) and float(shown.replace("−", "-")) > 0 else shown


def interval(low: Any, high: Any, digits: int = 3, signs: bool = False) -> str:
    """`[low, high]`, or nothing where either end is missing.

    Args:
        low: lower end, or None.
        high: upper end, or None.
        digits: after the point.
        signs: whether positive ends have a plus.
    """
    if not (_finite(low) and _finite(high)):
        return ""
    form = signed if signs else fixed
    return f"[{form(low, digits)}, {form(high, digits)}]"


def whole(value: Any) -> str:
    """A count with thin spaces between groups of three; a dash for None and NaN."""
    return f"{round(float(value)):,}".replace(",", "\u2009") if _finite(value) else DASH


def p_value(value: Any) -> str:
    """A p value with as many decimals as it can bear: `0.34`, `0.013`, `< 0.001`."""
    if not _finite(value):
        return DASH
    p = float(value)
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_text(value: Any) -> str:
    """`p = 0.013` or `p < 0.001`, kept on one line."""
    shown = p_value(value)
    text = f"p {shown}" if shown.startswith("<") else f"p = {shown}"
    return text.replace(" ", "\u00a0")


def duration(seconds: Any) -> str:
    """Seconds as a person says them: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if not _finite(seconds):
        return DASH
    s = float(seconds)
    if s < 9.95:
        return f"{s:.1f} s"
    if (full := round(s)) < 60:
        return f"{full} s"
    if full < 3600:
        return f"{full // 60} min {full % 60:02d} s"
    minutes = round(s / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(n: int, word: str) -> str:
    """`1 slide`, `3 slides`, `4 classes`."""
    ending = "" if n == 1 else "es" if word.endswith("s") else "s"
    return f"{whole(n)} {word}{ending}"


@dataclasses.dataclass(frozen=True)
class Scale:
    """The shared axis of a column of interval drawings, with its reference values."""

    low: float
    high: float
    references: tuple[tuple[float, str], ...] = ()

    def at(self, value: float) -> float:
        """The position of a value, 0 to 1, kept inside."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def scale_of(values: Iterable[Any], references: Sequence[tuple[float, str]] = ()) -> Scale | None:
    """A scale that holds all finite values and references, with a little room at either end."""
    kept = [float(v) for v in [*values, *(r[0] for r in references)] if _finite(v)]
    if not kept:
        return None
    low, high = min(kept), max(kept)
    room = 0.05 * ((high - low) or 1.0)
    return Scale(low - room, high + room, tuple(references))


def drawing(value: Any, low: Any, high: Any, scale: Scale | None, colour: str) -> Cell:
    """A point with its interval on the column's shared scale; dashed lines are references.

    Args:
        value: where the point is.
        low: lower end of its interval.
        high: its upper end.
        scale: of the column; None: nothing is drawn.
        colour: of point and interval.
    """
    if scale is None or not _finite(value):
        return Cell(Markup(""))
    width, height, middle = 130, 18, 9
    parts = [f'<svg class="bar" viewBox="0 0 {width} {height}" aria-hidden="true">']
    parts += [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" class="ref"/>'
        for x in (scale.at(at) * width for at, _ in scale.references)
    ]
    if _finite(low) and _finite(high):
        x1, x2 = scale.at(float(low)) * width, scale.at(float(high)) * width
        parts.append(
            f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{middle}" y2="{middle}" '
            f'stroke="{colour}" stroke-width="2.5" stroke-linecap="round" opacity="0.55"/>'
        )
    x = scale.at(float(value)) * width
    parts.append(f'<circle cx="{x:.1f}" cy="{middle}" r="4" fill="{colour}"/></svg>')
    return Cell(Markup("".join(parts)), float(value))


def share(part: int, total: int, colour: str) -> Cell:
    """A filled bar for `part` of `total`, with the counts next to it.

    Args:
        part: how many.
        total: of how many.
        colour: of the bar.
    """
    fraction = part / total if total else 0.0
    html = Markup(
        '<span class="share"><span style="width:{}%;background:{}"></span></span> {} / {}'
    ).format(f"{100 * fraction:.1f}", colour, whole(part), whole(total))
    return Cell(html, fraction)


def _finite(value: Any) -> bool:
    try:
        return value is not None and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _key(value: Any) -> float | str:
    return float(value) if _finite(value) else ""
