"""Which tiles a slide gets: pen, blur and folds keep tiles away, small pictures give theirs."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from pipeline.config.tiling import TilingConfig, TissueConfig
from pipeline.contracts import slide_warnings
from pipeline.slides.polygons import Polygon, write_geojson
from pipeline.tiling.stage import run_slide
from tests.slides import files

SHARES = ("tissue_fraction", "pen_fraction", "blur_fraction", "fold_fraction")


def tile(tmp_path: Path, image: np.ndarray, cfg: TilingConfig | None = None, **given):
    """The record, the coordinates, and the shares of each tile."""
    path = files.write_ome(tmp_path / "s.ome.tif", image, levels=0)
    record = run_slide(
        cfg=cfg or TilingConfig(), versions="", slide=path, out_dir=tmp_path / "tiles", **given
    )
    name = path.name.removesuffix(".tif")
    with h5py.File(tmp_path / "tiles" / f"{name}.h5") as file:
        return record, file["coords"][:], {n: file[n][:] for n in SHARES if n in file}


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    """Tissue all over, 1344 x 1344 pixels of 0.5 µm: six tiles by six."""
    return np.ascontiguousarray(files.tissue_image(3000, 3000)[828:2172, 828:2172])


@pytest.fixture(scope="module")
def marked(field) -> np.ndarray:
    """A stroke of 60 µm straight down: a quarter of the tiles at x = 448, an eighth of those at
    x = 224 and at x = 672 nothing."""
    image = field.copy()
    cv2.rectangle(image, (420, 0), (504, 1343), files.INKS["green"], -1)
    return image


def ink(image: np.ndarray, corner: np.ndarray) -> float:
    x, y = corner
    part = image[y : y + 224, x : x + 224]
    return float((part == files.INKS["green"]).all(axis=2).mean())


def test_a_tile_with_a_quarter_of_pen_reaches_no_model(tmp_path, marked):
    record, coords, shares = tile(tmp_path, marked)
    assert ink(marked, np.array((448, 0))) == pytest.approx(0.25, abs=0.01)
    assert max(ink(marked, corner) for corner in coords) == 0
    assert sorted(set(coords[:, 0])) == [0, 672, 896, 1120]
    assert record.facts["tiles_left_out"] == {"pen": 12, "blur": 0}
    assert (shares["pen_fraction"] <= 0.05).all()


def test_the_limit_is_a_key_and_the_shares_are_in_the_file(tmp_path, marked):
    record, coords, shares = tile(tmp_path, marked, TilingConfig(max_pen_fraction=0.6))
    assert len(coords) == 36 and record.facts["tiles_left_out"]["pen"] == 0
    assert set(shares) == set(SHARES)
    for name in SHARES:
        assert shares[name].dtype == np.float32 and shares[name].shape == (36,)
    quarter = shares["pen_fraction"][coords[:, 0] == 448]
    assert (quarter >= 0.25).all() and (quarter < 0.6).all()
    assert (shares["pen_fraction"][coords[:, 0] >= 896] == 0).all()


def test_pen_is_measured_where_it_is_not_removed(tmp_path, marked):
    cfg = TilingConfig(tissue=TissueConfig(remove_pen=False, remove_blur=False))
    record, coords, shares = tile(tmp_path, marked, cfg)
    assert len(coords) == 36 and record.facts["tiles_left_out"] == {}
    assert shares["pen_fraction"].max() > 0.25
    assert "blur_fraction" not in shares  # nobody looked


def test_tissue_that_the_user_outlined_keeps_its_tiles_with_a_warning(tmp_path, marked):
    corner = np.array([(0, 0), (1344, 0), (1344, 1344), (0, 1344)], float)
    write_geojson(tmp_path / "mask.geojson", [Polygon((corner,), "Tissue")])
    record, coords, _ = tile(tmp_path, marked, mask=tmp_path / "mask.geojson")
    assert len(coords) == 36
    assert [w.kind for w in slide_warnings.of(record.facts)] == ["kept_artefacts"]
    assert "12 of 36 tiles have more pen" in record.facts["warnings"][0]["text"]


def test_blurred_tiles_are_left_out_by_their_own_limit(tmp_path, field):
    image = field.copy()
    image[:, 512:] = cv2.GaussianBlur(image, (0, 0), 14)[:, 512:]
    cfg = TilingConfig(min_tissue_fraction=0.2)
    _, coords, shares = tile(tmp_path, image, cfg)
    assert (shares["blur_fraction"] <= 0.25).all() and coords[:, 0].max() < 448
    cfg = TilingConfig(min_tissue_fraction=0.2, max_blur_fraction=0.8)
    _, coords, shares = tile(tmp_path, image, cfg)
    assert shares["blur_fraction"].max() > 0.25 and coords[:, 0].max() == 448


def test_folds_are_measured_and_left_out_only_if_asked(tmp_path, field):
    image = field.copy()
    image[:, 470:650] = image[:, 470:650] * np.array((0.6, 0.25, 0.55))
    _, coords, shares = tile(tmp_path, image)
    assert len(coords) == 36 and shares["fold_fraction"].max() > 0.5
    cfg = TilingConfig(tissue=TissueConfig(remove_folds=True))
    record, coords, _ = tile(tmp_path, image, cfg)
    assert 448 not in coords[:, 0] and record.facts["tiles_left_out"]["folds"] == 6


def test_the_picture_shows_the_tiles_that_pen_cost(tmp_path, marked):
    tile(tmp_path, marked)
    image = cv2.imread(str(tmp_path / "tiles" / "qc" / "s.ome.jpg"))[..., ::-1].astype(int)
    yellow = (image[..., 0] > 170) & (image[..., 1] > 140) & (image[..., 2] < 90)
    assert yellow.sum() > 500


@pytest.mark.parametrize("side", [(224, 224), (200, 230), (170, 300), (300, 447)])
def test_a_small_region_of_interest_gives_its_tiles(tmp_path, field, side):
    record, coords, shares = tile(tmp_path, np.ascontiguousarray(field[: side[1], : side[0]]))
    assert record.status == "ok" and len(coords) >= 1
    assert (shares["tissue_fraction"] >= 0.5).all()


def test_a_thin_core_between_two_columns_of_the_grid_gives_tiles(tmp_path, field):
    glass = np.full((1344, 1344, 3), files.GLASS, np.uint8)
    glass[100:1300, 350:545] = field[100:1300, 350:545]
    record, coords, _ = tile(tmp_path, glass, TilingConfig(min_tissue_fraction=0.75))
    assert record.facts["grid_origin"] != [0, 0] and len(coords) == 5
    assert len(set(coords[:, 0])) == 1 and abs(int(coords[0, 0]) - 336) < 30


def fragments(field: np.ndarray, side: int, count: int) -> np.ndarray:
    """Squares of tissue on glass, far from each other."""
    glass = np.full((2240, 2240, 3), files.GLASS, np.uint8)
    for k in range(count):
        y, x = 60 + 448 * (k // 4), 60 + 448 * (k % 4)
        glass[y : y + side, x : x + side] = field[y % 448 :, x % 448 :][:side, :side]
    return glass


def test_a_biopsy_in_fragments_keeps_them_by_default(tmp_path, field):
    record, coords, _ = tile(tmp_path, fragments(field, 190, 11))  # 9,025 µm² each
    assert record.facts["small_pieces"] == 0 and len(coords) >= 1


def test_pieces_that_are_too_small_are_counted_and_said(tmp_path, field):
    image = fragments(field, 100, 11)  # 2,500 µm² each
    image[1600:2100, 1600:2100] = field[:500, :500]
    record, _, _ = tile(tmp_path, image)
    assert record.facts["small_pieces"] == 11
    assert record.facts["small_pieces_mm2"] == pytest.approx(0.0275, rel=0.4)
    assert [w.kind for w in slide_warnings.of(record.facts)] == ["pieces_left_out"]
    assert "min_area_um2 = 5000" in record.facts["warnings"][0]["text"]


def test_no_tiles_because_every_piece_is_small(tmp_path, field):
    record, _, _ = tile(tmp_path, fragments(field, 100, 11))
    assert (record.status, record.kind) == ("empty", "small_pieces")
    assert "11 pieces" in record.reason and "min_area_um2" in record.reason


def test_no_tiles_because_all_is_masked(tmp_path, field):
    blurred = cv2.GaussianBlur(field, (0, 0), 14)
    record, _, _ = tile(tmp_path, blurred)
    assert (record.status, record.kind) == ("empty", "masked")
    assert "blur on 1" in record.reason and "remove_blur" in record.reason


def test_no_tiles_because_the_slide_is_smaller_than_one(tmp_path, field):
    record, _, _ = tile(tmp_path, np.ascontiguousarray(field[:120, :160]))
    assert (record.status, record.kind) == ("empty", "too_small")
    assert "80 x 60 um" in record.reason and "tile_px" in record.reason


def test_no_tiles_because_none_has_enough_tissue(tmp_path, field):
    record, _, _ = tile(tmp_path, fragments(field, 150, 3))
    assert (record.status, record.kind) == ("empty", "no_tiles")
    assert "% tissue at most" in record.reason and "min_tissue_fraction" in record.reason


def test_no_tiles_because_the_glass_is_empty(tmp_path, field):
    record, _, _ = tile(tmp_path, np.full_like(field, 243))
    assert (record.status, record.kind) == ("empty", "no_tissue")
    assert "entropy" in record.reason
