"""A user's own tissue: an edited GeoJSON, or a mask image, in place of the segmentation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import SlideError
from pipeline.slides.polygons import TISSUE, paint, read_geojson, takes_away
from pipeline.slides.tile_coverage import Mask

ASPECT_TOLERANCE = 0.03


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


def read_regions(path: str | Path, shape: tuple[int, int], downsample: float) -> Regions:
    """Read a user's mask at the resolution of the segmentation.

    Args:
        path: `.geojson` or `.json` polygons in level-0 pixels, or an image that shows the whole
            slide at any scale. In an image 0 is glass; other values are classes if a file of the
            same name with the ending `.json` names them ({"1": "tumour", "2": "stroma"}), and
            plain tissue otherwise.
        shape: (H, W) of the segmentation.
        downsample: level-0 pixels per pixel of it.

    Raises:
        SlideError: `bad_mask`, with what is wrong.
    """
    path = Path(path)
    if path.suffix.lower() in (".geojson", ".json"):
        classes, names = paint(read_geojson(path), shape, downsample)
        regions = Regions(classes, names)
    else:
        regions = _from_image(path, shape)
    if not regions.classes.any():
        raise SlideError(f"{path}: the mask covers nothing of the slide", "bad_mask")
    return regions


def _from_image(path: Path, shape: tuple[int, int]) -> Regions:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SlideError(f"{path}: neither GeoJSON nor a readable image", "bad_mask")
    if image.ndim == 3:
        image = image[..., :3].max(axis=2)
    if image.dtype != np.uint8:
        raise SlideError(f"{path}: a mask image of {image.dtype}; 8 bit is needed", "bad_mask")
    given, wanted = image.shape[1] / image.shape[0], shape[1] / shape[0]
    if abs(given / wanted - 1) > ASPECT_TOLERANCE + 1.0 / min(*image.shape, *shape):
        raise SlideError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels do not have the slide's shape; a "
            "mask image shows the whole slide",
            "bad_mask",
        )
    legend_path = path.with_suffix(".json")
    if not legend_path.is_file():
        # JPEG masks have grey edges: what is nearer to white than to black is tissue.
        cut = 127 if image.max() > 127 else 0
        plain = (image > cut).astype(np.uint8)
        return Regions(_resize(plain, shape), [TISSUE])
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
    return Regions(_resize(table[image], shape), names)


def _resize(classes: Mask, shape: tuple[int, int]) -> Mask:
    return cv2.resize(classes, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
