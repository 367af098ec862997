"""DICOM slides that OpenSlide refuses or shows in false colours."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames

from pipeline.errors import SlideError
from pipeline.slides.dicom_backend import DicomSlide
from pipeline.slides.openslide_backend import OpenSlideSlide
from pipeline.slides.slide import open_slide
from tests.slides import files
from tests.slides.dicom import Coding, jpeg, write_dicom

IMAGE = files.tissue_image(700, 900)
SYNTAX = "1.2.840.10008.1.2.4."


def lossless(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(tile, lossless=True, colorspace=2, outcolorspace=2)


def test_pixels_and_facts_are_those_of_openslide(tmp_path: Path) -> None:
    path = write_dicom(tmp_path, IMAGE) / "level_0.dcm"
    ours, theirs = DicomSlide(path), OpenSlideSlide(path)
    assert ours.level_dimensions == theirs.level_dimensions
    for key in ("openslide.mpp-x", "openslide.mpp-y"):
        assert float(ours.properties[key]) == pytest.approx(float(theirs.properties[key]))
    for x, y, level, w, h in ((0, 0, 0, 900, 700), (300, 200, 0, 300, 300), (0, 0, 1, 225, 175)):
        assert np.array_equal(
            ours.read_region(x, y, level, w, h), theirs.read_region(x, y, level, w, h)
        )


@pytest.mark.parametrize(
    "coding",
    [
        Coding(SYNTAX + "80", lambda t: imagecodecs.jpegls_encode(t), "RGB"),
        Coding(SYNTAX + "70", lossless, "RGB"),
        Coding(SYNTAX + "110", lambda t: imagecodecs.jpegxl_encode(t, lossless=True), "RGB"),
    ],
    ids=["jpegls", "lossless", "jpegxl"],
)
def test_codings_that_openslide_refuses_are_read_exactly(tmp_path: Path, coding: Coding) -> None:
    path = write_dicom(tmp_path, IMAGE, coding=coding) / "level_0.dcm"
    with pytest.raises(SlideError):
        OpenSlideSlide(path)
    with open_slide(path) as slide:
        assert slide.backend == "pydicom"
        assert np.array_equal(slide.read_region(0, 0, 0, 900, 700), IMAGE)
        outside = slide.read_region(800, 600, 0, 200, 200)
    assert np.array_equal(outside[:100, :100], IMAGE[600:, 800:]) and (outside[100:] == 255).all()


def test_ycbcr_that_the_header_calls_rgb_is_read_in_its_own_colours(tmp_path: Path) -> None:
    path = write_dicom(tmp_path, IMAGE, coding=Coding(colours="RGB")) / "level_0.dcm"
    with open_slide(path) as slide:
        assert slide.backend == "pydicom"
        found = slide.read_region(0, 0, 0, 900, 700)
    assert np.abs(found.astype(int) - IMAGE).mean() < 6


def test_what_nobody_reads_is_refused_with_both_reasons(tmp_path: Path) -> None:
    path = write_dicom(tmp_path, IMAGE, coding=Coding(SYNTAX + "999", jpeg)) / "level_0.dcm"
    with pytest.raises(SlideError, match=r"OpenSlide: .*; .*unknown transfer syntax") as caught:
        open_slide(path)
    assert caught.value.kind == "unopenable"


def test_a_cut_file_fails_where_it_ends(tmp_path: Path) -> None:
    path = write_dicom(tmp_path, IMAGE) / "level_0.dcm"
    slide = DicomSlide(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert slide.read_region(0, 0, 0, 100, 100).shape == (100, 100, 3)
    with pytest.raises(SlideError) as caught:
        slide.read_region(800, 600, 0, 100, 100)
    assert caught.value.kind == "unreadable"


def test_sparse_frames_lie_where_they_say(tmp_path: Path) -> None:
    """The same frames, listed from the last to the first, each with its place."""
    path = write_dicom(tmp_path, IMAGE) / "level_0.dcm"
    whole = DicomSlide(path).read_region(0, 0, 0, 900, 700)
    data = pydicom.dcmread(path)
    frames = list(generate_frames(data.PixelData, number_of_frames=12))[:-1]
    data.DimensionOrganizationType = "TILED_SPARSE"
    data.NumberOfFrames = len(frames)
    data.PixelData = encapsulate(frames[::-1])
    data.PerFrameFunctionalGroupsSequence = [place(n) for n in reversed(range(len(frames)))]
    data.save_as(path)
    found = DicomSlide(path).read_region(0, 0, 0, 900, 700)
    assert (found[512:, 768:] == 255).all()  # the last frame was left out
    whole[512:, 768:] = 255
    assert np.array_equal(found, whole)


def place(number: int) -> pydicom.Dataset:
    position, frame = pydicom.Dataset(), pydicom.Dataset()
    position.ColumnPositionInTotalImagePixelMatrix = 1 + number % 4 * 256
    position.RowPositionInTotalImagePixelMatrix = 1 + number // 4 * 256
    frame.PlanePositionSlideSequence = [position]
    return frame
