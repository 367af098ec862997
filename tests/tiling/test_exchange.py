"""Coordinates that TRIDENT and CLAM open, and theirs that we open: names, types, round trips."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from pipeline.config.tiling import TilingConfig
from pipeline.errors import ArtifactError
from pipeline.tiling import exchange
from pipeline.tiling.stage import run_slide
from tests.slides import files


@pytest.fixture(scope="module", params=[0.25, 0.24, 0.5])
def tiles(request, tmp_path_factory):
    """The tiles of a slide whose scale is, or is not, a nominal one."""
    folder = tmp_path_factory.mktemp("tiles")
    slide = files.write_aperio(
        folder / "slide.svs",
        files.tissue_image(1500, 1800),
        request.param,
        10 / request.param,
        1,
        2,
    )
    cfg = TilingConfig(overlap_px=24)
    run_slide(cfg=cfg, versions="", slide=slide, out_dir=folder / "tiles")
    return exchange.read_tiles(folder / "tiles" / "slide.h5")


def test_trident_round_trip(tiles, tmp_path):
    path = exchange.write_trident(tiles, tmp_path)
    assert path.relative_to(tmp_path).as_posix() == (
        "20x_224px_24px_overlap/patches/slide_patches.h5"
    )
    with h5py.File(path) as file:
        attributes = dict(file["coords"].attrs)
    assert tuple(sorted(attributes)) == tuple(sorted(exchange.TRIDENT))
    # How TRIDENT's patcher finds the size at level 0.
    source, target = (10 / attributes[f"{k}_magnification"] for k in ("level0", "target"))
    assert round(attributes["patch_size"] * (target / source)) == tiles.size0
    back = exchange.read_trident(path)
    assert np.array_equal(back.coords, tiles.coords) and back.coords.dtype == np.int32
    for name in ("name", "tile_px", "size0", "overlap_px", "target_magnification", "dimensions"):
        assert getattr(back, name) == getattr(tiles, name), name
    assert exchange.read_trident(exchange.write_trident(back, tmp_path / "again")).size0 == (
        tiles.size0
    )


def test_nominal_magnifications_stay_whole_numbers(tiles, tmp_path):
    with h5py.File(exchange.write_trident(tiles, tmp_path)) as file:
        power = file["coords"].attrs["level0_magnification"]
    assert (power == int(power)) == (tiles.size0 in (224, 448))


def test_clam_round_trip(tiles, tmp_path):
    path = exchange.write_clam(tiles, tmp_path)
    assert path == tmp_path / "patches" / "slide.h5"
    with h5py.File(path) as file:
        assert tuple(sorted(file["coords"].attrs)) == tuple(sorted(exchange.CLAM))
        assert file["coords"].attrs["downsample"].shape == (2,)
    back = exchange.read_clam(path)
    assert np.array_equal(back.coords, tiles.coords)
    assert (back.level, back.downsample, back.level_dimensions) == (
        tiles.level,
        tiles.downsample,
        tiles.level_dimensions,
    )
    assert abs(back.size0 - tiles.size0) <= tiles.downsample / 2
    assert np.allclose(back.dimensions, tiles.dimensions, atol=tiles.downsample)


def test_our_own_file_opens_as_tridents(tiles, tmp_path):
    with h5py.File(exchange.write_trident(tiles, tmp_path)) as file:
        names = set(file["coords"].attrs)
    assert names == set(exchange.TRIDENT)


def test_foreign_files_in_column_order_are_sorted(tmp_path):
    coords = np.array([(0, 512), (0, 0), (512, 0)], np.int64)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("coords", data=coords)
        data.attrs.update(
            patch_size=256,
            patch_level=1,
            downsample=(2.0, 2.0),
            downsampled_level_dim=(400, 300),
            level_dim=(400, 300),
            name="a",
            save_path="x",
        )
    back = exchange.read_clam(tmp_path / "a.h5")
    assert back.coords.tolist() == [[0, 0], [512, 0], [0, 512]]
    assert (back.size0, back.dimensions) == (512, (800, 600))
    assert exchange.write_clam(back, tmp_path).is_file()


def test_bad_files_are_named(tmp_path):
    (tmp_path / "a.h5").write_text("x")
    with pytest.raises(ArtifactError, match="coords"):
        exchange.read_clam(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("coords", data=np.zeros((1, 2), int))
    with pytest.raises(ArtifactError, match="lacks the attribute"):
        exchange.read_trident(tmp_path / "b.h5")


def test_tiles_without_a_level_cannot_go_to_clam(tiles, tmp_path):
    back = exchange.read_trident(exchange.write_trident(tiles, tmp_path))
    with pytest.raises(ArtifactError, match="level"):
        exchange.write_clam(back, tmp_path)


def test_a_whole_folder_leaves_out_empty_slides(tmp_path):
    slide = files.write_aperio(tmp_path / "a.svs", files.tissue_image(900, 900))
    blank = files.write_aperio(tmp_path / "b.svs", np.full((900, 900, 3), 243, np.uint8))
    for path in (slide, blank):
        run_slide(cfg=TilingConfig(), versions="", slide=path, out_dir=tmp_path / "tiles")
    for tool in ("trident", "clam"):
        (path,) = exchange.export(tmp_path / "tiles", tmp_path / tool, tool)
        assert path.is_file()
