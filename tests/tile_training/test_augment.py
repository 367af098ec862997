"""Augmentation does what it says, and nothing where it is switched off."""

from __future__ import annotations

import pytest
import torch

from pipeline.config.tile_training import AugmentationConfig
from pipeline.tile_training.augment import STAINS, augment, blur, restain, shift_hue, turn

OFF = AugmentationConfig(flips=False, stain=0, hue=0, brightness=0, blur=0)


def _tiles(count: int = 8, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(20, 240, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def _images(count: int = 8, side: int = 12) -> torch.Tensor:
    return _tiles(count, side).permute(0, 3, 1, 2).float()


def test_switched_off_it_changes_nothing() -> None:
    out = augment(_tiles(), OFF, torch.Generator().manual_seed(0))
    assert torch.equal(out, _images())


@pytest.mark.parametrize("key", ["flips", "stain", "hue", "brightness", "blur"])
def test_each_kind_alone_changes_tiles_and_repeats_with_its_seed(key: str) -> None:
    cfg = OFF.model_copy(update={key: True if key == "flips" else 0.5})
    outs = [augment(_tiles(), cfg, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert not torch.equal(outs[0], _images())
    assert outs[0].min() >= 0 and outs[0].max() <= 255


def test_the_eight_positions_of_a_square_are_all_different() -> None:
    image = _images(1)
    turned = turn(image.repeat(8, 1, 1, 1), torch.arange(8))
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8
    assert torch.equal(turned[0], image[0])
    assert all(torch.equal(t.flatten().sort()[0], image.flatten().sort()[0]) for t in turned)


def test_no_other_staining_is_the_same_picture_and_more_of_a_stain_is_its_density() -> None:
    images = _images()
    one, none = torch.ones(8, 3), torch.zeros(8, 3)
    torch.testing.assert_close(restain(images, one, none), images, atol=1e-2, rtol=0)
    pale = torch.full((1, 3, 2, 2), 200.0)
    stained = restain(pale, torch.ones(1, 3), torch.tensor([[0.3, 0.0, 0.0]]))
    added = -torch.log((stained + 1) / 256) + torch.log((pale + 1) / 256)
    haematoxylin = torch.tensor(STAINS[0]) / torch.tensor(STAINS[0]).norm()
    torch.testing.assert_close(added[0, :, 0, 0], 0.3 * haematoxylin, atol=1e-4, rtol=1e-3)


def test_hue_leaves_grey_alone_and_a_whole_turn_is_none() -> None:
    grey = torch.full((1, 3, 2, 2), 90.0)
    torch.testing.assert_close(shift_hue(grey, torch.tensor([0.3])), grey, atol=0.2, rtol=0)
    images = _images()
    torch.testing.assert_close(shift_hue(images, torch.ones(8)), images, atol=0.05, rtol=0)
    assert (shift_hue(images, torch.full((8,), 0.25)) - images).abs().mean() > 5


def test_blur_is_each_tiles_own_and_keeps_the_mean_of_flat_areas() -> None:
    images = _images(3, 24)
    out = blur(images, torch.tensor([0.0, 0.6, 2.0]), 2.0)
    torch.testing.assert_close(out[0], images[0], atol=1e-3, rtol=0)
    spread = out.std((1, 2, 3))
    assert spread[0] > spread[1] > spread[2]
    flat = torch.full((1, 3, 9, 9), 77.0)
    torch.testing.assert_close(blur(flat, torch.tensor([1.5]), 2.0), flat, atol=1e-3, rtol=0)
