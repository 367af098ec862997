"""Slides in colours that are not H&E's: told, refused or accepted, and never taken for pen."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.config.tiling import TilingConfig
from pipeline.contracts import slide_warnings
from pipeline.contracts.ledger import Record
from pipeline.tiling.stage import run_slide
from tests.slides import files


@pytest.fixture(scope="module")
def image() -> files.Image:
    return files.tissue_image(1600, 1600)


def tiled(folder: Path, image: files.Image, cfg: TilingConfig) -> Record:
    path = files.write_ome(folder / "s.ome.tif", np.ascontiguousarray(image), levels=0)
    return run_slide(cfg=cfg, versions="", slide=path, out_dir=folder / "tiles")


def told(record: Record) -> list[str]:
    return [w.text for w in slide_warnings.of(record.facts) if w.kind == "colours_unusual"]


def test_exchanged_channels_are_a_warning_a_refusal_or_accepted(
    tmp_path: Path, image: files.Image
) -> None:
    sound = tiled(tmp_path, image, TilingConfig())
    assert sound.status == "ok" and told(sound) == []
    assert sound.facts["colours"]["glass"] == pytest.approx(files.GLASS, abs=2)
    swapped = image[..., ::-1]
    warned = tiled(tmp_path, swapped, TilingConfig())
    assert warned.status == "ok" and "red and blue are exchanged" in told(warned)[0]
    refused = tiled(tmp_path, swapped, TilingConfig(unusual_colours="refuse"))
    assert (refused.status, refused.kind) == ("failed", "colours_unusual")
    assert "red and blue are exchanged" in refused.reason
    accepted = tiled(tmp_path, swapped, TilingConfig(unusual_colours="accept"))
    assert accepted.status == "ok" and told(accepted) == []


def test_tissue_in_false_colours_is_not_masked_as_pen(tmp_path: Path, image: files.Image) -> None:
    false = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    record = tiled(tmp_path, false, TilingConfig())
    assert record.facts["pen_fraction"] == 0
    assert "pen was not looked for" in told(record)[0]


def test_pen_is_found_under_a_cast(tmp_path: Path, image: files.Image) -> None:
    marked = files.draw_pen(image, "green", (200, 800), (1400, 800))
    record = tiled(tmp_path, (marked * (1, 1, 0.8)).astype(np.uint8), TilingConfig())
    assert "glass is not grey" in told(record)[0]
    assert record.facts["pen_colours"] == ["green"]
