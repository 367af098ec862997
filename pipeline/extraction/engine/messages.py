"""What reader, device and writer hand to each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.errors import SlideError
from pipeline.extraction.writer import Block
from pipeline.tile_reading.grid import Grid


@dataclasses.dataclass(frozen=True)
class SlideToRead:
    """A slide and what is to be made of it.

    Attributes:
        slide_id: the slide.
        path: its file.
        grid: its tiles.
        outputs: teacher to the feature file to make, for the teachers that still need it.
        fingerprints: teacher to the file's fingerprint.
    """

    slide_id: str
    path: Path
    grid: Grid
    outputs: Mapping[str, Path]
    fingerprints: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        batch_size: tiles per forward pass.
        workers: decoding threads per device.
        on_bad_tile: `fail` the slide, or `drop` the tile.
        direct: whether compressed blocks may be decoded directly.
        decode_on_gpu: whether JPEG blocks go to the GPU as they are.
    """

    batch_size: int
    workers: int
    on_bad_tile: str = "fail"
    direct: bool = True
    decode_on_gpu: bool = False


@dataclasses.dataclass(frozen=True)
class Batch:
    """Tiles on their way to the device; `error` ends the slide, `tiles` None ends it well."""

    job: SlideToRead
    rows: np.ndarray
    tiles: torch.Tensor | None
    dropped: int = 0
    error: SlideError | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """Features on their way to the writer; teacher -> None ends the slide."""

    job: SlideToRead
    features: Mapping[str, Block] | None
    error: SlideError | None = None
