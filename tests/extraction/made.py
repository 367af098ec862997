"""Small slides with their tiles files, made on the fly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from pipeline.files.artifacts import new_hdf5
from pipeline.files.digests import digest

TINY = {"source": "timm", "model": "resnet10t", "weights": "random", "input_px": 32}


def tissue(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth coloured noise: uint8 (height, width, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def write_svs(
    path: Path, image: np.ndarray, compression: str | None = "jpeg", cell: int = 64
) -> Path:
    """A tiled TIFF with two levels (1 and 1/4) and Aperio's description."""
    height, width = image.shape[:2]
    description = f"Aperio Image Library v1\n{width}x{height} |AppMag = 20|MPP = 0.5"
    options: dict[str, Any] = {"tile": (cell, cell), "photometric": "rgb", "metadata": None}
    if compression == "jpeg":
        options |= {"compression": "jpeg", "compressionargs": {"level": 90}}
    elif compression:
        options["compression"] = compression
    with tifffile.TiffWriter(path) as file:
        file.write(image, description=description, **options)
        small = cv2.resize(image, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
        file.write(small, description=description, subfiletype=1, **options)
    return path


def write_tiles(
    path: Path, coords: np.ndarray, *, level: int = 0, downsample: float = 1.0, side0: int = 32
) -> Path:
    """A tiles file as the tiling stage writes it."""
    attributes = {
        "fingerprint": digest(coords.tolist(), level, downsample, side0),
        "patch_size": 32,
        "patch_size_level0": side0,
        "level0_magnification": 20,
        "target_magnification": 20,
        "overlap": 0,
        "name": path.stem,
        "mpp_level0": 0.5,
        "target_mpp": 0.5,
        "tile_px": 32,
        "read_level": level,
        "read_downsample": downsample,
        "read_px": round(side0 / downsample),
    }
    with new_hdf5(path, attributes) as file:
        file.create_dataset("coords", data=np.asarray(coords, np.int32))
    return path


def grid_coords(width: int, height: int, step: int) -> np.ndarray:
    """All tiles of a grid, sorted by (y, x), the last row and column reaching over the edge."""
    xs, ys = np.meshgrid(np.arange(0, width, step), np.arange(0, height, step))
    return np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.int32)


def spoil(slide: Path, cell: int) -> None:
    """Overwrite one compressed tile of level 0 with zeros."""
    with tifffile.TiffFile(slide) as file:
        offset = file.pages[0].dataoffsets[cell]
        count = file.pages[0].databytecounts[cell]
    with slide.open("r+b") as handle:
        handle.seek(offset)
        handle.write(b"\0" * count)
