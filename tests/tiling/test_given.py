"""Tiles of TRIDENT and CLAM in place of the grid."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config.tiling import TilingConfig
from pipeline.tiling import exchange
from pipeline.tiling.stage import run_slide
from tests.slides import files

CFG = TilingConfig(overlap_px=24, min_tissue_fraction=0.3)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    path = files.write_aperio(folder / "slide.svs", files.tissue_image(1500, 1800), 0.24, 40, 1, 2)
    run_slide(cfg=CFG, versions="", slide=path, out_dir=folder / "tiles")
    return path


def again(slide, given, out, cfg=CFG):
    return run_slide(cfg=cfg, versions="", slide=slide, out_dir=out / "tiles", coordinates=given)


def content(path):
    with h5py.File(path) as file:
        return file["coords"][()], file["tissue_fraction"][()], dict(file["coords"].attrs)


@pytest.mark.parametrize("tool", ["trident", "clam"])
def test_the_tiles_come_back_as_they_went(slide, tmp_path, tool):
    root = slide.parent
    arguments = ["export", "--root", str(root), "--tool", tool, "--out", str(tmp_path / tool)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (given,) = (tmp_path / tool).rglob("*.h5")
    # The minimal share of tissue is the grid's, not that of tiles somebody else chose.
    record = again(slide, given, tmp_path, CFG.model_copy(update={"min_tissue_fraction": 0.99}))
    assert (record.status, record.facts["tiles_source"]) == ("ok", tool)
    first, second = (content(f / "tiles" / "slide.h5") for f in (root, tmp_path))
    assert np.array_equal(first[0], second[0]) and len(first[0]) > 4
    if tool == "trident":
        assert np.allclose(first[1], second[1], atol=1e-5)
        assert second[2]["overlap"] == 24
    assert abs(second[2]["patch_size_level0"] - first[2]["patch_size_level0"]) <= 1


def test_another_file_makes_the_slide_stale(slide, tmp_path):
    ours = exchange.read_tiles(slide.parent / "tiles" / "slide.h5")
    given = exchange.write_trident(ours, tmp_path)
    before = again(slide, given, tmp_path)
    with h5py.File(given, "r+") as file:
        file["coords"][0] = (3, 5)
    after = again(slide, given, tmp_path)
    assert after.facts["n_tiles"] == before.facts["n_tiles"]
    assert [3, 5] in content(tmp_path / "tiles" / "slide.h5")[0].tolist()


def test_tiles_that_reach_beyond_the_slide_are_left_out_and_counted(slide, tmp_path):
    ours = exchange.read_tiles(slide.parent / "tiles" / "slide.h5")
    given = exchange.write_trident(ours, tmp_path)
    with h5py.File(given, "r+") as file:
        file["coords"][0] = (1700, 0)
        file["coords"][1] = file["coords"][2]  # and a tile that is named twice
    record = again(slide, given, tmp_path)
    assert record.facts["n_tiles"] == len(ours.coords) - 2
    assert any("1 given tiles reach beyond" in w["text"] for w in record.facts["warnings"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"level0_width": 9000}, "made for a slide of 9000 x 1500"),
        ({"patch_size_level0": 933}, "um wide on this slide"),
        ({"coords": (5000, 5000)}, "no tile of it lies on the slide"),
    ],
)
def test_tiles_of_another_slide_or_size_are_refused(slide, tmp_path, change, word):
    ours = exchange.read_tiles(slide.parent / "tiles" / "slide.h5")
    given = exchange.write_trident(ours, tmp_path)
    with h5py.File(given, "r+") as file:
        if "coords" in change:
            file["coords"][:] = change["coords"]
        else:
            file["coords"].attrs.update(change)
    record = again(slide, given, tmp_path)
    assert (record.status, record.kind) == ("failed", "bad_coordinates")
    assert word in record.reason


@pytest.mark.parametrize("text", [None, "not HDF5"])
def test_missing_or_unreadable_files_are_named(slide, tmp_path, text):
    given = tmp_path / "x.h5"
    if text:
        given.write_text(text)
    record = again(slide, given, tmp_path)
    assert record.kind == "bad_coordinates" and "x.h5" in record.reason


def test_coordinates_cannot_be_exported_to_stamp(slide, tmp_path):
    arguments = ["export", "--root", str(slide.parent), "--tool", "stamp", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0 and "trident" in str(result.exception)
