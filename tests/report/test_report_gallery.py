"""The tiles at both ends of the attention, and the same attention for QuPath."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.artifacts import read_json
from pipeline.config.whole import Config
from pipeline.report import pictures
from pipeline.report.gallery import GAP_PX, TILE_PX, gallery
from pipeline.report.geojson import attention_geojson

SIDE = 40
GREYS = np.array([30, 60, 90, 120, 150, 180])


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """Six tiles of 40 pixels side by side, each of one grey."""
    row = np.repeat(GREYS, SIDE).astype(np.uint8)
    path = tmp_path / "slide.png"
    Image.fromarray(np.stack([np.tile(row, (SIDE, 1))] * 3, -1)).save(path)
    return path


def table(weights: list[float]) -> pd.DataFrame:
    x = SIDE * np.arange(len(weights))
    return pd.DataFrame({"x": x, "y": 0, "weight": weights})


def greys(strip: pictures.Picture) -> list[int]:
    data = base64.b64decode(strip.uri.partition(",")[2])
    image = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    middles = range(TILE_PX // 2, image.shape[1], TILE_PX + GAP_PX)
    return [int(image[TILE_PX // 2, x]) for x in middles]


def test_the_most_and_the_least_weighed_tiles_are_cut_from_the_slide(slide: Path) -> None:
    found = gallery(slide, table([0.1, 0.3, 0.05, 0.25, 0.2, 0.1]), SIDE)
    assert found.most is not None
    assert found.least is not None
    assert greys(found.most) == pytest.approx(GREYS[[1, 3, 4]], abs=4)
    assert greys(found.least) == pytest.approx(GREYS[[2, 5, 0]], abs=4)
    assert found.most_share == pytest.approx((6 * 0.3, 6 * 0.2))
    assert found.least_share == pytest.approx((6 * 0.05, 6 * 0.1))


def test_why_there_are_no_tiles_is_said(slide: Path, tmp_path: Path) -> None:
    assert "no path" in gallery(None, table([0.5, 0.5]), SIDE).absent
    assert "no such file" in gallery(tmp_path / "gone.svs", table([0.5, 0.5]), SIDE).absent
    assert "one tile" in gallery(slide, table([1.0]), SIDE).absent


def test_squares_lie_on_the_tiles_and_carry_the_weights() -> None:
    tables = {"a": table([0.25, 0.75]), "fused": table([0.5, 0.5])}
    found = attention_geojson(tables, SIDE)
    assert found["type"] == "FeatureCollection"
    first, second = found["features"]
    assert second["geometry"]["coordinates"] == [
        [[SIDE, 0], [2 * SIDE, 0], [2 * SIDE, SIDE], [SIDE, SIDE], [SIDE, 0]]
    ]
    assert second["properties"]["objectType"] == "detection"
    assert first["properties"]["measurements"] == {
        "attention a": 0.5,
        "attention a rank": 0.5,
        "attention fused": 1.0,
        "attention fused rank": 0.75,
    }
    assert first["id"] != second["id"]


def test_the_report_leaves_a_file_for_qupath_per_case(
    whole: tuple[Config, Path], page: str
) -> None:
    _, root = whole
    files = sorted((root / "report" / "attention").glob("*.geojson"))
    assert len(files) == 4
    for file in files:
        names = read_json(file)["features"][0]["properties"]["measurements"]
        assert {"attention vit_tiny", "attention fused"} <= set(names)
    assert page.count(".geojson</code>") >= 4
