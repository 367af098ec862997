"""Which microns per pixel are believed, which are not, and what is said about it."""

from __future__ import annotations

import pytest

from pipeline.config.tiling import TilingConfig
from pipeline.errors import SlideError
from pipeline.slides.mpp import find_scale
from pipeline.slides.slide import open_slide
from tests.slides import files
from tests.slides.dicom import write_dicom
from tests.slides.mirax import write_mirax

SIZE = (40_000, 30_000)
CFG = TilingConfig()
DEFAULT = TilingConfig(mpp_policy="default", default_mpp=0.4)


def scale(properties, override=None, cfg=CFG, size=SIZE):
    return find_scale(properties, size, override, cfg)


@pytest.mark.parametrize(
    ("properties", "value", "source"),
    [
        ({"aperio.MPP": "0.2520", "openslide.mpp-x": "0.252"}, 0.252, "aperio.MPP"),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}, 0.25, "openslide.mpp-x"),
        ({"openslide.mpp-x": "0,25"}, 0.25, "openslide.mpp-x"),
        ({"ome.PhysicalSizeX": "250", "ome.PhysicalSizeXUnit": "nm"}, 0.25, "ome.PhysicalSizeX"),
        (
            {"ome.PhysicalSizeX": "0.25", "ome.PhysicalSizeXUnit": "&#181;m"},
            0.25,
            "ome.PhysicalSizeX",
        ),
        (
            {"ome.PhysicalSizeX": "2.5e-7", "ome.PhysicalSizeXUnit": "m"},
            0.25,
            "ome.PhysicalSizeX",
        ),
        ({"openslide.comment": "<a><PixelSizeMicrons>0.5</PixelSizeMicrons>"}, 0.5, "comment"),
        ({"openslide.comment": "x|MPP = 0.5|y"}, 0.5, "comment"),
        (
            {"tiff.XResolution": "50800", "tiff.ResolutionUnit": "inch"},
            0.5,
            "tiff.XResolution",
        ),
        (
            {
                "openslide.vendor": "generic-tiff",
                "openslide.mpp-x": "0.5",
                "tiff.XResolution": "20000",
                "tiff.ResolutionUnit": "centimeter",
            },
            0.5,
            "tiff.XResolution",
        ),
    ],
)
def test_sources(properties, value, source):
    found = scale(properties)
    assert found.mpp == pytest.approx(value) and found.source == source
    assert found.warnings == ()


def test_the_sheet_comes_first_and_is_checked():
    found = scale({"aperio.MPP": "0.25"}, override=0.5)
    assert (found.mpp, found.source) == (0.5, "sheet")
    with pytest.raises(SlideError, match="correct the sheet") as caught:
        scale({"aperio.MPP": "0.25"}, override=50.0, cfg=DEFAULT)
    assert caught.value.kind == "implausible_mpp"


def test_the_sheet_may_contradict_the_objective_but_not_in_silence():
    found = scale({"openslide.objective-power": "40"}, override=2.5)
    assert found.mpp == 2.5 and "40x" in found.warnings[0].text


@pytest.mark.parametrize(
    ("properties", "word"),
    [
        ({"tiff.XResolution": "10", "tiff.ResolutionUnit": "centimeter"}, "mpp_range"),
        ({"aperio.MPP": "0.0274", "openslide.objective-power": "40"}, "mpp_range"),
        ({"aperio.MPP": "2.5", "openslide.objective-power": "40"}, "objective"),
        ({"openslide.mpp-x": "0.05"}, "would be 0.5 if its unit is ten times off"),
        (
            {"tiff.XResolution": "101600", "tiff.ResolutionUnit": "centimeter"},
            "would be 0.25 if its resolution is in pixels per inch, not per cm",
        ),
        ({"ome.PhysicalSizeX": "0.25", "ome.PhysicalSizeXUnit": "pixel"}, "no known length"),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, "square"),
        ({"openslide.mpp-x": "9.0"}, "mm long"),
    ],
)
def test_unbelievable_scales_are_never_used(properties, word):
    with pytest.raises(SlideError, match=word) as caught:
        scale(properties)
    assert caught.value.kind == "implausible_mpp" and "mpp" in caught.value.reason
    found = scale(properties, cfg=DEFAULT)
    assert (found.mpp, found.source) == (0.4, "default")
    assert len(found.warnings) == 2


def test_an_unbelievable_source_gives_way_to_a_believable_one():
    found = scale(
        {
            "openslide.mpp-x": "1000",
            "tiff.XResolution": "20000",
            "tiff.ResolutionUnit": "centimeter",
        }
    )
    assert (found.mpp, found.source) == (0.5, "tiff.XResolution")
    assert "1000" in found.warnings[0].text


def test_one_tag_under_several_names_is_one_warning():
    names = {"aperio.MPP": "1000", "openslide.mpp-x": "1000", "openslide.comment": "a|MPP = 1000"}
    assert len(scale(names, cfg=DEFAULT).warnings) == 2


def test_sources_that_disagree_are_named_with_both_values():
    found = scale({"aperio.MPP": "0.5", "ome.PhysicalSizeX": "0.25"})
    (warning,) = found.warnings
    assert found.mpp == 0.5 and warning.kind == "scale_sources_disagree"
    assert warning.text == "aperio.MPP says 0.5 µm/px and is used, ome.PhysicalSizeX says 0.25"
    (warning,) = scale({"aperio.MPP": "0.25"}, override=0.5).warnings
    assert warning.text == "the sheet says 0.5 µm/px and is used, aperio.MPP says 0.25"


def test_a_printers_resolution_behind_a_good_scale_is_no_warning():
    printed = {"tiff.XResolution": "72", "tiff.ResolutionUnit": "inch"}
    assert scale({"ome.PhysicalSizeX": "0.25", **printed}).warnings == ()


def test_an_ome_unit_that_nobody_knows_is_named_where_a_tag_is_used_instead():
    tag = {"tiff.XResolution": "20000", "tiff.ResolutionUnit": "centimeter"}
    found = scale({"ome.PhysicalSizeX": "0.25", "ome.PhysicalSizeXUnit": "pixel", **tag})
    assert found.mpp == 0.5 and "`pixel`" in found.warnings[0].text


@pytest.mark.parametrize(
    ("pixels", "unit", "meant"),
    [("50800", "centimeter", "0.5 if"), ("20000", "inch", "0.5 if"), ("20000", "centimeter", "")],
)
def test_a_tag_in_the_wrong_unit_is_a_warning(pixels, unit, meant):
    found = scale({"tiff.XResolution": pixels, "tiff.ResolutionUnit": unit})
    assert [w.kind for w in found.warnings] == ["scale_unusual"] * bool(meant)
    assert all(meant in w.text for w in found.warnings)


def test_no_scale_names_the_remedies():
    with pytest.raises(SlideError, match="mpp_policy: default") as caught:
        scale({"aperio.AppMag": "20", "tiff.ResolutionUnit": "inch", "openslide.mpp-x": "nan"})
    assert caught.value.kind == "no_mpp" and "`mpp` column" in caught.value.reason


@pytest.mark.parametrize(
    ("name", "write", "source"),
    [
        ("a.svs", files.write_aperio, "aperio.MPP"),
        ("a.ndpi", files.write_ndpi, "openslide.mpp-x"),
        ("a.ome.tif", files.write_ome, "ome.PhysicalSizeX"),
        ("a.tif", files.write_strips, "tiff.XResolution"),
        ("a.mrxs", write_mirax, "openslide.mpp-x"),
        ("series", write_dicom, "openslide.mpp-x"),
    ],
)
def test_the_scale_of_real_files(tmp_path, name, write, source):
    path = write(tmp_path / name, files.tissue_image(300, 400), mpp=0.46)
    with open_slide(path) as slide:
        found = find_scale(slide.properties, slide.dimensions, None, CFG)
    assert found.mpp == pytest.approx(0.46, rel=1e-3) and found.source == source
