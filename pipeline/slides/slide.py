"""The choice of who reads a slide: by what the file is, not by its name.

OpenSlide reads the scanners' own formats, tifffile reads OME-TIFF, QPTIFF and whatever TIFF
OpenSlide refuses, Pillow reads plain images.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import SlideError
from pipeline.files.stand_ins import stand_in
from pipeline.slides import tiff
from pipeline.slides.base import LARGEST, Scene, Slide, not_rgb

_IMAGE_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_OME = "<OME"
_QPTIFF = "PerkinElmer-QPI"


def open_slide(path: str | Path, scene: Scene = LARGEST) -> Slide:
    """Open a slide with the reader that its content asks for.

    Args:
        path: a file, or a folder with the files of one DICOM series.
        scene: which scene of a file with several, from 0 in the file's order.

    Raises:
        SlideError: `missing_file`; `unopenable`, no reader knows it; `truncated`, its directory
            is cut off; `too_large`, it declares more than it can hold; `not_brightfield`, it has
            no RGB image; `no_scene`, it has no scene of this number.
    """
    path = Path(path)
    slide = _open(path, scene)
    if scene not in (LARGEST, slide.scene):
        slide.close()
        raise SlideError(
            f"{path.name}: tiling.scene is {scene}, but the file has only scene 0", "no_scene"
        )
    return slide


def _open(path: Path, scene: Scene) -> Slide:
    if path.is_dir():
        series = sorted(p for p in path.iterdir() if p.suffix.lower() == ".dcm")
        if not series:
            raise SlideError(f"{path}: a folder without .dcm files is not a slide", "unopenable")
        path = series[0]
    if not path.is_file():
        raise SlideError(f"{path}: no such file", "missing_file")
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        raise SlideError(
            f"{path.name}: the folder {path.stem}/ that holds its pixels is not in the same folder",
            "missing_file",
        )
    with path.open("rb") as file:
        head = file.read(132)
    magic = head[:8]
    if magic.startswith(_IMAGE_MAGIC) and path.suffix.lower() != ".mrxs":
        from pipeline.slides.image_backend import ImageSlide

        return ImageSlide(path)
    if tiff.is_tiff(path):
        return _open_tiff(path, scene)

    if head[128:] == b"DICM":
        return _open_dicom(path)
    from pipeline.slides.openslide_backend import OpenSlideSlide, vendor

    if vendor(path) is None:
        if instead := stand_in(path):
            raise SlideError(f"{path.name}: {instead}", "unopenable")
        raise SlideError(
            f"{path.name}: not a slide: no reader knows a file that starts with {magic!r}",
            "unopenable",
        )
    return OpenSlideSlide(path)


def _open_dicom(path: Path) -> Slide:
    from pipeline.slides.dicom_backend import DicomSlide, calls_ycbcr_rgb
    from pipeline.slides.openslide_backend import OpenSlideSlide

    if calls_ycbcr_rgb(path):
        return DicomSlide(path)
    try:
        return OpenSlideSlide(path)
    except SlideError as refused:
        try:
            return DicomSlide(path)
        except SlideError as also:
            raise SlideError(f"{refused.reason}; {also.reason}", also.kind) from also


def _open_tiff(path: Path, scene: Scene) -> Slide:
    pages = tiff.read_pages(path)
    if not pages:
        raise SlideError(f"{path.name}: a TIFF without an image", "unopenable")
    tiff.check_size(path, pages)
    first = pages[0].description
    if _OME not in first and _QPTIFF not in first:
        from pipeline.slides.openslide_backend import PLAIN_GRIDS, OpenSlideSlide, vendor

        found = vendor(path)
        if found == "generic-tiff" and pages[0].samples < 3:
            raise SlideError(not_rgb(path, pages[0].samples), "not_brightfield")
        if found is not None and not (found == "generic-tiff" and _has_scenes(path, pages)):
            try:
                return OpenSlideSlide(path)
            except SlideError as refused:
                if found not in PLAIN_GRIDS:
                    raise
                return _open_refused(path, scene, refused)
    from pipeline.slides.tifffile_backend import TiffSlide

    return TiffSlide(path, scene)


def _has_scenes(path: Path, pages: list[tiff.Page]) -> bool:
    """Whether a plain TIFF has several images like the largest, of which OpenSlide sees one."""
    if len(pages) == 1:
        return False
    from pipeline.slides.tifffile_backend import count_scenes

    return count_scenes(path) > 1


def _open_refused(path: Path, scene: Scene, refused: SlideError) -> Slide:
    """Tiles in a compression that OpenSlide does not have may be read by tifffile."""
    from pipeline.slides.tifffile_backend import TiffSlide

    try:
        return TiffSlide(path, scene)
    except SlideError as also:
        raise SlideError(f"{refused.reason}; {also.reason}", refused.kind) from also
