"""The picture by which a person judges what segmentation and tiling did to a slide."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.slides.overview_scan import THUMBNAIL_PX, Survey
from pipeline.slides.pixels import Image, shrink
from pipeline.slides.tile_coverage import Coords, Mask

PICTURE_PX = 1600
TISSUE_COLOUR = (0, 150, 60)
TILE_COLOUR = (33, 80, 200)
# What is masked, and the colour that it is shown in: none that ink or stain could have.
MASK_COLOURS = {
    "pen": (255, 215, 0),
    "blur": (0, 190, 205),
    "folds": (255, 110, 0),
    "small": (235, 0, 160),
}
TILE_VISIBLE_PX = 5  # smaller tiles are shown by their shade alone
JPEG_QUALITY = 85
LETTERS = 0.6
CAPTION_PX = 58


def picture(
    survey: Survey,
    tissue: Mask,
    masked: Mapping[str, Mask],
    coords: Coords,
    left_out: Mapping[str, Coords],
    size0: int,
    caption: str,
) -> Image:
    """The slide with tissue outline, tiles, what was masked, and the tiles lost to it.

    Args:
        survey: the slide from afar.
        tissue: uint8 (H, W) like `survey.image`.
        masked: by the names of `MASK_COLOURS`: uint8 (H, W).
        coords: int32 (N, 2), upper left corners of the tiles in level-0 pixels.
        left_out: by the names of `MASK_COLOURS`: int32 (M, 2), tiles with enough tissue that are
            not used because of this mask.
        size0: side of a tile in level-0 pixels.
        caption: one line below the picture.

    Returns:
        uint8 (h, w, 3) RGB.
    """
    large = max(survey.image.shape) >= THUMBNAIL_PX
    canvas = shrink(survey.image, PICTURE_PX) if large else survey.thumbnail
    canvas = canvas.copy()
    height, width = canvas.shape[:2]
    scale = width / survey.dimensions[0]
    grow = survey.downsample * scale

    side = size0 * scale
    for name, colour in {"": TILE_COLOUR, **MASK_COLOURS}.items():
        _boxes(canvas, (left_out.get(name, coords[:0]) if name else coords) * scale, side, colour)
    for name, colour in MASK_COLOURS.items():
        if name in masked and masked[name].any():
            _tint(canvas, _fit(masked[name], grow, (height, width)), colour, 0.55)
    outlines, _ = cv2.findContours(
        _fit(tissue, grow, (height, width)), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    cv2.drawContours(canvas, outlines, -1, TISSUE_COLOUR, 2)
    return np.concatenate([canvas, _caption(caption, width, list(masked))])


def encode_jpeg(image: Image) -> bytes:
    """JPEG bytes of an RGB picture."""
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        raise ValueError(f"a picture of shape {image.shape} cannot be encoded")
    return data.tobytes()


def _boxes(
    canvas: Image, corners: npt.NDArray[np.float64], side: float, colour: tuple[int, int, int]
) -> None:
    """Outline squares, or tint them where they are too small for an outline."""
    places = np.rint(corners).astype(np.int32)
    if not len(places):
        return
    if side >= TILE_VISIBLE_PX:
        square = np.rint(np.array([(0, 0), (side, 0), (side, side), (0, side)])).astype(np.int32)
        cv2.polylines(canvas, list(places[:, None, :] + square), True, colour, 1)
        return
    tiled = np.zeros(canvas.shape[:2], np.uint8)
    for x, y in places:
        tiled[y : y + max(1, round(side)), x : x + max(1, round(side))] = 1
    _tint(canvas, tiled, colour, 0.25)


def _fit(mask: Mask, grow: float, shape: tuple[int, int]) -> Mask:
    """The mask at the canvas's scale, cut or filled up to its shape."""
    size = (max(1, round(mask.shape[1] * grow)), max(1, round(mask.shape[0] * grow)))
    scaled = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)[: shape[0], : shape[1]]
    result = np.zeros(shape, np.uint8)
    result[: scaled.shape[0], : scaled.shape[1]] = scaled
    return result


def _tint(canvas: Image, mask: Mask, colour: tuple[int, int, int], weight: float) -> None:
    x, y, w, h = cv2.boundingRect(mask)
    if w == 0:
        return
    part, inside = canvas[y : y + h, x : x + w], mask[y : y + h, x : x + w] > 0
    mixed = part[inside] * (1 - weight) + np.array(colour) * weight
    part[inside] = mixed.astype(np.uint8)


def _caption(text: str, width: int, masked: list[str]) -> npt.NDArray[np.uint8]:
    """A white strip with the text and a key of colours; the letters fit the width."""
    key = {"tissue": TISSUE_COLOUR, "tile": TILE_COLOUR}
    key |= {name: MASK_COLOURS[name] for name in MASK_COLOURS if name in masked}
    strip = np.full((CAPTION_PX, width, 3), 255, np.uint8)
    room = width - 20
    write_words(strip, text, (10, 20), (0, 0, 0), LETTERS, room)
    size = min(LETTERS, LETTERS * room / (1 + text_width("   ".join(key), LETTERS)))
    x = 10
    for name, colour in key.items():
        write_words(strip, name, (x, 48), colour, size, room)
        x += round(text_width(name + "   ", size))
    return strip


def text_width(words: str, size: float) -> float:
    """An upper bound of the pixels that words take: OpenCV's own measure is a little short."""
    return 1.12 * float(cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])


def write_words(
    canvas: Image,
    words: str,
    at: tuple[int, int],
    colour: tuple[int, int, int],
    size: float,
    room: float,
) -> None:
    """Write words with their lower left corner at (x, y), smaller if they exceed `room` pixels.

    Args:
        canvas: uint8 (H, W, 3), which is drawn on.
        words: what is written.
        at: (x, y) in pixels.
        colour: red, green, blue, 0 to 255.
        size: of the letters, relative to OpenCV's.
        room: width in pixels that they may take.
    """
    size = min(size, size * room / (1 + text_width(words, size)))
    cv2.putText(canvas, words, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
