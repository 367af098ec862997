"""Masks to polygons and back, what QuPath writes, and the user's own masks."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SlideError
from pipeline.slides.masks import read_regions
from pipeline.slides.polygons import Polygon, fill, from_mask, paint, read_geojson, write_geojson
from pipeline.slides.scanned import Frame


def whole(shape: tuple[int, int], downsample: float) -> Frame:
    """A slide that was scanned all over."""
    dimensions = round(shape[1] * downsample), round(shape[0] * downsample)
    return Frame((0, 0), (0, 0, *dimensions), dimensions, np.ones(shape, np.uint8))


def blobs(seed: int, shape=(120, 160)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(size=shape).astype(np.float32), (0, 0), 5)
    mask = (noise > 0.02).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))


@given(seed=st.integers(0, 10_000), downsample=st.floats(1.0, 64.0))
@settings(max_examples=60, deadline=None)
def test_mask_to_polygons_to_mask_is_exact(seed, downsample):
    mask = blobs(seed)
    assert np.array_equal(fill(from_mask(mask, downsample), mask.shape, downsample), mask)


def test_an_island_in_a_hole_survives_the_file(tmp_path):
    mask = np.zeros((60, 60), np.uint8)
    cv2.circle(mask, (30, 30), 25, 1, -1)
    cv2.circle(mask, (30, 30), 15, 0, -1)
    cv2.circle(mask, (30, 30), 5, 1, -1)
    polygons = from_mask(mask, 32.0)
    assert sorted(len(p.rings) for p in polygons) == [1, 2]
    write_geojson(tmp_path / "a.geojson", polygons)
    assert np.array_equal(fill(read_geojson(tmp_path / "a.geojson"), mask.shape, 32.0), mask)
    feature = json.loads((tmp_path / "a.geojson").read_text())["features"][0]
    assert feature["properties"]["objectType"] == "annotation"
    assert feature["properties"]["classification"]["name"] == "Tissue"
    ring = feature["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1] and all(isinstance(v, int) for v in ring[0])


def test_simplified_outlines_stay_close():
    mask = blobs(3)
    near = fill(from_mask(mask, 16.0, tolerance=0.75), mask.shape, 16.0)
    assert (near != mask).mean() < 0.02


SQUARE = [[[0, 0], [320, 0], [320, 320], [0, 320], [0, 0]]]


@pytest.mark.parametrize(
    "data",
    [
        {"type": "Polygon", "coordinates": SQUARE},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [SQUARE]}},
        [
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": SQUARE}},
            {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}},
        ],
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "properties": None,
                    "geometry": {
                        "type": "GeometryCollection",
                        "geometries": [{"type": "Polygon", "coordinates": SQUARE}],
                    },
                }
            ],
        },
    ],
)
def test_all_shapes_of_geojson_are_read(tmp_path, data):
    (tmp_path / "a.json").write_text(json.dumps(data))
    (polygon,) = read_geojson(tmp_path / "a.json")
    assert polygon.name == "Tissue"
    assert fill([polygon], (20, 20), 32.0)[:10, :10].mean() == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not GeoJSON"),
        ("[]", "no polygon"),
        ('{"type": "Polygon"}', "not GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [2, 2]]]}', "not GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, NaN], [2, 2]]]}', "not a number"),
        ('{"type": "Point", "coordinates": [0, 0]}', "no polygon"),
    ],
)
def test_bad_geojson_says_so(tmp_path, text, word):
    (tmp_path / "a.geojson").write_text(text)
    with pytest.raises(SlideError, match=word) as caught:
        read_geojson(tmp_path / "a.geojson")
    assert caught.value.kind == "bad_mask" and "a.geojson" in caught.value.reason


def box(x0, y0, x1, y1, name) -> Polygon:
    return Polygon((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float),), name)


def test_classes_lie_over_each_other_and_ignored_ones_take_away():
    classes, names = paint(
        [box(0, 0, 40, 9, "Ignore*"), box(0, 0, 99, 99, "Stroma"), box(20, 20, 60, 60, "Tumour")],
        (100, 100),
        1.0,
    )
    assert names == ["Stroma", "Tumour"]
    assert classes[5, 5] == 0 and classes[80, 80] == 1 and classes[40, 40] == 2


def test_a_polygon_elsewhere_covers_nothing(tmp_path):
    write_geojson(tmp_path / "a.geojson", [box(9000, 9000, 9900, 9900, "Tissue")])
    with pytest.raises(SlideError, match="1 of 1 polygons lie where the scanner took no"):
        read_regions(tmp_path / "a.geojson", whole((50, 50), 32.0), 32.0)


def test_mask_images(tmp_path):
    mask = np.zeros((50, 100), np.uint8)
    mask[10:30, 20:60] = 255
    path = tmp_path / "m.png"
    cv2.imwrite(str(path), mask)
    plain = read_regions(path, whole((100, 200), 8.0), 8.0)
    assert plain.names == ["Tissue"] and not plain.labelled
    assert plain.classes[20:60, 40:120].all() and plain.classes.sum() == 40 * 80

    mask[10:30, 20:60] = 7
    mask[40:45] = 2
    cv2.imwrite(str(path), mask)
    (tmp_path / "m.json").write_text('{"0": "glass", "2": "artefact", "7": "tumour"}')
    named = read_regions(path, whole((50, 100), 8.0), 8.0)
    assert named.names == ["tumour"] and named.labelled
    assert set(np.unique(named.classes)) == {0, 1} and not named.classes[42].any()

    mask[0, 0] = 9
    cv2.imwrite(str(path), mask)
    with pytest.raises(SlideError, match="9"):
        read_regions(path, whole((50, 100), 8.0), 8.0)


def test_bad_mask_images(tmp_path):
    cv2.imwrite(str(tmp_path / "square.png"), np.full((50, 50), 255, np.uint8))
    with pytest.raises(SlideError, match="shape"):
        read_regions(tmp_path / "square.png", whole((50, 100), 8.0), 8.0)
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((50, 100), np.uint8))
    with pytest.raises(SlideError, match="covers nothing"):
        read_regions(tmp_path / "black.png", whole((50, 100), 8.0), 8.0)
    (tmp_path / "text.png").write_text("x")
    with pytest.raises(SlideError, match="readable"):
        read_regions(tmp_path / "text.png", whole((50, 100), 8.0), 8.0)
