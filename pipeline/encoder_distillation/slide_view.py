"""A frozen view of whole slides, through which what a student says of all tiles is judged at once.

A slide encoder of the cohort, or a MIL model with random parameters where no slide encoder's
weights are at hand. Both are functions of the tiles' features that have a gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.aggregators.build import build as build_pooler
from pipeline.config.encoder_distillation import SlideViewTold
from pipeline.encoders.slide_level.build import build, view
from pipeline.encoders.slide_level.positions import grid_cells, grid_step
from pipeline.errors import SlideError
from pipeline.tile_training.slides import TiledSlide

# Features (N, D) of a slide's tiles, and the places (N,) of these tiles in the slide's coordinates,
# ascending -> (R, E): one vector of the slide, or one for each region.
SlideView = Callable[[Tensor, TiledSlide, np.ndarray], Tensor]

POOLED = 256  # width of what a MIL model with random parameters gives


def make_view(
    told: SlideViewTold,
    dim: int,
    weights_dir: str | None,
    device: torch.device,
    *,
    identity: str | None = None,
    seed: int = 0,
) -> SlideView:
    """The view that a config names.

    Args:
        told: which, and what it is.
        dim: width of the features that it reads.
        weights_dir: folder of local weights.
        device: where it is.
        identity: of the weights file that the preflight checked; None takes any.
        seed: of a MIL model's parameters.

    Raises:
        ConfigError: it cannot read features of that width.
        ArtifactError: its weights are missing or damaged.
    """
    if told.settings is None:
        return _pooler(told.name, dim, seed, device)
    encoder = build(
        told.name,
        told.settings,
        dim,
        precision=told.precision,
        weights_dir=weights_dir,
        identity=identity,
        device=device,
    )

    def see(features: Tensor, slide: TiledSlide, places: np.ndarray) -> Tensor:
        coords, step = slide.grid.coords[places], grid_step(slide.grid.attributes)
        return view(encoder, features, coords, step)[0].float()

    return see


def _pooler(name: str, dim: int, seed: int, device: torch.device) -> SlideView:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build_pooler(name, dim, POOLED).eval().requires_grad_(False).to(device)

    def see(features: Tensor, slide: TiledSlide, places: np.ndarray) -> Tensor:
        found: Tensor = module(features[None]).out
        return found

    return see


def off_grid(told: SlideViewTold, slide: TiledSlide) -> str:
    """Why a slide cannot be seen; empty if it can.

    Args:
        told: the view.
        slide: with its tiles.
    """
    if told.settings is None:
        return ""
    try:
        grid_cells(slide.grid.coords, grid_step(slide.grid.attributes))
    except SlideError as error:
        return error.reason
    return ""


def apart(said: Tensor, wanted: Tensor) -> Tensor:
    """One minus the cosine of a slide's vectors, as a mean over its regions.

    Args:
        said: (R, E), of the student's features.
        wanted: (R, E), of the teacher's.
    """
    return (1 - F.cosine_similarity(said.float(), wanted.float(), dim=1)).mean()
