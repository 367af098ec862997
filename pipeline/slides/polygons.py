"""Masks as polygons that QuPath opens, and polygons as masks.

Coordinates are level-0 pixels (x, y). A polygon runs through the centres of its outermost mask
pixels and is filled including its edge, so that mask -> polygons -> mask gives the same mask.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import SlideError
from pipeline.files.artifacts import write_text
from pipeline.slides.tile_coverage import Mask

TISSUE = "Tissue"
COLOURS = {TISSUE: (46, 125, 50), "Pen": (198, 40, 40), "Blur": (21, 101, 192)}
_SHIFT = 4  # cv2 takes fixed-point coordinates: 1/16 mask pixel
# Names that take tissue away instead of adding it. QuPath marks its own with an asterisk.
NOT_TISSUE = {"ignore", "exclude", "background", "glass", "artefact", "artifact", "pen", "blur"}


@dataclasses.dataclass(frozen=True)
class Polygon:
    """An outline with holes.

    Attributes:
        rings: the outline, then the holes: float64 (n, 2), level-0 (x, y), not closed.
        name: its class.
    """

    rings: tuple[npt.NDArray[np.float64], ...]
    name: str = TISSUE


def from_mask(
    mask: Mask, downsample: float, name: str = TISSUE, tolerance: float = 0.0
) -> list[Polygon]:
    """The outlines of a mask's pieces.

    Args:
        name: what the polygons are called.
        mask: uint8 (H, W), 0 or 1.
        downsample: level-0 pixels per mask pixel.
        tolerance: how far, in mask pixels, an outline may be simplified.
    """
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return []

    def ring(index: int) -> npt.NDArray[np.float64]:
        contour = contours[index]
        if tolerance:
            contour = cv2.approxPolyDP(contour, tolerance, closed=True)
        return (contour[:, 0].astype(np.float64) + 0.5) * downsample

    found = []
    for outer in np.flatnonzero(hierarchy[0, :, 3] < 0):
        rings = [ring(int(outer))]
        hole = hierarchy[0, outer, 2]
        while hole >= 0:
            rings.append(ring(hole))
            hole = hierarchy[0, hole, 0]
        found.append(Polygon(tuple(r for r in rings if len(r) >= 3) or (rings[0],), name))
    return [polygon for polygon in found if len(polygon.rings[0]) >= 3]


def fill(polygons: Iterable[Polygon], shape: tuple[int, int], downsample: float) -> Mask:
    """The mask (uint8, 0 or 1, of `shape` (H, W)) that polygons cover.

    Args:
        polygons: in level-0 pixels.
        shape: (height, width) of the mask.
        downsample: level-0 pixels per mask pixel.
    """
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:
        _draw(mask, polygon, downsample, 1)
    return mask


def _draw(mask: Mask, polygon: Polygon, downsample: float, value: int) -> None:
    rings = [
        np.rint((ring / downsample - 0.5) * (1 << _SHIFT)).astype(np.int32)
        for ring in polygon.rings
    ]
    cv2.fillPoly(mask, rings, value, cv2.LINE_8, _SHIFT)


def paint(
    polygons: Sequence[Polygon], shape: tuple[int, int], downsample: float
) -> tuple[Mask, list[str]]:
    """A map of classes: 0 where nothing lies, else 1 + the class's place in the returned names.

    Later polygons lie over earlier ones; those named as in `NOT_TISSUE` take away.

    Args:
        polygons: in level-0 pixels, the lowest first.
        shape: (height, width) of the map.
        downsample: level-0 pixels per pixel of the map.
    """
    names = list(dict.fromkeys(p.name for p in polygons if not takes_away(p.name)))
    if len(names) > 255:
        raise SlideError(
            f"{len(names)} classes of polygons; at most 255 are told apart", "bad_mask"
        )
    classes = np.zeros(shape, np.uint8)
    for polygon in sorted(polygons, key=lambda p: takes_away(p.name)):
        value = 0 if takes_away(polygon.name) else 1 + names.index(polygon.name)
        _draw(classes, polygon, downsample, value)
    return classes, names


def takes_away(name: str) -> bool:
    """Whether a class of polygon removes tissue."""
    return name.lower().rstrip("*") in NOT_TISSUE


def moved(polygons: Iterable[Polygon], x: float, y: float) -> list[Polygon]:
    """The polygons, moved by (x, y) level-0 pixels.

    Args:
        polygons: in level-0 pixels.
        x: to the right.
        y: downwards.
    """
    by = np.array([x, y], np.float64)
    return [
        dataclasses.replace(polygon, rings=tuple(ring + by for ring in polygon.rings))
        for polygon in polygons
    ]


def share_on(polygon: Polygon, mask: Mask, downsample: float) -> float:
    """The share of a polygon's area that lies on a mask, from 0 to 1.

    Args:
        polygon: in level-0 pixels.
        mask: uint8 (H, W), 0 or 1.
        downsample: level-0 pixels per mask pixel.
    """
    corners = polygon.rings[0] / downsample
    low = np.floor(corners.min(axis=0)).astype(int)
    high = np.ceil(corners.max(axis=0)).astype(int) + 1
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, mask.shape[::-1])
    if left >= right or top >= bottom:
        return 0.0
    (here,) = moved([polygon], -left * downsample, -top * downsample)
    drawn = fill([here], (bottom - top, right - left), downsample)
    on = float(np.count_nonzero(drawn & mask[top:bottom, left:right]))
    rings = [(ring / downsample).astype(np.float32) for ring in polygon.rings]
    area = cv2.contourArea(rings[0]) - sum(cv2.contourArea(ring) for ring in rings[1:])
    return min(1.0, on / max(area, 1.0))


def write_geojson(path: str | Path, polygons: Iterable[Polygon]) -> None:
    """Write polygons as a feature collection of QuPath annotations, in whole level-0 pixels."""
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    np.rint(np.concatenate([ring, ring[:1]])).astype(np.int64).tolist()
                    for ring in polygon.rings
                ],
            },
            "properties": {
                "objectType": "annotation",
                "name": polygon.name,
                "classification": {
                    "name": polygon.name,
                    "color": list(COLOURS.get(polygon.name, (123, 31, 162))),
                },
            },
        }
        for polygon in polygons
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    write_text(path, text + "\n")


def read_geojson(path: str | Path) -> list[Polygon]:
    """Read polygons as QuPath, or this pipeline, writes them.

    Feature collections, lists of features, single features and bare geometries are understood;
    points and lines are ignored. A feature without a class is called `Tissue`.

    Raises:
        SlideError: `bad_mask`, with the file's name.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text())
        polygons = list(_features(data))
    except (OSError, UnicodeDecodeError) as error:
        raise SlideError(f"{path}: the mask cannot be read ({error})", "bad_mask") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise SlideError(f"{path}: not GeoJSON ({error})", "bad_mask") from None
    if not polygons:
        raise SlideError(f"{path}: no polygon in it", "bad_mask")
    return polygons


def _features(data: Any) -> Iterable[Polygon]:
    if isinstance(data, list):
        for item in data:
            yield from _features(item)
    elif data["type"] == "FeatureCollection":
        yield from _features(data["features"])
    elif data["type"] == "Feature":
        properties = data.get("properties") or {}
        kind = properties.get("classification") or {}
        name = kind.get("name") or "/".join(kind.get("names", [])) or TISSUE
        yield from _geometry(data["geometry"], str(name))
    else:
        yield from _geometry(data, TISSUE)


def _geometry(data: Any, name: str) -> Iterable[Polygon]:
    if data["type"] == "GeometryCollection":
        for part in data["geometries"]:
            yield from _geometry(part, name)
    parts = {"Polygon": lambda c: [c], "MultiPolygon": lambda c: c}.get(data["type"])
    for rings in parts(data["coordinates"]) if parts else []:
        arrays = tuple(np.asarray(ring, np.float64)[:, :2] for ring in rings)
        if not all(np.isfinite(ring).all() for ring in arrays):
            raise ValueError("a coordinate is not a number")
        if arrays and len(arrays[0]) >= 3:
            yield Polygon(arrays, name)
