"""Tiles found by words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from pipeline.bags.files import FeatureFile, read_coords
from pipeline.vision_language.scoring import tile_scores


@dataclasses.dataclass(frozen=True)
class Found:
    """A tile that was found.

    Attributes:
        case_id, slide_id: where it is from.
        x, y: its upper left corner, level-0 pixels.
        score: its cosine.
    """

    case_id: str
    slide_id: str
    x: int
    y: int
    score: float


def best_tiles(
    slides: Iterable[tuple[str, FeatureFile]], weights: np.ndarray, n: int, per_case: int = 1
) -> list[list[Found]]:
    """The tiles nearest to each prompt, few of one case, so that not one case fills the sheet.

    Args:
        slides: case and features of each slide; those without coordinates are left out.
        weights: float32 (P, D), of length 1.
        n: tiles for each prompt.
        per_case: at most so many of them from one case.

    Returns:
        for each prompt, the best first.
    """
    kept: list[dict[str, list[Found]]] = [{} for _ in weights]
    for case, file in slides:
        coords = read_coords(file)
        if coords is None:
            continue
        scores = tile_scores(file, weights, 0)
        for p in range(len(weights)):
            order = np.argsort(-scores[:, p], kind="stable")[:per_case]
            own = kept[p].setdefault(case, [])
            own += [
                Found(
                    case, file.path.stem, int(coords[i, 0]), int(coords[i, 1]), float(scores[i, p])
                )
                for i in order
            ]
            own.sort(key=lambda one: -one.score)
            del own[per_case:]
    return [
        sorted((one for own in cases.values() for one in own), key=lambda f: -f.score)[:n]
        for cases in kept
    ]
