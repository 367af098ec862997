"""From stain to light: colours of the stains, a pen on the glass, the scanner's blur and noise.

Concentrations become colour by Beer-Lambert's law: light passes as exp(-concentration x absorption)
(Ruifrok and Johnston, 2001). Done in bands of rows, so that memory is that of the stain maps.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.cohort.synthetic.tissue import GRID, Field, enlarge, noise

Image = NDArray[np.uint8]

# Absorption of unit haematoxylin and eosin in red, green, blue (Macenko et al., 2009).
HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062], np.float32)
EOSIN = np.array([0.2159, 0.8012, 0.5581], np.float32)

# Per site: strength of the two stains, and a shift of the haematoxylin towards blue or red.
SITE_STAINS = {
    "north": (1.00, 1.00, 0.000),
    "east": (1.05, 0.97, 0.020),
    "south": (0.97, 1.04, -0.010),
    "west": (1.02, 0.99, -0.025),
    "harbour": (1.12, 0.93, 0.030),  # the second hospital's, of an external cohort
}
PEN_COLOURS = {
    "blue": (40, 60, 170),
    "green": (20, 120, 70),
    "black": (35, 35, 40),
    "red": (190, 30, 50),
}
WHITE = np.array([243.0, 242.0, 244.0], np.float32)
BLUR_UM = 0.32
BAND = 1024


@dataclasses.dataclass(frozen=True)
class Pen:
    """A mark on the glass: `cover` (height, width) uint8, 255 where only the ink's light passes."""

    cover: NDArray[np.uint8]
    colour: tuple[int, int, int]


def develop(
    rng: np.random.Generator,
    haematoxylin: Field,
    eosin: Field,
    tint: Field | None,
    site: str,
    pen: str,
    mpp: float,
) -> Image:
    """The scanned picture of stain maps.

    Args:
        rng: of the slide.
        haematoxylin, eosin: (height, width) concentrations.
        tint: slow change of staining on the coarse grid, unit normal; None: none.
        site: whose stains; a slide varies a little around them.
        pen: colour of a pen mark, or ''.
        mpp: µm per pixel.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    height, width = haematoxylin.shape
    matrix = _absorption(rng, site)
    white = WHITE + rng.uniform(-2, 2, 3).astype(np.float32)
    mark = _pen(rng, (height, width), pen, mpp) if pen else None
    speckle = _speckle(rng, width)
    sigma = BLUR_UM / mpp
    halo = math.ceil(4 * sigma)
    image = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, BAND):
        bottom = min(top + BAND, height)
        rows = slice(max(top - halo, 0), min(bottom + halo, height))
        h, e = haematoxylin[rows], eosin[rows]
        if tint is not None:
            slow = enlarge(tint, h.shape, mpp, rows.start)
            h, e = h * (1 + np.float32(0.03) * slow), e * (1 - np.float32(0.04) * slow)
        light = cv2.transform(cv2.merge([h, e]), matrix)
        cv2.exp(light, light)
        light *= white
        if mark is not None:
            ink = 1 - np.array(mark.colour, np.float32) / 255
            light *= 1 - mark.cover[rows][..., None] * (ink / 255)
        light = cv2.GaussianBlur(light, (0, 0), sigma)[top - rows.start :][: bottom - top]
        light += speckle[: bottom - top]
        np.clip(np.rint(light, out=light), 0, 255, out=light)
        image[top:bottom] = light
    return image


def _absorption(rng: np.random.Generator, site: str) -> NDArray[np.float32]:
    """(3, 2): minus the absorption of unit haematoxylin and eosin in red, green and blue."""
    strength_h, strength_e, shift = SITE_STAINS[site]
    strength_h *= rng.uniform(0.97, 1.03)
    strength_e *= rng.uniform(0.96, 1.04)
    shift += rng.uniform(-0.012, 0.012)
    vector_h = HAEMATOXYLIN + np.array([shift, 0, -shift], np.float32)
    return -np.stack([vector_h * strength_h, EOSIN * strength_e], axis=1).astype(np.float32)


def _pen(rng: np.random.Generator, shape: tuple[int, int], colour: str, mpp: float) -> Pen:
    """A felt-tip stroke along one side, over glass and tissue."""
    height, width = shape
    t = np.linspace(0, 1, 60)
    wave = 0.05 * np.sin(2 * math.pi * (1.3 * t + rng.uniform())) + 0.02 * np.sin(17 * t)
    along, across = 0.1 + 0.8 * t * rng.uniform(0.6, 1.0), rng.uniform(0.08, 0.16) + wave
    if rng.random() < 0.5:
        across = 1 - across
    x, y = (along, across) if rng.random() < 0.5 else (across, along)
    cover = np.zeros(shape, np.uint8)
    line = np.stack([x * width, y * height], axis=1).round().astype(np.int32)[:, None]
    cv2.polylines(cover, [line], False, 255, round(rng.uniform(45, 75) / mpp), cv2.LINE_AA)
    # Ink is uneven along the stroke.
    coarse = (math.ceil(height * mpp / GRID) + 1, math.ceil(width * mpp / GRID) + 1)
    depth = np.float32(0.9) + np.float32(0.05) * noise(rng, coarse, 30.0).clip(-2, 2)
    for top in range(0, height, BAND):
        band = cover[top : top + BAND]
        band[:] = band * enlarge(depth, band.shape, mpp, top)
    return Pen(cover, PEN_COLOURS[colour])


def _speckle(rng: np.random.Generator, width: int) -> NDArray[np.float32]:
    """The sensor's noise for one band of rows: (BAND, width, 3)."""
    shifted = np.roll(_white_noise(), rng.integers(0, BAND, 2), (0, 1))
    tile = shifted * np.float32(rng.uniform(1.0, 2.4))
    return np.tile(tile, (1, math.ceil(width / BAND), 1))[:, :width]


@lru_cache(maxsize=1)
def _white_noise() -> NDArray[np.float32]:
    return np.random.default_rng(2).standard_normal((BAND, BAND, 3), np.float32)
