"""Features in `.pt` files: one tensor, a dict with one, or a (low, mid, high) tuple.

torch is imported only when such a file is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ArtifactError

LEVELS = ("low", "mid", "high")


def load_tensors(path: Path) -> tuple[dict[str, Any], Any]:
    """The tensors of a `.pt` file by level, and its coordinates or None.

    Raises:
        ArtifactError: it holds Python objects, or no tensors of features.
    """
    import pickle

    import torch

    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError:
        raise ArtifactError(
            f"{path}: holds Python objects, which are not loaded because they can run code; "
            "save plain tensors instead"
        ) from None
    coords = None
    if isinstance(data, Mapping):
        coords = data.get("coords")
        found = [data[k] for k in ("features", "feats", "embeddings") if k in data]
        if len(found) != 1:
            raise ArtifactError(f"{path}: a dict without `features` or `feats`: {sorted(data)}")
        data = found[0]
    if isinstance(data, torch.Tensor):
        return {"high": data}, coords
    if isinstance(data, list | tuple) and len(data) == 3:
        return dict(zip(LEVELS, data, strict=True)), coords
    raise ArtifactError(f"{path}: holds a {type(data).__name__}, not a tensor of features")


def _is_zip(path: Path) -> bool:
    """Whether torch can map the file instead of reading it (its format since 1.6)."""
    with path.open("rb") as handle:
        return handle.read(2) == b"PK"


def as_numpy(tensor: Any) -> np.ndarray:
    """A tensor's numbers in a type that numpy has, half or single precision."""
    import torch

    kept = tensor.dtype in (torch.float16, torch.float32)
    found: np.ndarray = (tensor if kept else tensor.float()).numpy()
    return found
