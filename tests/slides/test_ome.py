"""Which image of an OME-TIFF says what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipeline.config.tiling import TilingConfig
from pipeline.slides.mpp import find_scale
from pipeline.slides.ome import image_of, read_images
from pipeline.slides.slide import open_slide
from tests.slides import files

HEAD = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'


def image(
    name: str, size: tuple[int, int], mpp: float, unit: str = "&#181;m", more: str = ""
) -> str:
    sides = " ".join(f'PhysicalSize{axis}="{mpp}" PhysicalSize{axis}Unit="{unit}"' for axis in "XY")
    return (
        f'<Image ID="Image:{name}" Name="{name}">{more}<Pixels ID="Pixels:{name}" Type="uint8" '
        f'DimensionOrder="XYCZT" SizeX="{size[0]}" SizeY="{size[1]}" SizeC="3" SizeZ="1" SizeT="1" '
        f'{sides}><Channel ID="Channel:{name}" SamplesPerPixel="3"/></Pixels></Image>'
    )


@pytest.mark.parametrize("unit", ["&#181;m", "&#xB5;m", "&micro;m", "µm"])
def test_the_unit_may_be_written_as_an_entity(unit: str) -> None:
    (found,) = read_images(HEAD + image("a", (10, 10), 0.25, unit) + "</OME>")
    assert found.physical["PhysicalSizeXUnit"] == "µm"


def test_each_image_has_its_own_objective() -> None:
    xml = (
        '<Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="1.25"/>'
        '<Objective ID="Objective:1" NominalMagnification="20"/></Instrument>'
    )
    macro = image("macro", (8, 8), 4.0, more='<ObjectiveSettings ID="Objective:0"/>')
    slide = image("slide", (64, 64), 0.5, more='<ObjectiveSettings ID="Objective:1"/>')
    found = read_images(HEAD + xml + macro + slide + "</OME>")
    assert [i.magnification for i in found] == ["1.25", "20"]


def test_pixels_are_matched_by_place_then_name_then_size() -> None:
    xml = HEAD + image("a", (10, 10), 1) + image("b", (20, 10), 2) + image("c", (20, 10), 3)
    images = read_images(xml + "</OME>")
    assert image_of(images, (20, 10), "", 1, 3) is images[1]
    assert image_of(images, (20, 10), "c", 0, 1) is images[2]
    assert image_of(images, (20, 10), "", 0, 1) is images[1]
    assert image_of(images, (5, 5), "", 0, 1) is None


def test_what_is_no_xml_says_nothing() -> None:
    assert read_images("<OME") == []


def test_the_scale_is_of_the_image_that_is_read(tmp_path: Path) -> None:
    """A macro picture at 4 µm/px stands before the slide at 0.5 µm/px."""
    path = tmp_path / "macro_first.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for picture, mpp, name in (
            (files.tissue_image(64, 96), 4.0, "macro image"),
            (files.tissue_image(512, 768), 0.5, "slide"),
        ):
            metadata = {"axes": "YXS", "Name": name, "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            file.write(picture, photometric="rgb", tile=(256, 256), metadata=metadata)
    with open_slide(path) as slide:
        scale = find_scale(slide.properties, slide.dimensions, None, TilingConfig())
        assert (slide.dimensions, scale.mpp) == ((768, 512), 0.5)
        assert slide.warnings == () and scale.warnings == ()


def test_xml_that_describes_other_pixels_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "cut.ome.tif"
    xml = HEAD + image("a", (512, 512), 0.25) + "</OME>"
    pixels = np.full((256, 256, 3), 200, np.uint8)
    plain = {"photometric": "rgb", "tile": (128, 128), "metadata": None}
    tifffile.imwrite(path, pixels, description=xml.encode(), **plain)
    with open_slide(path) as slide:
        assert [w.kind for w in slide.warnings] == ["scale_passed_over"]
        assert "ome.PhysicalSizeX" not in slide.properties
