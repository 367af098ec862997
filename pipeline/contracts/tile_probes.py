"""The JSON files of `probing/`: how well tiles tell tissue classes apart.

Written by probing; read by the report.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.files.artifacts import write_json
from pipeline.files.typed_json import read_typed

STUDENTS = "all/students.json"
GAINS = "all/gains.json"


@dataclasses.dataclass(frozen=True)
class ProbeRow:
    """One metric of one probe of a teacher.

    Attributes:
        probe: e.g. `logistic` or `knn_20`.
        training: `all`, a portion of the tiles, or shots per class.
        metric: e.g. `auc`.
        value: on held-out tiles of all folds.
        low, high: of its interval; None where it has none.
        fold_std: of the folds' values.
        n_train, n_test: tiles, mean over folds.
    """

    probe: str
    training: str
    metric: str
    value: float
    low: float | None
    high: float | None
    fold_std: float
    n_train: int
    n_test: int


@dataclasses.dataclass(frozen=True)
class TeacherProbes:
    """One teacher's tiles.

    Attributes:
        teacher, level: whose features, and of which level.
        reason: why nothing was measured; '' where it was.
        rows: of all probes.
        classes: class -> tiles; None, as the counts, where no tile has a class.
        n_tiles, n_slides, n_cases: with a class.
        confusion: probe trained on all tiles -> (true, predicted) counts; None without rows.
        by_case: the same of each case, in the order of the cases' names.
    """

    teacher: str
    level: str
    reason: str
    rows: list[ProbeRow]
    classes: dict[str, int] | None = None
    n_tiles: int | None = None
    n_slides: int | None = None
    n_cases: int | None = None
    confusion: dict[str, list[list[int]]] | None = None
    by_case: dict[str, list[list[list[int]]]] | None = None


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One metric of one model of tiles.

    Attributes:
        model: a teacher, `concatenation`, or a student.
        probe: `student`, or the probe of its features.
        metric, value, low, high, fold_std, n_train, n_test: as in `ProbeRow`.
        n_parameters: trained; None for a model without.
    """

    model: str
    probe: str
    metric: str
    value: float
    low: float | None
    high: float | None
    fold_std: float
    n_train: int
    n_test: int
    n_parameters: int | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A model against the best teacher, paired by case.

    Attributes:
        model, other: their names.
        metric: which is compared.
        difference, low, high: of the model's value minus the other's.
        p_value: two-sided, of the bootstrap.
    """

    model: str
    other: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float


@dataclasses.dataclass(frozen=True)
class Gain:
    """A trained encoder against itself before it was trained, on the same tiles.

    Attributes:
        teacher, control: their names.
        probe: of the tiles.
        value, before: their balanced accuracies.
        difference, low, high: of these, paired by case.
        p_value: two-sided, of the bootstrap.
        n_cases: that are resampled.
    """

    teacher: str
    control: str
    probe: str
    value: float
    before: float
    difference: float
    low: float
    high: float
    p_value: float
    n_cases: int


@dataclasses.dataclass(frozen=True)
class Gains:
    """What training gave encoders that the workflow made.

    Attributes:
        rows: of each encoder and probe.
        absent: encoders that could not be compared, with the reason.
    """

    rows: list[Gain]
    absent: dict[str, str]


@dataclasses.dataclass(frozen=True)
class TileStudents:
    """All teachers' tiles at once.

    Attributes:
        reason: why nothing was measured; '' where it was.
        left: teachers whose tiles have another scale.
        rows: of all models.
        comparisons: of students and of the concatenation with the best teacher.
        classes: class -> tiles; None, as what follows, where no tile has a class.
        n_tiles, n_slides, n_cases: with a class.
        teachers: that have all these tiles.
    """

    reason: str
    left: list[str]
    rows: list[ModelRow]
    comparisons: list[Comparison]
    classes: dict[str, int] | None = None
    n_tiles: int | None = None
    n_slides: int | None = None
    n_cases: int | None = None
    teachers: list[str] | None = None


def write_teacher_probes(root: Path, probes: TeacherProbes) -> None:
    """Write `probing/<teacher>.json`, without what is None."""
    _write(root / "probing" / f"{probes.teacher}.json", probes)


def read_teacher_probes(root: Path, teacher: str) -> TeacherProbes:
    """Read `probing/<teacher>.json`.

    Args:
        root: the results folder.
        teacher: its name.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / "probing" / f"{teacher}.json", TeacherProbes)


def write_tile_students(root: Path, students: TileStudents) -> None:
    """Write `probing/all/students.json`, without what is None."""
    _write(root / "probing" / STUDENTS, students)


def read_tile_students(root: Path) -> TileStudents:
    """Read `probing/all/students.json`.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / "probing" / STUDENTS, TileStudents)


def write_gains(root: Path, gains: Gains) -> None:
    """Write `probing/all/gains.json`."""
    write_json(root / "probing" / GAINS, dataclasses.asdict(gains))


def read_gains(root: Path) -> Gains:
    """Read `probing/all/gains.json`.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / "probing" / GAINS, Gains)


def _write(path: Path, value: TeacherProbes | TileStudents) -> None:
    data = {key: found for key, found in dataclasses.asdict(value).items() if found is not None}
    write_json(path, data)
