"""Small networks, and each method with small heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from pipeline.config.pretraining import methods
from pipeline.pretraining.methods.base import Method

SMALL = {
    "projection": 32,
    "hidden": 32,
    "predictor": 32,
    "bottleneck": 16,
    "prototypes": 24,
    "clusters": 8,
    "decoder_width": 32,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "small_crops": 2,
    "queue": 32,
    "queue_from": 0.0,
    "cluster_every": 2,
    "clusters_from": 0.0,
}
PX = 32


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Pixels(nn.Module):
    """A network of two layers, small enough for double precision."""

    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 4, 4)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


def vit(**changes: Any) -> nn.Module:
    facts = dict(
        num_classes=0, img_size=PX, patch_size=8, depth=2, embed_dim=32, num_heads=2,
        dynamic_img_size=True,
    )  # fmt: skip
    return timm.create_model("vit_tiny_patch16_224", **{**facts, **changes})


def small_method(name: str, **keys: Any) -> Method:
    """A method with small heads, of equal weights at each call."""
    torch.manual_seed(0)
    entry = methods()[name]
    own = {k: v for k, v in SMALL.items() if k in entry.defaults}
    if name == "pcl":
        own["clusters"] = (4, 6)
    kind = entry.load()
    network = vit() if kind.tokens else Pixels()
    found: Method = kind(network, network.num_features, **{**own, **keys})
    return found


def views_for(method: Method, count: int = 8, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [PX] * method.large + [PX // 2] * method.small
    return [torch.randn(count, 3, px, px, generator=generator) for px in sizes]


@pytest.fixture
def make() -> Callable[..., Method]:
    return small_method
