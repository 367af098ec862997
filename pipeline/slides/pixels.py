"""Images as all readers give them: uint8 (height, width, 3), RGB, white where there is nothing."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def shrink(image: Image, max_px: int) -> Image:
    """The image with its long side at most `max_px` pixels, by area interpolation."""
    height, width = image.shape[:2]
    scale = max_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def on_white(image: npt.NDArray[np.uint8]) -> Image:
    """RGBA (H, W, 4) with straight alpha, laid on white: uint8 (H, W, 3)."""
    alpha = image[..., 3]
    rgb = cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)
    low = int(alpha.min())
    if low == 255:
        return rgb
    if low == 0 and not np.any((alpha > 0) & (alpha < 255)):
        rgb[alpha == 0] = 255
        return rgb
    weight = alpha[..., None].astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
