"""Slides through tifffile: what OpenSlide refuses or reads only in part.

OME-TIFF (its pyramid lies in sub-directories, which OpenSlide's generic reader does not see),
brightfield QPTIFF, TIFFs in strips, and compressions that OpenSlide does not have.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import tifffile

from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import SlideError
from pipeline.slides.base import LARGEST, Scene, Slide, not_rgb
from pipeline.slides.ome import OmeImage, image_of, read_images
from pipeline.slides.pixels import Image
from pipeline.slides.tiff_blocks import Blocks
from pipeline.slides.tiff_scenes import (
    choose,
    find_scenes,
    like_largest,
    passed_over,
)

_NO_OME = "the file's OME-XML describes no image of this size; what it says was not used"
_UNITS = {1: "none", 2: "inch", 3: "centimeter"}
_RGB_NAMES = {"", "red", "green", "blue", "r", "g", "b", "rgb", "brightfield"}
_PHOTOMETRIC_RGB, _PHOTOMETRIC_YCBCR = 2, 6


class TiffSlide(Slide):
    """A TIFF that tifffile reads.

    Args:
        path: the file.
        scene: which of its images, see `pipeline.slides.tiff_scenes`.

    Raises:
        SlideError: `unopenable`, `not_brightfield`, `no_scene`.
    """

    backend = "tifffile"

    def __init__(self, path: Path, scene: Scene = LARGEST) -> None:
        try:
            file = tifffile.TiffFile(path)
            scenes = like_largest(find_scenes(file))
            self.scene = choose(scenes, scene, path.name)
            chosen = scenes[self.scene]
            levels = chosen.levels
            xml = file.ome_metadata or ""
            images = read_images(xml)
            image = image_of(
                images,
                chosen.size,
                chosen.name,
                chosen.series,
                len(file.series),
            )
            properties = _properties(levels[0][0], image)
            for planes in levels:
                _check_planes(path, planes)
            _check_ome(path, image, len(levels[0]))
            self.warnings = passed_over(scenes, self.scene)
            if xml and image is None:
                self.warnings += (SlideWarning("scale_passed_over", _NO_OME),)
            self._pixels = self.blocks = Blocks(file, levels)
        except SlideError:
            raise
        except Exception as error:  # a damaged TIFF raises anything
            raise SlideError(f"{path.name}: tifffile: {error}", "unopenable") from error
        super().__init__(
            path, tuple((p[0].imagewidth, p[0].imagelength) for p in levels), properties
        )

    def _read(self, x: int, y: int, level: int, w: int, h: int) -> Image:
        downsample = self.level_downsamples[level]
        return self._pixels.read(round(x / downsample), round(y / downsample), level, w, h)

    def close(self) -> None:
        self._pixels.close()


def count_scenes(path: Path) -> int:
    """How many images like the largest a TIFF has; 1 where tifffile cannot tell."""
    try:
        with tifffile.TiffFile(path) as file:
            return len(like_largest(find_scenes(file)))
    except Exception:  # a damaged TIFF raises anything; who reads it will say what is wrong
        return 1


def _check_planes(path: Path, planes: list[tifffile.TiffPage]) -> None:
    page = planes[0]
    samples = page.samplesperpixel * len(planes)
    if len(planes) not in (1, 3) or (len(planes) == 3 and page.samplesperpixel != 1):
        raise SlideError(not_rgb(path, samples), "not_brightfield")
    if samples not in (3, 4) or (
        len(planes) == 1 and page.photometric not in (_PHOTOMETRIC_RGB, _PHOTOMETRIC_YCBCR)
    ):
        raise SlideError(not_rgb(path, samples), "not_brightfield")
    if page.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise SlideError(
            f"{path.name}: pixels of type {page.dtype}; 8 or 16 bit RGB is needed",
            "not_brightfield",
        )
    if page.compression != 1 and page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise SlideError(
            f"{path.name}: unknown TIFF compression {int(page.compression)}", "unopenable"
        )


def _check_ome(path: Path, image: OmeImage | None, planes: int) -> None:
    """Three separate channels may be red, green and blue, or three fluorophores."""
    if image is None or planes != 3:
        return
    if image.fluorescent or not set(image.channels) <= _RGB_NAMES:
        named = ", ".join(image.channels)
        raise SlideError(not_rgb(path, planes) + f" ({named})", "not_brightfield")


def _properties(page: tifffile.TiffPage, image: OmeImage | None) -> dict[str, str]:
    """The file's facts under the names that OpenSlide gives them, and OME's under `ome.`."""
    found = {"openslide.comment": page.description} if page.description else {}
    for code, name in ((282, "tiff.XResolution"), (283, "tiff.YResolution")):
        tag = page.tags.get(code)
        if tag is not None and tag.value[1]:
            found[name] = repr(tag.value[0] / tag.value[1])
    unit = page.tags.get(296)
    found["tiff.ResolutionUnit"] = _UNITS.get(int(unit.value) if unit else 2, "none")
    power = re.search(r"<Objective>\s*(\d+)\s*x?\s*</Objective>", page.description)
    magnification = power[1] if power else None
    if image is not None:
        found |= {f"ome.{name}": value for name, value in image.physical.items()}
        magnification = image.magnification or magnification
    if magnification:
        found["openslide.objective-power"] = magnification
    return found
