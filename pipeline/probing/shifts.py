"""Tiles as another laboratory or scanner might have made them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from pipeline.tile_training.augment import blur, restain

BATCH = 32  # tiles at once


def shifted(tiles: Tensor, kind: str, strength: float, seed: int) -> Tensor:
    """All tiles under one shift, of the same size as before.

    Args:
        tiles: uint8 (B, S, S, 3).
        kind: `stain`: haematoxylin and eosin each by that share more or less of it, drawn for each
            tile; `blur`: a Gaussian of that deviation in pixels; `jpeg`: written with that quality
            and read again; `scale`: enlarged by that factor about the centre, where less than 1
            mirrors the tile at its borders.
        strength: as said.
        seed: of the draws.

    Returns:
        uint8 (B, S, S, 3).

    Raises:
        KeyError: there is no such kind.
    """
    if kind in ("jpeg", "scale"):
        change = {"jpeg": _jpeg, "scale": _scaled}[kind]
        return torch.from_numpy(np.stack([change(tile, strength) for tile in tiles.numpy()]))
    change_all = {"stain": _restained, "blur": _blurred}[kind]
    return torch.cat(
        [change_all(part, strength, seed + i) for i, part in enumerate(tiles.split(32))]
    )


def _restained(tiles: Tensor, strength: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    more = torch.randint(0, 2, (len(tiles), 3), generator=generator) * 2 - 1
    scale = 1 + strength * more * torch.tensor([1.0, 1.0, 0.0])
    return _written(restain(_planes(tiles), scale, torch.zeros(len(tiles), 3)))


def _blurred(tiles: Tensor, strength: float, seed: int) -> Tensor:
    return _written(blur(_planes(tiles), torch.full((len(tiles),), strength), strength))


def _jpeg(tile: np.ndarray, strength: float) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(strength)]
    _, written = cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), quality)
    return cv2.cvtColor(cv2.imdecode(written, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def _scaled(tile: np.ndarray, strength: float) -> np.ndarray:
    side = tile.shape[0]
    middle = (side - 1) / 2
    matrix = np.array(
        [[strength, 0, (1 - strength) * middle], [0, strength, (1 - strength) * middle]]
    )
    how = cv2.INTER_AREA if strength < 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(tile, matrix, (side, side), flags=how, borderMode=cv2.BORDER_REFLECT_101)


def _planes(tiles: Tensor) -> Tensor:
    return tiles.permute(0, 3, 1, 2).float()


def _written(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
