"""Files that count from the corner of what was scanned, as QuPath does, and others."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from pipeline.config.tiling import TilingConfig
from pipeline.contracts.ledger import Record
from pipeline.probing.labels import read_labels
from pipeline.report.figures import maps
from pipeline.report.figures.geojson import attention_geojson
from pipeline.slides.polygons import Polygon, read_geojson, share_on
from pipeline.slides.scanned import inside, window_of
from pipeline.slides.slide import open_slide
from pipeline.tiling import stage
from tests.slides import files
from tests.slides.mirax import write_mirax

X, Y = 2560, 3072  # of the tissue on the glass
QUPATH = TilingConfig()
GLASS = TilingConfig(geojson_origin="slide")


@pytest.fixture(scope="module")
def glass(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tissue far from the corner of the glass."""
    image = np.full((6144, 6144, 3), 255, np.uint8)
    image[Y : Y + 1792, X : X + 1792] = files.tissue_image(1792, 1792, margin=0.0)
    return write_mirax(tmp_path_factory.mktemp("mrxs") / "a.mrxs", image)


def write(path: Path, x: float, y: float, side: float, name: str = "Tumor") -> Path:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    kind = {"classification": {"name": name}}
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": kind}))
    return path


def tile(slide: Path, out: Path, mask: Path | None, cfg: TilingConfig) -> Record:
    return stage.run_slide(cfg=cfg, versions="", slide=slide, out_dir=out, mask=mask)


@pytest.mark.parametrize(("cfg", "from_x", "from_y"), [(QUPATH, X, Y), (GLASS, 0, 0)])
def test_a_tumour_lies_where_it_was_drawn(glass, tmp_path, cfg, from_x, from_y):
    with open_slide(glass) as slide:
        x, y, *_ = window_of(slide.properties, slide.dimensions)
    assert (x, y) == (X, Y)
    mask = write(tmp_path / "m.geojson", X + 500 - from_x, Y + 600 - from_y, 700)
    assert tile(glass, tmp_path / "tiles", mask, cfg).status == "ok"
    with h5py.File(tmp_path / "tiles" / "a.h5") as file:
        coords = file["coords"][()]
        assert tuple(file.attrs["geojson_origin"]) == (from_x, from_y)
    centres = coords + 112
    assert (centres >= (X + 500, Y + 600)).all() and (centres <= (X + 1200, Y + 1300)).all()
    (drawn,) = read_geojson(tmp_path / "tiles" / "a.geojson")
    corner = drawn.rings[0].min(axis=0) + np.array([from_x, from_y])
    assert np.abs(corner - (X + 500, Y + 600)).max() < 32
    assert maps.geojson_origin(tmp_path, "tiles", "a") == (from_x, from_y)


@pytest.mark.parametrize(
    ("cfg", "x", "y", "remedy"),
    [
        (QUPATH, X + 500, Y + 600, "geojson_origin: slide"),
        (GLASS, 500, 600, "geojson_origin: bounds"),
    ],
)
def test_a_polygon_where_nothing_was_scanned_is_refused(glass, tmp_path, cfg, x, y, remedy):
    record = tile(glass, tmp_path / "t", write(tmp_path / "m.geojson", x, y, 700), cfg)
    assert (record.status, record.kind) == ("failed", "bad_mask")
    assert f"`Tumor` at x {x}, y {y}" in record.reason and remedy in record.reason


def test_what_takes_away_may_lie_anywhere(glass, tmp_path):
    keep = json.loads(write(tmp_path / "a", 100, 100, 900).read_text())
    ignore = json.loads(write(tmp_path / "b", -2000, -2000, 900, "Ignore*").read_text())
    (tmp_path / "m.geojson").write_text(json.dumps([keep, ignore]))
    assert tile(glass, tmp_path / "t", tmp_path / "m.geojson", QUPATH).status == "ok"


def test_a_mask_image_shows_the_glass_or_what_was_scanned(glass, tmp_path):
    with open_slide(glass) as slide:
        width, height = window_of(slide.properties, slide.dimensions)[2:]
    for name, shape, corner in (
        ("scanned", (height // 8, width // 8), (0, 0)),
        ("glass", (6144 // 8, 6144 // 8), (X // 8, Y // 8)),
    ):
        mask = np.zeros(shape, np.uint8)
        mask[corner[1] + 80 : corner[1] + 170, corner[0] + 60 : corner[0] + 150] = 255
        cv2.imwrite(str(tmp_path / f"{name}.png"), mask)
        cfg = QUPATH if name == "scanned" else GLASS
        assert tile(glass, tmp_path / name, tmp_path / f"{name}.png", cfg).status == "ok"
        with h5py.File(tmp_path / name / "a.h5") as file:
            centres = file["coords"][()] + 112
        assert (centres >= (X + 480, Y + 640)).all() and (centres <= (X + 1200, Y + 1360)).all()


def test_annotations_for_probing_count_from_the_same_corner(glass, tmp_path):
    assert tile(glass, tmp_path, None, QUPATH).status == "ok"
    found = read_labels(tmp_path / "a.h5", write(tmp_path / "m.geojson", 400, 400, 900), 0.5)
    assert found is not None
    inside_it = (found.coords >= (X + 400, Y + 400)).all(1)
    inside_it &= (found.coords + 224 <= (X + 1300, Y + 1300)).all(1)
    assert inside_it.any() and set(found.names[inside_it]) == {"Tumor"}


def test_attention_goes_out_from_the_same_corner():
    table = pd.DataFrame({"x": [X + 224], "y": [Y + 448], "weight": [1.0]})
    (square,) = attention_geojson({"a": table}, None, 224, (X, Y))["features"]
    assert square["geometry"]["coordinates"][0][0] == [224, 448]


def test_the_share_of_a_polygon_on_a_mask():
    square = Polygon((np.array([(0, 0), (80, 0), (80, 80), (0, 80)], float),))
    assert share_on(square, inside((0, 0, 40, 80), (20, 20), 8.0), 8.0) == pytest.approx(0.5, 0.2)
    assert share_on(square, np.zeros((20, 20), np.uint8), 8.0) == 0
    assert share_on(square, np.ones((20, 20), np.uint8), 8.0) == 1
