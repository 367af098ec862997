"""`probing/robustness/<teacher>.json`: what shifts do to one teacher's embeddings.

Written by probing; read by the report.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.files.artifacts import write_json
from pipeline.files.typed_json import read_typed

FOLDER = "probing/robustness"


@dataclasses.dataclass(frozen=True)
class ShiftRow:
    """One shift of one strength.

    Attributes:
        shift, strength: of which kind, and how strong.
        cosine: of a tile's embedding and that of the clean tile; mean over the tiles.
        centred: the same after the mean of all clean embeddings was taken off: what is common to
            all tiles makes any two of them alike.
        found: share of the tiles whose own clean tile is the nearest of all clean ones.
        score: balanced accuracy of a probe that has learned from clean tiles; None without classes.
        loss: of it against the score on clean tiles.
        low, high: of its interval, paired by case.
    """

    shift: str
    strength: float
    cosine: float
    centred: float
    found: float
    score: float | None = None
    loss: float | None = None
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True)
class Robustness:
    """One teacher.

    Attributes:
        teacher, level: whose embeddings, and of which level.
        n_tiles, n_slides, n_cases: that they come from.
        unreadable: tiles that were to be read and cannot be.
        reason: why there is no score; empty where there is.
        clean: balanced accuracy on clean tiles; None without classes.
        rows: of all shifts.
    """

    teacher: str
    level: str
    n_tiles: int
    n_slides: int
    n_cases: int
    unreadable: int
    reason: str
    clean: float | None
    rows: list[ShiftRow]


def write_robustness(root: Path, found: Robustness) -> None:
    """Write one teacher's.

    Args:
        root: the results folder.
        found: the teacher's.
    """
    write_json(root / FOLDER / f"{found.teacher}.json", dataclasses.asdict(found))


def read_robustness(root: Path, teacher: str) -> Robustness:
    """Read one teacher's.

    Args:
        root: the results folder.
        teacher: its name.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / FOLDER / f"{teacher}.json", Robustness)
