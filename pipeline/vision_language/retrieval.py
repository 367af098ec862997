"""Tiles found by words, and words found by tiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.bags.files import FeatureFile, read_coords
from pipeline.errors import UserError
from pipeline.vision_language.scoring import tile_scores

AT = (1, 5, 10)


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


def recall(
    images: np.ndarray, texts: np.ndarray, caption: np.ndarray, at: Sequence[int] = AT
) -> dict[str, dict[int, float]]:
    """Recall at k in both directions.

    A tile's query is answered if its caption is among the k nearest ones, a caption's if a tile of
    its own is among the k nearest tiles.

    Args:
        images: float (N, D), of length 1.
        texts: float (T, D), of length 1: the different captions.
        caption: int (N,), the number of each tile's caption.
        at: each k.

    Returns:
        `tile_to_text` and `text_to_tile`, k -> share of queries that are answered.
    """
    scores = images.astype(np.float64) @ texts.T.astype(np.float64)
    own = scores[np.arange(len(images)), caption]
    rank = (scores > own[:, None]).sum(axis=1)
    best = np.full(len(texts), -np.inf)
    np.maximum.at(best, caption, own)
    used = np.unique(caption)
    above = (scores[:, used] > best[used]).sum(axis=0)
    return {
        "tile_to_text": {k: float((rank < k).mean()) for k in at},
        "text_to_tile": {k: float((above < k).mean()) for k in at},
    }


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Captions of tiles.

    Attributes:
        slide_id, text: of each tile.
        x, y: its upper left corner, level-0 pixels.
    """

    slide_id: list[str]
    text: list[str]
    x: np.ndarray
    y: np.ndarray


def read_captions(path: Path) -> Captioned:
    """Captions of tiles from a CSV with columns slide_id, x, y and caption.

    Raises:
        UserError: the file is missing, lacks a column, or has an empty caption.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={"slide_id": str, "caption": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the captions cannot be read ({error})") from None
    absent = [c for c in ("slide_id", "x", "y", "caption") if c not in table.columns]
    if absent:
        raise UserError(
            f"{path}: no column {', '.join(absent)}; captions need slide_id, x, y, caption"
        )
    empty = table["caption"].isna() | (table["caption"].str.strip() == "")
    if empty.any():
        raise UserError(f"{path}: row {int(np.flatnonzero(empty)[0]) + 2} has no caption")
    x, y = (table[c].to_numpy(np.int64) for c in ("x", "y"))
    return Captioned(table["slide_id"].tolist(), table["caption"].str.strip().tolist(), x, y)
