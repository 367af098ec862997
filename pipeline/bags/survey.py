"""One look at every number of a feature file: whether it can be used, and what it is like.

Features of two encoders in one folder, or of a failed extraction, have the right width. What gives
them away is what their numbers are like, compared with the other files of the teacher.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from pipeline.bags.files import BLOCK_ROWS, FeatureFile, read_level
from pipeline.errors import ArtifactError

SKETCH = 32  # random directions that a file's mean vector is seen along
DIGITS = 4  # of a mark: enough to compare, and the same on every processor


class ConstantFeatures(ArtifactError):
    """A feature file that says the same of every tile, or nothing but zeros."""


@dataclasses.dataclass(frozen=True)
class Survey:
    """What the numbers of a file's last level are like.

    Attributes:
        zero_rows: rows (tiles) of nothing but zeros.
        norm: the median Euclidean length of a row that is not zero.
        offset: mean of all values over their root mean square, -1…1.
        negative: share of values below zero; an encoder that ends in a ReLU has none.
        sketch: where the mean row points: its products with SKETCH fixed random sign vectors, to
            length 1, so that the product of two sketches is about the cosine of two mean rows.
    """

    zero_rows: int
    norm: float
    offset: float
    negative: float
    sketch: tuple[float, ...]

    @property
    def marks(self) -> dict[str, float]:
        """What is compared between the files of a teacher."""
        return {"norm": self.norm, "offset": self.offset, "negative": self.negative}


def survey(file: FeatureFile) -> Survey:
    """Read every value of a file once, in bounded memory.

    Raises:
        ConstantFeatures: all rows of a level are equal, or zeros.
        ArtifactError: a value is NaN or infinite.
    """
    return {level: _survey_level(file, level) for level in file.dims}[list(file.dims)[-1]]


def _survey_level(file: FeatureFile, level: str) -> Survey:
    norms: list[np.ndarray] = []
    squares = 0.0
    sums = np.zeros(file.dims[level])
    negative = 0
    first: np.ndarray | None = None
    equal = True
    for start in range(0, file.n_tiles, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, file.n_tiles)
        values = read_level(file, level, np.arange(start, stop)).astype(np.float64)
        first = values[0] if first is None else first
        equal = equal and bool((values == first).all())
        norms.append(np.sqrt(np.einsum("nd,nd->n", values, values)))
        sums += values.sum(0)
        squares += float(np.einsum("nd,nd->", values, values))
        negative += int((values < 0).sum())
    lengths = np.concatenate(norms)
    assert first is not None  # files without rows are refused when they are opened
    if not lengths.any():
        raise ConstantFeatures(
            f"{file.path}: level `{level}` holds nothing but zeros, as after an extraction that "
            "failed; extract this slide again"
        )
    if equal and (file.n_tiles > 1 or (first == first[0]).all()):
        what = "rows are all equal" if file.n_tiles > 1 else "values are all equal"
        raise ConstantFeatures(
            f"{file.path}: level `{level}`: its {what}, so that they say nothing of the slide; "
            "extract it again"
        )
    count = file.n_tiles * file.dims[level]
    return Survey(
        zero_rows=int((lengths == 0).sum()),
        norm=_rounded(float(np.median(lengths[lengths > 0]))),
        offset=_rounded(float(sums.sum()) / count / math.sqrt(squares / count)),
        negative=_rounded(negative / count),
        sketch=_sketch(sums),
    )


def _sketch(mean: np.ndarray) -> tuple[float, ...]:
    signs = np.random.default_rng(len(mean)).choice((-1.0, 1.0), (len(mean), SKETCH))
    seen = mean @ signs
    length = float(np.linalg.norm(seen)) or 1.0
    return tuple(round(float(value), 3) for value in seen / length)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
