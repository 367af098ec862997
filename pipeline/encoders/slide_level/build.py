"""A slide encoder that is ready to run, and one slide through it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config.extraction import TeacherConfig
from pipeline.encoders import weights
from pipeline.encoders.numerics import allow_tf32, autocast, choose_precision
from pipeline.encoders.slide_level import remote
from pipeline.encoders.slide_level.chief import CHIEF
from pipeline.encoders.slide_level.hipt import SIDE, Regions, RegionTransformer, regions
from pipeline.encoders.slide_level.longnet import LongNetViT
from pipeline.encoders.slide_level.longvit import SMALLEST, LongViT
from pipeline.encoders.slide_level.madeleine import Madeleine
from pipeline.encoders.slide_level.positions import grid_cells
from pipeline.encoders.slide_level.registry import SlideModel, check, width
from pipeline.encoders.weight_files import wanted_revision
from pipeline.errors import ArtifactError, ConfigError, SlideError

# Raised when what is made of a network's output changes. 1: the first.
VERSION = 1

BATCH = 64  # regions at a time

# What is built here. Each takes the width of the tiles' features and its row's arguments.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "longnet": LongNetViT,
    "longvit": LongViT,
    "hipt": RegionTransformer,
    "chief": CHIEF,
    "madeleine": Madeleine,
}
# Those whose vector depends on a slide's tiles alone, not on where they are.
WITHOUT_PLACES = {"chief", "madeleine"}


class Tiles(Protocol):
    """Features of a slide's tiles: an array, or a file of which no more than is asked is read."""

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


@dataclasses.dataclass(frozen=True)
class SlideEncoder:
    """A network on its device.

    Attributes:
        name: the teacher's name in the config.
        row: its registry row.
        module: the network, in evaluation mode.
        pooling: how it is read.
        layers: which of its states are read; none: its end.
        dim: width of the features that it reads.
        width: of what it gives.
        device: where it is.
        precision: fp32 or tf32 (for the whole process), bf16 or fp16 (autocast).
        facts: for the files' attributes: model_id, revision, weights, pooling …
    """

    name: str
    row: SlideModel
    module: Any
    pooling: str
    layers: tuple[int, ...]
    dim: int
    width: int
    device: torch.device
    precision: str
    facts: dict[str, str]


@dataclasses.dataclass(frozen=True)
class SlideVectors:
    """What an encoder says of a slide.

    Attributes:
        values: float16 (1, width), or a row for each region.
        corners: int64 (R, 2), level-0 (x, y) of the regions; None where there are none.
        patches: int64 (R,), tiles with tissue in each; None where there are none.
        places: places for tiles in each.
    """

    values: np.ndarray
    corners: np.ndarray | None = None
    patches: np.ndarray | None = None
    places: int = 0


def build(
    name: str,
    cfg: TeacherConfig,
    dim: int,
    *,
    precision: str = "auto",
    weights_dir: str | None = None,
    identity: str | None = None,
    device: torch.device | str = "cpu",
) -> SlideEncoder:
    """Build a slide encoder, load its weights and put it on a device.

    Args:
        name: the teacher's name; without `model:` also its row.
        cfg: its config.
        dim: width of its input teacher's features. With random weights the network is made for it.
        precision: auto, fp32, tf32, bf16 or fp16.
        weights_dir: folder of local weights, one subfolder per teacher.
        identity: of the weights file that the preflight checked; None takes any.
        device: where to run.

    Raises:
        ConfigError: it cannot be run as configured, or not with features of that width.
        ArtifactError: its weights are missing, damaged, of another model, or not those checked.
    """
    row = check(name, cfg)
    module = make_network(row, cfg, dim)
    source = weights.find(module, name, cfg, row, weights_dir)
    if identity is not None and source.identity != identity:
        raise ArtifactError(
            f"teacher `{name}`: {source.path} is not the weights file that was checked before; put "
            f"that one back, or remove features/{name}/check.json to check and encode again"
        )
    if source.path is not None:
        weights.fill(module, source.path, row.layout)
    return finish(module, row, name, cfg, source, precision, device)


def make_network(row: SlideModel, cfg: TeacherConfig, dim: int) -> Any:
    """The network with seeded random parameters, or without any where they are to be loaded.

    Args:
        row: its registry row.
        cfg: its config.
        dim: width of its input teacher's features.

    Raises:
        ConfigError: it takes features of another width, or its code cannot be fetched.
    """
    if cfg.weights != "random" and dim != row.input_dim:
        raise ConfigError(
            f"{row.title} was trained on the {row.input_dim} features of `{row.input}`, but its "
            f"input has {dim}; correct `input:`, or the pooling of that teacher"
        )
    if row.loader == "remote":
        return remote.load(row, wanted_revision(cfg, row))
    with contextlib.nullcontext() if cfg.weights == "random" else torch.device("meta"):
        return seeded(row, dim, cfg.seed)


def seeded(row: SlideModel, dim: int, seed: int = 0) -> nn.Module:
    """An architecture; equal seeds give equal random parameters.

    Args:
        row: its registry row.
        dim: width of the features that it reads.
        seed: of the parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[row.arch](dim, **row.kwargs)


def finish(
    module: Any,
    row: SlideModel,
    name: str,
    cfg: TeacherConfig,
    source: weights.Source,
    precision: str,
    device: torch.device | str,
) -> SlideEncoder:
    """Put a network that has its weights on a device, and say what it gives.

    Args:
        module: the network.
        row: its registry row.
        name: the teacher's name in the config.
        cfg: its settings.
        source: where its weights came from.
        precision: `auto`, fp32, tf32, bf16 or fp16.
        device: where it runs.
    """
    device = torch.device(device)
    chosen = choose_precision(precision, device, row.dtype)
    allow_tf32(chosen)
    pooling = cfg.pooling or row.pooling
    built = row.loader == "timm"
    dim = module.dim if built else row.input_dim
    facts = {
        "model_id": cfg.model or name,
        "pooling": pooling,
        "layers": ", ".join(map(str, cfg.layers)),
        "weights": source.weights,
        "revision": source.revision,
    }
    wide = (dim + 1) * SIDE * SIDE if pooling == "patches" else width(row, cfg)
    module = module.eval().requires_grad_(False).to(device)
    return SlideEncoder(name, row, module, pooling, cfg.layers, dim, wide, device, chosen, facts)


def small(encoder: SlideEncoder) -> SlideEncoder:
    """The same encoder for a trial on a CPU, with regions of the smallest size: the largest take
    hours there."""
    if isinstance(encoder.module, LongViT):
        encoder.module.side = SMALLEST
    return encoder


@torch.inference_mode()
def encode(encoder: SlideEncoder, features: Tiles, coords: np.ndarray, step: float) -> SlideVectors:
    """One slide.

    Args:
        encoder: from `build`.
        features: (N, dim), the tiles'.
        coords: int (N, 2), corners (x, y) in level-0 pixels, sorted by (y, x).
        step: distance of neighbouring tiles in level-0 pixels.

    Raises:
        SlideError: `bad_grid`, the tiles do not lie on a grid in row-major order; `not_finite`, the
            result is NaN or infinite in float16.
    """
    if encoder.row.arch == "longvit":
        values, found = _large_regions(
            encoder, lambda rows: _on_device(features[rows], encoder), coords, step
        )
    else:
        tiles = _on_device(features[np.arange(len(coords))], encoder)
        values, found = view(encoder, tiles, coords, step)
    half = values.to(torch.float16).cpu().numpy()
    if not np.isfinite(half).all():
        raise SlideError(
            "the slide encoder gives NaN or infinite values; set extraction.precision: fp32",
            "not_finite",
        )
    if found is None:
        return SlideVectors(half)
    return SlideVectors(half, _corners(found, coords, step), found.patches, found.side**2)


def view(
    encoder: SlideEncoder, tiles: Tensor, coords: np.ndarray, step: float
) -> tuple[Tensor, Regions | None]:
    """What an encoder says of a slide, as a function of its tiles that has a gradient.

    Args:
        encoder: from `build`; its parameters are frozen.
        tiles: float32 (N, dim), on its device.
        coords: int (N, 2), corners (x, y) in level-0 pixels, sorted by (y, x).
        step: distance of neighbouring tiles in level-0 pixels.

    Returns:
        (1, width), or a row for each region; and the regions, where it has rows for them.

    Raises:
        SlideError: `bad_grid`, the tiles do not lie on a grid in row-major order.
    """
    module, arch = encoder.module, encoder.row.arch
    with autocast(encoder.precision, encoder.device):
        if arch in remote.CALLS:
            places = torch.from_numpy(coords).to(encoder.device)
            return remote.CALLS[arch](module, tiles, places, step)[None], None
        if arch == "longvit":
            return _large_regions(encoder, tiles.__getitem__, coords, step)
        if arch == "hipt":
            return _regions(encoder, tiles, regions(grid_cells(coords, step, None)))
        if arch in WITHOUT_PLACES:
            return module(tiles)[None], None
        cells = torch.from_numpy(grid_cells(coords, step)).to(encoder.device)
        given = {"layers": encoder.layers, "pooling": encoder.pooling}
        return module(tiles[None], cells[None], **given), None


def _large_regions(
    encoder: SlideEncoder, read: Callable[[np.ndarray], Tensor], coords: np.ndarray, step: float
) -> tuple[Tensor, Regions | None]:
    """Regions one by one, so that the tiles of no more than one need be in memory."""
    found = regions(grid_cells(coords, step, None), encoder.module.side)
    parts = []
    with autocast(encoder.precision, encoder.device):
        for region in range(len(found.corners)):
            chosen, places = found.tiles_of(region)
            parts.append(encoder.module(read(chosen), torch.from_numpy(places).to(encoder.device)))
    return _pooled(encoder, torch.stack(parts), found)


def _corners(found: Regions, coords: np.ndarray, step: float) -> np.ndarray:
    origin = coords[0] - grid_cells(coords, step, None)[0] * step
    return np.rint(origin + found.corners * step).astype(np.int64)


def _regions(encoder: SlideEncoder, tiles: Tensor, found: Regions) -> tuple[Tensor, Regions | None]:
    x, mask = found.fill(tiles)
    if encoder.pooling == "patches":
        marks = torch.where(mask, -1.0, 1.0)  # where there is a patch
        return torch.cat([x.flatten(1), marks], 1), found
    parts = [encoder.module(x[i : i + BATCH], mask[i : i + BATCH]) for i in range(0, len(x), BATCH)]
    return _pooled(encoder, torch.cat(parts), found)


def _pooled(
    encoder: SlideEncoder, vectors: Tensor, found: Regions
) -> tuple[Tensor, Regions | None]:
    vectors = vectors.float()
    if encoder.pooling == "mean":
        return vectors.mean(0, keepdim=True), None
    return vectors, found


def _on_device(tiles: np.ndarray, encoder: SlideEncoder) -> Tensor:
    return torch.from_numpy(np.asarray(tiles)).to(encoder.device).float()
