"""The transform on the device equals the authors' with Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.encoders.transforms import Transform, _resize, prepare

MEAN, STD = (0.7, 0.5, 0.6), (0.2, 0.25, 0.3)


def _tiles(side: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(t).resize((side, side), 3)) for t in small])


def _reference(tiles: np.ndarray, resize: int, crop: int, interp: str) -> np.ndarray:
    kind = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interp]
    result = []
    for tile in tiles:
        image = Image.fromarray(tile).resize((resize, resize), kind)
        start = (resize - crop) // 2
        image = image.crop((start, start, start + crop, start + crop))
        values = (np.asarray(image, np.float32) / 255 - MEAN) / STD
        result.append(values.transpose(2, 0, 1))
    return np.stack(result)


@pytest.mark.parametrize("interp", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("side", "resize", "crop"), [(64, 64, 64), (64, 32, 32), (61, 32, 24), (24, 32, 32)]
)
def test_equals_pillow(interp: str, side: int, resize: int, crop: int) -> None:
    tiles = _tiles(side)
    transform = Transform(resize, crop, interp, MEAN, STD)  # type: ignore[arg-type]
    got = prepare(torch.from_numpy(tiles), transform)
    assert (got.dtype, got.shape) == (torch.float32, (2, 3, crop, crop))
    step = 1 / 255 / min(STD)  # one grey level after normalising
    np.testing.assert_allclose(
        got.numpy(), _reference(tiles, resize, crop, interp), atol=1.01 * step
    )


def test_no_resize_is_exact() -> None:
    tiles = _tiles(32)
    got = prepare(torch.from_numpy(tiles), Transform(32, 32, "bicubic", MEAN, STD))
    np.testing.assert_allclose(got.numpy(), _reference(tiles, 32, 32, "bicubic"), atol=1e-6)


def test_float_and_integer_resize_agree() -> None:
    """The way of other devices, on the CPU, within one grey level of the CPU's own."""
    images = torch.from_numpy(_tiles(64)).permute(0, 3, 1, 2)
    transform = Transform(24, 24, "bicubic", MEAN, STD)
    here = _resize(images, transform).float()
    there = torch.nn.functional.interpolate(
        images.float(), size=(24, 24), mode="bicubic", antialias=True
    )
    assert (here - there.round().clamp(0, 255)).abs().max() <= 1


def test_input_is_not_changed() -> None:
    tiles = torch.from_numpy(_tiles(32))
    before = tiles.clone()
    prepare(tiles, Transform(32, 16, "bilinear", MEAN, STD))
    assert torch.equal(tiles, before)
