"""The labelled tiles that all teachers have, with every teacher's features of each."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.bags.files import FeatureFile, open_features, read_coords, read_level
from pipeline.bags.sampling import spread
from pipeline.config.probing import ProbingConfig
from pipeline.contracts.ledger import Record
from pipeline.files.names import as_on_disk
from pipeline.probing.gather import Tiles
from pipeline.probing.labels import read_labels

Features = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a teacher's features are.

    Attributes:
        records: slide -> the record of its features, of slides that have some.
        tiles: folder of the tiles that it saw.
    """

    records: Mapping[str, Record]
    tiles: Path


@dataclasses.dataclass(frozen=True)
class Joint:
    """Labelled tiles that every teacher has.

    Attributes:
        features: teacher -> level -> float16 or float32 (N, d), the same tiles in the same order.
        tiles: the labels; `x` is empty.
        left: teachers that see other tiles than most, and take no part.
    """

    features: Features
    tiles: Tiles
    left: list[str]

    def of(self, level: str, *teachers: str) -> Tiles:
        """The tiles with one level of some teachers side by side."""
        parts = [self.features[teacher][level].astype(np.float32) for teacher in teachers]
        return dataclasses.replace(self.tiles, x=np.concatenate(parts, axis=1))


def gather_together(
    cfg: ProbingConfig,
    sources: Mapping[str, Source],
    case_of: Mapping[str, str],
    root: Path,
    base: Path,
) -> Joint | None:
    """Read the features of all labelled tiles that every teacher has.

    Args:
        cfg: the stage's config.
        sources: teacher -> where its features are; those of another scale than most are left out.
        case_of: slide -> case.
        root: the results folder.
        base: folder that `cfg.annotations` starts from.

    Returns:
        None without any such tile.

    Raises:
        UserError: an annotation cannot be read.
        ArtifactError: a feature file is damaged.
    """
    counts = Counter(source.tiles for source in sources.values())
    folder = min(counts, key=lambda tiles: (-counts[tiles], str(tiles)))
    kept = {name: source for name, source in sources.items() if source.tiles == folder}
    slides = sorted(set.intersection(*(set(source.records) for source in kept.values())))
    parts: list[tuple[Features, np.ndarray, str]] = []
    for slide in slides:
        annotation = None
        if cfg.annotations is not None:
            annotation = as_on_disk(base / cfg.annotations.format(slide_id=slide))
        labels = read_labels(folder / f"{slide}.h5", annotation, cfg.min_cover)
        if labels is None:
            continue
        files = {t: open_features(root / source.records[slide].path) for t, source in kept.items()}
        places = {t: _places(file) for t, file in files.items()}
        named = [
            (place, name)
            for place, name in zip(map(tuple, labels.coords.tolist()), labels.names, strict=True)
            if name and all(place in found for found in places.values())
        ]
        chosen = [named[i] for i in spread(len(named), cfg.tiles_per_slide)]
        if chosen:
            rows = {t: np.array([places[t][place] for place, _ in chosen]) for t in files}
            read = {t: _read(file, rows[t]) for t, file in files.items()}
            parts.append((read, np.array([name for _, name in chosen]), case_of[slide]))
    if not parts:
        return None
    names, y = np.unique(np.concatenate([n for _, n, _ in parts]), return_inverse=True)
    cases, numbers = np.unique([case for _, _, case in parts], return_inverse=True)
    tiles = Tiles(
        x=np.zeros((len(y), 0), np.float32),
        y=y.astype(np.int64),
        classes=tuple(str(name) for name in names),
        groups=np.repeat(numbers, [len(n) for _, n, _ in parts]),
        n_slides=len(parts),
        n_cases=len(cases),
    )
    return Joint(_joined([read for read, _, _ in parts]), tiles, sorted(set(sources) - set(kept)))


def _places(file: FeatureFile) -> dict[tuple[int, int], int]:
    """Level-0 (x, y) -> row of a feature file; empty where it has no coordinates."""
    coords = read_coords(file)
    rows = [] if coords is None else coords.tolist()
    return {(int(x), int(y)): row for row, (x, y) in enumerate(rows)}


def _read(file: FeatureFile, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Every level's rows, in the order of `rows`."""
    order = np.argsort(rows)
    back = np.argsort(order)
    return {level: read_level(file, level, rows[order])[back] for level in file.dims}


def _joined(parts: Sequence[Features]) -> Features:
    """The slides' features end to end; a level that a slide lacks is left out."""
    first = parts[0]
    return {
        teacher: {
            level: np.concatenate([part[teacher][level] for part in parts])
            for level in first[teacher]
            if all(level in part[teacher] for part in parts)
        }
        for teacher in first
    }
