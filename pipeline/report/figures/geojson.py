"""Attention for QuPath: every tile as a square with its weights and influence as measurements.

QuPath opens the file by dragging it onto the slide ("Measure, Show measurement maps" then colours
the squares). Coordinates are level-0 pixels and start where QuPath starts to count, see
`pipeline.slides.scanned`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import pandas as pd


def attention_geojson(
    tables: Mapping[str, pd.DataFrame],
    influence: pd.DataFrame | None,
    tile: float,
    origin: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """A GeoJSON FeatureCollection of QuPath detections.

    Args:
        tables: name -> columns x, y (level-0 pixels) and weight, which sums to 1; for instance a
            table for each teacher and one called `fused`.
        influence: columns x, y and influence; None: the model says none.
        tile: side of a tile in level-0 pixels.
        origin: the level-0 pixel (x, y) that is (0, 0) in the file.

    Returns:
        a feature per tile; its measurements are `attention <name>`, the weight as a multiple of an
        even share (1: as much as any other tile), and `attention <name> rank`, from 0 to 1; and
        `influence`, the change of the prediction if a tenth more of the case were like the tile.
    """
    measured: dict[tuple[int, int], dict[str, float]] = {}
    for name, table in tables.items():
        share = table["weight"] * len(table)
        rank = table["weight"].rank(pct=True, method="average")
        for x, y, one, place in zip(table["x"], table["y"], share, rank, strict=True):
            found = measured.setdefault((int(x), int(y)), {})
            found[f"attention {name}"] = round(float(one), 5)
            found[f"attention {name} rank"] = round(float(place), 5)
    if influence is not None:
        for x, y, felt in zip(*(influence[c] for c in ("x", "y", "influence")), strict=True):
            measured.setdefault((int(x), int(y)), {})["influence"] = round(float(felt), 6)
    return _collection(measured, tile, origin)


def squares_geojson(
    places: pd.DataFrame,
    values: Mapping[str, pd.Series],
    tile: float,
    origin: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """A GeoJSON FeatureCollection of QuPath detections with any measurements.

    Args:
        places: columns x, y (level-0 pixels), a row a tile.
        values: name of a measurement -> its value at each row.
        tile: side of a tile in level-0 pixels.
        origin: the level-0 pixel (x, y) that is (0, 0) in the file.
    """
    measured = {
        (int(x), int(y)): {name: round(float(column.iloc[i]), 5) for name, column in values.items()}
        for i, (x, y) in enumerate(zip(places["x"], places["y"], strict=True))
    }
    return _collection(measured, tile, origin)


def _collection(
    measured: Mapping[tuple[int, int], dict[str, float]], tile: float, origin: tuple[int, int]
) -> dict[str, Any]:
    side = round(tile)
    left, top = origin
    features = [
        {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{x},{y}")),
            "geometry": {
                "type": "Polygon",
                "coordinates": [_square(x - left, y - top, side)],
            },
            "properties": {"objectType": "detection", "measurements": values},
        }
        for (x, y), values in sorted(measured.items(), key=lambda item: item[0][::-1])
    ]
    return {"type": "FeatureCollection", "features": features}


def _square(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
