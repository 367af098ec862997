"""The tiles at both ends of attention and influence, and the same numbers for QuPath."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.whole import Config
from pipeline.files.artifacts import read_json
from pipeline.report.figures import pictures
from pipeline.report.figures.geojson import attention_geojson
from pipeline.report.sections.gallery import GAP_PX, TILE_PX, Quantity, gallery

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


def weights(values: list[float]) -> Quantity:
    return Quantity(table(values), "weight", "most", "least", "{:.2g} to {:.2g}".format)


def test_the_tiles_at_both_ends_of_each_quantity_are_cut_from_the_slide(slide: Path) -> None:
    felt = table([-1.0, 2.0, 0.5, -3.0, 0.0, 1.5]).rename(columns={"weight": "felt"})
    effect = Quantity(felt, "felt", "raise", "lower", "{:+.1f} to {:+.1f}".format)
    found = gallery(slide, [weights([0.1, 0.3, 0.05, 0.25, 0.2, 0.1]), effect], SIDE)
    assert [(strip.what, strip.note) for strip in found.strips] == [
        ("most", "0.3 to 0.2"),
        ("least", "0.05 to 0.1"),
        ("raise", "+2.0 to +0.5"),
        ("lower", "-3.0 to +0.0"),
    ]
    ends = ([1, 3, 4], [2, 5, 0], [1, 5, 2], [3, 0, 4])
    for strip, end in zip(found.strips, ends, strict=True):
        assert greys(strip.picture) == pytest.approx(GREYS[end], abs=4)


def test_why_there_are_no_tiles_is_said(slide: Path, tmp_path: Path) -> None:
    assert "no path" in gallery(None, [weights([0.5, 0.5])], SIDE).absent
    assert "no such file" in gallery(tmp_path / "gone.svs", [weights([0.5, 0.5])], SIDE).absent
    assert "one tile" in gallery(slide, [weights([1.0])], SIDE).absent


def test_squares_lie_on_the_tiles_and_carry_the_weights() -> None:
    tables = {"a": table([0.25, 0.75]), "fused": table([0.5, 0.5])}
    felt = table([-0.5, 0.25]).rename(columns={"weight": "influence"})
    found = attention_geojson(tables, felt, SIDE)
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
        "influence": -0.5,
    }
    without = attention_geojson(tables, None, SIDE)["features"][0]["properties"]["measurements"]
    assert "influence" not in without
    assert first["id"] != second["id"]


def test_the_report_leaves_a_file_for_qupath_per_case(
    whole: tuple[Config, Path], page: str
) -> None:
    _, root = whole
    files = sorted((root / "report" / "attention").glob("*.geojson"))
    assert len(files) == 4
    for file in files:
        names = read_json(file)["features"][0]["properties"]["measurements"]
        assert {"attention vit_tiny", "attention fused", "influence"} <= set(names)
    assert page.count(".geojson</code>") >= 4
