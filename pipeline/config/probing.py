"""`probing:`, what each teacher's tiles tell without any training of ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.extraction import TeacherConfig
from pipeline.config.section import Count, Fraction, Level, Section


class RobustnessConfig(Section):
    """The same tiles as another laboratory or scanner might have made them: kinds and strengths."""

    tiles: Count = 300
    stain: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.1, 0.3)
    blur: tuple[Annotated[float, Field(gt=0, le=10)], ...] = (1.0, 2.0)
    jpeg: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (60, 20)
    scale: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = (0.8, 1.25)

    def shifts(self) -> list[tuple[str, float]]:
        """Kind and strength of each."""
        kinds = ("stain", "blur", "jpeg", "scale")
        return [(kind, float(value)) for kind in kinds for value in getattr(self, kind)]

    @model_validator(mode="after")
    def _some(self) -> RobustnessConfig:
        if not self.shifts():
            raise ValueError("robustness: no shift has a strength; write null to leave it out")
        return self


class ProbingConfig(Section):
    """How well each teacher's tiles tell tissue classes apart, without any training of ours."""

    annotations: str | None = None
    level: Level = "high"
    folds: int = Field(5, ge=2, le=50)
    tiles_per_slide: int | None = Field(200, ge=1)
    min_cover: Fraction = 0.5
    members: int = Field(30, ge=0)
    neighbours: tuple[Annotated[int, Field(ge=1)], ...] = (1, 20)
    shots: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 20)
    episodes: int = Field(50, ge=2)
    portions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0,)
    bootstraps: int = Field(500, ge=50)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    students: tuple[Literal["shazam_v1", "shazam_v2"], ...] = ()
    epochs: int = Field(30, ge=1)
    robustness: RobustnessConfig | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _pattern(self) -> ProbingConfig:
        if self.annotations is not None and "{slide_id}" not in self.annotations:
            raise ValueError("annotations: the path needs {slide_id}, one file per slide")
        return self


class ProbingJob(Section):
    """One teacher's probes.

    Attributes:
        manifests: folder of `features/` that says what became of the teacher's slides.
        tiles: folder of the tiles that it saw.
        annotations: digest of the annotation files.
    """

    probing: ProbingConfig
    manifests: str
    tiles: str
    annotations: str


class RobustnessJob(Section):
    """One teacher under shifts.

    Attributes:
        probing: shifts, level, folds, bootstraps and annotations.
        settings: of the teacher.
        facts: its row of the registry, and which weights it has.
        precision, weights_dir: as extraction has them.
        tiles: folder of the tiles that it saw.
        annotations: digest of the annotation files.
    """

    probing: ProbingConfig
    settings: TeacherConfig
    facts: dict[str, Any]
    precision: str
    weights_dir: str | None
    tiles: str
    annotations: str


class ProbingGainsJob(Section):
    """What training gave encoders that the workflow made.

    Attributes:
        probing: its bootstraps, confidence and seed.
        pairs: encoder -> itself before it was trained.
    """

    probing: ProbingConfig
    pairs: dict[str, str]


class TileStudentsJob(Section):
    """All teachers' tiles at once: `manifests` and `tiles` by teacher, else as `ProbingJob`."""

    probing: ProbingConfig
    manifests: dict[str, str]
    tiles: dict[str, str]
    annotations: str
