"""A user's own tissue: an edited GeoJSON, or a mask image, in place of the segmentation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import SlideError
from pipeline.slides.polygons import (
    TISSUE,
    Polygon,
    moved,
    paint,
    read_geojson,
    share_on,
    takes_away,
)
from pipeline.slides.scanned import Frame
from pipeline.slides.tile_coverage import Mask

ASPECT_TOLERANCE = 0.03
LEAST_SCANNED = 0.5  # of a polygon's area must lie where the scanner took pixels


@dataclasses.dataclass(frozen=True)
class Regions:
    """Tissue with classes.

    Attributes:
        classes: uint8 (H, W): 0 = no tissue, k = `names[k - 1]`.
        names: the classes. One class called `Tissue` means that nothing is told apart.
    """

    classes: Mask
    names: list[str]

    @property
    def labelled(self) -> bool:
        return self.names != [TISSUE]


def read_regions(path: str | Path, frame: Frame, downsample: float) -> Regions:
    """Read a user's mask at the resolution of the segmentation.

    Args:
        path: `.geojson` or `.json` polygons in level-0 pixels from the frame's origin, or an image
            that shows the whole slide, or its scanned part, at any scale. In an image 0 is glass;
            other values are classes if a file of the same name with the ending `.json` names them
            ({"1": "tumour", "2": "stroma"}), and plain tissue otherwise.
        frame: how the file lies on the slide.
        downsample: level-0 pixels per pixel of the frame's mask.

    Raises:
        SlideError: `bad_mask`, with what is wrong.
    """
    path = Path(path)
    if path.suffix.lower() in (".geojson", ".json"):
        polygons = moved(read_geojson(path), *frame.origin)
        _check_scanned(path, polygons, frame, downsample)
        classes, names = paint(polygons, _shape(frame), downsample)
        regions = Regions(classes, names)
    else:
        regions = _from_image(path, frame, downsample)
    if not regions.classes.any():
        raise SlideError(f"{path}: the mask covers nothing of the slide", "bad_mask")
    return regions


def _shape(frame: Frame) -> tuple[int, int]:
    return frame.scanned.shape[0], frame.scanned.shape[1]


def _check_scanned(path: Path, polygons: list[Polygon], frame: Frame, downsample: float) -> None:
    """Refuse tissue where the scanner took no pixels: the file counts from another corner."""
    lost = [
        polygon
        for polygon in polygons
        if not takes_away(polygon.name)
        and share_on(polygon, frame.scanned, downsample) < LEAST_SCANNED
    ]
    if not lost:
        return
    first = lost[0]
    x, y = first.rings[0].min(axis=0) - frame.origin
    x0, y0 = frame.window[:2]
    remedy = "see whether it is of another slide"
    if (x0, y0) != (0, 0):
        other = "slide" if frame.origin != (0, 0) else "bounds"
        remedy += (
            f". What was scanned begins at x {x0}, y {y0} of the glass; QuPath counts from there, "
            f"tools that do not crop count from the glass's corner: tiling.geojson_origin: {other}"
        )
    raise SlideError(
        f"{path}: {len(lost)} of {len(polygons)} polygons lie where the scanner took no pixels, "
        f"such as `{first.name}` at x {x:.0f}, y {y:.0f}; {remedy}",
        "bad_mask",
    )


def _from_image(path: Path, frame: Frame, downsample: float) -> Regions:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SlideError(f"{path}: neither GeoJSON nor a readable image", "bad_mask")
    if image.ndim == 3:
        image = image[..., :3].max(axis=2)
    if image.dtype != np.uint8:
        raise SlideError(f"{path}: a mask image of {image.dtype}; 8 bit is needed", "bad_mask")
    window = _shown(path, (image.shape[0], image.shape[1]), frame)
    legend_path = path.with_suffix(".json")
    if not legend_path.is_file():
        # JPEG masks have grey edges: what is nearer to white than to black is tissue.
        cut = 127 if image.max() > 127 else 0
        plain = (image > cut).astype(np.uint8)
        return Regions(_place(plain, window, frame, downsample), [TISSUE])
    try:
        legend = {int(k): str(v) for k, v in json.loads(legend_path.read_text()).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise SlideError(f"{legend_path}: not a legend of classes ({error})", "bad_mask") from None
    unknown = sorted(set(np.unique(image).tolist()) - set(legend) - {0})
    if unknown:
        raise SlideError(f"{path}: values {unknown} are not in {legend_path.name}", "bad_mask")
    names = [n for k, n in sorted(legend.items()) if k != 0 and not takes_away(n)]
    names = list(dict.fromkeys(names))
    table = np.zeros(256, np.uint8)
    for value, name in legend.items():
        if 0 < value < 256 and name in names:
            table[value] = 1 + names.index(name)
    return Regions(_place(table[image], window, frame, downsample), names)


def _shown(path: Path, size: tuple[int, int], frame: Frame) -> tuple[int, int, int, int]:
    """The level-0 rectangle that a mask image shows: by its shape, in doubt by the origin."""
    whole = (0, 0, *frame.dimensions)
    parts = (frame.window, whole) if frame.origin == frame.window[:2] else (whole, frame.window)
    off = [abs(size[1] / size[0] / (part[2] / part[3]) - 1) for part in parts]
    best = 0 if off[0] <= ASPECT_TOLERANCE / 3 else int(off[1] < off[0])
    if off[best] > ASPECT_TOLERANCE + 1.0 / min(*size, *_shape(frame)):
        raise SlideError(
            f"{path}: {size[1]} x {size[0]} pixels do not have the slide's shape; a mask image "
            "shows the whole slide, or all that was scanned of it",
            "bad_mask",
        )
    return parts[best]


def _place(
    classes: Mask, window: tuple[int, int, int, int], frame: Frame, downsample: float
) -> Mask:
    """An image of a part of the slide as a map of all of it."""
    shape = _shape(frame)
    if window == (0, 0, *frame.dimensions):
        return cv2.resize(classes, shape[::-1], interpolation=cv2.INTER_NEAREST)
    placed = np.zeros(shape, np.uint8)
    left, top, width, height = (round(side / downsample) for side in window)
    size = max(1, width), max(1, height)
    part = cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST)
    part = part[: shape[0] - top, : shape[1] - left]
    placed[top : top + part.shape[0], left : left + part.shape[1]] = part
    return placed
