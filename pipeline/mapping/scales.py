"""Slides whose scale stands apart from the cohort's: what one file alone cannot show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import median

from pipeline.contracts.ledger import Record
from pipeline.contracts.slide_facts import slide_facts
from pipeline.contracts.slide_warnings import SlideWarning

# Twice or half of the median; a scanner's 0.26 and 0.5 µm/px are as good as that.
FACTOR = 1.9
LEAST = 3  # slides that make a median


def unusual_scales(tiling: Mapping[str, Record]) -> dict[str, SlideWarning]:
    """Slide id -> a warning, where a slide is twice or half of the median of its file format.

    Formats with fewer than `LEAST` slides are compared with the whole cohort.

    Args:
        tiling: slide id -> its record of tiling.
    """
    scaled = {s: facts for s, r in tiling.items() if (facts := slide_facts(r)) is not None}
    by_format: dict[str, list[float]] = defaultdict(list)
    for facts in scaled.values():
        by_format[facts.format].append(facts.mpp)
    every = [mpp for values in by_format.values() for mpp in values]
    found = {}
    for slide, facts in sorted(scaled.items()):
        form, mpp = facts.format, facts.mpp
        alike = by_format[form] if len(by_format[form]) >= LEAST else every
        usual = median(alike)
        if len(alike) < LEAST or 1 / FACTOR < mpp / usual < FACTOR:
            continue
        of = (
            f"{len(alike)} slides of format {form}" if form and alike is not every else "all slides"
        )
        power = facts.magnification
        agrees = f"; the file states an objective of {power:g}x" if power else ""
        text = f"{mpp:g} µm/px, but the median of {of} is {usual:g}{agrees}"
        found[slide] = SlideWarning("scale_unusual", text)
    return found
