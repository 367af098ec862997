"""Whether a slide's colours can be those of haematoxylin and eosin on clear glass.

Judged on the low-magnification picture, by measures that lie far apart on sound and spoilt slides.
Sound here: an Aperio scan of 2003 (CMU-1), a frozen section of TCGA, parts of both with hardly any
glass, gamma 0.7 to 1.4, half and one and a half of their haematoxylin, 0.4 to 1.8 of their eosin,
and the embedded cohort. Spoilt: the same, and brown IHC (haematoxylin and DAB).

- The channels' agreement, the least correlation of two of them over the picture: sound 0.69 and
  more, IHC 0.82 and more; YCbCr read as RGB -0.17 and less, RGB read as YCbCr -0.17 and less.
- The glass, the largest minus the smallest channel of its colour: sound 0 to 10; one channel at
  85 % 32 to 40, three at 80, 90 and 100 % 44 to 54.
- Order, how much more blue than red is absorbed by the more eosin-like of the two stains: sound
  0.15 and more; red and blue exchanged -0.15 and less.
- How much green that stain absorbs: sound 0.70 and more, IHC 0.66 and less.
- Brown, how much more blue than green one of the two absorbs: sound -0.02 and less, IHC 0.15 and
  more.

A doubt is no proof: another stain, or a slide full of brown pigment, is told of as well.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.slides.pixels import Image
from pipeline.slides.tile_coverage import Mask

MIN_AGREEMENT = 0.25
MAX_CAST = 25.0
MIN_ORDER = -0.05
MIN_PINK_GREEN = 0.68
EOSIN_GREEN = 0.74  # haematoxylin absorbs less green, on slides of whatever second stain
MAX_BROWN = 0.05

SAMPLE = 200_000  # pixels
CONTRAST = 15.0  # grey levels that a picture must span to be judged
LEAST = 300  # stained pixels below which stains are not judged
PALE, EVEN = 6.0, 0.05  # grey levels around the glass's colour, and the share that glass needs
WHITE, BRIGHT = np.full(3, 255.0), 200.0  # for pictures without glass; below this is none
PINK_GLASS = 0.75  # what is brightest and absorbs green like this may be tissue
STAINED = 0.15  # length of a pixel's optical density
EXTREMES = (1.0, 99.0)  # percentiles of the angle

Vector = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Colours:
    """What was found.

    Attributes:
        agreement: the least correlation of two channels.
        glass: RGB of what is brightest.
        cast: whether there is enough even glass to judge its colour, and it is not grey.
        stains: unit optical densities (R, G, B) of the two stains that span the tissue, the one
            more like eosin first; None where too little is stained.
        doubts: what cannot be right, in a sentence each.
    """

    agreement: float
    glass: tuple[int, int, int]
    cast: bool
    stains: tuple[Vector, Vector] | None
    doubts: tuple[str, ...]

    @property
    def hues_hold(self) -> bool:
        """Whether a hue means what it means on a sound slide, once a cast is taken away."""
        return len(self.doubts) == self.cast

    def facts(self) -> dict[str, object]:
        """For the slide's record."""
        names = ("pink", "other")
        found = {n: v.round(3).tolist() for n, v in zip(names, self.stains or (), strict=False)}
        return {"agreement": round(self.agreement, 3), "glass": list(self.glass), **found}


def judge(image: Image, tissue: Mask) -> Colours:
    """Look at a slide's colours.

    Args:
        image: uint8 (H, W, 3) RGB. Pure white is padding.
        tissue: uint8 (H, W), 1 where tissue is, without pen.
    """
    step = max(1, round(np.sqrt(tissue.size / SAMPLE)))
    image, tissue = np.ascontiguousarray(image[::step, ::step]), tissue[::step, ::step]
    pixels = image[(image < 255).any(axis=2)].astype(np.float32)
    grey = pixels.mean(axis=1)
    if len(pixels) < LEAST or np.ptp(np.quantile(grey, (0.001, 0.999))) < CONTRAST:
        return Colours(1.0, (255, 255, 255), False, None, ())
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = np.asarray(np.corrcoef(pixels.T))
    pairs = correlation[np.triu_indices(3, 1)]
    agreement = float(np.nan_to_num(pairs).min())  # 0 for a channel that never changes
    bright = pixels[grey >= 0.95 * np.quantile(grey, 0.99)]
    glass = np.asarray(np.median(bright, axis=0), np.float64)
    clear = float(np.ptp(glass)) <= MAX_CAST and float(glass.mean()) >= BRIGHT
    even = float((np.abs(pixels - glass).max(axis=1) <= PALE).mean())
    cast = not clear and even >= EVEN and _green(glass) < PINK_GLASS
    stains = two_stains(image[tissue > 0], glass if clear or cast else WHITE)
    red, green, blue = (round(float(v)) for v in glass)
    doubts = []
    if agreement < MIN_AGREEMENT:
        # What else there is to say of such channels follows from this.
        doubts.append(
            f"the three channels do not darken together (correlation {agreement:.2f}), so they are "
            "not red, green and blue; YCbCr may be stored or tagged as RGB, or RGB as YCbCr"
        )
        cast = False
    else:
        if cast:
            doubts.append(f"the empty glass is not grey but R {red}, G {green}, B {blue}")
        if stains is not None:
            doubts += _doubts(*stains)
    return Colours(agreement, (red, green, blue), cast, stains, tuple(doubts))


def two_stains(pixels: Image, glass: Vector) -> tuple[Vector, Vector] | None:
    """The two stains that span the tissue's optical densities (Macenko et al. 2009).

    The extreme angles within the plane of the two largest singular vectors.

    Args:
        pixels: uint8 (n, 3) RGB of tissue.
        glass: (3,) RGB of what has no stain.

    Returns:
        two unit vectors (R, G, B), the one that absorbs more green first; None where fewer than
        `LEAST` pixels are stained.
    """
    density = -np.log10(np.maximum(pixels, 1) / np.maximum(glass, 1).astype(np.float64))
    density = density[np.linalg.norm(density, axis=1) > STAINED]
    if len(density) < LEAST:
        return None
    _, vectors = np.linalg.eigh(density.T @ density)
    across, along = vectors[:, 1], vectors[:, 2]
    along = along if (density @ along).mean() >= 0 else -along
    angles = np.percentile(np.arctan2(density @ across, density @ along), EXTREMES)
    first, second = (np.cos(a) * along + np.sin(a) * across for a in angles)
    return (first, second) if first[1] >= second[1] else (second, first)


def without_cast(image: Image, glass: tuple[int, int, int]) -> Image:
    """The picture with its glass made white."""
    table = np.arange(256)[:, None] * (255.0 / np.maximum(glass, 1))
    return cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])


def _green(colour: Vector) -> float:
    """The share of green in a colour's absorption, the length of which is 1."""
    density = -np.log10(np.maximum(colour, 1) / WHITE)
    return float(density[1] / max(1e-9, np.linalg.norm(density)))


def _doubts(pink: Vector, other: Vector) -> list[str]:
    reversed_order = pink[2] - pink[0] < MIN_ORDER
    if reversed_order and pink[1] >= EOSIN_GREEN:
        return [
            "what should be its eosin absorbs more red light than blue: red and blue are "
            "exchanged, or this is another stain"
        ]
    if max(v[2] - v[1] for v in (pink, other)) > MAX_BROWN:
        return ["one of its two stains is brown, like the DAB of immunohistochemistry"]
    if reversed_order or pink[1] < MIN_PINK_GREEN:
        return ["neither of its two stains is pink like eosin"]
    return []
