"""Captions of the embedded cohort's tiles: what their hidden state is, in words.

A tile's tissue class is read from the drawn annotation, what its tumour looks like from the case's
states. Words vary, so that no class has one fixed sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.errors import UserError
from pipeline.files.artifacts import read_json
from pipeline.tile_training.sampling import seed_of
from pipeline.tile_training.slides import TiledSlide

GROWTH = (
    ("glands with open lumens", "glandular growth", "tubules and ducts"),
    ("solid nests", "nested growth", "rounded islands"),
    ("thin cords", "trabecular growth", "strands in rows"),
)
NUCLEI = (
    ("small even nuclei", "uniform nuclei"),
    ("moderately varied nuclei", "some nuclear variation"),
    ("large irregular nuclei", "marked pleomorphism"),
)
CELLS = (
    ("few lymphocytes", "hardly any lymphocytes"),
    ("some lymphocytes", "scattered lymphocytes"),
    ("many lymphocytes", "dense lymphocytes"),
)
OPENINGS = ("", "histology of ", "tissue with ", "this field shows ", "a tile of ")
OTHERS = {
    "stroma": ("stroma", "pink connective tissue", "fibrous stroma"),
    "fat": ("fat", "adipose tissue", "empty fat cells"),
    "": ("mostly glass", "the edge of the tissue"),
}


def captions(folder: Path, slides: Sequence[TiledSlide], seed: int) -> pd.DataFrame:
    """A caption for every tile.

    Args:
        folder: of the embedded cohort, with `truth.csv` and `annotations/`.
        slides: with their tiles.
        seed: of the choice of words.

    Returns:
        columns slide_id, x, y, caption.

    Raises:
        UserError: the folder has no truth.
    """
    truth_path = folder / "truth.csv"
    if not truth_path.is_file():
        raise UserError(
            f"{truth_path}: not there; captions of hidden states are those of the embedded cohort "
            "alone, any other needs a CSV with slide_id, x, y and caption"
        )
    truth = pd.read_csv(truth_path, index_col="case_id").to_dict("index")
    tables = []
    for slide in slides:
        classes = tissue(folder / "annotations" / f"{slide.slide_id}.png", slide)
        state = truth[slide.case_id]
        rng = np.random.default_rng(seed_of("captions", seed, slide.slide_id))
        looks = [
            options[third(float(state[name]))]
            for name, options in (
                ("growth", GROWTH),
                ("pleomorphism", NUCLEI),
                ("lymphocytes", CELLS),
            )
        ]
        said = [_sentence(name, looks, rng) for name in classes]
        x, y = slide.grid.coords.T
        tables.append(pd.DataFrame({"slide_id": slide.slide_id, "x": x, "y": y, "caption": said}))
    return pd.concat(tables, ignore_index=True)


def third(level: float) -> int:
    """Which third of 0…1 a state is in."""
    return min(2, int(3 * level))


def tissue(path: Path, slide: TiledSlide) -> list[str]:
    """The tissue class in the middle of each tile, '' on glass.

    Args:
        path: the annotation, an image over the whole slide, with its legend next to it.
        slide: with its tiles.
    """
    legend = {int(k): str(name) for k, name in read_json(path.with_suffix(".json")).items()}
    with Image.open(path) as image:
        classes = np.asarray(image)
    facts = slide.grid.attributes
    side = slide.grid.side * slide.grid.downsample
    middle = slide.grid.coords + side / 2
    columns = (middle[:, 0] / float(facts["level0_width"]) * classes.shape[1]).astype(int)
    rows = (middle[:, 1] / float(facts["level0_height"]) * classes.shape[0]).astype(int)
    found = classes[rows.clip(0, classes.shape[0] - 1), columns.clip(0, classes.shape[1] - 1)]
    return [legend.get(int(k), "") for k in found]


def _sentence(name: str, looks: Sequence[Sequence[str]], rng: np.random.Generator) -> str:
    opening = OPENINGS[int(rng.integers(len(OPENINGS)))]
    if name != "tumour":
        words = OTHERS[name]
        return opening + words[int(rng.integers(len(words)))]
    chosen = [options[int(rng.integers(len(options)))] for options in looks]
    return f"{opening}{chosen[0]}, {chosen[1]} and {chosen[2]}"
