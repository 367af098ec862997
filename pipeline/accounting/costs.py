"""What a run is reckoned in: gigabytes, GFLOP, hours, and how much works at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.extraction import TeacherConfig
from pipeline.contracts.teacher_check import TeacherCheck, read_teacher_check
from pipeline.errors import ArtifactError

GIGABYTE = 1e9
# Tiling reads a slide's overview: the time goes with its area.
SLIDE_HOURS, UM2_AN_HOUR = 1 / 3600, 5e10


@dataclasses.dataclass(frozen=True)
class Concurrency:
    """What works at once, and how long a job waits before it starts.

    Attributes:
        gpus: GPU jobs at once, of one GPU each.
        jobs: other jobs at once.
        queue_hours: time that a job stands in the queue although its turn has come.
    """

    gpus: int = 1
    jobs: int = 8
    queue_hours: float = 0.0


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast a run's jobs are.

    Attributes:
        gpu: whether the networks run on a GPU.
        tflops: what a job sustains on the teachers' networks, in TFLOP/s.
        start_hours: until a job does its work.
        tiling_slide_hours: of one slide; None: by its area.
        measured: where the rates come from, in words; empty where they are assumed.
    """

    gpu: bool
    tflops: float
    start_hours: float
    tiling_slide_hours: float | None = None
    measured: str = ""

    def tiling_hours(self, area: float) -> float:
        """Of one slide of so many µm²."""
        if self.tiling_slide_hours is not None:
            return self.tiling_slide_hours
        return SLIDE_HOURS + area / UM2_AN_HOUR


@dataclasses.dataclass(frozen=True)
class TeacherCost:
    """One teacher's share; None where nothing is known without building the model.

    `device_hours` are those of a GPU, or of a job's cores where there is none.
    """

    name: str
    gflop_per_tile: float | None
    device_hours: float | None
    gigabytes: float | None


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run would do.

    Attributes:
        slides, cases, chunks: how many.
        sampled: how many slide headers were read.
        gigabytes_read: size of the slide files, once per group of teachers that share a decoding,
            and once for tiling's overviews, which read a small part only.
        tiles: expected over all slides; None where no slide could be sampled.
        wall_hours: up to the last feature; None where some teacher's cost is not known.
        further: lines about stages that follow the features.
    """

    slides: int
    cases: int
    chunks: int
    sampled: int
    gigabytes_read: float | None
    tiles: int | None
    teachers: tuple[TeacherCost, ...]
    pace: Pace
    concurrency: Concurrency
    wall_hours: float | None
    tile_px: int
    target_mpp: float
    further: tuple[str, ...] = ()

    @property
    def gigabytes_written(self) -> float | None:
        """Features and coordinates of all teachers."""
        known = [t.gigabytes for t in self.teachers if t.gigabytes is not None]
        return sum(known) if known else None


def gflop_per_tile(name: str, facts: TeacherConfig, root: Path | None = None) -> float | None:
    """What a teacher computes per tile: counted by its preflight, or reckoned from its row.

    A vision transformer costs two FLOPs per parameter and token, attention itself aside.

    Args:
        name: the teacher.
        facts: its config.
        root: the cohort's results folder, where the preflight may have been.

    Returns:
        None where the preflight was not run and the registry does not know the network, or it has
        no patches.
    """
    from pipeline.encoders import registry

    found = preflight(root, name)
    if found is not None:
        return found.gflop_per_tile
    if not facts.in_registry:
        return None
    row = registry.resolve(facts.model or name)
    if not row.patch:
        return None
    side = (facts.input_px or row.crop) // row.patch
    return 2 * row.params * (side**2 + row.tokens) / 1e9


def values_per_tile(
    name: str, facts: TeacherConfig, levels: Sequence[str], root: Path | None = None
) -> int | None:
    """Numbers that a teacher's levels have per tile; None where nothing is known yet.

    Args:
        name: the teacher's name in the config.
        facts: its settings.
        levels: which levels are written.
        root: the cohort's results folder, where a preflight may have noted its widths; None: none.
    """
    from pipeline.encoders import registry

    found = preflight(root, name)
    if found is not None:
        return sum(found.dims.get(level, 0) for level in levels)
    if not facts.in_registry:
        return None
    return registry.resolve(facts.model or name).dim * len(levels)


def preflight(root: Path | None, name: str) -> TeacherCheck | None:
    """What `extraction_check` found of a teacher; None if it was not run, or is damaged."""
    if root is None:
        return None
    try:
        return read_teacher_check(root, name)
    except (OSError, ArtifactError):
        return None
