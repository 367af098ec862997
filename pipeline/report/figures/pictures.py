"""Pictures of the page: JPEGs inside it, small enough that the whole stays portable."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture as a data URI with its size in pixels."""

    uri: str
    width: int
    height: int


def encode(image: Image.Image, long_side: int, quality: int = 82) -> Picture:
    """An image as a JPEG whose longer side is at most `long_side` pixels.

    Args:
        image: RGB.
        long_side: in pixels.
        quality: of the JPEG, 1 to 95.
    """
    small = image.convert("RGB")
    small.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=quality, optimize=True)
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return Picture(f"data:image/jpeg;base64,{data}", small.width, small.height)


def load(path: Path) -> Image.Image | None:
    """The picture at `path` in RGB, or None where there is none that opens.

    A missing or damaged thumbnail costs the page a picture, which is said there, not the report.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (FileNotFoundError, UnidentifiedImageError, OSError):
        return None
