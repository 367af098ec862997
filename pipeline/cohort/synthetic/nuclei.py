"""Nuclei: how a kind of cell looks, where its cells lie, and stamping them into the stain maps.

A kind's nuclei are drawn once per slide as an atlas of small pictures and then stamped thousands of
times, a batch at once.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.synthetic.tissue import Field

BATCH = 1024
ATLAS = 96


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of nucleus.

    Attributes:
        radius: mean radius in µm.
        size_spread: standard deviation of the log-radius.
        elongation: long over short axis.
        irregularity: relative depth of the outline's dents.
        stain: mean haematoxylin concentration.
        stain_spread: its standard deviation over nuclei.
        clearing: 0: even chromatin; 1: a pale centre with a dark rim (vesicular).
        nucleoli: share of nuclei with a dark nucleolus.
        eosin: eosin concentration: low is blue-black, high is reddish.
    """

    radius: float
    size_spread: float
    elongation: float
    irregularity: float
    stain: float
    stain_spread: float
    clearing: float = 0.0
    nucleoli: float = 0.0
    eosin: float = 0.25


def tumour_kind(pleomorphism: float) -> Kind:
    """From small even nuclei (0) to large, irregular, unequal ones with reddish nucleoli (1)."""
    p = pleomorphism
    return Kind(
        radius=3.0 + 2.1 * p,
        size_spread=0.08 + 0.27 * p,
        elongation=1.25,
        irregularity=0.03 + 0.13 * p,
        stain=1.0 + 0.25 * p,
        stain_spread=0.06 + 0.26 * p,
        clearing=0.25 + 0.35 * p,
        nucleoli=0.15 + 0.75 * p,
        eosin=0.14 + 0.40 * p,
    )


LYMPHOCYTE = Kind(2.9, 0.08, 1.08, 0.03, 1.9, 0.10, eosin=0.08)
FIBROBLAST = Kind(2.3, 0.18, 3.6, 0.05, 1.05, 0.15)


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Pictures of one kind.

    Attributes:
        cover: (N, S, S) float32 in [0, 1], where the nucleus lies.
        stain: (N, S, S) float32, its haematoxylin.
        eosin: the same all over.
    """

    cover: NDArray[np.float32]
    stain: NDArray[np.float32]
    eosin: float


def draw_atlas(
    rng: np.random.Generator, kind: Kind, mpp: float, angles: NDArray[np.float32] | None = None
) -> Atlas:
    """Draw ATLAS nuclei of a kind.

    Args:
        rng: of the slide.
        kind: what they look like.
        mpp: µm per pixel.
        angles: (ATLAS,) direction of the long axis in radians; random when None.
    """
    n = ATLAS
    radius = kind.radius * np.exp(kind.size_spread * rng.standard_normal(n).clip(-2.2, 2.2))
    angle = rng.uniform(0, math.pi, n) if angles is None else angles
    stretch = np.maximum(1.0, kind.elongation * (1 + 0.12 * rng.standard_normal(n)))
    side = 2 * math.ceil(float((radius * np.sqrt(stretch)).max()) * 1.35 / mpp) + 3
    axis = (np.arange(side, dtype=np.float32) - side // 2) * np.float32(mpp)
    x, y = axis[None, None, :], axis[None, :, None]
    cos, sin = (f(angle).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    root = np.sqrt(stretch).astype(np.float32)[:, None, None]
    u = ((x * cos + y * sin) / root).astype(np.float32, copy=False)
    v = ((y * cos - x * sin) * root).astype(np.float32, copy=False)
    # Outline: a circle with a few low harmonics, in the stretched frame.
    theta = np.arctan2(v, u)
    outline = np.ones_like(theta)
    for harmonic in (2, 3, 4, 5):
        depth = (kind.irregularity * rng.standard_normal(n) / (harmonic - 1)).astype(np.float32)
        phase = rng.uniform(0, 2 * math.pi, n).astype(np.float32)
        outline += depth[:, None, None] * np.cos(harmonic * theta + phase[:, None, None])
    r = radius.astype(np.float32)[:, None, None]
    reach = r * np.maximum(outline, np.float32(0.45))
    distance = (np.hypot(u, v) / reach).astype(np.float32, copy=False)
    cover: Field = np.clip((1 - distance) * r / np.float32(mpp) + 0.5, 0, 1)
    return Atlas(cover, _chromatin(rng, kind, distance, u, v, r), kind.eosin)


def _chromatin(
    rng: np.random.Generator, kind: Kind, distance: Field, u: Field, v: Field, r: Field
) -> NDArray[np.float32]:
    n = len(distance)
    stain = (kind.stain + kind.stain_spread * rng.standard_normal(n)).clip(0.35, 2.2)
    profile = 1 + kind.clearing * (np.minimum(distance, 1.0) ** 2 - 0.55)
    grain = 1 + 0.14 * rng.standard_normal(distance.shape, np.float32)
    value = stain.astype(np.float32)[:, None, None] * profile * grain
    has = (rng.random(n) < kind.nucleoli).astype(np.float32)[:, None, None]
    at = (rng.uniform(-0.3, 0.3, (2, n)).astype(np.float32))[:, :, None, None] * r
    spot = np.exp(-((u - at[0]) ** 2 + (v - at[1]) ** 2) / (0.24 * r) ** 2)
    return (value + has * 0.75 * spot).astype(np.float32)


def stamp(
    haematoxylin: Field,
    eosin: Field,
    atlas: Atlas,
    points: NDArray[np.float32],
    which: NDArray[np.intp],
    mpp: float,
) -> None:
    """Lay nuclei over the stain maps, in place.

    Args:
        haematoxylin, eosin: (height, width) stain concentrations.
        atlas: pictures of the kind.
        points: (N, 2) centres (x, y) in µm; those too near the edge are left out.
        which: (N,) picture of each.
        mpp: µm per pixel of the maps.
    """
    height, width = haematoxylin.shape
    side = atlas.cover.shape[1]
    corner = np.rint(points / mpp).astype(np.intp) - side // 2
    fits = ((corner >= 0) & (corner + side <= (width, height))).all(axis=1)
    corner, which = corner[fits], which[fits]
    order = np.lexsort((corner[:, 0], corner[:, 1] // 256))
    steps = (np.arange(side)[:, None] * width + np.arange(side)).ravel()
    cover, stain = (a.reshape(len(a), -1) for a in (atlas.cover, atlas.stain))
    flat_h, flat_e = haematoxylin.reshape(-1), eosin.reshape(-1)
    for start in range(0, len(order), BATCH):
        now = order[start : start + BATCH]
        at = (corner[now, 1] * width + corner[now, 0])[:, None] + steps
        a, dye = cover[which[now]], stain[which[now]]
        # Pictures overlap at their empty corners: only what a nucleus covers is written.
        seen = a > 0
        at, a, dye = at[seen], a[seen], dye[seen]
        under = flat_h[at]
        flat_h[at] = under + a * (dye - under)
        under = flat_e[at]
        flat_e[at] = under + a * (np.float32(atlas.eosin) - under)
