"""What the teachers have said of the slides' tiles: read from their files, never made again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.bags.files import FeatureFile, open_features, read_coords, read_level
from pipeline.contracts.chunks import manifests_of
from pipeline.contracts.ledger import read_manifests
from pipeline.errors import ArtifactError, UserError
from pipeline.tile_training.slides import TiledSlide

LEVEL = "high"


@dataclasses.dataclass(frozen=True)
class Answers:
    """Features of some slides' tiles by all teachers, read when they are asked for.

    Attributes:
        files: for each slide, teacher -> its file.
        rows: for each slide, teacher -> int64 (tiles,), the file's rows in the order of the tiles.
    """

    files: tuple[dict[str, FeatureFile], ...]
    rows: tuple[dict[str, np.ndarray], ...]

    @property
    def dims(self) -> dict[str, int]:
        """Teacher -> width of its features."""
        return {teacher: file.dims[LEVEL] for teacher, file in self.files[0].items()}

    def __call__(self, slide: int, places: np.ndarray) -> dict[str, Tensor]:
        """Teacher -> float16 or float32 (n, D).

        Args:
            slide: its place.
            places: of its tiles, in any order.
        """
        return {
            teacher: torch.from_numpy(read_level(file, LEVEL, self.rows[slide][teacher][places]))
            for teacher, file in self.files[slide].items()
        }

    def parts(self, teacher: str) -> Iterator[np.ndarray]:
        """A teacher's features (n, D), a slide at a time."""
        for files, rows in zip(self.files, self.rows, strict=True):
            yield read_level(files[teacher], LEVEL, rows[teacher])


def with_answers(
    slides: Sequence[TiledSlide], root: Path, teachers: Mapping[str, str]
) -> tuple[list[TiledSlide], Answers]:
    """The slides that all teachers have seen, with the tiles that all have.

    Args:
        slides: with the tiles that tiling found.
        root: the results folder.
        teachers: teacher -> folder of `features/` with its manifests.

    Raises:
        ArtifactError: a feature file is damaged, has no coordinates, or others than the tiles.
        UserError: there is no such slide.
    """
    paths: dict[str, dict[str, Path]] = {}
    for teacher, folder in teachers.items():
        records = read_manifests(manifests_of(root, f"features/{folder}"))
        paths[teacher] = {
            r.slide_id: root / r.path
            for r in records
            if r.stage == f"extraction/{teacher}" and r.status == "ok"
        }
    kept: list[TiledSlide] = []
    files: list[dict[str, FeatureFile]] = []
    rows: list[dict[str, np.ndarray]] = []
    for slide in slides:
        if not all(slide.slide_id in of for of in paths.values()):
            continue
        opened = {t: open_features(of[slide.slide_id]) for t, of in paths.items()}
        shared, places = _shared(slide, opened)
        kept.append(dataclasses.replace(slide, grid=dataclasses.replace(slide.grid, coords=shared)))
        files.append(opened)
        rows.append(places)
    if not kept:
        raise UserError(
            f"none of {len(slides)} slides has features of all of {', '.join(teachers)}; see "
            "coverage.csv"
        )
    return kept, Answers(tuple(files), tuple(rows))


def _shared(
    slide: TiledSlide, files: Mapping[str, FeatureFile]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Coordinates that all have, and where each file has them."""
    places: dict[str, dict[tuple[int, int], int]] = {}
    for teacher, file in files.items():
        coords = read_coords(file)
        if coords is None:
            raise ArtifactError(f"{file.path}: has no coordinates; extract it again")
        if np.array_equal(coords, slide.grid.coords):
            continue
        places[teacher] = {(int(x), int(y)): i for i, (x, y) in enumerate(coords)}
    everything = [(int(x), int(y)) for x, y in slide.grid.coords]
    kept = [i for i, at in enumerate(everything) if all(at in of for of in places.values())]
    if not kept:
        raise ArtifactError(
            f"slide {slide.slide_id}: its feature files and its tiles have no coordinates in "
            "common; extract it again"
        )
    rows = {
        teacher: np.array(
            [places[teacher][everything[i]] if teacher in places else i for i in kept], np.int64
        )
        for teacher in files
    }
    return slide.grid.coords[kept], rows
