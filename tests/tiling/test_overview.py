"""The cohort's table and contact sheet."""

from __future__ import annotations

import csv
import io

import cv2
import numpy as np
import pytest

from pipeline.config.tiling import TilingConfig
from pipeline.contracts.ledger import Record, write_manifest
from pipeline.tiling import overview
from pipeline.tiling.stage import run_slide
from tests.slides import files


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    image = files.draw_pen(files.tissue_image(1000, 1400), "green", (100, 100), (1300, 150))
    slide = files.write_aperio(root / "penned.svs", image)
    tiled = run_slide(cfg=TilingConfig(), versions="", slide=slide, out_dir=root / "tiles")
    lost = Record("lost", "tiling", "failed", kind="truncated", reason="the file, it ends early")
    manifests = [root / "tiles" / "manifest" / f"{n}.json" for n in range(2)]
    write_manifest(manifests[0], "tiling", "f", [tiled])
    write_manifest(manifests[1], "tiling", "f", [lost])
    overview.run(root=root, manifests=manifests)
    return root


def test_the_table_has_every_slide(cohort):
    rows = list(csv.DictReader(io.StringIO((cohort / "tiles" / "overview.csv").read_text())))
    assert [row["slide_id"] for row in rows] == ["lost", "penned"]
    lost, penned = rows
    assert (lost["status"], lost["kind"]) == ("failed", "truncated")
    assert lost["reason"] == "the file, it ends early" and lost["tissue_mm2"] == ""
    assert penned["mpp"] == "0.5" and penned["mpp_source"] == "aperio.MPP"
    assert penned["pen_colours"] == "green" and float(penned["pen_fraction"]) > 0.03
    assert float(penned["tissue_mm2"]) > 0.1 and int(penned["n_tiles"]) > 0
    assert 150 < float(penned["mean_red"]) < 255 and float(penned["eosin"]) > 0


def test_the_sheet_shows_every_slide(cohort):
    sheet = cv2.imread(str(cohort / "tiles" / "contact_sheet.jpg"))[..., ::-1].astype(int)
    lost, penned = sheet[:, :240], sheet[:, 240:480]
    assert sheet.shape[:2] == (240, 480)
    assert np.abs(lost[20:180, 20:220] - 235).max() < 12
    assert penned[20:180, 20:220].std() > 10
    red = (lost[..., 0] > 150) & (lost[..., 1] < 90)
    assert red.any() and not red[:200].any()


@pytest.mark.parametrize("count", [0, 1, 7, 5000])
def test_a_sheet_of_any_size_stays_small(tmp_path, count):
    records = [Record(f"s{n}", "tiling", "failed", kind="no_mpp") for n in range(count)]
    sheet = overview.contact_sheet(records, tmp_path)
    assert sheet.shape[1] <= 6000 and sheet.nbytes < 100e6
