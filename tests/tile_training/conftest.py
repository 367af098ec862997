"""A few small slides with tiles, and something simple that learns from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.tile_training import AugmentationConfig
from pipeline.encoders.transforms import Transform
from pipeline.tile_reading.grid import Grid
from pipeline.tile_training.augment import augment
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.slides import TiledSlide
from pipeline.tile_training.trainer import Pass
from tests.extraction.made import grid_coords, tissue, write_svs

PLAIN = Transform(16, 16, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> list[TiledSlide]:
    folder = tmp_path_factory.mktemp("slides")
    found = []
    for number in range(4):
        width = 96 + 64 * number
        path = write_svs(folder / f"s{number}.svs", tissue(width, 128, number))
        grid = Grid(grid_coords(width, 128, 32), 0, 1.0, 32, f"f{number}", {})
        found.append(TiledSlide(f"s{number}", f"c{number // 2}", path, grid))
    return found


class MeanColour:
    """Learns each tile's mean colour, through a batch norm and dropout."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.module = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Dropout(0.1), nn.Linear(6, 3),
        )  # fmt: skip
        self.seen = 0

    def backward(self, batch: Batch, now: Pass) -> dict[str, Tensor]:
        images = augment(batch.tiles, AugmentationConfig(), now.generator)
        with now.autocast():
            out = self.module(images / 255)
            loss = (out - images.mean((2, 3)) / 255).square().mean()
        (loss * now.share).backward()
        return {"loss": loss}

    def stepped(self, step: int) -> None:
        self.seen += 1

    def validate(self, module: nn.Module) -> dict[str, float]:
        images = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
        with torch.no_grad():
            error = (module(images) - images.mean((2, 3))).square().mean()
        return {"score": -float(error)}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def read_one(slide: TiledSlide, place: int) -> np.ndarray:
    from pipeline.tile_reading.single import SingleTiles

    source = SingleTiles(Path(slide.path), slide.grid)
    try:
        return source.read(place)
    finally:
        source.close()
