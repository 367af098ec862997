"""What lies on the glass or in the tissue and is not morphology: pen, blur, folds.

All three are judged on the low-magnification picture, are masks of its size and are shown in the
quality picture. They are deliberately cautious: a missed pen edge costs a few tiles, masked tumour
costs the study.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.slides.overview_scan import Survey
from pipeline.slides.pixels import Image
from pipeline.slides.tile_coverage import Mask
from pipeline.slides.tissue import drop_small


@dataclasses.dataclass(frozen=True)
class Ink:
    """Bounds of an ink's colour in OpenCV's HSV (hue 0-179): sure pixels, and their fringe.

    A piece counts only if it has sure pixels; the fringe is then taken with it.
    """

    hues: tuple[tuple[int, int], ...]
    sure_saturation: int
    sure_value: int
    fringe_saturation: int
    fringe_value: int


# In H&E at 8 µm/px haematoxylin lies at hues 120-150 with saturation below 150, eosin at 150-173,
# blood at 172-8 with saturation below 180. The inks keep clear of those; stains of other colours
# (trichrome, Alcian blue) do not, and need `remove_pen: false`.
INKS: dict[str, Ink] = {
    "green": Ink(((35, 92),), 80, 30, 30, 30),
    "blue": Ink(((93, 119),), 160, 30, 60, 30),
    "red": Ink(((0, 8), (173, 179)), 185, 150, 130, 70),
}
BLACK_VALUE, BLACK_FRINGE, BLACK_CHROMA = 70, 120, 40
MIN_INK_UM2 = 20_000.0  # sure pixels of a colour's largest mark; its others may be smaller
SMALLER_MARK = 0.1
INK_MARGIN_UM = 16.0

# Sharpness below the first is out of focus, and so is what touches it and lies below the second;
# see survey._sharpness.
BLURRED, BLUR_FRINGE = 1.0, 1.3
MIN_BLUR_UM2 = 25_000.0
FOLD_DEVIATIONS = 3.0
MIN_FOLD_UM2 = 5_000.0


def find_pen(image: Image, mpp: float) -> dict[str, Mask]:
    """Pen marks by colour: name -> uint8 (H, W), 1 = ink. Only colours that occur are listed."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    found: dict[str, Mask] = {}
    smallest = MIN_INK_UM2 / mpp**2
    for name, ink in INKS.items():
        sure = _in_range(hsv, ink.hues, ink.sure_saturation, ink.sure_value)
        if cv2.countNonZero(sure) >= smallest:
            fringe = _in_range(hsv, ink.hues, ink.fringe_saturation, ink.fringe_value)
            _add(found, name, sure, fringe, mpp)
    dark = (hsv[..., 2] < BLACK_VALUE).astype(np.uint8)
    if cv2.countNonZero(dark) >= smallest:
        chroma = image.max(axis=2) - image.min(axis=2)
        grey = (chroma < BLACK_CHROMA).astype(np.uint8)
        _add(found, "black", dark & grey, (hsv[..., 2] < BLACK_FRINGE).astype(np.uint8) & grey, mpp)
    return found


def find_blur(survey: Survey, tissue: Mask) -> Mask:
    """Tissue that is out of focus: uint8 like `tissue`."""
    empty = np.zeros_like(tissue)
    if survey.sharpness is None:
        return empty
    height, width = tissue.shape
    block = survey.block
    rows, columns = survey.sharpness.shape
    # Blocks that are mostly glass have edges of tissue only, or nothing at all.
    padded = np.zeros((round(rows * block), round(columns * block)), np.float32)
    padded[:height, :width] = tissue[: padded.shape[0], : padded.shape[1]]
    cover = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
    blurred = ((survey.sharpness < BLURRED) & (cover > 0.75)).astype(np.uint8)
    blurred = cv2.morphologyEx(blurred, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    blurred = drop_small(blurred, MIN_BLUR_UM2 / (block * survey.mpp) ** 2)
    fringe = ((survey.sharpness < BLUR_FRINGE) & (cover > 0.25)).astype(np.uint8)
    blurred |= cv2.dilate(blurred, np.ones((3, 3), np.uint8)) & fringe
    if not blurred.any():
        return empty
    spread = cv2.resize(blurred, padded.shape[::-1], interpolation=cv2.INTER_NEAREST)
    empty[: spread.shape[0], : spread.shape[1]] = spread[:height, :width]
    return empty & tissue


def find_folds(image: Image, mpp: float, tissue: Mask) -> Mask:
    """Folds: doubled tissue, darker and more saturated than the rest of its slide.

    The difference of saturation and value separates doubled from single tissue on any stain
    (Kothari et al., IEEE TMI 2013); here with a robust threshold per slide.

    Args:
        image: uint8 (H, W, 3).
        mpp: µm per pixel of the image.
        tissue: uint8 (H, W), 1 where tissue is.
    """
    if not tissue.any():
        return np.zeros_like(tissue)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.int16)
    excess = cv2.blur(hsv[..., 1] - hsv[..., 2], (3, 3))
    values = excess[tissue > 0]
    middle = np.median(values)
    spread = max(1.4826 * np.median(np.abs(values - middle)), 8.0)
    folds = ((excess > middle + FOLD_DEVIATIONS * spread) & (tissue > 0)).astype(np.uint8)
    folds = cv2.morphologyEx(folds, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return drop_small(folds, MIN_FOLD_UM2 / mpp**2) & tissue


def _in_range(
    hsv: npt.NDArray[np.uint8], hues: tuple[tuple[int, int], ...], saturation: int, value: int
) -> Mask:
    result = np.zeros(hsv.shape[:2], np.uint8)
    for low, high in hues:
        result |= cv2.inRange(hsv, (low, saturation, value), (high, 255, 255))
    return (result > 0).astype(np.uint8)


def _add(found: dict[str, Mask], name: str, sure: Mask, fringe: Mask, mpp: float) -> None:
    """Keep the pieces of `fringe` that hold enough sure pixels, with a margin."""
    count, labels = cv2.connectedComponents(fringe | sure, connectivity=8)
    weight = np.bincount(labels[sure > 0], minlength=count) * mpp**2
    keep = (weight >= SMALLER_MARK * MIN_INK_UM2).astype(np.uint8)
    if weight.max() >= MIN_INK_UM2:
        side = max(3, 2 * round(INK_MARGIN_UM / mpp) + 1)
        found[name] = cv2.dilate(keep[labels], np.ones((side, side), np.uint8))
