"""Where the tissue is: one function per method, one clean-up for all of them.

A method takes the low-magnification picture and says for each pixel whether it is tissue. Areas
are in µm², so that a setting means the same on every scanner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.config.tiling import TissueConfig
from pipeline.slides.pixels import Image
from pipeline.slides.tile_coverage import Mask

# Saturation (0-255) of glass ends below 10 on every scanner seen; stained tissue starts by 30.
OTSU_RANGE = (10, 30)
ENTROPY_RANGE = (1.0, 2.5)  # bits
ENTROPY_BINS = 32
ENTROPY_WINDOW_UM = 72.0
SMOOTHING_UM = 24.0
CLOSING_UM = 24.0
SPECK_UM2 = 500.0  # about what the closing makes of one dark pixel
CLAM_REFERENCE_MPP = 16.0  # CLAM's kernels are pixels of a 64x downsampled 40x slide
CLAM_REFERENCE_PATCH = 512

# CLAM's presets: saturation threshold, median kernel, closing kernel, smallest tissue and smallest
# hole (both in patches of 512 x 512 level-0 pixels), largest number of holes.
# (github.com/mahmoodlab/CLAM: create_patches_fp.py and presets/*.csv)
CLAM_PRESETS: dict[str, tuple[int, int, int, float, float, int]] = {
    "default": (8, 7, 4, 100, 16, 8),
    "tcga": (8, 7, 4, 16, 4, 8),
    "bwh_biopsy": (15, 11, 2, 1, 1, 2),
    "bwh_resection": (15, 11, 4, 100, 16, 8),
}


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What a method found.

    Attributes:
        tissue: uint8 (H, W), 1 = tissue; small pieces dropped and small holes filled.
        small: uint8 (H, W), 1 = pieces that were dropped because they are small; what is below
            `SPECK_UM2` is dust and does not count as a piece.
    """

    tissue: Mask
    small: Mask


def segment(image: Image, mpp: float, mpp0: float, cfg: TissueConfig, ignore: Mask) -> Segmentation:
    """Find the tissue.

    Args:
        image: uint8 (H, W, 3) RGB.
        mpp: its µm per pixel.
        mpp0: µm per pixel of level 0 (CLAM counts areas in level-0 pixels).
        cfg: method, areas.
        ignore: pixels to leave out of thresholds (pen); they may come out as tissue or not.
    """
    if cfg.method == "clam":
        mask, tissue = _clam(image, mpp, mpp0, cfg.clam_preset)
    else:
        mask = _METHODS[cfg.method](image, mpp, cfg, ignore)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _disc(CLOSING_UM / mpp))
        tissue = clean(mask, cfg.min_area_um2 / mpp**2, cfg.min_hole_um2 / mpp**2)
    return Segmentation(tissue, drop_small(mask & (1 - tissue), SPECK_UM2 / mpp**2))


def clean(mask: Mask, min_area: float, min_hole: float, max_holes: int | None = None) -> Mask:
    """Fill holes below `min_hole` pixels, then drop pieces below `min_area` pixels.

    Works on outlines, whose areas follow from Pick's theorem, and not on pixels: labelling every
    pixel of a large slide takes ten times as long.

    Args:
        min_area: of a piece, in mask pixels.
        min_hole: of a hole, in mask pixels.
        mask: uint8 (H, W), 0 or 1. What touches the border from outside is no hole.
        max_holes: keep at most this many holes per slide, the largest; None for all.
    """
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return mask
    area = np.array([cv2.contourArea(contour) for contour in contours])
    edge = np.array([len(contour) for contour in contours]) / 2
    parent = hierarchy[0, :, 3]
    # A hole's outline runs through the pixels around it, a piece's through its own.
    hole = parent >= 0
    pixels = np.where(hole, area - edge + 1, area + edge + 1)
    filled = hole & (pixels < min_hole)
    if max_holes is not None:
        kept = np.flatnonzero(hole & ~filled)
        filled[kept[np.argsort(-pixels[kept], kind="stable")][max_holes:]] = True
    open_holes = np.bincount(
        parent[hole & ~filled], weights=pixels[hole & ~filled], minlength=len(contours)
    )
    dropped = ~hole & (pixels - open_holes < min_area)
    result = mask.copy()
    for chosen, value in ((filled, 1), (dropped, 0)):
        outlines = [contours[int(i)] for i in np.flatnonzero(chosen)]
        cv2.drawContours(result, outlines, -1, value, cv2.FILLED)
    return result


def drop_small(mask: Mask, min_area: float) -> Mask:
    """The mask without connected pieces below `min_area` pixels."""
    return clean(mask, min_area, 0)


def count_pieces(mask: Mask) -> int:
    """The number of connected pieces."""
    return len(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0])


def white_balance(image: Image) -> Image:
    """The picture with its glass made white, so that a tinted scan segments like a clean one.

    Glass is what is nearly as bright as the brightest percentile. Pure white (255, 255, 255) is
    padding and does not count. Without bright pixels (a field full of tissue) nothing changes.
    """
    some = image[::2, ::2]
    grey = cv2.cvtColor(np.ascontiguousarray(some), cv2.COLOR_RGB2GRAY)
    counts = np.bincount(grey.ravel(), minlength=256)
    counts[255] = 0
    total = counts.sum()
    if total < 0.001 * grey.size:
        return image
    top = int(np.searchsorted(np.cumsum(counts), 0.99 * total))
    if top < 200:
        return image
    white = np.maximum(np.median(some[(grey >= 0.95 * top) & (grey < 255)], axis=0), 1.0)
    table = np.clip(np.arange(256)[:, None] * (255.0 / white), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def otsu_threshold(histogram: npt.NDArray[np.integer]) -> int:
    """The level t that best splits values <= t from values > t (Otsu 1979, eq. 18)."""
    counts = histogram.astype(np.float64)
    below = np.cumsum(counts)
    mass = np.cumsum(counts * np.arange(len(counts)))
    split = below * (below[-1] - below)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.where(split > 0, (mass[-1] * below / below[-1] - mass) ** 2 / split, -1.0)
    return int(np.argmax(between))


def two_pass_otsu(histogram: npt.NDArray[np.integer]) -> int:
    """Otsu on what lies below Otsu's threshold.

    One pass splits strong from weak stain on a strongly stained slide; the second splits weak
    stain from glass.
    """
    first = otsu_threshold(histogram)
    rest = np.where(np.arange(len(histogram)) <= first, histogram, 0)
    return otsu_threshold(rest) if np.count_nonzero(rest) > 1 else first


def _otsu(image: Image, mpp: float, cfg: TissueConfig, ignore: Mask) -> Mask:
    saturation = cv2.cvtColor(white_balance(image), cv2.COLOR_RGB2HSV)[..., 1]
    saturation = cv2.medianBlur(np.ascontiguousarray(saturation), _odd(SMOOTHING_UM / mpp))
    histogram = np.bincount(saturation[ignore == 0], minlength=256)
    threshold = int(np.clip(two_pass_otsu(histogram), *OTSU_RANGE))
    return (saturation > threshold).astype(np.uint8)


def _entropy(image: Image, mpp: float, cfg: TissueConfig, ignore: Mask) -> Mask:
    """Local grey-level entropy: pale tissue has structure where it has no colour."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    width = 256 // ENTROPY_BINS
    # The commonest bright level stands in the middle of its bin, so that noise does not split it.
    mode = 128 + int(np.argmax(np.bincount(grey.ravel(), minlength=256)[128:]))
    binned = (grey.astype(np.int16) - mode + width // 2) // width
    side = _odd(ENTROPY_WINDOW_UM / mpp)
    entropy = np.zeros(grey.shape, np.float32)
    for level in np.unique(binned):
        share = cv2.blur((binned == level).astype(np.float32), (side, side))
        entropy -= share * np.log2(np.maximum(share, 1e-9))
    scaled = np.clip(entropy * 32, 0, 255).astype(np.uint8)  # 8 bits at most
    threshold = two_pass_otsu(np.bincount(scaled[ignore == 0], minlength=256)) / 32
    mask = (entropy > np.clip(threshold, *ENTROPY_RANGE)).astype(np.uint8)
    # The window sees tissue half its width before it is there.
    return cv2.erode(mask, _disc(side / 2))


def _learned(image: Image, mpp: float, cfg: TissueConfig, ignore: Mask) -> Mask:
    from pipeline.slides.learned import segment_learned

    return segment_learned(image, mpp, str(cfg.weights))


def _clam(image: Image, mpp: float, mpp0: float, preset: str) -> tuple[Mask, Mask]:
    """CLAM's segmentation before and after its clean-up.

    Its kernels, made for 16 µm/px, are scaled to the picture's.
    """
    threshold, median, close, area, hole, holes = CLAM_PRESETS[preset]
    scale = CLAM_REFERENCE_MPP / mpp
    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1]
    saturation = cv2.medianBlur(np.ascontiguousarray(saturation), _odd(median * scale))
    mask = (saturation > threshold).astype(np.uint8)
    side = max(1, round(close * scale))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    patch = (CLAM_REFERENCE_PATCH * mpp0 / mpp) ** 2
    return mask, clean(mask, area * patch, hole * patch, holes)


_METHODS: dict[str, Callable[[Image, float, TissueConfig, Mask], Mask]] = {
    "otsu": _otsu,
    "entropy": _entropy,
    "learned": _learned,
}


def _odd(size: float) -> int:
    """The nearest odd number, at least 3."""
    return max(3, 2 * round((size - 1) / 2) + 1)


def _disc(radius: float) -> npt.NDArray[np.uint8]:
    size = max(3, 2 * round(radius / 2) + 1)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
