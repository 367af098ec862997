"""Pictures of the embedded cohort's slides: an H&E cartoon whose looks follow a hidden state.

Drawn as concentrations of the two stains (`optics.py` turns them into light). What the state does:

- tumour_fraction: share of the tissue that is tumour nests rather than pink stroma;
- pleomorphism: size, inequality, irregularity and darkness of the tumour's nuclei;
- lymphocytes: how many small round dark nuclei lie in the stroma, and some in the nests;
- growth: from glands with lumens over solid nests to thin cords.

Sites differ in their stains and slides vary a little more, as they do.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.synthetic import nuclei
from pipeline.cohort.synthetic.optics import BAND, Image, develop
from pipeline.cohort.synthetic.tissue import (
    GRID,
    Field,
    Layout,
    enlarge,
    fibre_angle,
    jittered_grid,
    lay_out,
    sample,
)

# Raised when the embedded cohort's slides look different. 1: the first.
VERSION = 1

TEXTURE_UM = 0.5


@dataclasses.dataclass(frozen=True)
class Picture:
    """What to draw.

    Attributes:
        width, height: pixels at level 0.
        mpp: µm per pixel.
        site: whose stains.
        tumour_fraction, pleomorphism, lymphocytes, growth: the state.
        tissue: False for a blank slide.
        pen: colour of a pen mark, or ''.
        seed: of this slide.
    """

    width: int
    height: int
    mpp: float
    site: str
    tumour_fraction: float
    pleomorphism: float
    lymphocytes: float
    growth: float
    tissue: bool
    pen: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Sketch:
    """A slide before it is painted: where things lie, and the generator that goes on from there."""

    rng: np.random.Generator
    layout: Layout | None


def sketch(picture: Picture) -> Sketch:
    """Lay out a slide; a blank one has no layout."""
    rng = np.random.default_rng(picture.seed)
    if not picture.tissue:
        return Sketch(rng, None)
    size_um = (picture.width * picture.mpp, picture.height * picture.mpp)
    return Sketch(rng, lay_out(rng, *size_um, picture.tumour_fraction, picture.growth))


def paint(picture: Picture, begun: Sketch | None = None) -> Image:
    """Draw a slide at level 0.

    Args:
        picture: what to draw.
        begun: its sketch, which is used up; None: it is made here.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    begun = begun or sketch(picture)
    rng, layout = begun.rng, begun.layout
    mpp = picture.mpp
    h, e = (np.zeros((picture.height, picture.width), np.float32) for _ in range(2))
    tint = None
    if layout is not None:
        grain = np.roll(_grain(), rng.integers(0, BAND, 2), (0, 1))
        grain = np.tile(grain, (1, math.ceil(picture.width / BAND)))[:, : picture.width]
        for top in range(0, picture.height, BAND):
            rows = slice(top, min(top + BAND, picture.height))
            _areas(h[rows], e[rows], layout, grain[: rows.stop - top], picture, top)
        _cells(rng, h, e, layout, picture)
        _vessels(rng, h, e, layout, mpp)
        tint = layout.tint
    _dust(rng, h, mpp)
    return develop(rng, h, e, tint, picture.site, picture.pen, mpp)


# --- areas ----------------------------------------------------------------------------------------


def _areas(h: Field, e: Field, layout: Layout, grain: Field, picture: Picture, top: int) -> None:
    """A band of rows: stroma with its fibres, nests with their cytoplasm, lumens and fat, in place.

    Args:
        h, e: the band of the stain maps.
        layout: of the slide.
        grain: fine texture of the band's shape, unit normal.
        picture: what to draw.
        top: the band's first row.
    """
    mpp, growth = picture.mpp, picture.growth

    def inside(field: Field, softness: float) -> Field:
        """Cover in [0, 1] of where a field is positive; it rises while the field does by this."""
        cover = enlarge(field, h.shape, mpp, top)
        cover *= 1 / softness
        cover += 0.5
        return np.clip(cover, 0, 1, out=cover)

    fibre = cv2.remap(
        _fibre_texture(),
        enlarge(layout.fibre_u, h.shape, mpp, top) / TEXTURE_UM,
        enlarge(layout.fibre_v, h.shape, mpp, top) / TEXTURE_UM,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    # Collagen: dense pink bundles with pale clefts; looser and bluish around cords of cells.
    e[:] = 0.54 - 0.10 * growth + (0.08 + 0.07 * growth) * fibre + 0.03 * grain
    np.maximum(e, 0.07, out=e)
    h[:] = 0.04 + 0.06 * growth
    # Cytoplasm: pale with mucin in glands, dense in cords.
    nest = inside(layout.nests, 0.12)
    e += nest * (0.20 + 0.30 * growth + 0.03 * grain - e)
    h += nest * (0.18 + 0.10 * growth + 0.03 * grain - h)
    # Fat cells are empty down to the thin membranes between them.
    vacuoles = np.minimum((layout.membranes - 1.6) / 4.0, layout.fat * 4)
    vacuoles = np.minimum(vacuoles, (layout.tissue - 12) / 10)
    open_space = np.maximum(inside(layout.lumens, 0.25), inside(vacuoles, 1.0))
    solid = inside(layout.tissue, 6.0) * (1 - 0.96 * open_space)
    e *= solid
    h *= solid


def _vessels(rng: np.random.Generator, h: Field, e: Field, layout: Layout, mpp: float) -> None:
    """A few vessels: a pink wall around red cells."""
    rows, columns = layout.tissue.shape
    points = rng.uniform(0, 1, (14, 2)).astype(np.float32) * (columns * GRID, rows * GRID)
    inside = (sample(layout.tissue, points) > 60) & (sample(layout.nests, points) < 0)
    for x, y in (points[inside & (sample(layout.fat, points) < 0)] / mpp)[:6]:
        axes = rng.uniform(9, 26, 2) / mpp
        box = ((float(x), float(y)), tuple(2 * axes), float(rng.uniform(0, 180)))
        wall = ((float(x), float(y)), tuple(2 * axes + 14 / mpp), box[2])
        cv2.ellipse(e, wall, 0.62, -1, cv2.LINE_AA)
        cv2.ellipse(h, wall, 0.08, -1, cv2.LINE_AA)
        cv2.ellipse(e, box, 0.06, -1, cv2.LINE_AA)
        cv2.ellipse(h, box, 0.02, -1, cv2.LINE_AA)
        for _ in range(int(axes.prod() * mpp**2 / 14)):
            r, t = math.sqrt(rng.uniform(0, 0.8)), rng.uniform(0, 2 * math.pi)
            turn = math.radians(box[2])
            a, b = axes[0] * r * math.cos(t), axes[1] * r * math.sin(t)
            cx = x + a * math.cos(turn) - b * math.sin(turn)
            cy = y + a * math.sin(turn) + b * math.cos(turn)
            cell = ((float(cx), float(cy)), (6.5 / mpp, 6.0 / mpp), 0.0)
            cv2.ellipse(e, cell, float(rng.uniform(0.7, 0.95)), -1, cv2.LINE_AA)


# --- cells ----------------------------------------------------------------------------------------


def _cells(rng: np.random.Generator, h: Field, e: Field, layout: Layout, picture: Picture) -> None:
    """Nuclei of stroma, tumour and lymphocytes, in place."""
    mpp = picture.mpp
    size = (picture.width * mpp, picture.height * mpp)

    def scatter(spacing: float, jitter: float) -> tuple[Field, Field, Field]:
        """Points in solid tissue; how deep in a nest (NaN in a lumen); how much they infiltrate."""
        points = jittered_grid(rng, *size, spacing, jitter)
        solid = (sample(layout.tissue, points) > 5) & (sample(layout.fat, points) < 0)
        points = points[solid]
        open_space = sample(layout.lumens, points) > -0.05
        nest = np.where(open_space, np.nan, sample(layout.nests, points))
        return points, nest, sample(layout.infiltrate, points)

    points, nest, _ = scatter(24.0, 0.45)
    points = points[nest < -0.05]
    turn = sample(fibre_angle(layout), points) % math.pi
    angles = (np.arange(nuclei.ATLAS) / nuclei.ATLAS * math.pi).astype(np.float32)
    which = (turn / math.pi * nuclei.ATLAS).astype(np.intp) % nuclei.ATLAS
    atlas = nuclei.draw_atlas(rng, nuclei.FIBROBLAST, mpp, angles)
    nuclei.stamp(h, e, atlas, points, which, mpp)

    spacing = (9.8 + 1.6 * picture.pleomorphism) * rng.uniform(0.96, 1.04)
    points, nest, _ = scatter(spacing, 0.32)
    points = points[nest > 0.02]
    points = points[rng.random(len(points)) < 0.94]
    atlas = nuclei.draw_atlas(rng, nuclei.tumour_kind(picture.pleomorphism), mpp)
    nuclei.stamp(h, e, atlas, points, _any(rng, len(points)), mpp)

    points, nest, gather = scatter(7.0, 0.30)
    chance = (0.01 + 0.37 * picture.lymphocytes) * np.exp(0.9 * gather - 0.4)
    chance = chance.clip(0, 0.92) * np.where(nest > 0, 0.25, 1.0)
    points = points[(rng.random(len(points)) < chance) & ~np.isnan(nest)]
    atlas = nuclei.draw_atlas(rng, nuclei.LYMPHOCYTE, mpp)
    nuclei.stamp(h, e, atlas, points, _any(rng, len(points)), mpp)


def _any(rng: np.random.Generator, n: int) -> NDArray[np.intp]:
    return rng.integers(0, nuclei.ATLAS, n).astype(np.intp)


def _dust(rng: np.random.Generator, h: Field, mpp: float) -> None:
    height, width = h.shape
    for _ in range(int(rng.integers(3, 12))):
        centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        axes = tuple(float(a) for a in rng.uniform(2, 9, 2) / mpp)
        spot = float(rng.uniform(0.1, 0.5))
        cv2.ellipse(h, (centre, axes, float(rng.uniform(0, 180))), spot, -1, cv2.LINE_AA)


# --- textures, the same for every slide -----------------------------------------------------------


@lru_cache(maxsize=1)
def _fibre_texture() -> Field:
    """Streaks along x that wrap around, unit normal."""
    rng = np.random.default_rng(0)
    total = np.zeros((BAND, BAND), np.float32)
    for long, across, weight in ((70, 5.0, 1.0), (36, 2.2, 0.9), (16, 0.9, 0.5)):
        white = rng.standard_normal(total.shape, np.float32)
        total += weight * _standard(_wrapped_blur(white, long, across))
    return _standard(total)


@lru_cache(maxsize=1)
def _grain() -> Field:
    """Fine grain that wraps around, unit normal."""
    white = np.random.default_rng(1).standard_normal((BAND, BAND), np.float32)
    return _standard(_wrapped_blur(white, 1.2, 1.2))


def _wrapped_blur(field: Field, along: float, across: float) -> Field:
    margin = math.ceil(3 * max(along, across))
    padded = np.pad(field, margin, mode="wrap")
    blurred = cv2.GaussianBlur(padded, (0, 0), sigmaX=along, sigmaY=across)
    return blurred[margin:-margin, margin:-margin]


def _standard(field: Field) -> Field:
    return np.ascontiguousarray((field - field.mean()) / field.std(), np.float32)
