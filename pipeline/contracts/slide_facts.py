"""What tiling found on a slide: the facts of its record, for mapping and the report."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.contracts.ledger import Record
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.files.typed_json import typed


@dataclasses.dataclass(frozen=True)
class Stain:
    """The tissue's colour.

    Attributes:
        rgb: mean of its pixels, 0 to 255; empty where the slide has no tissue.
        haematoxylin, eosin: how much of each explains it.
    """

    rgb: list[float] = dataclasses.field(default_factory=list)
    haematoxylin: float | None = None
    eosin: float | None = None


@dataclasses.dataclass(frozen=True)
class SlideFacts:
    """One slide that tiling could open. What has a default may be absent from an older record.

    Attributes:
        n_tiles: that are kept.
        width, height: of level 0, in pixels.
        mpp: µm per pixel of level 0.
        mpp_source: who says so.
        backend: which library reads the slide.
        n_candidates: tiles before `max_tiles`.
        magnification: of the objective, as the file states it; None where it does not.
        format: of the file, as OpenSlide calls the vendor.
        scene: which of the file's scenes is read, from 0.
        levels: of the pyramid.
        read_level: the one that tiles are read from.
        tile_um: side of a tile, in µm.
        found_mm2: tissue before artefacts are taken out.
        tissue_mm2: tissue that tiles may lie on.
        tissue_source: `mask`, or the method that found it.
        pen_fraction: share of the picture.
        pen_colours: of the marks.
        blur_fraction, fold_fraction: share of the tissue; None where they were not looked for.
        tiles_left_out: artefact -> tiles with too much of it.
        small_pieces, small_pieces_mm2: pieces of tissue below the smallest area.
        grid_origin: (x, y) of the grid, in level-0 pixels.
        stain: the tissue's colour.
        colours: what `slides.colours.Colours.facts` tells.
        tiles_source: `grid`, or the tool whose coordinates were given.
        warnings: about the slide, which is used all the same.
    """

    n_tiles: int
    width: int
    height: int
    mpp: float
    mpp_source: str
    backend: str
    n_candidates: int | None = None
    magnification: float | None = None
    format: str = ""
    scene: int = 0
    levels: int | None = None
    read_level: int | None = None
    tile_um: float | None = None
    found_mm2: float | None = None
    tissue_mm2: float | None = None
    tissue_source: str | None = None
    pen_fraction: float = 0.0
    pen_colours: list[str] = dataclasses.field(default_factory=list)
    blur_fraction: float | None = None
    fold_fraction: float | None = None
    tiles_left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    small_pieces: int | None = None
    small_pieces_mm2: float | None = None
    grid_origin: list[int] = dataclasses.field(default_factory=list)
    stain: Stain = dataclasses.field(default_factory=Stain)
    colours: dict[str, Any] = dataclasses.field(default_factory=dict)
    tiles_source: str = "grid"
    warnings: list[SlideWarning] = dataclasses.field(default_factory=list)

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height, in µm."""
        return self.width * self.mpp, self.height * self.mpp

    @property
    def worst_artefact(self) -> float:
        """The largest share of pen, blur or folds."""
        return max(self.pen_fraction, self.blur_fraction or 0.0, self.fold_fraction or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """As a record holds them."""
        stain = dataclasses.asdict(self.stain) if self.stain.rgb else {}
        return {**dataclasses.asdict(self), "stain": stain}


def slide_facts(record: Record) -> SlideFacts | None:
    """What tiling found on a slide; None where it could not look at it.

    Args:
        record: the slide's record of tiling.

    Raises:
        ArtifactError: a fact is missing or of another type.
    """
    if "mpp" not in record.facts:
        return None
    return typed(record.facts, SlideFacts, f"the tiling record of {record.slide_id}")
