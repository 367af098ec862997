"""Views: parts of a tile of the right size and scale, each with a draw of its own."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from pipeline.config.pretraining import ViewsConfig
from pipeline.encoders.transforms import Transform
from pipeline.pretraining.views import make_views, random_crop

PLAIN = ViewsConfig(flips=False, stain=0, hue=0, brightness=0, blur=0, small_px=12)
TRANSFORM = Transform(24, 24, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(count: int, side: int) -> torch.Tensor:
    """Images whose value is the place: channels are x and y in 0…1."""
    at = (torch.arange(side) + 0.5) / side
    return torch.stack([at.expand(side, -1), at[:, None].expand(-1, side)]).repeat(count, 1, 1, 1)


def test_parts_have_the_size_and_shape_that_is_asked_for() -> None:
    cut = random_crop(ramp(200, 64), 32, (0.2, 0.8), generator())
    width = (cut[:, 0, 16, -1] - cut[:, 0, 16, 0]) * 32 / 31
    height = (cut[:, 1, -1, 16] - cut[:, 1, 0, 16]) * 32 / 31
    area = width * height
    assert 0.15 < float(area.min()) < 0.25 and 0.7 < float(area.max()) < 0.85
    ratio = width / height
    assert 0.7 < float(ratio.min()) < 0.85 and 1.15 < float(ratio.max()) < 1.4
    assert float(cut.min()) >= 0 and float(cut.max()) <= 1
    assert len({round(float(v), 4) for v in cut[:, 0, 16, 16]}) > 150


def test_the_whole_tile_is_the_tile() -> None:
    images = torch.rand(3, 3, 16, 16, generator=generator())
    torch.manual_seed(0)
    cut = random_crop(images, 16, (1.0, 1.0), generator())
    assert cut.shape == images.shape and float((cut - images).abs().mean()) < 0.2


def test_fine_structure_is_averaged_and_not_folded() -> None:
    """A chessboard of single pixels, made four times smaller, is grey."""
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float().expand(4, 1, 64, 64)
    cut = random_crop(board, 16, (1.0, 1.0), generator())
    assert float((cut - 0.5).abs().max()) < 0.2


def test_views_are_normalised_and_drawn_anew() -> None:
    tiles = (torch.rand(5, 32, 32, 3, generator=generator()) * 255).to(torch.uint8)
    views = make_views(tiles, PLAIN, TRANSFORM, (2, 3), generator())
    assert [tuple(v.shape) for v in views] == [(5, 3, 24, 24)] * 2 + [(5, 3, 12, 12)] * 3
    assert not torch.equal(views[0], views[1])
    assert float(views[0].min()) >= -2 and float(views[0].max()) <= 2
    again = make_views(tiles, PLAIN, TRANSFORM, (2, 3), generator())
    assert all(torch.equal(a, b) for a, b in zip(views, again, strict=True))


def test_shares_are_checked() -> None:
    with pytest.raises(ValidationError, match="the smaller one first"):
        ViewsConfig(large_scale=(0.9, 0.2))
