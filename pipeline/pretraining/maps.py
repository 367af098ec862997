"""Clusters painted over a slide: which kinds of tissue a method found by itself."""

from __future__ import annotations

import colorsys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from pipeline.encoders.transforms import Transform, normalise
from pipeline.files.artifacts import atomic_path, write_json
from pipeline.pretraining.methods.base import Method
from pipeline.slides.slide import open_slide
from pipeline.tile_training.loader import Tiles, batches
from pipeline.tile_training.slides import TiledSlide

PART = 64  # tiles that are read and shown to the network at once
LONG_SIDE = 1000  # pixels of a picture of a slide
OPACITY = 0.55


@torch.no_grad()
def clusters_of(
    method: Method, slides: list[TiledSlide], transform: Transform, device: torch.device
) -> Iterator[tuple[TiledSlide, np.ndarray]]:
    """The cluster of every tile of some slides.

    Args:
        method: one with clusters, in evaluation mode.
        slides: which.
        transform: of its encoder.
        device: where it is.

    Returns:
        each slide, with int64 (tiles,): -1 where a tile cannot be read.
    """
    for slide in slides:
        count = len(slide.grid.coords)
        starts = range(0, count, PART)

        def draws(number: int, count: int = count) -> list[tuple[int, np.ndarray]]:
            return [(0, np.arange(number * PART, min(count, (number + 1) * PART)))]

        found = np.full(count, -1, dtype=np.int64)
        tiles = Tiles([slide], draws, transform)
        for batch in batches(tiles, range(len(starts)), 0, device):
            images = normalise(batch.tiles.permute(0, 3, 1, 2).float(), transform)
            scores = method.assign(method.features(images))
            assert scores is not None
            found[batch.places.cpu().numpy()] = scores.argmax(1).cpu().numpy()
        yield slide, found


def colours(clusters: int) -> np.ndarray:
    """A colour for each cluster that its neighbours do not have: uint8 (clusters, 3).

    Hues a golden ratio apart, in two lightnesses.
    """
    hues = (np.arange(clusters) * 0.61803398875) % 1
    values = np.where(np.arange(clusters) % 2, 0.75, 0.95)
    rows = [colorsys.hsv_to_rgb(h, 0.75, v) for h, v in zip(hues, values, strict=True)]
    return np.rint(255 * np.array(rows).reshape(-1, 3)).astype(np.uint8)


def ordered(clusters: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Clusters by their size over all slides: 0 is the largest; -1 stays.

    Args:
        clusters: int64 (tiles,).
        known: int64, the clusters in that order.
    """
    rank = {int(cluster): place for place, cluster in enumerate(known)}
    return np.array([rank.get(int(c), -1) for c in clusters], dtype=np.int64)


def paint(slide: TiledSlide, clusters: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The slide, and beside it the same with its clusters over it: uint8 (h, w, 3).

    Args:
        slide: with its tiles.
        clusters: int64 (tiles,), rows of the palette; -1: none.
        palette: uint8 (clusters, 3).
    """
    with open_slide(slide.path, slide.grid.scene) as opened:
        picture = opened.thumbnail(LONG_SIDE)
        scale = picture.shape[1] / opened.dimensions[0]
    side = slide.grid.side * slide.grid.downsample * scale
    painted = picture.copy()
    for (x, y), cluster in zip(slide.grid.coords * scale, clusters, strict=True):
        if cluster >= 0:
            corner, end = (round(x), round(y)), (round(x + side) - 1, round(y + side) - 1)
            cv2.rectangle(painted, corner, end, palette[cluster].tolist(), -1)
    painted = cv2.addWeighted(painted, OPACITY, picture, 1 - OPACITY, 0)
    gap = np.full((picture.shape[0], 12, 3), 255, np.uint8)
    return np.concatenate([picture, gap, painted], axis=1)


def squares(
    slide: TiledSlide, clusters: np.ndarray, palette: np.ndarray, origin: tuple[int, int]
) -> dict[str, Any]:
    """A GeoJSON FeatureCollection for QuPath: a detection for each tile, its class the cluster.

    Args:
        slide: with its tiles.
        clusters: int64 (tiles,), -1: none.
        palette: uint8 (clusters, 3).
        origin: the level-0 pixel (x, y) that is (0, 0) in the file.
    """
    side = round(slide.grid.side * slide.grid.downsample)
    features = []
    for (x, y), cluster in zip(slide.grid.coords.tolist(), clusters.tolist(), strict=True):
        if cluster < 0:
            continue
        left, top = x - origin[0], y - origin[1]
        right, low = left + side, top + side
        ring = [[left, top], [right, top], [right, low], [left, low], [left, top]]
        kind = {"name": f"cluster {cluster + 1}", "color": palette[cluster].tolist()}
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{x},{y}")),
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "detection", "classification": kind},
            }
        )
    return {"type": "FeatureCollection", "features": features}


def write_maps(
    folder: Path,
    found: list[tuple[TiledSlide, np.ndarray]],
    origins: dict[str, tuple[int, int]],
) -> list[str]:
    """Write `<slide>.png` and `<slide>.geojson` for each slide; equal colours are equal clusters.

    Args:
        folder: where to.
        found: slides with their tiles' clusters.
        origins: slide -> where its GeoJSON counts from.

    Returns:
        the slides.
    """
    every = np.concatenate([clusters for _, clusters in found])
    known, sizes = np.unique(every[every >= 0], return_counts=True)
    known = known[np.argsort(-sizes, kind="stable")]
    palette = colours(len(known))
    for slide, clusters in found:
        ranked = ordered(clusters, known)
        picture = cv2.cvtColor(paint(slide, ranked, palette), cv2.COLOR_RGB2BGR)
        with atomic_path(folder / f"{slide.slide_id}.png") as temporary:
            temporary.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        origin = origins[slide.slide_id]
        write_json(folder / f"{slide.slide_id}.geojson", squares(slide, ranked, palette, origin))
    return [slide.slide_id for slide, _ in found]
