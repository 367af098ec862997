"""Files with several scenes, pages or focal planes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipeline.errors import SlideError
from pipeline.slides.slide import open_slide
from tests.slides import files

FIRST = files.tissue_image(512, 768, seed=1)
SECOND = files.tissue_image(400, 768, seed=2)
PLAIN: dict[str, Any] = {
    "photometric": "rgb",
    "tile": (256, 256),
    "compression": "deflate",
    "metadata": None,
}


def scenes(path: Path) -> Path:
    with tifffile.TiffWriter(path, ome=True) as file:
        for name, picture in (("one", SECOND), ("two", FIRST)):
            file.write(picture, **{**PLAIN, "metadata": {"axes": "YXS", "Name": name}})
    return path


def pages(path: Path) -> Path:
    with tifffile.TiffWriter(path) as file:
        for picture in (SECOND, FIRST):
            file.write(picture, **PLAIN)
    return path


@pytest.mark.parametrize(("write", "name"), [(scenes, "a.ome.tif"), (pages, "a.tif")])
def test_a_number_chooses_a_scene_and_the_rest_is_named(tmp_path: Path, write, name: str) -> None:
    path = write(tmp_path / name)
    for choice, picture, number in (("largest", FIRST, 1), (0, SECOND, 0), (1, FIRST, 1)):
        with open_slide(path, choice) as slide:
            height, width = picture.shape[:2]
            assert slide.dimensions == (width, height) and slide.scene == number
            assert (slide.read_region(0, 0, 0, width, height) == picture).all()
            (warning,) = slide.warnings
            assert warning.kind == "other_scene_passed_over"
            assert f"scene {number} (768 x {height} pixels) is used" in warning.text
    with pytest.raises(SlideError, match=r"tiling.scene is 2, but the file has the scenes 0 to 1"):
        open_slide(path, 2)


def test_equal_pages_are_scenes_of_which_the_first_is_read(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for picture in (FIRST, FIRST[::-1]):
            file.write(np.ascontiguousarray(picture), **PLAIN)
    with open_slide(tmp_path / "a.tif") as slide:
        assert (slide.read_region(0, 0, 0, 768, 512) == FIRST).all() and len(slide.warnings) == 1


@pytest.mark.parametrize("marked", [True, False])
def test_a_pyramid_is_one_scene(tmp_path: Path, marked: bool) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, level in enumerate(files.halves(FIRST, 2, 2)):
            file.write(level, subfiletype=int(marked and number > 0), **PLAIN)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.dimensions == (768, 512) and slide.warnings == ()
    with pytest.raises(SlideError, match="only scene 0") as caught:
        open_slide(tmp_path / "a.tif", 1)
    assert caught.value.kind == "no_scene"


def test_each_scene_keeps_its_own_pyramid(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for picture in (FIRST, SECOND):
            for number, level in enumerate(files.halves(picture, 1, 2)):
                file.write(level, subfiletype=int(number > 0), **PLAIN)
    for scene, picture in enumerate((FIRST, SECOND)):
        with open_slide(tmp_path / "a.tif", scene) as slide:
            height, width = picture.shape[:2]
            assert slide.level_dimensions == ((width, height), (width // 2, height // 2))


def test_a_small_or_named_picture_is_no_scene(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for name, picture in (("label", SECOND), ("slide", FIRST), ("x", FIRST[:100, :100])):
            metadata = {"axes": "YXS", "Name": name}
            file.write(np.ascontiguousarray(picture), **{**PLAIN, "metadata": metadata})
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert slide.dimensions == (768, 512) and slide.warnings == ()


def test_of_a_stack_of_focal_planes_the_middle_one_is_read(tmp_path: Path) -> None:
    stack = np.stack([FIRST // 2, FIRST, FIRST // 3])
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(stack, **{**PLAIN, "metadata": {"axes": "ZYXS"}})
    with open_slide(tmp_path / "a.ome.tif") as slide:
        assert (slide.read_region(0, 0, 0, 768, 512) == FIRST).all()
        assert "focal plane 1 of 3" in slide.warnings[0].text
