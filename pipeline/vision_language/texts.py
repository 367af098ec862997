"""Text features, computed once for each teacher and set of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from pipeline.encoders import text_towers
from pipeline.encoders.text_towers import TextTower
from pipeline.files.artifacts import atomic_path
from pipeline.files.digests import digest

KEY = "features"


def text_features(
    tower: TextTower, texts: Sequence[str], folder: Path, cut: bool = False
) -> np.ndarray:
    """Texts as unit vectors, from the folder where they were computed before.

    Args:
        tower: the teacher's text tower.
        texts: any number; what is kept is known by all of them, their order and the weights.
        folder: where they are kept.
        cut: whether texts that are longer than the tower's context are cut.

    Returns:
        float32 (n, D), each of length 1.

    Raises:
        UserError: a text is longer than the tower's context, and is not to be cut.
    """
    name = digest(list(texts), f"{tower.revision} {text_towers.VERSION}")
    path = folder / f"{name}.safetensors"
    if path.is_file():
        try:
            found = load_file(path)[KEY]
            if len(found) == len(texts):
                return found
        except Exception:  # safetensors' errors have no common class; it is computed again
            path.unlink(missing_ok=True)
    found = text_towers.encode(tower, texts, cut).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file({KEY: np.ascontiguousarray(found)}, temporary)
    return found
