"""The images of a TIFF that a person would call a slide, each with its pyramid.

A file may hold several scenes (pieces of one glass), several pages or focal planes, and besides
them a label, a macro picture and a thumbnail, which are no scenes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import tifffile

from pipeline.contracts.slide_warnings import SHOWN, SlideWarning
from pipeline.errors import SlideError
from pipeline.slides.base import LARGEST, Scene

# An image of less than this share of the chosen one's area is a thumbnail, a label or a macro.
LIKE_AREA = 0.1
_NOT_SCENES = ("label", "macro", "thumbnail", "overview", "barcode", "preview")
_SMALLER, _SAME_SHAPE = 1.5, 0.02


@dataclasses.dataclass
class TiffScene:
    """One image.

    Attributes:
        levels: for each pyramid level, finest first, its page, or its pages of one channel each.
        name: as the file states it, or an empty text.
        series: number of tifffile's series.
        planes: how many focal planes or times the image has; the middle one is in `levels`.
    """

    levels: list[list[tifffile.TiffPage]]
    name: str
    series: int
    planes: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the finest level."""
        page = self.levels[0][0]
        return page.imagewidth, page.imagelength


def find_scenes(file: tifffile.TiffFile) -> list[TiffScene]:
    """The images of a file in its order, smaller copies as levels of the image before them."""
    found: list[TiffScene] = []
    for number, series in enumerate(file.series):
        for scene in _images(series, number):
            owner = next((s for s in reversed(found) if _is_copy(scene, s)), None)
            if owner is None:
                found.append(scene)
            else:
                owner.levels += scene.levels
    for scene in found:
        scene.levels.sort(key=lambda level: -level[0].imagewidth)
    return found


def choose(scenes: Sequence[TiffScene], choice: Scene, name: str) -> int:
    """The number of the wanted scene; by default the largest one, the first of equals.

    Args:
        scenes: those like the largest.
        choice: `largest`, or a number from 0.
        name: the file's, for the message.

    Raises:
        SlideError: `no_scene`, there is no scene of this number.
    """
    if choice == LARGEST:
        return max(range(len(scenes)), key=lambda i: (_area(scenes[i]), -i))
    if choice >= len(scenes):
        there = "only scene 0" if len(scenes) == 1 else f"the scenes 0 to {len(scenes) - 1}"
        raise SlideError(f"{name}: tiling.scene is {choice}, but the file has {there}", "no_scene")
    return choice


def like_largest(scenes: Sequence[TiffScene]) -> list[TiffScene]:
    """The scenes that may hold tissue like the largest: no label, macro or thumbnail."""
    largest = scenes[choose(scenes, LARGEST, "")]
    return [
        scene
        for scene in scenes
        if scene is largest
        or (
            _area(scene) >= LIKE_AREA * _area(largest)
            and _channels(scene) >= 3
            and not _is_extra(scene)
        )
    ]


def passed_over(scenes: Sequence[TiffScene], chosen: int) -> tuple[SlideWarning, ...]:
    """What is said of the images that are not looked at.

    Args:
        scenes: those like the largest, in the file's order.
        chosen: the one that is read.
    """
    said = []
    others = [scene for number, scene in enumerate(scenes) if number != chosen]
    if others:
        sizes = ", ".join("{} x {}".format(*scene.size) for scene in others[:SHOWN])
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        width, height = scenes[chosen].size
        said.append(f"scene {chosen} ({width} x {height} pixels) is used; ignored: {sizes}{more}")
    planes = scenes[chosen].planes
    if planes > 1:
        said.append(f"focal plane {planes // 2} of {planes} is used, counted from 0")
    return tuple(SlideWarning("other_scene_passed_over", text) for text in said)


def _images(series: Any, number: int) -> Iterator[TiffScene]:
    """The images of one series: of OME one, with its middle plane; else each RGB page is one."""
    levels = [
        [page.aspage() for page in level.pages if page is not None] for level in series.levels
    ]
    levels = [level for level in levels if level]
    if not levels:
        return
    name = str(series.name or "")
    planes = min(len(level) for level in levels)
    if levels[0][0].samplesperpixel < 3 or planes == 1:
        yield TiffScene(levels, name, number)
    elif series.kind == "ome":
        yield TiffScene([[level[planes // 2]] for level in levels], name, number, planes)
    else:
        for plane in range(planes):
            yield TiffScene([[level[plane]] for level in levels], name, number)


def _is_copy(scene: TiffScene, larger: TiffScene) -> bool:
    """Whether an image is a smaller copy: marked as one, or of half, a quarter, … of the size."""
    across, down = (a / b for a, b in zip(larger.size, scene.size, strict=True))
    if across < _SMALLER or abs(across / down - 1) > _SAME_SHAPE:
        return False
    if _kind(larger) != _kind(scene) or _is_extra(scene):
        return False
    halvings = round(math.log2(across))
    return scene.levels[0][0].is_reduced or abs(across / 2**halvings - 1) < _SAME_SHAPE


def _is_extra(scene: TiffScene) -> bool:
    return any(word in scene.name.lower() for word in _NOT_SCENES)


def _kind(scene: TiffScene) -> tuple[int, int]:
    return len(scene.levels[0]), scene.levels[0][0].samplesperpixel


def _area(scene: TiffScene) -> int:
    width, height = scene.size
    return width * height


def _channels(scene: TiffScene) -> int:
    return sum(page.samplesperpixel for page in scene.levels[0])
