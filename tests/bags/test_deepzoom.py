"""DeepZoom addresses."""

from __future__ import annotations

import numpy as np

from pipeline.bags import deepzoom


def test_pixels_agree_with_openslide() -> None:
    import openslide
    from openslide.deepzoom import DeepZoomGenerator
    from PIL import Image

    image = openslide.ImageSlide(Image.new("RGB", (1000, 700)))
    pyramid = DeepZoomGenerator(image, tile_size=100, overlap=0)
    for level in (8, 9, 10):
        (x, y), _, _ = pyramid.get_tile_coordinates(level, (1, 2 if level > 8 else 1))
        address = np.array([[level, 1, 2 if level > 8 else 1]])
        assert deepzoom.to_pixels(address, (1000, 700), 100)[0].tolist() == [x, y]
