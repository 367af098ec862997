"""Three levels from one pass, equal to the plain forward pass; pooling equal to its formula."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from pipeline.encoders.architectures import swin_conv_stem
from pipeline.encoders.taps import find_taps, forward_levels
from pipeline.errors import ConfigError

TOKENS = {"embed_dim": 24, "depth": 6, "num_heads": 3, "img_size": 32, "num_classes": 0}
STAGED = {
    "resnet10t": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "swin_tiny_patch4_window7_224": {"img_size": 56, "embed_dim": 24, "depths": (1, 1, 1, 1)},
    "regnety_002": {},
}


def _vit(**kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{**TOKENS, **kwargs}).eval()


def _tokens_after(module: nn.Module, images: Tensor, block: int) -> Tensor:
    """The tokens after a block, the long way: a forward hook on a fresh pass."""
    seen: list[Tensor] = []
    handle = module.blocks[block].register_forward_hook(lambda *a: seen.append(a[2]))
    module.forward_features(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("pooling", ["cls", "mean", "cls_mean"])
@torch.inference_mode()
def test_levels_are_the_formula_on_the_tokens(registers: int, pooling: str) -> None:
    module = _vit(reg_tokens=registers)
    images = torch.rand(3, 3, 32, 32)
    taps = find_taps(module, pooling, (1, 3))
    levels = forward_levels(module, images, taps, ("low", "mid", "high"))
    tokens = {
        "low": _tokens_after(module, images, 1),
        "mid": _tokens_after(module, images, 3),
        "high": module.forward_features(images),
    }
    for level, values in tokens.items():
        cls, patches = values[:, 0], values[:, 1 + registers :]
        assert patches.shape[1] == 4
        expected = {
            "cls": cls,
            "mean": patches.mean(1),
            "cls_mean": torch.cat([cls, patches.mean(1)], dim=1),
        }[pooling]
        torch.testing.assert_close(levels[level], expected)
    assert not torch.allclose(levels["low"], levels["mid"])


@pytest.mark.parametrize("name", STAGED)
@torch.inference_mode()
def test_stages_are_pooled_over_space(name: str) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=0, **STAGED[name]).eval()
    images = torch.rand(2, 3, 56, 56)
    taps = find_taps(module)
    levels = forward_levels(module, images, taps, ("low", "mid", "high"))
    torch.testing.assert_close(levels["high"], module(images))
    _, maps = module.forward_intermediates(images)
    for level, index in (("low", -3), ("mid", -2)):
        torch.testing.assert_close(levels[level], maps[index].mean((2, 3)))
        assert levels[level].shape[1] == module.feature_info[index]["num_chs"]


@torch.inference_mode()
def test_any_choice_of_levels_gives_the_same_numbers() -> None:
    module = _vit()
    images = torch.rand(2, 3, 32, 32)
    taps = find_taps(module)
    everything = forward_levels(module, images, taps, ("low", "mid", "high"))
    assert everything.keys() == {"low", "mid", "high"}
    for some in (("high",), ("low",), ("mid", "high"), ("low", "mid")):
        levels = forward_levels(module, images, taps, some)
        assert levels.keys() == set(some)
        for level in some:
            torch.testing.assert_close(levels[level], everything[level], rtol=0, atol=0)


@torch.inference_mode()
def test_own_pooling_is_the_plain_forward_pass() -> None:
    images = torch.rand(2, 3, 32, 32)
    for options in ({}, {"global_pool": "avg", "class_token": False}, {"global_pool": "avg"}):
        module = _vit(**options)
        levels = forward_levels(module, images, find_taps(module), ("low", "high"))
        torch.testing.assert_close(levels["high"], module(images))


@torch.inference_mode()
def test_nothing_stays_on_the_network() -> None:
    module = _vit()
    images = torch.rand(2, 3, 32, 32)
    before = module(images)
    forward_levels(module, images, find_taps(module), ("low", "mid", "high"))
    assert not any(m._forward_hooks for m in module.modules())
    torch.testing.assert_close(module(images), before, rtol=0, atol=0)


@torch.inference_mode()
def test_conv_stem_swin() -> None:
    torch.manual_seed(0)
    module = swin_conv_stem(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1, 1, 1)
    ).eval()
    levels = forward_levels(
        module, torch.rand(2, 3, 56, 56), find_taps(module), ("low", "mid", "high")
    )
    assert {k: v.shape[1] for k, v in levels.items()} == {"low": 48, "mid": 96, "high": 192}


def test_pooling_without_a_class_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="no class token"):
        find_taps(timm.create_model("resnet10t", num_classes=0), "cls")
    with pytest.raises(ConfigError, match="pooling `max` is not one of cls, mean"):
        find_taps(_vit(), "max")


def test_network_that_cannot_be_tapped_is_refused() -> None:
    with pytest.raises(ConfigError, match="Sequential has no forward_intermediates"):
        find_taps(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_the_last_stage_is_what_the_head_would_have_read() -> None:
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    images = torch.randn(2, 3, 64, 64)
    taps = find_taps(network, "stage")
    with torch.no_grad():
        found = forward_levels(network, images, taps, ("low", "mid", "high"))
        plain = forward_levels(network, images, find_taps(network), ("low", "mid", "high"))
        body = network.blocks(network.bn1(network.conv_stem(images)))
    assert found["high"].shape == (2, 320)
    torch.testing.assert_close(found["high"], body.mean((2, 3)))
    assert torch.equal(found["low"], plain["low"]) and torch.equal(found["mid"], plain["mid"])
    with pytest.raises(ConfigError, match="has no stages"):
        find_taps(timm.create_model("vit_tiny_patch16_224", img_size=32), "stage")
