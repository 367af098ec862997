"""Slides through tifffile: what OpenSlide refuses or reads only in part.

OME-TIFF (its pyramid lies in sub-directories, which OpenSlide's generic reader does not see),
brightfield QPTIFF, TIFFs in strips, and compressions that OpenSlide does not have.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from pipeline.errors import SlideError
from pipeline.slides.slide import Image, Slide, not_rgb
from pipeline.slides.tiff_blocks import Blocks

_UNITS = {1: "none", 2: "inch", 3: "centimeter"}
_RGB_NAMES = {"", "red", "green", "blue", "r", "g", "b", "rgb", "brightfield"}
_PHOTOMETRIC_RGB, _PHOTOMETRIC_YCBCR = 2, 6


class TiffSlide(Slide):
    """A TIFF that tifffile reads.

    Raises:
        SlideError: `unopenable`, `not_brightfield`.
    """

    backend = "tifffile"

    def __init__(self, path: Path) -> None:
        try:
            file = tifffile.TiffFile(path)
            levels = _levels(file)
            properties = _properties(file, levels[0][0])
            for planes in levels:
                _check_planes(path, planes)
            _check_ome(path, file.ome_metadata or "", len(levels[0]))
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


def _levels(file: tifffile.TiffFile) -> list[list[tifffile.TiffPage]]:
    """The planes of each pyramid level, finest first."""

    def planes(series: Any) -> list[tifffile.TiffPage]:
        return [page.aspage() for page in series.pages if page is not None]

    series = max(file.series, key=lambda s: s.keyframe.imagewidth * s.keyframe.imagelength)
    levels = [planes(level) for level in series.levels]
    if len(levels) == 1:
        # Older writers chain the smaller levels as further pages and mark them as reduced.
        width, height = levels[0][0].imagewidth, levels[0][0].imagelength
        for other in file.series:
            page = other.keyframe
            ratio = width / page.imagewidth, height / page.imagelength
            if page.is_reduced and ratio[0] > 1.5 and abs(ratio[0] / ratio[1] - 1) < 0.02:
                levels.append(planes(other))
    return sorted(levels, key=lambda level: -level[0].imagewidth)


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


def _check_ome(path: Path, xml: str, planes: int) -> None:
    """Three separate channels may be red, green and blue, or three fluorophores."""
    names = [name.lower() for name in re.findall(r"<Channel\b[^>]*?\bName=\"([^\"]*)\"", xml)]
    fluorescent = re.search(r"\b(Fluor|EmissionWavelength|ExcitationWavelength)=\"[^\"]", xml)
    if planes == 3 and (fluorescent or not set(names) <= _RGB_NAMES):
        raise SlideError(not_rgb(path, planes) + f" ({', '.join(names)})", "not_brightfield")


def _properties(file: tifffile.TiffFile, page: tifffile.TiffPage) -> dict[str, str]:
    """The file's facts under the names that OpenSlide gives them, and OME's under `ome.`."""
    found = {"openslide.comment": page.description} if page.description else {}
    for code, name in ((282, "tiff.XResolution"), (283, "tiff.YResolution")):
        tag = page.tags.get(code)
        if tag is not None and tag.value[1]:
            found[name] = repr(tag.value[0] / tag.value[1])
    unit = page.tags.get(296)
    found["tiff.ResolutionUnit"] = _UNITS.get(int(unit.value) if unit else 2, "none")
    xml = file.ome_metadata or ""
    pixels = re.search(r"<Pixels\b[^>]*>", xml)
    for name, value in re.findall(r"\b(PhysicalSize\w+)=\"([^\"]*)\"", pixels[0] if pixels else ""):
        found[f"ome.{name}"] = value
    power = re.search(r"\bNominalMagnification=\"([^\"]*)\"", xml) or re.search(
        r"<Objective>\s*(\d+)\s*x?\s*</Objective>", page.description
    )
    if power:
        found["openslide.objective-power"] = power[1]
    return found
