"""The slides that a network learns from, and those that are held out to say when it has learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.contracts import ledger
from pipeline.errors import UserError
from pipeline.files.parquet import read_table
from pipeline.tile_reading.grid import Grid, read_grid
from pipeline.tile_training.sampling import seed_of


@dataclasses.dataclass(frozen=True)
class TiledSlide:
    """A slide with its tiles.

    Attributes:
        slide_id: the slide.
        case_id: its case.
        path: its file.
        grid: its tiles.
    """

    slide_id: str
    case_id: str
    path: Path
    grid: Grid


def tiled_slides(root: Path, tiles: str = "tiles") -> list[TiledSlide]:
    """All slides of a cohort that have tiles, sorted by name.

    Args:
        root: the results folder.
        tiles: the folder below it whose tiles are meant.

    Raises:
        ArtifactError: a tiles file is missing or damaged.
    """
    table = read_table(root / "slides.parquet")
    rows = {str(row.slide_id): row for row in table.itertuples()}
    records = ledger.read_manifests(sorted((root / tiles / "manifest").glob("*.json")))
    return [
        TiledSlide(
            record.slide_id,
            str(rows[record.slide_id].case_id),
            Path(str(rows[record.slide_id].path)),
            read_grid(root / record.path),
        )
        for record in records
        if record.status == "ok" and record.slide_id in rows
    ]


def hold_out(
    slides: Sequence[TiledSlide], share: float, seed: int
) -> tuple[list[TiledSlide], list[TiledSlide]]:
    """Slides to learn from, and slides that are held out: whole cases, at least one of each.

    Args:
        slides: all of them.
        share: of the cases that is held out.
        seed: of the choice.

    Raises:
        UserError: there are fewer than two cases.
    """
    cases = sorted({slide.case_id for slide in slides})
    if len(cases) < 2:
        raise UserError(
            f"training a tile encoder needs the slides of at least 2 cases, and there are "
            f"{len(cases)}: some must be held out to say when to stop"
        )
    count = min(max(1, round(share * len(cases))), len(cases) - 1)
    order = np.random.default_rng(seed_of("held out", seed)).permutation(len(cases))
    held = {cases[i] for i in order[:count]}
    return [s for s in slides if s.case_id not in held], [s for s in slides if s.case_id in held]
