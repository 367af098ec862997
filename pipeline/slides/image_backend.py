"""Plain PNG and JPEG images as one-level slides, e.g. a region that was cut out of a slide.

Such a file has no trustworthy scale (its dots per inch are a printer's), so that its microns per
pixel must come from the sheet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from pipeline.errors import SlideError
from pipeline.slides.base import Slide, not_rgb
from pipeline.slides.pixels import Image, on_white

MAX_PIXELS = 2**28  # decoded whole: 805 MB


class ImageSlide(Slide):
    """A plain image.

    Raises:
        SlideError: `unopenable`, `unreadable` (damaged pixels), `too_large`, `not_brightfield`.
    """

    backend = "image"

    def __init__(self, path: Path) -> None:
        try:
            # The limit below is ours; Pillow's own would only warn.
            limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
            try:
                image = PIL.Image.open(path)
            finally:
                PIL.Image.MAX_IMAGE_PIXELS = limit
        except (OSError, SyntaxError, ValueError) as error:
            raise SlideError(f"{path.name}: not a readable image ({error})", "unopenable") from None
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise SlideError(
                    f"{path.name}: {width} x {height} pixels in one image; convert it to a tiled "
                    "pyramid (e.g. `vips tiffsave --tile --pyramid`)",
                    "too_large",
                )
            if image.mode not in ("RGB", "RGBA", "P", "CMYK"):
                raise SlideError(not_rgb(path, len(image.getbands())), "not_brightfield")
            try:
                if image.mode == "RGB":
                    self._pixels: Image = np.asarray(image)
                else:
                    self._pixels = on_white(np.asarray(image.convert("RGBA")))
            except (OSError, SyntaxError, ValueError) as error:
                raise SlideError(f"{path.name}: damaged image ({error})", "unreadable") from None
        super().__init__(path, ((width, height),), {})

    def _read(self, x: int, y: int, level: int, w: int, h: int) -> Image:
        height, width = self._pixels.shape[:2]
        result = np.full((h, w, 3), 255, np.uint8)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + w, width), min(y + h, height)
        if left < right and top < bottom:
            result[top - y : bottom - y, left - x : right - x] = self._pixels[
                top:bottom, left:right
            ]
        return result

    def close(self) -> None:
        self._pixels = np.empty((0, 0, 3), np.uint8)
