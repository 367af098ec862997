"""Feature files whose numbers stand apart from the rest of their teacher's.

Two encoders of equal width differ in the length of their vectors, in the mean of their values, in
the share that is negative or in where the mean vector points, much more than slides of one encoder
do. A file that names its encoder
is compared by that (`contracts.same_features`); this is for those that do not, and only warns.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from pipeline.contracts.ledger import Record
from pipeline.contracts.slide_warnings import SlideWarning

LEAST = 5  # files that can be compared
ALIKE, UNLIKE = 0.7, 0.3  # cosines; between unrelated vectors a sketch gives 0 ± 0.18
SAMPLE = 500
SPREADS = 5.0  # a gap is that many times what is usual within the largest group


@dataclasses.dataclass(frozen=True)
class Mark:
    """A number that files of one encoder share.

    Attributes:
        text: what it is, for the warning.
        gap: the least distance between two groups, on the scale of `scale`.
        scale: makes distances comparable.
    """

    text: str
    gap: float
    scale: Callable[[float], float]


MARKS = {
    "norm": Mark("its vectors have a median length of", math.log(1.5), math.log),
    "offset": Mark("the mean of its values over their root mean square is", 0.15, float),
    "negative": Mark("the share of its values below zero is", 0.15, float),
}


def unusual_features(records: Mapping[str, Record]) -> dict[str, SlideWarning]:
    """Slide id -> a warning, for the files outside the largest group of a teacher's.

    Args:
        records: slide id -> its record of one imported teacher.
    """
    marked = {s: r.facts["marks"] for s, r in sorted(records.items()) if r.facts.get("marks")}
    found: dict[str, SlideWarning] = {}
    for name, mark in MARKS.items():
        # Who is named already is not compared again: of two halves all marks name the same one.
        values = {s: float(marks[name]) for s, marks in marked.items() if s not in found}
        usual = largest_group({slide: mark.scale(value) for slide, value in values.items()}, mark)
        low, high = (f(values[s] for s in usual) for f in (min, max)) if usual else (0.0, 0.0)
        for slide in sorted(values.keys() - usual):
            text = (
                f"{mark.text} {values[slide]:g}, but {low:g} to {high:g} in {len(usual)} of "
                f"{len(values)} files"
            )
            found[slide] = SlideWarning("features_unusual", text)
    rest = {slide: record for slide, record in records.items() if slide not in found}
    for slide, text in _pointing_elsewhere(rest).items():
        found[slide] = SlideWarning("features_unusual", text)
    return found


def _pointing_elsewhere(records: Mapping[str, Record]) -> dict[str, str]:
    """Files whose mean vector points elsewhere, where the mean vectors of most point one way.

    Features without a common mean (standardised ones) point anywhere, and say nothing here.
    """
    names = [slide for slide, record in sorted(records.items()) if record.facts.get("sketch")]
    if len(names) < LEAST or len({len(records[n].facts["sketch"]) for n in names}) > 1:
        return {}
    sketches = np.array([records[name].facts["sketch"] for name in names])
    cosines = sketches @ sketches[_leader(sketches)]
    alike = cosines >= ALIKE
    if alike.sum() < max(LEAST, len(names) / 2):
        return {}
    return {
        names[i]: f"its mean vector points elsewhere (cosine {cosines[i]:.2f}) than those of "
        f"{int(alike.sum())} of {len(names)} files, which are alike"
        for i in np.flatnonzero(cosines < UNLIKE)
    }


def _leader(sketches: np.ndarray) -> int:
    """The file that most of a sample of the others are like."""
    sample = sketches[:: max(1, len(sketches) // SAMPLE)]
    return int(((sketches @ sample.T) >= ALIKE).sum(1).argmax())


def largest_group(values: Mapping[str, float], mark: Mark) -> set[str]:
    """The names of the largest group that wide gaps leave; all of them where there is no gap."""
    names = sorted(values, key=lambda name: (values[name], name))
    if len(names) < LEAST:
        return set(names)
    points = np.array([values[name] for name in names])
    groups = np.split(np.arange(len(points)), np.flatnonzero(np.diff(points) >= mark.gap) + 1)
    largest = max(groups, key=len)
    # Within a group that is itself wide, a gap says little.
    low, high = np.percentile(points[largest], [25, 75])
    wide = SPREADS * (high - low) / 1.35  # of a normal distribution: five standard deviations
    if wide > mark.gap:
        groups = np.split(np.arange(len(points)), np.flatnonzero(np.diff(points) >= wide) + 1)
        largest = max(groups, key=len)
    return {names[i] for i in largest}
