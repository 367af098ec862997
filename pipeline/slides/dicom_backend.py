"""DICOM whole-slide images that OpenSlide refuses, through pydicom.

Sparse tiles, JPEG-LS, lossless JPEG, HTJ2K and JPEG XL, and headers that lack what OpenSlide asks
for. The levels are the instances of one series.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import SlideError
from pipeline.slides.base import Slide, not_rgb
from pipeline.slides.dicom_frames import Frames, Level, is_jfif, open_level, read_header
from pipeline.slides.pixels import Image


class DicomSlide(Slide):
    """A DICOM series that pydicom reads.

    Args:
        path: any file of the series; the others lie in its folder.

    Raises:
        SlideError: `unopenable`, `not_brightfield`.
    """

    backend = "pydicom"

    def __init__(self, path: Path) -> None:
        try:
            levels = _levels(path)
        except SlideError:
            raise
        except Exception as error:  # a damaged file raises anything
            raise SlideError(f"{path.name}: pydicom: {error}", "unopenable") from error
        self._frames = [Frames(level) for level in levels]
        sizes = tuple(level.layout.size for level in levels)
        super().__init__(path, sizes, _properties(levels[0].header))

    def _read(self, x: int, y: int, level: int, w: int, h: int) -> Image:
        downsample = self.level_downsamples[level]
        return self._frames[level].read(round(x / downsample), round(y / downsample), w, h)

    def close(self) -> None:
        for frames in self._frames:
            frames.close()


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's mark."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def calls_ycbcr_rgb(path: Path) -> bool:
    """Whether the header says RGB of JPEG streams that cannot be: OpenSlide shows them in red."""
    try:
        header, start = read_header(path)
        if str(header.PhotometricInterpretation) != "RGB":
            return False
        level = open_level(path, header, start)
        with path.open("rb") as file:
            file.seek(level.spans[0][0])
            return is_jfif(file.read(10))
    except Exception:  # a damaged file raises anything; who reads it will say what is wrong
        return False


def _levels(path: Path) -> list[Level]:
    """The instances with the slide's pixels, finest first, one of each size."""
    first, _ = read_header(path)
    found: dict[tuple[int, int], Level] = {}
    for other in sorted(path.parent.iterdir()):
        if not other.is_file() or not is_dicom(other):
            continue
        header, start = read_header(other)
        if header.get("SeriesInstanceUID") != first.get("SeriesInstanceUID"):
            continue
        kind = list(header.get("ImageType", []))
        if "VOLUME" not in kind and {"LABEL", "OVERVIEW", "THUMBNAIL"} & set(kind):
            continue
        if "TotalPixelMatrixColumns" not in header:
            continue
        samples = int(header.get("SamplesPerPixel", 1))
        if samples != 3 or int(header.BitsAllocated) != 8:
            raise SlideError(not_rgb(path, samples), "not_brightfield")
        level = open_level(other, header, start)
        found.setdefault(level.layout.size, level)
    if not found:
        raise SlideError(
            f"{path.name}: no image of a whole slide in this DICOM series", "unopenable"
        )
    levels = sorted(found.values(), key=lambda level: -level.layout.size[0])
    width, height = levels[0].layout.size
    shapes = np.array([level.layout.size for level in levels]) / (width, height)
    return [level for level, (a, b) in zip(levels, shapes, strict=True) if abs(a / b - 1) < 0.02]


def _properties(header: Any) -> dict[str, str]:
    """Scale and objective under the names that OpenSlide gives them."""
    found = {"openslide.vendor": "dicom"}
    groups = header.get("SharedFunctionalGroupsSequence", [])
    measures = groups[0].get("PixelMeasuresSequence", []) if groups else []
    spacing = measures[0].get("PixelSpacing") if measures else header.get("PixelSpacing")
    if spacing:
        found["openslide.mpp-y"], found["openslide.mpp-x"] = (
            repr(float(side) * 1000) for side in spacing
        )
    paths = header.get("OpticalPathSequence", [])
    power = paths[0].get("ObjectiveLensPower") if paths else None
    if power:
        found["openslide.objective-power"] = str(power)
    return found
