"""LongViT: the checkpoint's keys, and that a region put together from tiles is that region."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import build as tile_building
from pipeline.encoders.architectures import PatchTokens
from pipeline.encoders.slide_level import longnet
from pipeline.encoders.slide_level.build import build, encode, seeded
from pipeline.encoders.slide_level.dilated import dilated_attention_reference
from pipeline.encoders.slide_level.longvit import GLASS, LongViT
from pipeline.encoders.slide_level.registry import resolve
from pipeline.errors import ConfigError

WIDTH, TILE = 16, 256
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def small(region: int = 512) -> LongViT:
    torch.manual_seed(0)
    segments = [64, 128, 256, 512, 1024]
    return LongViT(64 * WIDTH, region, segments, WIDTH, depth=2, heads=4).eval()


def cut(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tiles of an image row by row, and their columns and rows."""
    side = image.shape[-1] // TILE
    cells = torch.tensor(list(itertools.product(range(side), repeat=2))).flip(1)
    tiles = [image[:, y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] for x, y in cells]
    return torch.stack(tiles), cells


def embedded(module: LongViT, tiles: torch.Tensor) -> torch.Tensor:
    """Tiles' features as the teacher `longvit_patches` gives them."""
    teacher = PatchTokens(32, WIDTH).eval()
    teacher.patch_embed = module.patch_embed
    return teacher.forward_head(teacher.forward_features(tiles))


def test_it_has_the_published_keys_and_shapes() -> None:
    with torch.device("meta"):
        module = seeded(resolve("longvit_1024"), 24576)
    sizes = {name: tuple(p.shape) for name, p in module.state_dict().items()}
    layer = {
        **{f"self_attn.{p}_proj": (384, 384) for p in ("q", "k", "v", "out")},
        "self_attn.inner_attn_ln": (384,),
        "self_attn_layer_norm": (384,),
        "ffn.fc1": (1536, 384),
        "ffn.fc2": (384, 1536),
        "ffn.ffn_layernorm": (1536,),
        "final_layer_norm": (384,),
    }
    parts = {f"encoder.layers.{i}.{k}": v for i in range(12) for k, v in layer.items()}
    parts |= {"norm": (384,), "patch_embed.proj": (384, 3, 32, 32)}
    wanted = {f"{k}.weight": v for k, v in parts.items()}
    wanted |= {f"{k}.bias": v[:1] for k, v in parts.items()} | {"pos_embed": (1, 1024, 384)}
    assert sizes == wanted


@torch.no_grad()
def test_a_region_of_tiles_is_the_region_itself() -> None:
    module, image = small(), torch.randn(3, 512, 512)
    tiles, cells = cut(image)
    order = torch.tensor([2, 0, 3, 1])  # where a tile goes is told by its place alone
    found = module(embedded(module, tiles[order]), cells[order])
    whole = module.encode(module.patch_embed(image[None]))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)
    swapped = module(embedded(module, tiles), cells[order])
    assert (swapped - whole).abs().max() > 1e-4


@torch.no_grad()
def test_a_place_without_a_tile_is_seen_as_glass() -> None:
    module, image = small(), torch.randn(3, 512, 512)
    image[:, 256:, :256] = (GLASS - MEAN) / STD
    tiles, cells = cut(image)
    kept = torch.tensor([0, 1, 3])
    found = module(embedded(module, tiles[kept]), cells[kept])
    torch.testing.assert_close(found, module(embedded(module, tiles), cells), rtol=0, atol=1e-6)


@torch.no_grad()
def test_numbers_are_those_of_the_definition_in_float64() -> None:
    module, (tiles, cells) = small(), cut(torch.randn(3, 512, 512))
    features = embedded(module, tiles)
    found = module(features, cells)
    double = small().double()
    with mock.patch.object(longnet, "dilated_attention", dilated_attention_reference):
        torch.testing.assert_close(
            found.double(), double(features.double(), cells), rtol=0, atol=2e-5
        )


@torch.no_grad()
def test_positions_grow_with_the_region() -> None:
    module = small()
    ramp = torch.arange(32.0).repeat_interleave(32)
    module.pos_embed.copy_(ramp[None, :, None].expand(1, 1024, WIDTH))
    assert module.positions(32) is module.pos_embed
    grown = module.positions(64)[0, :, 0].view(64, 64)
    inside = (torch.arange(64.0) + 0.5) / 2 - 0.5
    # torch's cubic kernel overshoots a straight line by 3/64 at most.
    torch.testing.assert_close(grown[4:-4, 7], inside[4:-4], rtol=0, atol=0.05)


def test_features_that_are_no_patches_are_refused() -> None:
    with pytest.raises(ConfigError, match="24576 numbers a tile, and not 384"):
        build("longvit_1024", TeacherConfig(source="slide", weights="random"), 384)


def test_both_halves_load_from_one_file(tmp_path: Path) -> None:
    state = seeded(resolve("longvit_1024"), 24576, 3).state_dict()
    file = {"teacher": {f"module.backbone.{k}": v for k, v in state.items()}}
    for name in ("longvit_patches", "longvit_1024"):
        (tmp_path / name).mkdir()
        torch.save(file, tmp_path / name / "longvit_small_patch32_1024.pth")
    given = {"weights": "local", "source": "slide"}
    whole = build("longvit_1024", TeacherConfig(**given), 24576, weights_dir=str(tmp_path))
    tiles = tile_building.build(
        "longvit_patches", TeacherConfig(weights="local"), levels=("high",),
        weights_dir=str(tmp_path),
    )  # fmt: skip
    pictures = torch.randint(0, 255, (2, TILE, TILE, 3), dtype=torch.uint8)
    found = tile_building.encode(tiles, pictures)["high"]
    images = (pictures.permute(0, 3, 1, 2) / 255 - MEAN) / STD
    with torch.no_grad():
        wanted = whole.module.patch_embed(images).flatten(1)
    assert tiles.dims == {"high": 24576}
    np.testing.assert_allclose(found.float(), wanted, atol=2e-3)


def test_random_halves_belong_together() -> None:
    tiles = tile_building.build(
        "longvit_patches", TeacherConfig(weights="random", seed=5), levels=("high",)
    )
    given = TeacherConfig(source="slide", weights="random", seed=5)
    whole = build("longvit_4096", given, 24576)
    assert torch.equal(tiles.module.patch_embed.proj.weight, whole.module.patch_embed.proj.weight)


class Rows:
    """Features that say how many rows were asked for at once."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.asked = values, [0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.asked.append(len(rows))
        return np.asarray(self.values[rows])


@torch.no_grad()
def test_a_slides_regions_are_read_one_by_one() -> None:
    whole = build("longvit_1024", TeacherConfig(source="slide", weights="random"), 24576)
    encoder = dataclasses.replace(whole, module=small(1024))
    coords = np.array([(x, y) for y in range(5) for x in range(6)]) * 256
    rows = Rows(np.random.default_rng(0).standard_normal((30, 64 * WIDTH)).astype(np.float16))
    found = encode(encoder, rows, coords, 256)
    assert max(rows.asked) == 16 and sum(rows.asked) == 30
    assert found.corners is not None and found.patches is not None
    assert found.corners.tolist() == [[0, 0], [1024, 0], [0, 1024], [1024, 1024]]
    assert found.patches.tolist() == [16, 8, 4, 2] and found.places == 16
    inside = np.array([(x, y) for y in range(4) for x in range(4)])
    chosen = [6 * y + x for x, y in inside]
    alone = encoder.module(torch.from_numpy(rows.values[chosen]).float(), torch.from_numpy(inside))
    np.testing.assert_allclose(found.values[0], alone.numpy(), atol=2e-3)
