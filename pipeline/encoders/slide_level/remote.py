"""Slide encoders that run with their authors' own code, fetched at a pinned commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.encoders.remote import fetch
from pipeline.encoders.slide_level.registry import SlideModel

# Raised when what they are asked changes. 1: the first.
VERSION = 1

Call = Callable[[Any, Tensor, Tensor, float], Tensor]


def load(row: SlideModel, revision: str) -> Any:
    """Fetch and build a model; what is asked of it is `CALLS[row.arch]`.

    Args:
        row: its registry row.
        revision: a commit: code is never run from a branch.

    Raises:
        ConfigError: no commit is given, transformers is not installed here, or the model cannot be
            fetched.
    """
    return fetch(row, revision).eval()


def titan(model: Any, features: Tensor, coords: Tensor, step: float) -> Tensor:
    """TITAN's slide vector.

    Args:
        model: the authors' network.
        features: (N, 768) of CONCHv1.5.
        coords: int (N, 2), level-0 pixels.
        step: level-0 pixels from tile to tile.
    """
    side = torch.tensor(round(step), device=coords.device)
    found: Tensor = model.encode_slide_from_patch_features(features[None], coords[None], side)
    return found[0]


def prism(model: Any, features: Tensor, coords: Tensor, step: float) -> Tensor:
    """PRISM's slide vector, which does not depend on places.

    Args:
        model: the authors' network.
        features: (N, 2560) of Virchow, class token and mean.
        coords: not used.
        step: not used.
    """
    found: Tensor = model.slide_representations(features[None])["image_embedding"]
    return found[0]


CALLS: dict[str, Call] = {"titan": titan, "prism": prism}
