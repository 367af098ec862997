"""Captions joined to tiles: each slide keeps the tiles that somebody described."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from pipeline.encoders.text_towers import Tokeniser, tokens, too_long
from pipeline.errors import UserError
from pipeline.tile_training.slides import TiledSlide

# Words that are no longer true once a tile is flipped or turned.
SIDES = re.compile(r"\b(left|right|top|bottom|upper|lower|above|below)\b", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Slides with their captioned tiles.

    Attributes:
        slides: each with the captioned tiles alone.
        texts: the different captions.
        ids: int64 (texts, context), their tokens.
        of: for each slide, for each of its tiles, the numbers of its captions.
        cut: captions that are longer than the text tower takes, and were cut.
        without_tiles: captions of places where no tile is.
    """

    slides: list[TiledSlide]
    texts: list[str]
    ids: Tensor
    of: list[list[list[int]]]
    cut: int
    without_tiles: int

    def part(self, slides: Sequence[TiledSlide]) -> Pairs:
        """Those of some slides."""
        place = {slide.slide_id: i for i, slide in enumerate(self.slides)}
        chosen = [self.of[place[slide.slide_id]] for slide in slides]
        return dataclasses.replace(self, slides=list(slides), of=chosen)

    def draw(self, slides: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        """One caption of each tile, at random where it has several.

        Args:
            slides: int64 (B,), numbers of slides.
            places: int64 (B,), of their tiles.
            generator: of the draws.

        Returns:
            int64 (B,), numbers of texts.
        """
        places_of = zip(slides.tolist(), places.tolist(), strict=True)
        options = [self.of[slide][place] for slide, place in places_of]
        draws = torch.rand(len(options), generator=generator, device=generator.device).tolist()
        chosen = [own[int(u * len(own))] for own, u in zip(options, draws, strict=True)]
        return torch.tensor(chosen, dtype=torch.int64)


def join(slides: Sequence[TiledSlide], table: pd.DataFrame, tokeniser: Tokeniser) -> Pairs:
    """Captions and the tiles that they are of.

    Args:
        slides: with all their tiles.
        table: of `read_captions`.
        tokeniser: of the text tower.

    Raises:
        UserError: none is of a tile.
    """
    said = table["caption"]
    texts = sorted(set(said))
    number = {text: i for i, text in enumerate(texts)}
    by_place: dict[tuple[str, int, int], list[int]] = {}
    places = zip(table["slide_id"], table["x"], table["y"], strict=True)
    for (name, x, y), text in zip(places, said, strict=True):
        by_place.setdefault((name, int(x), int(y)), []).append(number[text])
    kept, of, used = [], [], 0
    for slide in slides:
        found = [by_place.get((slide.slide_id, x, y)) for x, y in slide.grid.coords.tolist()]
        rows = [i for i, own in enumerate(found) if own]
        if not rows:
            continue
        grid = dataclasses.replace(slide.grid, coords=slide.grid.coords[rows])
        kept.append(dataclasses.replace(slide, grid=grid))
        of.append([own for own in found if own])
        used += sum(len(own) for own in of[-1])
    if not kept:
        raise UserError(
            "pairs.captions: no caption is of a tile; x and y must be the upper left corners of "
            "tiles, level-0 pixels, as tiles/<slide>.h5 has them"
        )
    ids = torch.stack([tokens(tokeniser, text, cut=True) for text in texts])
    return Pairs(kept, texts, ids, of, too_long(tokeniser, texts), len(table) - used)


def check_sides(texts: Sequence[str], flips: bool) -> None:
    """Refuse words for sides where tiles are flipped and turned.

    Args:
        texts: the captions.
        flips: whether tiles are.

    Raises:
        UserError: one speaks of a side.
    """
    for text in texts if flips else ():
        if found := SIDES.search(text):
            raise UserError(
                f"pairs.captions: {text!r} speaks of `{found[0]}`, which is wrong once the tile is "
                "flipped or turned; set pairs.augmentation.flips: false, or take such words out"
            )
