"""The labelled tiles of a teacher, with their features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.bags.files import open_features, read_coords, read_level
from pipeline.bags.sampling import spread
from pipeline.config.probing import ProbingConfig
from pipeline.contracts.ledger import Record, read_manifests
from pipeline.files.names import as_on_disk
from pipeline.files.parquet import read_table
from pipeline.probing.labels import TileLabels, read_labels


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Labelled tiles of one teacher.

    Attributes:
        x: float32 (N, d), as the teacher wrote them.
        y: int64 (N,), class numbers.
        classes: names.
        groups: int64 (N,), number of the case.
        n_slides, n_cases: that they come from.
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray
    n_slides: int
    n_cases: int


def cases_of(root: Path) -> dict[str, str]:
    """Slide -> case."""
    table = read_table(root / "slides.parquet")
    return dict(zip(table["slide_id"].astype(str), table["case_id"].astype(str), strict=True))


def usable(manifests: Sequence[Path], teacher: str, case_of: Mapping[str, str]) -> list[Record]:
    """A teacher's records of the cohort's slides that have features.

    Args:
        manifests: of the chunks.
        teacher: the teacher's name.
        case_of: slide → case, of the whole cohort.
    """
    return [
        record
        for record in read_manifests(list(manifests))
        if record.stage == f"extraction/{teacher}"
        and record.status == "ok"
        and record.slide_id in case_of
    ]


def gather(
    cfg: ProbingConfig,
    records: Sequence[Record],
    case_of: Mapping[str, str],
    folder: Path,
    root: Path,
    base: Path,
) -> Tiles | None:
    """Read the features of all labelled tiles, up to `cfg.tiles_per_slide` spread over each slide.

    Tiles are matched by their coordinates, so that a feature file that lacks some, or has them in
    another order, is read rightly; a file without coordinates is left out.

    Args:
        cfg: the stage's config.
        records: the teacher's, as `usable` gives them.
        case_of: slide -> case.
        folder: of the tiles.
        root: the results folder.
        base: folder that `cfg.annotations` starts from.

    Returns:
        None without any labelled tile.

    Raises:
        UserError: an annotation cannot be read.
        ArtifactError: a feature file is damaged or lacks the level.
    """
    parts: list[tuple[np.ndarray, np.ndarray, str]] = []
    for record in records:
        annotation = None
        if cfg.annotations is not None:
            annotation = as_on_disk(base / cfg.annotations.format(slide_id=record.slide_id))
        tiles = folder / f"{record.slide_id}.h5"
        labels = read_labels(tiles, annotation, cfg.min_cover)
        if labels is None:
            continue
        file = open_features(root / record.path)
        coords = read_coords(file)
        if coords is None:
            continue
        names = _match(labels, coords)
        rows = np.flatnonzero(names != "")
        rows = rows[spread(len(rows), cfg.tiles_per_slide)]
        if len(rows):
            x = read_level(file, cfg.level, rows).astype(np.float32)
            parts.append((x, names[rows], case_of[record.slide_id]))
    if not parts:
        return None
    classes, y = np.unique(
        np.concatenate([n for _, n, _ in parts]).astype(str), return_inverse=True
    )
    cases, numbers = np.unique([case for _, _, case in parts], return_inverse=True)
    return Tiles(
        x=np.concatenate([x for x, _, _ in parts]),
        y=y.astype(np.int64),
        classes=tuple(str(name) for name in classes),
        groups=np.repeat(numbers, [len(x) for x, _, _ in parts]),
        n_slides=len(parts),
        n_cases=len(cases),
    )


def _match(labels: TileLabels, coords: np.ndarray) -> np.ndarray:
    """The class of each tile of a feature file: object (N,), '' where unknown."""
    known = {(int(x), int(y)): n for (x, y), n in zip(labels.coords, labels.names, strict=True)}
    return np.array([known.get((int(x), int(y)), "") for x, y in coords], dtype=object)
