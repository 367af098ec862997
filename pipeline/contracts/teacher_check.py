"""`features/<teacher>/check.json`: what a teacher's preflight found.

Written by the preflight; read by extraction, which asks for the revision that was checked, and by
the plan.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.files.artifacts import write_json
from pipeline.files.typed_json import read_typed

FILE = "check.json"


@dataclasses.dataclass(frozen=True)
class TeacherCheck:
    """A teacher that is ready.

    Attributes:
        dims: level -> width.
        pooling: of the output.
        parameters: of the network.
        weights, revision, identity: where its weights come from, and which they are.
        teacher: its name in the config.
        verified: what was compared with something known, e.g. `licence`.
        gflop_per_tile: 10^9 floating-point operations; None of a slide encoder.
        transform: what a tile goes through before it; None of a slide encoder.
        sha256, sha256_expected: of the weights' file, and whether one was asked for; None for
            random weights.
        model, licence: of a teacher of the registry.
        prefix_tokens, patch: of a transformer of the registry.
    """

    dims: dict[str, int]
    pooling: str
    parameters: int
    weights: str
    revision: str
    identity: str
    teacher: str
    verified: list[str]
    gflop_per_tile: float | None = None
    transform: str | None = None
    sha256: str | None = None
    sha256_expected: bool | None = None
    model: str | None = None
    licence: str | None = None
    prefix_tokens: int | None = None
    patch: int | None = None


def path_of(root: Path, teacher: str) -> Path:
    """Where the check of a teacher is.

    Args:
        root: the results folder.
        teacher: its name.
    """
    return root / "features" / teacher / FILE


def write_teacher_check(path: Path, check: TeacherCheck) -> None:
    """Write it, without what does not apply, so that equal facts give equal bytes."""
    data = {key: found for key, found in dataclasses.asdict(check).items() if found is not None}
    write_json(path, data)


def read_teacher_check(root: Path, teacher: str) -> TeacherCheck | None:
    """What the preflight of a teacher found; None if it was not run.

    Args:
        root: the results folder.
        teacher: its name.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = path_of(root, teacher)
    return read_typed(path, TeacherCheck) if path.is_file() else None
