"""HIPT's region transformer: keys, size, another form of it, and regions that are not full."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from timm.models.vision_transformer import Block as TimmBlock
from torch import nn

from pipeline.encoders.architectures import DinoVit
from pipeline.encoders.slide_level.hipt import SIDE, RegionTransformer, regions


def made(**more: int) -> RegionTransformer:
    torch.manual_seed(0)
    return RegionTransformer(**more).eval()


def test_it_has_the_published_size_and_the_checkpoints_keys() -> None:
    sizes = {name: tuple(p.shape) for name, p in made().state_dict().items()}
    block = {
        "norm1": (192,),
        "attn.qkv": (576, 192),
        "attn.proj": (192, 192),
        "norm2": (192,),
        "mlp.fc1": (768, 192),
        "mlp.fc2": (192, 768),
    }
    parts = {f"blocks.{i}.{k}": v for i in range(6) for k, v in block.items()}
    parts |= {"phi.0": (192, 384), "norm": (192,)}
    wanted = {f"{k}.weight": v for k, v in parts.items()}
    wanted |= {f"{k}.bias": v[:1] for k, v in parts.items()}
    assert sizes == wanted | {"cls_token": (1, 1, 192), "pos_embed": (1, 197, 192)}
    assert sum(math.prod(s) for s in sizes.values()) == 2_781_504


def test_a_full_region_is_what_timms_blocks_make_of_it() -> None:
    ours = made()
    width, heads = 192, 6
    norm = nn.LayerNorm(width, eps=1e-6)
    blocks = nn.Sequential(
        *(
            TimmBlock(width, heads, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
            for _ in range(6)
        )
    ).eval()
    state = ours.state_dict()
    blocks.load_state_dict(
        {k.removeprefix("blocks."): v for k, v in state.items() if k.startswith("blocks.")}
    )
    norm.load_state_dict({k: state[f"norm.{k}"] for k in ("weight", "bias")})
    # DINO's own way of fitting positions, as the tile encoders of the same authors have it.
    dino = DinoVit(img_size=224, patch_size=16, embed_dim=width, depth=1, num_heads=heads,
                   num_classes=0, dynamic_img_size=True)  # fmt: skip
    with torch.no_grad():
        dino.pos_embed.copy_(ours.pos_embed)
        dino.cls_token.copy_(ours.cls_token)
        x = torch.randn(2, SIDE * SIDE, 384)
        tokens = dino._pos_embed(ours.phi(x).view(2, SIDE, SIDE, width))
        wanted = norm(blocks(tokens))[:, 0]
        torch.testing.assert_close(ours(x), wanted, atol=2e-5, rtol=1e-4)


def test_what_stands_where_no_patch_is_changes_nothing() -> None:
    ours = made()
    x = torch.randn(1, SIDE * SIDE, 384)
    mask = torch.rand(1, SIDE * SIDE) < 0.6
    other = torch.where(mask[..., None], torch.randn_like(x) * 50, x)
    with torch.no_grad():
        found = ours(x, mask)
        torch.testing.assert_close(ours(other, mask), found)
        assert (ours(x) - found).abs().max() > 1e-4
        nothing = torch.zeros_like(mask)
        torch.testing.assert_close(ours(x, nothing), ours(x))


def test_tiles_go_to_their_place_in_their_region_and_poor_regions_stay() -> None:
    cells = np.array([(0, 0), (15, 0), (16, 0), (3, 15), (40, 33)])
    found = regions(cells)
    assert found.corners.tolist() == [[0, 0], [16, 0], [32, 32]]
    assert found.patches.tolist() == [3, 1, 1]
    features = torch.arange(1.0, 6.0)[:, None]
    whole, mask = found.fill(features)
    assert whole.shape == (3, SIDE * SIDE, 1) and mask.shape == (3, SIDE * SIDE)
    grid = whole.view(3, SIDE, SIDE)
    assert (grid[0, 0, 0], grid[0, 0, 15], grid[0, 15, 3]) == (1, 2, 4)
    assert (grid[1, 0, 0], grid[2, 1, 8]) == (3, 5)
    assert torch.equal(whole[..., 0] == 0, mask) and int(mask.sum()) == 3 * SIDE * SIDE - 5
