"""Every kind of file: who reads it, that the pixels are right, and why others are refused."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from pipeline.errors import SlideError
from pipeline.slides import base, tiff
from pipeline.slides.openslide_backend import OpenSlideSlide
from pipeline.slides.pixels import on_white
from pipeline.slides.slide import open_slide
from tests.slides import files
from tests.slides.dicom import write_dicom
from tests.slides.mirax import write_mirax


@pytest.fixture(scope="module")
def image():
    return files.tissue_image(700, 900)


def write_png(path: Path, image) -> Path:
    cv2.imwrite(str(path), image[..., ::-1])
    return path


WRITERS = {
    "aperio.svs": (files.write_aperio, "openslide", 6.0),
    "hamamatsu.ndpi": (files.write_ndpi, "openslide", 6.0),
    "pyramid.ome.tif": (files.write_ome, "tifffile", 0.0),
    "strips.tif": (files.write_strips, "tifffile", 0.0),
    "series": (write_dicom, "openslide", 6.0),
    "region.png": (write_png, "image", 0.0),
}


@pytest.mark.parametrize("name", WRITERS)
def test_pixels_and_padding_of_every_backend(tmp_path, image, name):
    write, backend, tolerance = WRITERS[name]
    with open_slide(write(tmp_path / name, image)) as slide:
        assert slide.backend == backend
        assert slide.dimensions == (900, 700)
        assert slide.level_downsamples[0] == 1
        inside = slide.read_region(130, 270, 0, 300, 260)
        assert inside.dtype == np.uint8 and inside.shape == (260, 300, 3)
        error = np.abs(inside.astype(int) - image[270:530, 130:430])
        assert error.mean() <= tolerance
        corner = slide.read_region(-20, -10, 0, 64, 48)
        assert (corner[:10] == 255).all() and (corner[:, :20] == 255).all()
        assert (corner[10:, 20:] != 255).any()
        beyond = slide.read_region(880, 690, 0, 40, 40)
        assert (beyond[10:] == 255).all() and (beyond[:, 20:] == 255).all()
        height, width, _ = slide.thumbnail(256).shape
        assert width == 256 and abs(height - 256 * 700 / 900) <= 1


@pytest.mark.parametrize("name", ["aperio.svs", "hamamatsu.ndpi", "series", "pyramid.ome.tif"])
def test_levels_show_the_same_place(tmp_path, image, name):
    with open_slide(WRITERS[name][0](tmp_path / name, image)) as slide:
        assert len(slide.level_dimensions) >= 2
        factor = slide.level_downsamples[1]
        fine = slide.read_region(200, 200, 0, 400, 400)
        size = round(400 / factor)
        coarse = slide.read_region(200, 200, 1, size, size)
        shrunk = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
        assert np.abs(coarse.astype(int) - shrunk).mean() < 6


def test_mirax_has_its_pixels_and_white_where_the_scanner_left_out(tmp_path):
    image = files.tissue_image(1300, 1700, margin=0.2)
    path = write_mirax(tmp_path / "a.mrxs", image)
    with open_slide(path) as slide:
        assert slide.backend == "openslide" and slide.properties["openslide.vendor"] == "mirax"
        assert len(slide.level_dimensions) == 2
        error = slide.read_region(500, 500, 0, 300, 260).astype(int) - image[500:760, 500:800]
        assert np.abs(error).mean() < 6
        assert (slide.read_region(0, 0, 0, 200, 200) == 255).all()
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    error = refusal(path)
    assert error.kind == "missing_file" and "a/" in error.reason


def test_wrong_arguments_are_programming_errors(tmp_path, image):
    with open_slide(write_png(tmp_path / "a.png", image)) as slide:
        with pytest.raises(ValueError, match="level"):
            slide.read_region(0, 0, 1, 10, 10)
        with pytest.raises(ValueError, match="region"):
            slide.read_region(0, 0, 0, 0, 10)


def test_bands_bound_the_memory_and_change_nothing(tmp_path, image, monkeypatch):
    path = files.write_ome(tmp_path / "a.ome.tif", image)
    with open_slide(path) as slide:
        whole = slide.read_reduced(0, 4)
        monkeypatch.setattr(base, "BAND_PIXELS", 900 * 40)
        heights = [band.shape[0] for _, band in slide.bands(0, 4)]
        assert len(heights) > 10 and max(heights) <= 40
        assert np.array_equal(slide.read_reduced(0, 4), whole)


def test_transparent_pixels_are_white():
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0] = (10, 20, 30, 255)
    assert (on_white(pixels)[1] == 255).all()
    pixels[1] = (0, 0, 0, 128)
    assert on_white(pixels)[1, 0].tolist() == [127, 127, 127]
    assert on_white(pixels)[0, 0].tolist() == [10, 20, 30]


def test_sixteen_bit_planar_and_chained_pyramids(tmp_path, image):
    deep = tmp_path / "deep.tif"
    files.write_strips(deep, image.astype(np.uint16) * 256)
    planar = tmp_path / "planar.tif"
    tifffile.imwrite(
        planar,
        np.moveaxis(image, -1, 0),
        photometric="rgb",
        planarconfig="separate",
        rowsperstrip=64,
    )
    for path in (deep, planar):
        with open_slide(path) as slide:
            assert np.array_equal(slide.read_region(50, 60, 0, 100, 90), image[60:150, 50:150])
    chained = tmp_path / "chained.tif"
    with tifffile.TiffWriter(chained) as file:
        for level, pixels in enumerate(files.halves(image, 2, 2)):
            file.write(pixels, photometric="rgb", rowsperstrip=32, subfiletype=int(level > 0))
    with open_slide(chained) as slide:
        assert slide.backend == "tifffile"
        assert slide.level_dimensions == ((900, 700), (450, 350), (225, 175))


def refusal(path: Path) -> SlideError:
    with pytest.raises(SlideError) as caught, open_slide(path) as slide:
        slide.thumbnail(64)
    assert path.name in caught.value.reason
    return caught.value


def test_what_is_not_brightfield_is_refused(tmp_path):
    grey = np.zeros((600, 600), np.uint16)
    tifffile.imwrite(tmp_path / "one.tif", grey, tile=(256, 256))
    tifffile.imwrite(
        tmp_path / "three.ome.tif",
        np.zeros((3, 600, 600), np.uint8),
        tile=(256, 256),
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "FITC", "Cy5"]}},
    )
    tifffile.imwrite(
        tmp_path / "five.ome.tif",
        np.zeros((5, 600, 600), np.uint8),
        tile=(256, 256),
        photometric="minisblack",
        metadata={"axes": "CYX"},
    )
    cv2.imwrite(str(tmp_path / "grey.png"), grey.astype(np.uint8))
    for name in ("one.tif", "three.ome.tif", "five.ome.tif", "grey.png"):
        assert refusal(tmp_path / name).kind == "not_brightfield", name


def test_three_unnamed_channels_are_red_green_and_blue(tmp_path, image):
    path = tmp_path / "planes.ome.tif"
    tifffile.imwrite(
        path,
        np.moveaxis(image, -1, 0),
        tile=(256, 256),
        photometric="minisblack",
        metadata={"axes": "CYX"},
    )
    with open_slide(path) as slide:
        assert np.array_equal(slide.read_region(50, 60, 0, 100, 90), image[60:150, 50:150])


def test_files_that_are_no_slides(tmp_path):
    assert refusal(tmp_path / "absent.svs").kind == "missing_file"
    (tmp_path / "text.svs").write_text("not a slide")
    assert refusal(tmp_path / "text.svs").kind == "unopenable"
    (tmp_path / "pointer.svs").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in refusal(tmp_path / "pointer.svs").reason
    (tmp_path / "empty.tif").write_bytes(b"")
    assert refusal(tmp_path / "empty.tif").kind == "unopenable"
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert refusal(tmp_path / "cut.png").kind == "unopenable"
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder").kind == "unopenable"


def test_a_tiny_file_that_declares_a_huge_image_is_refused_before_decoding(tmp_path):
    error = refusal(files.write_bomb(tmp_path / "bomb.tif"))
    assert error.kind == "too_large" and "1000000 x 1000000" in error.reason
    # Within what the bytes could hold, but in one block that would have to be decoded whole.
    assert refusal(files.write_bomb(tmp_path / "block.tif", 16_400)).kind == "too_large"


@pytest.mark.parametrize("keep", [4, 100, 0.5, 0.9])
def test_a_cut_file_is_called_truncated(tmp_path, image, keep):
    path = files.write_aperio(tmp_path / "a.svs", image)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep < 1 else keep])
    with pytest.raises(SlideError) as caught:
        tiff.check_whole(path, tiff.read_pages(path))
    assert caught.value.kind in ("truncated", "unopenable")
    if keep < 1:
        assert caught.value.kind == "truncated"


def test_whole_files_are_not_called_truncated(tmp_path, image):
    for name in ("aperio.svs", "hamamatsu.ndpi", "pyramid.ome.tif", "strips.tif"):
        path = WRITERS[name][0](tmp_path / name, image)
        pages = tiff.read_pages(path)
        tiff.check_size(path, pages)
        tiff.check_whole(path, pages)
        assert (pages[0].width, pages[0].height, pages[0].samples) == (900, 700, 3)
    assert len(tiff.read_pages(tmp_path / "pyramid.ome.tif")) == 2  # one is a sub-directory


@pytest.mark.parametrize("photometric", ["rgb", "jpeg-rgb"])
def test_direct_tiles_are_openslides_pixels(tmp_path, image, photometric):
    path = tmp_path / "a.svs"
    if photometric == "rgb":
        files.write_aperio(path, image)
    else:  # as old Aperio scanners wrote: JPEG without a change of colour space
        outcolours = {"level": 90, "outcolorspace": "rgb"}
        tifffile.imwrite(
            path,
            image,
            tile=(256, 256),
            photometric="rgb",
            compression="jpeg",
            compressionargs=outcolours,
            description="Aperio Image Library v11 \n900x700|MPP = 0.5",
            metadata=None,
        )
    with open_slide(path) as slide, openslide.OpenSlide(str(path)) as plain:
        assert slide.blocks is not None
        for x, y, level, w, h in (
            (0, 0, 0, 900, 700),
            (130, 77, 0, 300, 256),
            (-9, 600, 0, 99, 200),
        ):
            wanted = on_white(np.asarray(plain.read_region((x, y), level, (w, h))))
            assert np.array_equal(slide.read_region(x, y, level, w, h), wanted)


def test_tiles_that_are_not_plain_are_left_to_openslide(tmp_path, image):
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = list(file.pages[0].databytecounts)
        file.pages[0].tags[325].overwrite([0, *counts[1:]])
    with open_slide(path) as slide:
        assert slide.backend == "openslide" and slide.blocks is None
        assert np.array_equal(slide.read_region(300, 300, 0, 99, 99), image[300:399, 300:399])


@pytest.mark.parametrize("codec", ["webp", "jpegxl", "jpeg2000", "lerc", "png", "lzma"])
def test_compressions_that_openslide_refuses_are_read_by_tifffile(tmp_path, image, codec):
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (256, 256), "metadata": None}
    tifffile.imwrite(path, image, compression=codec, **options)
    with pytest.raises(SlideError, match="Unsupported TIFF compression"):
        OpenSlideSlide(path)
    with open_slide(path) as slide:
        height, width = image.shape[:2]
        assert slide.backend == "tifffile"
        assert (slide.read_region(0, 0, 0, width, height) == image).all()


@pytest.mark.parametrize("codec", ["jpeg2000", 33003, "lzma"])
def test_colours_that_are_stored_as_ycbcr_are_turned_to_rgb(tmp_path, image, codec):
    path = tmp_path / "a.tif"
    stored = np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[..., (0, 2, 1)])
    options = {"photometric": "ycbcr", "tile": (256, 256), "metadata": None}
    tifffile.imwrite(path, stored, compression=codec, **options)
    with open_slide(path) as slide:
        found = slide.read_region(0, 0, 0, image.shape[1], image.shape[0])
    assert np.abs(found.astype(int) - image).max() <= 3


def test_what_nobody_reads_is_refused_with_both_reasons(tmp_path, image):
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "tile": (256, 256), "metadata": None}
    tifffile.imwrite(path, image, compression="lzma", **options)
    data = path.read_bytes()
    compression = struct.pack("<HHIH", 259, 3, 1, 34925)
    assert data.count(compression) == 1
    path.write_bytes(data.replace(compression, struct.pack("<HHIH", 259, 3, 1, 34999)))
    with pytest.raises(SlideError, match=r"OpenSlide: .*34999; .*") as caught:
        open_slide(path)
    assert caught.value.kind == "unopenable"


@pytest.mark.parametrize("backend", ["openslide", "tifffile"])
def test_damaged_pixels_raise_and_sound_ones_can_still_be_read(tmp_path, image, backend):
    big = files.tissue_image(1024, 1024)
    if backend == "openslide":
        path = files.write_aperio(tmp_path / "a.svs", big, levels=0)
    else:
        path = files.write_ome(tmp_path / "a.ome.tif", big, levels=0, compression="deflate")
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + count] = bytes([0xAA]) * count
    path.write_bytes(data)
    with open_slide(path) as slide:
        for _ in range(2):
            with pytest.raises(SlideError) as caught:
                slide.read_region(0, 0, 0, 200, 200)
            assert caught.value.kind == "unreadable"
            assert slide.read_region(600, 600, 0, 200, 200).std() > 1


def test_random_damage_never_escapes_as_anything_but_a_slide_error(tmp_path, image):
    path = files.write_ome(tmp_path / "a.ome.tif", image)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(40):
        broken = bytearray(data)
        for at in rng.integers(0, 400, 6):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        try:
            with open_slide(path) as slide:
                slide.read_region(0, 0, 0, 64, 64)
        except SlideError as error:
            assert error.kind, trial
